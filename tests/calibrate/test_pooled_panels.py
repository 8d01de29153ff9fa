"""Panels in one posterior: shared parameters, populations, and what markets have of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from numpy.testing import assert_allclose
from panels import NOISE, NoisyLevel, forward, level, panel_of, prices

from walras.calibrate import (
    NUTS,
    CalibrationError,
    ForeseenPrices,
    Markets,
    Prior,
    Problem,
    StochasticPrices,
    check,
    fit,
    posterior_predictive,
    report,
    scenario,
    sensitivity,
)
from walras.calibrate.predictions.predictive import unforecastable
from walras.calibrate.reporting.plots import plot_fit
from walras.calibrate.run import one_step_table

# The same sum of log densities in another order.
EXACT = 1e-10
FORESEEN = {"price_level": 10.0, "price_trend": 0.01, "trading_cost": 0.5, "holding_cost": 0.02, "price_noise": 0.4}
STATIONARY = {"price_level": 10.0, "price_impact": 0.5, "absorption": 0.3, "holding_cost": 0.02, "depreciation": 0.3}
STATIONARY |= {"supply_reversion": 4.0, "supply_sd": 1.0, "supply_mean": 3.0, "price_noise": 0.4}


@pytest.mark.parametrize(
    ("market", "observation", "values", "groups"),
    [
        ("price_formation", ForeseenPrices(), FORESEEN, 2),
        ("price_formation", ForeseenPrices(errors="ar1"), FORESEEN | {"error_persistence": 0.4}, 2),
        pytest.param("stationary", StochasticPrices(), STATIONARY, 1, marks=pytest.mark.slow),
        pytest.param(
            "stationary",
            StochasticPrices(supply="measured"),
            STATIONARY | {"supply_reliability": 0.8},
            1,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["foreseen", "correlated errors", "stationary, padded", "measured supply"],
)
def test_density_is_the_sum_over_markets_of_different_length(market, observation, values, groups):
    """Against each market as a problem of its own; stationary markets are padded to one shape, finite games are not."""
    tables = prices(3, rows=[12, 9, 12])
    problem = Problem(market, panel_of(tables), Markets(observation=observation, by_market="price_level"))
    levels = jnp.asarray([9.0, 10.5, 11.0])
    spread = {"price_level_spread": 1.0, "price_level_standard": levels - values["price_level"]}
    together, parts = densities(problem, values | spread), []
    for table, one in zip(tables.values(), levels, strict=True):
        alone = Problem(market, panel_of({"one": table}).drop(columns="market"), observation)
        parts.append(densities(alone, values | {"price_level": one}))
    assert len(forward(problem, values | spread)[2].laws) == groups
    assert_allclose(together[0], sum(part[0] for part in parts), rtol=EXACT)
    for found, expected in zip(together[1:], zip(*(part[1:] for part in parts), strict=True), strict=True):
        assert_allclose(found, np.concatenate(expected), rtol=EXACT)


def densities(problem, values):
    """The log density of all rows, and of each: given all others; given those before it, and its probability there."""

    @jax.jit
    def of(values):
        law, observed = forward(problem, values)[2], problem.observed
        ahead, target = law.one_step_ahead(observed), observed[:, 0]
        return law.log_prob(observed), law.leave_one_out(observed), ahead.log_prob(target), ahead.cdf(target)

    return of(values)


def test_markets_differ_in_units_of_their_parameter():
    roles = Markets(observation=ForeseenPrices(), by_market=("price_level", "trading_cost"), centred="price_level")
    problem = Problem("price_formation", panel_of(prices(3)), roles)
    standard = jnp.asarray([0.0, 1.0, -2.0])
    values = {**FORESEEN, "price_level_spread": 2.0, "trading_cost_spread": 0.3, "trading_cost_standard": standard}
    values["price_level_by_market"] = jnp.asarray([8.0, 9.0, 12.0])
    params = forward(problem, values)[0]
    assert_allclose(params["trading_cost"], 0.5 * np.exp(0.3 * np.asarray(standard)), rtol=EXACT)
    assert_allclose(params["price_level"], values["price_level_by_market"], rtol=EXACT)
    assert {"trading_cost_standard", "price_level_by_market"} < set(problem.latent)


def toy(tables, **roles):
    priors = {"level": Prior("Normal", 0.0, 3.0)}
    if roles.get("by_market"):
        priors["level_spread"] = Prior("HalfNormal", 1.0)
    return Problem(level, panel_of(tables), Markets(observation=NoisyLevel(), **roles), priors)


def levels(markets, rows, mean=1.0, spread=0.8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"m{i}": {"price": mean + spread * rng.normal() + NOISE * rng.normal(size=n)}
        for i, n in enumerate(np.broadcast_to(rows, markets))
    }


def hierarchical(tables):
    """The mean and sd of population mean, spread, and each level: normal given the spread, which is integrated over a grid."""
    size = np.array([len(t["price"]) for t in tables.values()])
    mean = np.array([t["price"].mean() for t in tables.values()])
    grid = np.linspace(1e-3, 5.0, 4000)
    variance = NOISE**2 / size + grid[:, None] ** 2
    precision = (1 / variance).sum(1) + 1 / 3.0**2
    centre = (mean / variance).sum(1) / precision
    # p(means | spread): the population mean, with its normal prior, is integrated out
    log = -0.5 * (np.log(variance) + mean**2 / variance).sum(1) - 0.5 * np.log(precision) + 0.5 * centre**2 * precision
    log += scipy.stats.halfnorm.logpdf(grid)
    weight = np.exp(log - log.max())
    weight /= scipy.integrate.trapezoid(weight, grid)

    def average(values):
        return scipy.integrate.trapezoid(weight * values, grid)

    shrink = (NOISE**2 / size) / variance  # weight of the population
    own = (1 - shrink) * mean + shrink * centre[:, None]
    within = grid[:, None] ** 2 * shrink + shrink**2 / precision[:, None]
    level_mean = np.array([average(own[:, i]) for i in range(len(size))])
    level_square = np.array([average(within[:, i] + own[:, i] ** 2) for i in range(len(size))])
    first = {"level": average(centre), "level_spread": average(grid)}
    second = {"level": average(1 / precision + centre**2), "level_spread": average(grid**2)}
    sds = {name: np.sqrt(second[name] - first[name] ** 2) for name in first}
    return {**first, "level_by_market": level_mean}, {**sds, "level_by_market": np.sqrt(level_square - level_mean**2)}


@pytest.mark.statistical
@pytest.mark.parametrize("centred", [(), pytest.param(("level",), marks=pytest.mark.slow)], ids=["standardised", "centred"])
def test_hierarchy_against_the_exact_posterior(centred):
    """Means and sds against a grid. False-alarm rate: 22 z-scores at 4.5 standard errors, about 2e-4."""
    tables = levels(9, rows=[3, 3, 3, 6, 6, 6, 20, 20, 20])
    tree = fit(toy(tables, by_market="level", centred=centred), NUTS(warmup=500, draws=1000), key=jax.random.key(1))
    means, sds = hierarchical(tables)
    for name in means:
        draws = tree["posterior"][name].to_numpy().reshape(4, 1000, -1)
        errors = draws.mean(1).std(0, ddof=1) / 2  # of the mean, from four chains
        few = np.maximum(errors, draws.std((0, 1)) / np.sqrt(4000))  # at least that of independent draws
        assert np.all(np.abs(draws.mean((0, 1)) - means[name]) < 4.5 * few), name
        assert_allclose(draws.std((0, 1)), sds[name], rtol=0.12)


def test_complete_pooling_is_one_fit_of_all_rows():
    """The density of rows one below the other in one market, for any level."""
    tables = levels(4, rows=[3, 5, 5, 8])
    together = toy(tables)
    prices = np.concatenate([t["price"] for t in tables.values()])
    one = Problem(level, panel_of({"all": {"price": prices}}), NoisyLevel(), {"level": Prior("Normal", 0.0, 3.0)})
    for value in (-1.0, 0.3, 2.0):
        ours, theirs = (forward(p, {"level": jnp.asarray(value)})[2].log_prob(p.observed) for p in (together, one))
        assert_allclose(ours, theirs, rtol=EXACT)
    assert together.latent == ["level"]


def test_steps_after_a_fit_work_on_a_panel(tmp_path):
    problem = Problem(
        "price_formation",
        panel_of(prices(3, rows=[12, 12, 9])),
        Markets(observation=ForeseenPrices(), by_market=("price_level", "trading_cost"), own="price_noise"),
    )
    sampler = NUTS(chains=2, warmup=60, draws=20, chunk=20)
    tree = posterior_predictive(problem, fit(problem, sampler, key=jax.random.key(0)), key=jax.random.key(1))
    assert list(tree["posterior"]["trading_cost_by_market"]["market"]) == ["m000", "m001", "m002"]
    assert tree["posterior"]["price_noise"].dims == ("chain", "draw", "market")
    assert tree["one_step_ahead"]["probability"].sizes["row"] == 33
    assert np.isfinite(tree["log_likelihood"]["price"]).all()
    assert check(problem, tree).to_json()["solver_failures"] == 0
    assert report(problem, tree, tmp_path / "report.html").stat().st_size > 10_000
    assert one_step_table(problem, tree).index.equals(problem.data.index)
    assert [label.get_text() for label in plot_fit(problem, tree).get_xticklabels()] == ["m000", "m001", "m002"]
    with pytest.raises(CalibrationError, match="a scenario is of one: fit that market alone"):
        scenario(problem, tree, {"trading_cost": "2x"}, key=jax.random.key(2))
    with pytest.raises(CalibrationError, match="outputs are empty, and Markets of ForeseenPrices has none"):
        sensitivity(problem, tree, key=jax.random.key(3), methods="local")


def test_nothing_is_forecast_of_markets_that_go_on():
    problem = Problem("stationary", panel_of(prices(2, rows=12)), Markets(observation=StochasticPrices()))
    assert unforecastable(problem).startswith("data are not one series")


@pytest.mark.parametrize(
    ("options", "priors", "sentence"),
    [
        ({"by_market": "discount"}, {}, "by_market names 'discount'"),
        ({"by_market": "price_level", "own": "price_level"}, {}, "own and by_market both name 'price_level'"),
        ({"centred": "price_level"}, {}, "centred names 'price_level'"),
        ({"by_market": "price_level"}, {"price_level": 3.0}, "by_market names 'price_level', which has no prior"),
    ],
)
def test_bad_roles(options, priors, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        _ = Problem("price_formation", panel_of(prices(2)), Markets(observation=ForeseenPrices(), **options), priors).latent


def test_paths_that_are_sampled_are_refused():
    roles = Markets(observation=ForeseenPrices(supply="measured"))
    with pytest.raises(CalibrationError, match="fit its markets one by one"):
        _ = Problem("price_formation", panel_of(prices(2)), roles).latent


@pytest.mark.slow
@pytest.mark.statistical
def test_a_hierarchy_of_64_markets_recovers_its_population():
    """Simulated at known values. False-alarm rate: 4 z-scores at 4.5, a share of 64 intervals at 4 standard errors: 1e-4."""
    tables = prices(64, rows=12)
    roles = Markets(observation=ForeseenPrices(), by_market=("price_level", "trading_cost"), centred="price_level")
    problem = Problem("price_formation", panel_of(tables), roles)
    rng = np.random.default_rng(5)
    truth = {"price_level": 10.0, "price_level_spread": 1.5, "trading_cost": 0.8, "trading_cost_spread": 0.4}
    truth |= {"price_trend": 0.02, "holding_cost": 0.02, "price_noise": 0.3}
    levels, deviations = 10.0 + 1.5 * rng.normal(size=64), rng.normal(size=64)
    law = forward(problem, {**truth, "price_level_by_market": levels, "trading_cost_standard": deviations})[2]
    simulated = problem.data.assign(price=np.asarray(law.sample(jax.random.key(6)))[:, 0])
    fitted = Problem("price_formation", simulated, roles)
    tree = fit(fitted, NUTS(chains=2, warmup=500, draws=500), key=jax.random.key(7))
    posterior = tree["posterior"]
    for name in ("price_level", "price_level_spread", "trading_cost", "trading_cost_spread"):
        draws = posterior[name].to_numpy()
        print(name, draws.mean(), draws.std(), truth[name])
        assert abs(draws.mean() - truth[name]) < 4.5 * draws.std(), name
    # The control: markets are not all alike, and the posterior says so.
    assert np.quantile(posterior["trading_cost_spread"], 1e-2) > 0.1
    costs = 0.8 * np.exp(0.4 * deviations)
    low, high = np.quantile(posterior["trading_cost_by_market"], [0.05, 0.95], axis=(0, 1))
    assert abs(np.mean((low < costs) & (costs < high)) - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 64)
