"""Foreseen markets whose supply is measured or latent: the path is integrated out exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from numpyro import handlers
from oracles.compiling import lightly
from simulated import series

from walras.calibrate import ForeseenPrices, Problem
from walras.calibrate.law import Law, log_densities
from walras.calibrate.price_formation.markets import foreseen
from walras.model import PriceFormation, Quadratic

# Two ways through sums and a Cholesky root of twelve terms.
EXACT = 1e-9
TIMES = [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13]  # two closed days
VALUES = {"trading_cost": 0.4, "holding_cost": 0.05, "price_level": 1.2, "price_trend": 0.03, "price_noise": 0.3}
VALUES |= {"error_persistence": 0.6, "supply_sd": 1.7, "supply_reliability": 0.8}
DRAWS = 20_000
# Standard errors of a mean of 20,000: 6e-7 of normal variables are beyond five.
STANDARD_ERRORS = 5.0


def problem(supply, errors="independent"):
    frame = series(times=TIMES, missing=[("price", 3), ("price", 8), ("supply", 5)])
    return Problem("price_formation", frame, ForeseenPrices(supply=supply, errors=errors))


def law_of(made):
    values = {name: jnp.asarray(VALUES[name]) for name in made.sampled}
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        return lightly(lambda: made.forward(made.inputs)[2])()


def price_of(net):
    """The price of each step (steps,) by the market itself, its target moved so that the final price stays."""
    horizon = float(len(net))
    final = VALUES["price_level"] - VALUES["price_trend"] * horizon / 2
    holding = Quadratic(VALUES["holding_cost"], VALUES["price_trend"] / VALUES["holding_cost"])
    market = PriceFormation(VALUES["trading_cost"], holding=holding, terminal=Quadratic(1.0, net.sum() + final))
    return np.asarray(market.solve(jnp.asarray(net), horizon=horizon).price)


def joint(made, supply, errors):
    """Mean and covariance of (path, price) by superposition of unit supplies, and the number of steps of the path."""
    steps = TIMES[-1] + 1
    mean, variance = np.zeros(steps), np.full(steps, 1.0 if supply == "latent" else VALUES["supply_sd"] ** 2)
    if supply == "measured":
        # y = q + error with Var q = 0.8 of Var y: the posterior of q has mean 0.8 y and variance 0.2 · 0.8 Var y
        measured = made.data["supply"].to_numpy() - np.nanmean(made.data["supply"])
        variance *= VALUES["supply_reliability"]
        for time, value in zip(TIMES, measured, strict=True):
            if np.isfinite(value):
                mean[time], variance[time] = 0.8 * value, variance[time] * 0.2
    base = price_of(np.zeros(steps))
    unit = np.stack([price_of(row) - base for row in np.eye(steps)], axis=1)[TIMES]
    apart = np.abs(np.subtract.outer(TIMES, TIMES))
    noise = VALUES["price_noise"] ** 2 * (0.6**apart if errors == "ar1" else np.eye(len(TIMES)))
    path = np.diag(variance)
    covariance = np.block([[path, path @ unit.T], [unit @ path, unit @ path @ unit.T + noise]])
    return np.concatenate([mean, base[TIMES] + unit @ mean]), covariance, steps


CASES = [("latent", "independent"), ("measured", "independent"), ("measured", "ar1")]


def given(mean, covariance, wanted, seen, value):
    """Mean and covariance of some coordinates of a normal vector given others."""
    cross = covariance[np.ix_(wanted, seen)]
    weights = np.linalg.solve(covariance[np.ix_(seen, seen)], cross.T).T
    return mean[wanted] + weights @ (value - mean[seen]), covariance[np.ix_(wanted, wanted)] - weights @ cross.T


def case(supply, errors):
    """A problem, its law, its prices, their joint law with the path, and which coordinates of that are seen."""
    made = problem(supply, errors)
    value, law_of_all = np.asarray(made.observed[:, 0]), joint(made, supply, errors)
    return made, law_of(made), value, law_of_all, law_of_all[-1] + np.flatnonzero(np.isfinite(value))


@pytest.mark.parametrize(("supply", "errors"), CASES)
def test_densities_are_those_of_the_joint_normal(supply, errors):
    made, law, value, (mean, covariance, steps), seen = case(supply, errors)
    expected = scipy.stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(value[np.isfinite(value)])
    assert_allclose(law.log_prob(made.observed), expected, rtol=EXACT)
    ahead = law.one_step_ahead(made.observed)
    for row in range(len(value)):
        before = seen[seen < steps + row]
        centre, variance = given(mean, covariance, np.array([steps + row]), before, value[before - steps])
        assert_allclose(ahead.mean[row], centre[0], rtol=EXACT)
        assert_allclose(ahead.scale[row], np.sqrt(variance[0, 0]), rtol=EXACT)
    assert_allclose(jnp.nansum(log_densities(ahead, made.observed[:, 0])), law.log_prob(made.observed), rtol=EXACT)
    assert_allclose(law.leave_one_out(made.observed), Law.leave_one_out(law, made.observed), rtol=1e-8)


@pytest.mark.statistical
@pytest.mark.parametrize(("supply", "errors"), CASES)
def test_draws_given_the_prices(supply, errors):
    """Paths and missing prices: means within five standard errors, spreads within 3 %; a false alarm in 1e-4 of keys."""
    made, law, value, (mean, covariance, steps), seen = case(supply, errors)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    paths = jax.vmap(lambda key: law.reconstruct(key, made.observed)["supply_path"])(keys)
    tables = jax.vmap(lambda key: law.complete(key, made.observed))(keys)[..., 0]
    missing = steps + np.flatnonzero(np.isnan(value))
    for draws, wanted in ((paths, np.arange(steps)), (tables[:, missing - steps], missing)):
        centre, spread = given(mean, covariance, wanted, seen, value[np.isfinite(value)])
        sd = np.sqrt(np.diag(spread))
        assert np.all(np.abs(np.mean(draws, axis=0) - centre) < STANDARD_ERRORS * sd / np.sqrt(DRAWS))
        assert_allclose(np.std(draws, axis=0), sd, rtol=0.03)
    assert_allclose(tables[:, seen - steps], np.broadcast_to(value[seen - steps], (DRAWS, seen.size)))


def test_simulations_have_the_laws_covariance():
    made = problem("latent")
    mean, covariance, steps = joint(made, "latent", "independent")
    tables = law_of(made).sample(jax.random.key(1), (DRAWS,))[..., 0]
    whitened = np.linalg.solve(np.linalg.cholesky(covariance[steps:, steps:]), (np.asarray(tables) - mean[steps:]).T)
    # The sample covariance of standard normal vectors: entries have a standard error of at most √2/√20,000 = 0.01.
    assert_allclose(np.cov(whitened), np.eye(len(TIMES)), atol=0.05)
    assert_allclose(whitened.mean(axis=1), 0.0, atol=STANDARD_ERRORS / np.sqrt(DRAWS))


def test_other_programs_sample_the_path():
    """Student-t errors have no such law, and a market that is a function may not be affine in supply."""
    frame = series()
    heavy = Problem("price_formation", frame, ForeseenPrices(supply="latent", noise="student_t"))
    plain = Problem(foreseen, frame, ForeseenPrices(supply="latent"), dict(problem("latent").priors))
    assert "supply_standard" in heavy.latent
    assert "supply_standard" in plain.latent
    assert "supply_standard" not in problem("latent").latent
