"""Comparisons of forecasts: against posteriors known exactly, closed forms of scores, and refits without a row."""

from dataclasses import replace

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from conjugate import posterior, predictive, problem_of
from numpy.testing import assert_allclose
from oracles.compiling import lightly
from refusals import assert_refused
from scipy import stats
from simulated import series

from walras.calibrate import NUTS, Comparison, ForeseenPrices, Prior, Problem, StochasticPrices, fit
from walras.calibrate.comparisons import baselines
from walras.calibrate.comparisons.comparing import compare, mean_error
from walras.calibrate.comparisons.leaving_out import RELIABLE, functions, leave_one_out
from walras.calibrate.comparisons.rolling import _scorer, crps, rolling_scores
from walras.calibrate.predictions.predictive import law_at
from walras.calibrate.trading_costs.law import ReturnsAndVolume

ROWS = 30
SAMPLER = NUTS(chains=4, warmup=200, draws=500)
# The log of a mean density over 400 draws of a level that is known to a fifth of the noise: its standard error is below 0.02
# where an observation is within three standard deviations. Five of them.
SCORED = 0.1
# A mean absolute difference of 1600 values from 400 levels has a standard error of 2 %; five of them.
RANKED = 0.1


def prices(outlier=False):
    made = 1.0 + 0.5 * np.random.default_rng(4).normal(size=ROWS)
    made[ROWS - 4] = 4.5 if outlier else made[ROWS - 4]
    return made


@pytest.fixture(scope="module")
def fitted():
    problem = problem_of(prices())
    return problem, fit(problem, SAMPLER, key=jax.random.key(0))


@pytest.fixture(scope="module")
def exact(fitted):
    return rolling_scores(fitted[0], SAMPLER, key=jax.random.key(1), exact=True, horizon=3)


def normal_crps(law, value):
    """Gneiting and Raftery (2007), equation 21."""
    z = (value - law.mean()) / law.std()
    return law.std() * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))


def test_crps_of_draws_is_that_of_their_law():
    """A hundred thousand quantiles of a normal law, against its closed form; and by the definition, of five draws."""
    law = stats.norm(0.3, 2.0)
    values = np.array([-4.0, 0.3, 1.0, 9.0])
    draws = law.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None] + np.zeros(4)
    assert_allclose(crps(draws, values), normal_crps(law, values), rtol=1e-4)
    few = np.random.default_rng(0).normal(size=(5, 1))
    pairs = np.abs(few - few.T)
    assert_allclose(crps(few, np.array([0.2])), np.abs(few - 0.2).mean() - 0.5 * pairs.sum() / (5 * 4), rtol=1e-12)
    assert np.isnan(crps(few, np.array([np.nan]))).all()


@pytest.mark.statistical
def test_leaving_the_future_out_is_exact(exact):
    """Every forecast is scored by the posterior of the rows before it alone. False alarms: below 1e-5, by the tolerances."""
    for row in range(18, ROWS):
        law = predictive(prices()[:row])
        ahead = prices()[row : row + 3]
        assert_allclose(exact.log_score[row, : ahead.size], law.logpdf(ahead), atol=SCORED)
        assert_allclose(exact.crps[row, : ahead.size], normal_crps(law, ahead), rtol=RANKED, atol=0.03)
        assert np.isnan(exact.log_score[row, ahead.size :]).all()
    assert np.isnan(exact.log_score[:18]).all() and np.isnan(exact.crps[:18]).all()


def test_scores_of_parameters_that_saw_the_future_are_told_apart(fitted):
    """The negative control: one refit for all rows must not pass for leave-future-out where the level has moved."""
    moved = np.where(np.arange(ROWS) < 18, 0.0, 3.0) + prices()
    problem = problem_of(moved)
    fit(problem, SAMPLER, key=jax.random.key(0))
    scores = rolling_scores(problem, SAMPLER, key=jax.random.key(1), origins=1)
    row = ROWS - 1
    assert abs(scores.log_score[row, 0] - predictive(moved[:row]).logpdf(moved[row])) > 5 * SCORED


