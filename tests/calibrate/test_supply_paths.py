"""Priors of a latent supply path, integrated out and through a market that is not affine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer.util import log_density
from oracles.compiling import lightly
from simulated import series

from walras.calibrate import CalibrationError, ForeseenPrices, Problem
from walras.calibrate.price_formation.supply_paths import PROCESSES, path_root

STEPS, PERIOD = 24, 0.5
# Sums of a few dozen terms.
ROUNDING = 1e-12
# Hilbert-space approximation of a Gaussian process with a length of a quarter of the horizon: Riutort-Mayol et al. (2023)
# advise this number of functions for errors of this size.
APPROXIMATION = 2e-2
# A Cholesky root against scipy's eigenvalues.
DENSITY = 1e-8
PARAMS = {"supply_reversion": 0.8, "supply_lengthscale": STEPS * PERIOD / 4}


def covariance(process):
    root = np.asarray(path_root(process, STEPS, PERIOD, PARAMS))
    return root @ root.T


@pytest.mark.parametrize("process", PROCESSES)
def test_mean_square_is_one(process):
    tolerance = APPROXIMATION if process == "smooth" else ROUNDING
    assert_allclose(np.trace(covariance(process)) / STEPS, 1.0, atol=tolerance)


def test_covariances_are_those_of_the_processes():
    step = np.arange(STEPS)
    apart = np.abs(np.subtract.outer(step, step)) * PERIOD
    shared = np.minimum.outer(step + 1, step + 1)
    assert_allclose(covariance("independent"), np.eye(STEPS), atol=ROUNDING)
    assert_allclose(covariance("wiener"), 2.0 * shared / (STEPS + 1), atol=ROUNDING)
    assert_allclose(covariance("ornstein_uhlenbeck"), np.exp(-PARAMS["supply_reversion"] * apart), atol=ROUNDING)
    squared = np.exp(-0.5 * (apart / PARAMS["supply_lengthscale"]) ** 2)
    assert_allclose(covariance("smooth"), squared, atol=APPROXIMATION)


def made(market, process, **options):
    return Problem(market, series(times=np.arange(12)), ForeseenPrices(supply="latent", supply_process=process, **options))


def with_medians(problem):
    draws = {name: problem.priors[name].distribution().sample(jax.random.key(0), (201,)) for name in problem.sampled}
    return {name: float(jnp.median(values)) for name, values in draws.items()}


@pytest.mark.parametrize("process", PROCESSES)
def test_integrated_prices_have_the_covariance_of_superposed_supplies(process):
    problem = made("price_formation", process)
    values = with_medians(problem)
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        params, _, law = lightly(lambda: problem.forward(problem.inputs))()

    def price(supply):
        return np.asarray(problem.build(params, {**problem.inputs, "supply": jnp.asarray(supply)}).price)

    base = price(np.zeros(12))
    response = np.stack([price(row) - base for row in np.eye(12)], axis=1)
    root = np.asarray(path_root(process, 12, 1.0, params)) * float(params["supply_sd"])
    expected = response @ root @ root.T @ response.T + float(params["price_noise"]) ** 2 * np.eye(12)
    observed = np.asarray(problem.observed)
    wanted = scipy.stats.multivariate_normal(base, expected).logpdf(observed[:, 0])
    assert_allclose(float(law.log_prob(problem.observed)), wanted, rtol=DENSITY)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["wiener", "smooth"])
def test_a_path_through_a_market_that_is_not_affine_is_sampled(process):
    problem = made("double_well", process)
    assert "supply_standard" in problem.latent
    values = {**with_medians(problem), "supply_standard": 0.1 * jnp.ones(12 if process == "wiener" else 32)}

    def density(standard):
        return log_density(problem.model, (), {}, {**values, "supply_standard": standard})[0]

    value, slope = jax.value_and_grad(density)(values["supply_standard"])
    assert np.isfinite(value)
    move = 1e-4 * jnp.ones_like(slope)
    # Central differences of a price solved to 1e-6 of its scale.
    assert_allclose(float(slope @ move), float(density(0.1 + move) - density(0.1 - move)) / 2, rtol=1e-2, atol=1e-6)


def test_processes_are_for_latent_supply():
    with pytest.raises(CalibrationError, match="supply_process"):
        ForeseenPrices(supply="known", supply_process="wiener")
    with pytest.raises(CalibrationError, match=r"supply_process.*choose"):
        ForeseenPrices(supply="latent", supply_process="brownian")
