"""Equilibria with trading costs against trees on which every agent is optimised by itself, and published figures."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from oracles import trading_costs as tree
from oracles.compiling import lightly
from scipy.integrate import quad

from walras.model import EquilibriumError, Status, TradingCosts
from walras.model.trading_costs import quadratic

TREE = 1e-12  # both sides solve the same equations exactly; measured 1e-14
PUBLISHED = 1e-6  # the digits given of the continuous limit
DIFFERENCES = 1e-6  # relative, of central differences with a step of 1e-5

# γ, ξ, λ, T and the continuous limit S₀, μ₀, σ₀, for s = α = 1, β = 2.
CONTINUOUS = {
    "two agents": ([1, 2], [3, -3], 0.01, 0.4, (0.4731723, 0.8401080, 1.1225694)),
    "cheaper trading": ([1, 2], [3, -3], 0.001, 0.2, (0.2570595, 0.7193076, 1.0387307)),
    "five agents": ([1, 1.2, 1.4, 1.6, 1.8], [3, 2, 2, -3, -4], 0.01, 0.2, (0.3412920, 0.3031118, 1.0630399)),
    "ten agents": (
        np.linspace(1, 1.9, 10),
        [28.9, 14.9, 11.8, -14, -19.1, -27, 22.2, 31.5, -26.3, -22.9],
        0.01,
        0.2,
        (0.3611556, 0.2157997, 1.2454343),
    ),
}


def market(aversion, risk, cost, **options):
    return TradingCosts(jnp.asarray(aversion, float), jnp.asarray(risk, float), cost, **{"payoff_drift": 2.0, **options})


def histories(steps, assets=1):
    """Every sequence of coins, in the order of the oracle's nodes: (paths, steps, assets) of ±1."""
    coins = list(product([1.0, -1.0], repeat=assets))
    return np.array(list(product(coins, repeat=steps)))


def compare_with_tree(equilibrium, oracle, oracle_market):
    """Prices, positions and rates at every node of a tree, and volatility and welfare."""
    steps = oracle_market.steps
    assets = len(oracle_market.supply)
    increments = np.sqrt(oracle_market.duration) * histories(steps, assets)
    found = equilibrium.along(increments if jnp.ndim(equilibrium.market.endowment) == 3 else increments[..., 0])
    branches = 2**assets
    for date in range(steps + 1):
        node = np.arange(len(increments)) // branches ** (steps - date)  # of each history
        shape = (len(node), assets)
        assert_allclose(np.reshape(found.price[:, date], shape), oracle.price[date][node], atol=TREE, rtol=0)
        if date < steps:
            own = (len(node), -1, assets)
            rates = np.moveaxis(oracle.rates[date][:, node], 0, 1)
            held = np.moveaxis(oracle.positions[date][:, node], 0, 1)
            scale = np.abs(rates).max() + 1.0
            assert_allclose(np.reshape(found.rate[:, date], own), rates, atol=TREE * scale, rtol=0)
            assert_allclose(np.reshape(found.position[:, date + 1], own), held, atol=TREE * scale, rtol=0)


@pytest.mark.parametrize(
    ("aversion", "risk", "steps"),
    [
        pytest.param([1, 2], [3, -3], 5, marks=pytest.mark.slow),
        ([1, 2, 3], [2, -1, -1], 4),
        ([1, 2, 3], [2, -1, 0.5], 4),
        pytest.param([0.5, 4], [1, 1], 4, marks=pytest.mark.slow),
    ],
    ids=["two agents", "three agents", "a risk that nobody can share", "only such risks"],
)
def test_quadratic_costs_equal_agents_optimised_one_by_one_on_a_tree(aversion, risk, steps):
    own = tree.market(aversion, risk, 0.1, 0.5, steps, level=2.0)
    oracle = tree.equilibrium(own)
    found = market(aversion, risk, 0.1).solve(0.5, steps, throw=False)
    compare_with_tree(found, oracle, own)
    assert_allclose(found.volatility, [sigma[0, 0, 0] for sigma in oracle.volatility], atol=TREE, rtol=0)
    figures = quadratic.figures(found.market, 0.5, steps)
    assert_allclose(figures.welfare, oracle.welfare, atol=TREE, rtol=0)
    assert_allclose(figures.drift, oracle.drift[0][0, 0], atol=TREE, rtol=0)
    assert found.residual < TREE
    assert max(tree.gain(own, i, oracle.price, [r[i] for r in oracle.rates]) for i in range(len(aversion))) < TREE


