"""Power costs: the lattice against trees and quadratic costs, and the stationary market against published figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import trading_costs as tree

from walras.model import EquilibriumError, Status, TradingCosts
from walras.model.trading_costs import lattice, quadratic
from walras.model.trading_costs.small_costs import shape

EXACT = 1e-9  # where everything is linear in positions, interpolation is exact; measured 4e-13
INTERPOLATED = 1e-5  # of prices, positions and rates, relative to their size, on 201 points; 1e-7 on 801
PUBLISHED = 2e-4  # of the figures of the continuous limit, which are given to 1e-4
DIFFERENCES = 1e-4  # relative; moving nodes of cubic interpolation make kinks of the size of its error


def market(power, aversion=(1.0, 2.0), risk=3.0, cost=0.01, **options):
    endowment = jnp.array([risk, -risk])
    return TradingCosts(jnp.array(aversion), endowment, cost, power=power, **{"payoff_drift": 2.0, **options})


def test_quadratic_costs_on_the_lattice_are_those_of_the_recursion():
    case = market(2.0)
    on_lattice, recursion = lattice.figures(case, 0.4, 16), quadratic.figures(case, 0.4, 16)
    for one, other in zip(on_lattice[:4], recursion[:4], strict=True):
        assert_allclose(one, other, atol=EXACT, rtol=0)


@pytest.mark.parametrize(("power", "aversion"), [(1.5, [1, 3]), pytest.param(1.25, [2, 1], marks=pytest.mark.slow)])
def test_power_costs_equal_agents_optimised_one_by_one_on_a_tree(power, aversion):
    steps, horizon = 5, 0.5
    own = tree.market(aversion, [2, -2], 0.1, horizon, steps, level=2.0, exponent=power)
    oracle = tree.equilibrium(own)
    found = market(power, [float(a) for a in aversion], 2.0, 0.1).solve(horizon, steps, throw=False)
    coins = 1 - 2 * ((np.arange(2**steps)[:, None] >> np.arange(steps)[::-1]) & 1)
    paths = found.along(np.sqrt(horizon / steps) * coins)
    # A rate is a power 1/(q − 1) of a marginal cost, which multiplies relative errors.
    size = max(np.abs(rate).max() for rate in oracle.rates) / (power - 1)
    for date in range(steps):
        node = np.arange(2**steps) // 2 ** (steps - date)
        price, rate, held = oracle.price[date], oracle.rates[date], oracle.positions[date]
        assert_allclose(paths.price[:, date], price[node, 0], atol=INTERPOLATED, rtol=0)
        assert_allclose(paths.rate[:, date], rate[:, node, 0].T, atol=INTERPOLATED * size, rtol=0)
        assert_allclose(paths.position[:, date + 1], held[:, node, 0].T, atol=INTERPOLATED * np.abs(held).max(), rtol=0)
    figures = lattice.figures(found.market, horizon, steps)
    assert_allclose(figures.welfare, oracle.welfare, atol=INTERPOLATED, rtol=0)
    assert_allclose(figures.volatility, oracle.volatility[0][0, 0, 0], atol=INTERPOLATED, rtol=0)
    assert np.ptp(oracle.volatility[2]) > 100 * INTERPOLATED  # volatility is random, and is compared through prices


@pytest.mark.slow
def test_continuous_limit_with_power_three_halves():
    found = market(1.5).solve(0.4, 32)
    assert_allclose((found.price0, found.drift0, found.volatility0), (0.5014, 0.7660, 1.0719), atol=PUBLISHED, rtol=0)
    assert found.error < 0.01
    assert found.residual < 1e-4


@pytest.mark.slow
def test_simulated_markets_clear_and_end_at_the_payoff():
    found = market(1.5, supply=4.0).solve(0.4, 16)
    paths = found.simulate(jax.random.key(0), 9)
    assert paths.price.shape == (9, 17)
    assert paths.rate.shape == (9, 16, 2)
    assert_allclose(paths.position.sum(axis=2), 4.0, atol=1e-12)
    assert_allclose(paths.price[:, -1], 2.0 * 0.4 + paths.shock[:, -1], atol=1e-12)
    assert_allclose(jnp.abs(jnp.diff(paths.shock)), np.sqrt(0.4 / 16), rtol=1e-12)
    with pytest.raises(EquilibriumError, match="increments are not all ±"):
        found.along(jnp.ones((2, 16)))


@pytest.mark.slow
def test_paths_that_leave_the_lattice_are_refused():
    found = market(1.5).solve(0.4, 40)
    with pytest.raises(EquilibriumError, match="beyond 6 standard deviations"):
        found.along(jnp.full((1, 40), np.sqrt(0.4 / 40)))


@pytest.mark.slow
def test_risks_that_do_not_offset_each_other_are_found_under_a_transformation_too():
    def status(second):
        case = TradingCosts(jnp.array([1.0, 2.0]), jnp.array([3.0, second]), 0.01, power=1.5)
        return case.solve(0.4, 16).status, case.stationary(leading_order=True).status

    finite, settled = jax.jit(status)(-1.0)
    assert bool(finite == Status.risks_not_offset)
    assert bool(settled == Status.risks_not_offset)
    finite, settled = jax.jit(status)(-3.0)
    assert bool(finite == Status.solved)
    assert bool(settled == Status.solved)


@pytest.mark.slow
def test_derivatives_equal_differences():
    @jax.jit
    def outputs(theta):
        found = market(1.5, (1.0 + theta, 2.0), 3.0 - theta, 0.01 * (1 + 2 * theta), supply=1 + theta)
        figures = lattice.figures(found, 0.4, 8)
        return jnp.stack([figures.price, figures.drift, figures.volatility, *figures.welfare])

    h = 1e-3
    differences = (outputs(h) - outputs(-h)) / (2 * h)
    for mode in (jax.jacfwd, jax.jacrev):
        assert_allclose(mode(outputs)(0.0), differences, rtol=DIFFERENCES, atol=DIFFERENCES * np.max(np.abs(differences)))


@pytest.mark.slow
def test_without_risks_nobody_trades():
    found = market(1.5, risk=0.0).solve(0.4, 8)
    assert_allclose((found.price0, found.drift0, found.volatility0), (0.8 - 0.4 * 2 / 3, 2 / 3, 1.0), rtol=1e-12)
    assert_allclose(found.simulate(jax.random.key(0), 3).volume, 0.0, atol=1e-15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"endowment": [3.0, -2.0]}, "give a sum of zero"),
        ({"endowment": [3.0, -2.0, -1.0], "risk_aversion": [1.0, 1.0, 1.0]}, "two agents and one asset"),
    ],
)
def test_markets_that_the_lattice_cannot_solve_are_refused(given, message):
    fields = {"risk_aversion": [1.0, 2.0], **given}
    case = TradingCosts(**{name: jnp.array(value) for name, value in fields.items()}, trading_cost=0.1, power=1.5)
    with pytest.raises(EquilibriumError, match=message):
        case.solve(1.0, 8)


# −g′(0) of the small-cost problem.
SLOPES = {2.0: 2.0, 1.75: 1.898533, 1.5: 1.771133, 1.25: 1.602427}


@pytest.mark.parametrize("power", SLOPES)
def test_slope_of_small_cost_trading(power):
    assert_allclose(-shape(power).slope[0], SLOPES[power], atol=1e-5, rtol=0)


@pytest.mark.parametrize("power", [2.0, 1.75, 1.5, 1.25, 1.1])
def test_small_costs_are_a_fixed_share_of_what_deviations_cost(power):
    # Mean trading cost = (2/q) · (c₂α²/2) E z², whatever the parameters.
    found = market(power, (1.0, 3.0), 2.0, 0.03, payoff_volatility=1.3).stationary(leading_order=True)
    assert_allclose(found.cost, 2.0 / power * found.risk_cost, rtol=1e-6)
    assert_allclose(found.rate(jnp.array([-0.1])), -found.rate(jnp.array([0.1])), rtol=1e-12)
    assert found.rate(jnp.array([0.1])) < 0


@pytest.mark.statistical
def test_the_stationary_law_is_that_of_simulated_positions():
    """Four standard errors of 4,000 independent deviations for two moments: fails by chance once in 8,000 keys."""
    case = market(1.5, cost=0.001, risk=0.3)
    found = case.stationary(leading_order=True)
    step, paths = 0.01 / found.reversion, 4000
    c = case.endowment[0] / case.payoff_volatility

    def move(z, noise):
        return z + step * found.rate(z) + c * jnp.sqrt(step) * noise, None

    noises = jax.random.normal(jax.random.key(0), (1000, paths))
    z, _ = jax.lax.scan(move, jnp.zeros(paths), noises)
    for values, wanted in ((z**2, found.position_sd**2), (jnp.abs(found.rate(z)), found.turnover)):
        error = jnp.std(values) / np.sqrt(paths)
        assert abs(values.mean() - wanted) < 4 * error
        assert abs(values.mean() - 1.2 * wanted) > 4 * error  # such an error would be seen


def test_the_published_calibration():
    # US equities, daily: reversion 1/day, turnover and standard deviation of positions as shares of what is outstanding.
    aggregate, supply = 8.30864e-14, 245_714_618_646.0
    case = TradingCosts(
        aggregate * jnp.array([1.5, 3.0]),
        jnp.array([2.19e10, -2.19e10]),
        1.08102e-10,
        supply=supply,
        payoff_volatility=1.8788381,
    )
    assert_allclose(case.aggregate, aggregate, rtol=1e-12)
    for leading, volatility, expected in (
        (True, 1.8788381, (0.07813, 0.007481, 0.12000)),
        (False, 1.91165, (0.07950, 0.007417, 0.11693)),
    ):
        found = case.stationary(leading_order=leading)
        figures = found.reversion, found.turnover / supply, found.position_sd / supply
        assert_allclose(figures, expected, rtol=1e-4)
        assert_allclose(found.volatility, volatility, rtol=1e-5)


def test_the_stationary_market_is_where_the_finite_one_settles():
    case = market(2.0, cost=0.001, risk=1.0)
    finite, settled = case.solve(2.0, 512), case.stationary()
    assert_allclose(finite.volatility0, settled.volatility, rtol=1e-6)
    assert_allclose(finite.drift0, settled.drift[0], rtol=1e-6)


def test_the_stationary_market_of_other_powers_is_known_to_leading_order_only():
    with pytest.raises(EquilibriumError, match="leading_order=True"):
        market(1.5).stationary()
    with pytest.raises(EquilibriumError, match="give a sum of zero"):
        TradingCosts(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]), 0.1).stationary()


def test_a_payoff_without_volatility_is_found_under_a_transformation_too():
    def status(reversion):
        figures = {"volatility": 0.01, "drift": 0.0009, "turnover": 0.0075, "asymmetry": 0.9}
        found = TradingCosts.matching(**figures, reversion=reversion).stationary(throw=False)
        return found.status == Status.solved

    assert not jax.jit(status)(0.02)  # a payoff_volatility of -0.03
    assert jax.jit(status)(0.5)
