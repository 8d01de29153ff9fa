"""Unforeseen supply over one finite game: the closed coefficients against a scenario tree and a dynamic programme."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import price_formation as tree_oracle
from oracles import stationary_market as value_oracle

from walras.model import PriceFormation, Quadratic, RandomSupply, Status

C, HOLDING, TERMINAL = 0.7, (1.3, 0.4), (2.1, -0.3)
MEAN, REVERSION, VOLATILITY, HORIZON = 0.6, 1.7, 0.9, 1.5
COSTS = {
    "both": (HOLDING, TERMINAL),
    "holding": (HOLDING, None),
    "terminal": (None, TERMINAL),
    "neither": (None, None),
}
# The value function is integrated with relative tolerance 1e-12 and stays below 10.
INTEGRATED = 1e-10
# Eight trees extrapolated to step zero: leaving the finest tree out moves the limit by less than 1e-6.
EXTRAPOLATED = 1e-6
# Central differences with step 1e-5 of an oracle exact to 1e-12.
DIFFERENCES = 1e-6


def make_market(holding, terminal, trading_cost=C):
    return PriceFormation(trading_cost, *[None if cost is None else Quadratic(*cost) for cost in (holding, terminal)])


def coefficients(equilibrium):
    return np.stack([equilibrium.level, equilibrium.supply_response, equilibrium.position_response], axis=-1)


def solve(holding=HOLDING, terminal=TERMINAL, supply=(MEAN, REVERSION, VOLATILITY), steps=6):
    return make_market(holding, terminal).solve(RandomSupply(*supply), horizon=HORIZON, steps=steps, initial=0.3)


@pytest.mark.parametrize("costs", COSTS)
def test_coefficients_equal_the_dynamic_programme_of_one_agent(costs):
    holding, terminal = COSTS[costs]
    equilibrium = solve(holding, terminal)
    market = value_oracle.Market(C, *(holding or (0.0, 0.0)), mean=MEAN, reversion=REVERSION)
    expected = value_oracle.finite_horizon(market, equilibrium.times, HORIZON, terminal)
    assert_allclose(coefficients(equilibrium), expected, rtol=INTEGRATED, atol=INTEGRATED)
    assert bool(equilibrium.status == Status.solved)


@pytest.mark.parametrize("reversion", [0.0, 1e-6, 0.01, 0.3, 30.0])
def test_slow_and_fast_reversion(reversion):
    equilibrium = solve(supply=(MEAN, reversion, VOLATILITY))
    market = value_oracle.Market(C, *HOLDING, mean=MEAN, reversion=reversion)
    expected = value_oracle.finite_horizon(market, equilibrium.times, HORIZON, TERMINAL)
    assert_allclose(coefficients(equilibrium), expected, rtol=INTEGRATED, atol=INTEGRATED)


def test_volatility_does_not_move_the_coefficients():
    calm, wild = (solve(supply=(MEAN, REVERSION, volatility)) for volatility in (0.0, 5.0))
    assert_allclose(coefficients(calm), coefficients(wild), rtol=0, atol=0)


@pytest.mark.slow
def test_tree_without_foresight_converges_to_the_coefficients():
    """Each midpoint's coefficients are those at the root of a tree that spans the time left; steps 1 … 8."""
    game, counts = tree_oracle.Game(C, HOLDING, TERMINAL), np.arange(1, 9)
    equilibrium = solve(steps=3)
    for time, expected in zip(equilibrium.times, coefficients(equilibrium), strict=True):
        left = HORIZON - float(time)
        roots = [tree_oracle.root_coefficients(game, MEAN, REVERSION, left, n, VOLATILITY) for n in counts]
        assert_allclose(tree_oracle.extrapolate(1 / counts, roots), expected, rtol=0, atol=EXTRAPOLATED)