@pytest.mark.slow
@pytest.mark.parametrize("agents", [2, 3])
def test_several_assets_equal_agents_optimised_one_by_one_on_a_tree(agents):
    rng = np.random.default_rng(agents)
    aversion, risk = rng.uniform(0.5, 2.0, agents), rng.normal(size=(agents, 2, 2))
    cost, noise = np.array([[0.2, 0.05], [0.05, 0.1]]), np.array([[1.0, 0.3], [-0.2, 0.8]])
    supply, drift = np.array([1.0, 0.5]), np.array([2.0, 1.0])
    own = tree.market(aversion, risk, cost, 0.5, 3, supply=supply, level=drift, noise=noise)
    oracle = tree.equilibrium(own)
    wanted = market(aversion, risk, jnp.array(cost), supply=supply, payoff_drift=drift, payoff_volatility=jnp.array(noise))
    found = wanted.solve(0.5, 3, throw=False)
    compare_with_tree(found, oracle, own)
    assert_allclose(found.volatility, [sigma[0] for sigma in oracle.volatility], atol=TREE, rtol=0)
    assert_allclose(quadratic.figures(wanted, 0.5, 3).welfare, oracle.welfare, atol=TREE, rtol=0)
    assert found.residual < TREE


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_limit(name):
    aversion, risk, cost, horizon, expected = CONTINUOUS[name]
    found = market(aversion, risk, cost).solve(horizon, 32)
    assert_allclose((found.price0, found.drift0, found.volatility0), expected, atol=PUBLISHED, rtol=0)
    assert found.error < 1e-4
    assert bool(found.status == Status.solved)


@pytest.mark.slow
def test_the_error_is_of_the_size_of_the_true_one_and_no_smaller():
    case = market([1, 2], [3, -3], 0.01)
    exact = case.solve(0.4, 256)
    for steps in (4, 8, 16, 32):
        found = case.solve(0.4, steps, throw=False)
        true = max(
            abs(found.price0 - exact.price0) / (exact.drift0 * 0.4),
            abs(found.drift0 / exact.drift0 - 1),
            abs(found.volatility0 / exact.volatility0 - 1),
            np.max(np.abs(found.welfare - exact.welfare)) / np.max(np.abs(exact.welfare)),
        )
        assert true < found.error < 1000 * true


def test_steps_that_are_too_coarse_are_refused():
    # Positions revert within a time of .07, and steps take 10.
    long = market([1, 2], [3, -3], 0.01)
    with pytest.raises(EquilibriumError, match="give more steps"):
        long.solve(40.0, 4)
    assert bool(long.solve(40.0, 4, throw=False).status == Status.steps_too_coarse)
    assert bool(long.solve(40.0, 1024).status == Status.solved)


def test_cheap_trading_tends_to_the_market_without_trading_costs():
    # Illiquidity vanishes with the square root of the cost: volatility differs by ε ξ √(λc₂) once settled.
    aversion, risk = [1, 2], [0.5, -0.5]
    for cost in (1e-4, 1e-5):
        found = market(aversion, risk, cost).solve(1.0, 256)
        bench = found.market.frictionless(1.0)
        excess = 0.5 / 3 * np.sqrt(1.5 * cost)
        assert_allclose(found.volatility0 - bench.volatility0, excess, rtol=0.01)
        assert_allclose(bench.price0, 2.0 - 2 / 3, rtol=1e-12)
        assert_allclose(bench.drift0, 2 / 3, rtol=1e-12)
        assert found.liquidity_premium > 0
        assert found.liquidity_discount > 0


