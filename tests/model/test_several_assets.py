"""Several assets: the agents' solver against the matrix closed form and whole games as one system."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import general_costs as oracle

from walras.model import Agents, PriceFormation, Quadratic, Status

# The clearing error is 1e-9 of rates of order one, times the largest strength.
SOLVED = 1e-8
ORDER = 1.9  # tends to 2

TRADING = np.array([[1.0, 0.3], [0.3, 0.7]])
HELD = np.array([[2.0, -0.8], [-0.8, 1.5]])
ENDED = np.array([[1.2, 0.5], [0.5, 0.9]])
CENTRE = np.array([0.2, -0.1])
FIRST = np.random.default_rng(1).normal(size=(6, 2))
WEIGHTS = np.array([0.1, 0.3, 0.2, 0.15, 0.2, 0.05])


def supply(steps):
    """Means of (sin 10t, cos 7t) over the steps."""
    edges = np.linspace(0, 1, steps + 1)
    return np.stack([-np.diff(np.cos(10 * edges)) / 10, np.diff(np.sin(7 * edges)) / 7], axis=1) * steps


def solve(holding, terminal, steps, solver=None, trading=TRADING, first=FIRST, rates=None):
    market = PriceFormation(trading, holding, terminal)
    rates = supply(steps) if rates is None else rates
    return market.solve(rates, initial=(first, WEIGHTS), solver=solver)


@pytest.fixture(scope="module")
def quadratic():
    return {n: solve(Quadratic(HELD, CENTRE), Quadratic(ENDED, -CENTRE), n, Agents(substeps=1)) for n in (4, 8, 16)}


def test_matrix_closed_form_at_second_order(quadratic):
    exact = {n: solve(Quadratic(HELD, CENTRE), Quadratic(ENDED, -CENTRE), n) for n in quadratic}
    errors = [np.max(np.abs(quadratic[n].price - exact[n].price)) for n in (4, 8, 16)]
    assert np.log2(errors[1] / errors[2]) >= ORDER
    assert float(quadratic[8].error) == pytest.approx(errors[1], rel=0.2)  # terms of fourth order in h = 1/8
    # Paths, too, are those of the matrix Riccati equation's agents.
    assert np.max(np.abs(quadratic[16].positions - exact[16].positions(jnp.asarray(FIRST)))) < 0.02  # h² max|Q″|/12


@pytest.mark.slow
def test_without_holding_cost_exact_in_time():
    found = solve(None, Quadratic(ENDED, -CENTRE), 8, Agents(substeps=1))
    exact = solve(None, Quadratic(ENDED, -CENTRE), 8)
    assert_allclose(found.price, exact.price, atol=1e-9, rtol=0)  # a Newton step is exact
    assert_allclose(found.positions, exact.positions(jnp.asarray(FIRST)), atol=1e-9, rtol=0)


def test_closed_form_of_two_assets_by_hand():
    rates = supply(8)
    path = WEIGHTS @ FIRST + np.concatenate([np.zeros((1, 2)), np.cumsum(rates, axis=0)]) / 8
    exact = -rates @ TRADING - (path[-1] + CENTRE) @ ENDED
    assert_allclose(solve(None, Quadratic(ENDED, -CENTRE), 8).price, exact, atol=1e-12, rtol=0)  # rounding


def coupled(x):
    return jnp.sum(x**4) + 0.5 * (x[0] - x[1]) ** 2 + 0.3 * x[0] ** 2 * x[1] ** 2 + 0.1 * jnp.sum(x**2)


def coupled_slope(x):
    cross = 0.6 * np.stack([x[..., 0] * x[..., 1] ** 2, x[..., 1] * x[..., 0] ** 2], axis=-1)
    return 4 * x**3 + (x - x[..., ::-1]) + cross + 0.2 * x


@pytest.fixture(scope="module")
def nonlinear():
    return solve(coupled, coupled, 4, Agents(substeps=1))


def test_coupled_costs_solve_the_whole_game_at_once(nonlinear):
    price, positions = oracle.clearing_of_trajectories(coupled_slope, coupled_slope, TRADING, supply(4), 1.0, FIRST, WEIGHTS)
    assert_allclose(nonlinear.price, price, atol=SOLVED, rtol=0)
    assert_allclose(nonlinear.positions, positions, atol=SOLVED, rtol=0)
    assert bool(nonlinear.status == Status.solved)
    assert nonlinear.residual < SOLVED


def test_each_asset_clears(nonlinear):
    traded = jnp.einsum("kia,i->ka", jnp.diff(nonlinear.positions, axis=0), WEIGHTS) * 4
    assert_allclose(traded, supply(4), atol=SOLVED, rtol=0)


@pytest.mark.slow
def test_assets_may_come_in_any_order(nonlinear):
    swapped = PriceFormation(TRADING[::-1, ::-1], lambda x: coupled(x[::-1]), lambda x: coupled(x[::-1]))
    found = swapped.solve(supply(4)[:, ::-1], initial=(FIRST[:, ::-1], WEIGHTS), solver=Agents(substeps=1))
    assert_allclose(found.price[:, ::-1], nonlinear.price, atol=SOLVED, rtol=0)


@pytest.mark.slow
def test_assets_that_nothing_couples_are_markets_of_their_own():
    solver = Agents(substeps=1)
    both = solve(lambda x: jnp.sum(x**4), None, 4, solver, trading=np.diag([1.0, 0.7]))
    for asset, cost in enumerate((1.0, 0.7)):
        market = PriceFormation(cost, lambda x: x**4)
        alone = market.solve(supply(4)[:, asset], initial=(FIRST[:, asset], WEIGHTS), solver=solver)
        assert_allclose(both.price[:, asset], alone.price, atol=SOLVED, rtol=0)


def test_a_bundle_costs_the_sum_of_its_assets(nonlinear):
    """Positions in other units, x = B z: prices of the new assets are Bᵀ times those of the old (no arbitrage)."""
    bundle = np.array([[1.0, 0.5], [-0.2, 1.0]])
    other = PriceFormation(bundle.T @ TRADING @ bundle, lambda z: coupled(bundle @ z), lambda z: coupled(bundle @ z))
    inverse = np.linalg.inv(bundle).T
    found = other.solve(supply(4) @ inverse, initial=(FIRST @ inverse, WEIGHTS), solver=Agents(substeps=1))
    assert_allclose(found.price, nonlinear.price @ bundle, atol=2 * SOLVED, rtol=0)


def test_a_trading_cost_that_is_not_positive_definite():
    found = PriceFormation(np.array([[1.0, 2.0], [2.0, 1.0]]), coupled).solve(supply(4), initial=(FIRST, WEIGHTS), throw=False)
    assert bool(found.status == Status.not_convex)
