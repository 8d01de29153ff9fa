"""Foreseen supply: the closed form against the KKT system of finitely many agents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from oracles import price_formation as oracle
from scipy.integrate import quad, solve_bvp

from walras.model import PriceFormation, Quadratic, Status

# Two exact answers to one linear problem differ by rounding: at most 250 unknowns, each Hessian of condition below 1e4.
EXACT = 1e-10
# Central differences of a smooth function with step 1e-5: error 1e-10 from the step and 1e-11/1e-5 from rounding.
DIFFERENCES = 1e-6

HORIZON = 1.5
COSTS = {
    "both": ((1.3, 0.4), (2.1, -0.3)),
    "holding": ((1.3, 0.4), None),
    "terminal": (None, (2.1, -0.3)),
    "neither": (None, None),
    "strong": ((40.0, -1.0), (25.0, 2.0)),
}
POSITIONS = np.array([-0.7, 0.1, 0.4, 2.0])
WEIGHTS = np.array([0.1, 0.5, 0.15, 0.25])


def make_supply(kind, steps):
    rng = np.random.default_rng(7)
    midpoints = (np.arange(steps) + 0.5) * HORIZON / steps
    if kind == "smooth":
        return np.sin(10 * midpoints)
    if kind == "wiener":
        return np.cumsum(rng.normal(size=steps)) * np.sqrt(HORIZON / steps)
    return rng.choice([-5.0, 0.0, 8.0], size=steps)


def make_market(trading_cost, holding, terminal, **fields):
    costs = [None if cost is None else Quadratic(*cost) for cost in (holding, terminal)]
    return PriceFormation(trading_cost, *costs, **fields)


def solve(holding, terminal, supply, initial, trading_cost=0.7, horizon=HORIZON, **fields):
    return make_market(trading_cost, holding, terminal, **fields).solve(supply, horizon=horizon, initial=initial)


@pytest.mark.parametrize("kind", ["smooth", "wiener", "jumps"])
@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("costs", COSTS)
def test_price_and_positions_equal_kkt(costs, steps, kind):
    holding, terminal = COSTS[costs]
    supply = make_supply(kind, steps)
    equilibrium = solve(holding, terminal, supply, (POSITIONS, WEIGHTS))
    price, nodes = oracle.foreseen(oracle.Game(0.7, holding, terminal), supply, HORIZON, POSITIONS, WEIGHTS)
    assert_allclose(equilibrium.price, price, rtol=EXACT, atol=EXACT)
    assert_allclose(equilibrium.mean_position, nodes @ WEIGHTS, rtol=EXACT, atol=EXACT)
    assert_allclose(equilibrium.positions(POSITIONS), nodes, rtol=EXACT, atol=EXACT)
    assert_allclose(equilibrium.times, (np.arange(steps) + 0.5) * HORIZON / steps, rtol=EXACT)
    assert equilibrium.residual < EXACT
    assert bool(equilibrium.status == Status.solved)


def test_equal_weights_are_the_default():
    supply = make_supply("wiener", 12)
    price, _ = oracle.foreseen(oracle.Game(0.7, *COSTS["both"]), supply, HORIZON, POSITIONS)
    assert_allclose(solve(*COSTS["both"], supply, POSITIONS).price, price, rtol=EXACT, atol=EXACT)


def test_an_outsider_responds_optimally():
    supply = make_supply("jumps", 20)
    equilibrium = solve(*COSTS["both"], supply, POSITIONS)
    tree = oracle.chain(supply, HORIZON)
    rates = oracle.best_response(oracle.Game(0.7, *COSTS["both"]), tree, np.asarray(equilibrium.price), 5.0)
    path = 5.0 + oracle.end_positions(tree) @ rates
    assert_allclose(equilibrium.positions(jnp.array([5.0]))[1:, 0], path, rtol=EXACT, atol=EXACT)


def test_no_deviation_from_a_path_lowers_its_cost():
    game = oracle.Game(0.7, *COSTS["both"])
    equilibrium = solve(*COSTS["both"], make_supply("wiener", 16), (POSITIONS, WEIGHTS))
    paths, price = np.asarray(equilibrium.positions(POSITIONS)), np.asarray(equilibrium.price)
    rng = np.random.default_rng(3)
    for path in paths.T:
        best = oracle.path_cost(game, path, price, HORIZON)
        for size in (1e-3, 1e-1, 1.0):
            deviation = path + size * np.append(0.0, rng.normal(size=len(price)))
            assert oracle.path_cost(game, deviation, price, HORIZON) > best


def test_supply_as_a_function_is_averaged_over_each_step():
    def edge(k):
        return k * HORIZON / 25

    means = [quad(lambda t: np.sin(10 * t), edge(k), edge(k + 1), epsabs=1e-14)[0] * 25 / HORIZON for k in range(25)]
    market = make_market(0.7, *COSTS["both"])
    price = market.solve(lambda t: jnp.sin(10 * t), steps=25, horizon=HORIZON, initial=0.2).price
    expected, _ = oracle.foreseen(oracle.Game(0.7, *COSTS["both"]), means, HORIZON, [0.2])
    assert_allclose(price, expected, rtol=EXACT, atol=EXACT)


def test_paths_converge_at_second_order_to_the_boundary_value_problem():
    """In continuous time an agent's distance y from the mean obeys c y″ = η y, c y′(T) = −γ y(T)."""
    (eta, _), (gamma, _) = COSTS["both"]
    exact = solve_bvp(
        lambda t, state: np.stack([state[1], eta / 0.7 * state[0]]),
        lambda start, end: np.array([start[0] - 1.5, 0.7 * end[1] + gamma * end[0]]),
        np.linspace(0, HORIZON, 50),
        np.ones((2, 50)),
        tol=1e-10,
    )
    errors = []
    for steps in (20, 40, 80):
        equilibrium = solve(*COSTS["both"], make_supply("smooth", steps), 0.5)
        distance = equilibrium.positions(jnp.array([2.0]))[:, 0] - equilibrium.mean_position
        errors.append(np.max(np.abs(distance - exact.sol(np.linspace(0, HORIZON, steps + 1))[0])))
    # Ratios of a second-order method tend to 4; the next term is of relative size h² < 0.01.
    assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 4.0, rtol=0.01)