@pytest.mark.parametrize("assets", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_frictionless_benchmark_is_the_limit_also_with_risks_that_nobody_can_share(assets):
    rng = np.random.default_rng(0)
    if assets == 1:
        risk, options, cost = np.array([1.0, 0.5]), {}, 1e-7
    else:
        risk, cost = 0.3 * rng.normal(size=(2, 2, 2)), jnp.eye(2) * 1e-7
        options = {"payoff_volatility": jnp.array([[1.0, 0.2], [0.1, 0.7]]), "supply": jnp.array([1.0, 2.0])}
    case = market([1, 2], risk, cost, **options)
    found, bench = case.solve(1.0, 512, throw=False), case.frictionless(1.0)
    close = 2e-3  # first order in √λ, 3e-4
    assert_allclose(found.price0, bench.price0, atol=close)
    assert_allclose(found.drift0, bench.drift0, atol=close)
    assert_allclose(found.volatility0, bench.volatility0, atol=close)
    shock = 0.5 if assets == 1 else jnp.array([0.5, -0.2])
    held = bench.position(0.3, shock)
    assert_allclose(jnp.sum(held, axis=0), jnp.broadcast_to(jnp.asarray(case.supply), held.shape[1:]), atol=1e-12)


def test_a_market_without_net_supply_is_solved():
    found = market([1, 2], [3, -3], 0.01, supply=0.0).solve(0.4, 32)
    assert_allclose((found.price0, found.drift0), (0.8, 0.0), atol=1e-12)
    # Volatility does not depend on supply where it is known in advance.
    assert_allclose(found.volatility0, CONTINUOUS["two agents"][4][2], atol=PUBLISHED, rtol=0)


@pytest.mark.parametrize("shared", [0.0, 1e-9, 3.0, 300.0, -3.0])
def test_the_frictionless_price_is_the_integral_of_its_drift(shared):
    bench = market([1, 2], [3.0 + shared, -3.0], 0.1, supply=2.0).frictionless(1.5)

    def drift(t):
        return float(bench.volatility(t)) ** 2 * 2.0 * 2 / 3  # σ² s γ̄

    expected = 3.0 - quad(drift, 0.0, 1.5, points=(1.45, 1.49), epsabs=1e-13)[0]
    assert_allclose(bench.price0, expected, rtol=1e-9)


def test_simulated_markets_clear_and_end_at_the_payoff():
    found = market([1, 2, 3], [2, -1, -1], 0.05, supply=4.0).solve(0.5, 16)
    paths = found.simulate(jax.random.key(0), 7)
    assert paths.price.shape == (7, 17)
    assert paths.position.shape == (7, 17, 3)
    assert paths.rate.shape == (7, 16, 3)
    assert paths.volume.shape == (7, 16)
    assert_allclose(paths.position.sum(axis=2), 4.0, atol=1e-12)
    assert_allclose(paths.price[:, -1], 2.0 * 0.5 + paths.shock[:, -1], atol=1e-12)
    assert_allclose(jnp.diff(paths.position, axis=1), paths.rate * 0.5 / 16, atol=1e-12)


@pytest.mark.slow
@pytest.mark.statistical
def test_welfare_is_the_mean_of_the_objective_over_simulated_paths():
    """Four standard errors for three agents: fails by chance once in 5,000 keys."""
    case = market([1, 2, 3], [2, -1, -1], 0.05)
    steps, horizon = 8, 0.5
    found = case.solve(horizon, steps, throw=False)
    paths = found.simulate(jax.random.key(1), 20_000)
    step = horizon / steps
    held, now = paths.position[:, 1:], paths.shock[:, :-1, None]
    change = jnp.diff(paths.price, axis=1)[..., None]
    sigma = found.volatility[None, :, None]
    mean_change = change - sigma * jnp.diff(paths.shock, axis=1)[..., None]
    exposed = sigma * held + case.endowment[None, None] * now
    gained = held * mean_change - step * (
        0.5 * case.risk_aversion[None, None] * exposed**2 + 0.5 * case.trading_cost * paths.rate**2
    )
    values = jnp.sum(gained, axis=1)
    error = jnp.std(values, axis=0) / np.sqrt(len(values))
    wanted = quadratic.figures(case, horizon, steps).welfare
    assert np.all(np.abs(values.mean(axis=0) - wanted) < 4 * error)
    assert not np.all(np.abs(values.mean(axis=0) - 1.3 * wanted) < 4 * error)  # such an error would be seen


@pytest.mark.parametrize("mode", [pytest.param(jax.jacfwd, marks=pytest.mark.slow), jax.jacrev])
def test_derivatives_equal_differences(mode):
    aversion, risk = jnp.array([1.0, 1.5, 2.5]), jnp.array([4.0, -1.0, -3.0])

    def outputs(theta):
        # Along a direction in all fields; the sum of risks stays zero.
        case = TradingCosts(
            aversion * (1 + theta),
            risk * (1 - 0.5 * theta),
            0.01 * (1 + 2 * theta),
            supply=1 + theta,
            payoff_drift=2 - theta,
            payoff_volatility=1 + 0.3 * theta,
        )
        found = case.solve(0.3, 8, throw=False)
        return jnp.concatenate([jnp.stack([found.price0, found.drift0, found.volatility0]), found.welfare])

    h, compiled = 1e-5, lightly(outputs)
    differences = (compiled(h) - compiled(-h)) / (2 * h)
    found = lightly(mode(outputs))(0.0)
    assert_allclose(found, differences, rtol=DIFFERENCES, atol=DIFFERENCES * np.max(np.abs(differences)))
    batch = lightly(jax.vmap(outputs))(jnp.array([0.0, 0.1]))
    assert_allclose(batch[1], compiled(0.1), rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 10.0), order=st.permutations([0, 1, 2]))
