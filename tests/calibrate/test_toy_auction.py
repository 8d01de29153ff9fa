"""A family that nobody foresaw, defined here, goes through all of the generic code.

First price, n bidders, values uniform on [0, v̄]: bids are v (n − 1)/n, here with log-normal noise, so that the likelihood
is regular. Marginally over values, log b = log(v̄ (n − 1)/n) + log U + noise.
"""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from numpyro import distributions as dist

from walras.calibrate import (
    NUTS,
    CalibrationError,
    IndependentRows,
    Observation,
    Parameter,
    Prior,
    Problem,
    check,
    fit,
    forecast,
    load,
    posterior_predictive,
    prior_predictive,
    priors,
    save,
)
from walras.data import standard
from walras.model import Status

SAMPLER = NUTS(chains=4, warmup=300, draws=500)
TOP, NOISE = 3.0, 0.2  # of the simulated auctions
_QUANTILES = (np.arange(64) + 0.5) / 64


class BidFunction(eqx.Module):
    """The equilibrium: bids are `shade` times values on [0, top]."""

    shade: jax.Array
    top: jax.Array
    status: Status


def first_price(params, inputs):
    bidders = inputs["bidders"]
    return BidFunction(
        (bidders - 1.0) / bidders, params["top"], Status.where(params["top"] > 0, Status.solved, Status.not_finite)
    )


class LogBids(dist.Distribution):
    """log b = location + log U + noise, by a mixture over quantiles of U."""

    support = dist.constraints.real

    def __init__(self, location, noise):
        self.location, self.noise = location, noise
        super().__init__(batch_shape=location.shape)

    def log_prob(self, value):
        points = self.location[:, None] + jnp.log(jnp.asarray(_QUANTILES))[None]
        return jax.scipy.special.logsumexp(dist.Normal(points, self.noise).log_prob(value[:, None]), axis=1) - jnp.log(64.0)

    def cdf(self, value):
        points = self.location[:, None] + jnp.log(jnp.asarray(_QUANTILES))[None]
        return dist.Normal(points, self.noise).cdf(value[:, None]).mean(axis=1)

    def sample(self, key, sample_shape=()):
        one, two = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        drawn = jnp.log(jax.random.uniform(one, shape)) + self.noise * jax.random.normal(two, shape)
        return jnp.broadcast_to(self.location, shape) + drawn

    @property
    def mean(self):
        return self.location - 1.0

    @property
    def variance(self):
        return jnp.broadcast_to(1.0 + self.noise**2, self.batch_shape)


@dataclass(frozen=True, kw_only=True)
class Bids(Observation):
    """Logarithms of bids."""

    targets: ClassVar[tuple[str, ...]] = ("log_bid",)

    def observed(self, frame):
        return np.log(frame[["bid"]].to_numpy())

    def inputs(self, frame):
        return {"bidders": frame.groupby(level="auction")["bid"].transform("size").to_numpy(float)}

    def parameters(self, frame):
        return {"noise": Parameter(Prior("HalfNormal", 0.5, why="bidders differ by less than half"), lower=0.0)}

    def law(self, equilibrium, params, inputs):
        return IndependentRows(LogBids(jnp.log(equilibrium.shade * equilibrium.top), params["noise"]))

    def quantities(self, equilibrium, params, inputs):
        return {"mean_value": equilibrium.top / 2}


def bids():
    rng = np.random.default_rng(4)
    sizes = rng.integers(2, 6, 30)
    auction = np.repeat(np.arange(30), sizes)
    shade = np.repeat((sizes - 1) / sizes, sizes)
    bid = TOP * shade * rng.uniform(size=auction.size) * np.exp(NOISE * rng.normal(size=auction.size))
    bidder = np.concatenate([np.arange(size) for size in sizes])
    return standard(pd.DataFrame({"auction": auction, "bidder": bidder, "bid": bid}), form="bids", units={"bid": "USD"})


@pytest.fixture(scope="module")
def problem():
    return Problem(first_price, bids(), Bids(), {"top": Prior("LogNormal", 0.0, 1.0, unit="USD")})


@pytest.fixture(scope="module")
def tree(problem):
    return fit(problem, SAMPLER, key=jax.random.key(0))


def grid_posterior(problem):
    """Posterior means and standard deviations of (top, noise) by summing over a fine grid, without a sampler."""
    top, noise = np.linspace(1.5, 6.0, 300), np.linspace(0.005, 1.2, 240)
    value, shade = (
        np.exp(np.asarray(problem.observed[:, 0])),
        np.asarray((problem.inputs["bidders"] - 1) / problem.inputs["bidders"]),
    )

    def log_posterior(top, noise):
        law = LogBids(jnp.log(jnp.asarray(shade) * top), noise)
        return (
            law.log_prob(jnp.log(jnp.asarray(value))).sum()
            + dist.LogNormal(0.0, 1.0).log_prob(top)
            + dist.HalfNormal(0.5).log_prob(noise)
        )

    logs = jax.jit(
        lambda: jax.lax.map(lambda t: jax.vmap(lambda s: log_posterior(t, s))(jnp.asarray(noise)), jnp.asarray(top))
    )()
    weight = np.exp(np.asarray(logs) - np.max(logs))
    weight /= weight.sum()
    grid = {"top": top[:, None], "noise": noise[None]}
    mean = {name: np.sum(weight * value) for name, value in grid.items()}
    return mean, {name: np.sqrt(np.sum(weight * (value - mean[name]) ** 2)) for name, value in grid.items()}


