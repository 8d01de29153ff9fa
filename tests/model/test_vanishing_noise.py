"""Markets without noise whose costs are not convex: the limit, its error estimate, and where the population splits."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import general_costs as oracle
from oracles.general_costs import sine_supply

from walras.model import (
    Agents,
    Diffusion,
    DoubleWell,
    EquilibriumError,
    PriceFormation,
    Quadratic,
    Status,
    VanishingNoise,
    verify,
)

# The figures to reach for the limit of the third case, in p̄ and in the start of the agent who is indifferent.
REACH = 3e-4
# The published figures have six digits; the oracle's are those of quadratures to 1e-11.
PUBLISHED_COSTATE, PUBLISHED_SPLIT, DIGITS = -0.161633, 0.154460, 1e-6

WELL = DoubleWell(50.0, 0.25, 0.75)
# Finer than the agents' length times the least noise: a population of fewer atoms splits between two of them.
POPULATION = (np.arange(1000) + 0.5) / 1000


@pytest.fixture(scope="module")
def third_case():
    market = PriceFormation(1.0, None, WELL)
    return market, market.solve(sine_supply(4), initial=POPULATION)


@pytest.fixture(scope="module")
def continuum():
    return oracle.split_by_a_well(50.0, 0.25, 0.75, 0.5 + (1 - np.cos(10.0)) / 10)


def test_two_routes_agree_on_the_third_case(continuum):
    assert_allclose(continuum, (PUBLISHED_COSTATE, PUBLISHED_SPLIT), atol=DIGITS, rtol=0)


def test_price_of_the_third_case(third_case, continuum):
    _, limit = third_case
    assert bool(limit.status == Status.solved)
    assert_allclose(limit.costate, continuum[0], atol=REACH, rtol=0)
    # Its own estimate is honest, and no more than ten times the figure to reach.
    assert np.max(np.abs(limit.costate - continuum[0])) < float(limit.error) < 10 * REACH


@pytest.mark.slow
def test_split_of_the_third_case(third_case, continuum):
    """The start from which the global best response to the limit's price goes to the other well."""
    market, limit = third_case

    def goes_right(start):
        alone = eqx.tree_at(
            lambda e: (e.game.initial, e.game.weights, e.levels),
            limit,
            (jnp.array([start]), jnp.ones(1), limit.levels),
        )
        # The best response depends on the position x and the price; the frame of the verifier moves with the mean of those
        # it is given, so that its price is told the same.
        return verify(market, alone, indifference=0.0).mean_position[-1] > 0.5

    low, high = continuum[1] - 0.01, continuum[1] + 0.01
    assert not goes_right(low)
    assert goes_right(high)
    for _ in range(8):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if goes_right(middle) else (middle, high)
    assert_allclose(0.5 * (low + high), continuum[1], atol=REACH, rtol=0)


def test_the_limit_clears_without_noise_and_a_level_does_not(third_case):
    market, limit = third_case
    # One agent of 1000 on the other side moves the mean by .45/1000; the price's error moves some of 1000 by as much.
    assert verify(market, limit).clearing_error < 1e-3
    level = eqx.tree_at(lambda e: e.price, limit, limit.price - 0.05)
    assert verify(market, level).clearing_error > 0.02  # ∂E[α]/∂p̄ is about 1/2


@pytest.mark.slow
def test_convex_costs_lead_to_the_agents():
    market = PriceFormation(0.8, lambda x: x**4, Quadratic(1.0))
    supply, initial = np.array([0.6, -1.1, 0.4, 0.9]), np.linspace(-0.6, 0.7, 40)
    solver = VanishingNoise((0.3, 0.2, 0.14), Diffusion(substeps=1))
    limit, quiet = (market.solve(supply, initial=initial, solver=one) for one in (solver, Agents(substeps=1)))
    assert np.max(np.abs(limit.price - quiet.price)) < float(limit.error) < 0.1
    # Only the extrapolation, since both have the same steps: the last of three terms, (.14 · .3)² of it.
    assert_allclose(limit.price, quiet.price, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_limit_that_cannot_be_told_is_not_returned_silently():
    market = PriceFormation(1.0, None, WELL)
    solver = VanishingNoise((1.5, 1.0), Diffusion(points=192, substeps=1))
    with pytest.raises(EquilibriumError, match="smaller"):
        market.solve(sine_supply(4), initial=POPULATION[::10], solver=solver)


@pytest.mark.parametrize("noises", [(0.1,), (0.1, 0.1), (0.1, 0.2), (0.1, 0.0), (0.1, -0.1), ()])
def test_noises_must_fall(noises):
    with pytest.raises(EquilibriumError, match="noises is"):
        VanishingNoise(noises)


@pytest.mark.slow
def test_a_single_atom_splits():
    """All agents on top of a symmetric well go half to each side: p̄ = 0 by symmetry; the length is that of the costs."""
    market = PriceFormation(1.0, None, DoubleWell(50.0, -0.5, 0.5))
    solver = VanishingNoise((0.2, 0.1), Diffusion(points=160, substeps=1))
    limit = market.solve(np.zeros(4), initial=0.0, solver=solver)
    assert_allclose(limit.price, 0.0, atol=1e-8, rtol=0)  # the clearing error


@pytest.mark.slow
def test_case_4a():
    """Running costs with two wells: the default noises against smaller ones, and certified."""
    market = PriceFormation(1.0, WELL, None)
    limit = market.solve(sine_supply(32), initial=POPULATION)
    options = limit.levels[-1].substeps
    finer = market.solve(
        sine_supply(32), initial=POPULATION, solver=VanishingNoise((0.07, 0.05, 0.035), Diffusion(substeps=options))
    )
    difference = np.max(np.abs(limit.price - finer.price))
    assert difference < REACH
    assert difference < float(limit.error) + float(finer.error)
    assert verify(market, limit).clearing_error < 1e-3  # as for the third case