def test_units_and_the_order_of_agents_do_not_matter(scale, order):
    aversion, risk = np.array([1.0, 1.5, 2.5]), np.array([4.0, -1.0, -3.0])
    one = market(aversion, risk, 0.01).solve(0.3, 8, throw=False)
    # (s, γ, ξ, λ) → (as, γ/a, aξ, λ/a) is another unit of positions.
    other = market(aversion[list(order)] / scale, scale * risk[list(order)], 0.01 / scale, supply=scale).solve(
        0.3, 8, throw=False
    )
    for name in ("price0", "drift0", "volatility0"):
        assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9)
    assert_allclose(other.welfare / scale, one.welfare[np.array(order)], rtol=1e-8, atol=1e-10)


def test_payoffs_are_linear_in_their_drift():
    one, other = (market([1, 2], [3, -3], 0.01, payoff_drift=drift).solve(0.4, 32) for drift in (2.0, 5.0))
    assert_allclose(other.price0 - one.price0, 3.0 * 0.4, atol=1e-12)
    assert_allclose(other.volatility0, one.volatility0, atol=1e-14)


BAD = {
    "one agent": ({"risk_aversion": [1.0], "endowment": [0.0]}, "at least two agents"),
    "risk aversion": ({"risk_aversion": [1.0, -2.0]}, "positive numbers"),
    "shapes": ({"endowment": [1.0, 2.0, 3.0]}, "endowment has shape"),
    "trading cost": ({"trading_cost": 0.0}, "trading_cost is 0.0: give a positive number"),
    "no volatility": ({"payoff_volatility": 0.0}, "payoff_volatility is 0.0: give a positive number"),
    "negative volatility": ({"payoff_volatility": -1.0}, "payoff_volatility is -1.0: give a positive number"),
    "infinite": ({"payoff_volatility": np.inf}, "payoff_volatility is inf: give finite numbers"),
    "not a number": ({"endowment": [np.nan, 1.0]}, "endowment is .*: give finite numbers"),
    "low power": ({"power": 1.0}, "power is 1.0"),
    "high power": ({"power": 2.5}, "power is 2.5"),
    "vector supply": ({"supply": np.ones(2)}, "supply has shape .*: give one number, for"),
    "three dimensions": ({"endowment": np.zeros((2, 2, 3))}, "one number or a square matrix for each agent"),
    "one cost for two assets": ({"endowment": np.zeros((2, 2, 2))}, "trading_cost has shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_sentence(name):
    given, message = BAD[name]
    fields = {"risk_aversion": [1.0, 2.0], "endowment": [3.0, -3.0], "trading_cost": 0.01, **given}
    fields = {name: jnp.asarray(field) if isinstance(field, list) else field for name, field in fields.items()}
    with pytest.raises(EquilibriumError, match=message) as raised:
        TradingCosts(**fields)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0.0, "steps": 8}, "horizon is 0.0"),
        ({"horizon": np.nan, "steps": 8}, "horizon is nan"),
        ({"horizon": np.inf, "steps": 8}, "horizon is inf"),
        ({"horizon": 1.0, "steps": True}, "steps is True"),
        ({"horizon": 1.0, "steps": 0}, "steps is 0"),
        ({"horizon": 1.0, "steps": 2.5}, "steps is 2.5"),
    ],
)
def test_bad_arguments_of_a_solve(arguments, message):
    with pytest.raises(EquilibriumError, match=message):
        market([1, 2], [3, -3], 0.01).solve(**arguments)


def test_increments_of_another_shape_are_refused():
    found = market([1, 2], [3, -3], 0.01).solve(0.4, 8)
    with pytest.raises(EquilibriumError, match="increments have shape"):
        found.along(jnp.zeros((3, 7)))