def test_scores_depend_on_the_key_alone(fitted):
    first, again = (rolling_scores(fitted[0], SAMPLER, key=jax.random.key(1), origins=2, horizon=2) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.statistical
def test_an_outlier_is_left_out_exactly_after_matching():
    """A price fourteen standard deviations out moves the level so far that importance sampling alone is unreliable.

    Matched, every score is that of the known law of the rest within 0.15 nats, of 100 in that row: about five standard errors.
    """
    seen = prices(outlier=True)
    problem = problem_of(seen, noise=0.25, scale=5.0)
    tree = fit(problem, SAMPLER, key=jax.random.key(0))
    expected = [predictive(np.delete(seen, row), noise=0.25, scale=5.0).logpdf(seen[row]) for row in range(ROWS)]
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        assert az.loo(tree, pointwise=True).pareto_k[ROWS - 4] > RELIABLE
    found = leave_one_out(problem, tree)
    assert (found.pareto_k <= RELIABLE).all()
    assert_allclose(found.elpd_i, expected, atol=0.15)
    assert_allclose(found.elpd, found.elpd_i.sum())


def test_unconstrained_functions_are_the_posterior_and_the_leave_one_out_density(fitted):
    problem, tree = fitted
    vectors, log_density, log_left_out = functions(problem, tree)
    flat = vectors.reshape(-1, vectors.shape[-1])[:5]
    mean, sd = posterior(prices())
    expected = stats.norm(mean, sd).logpdf(flat[:, 0])
    found = np.asarray(log_density(jnp.asarray(flat)))
    assert_allclose(found - found[0], expected - expected[0], atol=1e-9)
    assert_allclose(vectors[..., 0], tree["posterior"]["level"])
    assert_allclose(log_left_out(jnp.asarray(flat), 7), tree["log_likelihood"]["price"].to_numpy().reshape(-1, ROWS)[:5, 7])


LAWS = {
    "stationary": Problem(
        "stationary",
        series(30, seed=2, missing=[("price", 4), ("supply", 9)]),
        StochasticPrices(errors="ar1", demand=("holiday",), instruments=("storm",)),
    ),
    "foreseen": Problem("price_formation", series(30, seed=2), ForeseenPrices(errors="ar1")),
}


def middle(problem) -> dict:
    """The parameters that have a prior, at its median."""
    laws = {name: prior.distribution() for name, prior in problem.priors.items() if isinstance(prior, Prior)}
    keys = jax.random.split(jax.random.key(0), 101)
    return {name: jnp.median(jax.vmap(law.sample)(keys), axis=0) for name, law in laws.items()}


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["foreseen", pytest.param("stationary", marks=pytest.mark.slow)])
def test_several_rows_ahead_the_density_is_that_of_simulated_futures(name):
    """The law h rows ahead from masked rows, against its mean and spread over tables completed at random, or by the formula.

    Means of 4000 futures within five standard errors, standard deviations within 8 %: a false alarm in 1e-5 of keys.
    """
    problem = LAWS[name]
    values = {**middle(problem), "error_persistence": jnp.asarray(0.6)}
    past = problem.observed.at[20:].set(jnp.nan)

    def both(key):
        law = law_at(problem, values)
        ahead = law.one_step_ahead(past)
        return (
            ahead.mean,
            jnp.sqrt(ahead.variance),
            *((law.complete(key, past),) if name == "stationary" else (law.mean_price,)),
        )

    mean, sd, other = jax.jit(lambda keys: jax.lax.map(both, keys))(jax.random.split(jax.random.key(3), 4000))
    mean, sd = mean[0, 20:], sd[0, 20:]
    if name == "stationary":
        futures = other[:, 20:, 0]
        assert_allclose(futures.mean(0), mean, atol=float(5 * sd.max() / np.sqrt(4000)))
        assert_allclose(futures.std(0), sd, rtol=0.08)
        return
    steps = np.arange(1, 11)
    error = float(past[19, 0] - other[0, 19])
    assert_allclose(mean, other[0, 20:] + 0.6**steps * error, rtol=1e-9)
    assert_allclose(sd, values["price_noise"] * np.sqrt(1 - 0.36**steps), rtol=1e-9)