def pack(steps):
    """Parameters (c, η, κ, γ, ζ), then supply (steps,), then initial positions (4,)."""
    return np.concatenate([[0.7, 1.3, 0.4, 2.1, -0.3], make_supply("jumps", steps), POSITIONS])


def price_of(theta, steps=8):
    market = PriceFormation(theta[0], Quadratic(theta[1], theta[2]), Quadratic(theta[3], theta[4]))
    return market.solve(theta[5 : 5 + steps], horizon=HORIZON, initial=(theta[5 + steps :], WEIGHTS)).price


def kkt_price_of(theta, steps=8):
    game = oracle.Game(theta[0], tuple(theta[1:3]), tuple(theta[3:5]))
    return oracle.foreseen(game, theta[5 : 5 + steps], HORIZON, theta[5 + steps :], WEIGHTS)[0]


def path_of(theta, steps=8):
    market = PriceFormation(theta[0], Quadratic(theta[1], theta[2]), Quadratic(theta[3], theta[4]))
    equilibrium = market.solve(theta[5 : 5 + steps], horizon=HORIZON, initial=(theta[5 + steps :], WEIGHTS))
    return equilibrium.positions(theta[5 + steps :])[:, 3]


def kkt_path_of(theta, steps=8):
    game = oracle.Game(theta[0], tuple(theta[1:3]), tuple(theta[3:5]))
    return oracle.foreseen(game, theta[5 : 5 + steps], HORIZON, theta[5 + steps :], WEIGHTS)[1][:, 3]


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize(("closed", "kkt"), [(price_of, kkt_price_of), (path_of, kkt_path_of)], ids=["price", "path"])
def test_derivatives_equal_differences_of_the_kkt_solution(closed, kkt, jacobian):
    theta = pack(8)
    expected = [(kkt(theta + bump) - kkt(theta - bump)) / 2e-5 for bump in 1e-5 * np.eye(theta.size)]
    # Entries that are zero by theory are compared on the scale of the others, which is about one.
    assert_allclose(jacobian(closed)(jnp.asarray(theta)).T, expected, rtol=DIFFERENCES, atol=DIFFERENCES)


def test_vmap_and_jit_give_the_same_prices():
    thetas = jnp.asarray(np.outer([1.0, 1.1, 0.8], pack(8)))
    batched = jax.jit(jax.vmap(price_of))(thetas)
    assert_allclose(batched, [kkt_price_of(theta) for theta in np.asarray(thetas)], rtol=EXACT, atol=EXACT)


# Invariances. Eight steps and five agents throughout, so that nothing is compiled twice.
PROPERTY = settings(max_examples=20, deadline=None, derandomize=True, database=None)
numbers = st.floats(-10.0, 10.0, allow_subnormal=False)
positive = st.floats(0.05, 20.0)
supplies = st.lists(numbers, min_size=8, max_size=8).map(np.array)
populations = st.tuples(
    st.lists(numbers, min_size=5, max_size=5).map(np.array),
    st.lists(positive, min_size=5, max_size=5).map(lambda weights: np.array(weights) / np.sum(weights)),
)
costs = st.tuples(positive, numbers)


