"""Fits of the stationary market with trading costs.

One fit from a specification serves all tests; other tables are refitted by its compiled chains.
"""

import json
import re
from dataclasses import dataclass, replace

import arviz as az
import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from recovery import LEVEL, refits
from volume_oracle import (
    CHANCE,
    EXACT,
    OBSERVED,
    PARAMETERS,
    TREND,
    VALUES,
    log_traded,
    prices_and_volumes,
    problem_of,
    simulated,
    specification,
    truth,
)

from walras import data
from walras.calibrate import (
    NUTS,
    PriceAndVolume,
    Problem,
    check,
    fit,
    forecast,
    posterior_predictive,
    predictive_statistics,
    prior_predictive,
    report,
    run,
    samplers,
)
from walras.calibrate.checks.checking import unlike
from walras.calibrate.spec import Spec
from walras.calibrate.tree import to_tree

pytestmark = pytest.mark.slow  # notebook 04 fits this market too


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run with its report, its problem, and its tree with replicated tables."""
    folder = tmp_path_factory.mktemp("volume")
    spec = specification(folder)
    problem, sampler = run.build(spec)
    tree = posterior_predictive(problem, fit(problem, sampler, key=run.key_of(spec)), key=run.key_of(spec, 1))
    path = run.claim(folder / "run")
    run.write(path, spec, problem, tree)
    report(problem, tree, path / "report.html")
    return path, problem, tree


def refitted(finished, table):
    """The problem and a tree with replicated tables, of other data by the same chains."""
    _, problem, _ = finished
    other = problem.with_data(prices_and_volumes(table))
    sampler = run.build(Spec.from_toml(finished[0].parent / "spec.toml"))[1]
    chains = samplers.chains(problem, sampler)
    draws = chains.run(jax.random.split(jax.random.key(3), sampler.chains), observed=other.observed).values
    latent = {name: draws[name] for name in other.latent}
    tree = to_tree(other, {"posterior": latent, "observed_data": {}}, {"digest": other.digest})
    return other, posterior_predictive(other, tree, key=jax.random.key(4))


@pytest.mark.statistical
def test_a_fit_recovers_the_truth(finished):
    """Each of four truths within 3.3 standard deviations: one seed in 250 fails if posteriors are normal.

    Not by extreme quantiles, which 600 draws do not have. That intervals cover as often as they should is tested below.
    """
    _, problem, tree = finished
    assert int(tree["sample_stats"]["diverging"].sum()) == 0
    for name in ("volatility", "reversion", "hedging_share", "volume_noise"):
        draws = tree["posterior"][name].to_numpy()
        assert abs(draws.mean() - {**PARAMETERS, **OBSERVED}[name]) < 3.3 * draws.std(), name
        prior = problem.priors[name].distribution()
        whole = float(prior.icdf(0.995) - prior.icdf(0.005))
        assert 2.0 * 2.58 * draws.std() < 0.5 * whole, name  # and 99 % intervals are short


def test_asymmetry_is_a_ridge(finished):
    """It must stay as its prior has it and take the trading cost along, or the note in the report would be false.

    The standard deviation of 300 effective draws is known to 4 %: five of that, and what it says of the drift.
    """
    _, problem, tree = finished
    asymmetry, cost = (tree["posterior"][name].to_numpy().ravel() for name in ("asymmetry", "trading_cost"))
    prior = problem.priors["asymmetry"].distribution()
    assert_allclose(asymmetry.std(), np.sqrt(prior.variance), rtol=0.2)
    assert scipy.stats.spearmanr(asymmetry, cost).statistic > 0.9
    assert any(
        "ridge" in note and "asymmetry" in note and "trading_cost" in note for note in problem.observation.notes(problem.data)
    )


def test_the_run_directory_and_its_report(finished):
    path, problem, tree = finished
    assert {file.name for file in path.iterdir()} == {"spec.json", "posterior.nc", "summary.csv", "check.json", "report.html"}
    assert run.read(path)[1] == problem
    page = re.sub(r"\s+", " ", (path / "report.html").read_text(encoding="utf-8"))
    assert "Statistics that matter for this market" in page
    quantities = ["trading_cost", "risk_aversion_low", "risk_aversion_high", "endowment", "payoff_volatility", "position_sd"]
    for told in (
        *problem.observation.notes(problem.data),
        *predictive_statistics(problem, tree).index,
        *problem.sampled,
        *quantities,
    ):
        assert told in page
    judged = json.loads((path / "check.json").read_text())["checks"]
    assert {item["name"] for item in judged} >= {f"replicated: {name}" for name in predictive_statistics(problem, tree).index}


@pytest.mark.statistical
def test_the_forecast_is_one_step_ahead_of_the_posterior(finished):
    """Where draws fall in the law that the oracle predicts from the last row: uniform, with p-values above 1e-5 (2e-5)."""
    _, problem, tree = finished
    found = forecast(problem, tree, key=jax.random.key(6))
    assert set(found) == {"log_volume", "return"} and found.sizes["time"] == 1
    assert found["time"].to_numpy()[0] > problem.data.index[-1].to_datetime64()
    draws = {name: tree["posterior"][name].to_numpy().ravel() for name in (*problem.latent, "position_sd")}
    low, high = (tree["posterior"][f"risk_aversion_{end}"].to_numpy().ravel() for end in ("low", "high"))
    last = tree["posterior"]["deviation"].to_numpy()[..., -1].ravel()
    feedback = 0.5 * (high - low) * draws["volatility"] ** 2 * draws["position_sd"]
    expected = draws["drift"] - feedback * last
    shock = (found["return"].to_numpy().ravel() - expected) / draws["volatility"]
    assert scipy.stats.kstest(shock, "norm").pvalue > CHANCE
    v = {"level": draws["volume_level"][:, None], "share": draws["hedging_share"][:, None]}
    shocks = scipy.stats.norm.ppf((np.arange(500) + 0.5) / 500)
    kept = np.exp(-draws["reversion"])
    following = (kept * last)[:, None] + np.sqrt(1 - kept**2)[:, None] * shocks
    error = (found["log_volume"].to_numpy().reshape(-1, 1) - log_traded(following, v)) / draws["volume_noise"][:, None]
    assert scipy.stats.kstest(scipy.stats.norm.cdf(error).mean(1), "uniform").pvalue > CHANCE


@pytest.mark.statistical
def test_statistics_of_the_right_model_are_those_of_its_replications(finished):
    """None of seven statistics beyond all 600 replications, as 2 % of seeds have one: the checks do not warn."""
    _, problem, tree = finished
    table = predictive_statistics(problem, tree)
    assert list(table.columns) == ["observed", "5 %", "95 %", "p"] and len(table) == 7
    assert table["p"].between(1 / 600, 599 / 600).all(), table
    assert ((table["5 %"] < table["95 %"]) & table.abs().le(1).all(axis=1)).all()
    seen = pd.DataFrame(np.asarray(problem.observed), columns=["volume", "return"])
    size = seen["return"].abs()
    by_pandas = {
        "autocorrelation of log volume, 5 rows": seen["volume"].autocorr(5),
        "autocorrelation of size of return, 1 row": size.autocorr(1),
        "correlation of volume and size of return": seen["volume"].corr(size),
        "correlation of volume and size of return before": seen["volume"].corr(size.shift(1)),
        "correlation of volume and return": seen["volume"].corr(seen["return"]),
    }
    for name, value in by_pandas.items():
        assert_allclose(table["observed"][name], value, rtol=EXACT, err_msg=name)
    # Replications lack the volumes that the data lack.
    replicated = tree["posterior_predictive"]["log_volume"].to_numpy().reshape(-1, len(seen))[:, TREND:]
    theirs = np.array([pd.Series(volumes).autocorr(5) for volumes in replicated])
    expected = [*np.quantile(theirs, [0.05, 0.95]), np.mean(theirs >= by_pandas["autocorrelation of log volume, 5 rows"])]
    assert_allclose(table.loc["autocorrelation of log volume, 5 rows"].to_numpy()[1:], expected, rtol=EXACT)


def persistent(rows, kept, seed):
    noise = np.random.default_rng(seed).normal(size=rows)
    values = [noise[0]]
    for row in range(1, rows):
        values.append(kept * values[-1] + np.sqrt(1 - kept**2) * noise[row])
    return np.array(values)


def clustered(rows):
    """Shocks of variance 1 whose volatility is persistent."""
    log_volatility = 0.5 * persistent(rows, 0.95, seed=7)
    return np.random.default_rng(8).normal(size=rows) * np.exp(log_volatility - 0.25)


@pytest.mark.statistical
def test_statistics_see_what_the_model_lacks(finished):
    """Negative control: volatility that clusters, and errors of volume that persist.

    Both lie beyond all replications of a fit to them, by five of their standard deviations. From the 5 to the 95 % quantile
    are 3.3 of those.
    """
    table = simulated(1500, truth(), shocks=clustered(1500), errors=persistent(1500, 0.9, seed=9))
    problem, tree = refitted(finished, table)
    found = predictive_statistics(problem, tree)
    verdicts = {item.name: item.verdict for item in unlike(problem, tree)}
    for statistic in ("autocorrelation of size of return, 1 row", "autocorrelation of log volume, 1 row"):
        observed, low, high, p = found.loc[statistic].to_numpy()
        assert p == 0.0 and observed - high > high - low
        assert verdicts[f"replicated: {statistic}"] == "warn"
    # Beyond all of 40 replications falls one of 41 tables even if the model is right.
    few = posterior_predictive(problem, tree, key=jax.random.key(4), draws=20)
    assert {item.verdict for item in unlike(problem, few)} == {"pass"}


def test_without_replications_there_are_no_statistics(finished):
    _, problem, tree = finished
    alone = tree.copy()
    del alone["posterior_predictive"]
    assert predictive_statistics(problem, alone).empty
    assert not any(item.name.startswith("replicated") for item in check(problem, alone).checks)
    assert sum(item.name.startswith("replicated") for item in check(problem, tree).checks) == 7


@dataclass(frozen=True, kw_only=True)
class TooMuchNoise(PriceAndVolume):
    """A likelihood whose volume has four times the variance of error that it says."""

    def law(self, equilibrium, params, inputs):
        return super().law(equilibrium, {**params, "volume_noise": 2.0 * params["volume_noise"]}, inputs)


def shares_inside(fitted, tables, truths, level):
    """How many truths of each parameter lie in central intervals of their posteriors."""
    inside = {name: np.zeros(2, int) for name in fitted.latent}
    for number, draws in enumerate(refits(fitted, NUTS(chains=2, warmup=300, draws=300), jax.random.key(1), tables)):
        for name, counts in inside.items():
            ends = np.quantile(draws.values[name], [0.5 - np.array(level) / 2, 0.5 + np.array(level) / 2])
            counts += (ends[0] <= truths[name][number]) & (truths[name][number] <= ends[1])
    return inside


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("observation", [PriceAndVolume, TooMuchNoise])
def test_intervals_cover_truths_drawn_from_the_prior(observation):
    """Of 20 truths of each of nine parameters at least 13 in 90 % intervals, and 3 to 17 in 50 % intervals.

    Of binomial counts 4e-4 and 4e-4 are outside: a false alarm in 7e-3 of keys. A likelihood with too much noise must fail.
    """
    right = problem_of(prices_and_volumes(simulated(400, VALUES)))
    drawn = prior_predictive(right, key=jax.random.key(0), draws=30)
    drawn = drawn.isel(draw=np.flatnonzero(~drawn["sample_stats_prior"]["solver_failed"].to_numpy()[0])[:20])
    tables = np.stack([drawn["prior_predictive"][name].to_numpy()[0] for name in right.observation.targets], -1)
    tables = np.where(np.isnan(right.observed), np.nan, tables)
    truths = {name: drawn["prior"][name].to_numpy()[0] for name in right.latent}
    fitted = replace(right, observation=observation(trend=TREND))
    inside = shares_inside(fitted, tables, truths, (LEVEL, 0.5))
    print(observation.__name__, inside)
    nominal = {name: wide >= 13 and 3 <= half <= 17 for name, (wide, half) in inside.items()}
    assert all(nominal.values()) if observation is PriceAndVolume else not nominal["volume_noise"]


@pytest.mark.slow
def test_the_sp500():
    """The description of the data says what the market lacks: persistent volume and volatility, and bad news that is traded."""
    problem = Problem("trading_costs", data.load("sp500").loc["2012":], PriceAndVolume())
    tree = fit(problem, NUTS(chains=4, warmup=500, draws=1000), key=jax.random.key(0))
    tree = posterior_predictive(problem, tree, key=jax.random.key(1), draws=200)
    print(predictive_statistics(problem, tree).to_string())
    print(az.summary(tree, var_names=problem.sampled, round_to="none").to_string())
    judged = check(problem, tree)
    print(judged)
    assert judged.r_hat <= 1.01 and judged.divergences == 0 and judged.solver_failures == 0
    verdicts = {item.name: item.verdict for item in judged.checks}
    for statistic in (
        "autocorrelation of log volume, 1 row",
        "autocorrelation of size of return, 1 row",
        "correlation of volume and return",
    ):
        assert verdicts[f"replicated: {statistic}"] == "warn", statistic