def test_one_row_ahead_is_the_first_of_several(fitted):
    """Two routes: one pass through all rows, and a pass for each row with what follows masked."""
    problem = LAWS["stationary"]
    draws = {name: jnp.stack([value, 1.01 * value]) for name, value in middle(problem).items()}
    one, two = (_scorer(problem, horizon)(draws, 18, 30, jax.random.key(0)) for horizon in (1, 2))
    assert_allclose(one.log_score[:, 0], two.log_score[:, 0], rtol=1e-9)


def test_volumes_ahead_spread_as_returns_go_missing():
    """x forgets what it was: many rows after the last return it has its stationary law, of variance one."""
    rates = {"reversion": 0.1, "volatility": 0.01, "drift": 0.0, "feedback": 0.001, "first": 0.4}
    law = ReturnsAndVolume(20, **rates, level=0.0, share=0.3, noise=0.2)
    spread = lightly(lambda table: law.one_step_ahead(table).spread)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)) * 0.01).at[0, 1].set(jnp.nan)
    kept = np.exp(-0.1)
    grown = [(1 - kept**2) * sum(kept ** (2 * j) for j in range(n)) for n in range(1, 6)]
    assert_allclose(spread(table.at[10:].set(jnp.nan))[10:15] ** 2, grown)
    # In the first row x is known, though no return is.
    assert_allclose(spread(table.at[1:].set(jnp.nan))[:5] ** 2, [0.0, *grown[:4]], atol=1e-15)
    assert_allclose(spread(table)[1:] ** 2, grown[0])


def test_the_lagged_regression_several_rows_ahead():
    """With no drivers and no supply it is an autoregression: statsmodels' forecast and its spread, without parameter error.

    400 rows, so that parameters hardly matter: within five percent.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=420)
    price = sm.tsa.ArmaProcess([1, -0.7]).generate_sample(420, distrvs=lambda size: noise) + 3.0
    frame = pd.DataFrame({"price": price}, index=pd.RangeIndex(420, name="time"))
    found = {row: (mean, scale) for row, mean, scale in baselines._regressions(frame, "price", 400, 420, 6, rng)}
    fitted = sm.OLS(price[1:400], sm.add_constant(price[:399])).fit()
    constant, slope = fitted.params
    for row in (400, 410):
        mean, scale = found[row]
        steps = np.arange(1, 7)
        expected = slope**steps * price[row - 1] + constant * (1 - slope**steps) / (1 - slope)
        assert_allclose(mean.mean(0), expected, atol=0.1)
        spread = np.sqrt(fitted.scale * (1 - slope ** (2 * steps)) / (1 - slope**2))
        assert_allclose(np.hypot(mean.std(0), np.mean(scale)), spread, rtol=0.05)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_simulated_baselines_have_their_exact_density_one_row_ahead(name):
    """The first step of the simulated paths, against the Student-t that integrates the parameters."""
    frame = series(60, seed=1)[["price", "supply", "storm"]]
    rng = np.random.default_rng(0)
    simulate = baselines._random_walk if name == "last price" else baselines._regressions
    exact = baselines.scores(baselines.BASELINES[name], frame, "price", [40], [60])
    for row, mean, scale in simulate(frame, "price", 40, 60, 2, rng):
        density = stats.norm.pdf(frame["price"].iloc[row], mean[:, 0], scale[:, 0])
        assert_allclose(np.log(density.mean()), exact[row], atol=5 * density.std() / density.mean() / np.sqrt(density.size))


def test_a_random_walk_spreads_with_the_root_of_time():
    frame = series(60, seed=1)
    found = baselines.rolling_scores("last price", frame, "price", [40], [60], 4, np.random.default_rng(0))
    change = np.diff(frame["price"].to_numpy()[:40])
    law = stats.t(39, frame["price"].iloc[44], np.sqrt(np.mean(change**2) * 3))
    assert_allclose(found.log_score[45, 2], law.logpdf(frame["price"].iloc[47]), atol=0.02)


def test_the_error_of_a_mean_of_overlapping_forecasts():
    """statsmodels' HAC errors with the same kernel, but for its factor n / (n − 1)."""
    values = np.random.default_rng(0).normal(size=50).cumsum()
    hac = sm.OLS(values, np.ones(50)).fit(cov_type="HAC", cov_kwds={"maxlags": 3}).bse[0]
    assert_allclose(mean_error(values, 3), hac * np.sqrt(50 / 49), rtol=1e-10)
    assert_allclose(mean_error(values, 0), values.std(ddof=1) / np.sqrt(50), rtol=1e-12)