def assert_same(actual, expected, scale=1.0):
    """Equal up to rounding of sums whose terms are about `scale`; parameters here give terms below 1e4."""
    assert_allclose(actual, expected, rtol=EXACT, atol=1e-9 * scale)


@PROPERTY
@given(positive, costs, costs, supplies, populations)
def test_price_equals_kkt_for_any_market(trading_cost, holding, terminal, supply, population):
    price, nodes = oracle.foreseen(oracle.Game(trading_cost, holding, terminal), supply, HORIZON, *population)
    equilibrium = solve(holding, terminal, supply, population, trading_cost)
    assert_same(equilibrium.price, price)
    assert_same(equilibrium.positions(population[0]), nodes)


@PROPERTY
@given(costs, costs, supplies, populations, st.permutations(range(5)))
def test_order_of_agents_does_not_matter(holding, terminal, supply, population, order):
    positions, weights = population
    shuffled = solve(holding, terminal, supply, (positions[list(order)], weights[list(order)]))
    assert_same(shuffled.price, solve(holding, terminal, supply, population).price)


@PROPERTY
@given(costs, costs, supplies, populations, positive)
def test_only_the_mean_of_initial_positions_matters(holding, terminal, supply, population, spread):
    positions, weights = population
    mean = weights @ positions
    wider = solve(holding, terminal, supply, (mean + spread * (positions - mean), weights))
    point = solve(holding, terminal, supply, mean, noise=spread)
    assert_same(wider.price, point.price)


@PROPERTY
@given(positive, costs, costs, supplies, populations)
def test_population_trades_exactly_the_supply(trading_cost, holding, terminal, supply, population):
    """Clearing, and with it Walras' law: what agents pay is the value of what is supplied."""
    positions, weights = population
    equilibrium = solve(holding, terminal, supply, population, trading_cost)
    rates = np.diff(equilibrium.positions(positions) @ weights) * 8 / HORIZON
    assert_same(rates, supply)
    assert_same(rates @ equilibrium.price, supply @ equilibrium.price, scale=1e3)


@PROPERTY
@given(positive, costs, costs, supplies, populations, positive)
def test_units_of_money(trading_cost, holding, terminal, supply, population, unit):
    (eta, kappa), (gamma, zeta) = holding, terminal
    scaled = solve((unit * eta, kappa), (unit * gamma, zeta), supply, population, unit * trading_cost)
    assert_same(scaled.price, unit * solve(holding, terminal, supply, population, trading_cost).price, scale=unit)


@PROPERTY
@given(positive, costs, costs, supplies, populations, positive)
def test_units_of_the_asset(trading_cost, holding, terminal, supply, population, unit):
    (eta, kappa), (gamma, zeta), (positions, weights) = holding, terminal, population
    scaled = solve(
        (eta / unit, unit * kappa),
        (gamma / unit, unit * zeta),
        unit * supply,
        (unit * positions, weights),
        trading_cost / unit,
    )
    reference = solve(holding, terminal, supply, population, trading_cost)
    assert_same(scaled.price, reference.price)
    assert_same(scaled.mean_position, unit * reference.mean_position, scale=unit)


@PROPERTY
@given(positive, costs, costs, supplies, populations, positive)
def test_units_of_time(trading_cost, holding, terminal, supply, population, unit):
    (eta, kappa), reference = holding, solve(holding, terminal, supply, population, trading_cost)
    scaled = solve((eta / unit, kappa), terminal, supply / unit, population, unit * trading_cost, horizon=unit * HORIZON)
    assert_same(scaled.price, reference.price)
    assert_same(scaled.times, unit * reference.times, scale=unit)


@PROPERTY
@given(costs, costs, supplies, populations, numbers)
def test_origin_of_positions(holding, terminal, supply, population, shift):
    (eta, kappa), (gamma, zeta), (positions, weights) = holding, terminal, population
    moved = solve((eta, kappa + shift), (gamma, zeta + shift), supply, (positions + shift, weights))
    assert_same(moved.price, solve(holding, terminal, supply, population).price)


@PROPERTY
@given(supplies, numbers)
def test_weak_costs_approach_no_costs(supply, start):
    weak = solve((1e-12, 0.3), (1e-12, 0.3), supply, start)
    assert_same(weak.price, solve(None, None, supply, start).price)
    assert_same(weak.price, -0.7 * supply)
