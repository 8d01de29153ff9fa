"""The solvers for any costs against closed forms: the order in the step, the published third case, and invariances."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import general_costs as oracle
from oracles.compiling import lightly
from oracles.general_costs import sine_supply
from scipy.integrate import quad

from walras.model import Agents, ClosedForm, Diffusion, DoubleWell, PriceFormation, Quadratic, Status, verify

# Two exact answers differ by rounding, and where one is a sum over many points by its 1e-12.
EXACT = 1e-10
# The clearing error is 1e-9 of the rates, which are of order one; the grid's own error is spectrally small.
SOLVED = 1e-8
# Observed orders tend to 2; the next term is of relative size h² ≤ 1/64 at the coarser of the last two, times |Q‴/Q′| = 100/12.
ORDER = 1.9
# `error` extrapolates from a step to its half: it leaves out terms of fourth order, a few percent where supply varies much.
HONEST = 0.2

POPULATION = (np.arange(400) + 0.5) / 400
WELL = DoubleWell(50.0, 0.25, 0.75)
CASES = {1: (None, Quadratic(10.0)), 2: (Quadratic(10.0), None)}
STEPS = (16, 32)


def sine_price(case, steps, first=0.5):
    """Step means of −cQ − γ X̄(1) − η ∫ₜ¹ X̄ with X̄ = x̄₀ + (1 − cos 10t)/10, by hand."""
    edges = np.linspace(0, 1, steps + 1)
    price = -sine_supply(steps)
    if case == 1:
        return price - 10.0 * (first + (1 - np.cos(10.0)) / 10)
    remaining = 1 - 0.5 * (edges[:-1] + edges[1:])
    return price - 10.0 * ((first + 0.1) * remaining - (np.sin(10.0) - sine_supply(steps)) / 100)


def wiener_supply(steps):
    return np.cumsum(np.random.default_rng(5).normal(size=steps)) / np.sqrt(steps)


@pytest.fixture(scope="module")
def quadratic_solutions():
    """Both quadratic cases by both general solvers, on grids given once so that few programs are compiled."""
    found = {}
    for name, noise, population in (("diffusion", 0.3, POPULATION[::8]), ("agents", 0.0, POPULATION[::8])):
        for steps in STEPS:
            solver = Diffusion(points=160, domain=(-3.0, 3.0), substeps=1) if name == "diffusion" else Agents(substeps=1)
            for case, costs in CASES.items():
                market = PriceFormation(1.0, *costs, noise=noise)
                found[name, case, steps] = market.solve(sine_supply(steps), initial=population, solver=solver)
    return found


@pytest.mark.parametrize("solver", ["diffusion", "agents"])
def test_observed_order_in_the_step_is_two(quadratic_solutions, solver):
    first = np.mean(POPULATION[::8])
    errors = [np.max(np.abs(quadratic_solutions[solver, 2, steps].price - sine_price(2, steps, first))) for steps in STEPS]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert orders[-1] >= ORDER
    assert errors[-1] < 0.01  # η max|Q′| h²/12 = 8e-3 of an irregular sum


@pytest.mark.parametrize("solver", ["diffusion", "agents"])
def test_a_market_without_holding_cost_is_exact_in_time(quadratic_solutions, solver):
    for steps in STEPS:
        found = quadratic_solutions[solver, 1, steps]
        assert_allclose(found.price, sine_price(1, steps, np.mean(POPULATION[::8])), atol=10 * SOLVED, rtol=0)  # times γ = 10
        assert found.residual < SOLVED
        assert bool(found.status == Status.solved)


@pytest.mark.parametrize("solver", ["diffusion", "agents"])
def test_the_estimated_error_is_the_error(quadratic_solutions, solver):
    found = quadratic_solutions[solver, 2, 16]
    exact = PriceFormation(1.0, *CASES[2]).solve(found.supply, initial=found.initial, solver=ClosedForm())
    assert_allclose(found.error, np.max(np.abs(found.price - exact.price)), rtol=HONEST)


def test_first_published_case_is_the_continuous_formula():
    found = PriceFormation(1.0, *CASES[1]).solve(lambda t: jnp.sin(10 * t), steps=100, initial=POPULATION)
    assert_allclose(found.price, sine_price(1, 100), atol=EXACT, rtol=0)


def test_second_published_case_is_the_continuous_formula():
    supply = wiener_supply(10)
    edges = np.linspace(0, 1, 11)
    path = 0.5 + np.append(0.0, np.cumsum(supply)) / 10

    def costate(t):
        return -10.0 * quad(lambda s: np.interp(s, edges, path), t, 1, points=edges[edges > t], limit=100, epsabs=1e-13)[0]

    means = [10 * quad(costate, a, b, epsabs=1e-13)[0] for a, b in pairwise(edges)]
    found = PriceFormation(1.0, *CASES[2]).solve(supply, initial=POPULATION)
    assert_allclose(found.price, means - supply, atol=EXACT, rtol=0)


@pytest.fixture(scope="module")
def third_case():
    """p̄ of the third case for any noise, with one program; D decides nothing but the figures' last digits."""
    solver = Diffusion(points=480, domain=(-2.6, 2.6), substeps=1)

    @lightly
    def solve(noise):
        market = PriceFormation(1.0, None, WELL, noise=noise)
        found = market.solve(jnp.asarray(sine_supply(2)), initial=jnp.asarray(POPULATION), solver=solver)
        return found.costate, found.status == Status.solved

    return solve


