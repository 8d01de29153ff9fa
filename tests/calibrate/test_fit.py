"""Fits of the foreseen market: their groups and names, files, other kernels and programs, comparison and prediction.

One problem is compiled for the whole file, and one more for each program that must agree with it.
"""

import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import scipy.special
import statsmodels.api as sm
import xarray as xr
from numpy.testing import assert_allclose
from numpyro import distributions as dist
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, BarkerMH, init_to_median
from numpyro.infer import NUTS as NumpyroNUTS
from numpyro.infer.util import constrain_fn, potential_energy
from scipy import stats
from simulated import series

from walras.calibrate import (
    NUTS,
    CalibrationError,
    ForeseenPrices,
    Prior,
    Problem,
    StochasticPrices,
    fit,
    forecast,
    load,
    posterior_predictive,
    priors,
    samplers,
    save,
)
from walras.calibrate.comparisons import baselines
from walras.calibrate.comparisons.comparing import compare, origins_of, rolling_scores
from walras.calibrate.comparisons.rolling import REFIT_DRAWS
from walras.model import PriceFormation, Quadratic

ROWS = 40
SAMPLER = NUTS(chains=4, warmup=300, draws=500)
# The same numbers by another route: sums of forty terms.
EXACT = 1e-9
# Standard errors of the difference of two independent chains' means: 6e-7 of normal variables are beyond.
STANDARD_ERRORS = 5.0


def market_data():
    """A market with c = 0.2, η = 0.003, level 1.5 and noise 0.15, two of its prices missing."""
    frame = series(ROWS, seed=3)
    net = (frame["supply"] - frame["supply"].mean()).to_numpy()
    price = PriceFormation(0.2, holding=Quadratic(0.003), terminal=Quadratic(1.0, 1.5)).solve(net, horizon=float(ROWS)).price
    frame["price"] = np.asarray(price) + 0.15 * np.random.default_rng(8).normal(size=ROWS)
    frame.iloc[[4, 30], 0] = np.nan
    return frame


@pytest.fixture(scope="module")
def problem():
    prior = Prior("Gamma", 2.0, 8.0, unit="USD day/lb²", why="a fifth or so")
    return Problem("price_formation", market_data(), ForeseenPrices(), {"trading_cost": prior})


@pytest.fixture(scope="module")
def tree(problem):
    return fit(problem, SAMPLER, key=jax.random.key(0))


def assert_same_posterior(draws, tree, names):
    """Means within five standard errors of their difference, standard deviations within 15 %.

    The standard deviation of a thousand effective draws of a normal variable has a relative error of 2.2 %; a false alarm in
    1e-5 of keys. What is positive is compared as its logarithm, which has no long tail.
    """

    def summary(values):
        shown = {name: np.asarray(values[name]) for name in names}
        shown = {name: np.log(array) if np.all(array > 0) else array for name, array in shown.items()}
        return az.summary(az.from_dict({"posterior": shown}), kind="all", round_to="none")

    ours, theirs = summary(tree["posterior"]), summary(draws)
    for name in names:
        error = np.hypot(ours.loc[name, "mcse_mean"], theirs.loc[name, "mcse_mean"])
        assert abs(ours.loc[name, "mean"] - theirs.loc[name, "mean"]) < STANDARD_ERRORS * error
        assert_allclose(ours.loc[name, "sd"], theirs.loc[name, "sd"], rtol=0.15)