@pytest.fixture(scope="module")
def compared(fitted, exact):
    return compare({"level": fitted}, key=jax.random.key(2), horizon=3, exact=True, rolling={"level": exact}, sampler=SAMPLER)


def test_a_comparison_by_horizon(compared, exact):
    """Means of the rows that every model forecasts; differences to the best of the same horizon."""
    table = compared.horizons.xs(3, level="horizon")
    assert (table["rows"] == ROWS - 18 - 2).all()
    assert_allclose(table.loc["level", "log_score"], exact.log_score[18:28, 2].mean())
    assert_allclose(table.loc["level", "crps"], exact.crps[18:28, 2].mean())
    best = table.index[0]
    assert table["log_score"].is_monotonic_decreasing and table.loc[best, "log_difference"] == 0.0
    assert_allclose(table["log_difference"], table["log_score"] - table.loc[best, "log_score"], atol=1e-12)
    assert_allclose(table["crps_difference"], table["crps"] - table.loc[best, "crps"], atol=1e-12)
    assert_allclose(compared.table.loc["level", "crps"], exact.crps[18:, 0].mean())
    assert "refitted before every row" in compared.text and "3 rows ahead" in compared.text


def test_a_comparison_is_kept_and_told(compared, tmp_path):
    compared.save(tmp_path)
    again = Comparison.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, compared.table)
    pd.testing.assert_frame_equal(again.horizons, compared.horizons)
    assert again.text == compared.text
    ((heading, body, figure),) = again.story()
    assert heading == "Leave-future-out scores" and body[0] == again.text
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 3
    plt.close(figure)


def test_what_a_score_leaves_out_is_told(fitted, exact, compared):
    assert "no density" not in compared.text and "benchmark" not in compared.text
    assert "no forecast but a benchmark: 'level'" in replace(compared, foreseeing=("level",)).text
    known, latent = ForeseenPrices(supply="known"), ForeseenPrices(supply="latent")
    assert known.foresees and not latent.foresees and not StochasticPrices().foresees
    partial = exact.log_score.copy()
    partial[20:22] = np.nan
    told = compare({"level": fitted}, key=jax.random.key(2), horizon=3, rolling={"level": exact._replace(log_score=partial)})
    assert told.unscored == {"level": 2} and "Over the last 10 scored rows" in told.text
    assert "'level' has no density in 2 rows" in told.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"horizon": 7}, ["horizon is 7", "12 scored rows", "from 1 to 6"]),
        ({"horizon": 0}, ["horizon is 0", "from 1 to 6"]),
        ({"horizon": 1.5}, ["horizon is 1.5", "whole number"]),
        ({"origins": 0}, ["origins is 0", "at least 1"]),
        ({"share": 1.0}, ["share is 1.0", "between 0 and 1"]),
        ({"origins": 30}, ["30 rows", "too few for 30 rolling origins"]),
        ({"exact": True, "share": 0.8}, ["30 rows", "too few", "smaller share"]),
    ],
)
def test_what_cannot_be_scored(fitted, options, told):
    assert_refused(lambda: compare({"level": fitted}, key=jax.random.key(0), **options), told)


def test_names_of_naive_forecasts_are_taken(fitted):
    assert_refused(lambda: compare({"last price": fitted}, key=jax.random.key(0)), ["'last price'", "another name"])


def test_no_fit_at_all():
    assert_refused(lambda: compare({}, key=jax.random.key(0)), ["fits is empty"])


def test_rows_without_time_have_no_future(fitted):
    pairs = pd.MultiIndex.from_product([range(15), range(2)], names=["auction", "bidder"])
    data = fitted[0].data.set_axis(pairs)
    problem = fitted[0].with_data(data)
    for options, told in (({"exact": True}, "exact is true"), ({"horizon": 2}, "horizon is 2")):
        assert_refused(
            lambda options=options: rolling_scores(problem, SAMPLER, key=jax.random.key(0), **options),
            [told, "not one series in time", "exact=False"],
        )
