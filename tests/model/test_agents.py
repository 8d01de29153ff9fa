"""Agents without noise: their own trajectories against whole games as one system, and against vanishing noise."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import general_costs as oracle

from walras.model import Agents, Barrier, Diffusion, EquilibriumError, PriceFormation, Quadratic, Status, verify

# The clearing error is 1e-9 of rates of order one, and the oracle's root 1e-13.
SOLVED = 1e-8
# Prices at small noises are a polynomial in σ², and three noises leave out σ⁶: of the order of (.1²)³ against .1² at σ = .1.
REMAINS = 0.02
FALLS_BY = 4.0  # the difference to no noise, of order σ², when noise is halved

SUPPLY = np.array([0.6, -1.1, 0.4, 0.9, -0.5, 0.2, -0.3, 0.8])
FIRST = np.array([-0.7, -0.3, 0.1, 0.4, 0.6])
WEIGHTS = np.array([0.1, 0.3, 0.2, 0.15, 0.25])


def quartic(x):
    return x**4


def solved(holding, terminal, supply=SUPPLY, first=FIRST, weights=WEIGHTS, **arguments):
    market = PriceFormation(0.8, holding, terminal)
    return market.solve(supply, initial=(first, weights), horizon=1.3, solver=Agents(substeps=1), **arguments)


@pytest.fixture(scope="module")
def bent():
    return solved(quartic, quartic)


def test_a_compiled_function_can_return_the_equilibrium(bent):
    def program(size):
        cost = jax.tree_util.Partial(lambda size, x: size * x**4, size)
        return solved(cost, cost)

    assert_allclose(jax.jit(program)(1.0).price, bent.price, atol=SOLVED, rtol=0)


def test_paths_and_prices_solve_the_whole_game_at_once(bent):
    def slope(x):
        return 4 * x**3

    price, positions = oracle.clearing_of_trajectories(slope, slope, 0.8, SUPPLY[:, None], 1.3, FIRST[:, None], WEIGHTS)
    assert_allclose(bent.price, price[:, 0], atol=SOLVED, rtol=0)
    assert_allclose(bent.positions, positions[:, :, 0], atol=SOLVED, rtol=0)
    assert bool(bent.status == Status.solved)
    assert bent.residual < SOLVED


def test_the_market_clears_at_every_node(bent):
    path = WEIGHTS @ FIRST + 1.3 / 8 * np.append(0.0, np.cumsum(SUPPLY))
    assert_allclose(bent.positions @ WEIGHTS, path, atol=SOLVED, rtol=0)
    assert_allclose(bent.mean_position, path, atol=1e-14, rtol=0)  # rounding


def test_the_certificate_agrees(bent):
    checked = verify(PriceFormation(0.8, quartic, quartic), bent)
    assert checked.clearing_error < SOLVED
    assert abs(checked.exploitability) < SOLVED


@pytest.mark.slow
def test_agents_stay_inside_a_barrier_that_the_mean_approaches():
    market = PriceFormation(1.0, Barrier(0.01, 0.0, 1.0))
    found = market.solve(np.array([0.6, -0.2]), initial=np.array([0.1, 0.3, 0.9]), solver=Agents(substeps=8))
    assert np.max(found.positions) < 1.0
    assert_allclose(jnp.mean(found.positions, axis=1), found.mean_position, atol=SOLVED, rtol=0)
    # Each agent's own optimum: its pace changes by h V′ and the multiplier at each node.
    position, step = np.asarray(found.fine_positions), 1 / 16
    slope = 0.01 * (1 / (1 - position[1:-1]) - 1 / position[1:-1])
    costate = np.cumsum(np.asarray(found.multipliers)[::-1])[::-1]
    distance = position - np.asarray(found.fine.mean_position)[:, None]
    assert_allclose(np.diff(distance, 2, axis=0) / step, step * slope - np.diff(costate)[:, None], atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("population", ["few", "many", "in no order, and half of them nobody"])
def test_substeps_are_chosen_for_the_accuracy(population):
    """Against the closed form, which is exact in time; of many agents from a sample of them."""
    market = PriceFormation(0.8, Quadratic(12.0), Quadratic(1.0))
    first = np.linspace(-0.7, 0.6, 5 if population == "few" else 1000)
    if population.startswith("in no order"):
        first = (np.random.default_rng(0).permutation(first), np.tile([0.0, 1.0], 500))
    exact = market.solve(SUPPLY, initial=first, horizon=1.3)
    coarse = market.solve(SUPPLY, initial=first, horizon=1.3, solver=Agents(substeps=1))
    assert np.max(np.abs(coarse.price - exact.price)) > 0.01
    found = market.solve(SUPPLY, initial=first, horizon=1.3, solver=Agents())
    difference = np.max(np.abs(found.price - exact.price))
    assert difference < 1e-4 * found.price_scale
    assert_allclose(found.error, difference, rtol=0.1)  # terms of fourth order
    assert verify(market, found).clearing_error < SOLVED


def test_substeps_approach_the_continuous_game(bent):
    finer = [_with_substeps(n) for n in (1, 2, 4)]
    change = [np.max(np.abs(a.price - b.price)) for a, b in pairwise(finer)]
    assert change[0] / change[1] == pytest.approx(4.0, rel=0.15)  # second order, and terms of fourth at h = .16
    # To a fourth of the first difference there is a fourth of that again, and so on.
    assert float(bent.error) == pytest.approx(4 / 3 * change[0], rel=0.2)


def _with_substeps(substeps):
    market = PriceFormation(0.8, quartic, quartic)
    return market.solve(SUPPLY, initial=(FIRST, WEIGHTS), horizon=1.3, solver=Agents(substeps=substeps))


COSTS = {"quartic": (quartic, Quadratic(1.0)), "barrier": (Barrier(0.3, -1.6, 1.7), Quadratic(1.0, 0.4))}


@pytest.mark.parametrize("kind", ["quartic", pytest.param("barrier", marks=pytest.mark.slow)])
def test_vanishing_noise_leads_to_the_agents(kind):
    holding, terminal = COSTS[kind]
    quiet = np.asarray(solved(holding, terminal).price)
    solver = Diffusion(points=256, domain=(-2.4, 2.4), substeps=1)

    @jax.jit
    def noisy(noise):
        market = PriceFormation(0.8, holding, terminal, noise=noise)
        return market.solve(jnp.asarray(SUPPLY), initial=(FIRST, jnp.asarray(WEIGHTS)), horizon=1.3, solver=solver).price

    noises = np.array([0.2, 0.14, 0.1])
    prices = np.array([noisy(noise) for noise in noises])
    differences = np.max(np.abs(prices - quiet), axis=1)
    assert differences[0] / differences[2] == pytest.approx(FALLS_BY, rel=0.15)
    weights = [np.prod([b**2 / (b**2 - a**2) for b in noises if b != a]) for a in noises]
    assert np.max(np.abs(weights @ prices - quiet)) < REMAINS * differences[2]


def test_costs_that_are_not_convex_are_not_solved_silently():
    with pytest.raises(EquilibriumError, match="local optimum"):
        solved(lambda x: (x**2 - 0.04) ** 2, None)


def test_one_agent_follows_the_supply():
    found = solved(quartic, None, first=np.array([0.3]), weights=np.ones(1))
    path = 0.3 + 1.3 / 8 * np.append(0.0, np.cumsum(SUPPLY))
    slope = 4 * path[1:] ** 3 * 1.3 / 8
    slope[-1] /= 2
    # It has no choice: p̄ at the last node is −(h/2) V′, and grows backwards by h V′.
    assert_allclose(found.price, -np.cumsum(slope[::-1])[::-1] - 0.8 * SUPPLY, atol=SOLVED, rtol=0)