def draws_of(kernel, draws, method, *arguments):
    mcmc = MCMC(kernel, num_warmup=draws // 2, num_samples=draws, num_chains=4, chain_method=method, progress_bar=False)
    mcmc.run(jax.random.key(5), *arguments)
    return mcmc.get_samples(group_by_chain=True)


@pytest.mark.slow
@pytest.mark.statistical
def test_a_foreign_kernel_on_the_program_gives_the_same_posterior(problem, tree):
    """`problem.model` is an ordinary NumPyro program: Barker's random walk must agree with `fit`."""
    draws = draws_of(BarkerMH(problem.model, dense_mass=True, init_strategy=init_to_median), 10_000, "sequential")
    assert_same_posterior(draws, tree, problem.sampled)


@pytest.mark.statistical
def test_a_program_written_by_hand_gives_the_same_posterior(problem, tree):
    """The market inside a user's own program, with the same priors, is the same model."""

    def program(supply, price):
        level = numpyro.sample("price_level", problem.priors["price_level"].distribution())
        trend = numpyro.sample("price_trend", problem.priors["price_trend"].distribution())
        c = numpyro.sample("trading_cost", problem.priors["trading_cost"].distribution())
        eta = numpyro.sample("holding_cost", problem.priors["holding_cost"].distribution())
        noise = numpyro.sample("price_noise", problem.priors["price_noise"].distribution())
        final = level - trend * ROWS / 2
        market = PriceFormation(c, holding=Quadratic(eta, trend / eta), terminal=Quadratic(1.0, final))
        expected = market.solve(supply, horizon=float(ROWS)).price
        with numpyro.handlers.mask(mask=~jnp.isnan(price)):
            numpyro.sample("price", dist.Normal(expected, noise), obs=jnp.nan_to_num(price))

    frame = problem.data
    net = jnp.asarray(frame["supply"] - frame["supply"].mean())
    kernel = NumpyroNUTS(program, dense_mass=True, init_strategy=init_to_median)
    draws = draws_of(kernel, 800, "vectorized", net, jnp.asarray(frame["price"]))
    assert_same_posterior(draws, tree, problem.sampled)


def test_groups_dimensions_and_coordinates(problem, tree):
    """ArviZ finds by these names what it needs; a missing one disables one of its functions."""
    assert set(tree.children) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "log_prior",
        "prior",
        "one_step_ahead",
        "leave_one_out",
        "observed_data",
        "constant_data",
    }
    assert tree["log_likelihood"]["price"].dims == ("chain", "draw", "time")
    assert_allclose(tree["observed_data"]["price"], problem.data["price"])
    assert_allclose(tree["observed_data"]["time"], problem.data.index)
    assert set(tree["posterior"].data_vars) == set(problem.sampled)
    assert set(tree["log_prior"].data_vars) == set(problem.sampled)
    assert {"diverging", "energy", "lp", "tree_depth", "solver_failed"} <= set(tree["sample_stats"].data_vars)
    assert tree["posterior"].sizes["draw"] == SAMPLER.draws
    assert json.loads(tree.attrs["notes"])[0].startswith("2 of 40 values of price are missing")


def test_log_prior_and_likelihood_of_the_draws(problem, tree):
    """Both groups at one draw, from scipy: a shuffled or transformed draw would give other numbers."""
    one = {name: float(tree["posterior"][name][1, 7]) for name in problem.sampled}
    assert_allclose(
        tree["log_prior"]["trading_cost"][1, 7], stats.gamma(2.0, scale=1 / 8.0).logpdf(one["trading_cost"]), rtol=EXACT
    )
    rows = tree["log_likelihood"]["price"][1, 7].to_numpy()
    assert_allclose(
        rows, stats.norm.logpdf(problem.data["price"], foreseen_price(problem, one), one["price_noise"]), rtol=EXACT
    )
    assert_allclose(tree["one_step_ahead"]["log_density"][1, 7], rows, rtol=EXACT)


def foreseen_price(problem, values):
    """Step means of ϖ = level + trend (T/2 − t) − cQ − η∫ₜᵀ X̄, the integral by Simpson's rule on a fine grid."""
    supply = (problem.data["supply"] - problem.data["supply"].mean()).to_numpy()
    time = np.arange(ROWS) + 0.5
    nodes = np.append(0.0, np.cumsum(supply))
    within = np.linspace(0, 1, 3)
    position = nodes[:-1, None] + supply[:, None] * within
    whole = position @ [1 / 6, 4 / 6, 1 / 6]
    later = np.append(np.cumsum(whole[::-1])[::-1][1:], 0.0)
    own = nodes[:-1] / 2 + supply / 3  # the mean over the step of ∫ from t to its end
    linear = values["price_level"] + values["price_trend"] * (ROWS / 2 - time) - values["trading_cost"] * supply
    return linear - values["holding_cost"] * (later + own)


def test_arviz_reads_the_tree(tree):
    """Summary, PSIS-LOO and power-scaling sensitivity run on the tree as it is, where every price is observed."""
    assert az.summary(tree).loc["trading_cost", "mean"] is not None
    seen = np.isfinite(tree["observed_data"]["price"].to_numpy())
    kept = dropped(tree, seen)
    assert az.loo(kept).n_data_points == seen.sum()
    assert set(az.psense_summary(kept).index) == set(tree["posterior"].data_vars)


def dropped(tree, seen):
    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    return xr.DataTree.from_dict(
        {name: group.isel(time=np.flatnonzero(seen)) if "time" in group.dims else group for name, group in groups.items()}
    )


def test_a_saved_run_is_loaded_whole(problem, tree, tmp_path):
    loaded = load(save(tree, tmp_path / "posterior.nc"))
    for name in tree.children:
        xr.testing.assert_identical(loaded[name].to_dataset(), tree[name].to_dataset())
    assert loaded.attrs["digest"] == problem.digest
    assert priors(loaded) == dict(problem.priors)
    assert list(tmp_path.iterdir()) == [tmp_path / "posterior.nc"]