def test_tree_converges_at_first_order():
    """Supply is held constant over each step, which delays news by half a step on average: errors halve with it."""
    game, expected = tree_oracle.Game(C, HOLDING, TERMINAL), coefficients(solve(steps=1))[0]
    left = HORIZON / 2
    roots = [tree_oracle.root_coefficients(game, MEAN, REVERSION, left, n, VOLATILITY) for n in (2, 4, 8)]
    coarse, middle, fine = np.abs(np.array(roots) - expected)
    assert_allclose([coarse / middle, middle / fine], 2.0, rtol=0.2)


def test_price_on_a_tree_depends_on_supply_and_mean_position_alone():
    """Along 64 histories the price is one affine function of (Q, X̄) at each date, whatever came before."""
    tree = tree_oracle.binomial_tree(0.2, MEAN, REVERSION, VOLATILITY, HORIZON, 6)
    game, weights = tree_oracle.Game(C, HOLDING, TERMINAL), np.array([0.3, 0.7])
    price, rates = tree_oracle.clearing(game, tree, [-1.0, 1.5], weights)
    ends = weights @ np.array([-1.0, 1.5]) + tree_oracle.end_positions(tree) @ (rates @ weights)
    last = slice(31, 63)
    regressors = np.stack([np.ones(32), tree.supply[last], ends[tree.parent[last]]], axis=1)
    fitted, *_ = np.linalg.lstsq(regressors, price[last])
    assert_allclose(regressors @ fitted, price[last], rtol=0, atol=1e-10)


def test_foreseen_and_unforeseen_agree_when_supply_is_certain():
    """Without shocks supply follows its conditional mean, and the midpoint price is the foreseen one to O(h²)."""

    def conditional_mean(t):
        return MEAN + (2.0 - MEAN) * jnp.exp(-REVERSION * t)

    errors = []
    for steps in (50, 100):
        equilibrium = solve(steps=steps)
        foreseen = make_market(HOLDING, TERMINAL).solve(conditional_mean, steps=steps, horizon=HORIZON, initial=0.3)
        position = 0.3 + MEAN * equilibrium.times + (2.0 - MEAN) * -jnp.expm1(-REVERSION * equilibrium.times) / REVERSION
        state = np.stack([np.ones(steps), conditional_mean(equilibrium.times), position], axis=1)
        errors.append(np.max(np.abs(np.sum(coefficients(equilibrium) * state, axis=1) - foreseen.price)))
    # Ratios of a second-order difference tend to 4; the largest error moves with the first midpoint, hence 2 %.
    assert_allclose(errors[0] / errors[1], 4.0, rtol=0.02)


def parameters(reversion):
    return np.array([C, *HOLDING, *TERMINAL, MEAN, reversion])


def closed_coefficients(theta):
    c, eta, kappa, gamma, zeta, mean, reversion = theta
    market = PriceFormation(c, Quadratic(eta, kappa), Quadratic(gamma, zeta))
    solved = market.solve(RandomSupply(mean, reversion, VOLATILITY), horizon=HORIZON, steps=3, initial=0.3)
    return jnp.stack([solved.level, solved.supply_response, solved.position_response], axis=-1)


def dynamic_coefficients(theta):
    c, eta, kappa, gamma, zeta, mean, reversion = theta
    market = value_oracle.Market(c, eta, kappa, mean=mean, reversion=reversion)
    return value_oracle.finite_horizon(market, [0.25, 0.75, 1.25], HORIZON, (gamma, zeta))


@cache
def differences(reversion):
    theta = parameters(reversion)
    bumps = 1e-5 * np.eye(theta.size)
    return [(dynamic_coefficients(theta + bump) - dynamic_coefficients(theta - bump)) / 2e-5 for bump in bumps]


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("reversion", [0.0, 1e-9, 0.4, REVERSION])
def test_derivatives_equal_differences_of_the_dynamic_programme(reversion, jacobian):
    """Also where supply is a random walk, or nearly: the formula divides by the reversion, the derivative may not."""
    actual = np.moveaxis(jacobian(closed_coefficients)(jnp.asarray(parameters(reversion))), -1, 0)
    assert_allclose(actual, differences(reversion), rtol=DIFFERENCES, atol=DIFFERENCES)