@pytest.mark.parametrize(("noise", "published"), [(0.3, -0.36301), (0.2, -0.20947), (0.1, -0.16619), (0.07, -0.16376)])
def test_third_published_case_with_noise(third_case, noise, published):
    costate, solved = third_case(noise)
    first = POPULATION - POPULATION.mean()
    end = POPULATION.mean() + (1 - np.cos(10.0)) / 10
    independent = oracle.costate_without_holding(WELL, end, first, 1.0, noise)
    assert bool(solved)
    assert_allclose(costate, independent, atol=10 * SOLVED, rtol=0)  # ∂p̄/∂E[α] is 4 at most
    assert_allclose(costate, published, atol=2e-5, rtol=0)  # four of the last digits that the design page gives


class Quartic(eqx.Module):
    strength: float

    def __call__(self, x):
        return self.strength * x**4


@pytest.fixture(scope="module")
def bent():
    """A market with two wells in both costs, and the solve of any market like it."""
    market = PriceFormation(1.0, DoubleWell(30.0, -0.2, 0.7), DoubleWell(20.0, 0.1, 0.9), noise=0.25)
    supply, positions = jnp.asarray(wiener_supply(8)), jnp.linspace(-0.4, 1.0, 7)
    weights = jnp.array([1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0]) / 14

    @eqx.filter_jit
    def compiled(market, supply, initial, horizon):
        solver = Diffusion(points=128, domain=(-3.0, 3.0), substeps=1)
        return market.solve(supply, initial=initial, horizon=horizon, solver=solver)

    def solve(market, supply=supply, initial=(positions, weights), horizon=1.0):
        # As arrays: numbers would be compiled into a program each.
        arrays = jax.tree.map(lambda leaf: leaf if callable(leaf) else jnp.asarray(leaf), (market, supply, initial, horizon))
        return compiled(*arrays)

    return market, supply, positions, weights, solve


@pytest.mark.slow
def test_a_double_well_market_is_certified(bent):
    market, _, positions, weights, _ = bent
    found = market.solve(wiener_supply(32), initial=(positions, weights))
    checked = verify(market, found)
    # A price that is wrong by `error` moves rates by about as much over c, and back in the next step.
    assert checked.clearing_error < 2 * float(found.error) + 2 * checked.accuracy
    assert checked.clearing_error < 1e-3
    assert abs(checked.exploitability) < 1e-4
    wrong = eqx.tree_at(lambda e: e.price, found, found.price + 0.1 * jnp.cos(3 * found.times))
    assert verify(market, wrong).clearing_error > 5 * checked.clearing_error


def test_agents_may_come_in_any_order(bent):
    market, _, positions, weights, solve = bent
    order = np.random.default_rng(0).permutation(7)
    assert_allclose(solve(market, initial=(positions[order], weights[order])).price, solve(market).price, atol=SOLVED, rtol=0)


def test_money_has_no_unit(bent):
    market, _, _, _, solve = bent
    dearer = PriceFormation(7.0, DoubleWell(210.0, -0.2, 0.7), DoubleWell(140.0, 0.1, 0.9), noise=0.25)
    assert_allclose(solve(dearer).price, 7 * solve(market).price, atol=7 * SOLVED, rtol=0)


def test_time_has_no_unit(bent):
    market, supply, _, _, solve = bent
    slower = PriceFormation(2.0, DoubleWell(15.0, -0.2, 0.7), DoubleWell(20.0, 0.1, 0.9), noise=0.25 / np.sqrt(2))
    assert_allclose(solve(slower, supply=supply / 2, horizon=2.0).price, solve(market).price, atol=SOLVED, rtol=0)


def test_positions_have_no_origin(bent):
    market, _, positions, weights, solve = bent
    moved = PriceFormation(1.0, DoubleWell(30.0, 4.8, 5.7), DoubleWell(20.0, 5.1, 5.9), noise=0.25)
    assert_allclose(solve(moved, initial=(positions + 5.0, weights)).price, solve(market).price, atol=SOLVED, rtol=0)


def test_positions_can_be_mirrored(bent):
    market, supply, positions, weights, solve = bent
    mirrored = PriceFormation(1.0, DoubleWell(30.0, -0.7, 0.2), DoubleWell(20.0, -0.9, -0.1), noise=0.25)
    assert_allclose(
        solve(mirrored, supply=-supply, initial=(-positions, weights)).price, -solve(market).price, atol=SOLVED, rtol=0
    )


@pytest.mark.slow
def test_a_cost_is_any_callable(bent):
    market, _, _, _, solve = bent
    module = solve(PriceFormation(1.0, Quartic(2.0), market.terminal, noise=0.25)).price
    plain = solve(PriceFormation(1.0, lambda x: 2.0 * x**4, market.terminal, noise=0.25)).price
    partial = jax.tree_util.Partial(lambda strength, x: strength * x**4, 2.0)
    assert_allclose(plain, module, atol=EXACT, rtol=0)
    assert_allclose(solve(PriceFormation(1.0, partial, market.terminal, noise=0.25)).price, module, atol=EXACT, rtol=0)