def test_a_truncated_run(tree, tmp_path):
    path = save(tree, tmp_path / "posterior.nc")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        CalibrationError, match=r"posterior\.nc cannot be read \(.*\): it is truncated or not NetCDF, fit again"
    ):
        load(path)


def test_a_foreign_netcdf_file(tmp_path):
    path = tmp_path / "weather.nc"
    xr.Dataset({"rain": ("day", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(CalibrationError, match=r"weather\.nc is not a run of walras: it has no posterior"):
        load(path)


def test_an_unwritable_path(tree, tmp_path):
    """A folder that is a file cannot be written even by root; nothing may be left behind."""
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(CalibrationError, match=r"posterior\.nc cannot be written \(.*\): make room, or choose another folder"):
        save(tree, tmp_path / "folder" / "posterior.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_path_that_is_a_folder(tree, tmp_path):
    """Replacing fails after everything was written: the temporary file must go, and the folder stay."""
    (tmp_path / "posterior.nc").mkdir()
    with pytest.raises(CalibrationError, match=r"posterior\.nc"):
        save(tree, tmp_path / "posterior.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.nc"]


def ridged(priors=None):
    """A problem with every ridge: persistence with noise, and impact with correlation and noise."""
    observation = StochasticPrices(errors="ar1", correlated=True, demand=("holiday",), instruments=("storm",))
    return Problem("stationary", series(), observation, priors or {})


@pytest.mark.slow
def test_coordinates_change_where_the_sampler_steps_and_not_what_it_samples():
    """At the same parameters, the sampler's density must be the program's up to one constant (shifts and fixed scales)."""
    made = ridged()
    compiled = samplers.Chains(made, NUTS(init="prior"))
    vectors = compiled.target.first_points(jax.random.split(jax.random.key(3), 6))
    transforms = {name: biject_to(made.priors[name].distribution().support) for name in made.sampled}
    differences = []
    for vector in vectors:
        ours = compiled.target.by_site(vector)
        values = constrain_fn(compiled.target.model, (), compiled.target.data, ours, return_deterministic=True)
        usual = {name: transform.inv(values[name]) for name, transform in transforms.items()}
        theirs = potential_energy(made.model, (), compiled.target.data, usual)
        differences.append(potential_energy(compiled.target.model, (), compiled.target.data, ours) - theirs)
    assert {name for name in ours if name.endswith("_base")} >= {"price_noise_base", "shock_correlation_base"}
    assert_allclose(differences, differences[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "noise",
    [
        Prior("HalfNormal", 0.5),
        pytest.param(Prior("LogNormal", -1.0, 0.5), marks=pytest.mark.slow),
        pytest.param(Prior("Uniform", 0.0, 0.5), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_starting_values_are_where_chains_start(noise):
    """In the parameter's own units, whatever coordinates it or its prior have."""
    start = {"price_noise": 0.3, "shock_correlation": 0.25, "price_level": 1.1, "price_impact": 0.2}
    compiled = samplers.Chains(ridged({"price_noise": noise}), NUTS(init=start))
    vector = compiled.target.first_points(jax.random.split(jax.random.key(3), 1))[0]
    values = constrain_fn(
        compiled.target.model, (), compiled.target.data, compiled.target.by_site(vector), return_deterministic=True
    )
    for name, value in start.items():
        assert_allclose(values[name], value, rtol=1e-9)


def test_a_start_for_an_unknown_parameter(problem):
    with pytest.raises(CalibrationError, match="init names the unknown parameter 'cost': sampled are .*trading_cost"):
        fit(problem, NUTS(init={"cost": 1.0}), key=jax.random.key(0))


def test_a_finite_game_cannot_be_forecast(problem, tree):
    with pytest.raises(CalibrationError, match="'price_formation' is one finite game .*: forecast with the stationary market"):
        forecast(problem, tree, key=jax.random.key(0))


def test_another_problem_does_not_take_the_run(problem, tree):
    other = Problem("price_formation", problem.data, ForeseenPrices(), {"trading_cost": Prior("LogNormal", 0.0, 1.0)})
    with pytest.raises(CalibrationError, match="digests differ"):
        posterior_predictive(other, tree, key=jax.random.key(0))


@pytest.fixture(scope="module")
def scores(problem, tree):
    return rolling_scores(problem, SAMPLER, key=jax.random.key(0), origins=2)


def test_a_rolling_score_is_the_mean_density_of_its_block(problem, tree, scores):
    """Each block is scored by the posterior of the rows before it, and by nothing later."""
    starts, ends = origins_of(ROWS, 2, 0.4)
    assert (starts, ends) == ([24, 32], [32, 40])
    masked = problem.observed.at[starts[1] :].set(jnp.nan)
    values = samplers.chains(problem, SAMPLER).rerun(masked, -(-REFIT_DRAWS // SAMPLER.chunk))
    draws = [dict(zip(values, row, strict=True)) for row in zip(*(array.ravel() for array in values.values()), strict=True)]
    logs = [stats.norm.logpdf(problem.data["price"], foreseen_price(problem, one), one["price_noise"]) for one in draws]
    expected = scipy.special.logsumexp(logs, axis=0) - np.log(len(draws))
    assert_allclose(scores.log_score[starts[1] :, 0], expected[starts[1] :], rtol=EXACT)
    assert np.isnan(scores.log_score[: starts[0]]).all()


@pytest.mark.statistical
def test_a_refit_is_the_posterior_of_the_earlier_rows(problem, tree):
    """Chains moved from the fit to all rows must end where chains started afresh end."""
    masked = problem.observed.at[24:].set(jnp.nan)
    compiled = samplers.chains(problem, SAMPLER)
    moved = compiled.rerun(masked, 10)
    afresh = compiled.run(jax.random.split(jax.random.key(9), SAMPLER.chains), observed=masked).values
    assert_same_posterior(moved, az.from_dict({"posterior": afresh}), problem.sampled)


def test_comparison(problem, tree, scores):
    """The table must hold each model once, differences to the best, and the baselines by their own densities."""
    compared = compare({"ours": (problem, tree)}, key=jax.random.key(0), rolling={"ours": scores}, origins=2)
    columns = ["rolling", "difference", "se", "crps", "crps_difference", "crps_se", "one_step", "loo", "loo_se", "pareto_k"]
    assert list(compared.table.columns) == columns
    assert set(compared.table.index) == {"ours", "last price", "lagged regression"}
    assert compared.table["rolling"].is_monotonic_decreasing
    assert compared.table["difference"].iloc[0] == 0.0
    scored = compared.pointwise
    assert_allclose(compared.table["rolling"], scored.mean()[compared.table.index], rtol=EXACT)
    worst, best = compared.table.index[-1], compared.table.index[0]
    gap = scored[worst] - scored[best]
    assert_allclose(compared.table.loc[worst, "difference"], gap.sum(), rtol=EXACT)
    assert_allclose(compared.table.loc[worst, "se"], np.sqrt(len(gap) * gap.var(ddof=1)), rtol=EXACT)
    assert compared.table.loc[["last price", "lagged regression"], ["one_step", "loo"]].isna().all(axis=None)
    assert not {4, 30, 5, 31} & set(scored.index)  # rows without a price, or whose last price is missing
    assert repr(best) in compared.text


def test_fits_of_other_rows_are_not_compared(problem, tree):
    other = Problem("price_formation", market_data().iloc[:-1], ForeseenPrices())
    with pytest.raises(CalibrationError, match="'all' and 'fewer' do not predict the same values: compare fits of one target"):
        compare({"all": (problem, tree), "fewer": (other, tree)}, key=jax.random.key(0))


def test_fits_of_other_targets_are_not_compared(problem, tree):
    other = Problem("price_formation", market_data(), ForeseenPrices(price_column="storm"))
    with pytest.raises(CalibrationError, match="do not predict the same values"):
        compare({"price": (problem, tree), "storm": (other, tree)}, key=jax.random.key(0))


def test_too_few_rows_for_origins(problem):
    with pytest.raises(CalibrationError, match="data have 40 rows, too few for 30 rolling origins: use fewer"):
        rolling_scores(problem, SAMPLER, key=jax.random.key(0), origins=30)


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_baselines_are_predictive_densities_of_least_squares(name):
    """statsmodels gives the same Student-t: the regression's prediction and its standard error."""
    frame = market_data()
    response, regressors = baselines.BASELINES[name](frame, "price")
    scores = baselines.scores(baselines.BASELINES[name], frame, "price", [24], [40])
    usable = np.isfinite(response) & np.isfinite(regressors).all(axis=1)
    past, new = usable & (np.arange(ROWS) < 24), usable & (np.arange(ROWS) >= 24)
    if name == "last price":
        spread = np.sqrt(np.mean(response[past] ** 2))
        expected = stats.t.logpdf(response[new], past.sum(), 0.0, spread)
    else:
        fitted = sm.OLS(response[past], regressors[past]).fit()
        predicted = fitted.get_prediction(regressors[new])
        expected = stats.t.logpdf(response[new], fitted.df_resid, predicted.predicted_mean, predicted.se_obs)
    assert_allclose(scores[new], expected, rtol=EXACT)
    assert np.isnan(scores[~new]).all()


def test_a_series_with_random_supply_is_another_problem(problem):
    """The digest separates markets that see the same data."""
    assert Problem("stationary", market_data(), StochasticPrices()).digest != problem.digest