@pytest.mark.statistical
def test_posterior_equals_a_sum_over_a_grid(problem, tree):
    """Means within five Monte Carlo standard errors, spreads within 10 %: a false alarm in less than 1e-5 of keys."""
    mean, spread = grid_posterior(problem)
    summary = az.summary(tree, var_names=["top", "noise"], kind="all", round_to="none")
    for name in mean:
        assert abs(summary.loc[name, "mean"] - mean[name]) < 5 * summary.loc[name, "mcse_mean"]
        assert_allclose(summary.loc[name, "sd"], spread[name], rtol=0.1)


def test_groups_and_names(problem, tree):
    """Rows of two index levels are numbered; scalars, quantities and the scores keep their names."""
    assert set(tree["posterior"].data_vars) == {"top", "noise", "mean_value"}
    assert tree["log_likelihood"]["log_bid"].dims == ("chain", "draw", "row")
    assert tree["observed_data"]["log_bid"].sizes == {"row": len(problem.data)}
    assert_allclose(tree["posterior"]["mean_value"], tree["posterior"]["top"] / 2)


def test_checks(problem, tree):
    record = check(problem, tree).to_json()
    assert json.loads(json.dumps(record))["divergences"] == 0
    assert {"verdict", "r_hat", "ess_bulk", "divergences", "solver_failures", "checks"} <= set(record)
    judged = {one["name"]: one["verdict"] for one in record["checks"]}
    assert judged["r_hat"] == judged["solver_failures"] == judged["divergences"] == "pass"


def test_prior_and_posterior_predictive(problem, tree):
    """Replications must follow the posterior: the mean log bid of the data lies among those of its replications."""
    before = prior_predictive(problem, key=jax.random.key(1), draws=100)
    assert before["prior_predictive"]["log_bid"].sizes == {"chain": 1, "draw": 100, "row": len(problem.data)}
    after = posterior_predictive(problem, tree, key=jax.random.key(2), draws=50)
    assert after.attrs == tree.attrs
    replicated = after["posterior_predictive"]["log_bid"].mean("row")
    seen = float(tree["observed_data"]["log_bid"].mean())
    assert 0.01 < float((replicated < seen).mean()) < 0.99
    assert float(before["prior_predictive"]["log_bid"].std()) > float(after["posterior_predictive"]["log_bid"].std())


def test_a_saved_run_is_loaded_whole(problem, tree, tmp_path):
    loaded = load(save(tree, tmp_path / "posterior.nc"))
    assert set(loaded.children) == set(tree.children)
    for name in tree.children:
        xr.testing.assert_identical(loaded[name].to_dataset(), tree[name].to_dataset())
    assert {name: str(value) for name, value in loaded.attrs.items()} == {
        name: str(value) for name, value in tree.attrs.items()
    }
    assert priors(loaded) == dict(problem.priors)


def test_comparison_by_leaving_one_out(problem, tree):
    """A family without times still has scores by row."""
    loo = az.loo(tree)
    assert np.isfinite(loo.elpd)
    assert loo.n_data_points == len(problem.data)


def test_forecasting_needs_a_series(problem, tree):
    with pytest.raises(CalibrationError, match="not one series"):
        forecast(problem, tree, key=jax.random.key(0))


def test_report(problem, tree, tmp_path):
    from walras.calibrate.reporting import report

    page = report(problem, tree, tmp_path / "report.html")
    assert "top" in page.read_text()


@pytest.fixture(scope="module")
def draws(problem):
    return SAMPLER.run(problem, jax.random.key(0))


@pytest.mark.parametrize(
    "options", [{"processes": 2}, pytest.param({"chunk": 37}, marks=pytest.mark.slow), {}], ids=["processes", "chunks", "again"]
)
def test_draws_depend_on_the_key_alone(problem, draws, options):
    """Neither processes (of a market solved by iteration), nor chunks, nor earlier runs may change a draw by a bit."""
    again = replace(SAMPLER, **options).run(problem, jax.random.key(0))
    for name, array in draws.values.items():
        np.testing.assert_array_equal(again.values[name], array)
    np.testing.assert_array_equal(again.statistics["n_steps"], draws.statistics["n_steps"])


def test_another_key_gives_other_draws(problem, draws):
    again = SAMPLER.run(problem, jax.random.key(1))
    assert not np.any(again.values["top"] == draws.values["top"])
