"""The stationary market: the closed coefficients against one agent's control problem, and agents who deviate."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from oracles import linear_gaussian
from oracles import stationary_market as oracle

from walras.model import LinearDemand, Quadratic, RandomSupply, StationaryMarket, Status

# Riccati equations of order four and a root finder run to 1e-13; coefficients are about one.
SOLVED = 1e-9
# Central differences with step 1e-5 of coefficients known to 1e-13 … 1e-11.
DIFFERENCES = 1e-6

BASE = oracle.Market(
    trading_cost=0.7,
    strength=1.3,
    centre=0.4,
    discount=0.2,
    depreciation=0.3,
    intercept=0.25,
    slope=0.5,
    mean=0.6,
    reversion=1.7,
    volatility=0.8,
)
MARKETS = {
    "general": BASE,
    "no demand": BASE._replace(intercept=0.0, slope=0.0),
    "fixed demand": BASE._replace(slope=0.0),
    "no depreciation": BASE._replace(depreciation=0.0, slope=2.0),
    "elastic demand": BASE._replace(slope=200.0),
    "perishable": BASE._replace(depreciation=5.0),
    "costly trading": BASE._replace(trading_cost=30.0),
    "impatient": BASE._replace(discount=4.0, reversion=0.05),
}


def solve(market: oracle.Market):
    return StationaryMarket(
        market.trading_cost,
        holding=Quadratic(market.strength, market.centre),
        discount=market.discount,
        depreciation=market.depreciation,
        demand=LinearDemand(intercept=market.intercept, slope=market.slope),
    ).solve(RandomSupply(market.mean, market.reversion, market.volatility))


def price_of(equilibrium):
    return np.array([equilibrium.level, equilibrium.supply_response, equilibrium.position_response])


@pytest.mark.parametrize("name", MARKETS)
def test_best_responses_to_the_price_clear_the_market(name):
    equilibrium = solve(MARKETS[name])
    assert_allclose(oracle.excess_rate(MARKETS[name], price_of(equilibrium)), 0.0, atol=SOLVED)
    assert bool(equilibrium.status == Status.solved)
    assert equilibrium.residual < SOLVED


@pytest.mark.parametrize("name", MARKETS)
def test_price_is_found_again_from_best_responses_alone(name):
    assert_allclose(price_of(solve(MARKETS[name])), oracle.equilibrium(MARKETS[name]), rtol=SOLVED, atol=SOLVED)


@pytest.mark.parametrize("market", [BASE, BASE._replace(discount=0.0)], ids=["discounted", "undiscounted"])
def test_price_is_the_limit_of_long_finite_games(market):
    """This also selects the root: of the two stationary candidates the limit is the one that counts."""
    limit = oracle.finite_horizon(market, [0.0], 100.0, terminal=(0.7, 2.0))[0]
    assert_allclose(price_of(solve(market)), limit, rtol=SOLVED, atol=SOLVED)


@pytest.mark.parametrize("name", MARKETS)
def test_position_drift_costate_and_trading_rate(name):
    market, equilibrium = MARKETS[name], solve(MARKETS[name])
    price = price_of(equilibrium)
    drift = oracle.drift(market, price)[3] @ oracle.AT_MEAN
    assert_allclose(equilibrium.position_drift, drift, rtol=SOLVED, atol=SOLVED)
    response = oracle.best_response(market, price)
    costate = price + market.trading_cost * response @ oracle.AT_MEAN
    assert_allclose(equilibrium.costate, costate, rtol=SOLVED, atol=SOLVED)
    rate = equilibrium.trading_rate(1.9, -0.4, 0.8)
    assert_allclose(rate, response @ [1.0, 1.9, -0.4, 0.8], rtol=SOLVED, atol=SOLVED)


def test_stationary_means():
    equilibrium = solve(BASE)
    m0, m_q, m_x = equilibrium.position_drift
    drift = np.array([[-BASE.reversion, 0.0], [m_q, m_x]])
    mean, _ = linear_gaussian.stationary_moments(drift, [BASE.reversion * BASE.mean, m0], np.eye(2))
    assert_allclose(equilibrium.mean_position, mean[1], rtol=SOLVED)
    assert_allclose(equilibrium.price, price_of(equilibrium) @ [1.0, *mean], rtol=SOLVED)


def follow_the_mean(market, price, pull=-0.5):
    """The rate that clears the market, with a pull that is idle for an agent who starts at the mean position."""
    return oracle.clearing_row(market, price) + pull * (oracle.OWN - oracle.MEAN)


DEVIATIONS = {
    "shifted rate": oracle.ONE,
    "more of supply": oracle.SUPPLY,
    "more of the mean position": oracle.MEAN,
    "more of its own position": oracle.OWN,
    "less against the price": oracle.price_row([0.3, -0.5, -0.8]),
}
START = np.array([1.0, 0.9, -0.3, 0.9])  # an agent at the mean position


def cost_of_deviation(market, price, direction, size):
    return oracle.rule_cost(market, price, follow_the_mean(market, price) + size * direction, START)


def slope_of_cost(market, price, direction):
    """Derivative of the expected cost in the size of a deviation, by central differences."""
    return (cost_of_deviation(market, price, direction, 1e-4) - cost_of_deviation(market, price, direction, -1e-4)) / 2e-4


@pytest.mark.parametrize("name", ["general", "fixed demand", "no depreciation", "perishable"])
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_no_linear_deviation_gains(name, deviation):
    """Exact expected discounted costs: the mean agent's own rule is a stationary point and a minimum."""
    market, direction = MARKETS[name], DEVIATIONS[deviation]
    price = price_of(solve(market))
    best = cost_of_deviation(market, price, direction, 0.0)
    for size in (-0.2, -0.02, 0.02, 0.2):
        assert cost_of_deviation(market, price, direction, size) > best
    # Rounding of costs about ten, 1e-14, over 2e-4, and a third derivative of a few hundred times 1e-8.
    assert abs(slope_of_cost(market, price, direction)) < 1e-5


@pytest.mark.parametrize("wrong", np.diag([0.02, 0.02, 0.02]), ids=["level", "supply", "position"])
def test_a_price_two_percent_off_is_exploitable(wrong):
    """Negative control: with a slightly wrong coefficient some deviation gains at first order."""
    price = price_of(solve(BASE)) * (1 + wrong)
    assert max(abs(slope_of_cost(BASE, price, direction)) for direction in DEVIATIONS.values()) > 1e-3


def test_stale_news_costs():
    price = price_of(solve(BASE))
    rule = oracle.best_response(BASE, price)
    best = oracle.rule_cost(BASE, price, rule, START)
    lags = (1e-7, 0.1, 0.3, 1.0)
    costs = [oracle.smoothed_rule_cost(BASE, price, rule, START, lag) for lag in lags]
    assert best < costs[1] < costs[2] < costs[3]
    assert_allclose(costs[0], best, rtol=1e-6)


STEP, DURATION, PATHS, DELAY = 0.02, 4.0, 2000, 25


def simulate_state(equilibrium, rng):
    """Supply and mean position (steps + 1, paths) by exact transitions."""
    m0, m_q, m_x = (float(entry) for entry in equilibrium.position_drift)
    drift = np.array([[-BASE.reversion, 0.0], [m_q, m_x]])
    transition, offset, covariance = linear_gaussian.linear_sde_moments(
        drift, [BASE.reversion * BASE.mean, m0], np.diag([BASE.volatility**2, 0.0]), STEP
    )
    state = [np.tile(START[2:, None], PATHS)]
    for _ in range(round(DURATION / STEP)):
        noise = rng.multivariate_normal(np.zeros(2), covariance, size=PATHS, method="eigh").T
        state.append(transition @ state[-1] + offset[:, None] + noise)
    return np.stack(state)


def simulated_costs(price, rule, choose, state):
    """Discounted costs (paths,) of the rates choose(k, position) up to DURATION and the optimal rule ever after."""
    own, total = np.full(PATHS, START[1]), np.zeros(PATHS)
    prices = price[0] + price[1] * state[:, 0] + price[2] * state[:, 1]
    decay, discount = np.exp(-BASE.depreciation * STEP), np.exp(-BASE.discount * STEP)
    for k in range(len(state) - 1):
        rate = choose(k, own)
        following = decay * own + rate * (1 - decay) / BASE.depreciation
        holding = 0.25 * BASE.strength * ((own - BASE.centre) ** 2 + (following - BASE.centre) ** 2)
        paid = 0.5 * (prices[k] + prices[k + 1]) * rate
        total += discount ** (k + 0.5) * STEP * (0.5 * BASE.trading_cost * rate**2 + paid + holding)
        own = following
    closed = oracle.drift(BASE, price) + np.outer(oracle.OWN, rule)
    value = oracle.linear_value(closed, oracle.running_cost(BASE, price, rule), BASE.discount)
    end = np.stack([np.ones(PATHS), own, *state[-1]])
    remaining = 0.5 * np.einsum("ip,ij,jp->p", end, value, end)
    remaining += 0.5 * BASE.volatility**2 * value[2, 2] / BASE.discount
    return total + np.exp(-BASE.discount * DURATION) * remaining


def optimal_rate(rule, own, state):
    return rule[0] + rule[1] * own + rule[2] * state[0] + rule[3] * state[1]


@pytest.mark.statistical
def test_simulated_cost_is_the_exact_one():
    """Within five standard errors and the discretisation's 2e-3: false alarm below 1e-6 over random seeds."""
    equilibrium = solve(BASE)
    price = price_of(equilibrium)
    rule, state = oracle.best_response(BASE, price), simulate_state(equilibrium, np.random.default_rng(9))
    costs = simulated_costs(price, rule, lambda k, own: optimal_rate(rule, own, state[k]), state)
    error = 5 * np.std(costs) / np.sqrt(PATHS) + 2e-3
    assert abs(np.mean(costs) - oracle.rule_cost(BASE, price, rule, START)) < error


@pytest.mark.statistical
@pytest.mark.parametrize("deviation", ["late", "clipped", "speculating", "idle"])
def test_simulated_deviations_cost_more_on_the_same_paths(deviation):
    """Paired differences of cost exceed zero by six standard errors.

    They are forty standard errors or more (six seeds tried), so the false-alarm rate over seeds is below 1e-9.
    """
    equilibrium = solve(BASE)
    price = price_of(equilibrium)
    rule, state = oracle.best_response(BASE, price), simulate_state(equilibrium, np.random.default_rng(5))

    def optimal(k, own):
        return optimal_rate(rule, own, state[k])

    def speculating(k, own):
        above = price[0] + price[1] * state[k, 0] + price[2] * state[k, 1] - float(equilibrium.price)
        return optimal(k, own) - 0.3 * np.sign(above)

    choices = {
        "late": lambda k, own: optimal_rate(rule, own, state[max(k - DELAY, 0)]),
        "clipped": lambda k, own: np.clip(optimal(k, own), -0.3, 0.3),
        "speculating": speculating,
        "idle": lambda k, own: 0.0 * own,
    }
    gap = simulated_costs(price, rule, choices[deviation], state) - simulated_costs(price, rule, optimal, state)
    assert np.mean(gap) > 6 * np.std(gap) / np.sqrt(PATHS)


def test_without_demand_the_response_to_stocks_is_a_perpetuity():
    """A unit held for ever costs η a year, discounted at r + δ and depreciating at δ."""
    market = MARKETS["no demand"]
    expected = -market.strength / (market.discount + 2 * market.depreciation)
    assert_allclose(solve(market).position_response, expected, rtol=1e-14)


@pytest.mark.parametrize("slope", [1e4, 1e6])
def test_very_elastic_demand_is_one_agent_facing_a_constant_price(slope):
    """As d₁ → ∞ the price vanishes and d₁ϖ tends to the rate of an agent alone, less Q − d₀, with error O(1/d₁)."""
    market = BASE._replace(slope=slope)
    alone = oracle.best_response(BASE._replace(slope=0.0), np.zeros(3))
    expected = alone @ oracle.AT_MEAN - np.array([-market.intercept, 1.0, 0.0])
    assert_allclose(slope * price_of(solve(market)), expected, rtol=0, atol=20 / slope)


def test_demand_slope_tending_to_zero():
    limit = price_of(solve(BASE._replace(slope=0.0)))
    errors = [np.max(np.abs(price_of(solve(BASE._replace(slope=slope))) - limit)) for slope in (1e-4, 1e-8)]
    # First order in the slope with a coefficient below 20.
    assert errors[0] < 20e-4
    assert errors[1] < 20e-8


@pytest.mark.parametrize("field", ["centre", "intercept", "mean"])
def test_centre_demand_intercept_and_mean_supply_move_only_the_level(field):
    shifts = [price_of(solve(BASE._replace(**{field: value}))) for value in (-1.0, 0.5, 2.0)]
    assert_allclose([shift[1:] for shift in shifts], np.tile(shifts[0][1:], (3, 1)), rtol=1e-14)
    level = [shift[0] for shift in shifts]
    assert_allclose(level[2] - level[1], level[1] - level[0], rtol=1e-12)
    assert abs(level[1] - level[0]) > 1e-2


def test_volatility_does_not_matter():
    assert_allclose(price_of(solve(BASE)), price_of(solve(BASE._replace(volatility=9.0))), rtol=0, atol=0)


@cache
def differences():
    theta = np.array(BASE)
    return [
        (oracle.equilibrium(oracle.Market(*theta + bump)) - oracle.equilibrium(oracle.Market(*theta - bump))) / 2e-5
        for bump in 1e-5 * np.eye(theta.size)
    ]


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_derivatives_equal_differences_of_the_fixed_point(jacobian):
    def closed(theta):
        solved = solve(oracle.Market(*theta))
        return jnp.stack([solved.level, solved.supply_response, solved.position_response])

    actual = np.moveaxis(jacobian(closed)(jnp.array(BASE)), -1, 0)
    assert_allclose(actual, differences(), rtol=DIFFERENCES, atol=DIFFERENCES)


PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)
positive = st.floats(0.05, 5.0)
numbers = st.integers(-500, 500).map(lambda hundredths: hundredths / 100)  # SciPy cannot balance entries near 1e-300
markets = st.builds(
    oracle.Market, positive, positive, numbers, positive, positive, numbers, positive, numbers, positive, positive
)


def assert_same(actual, expected):
    """Equal up to rounding: parameters within a factor of 100 of one give coefficients below 1e4."""
    assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@settings(PROPERTY, max_examples=20)
@given(markets)
def test_best_responses_clear_any_market(market):
    price = price_of(solve(market))
    assert_allclose(oracle.excess_rate(market, price), 0.0, atol=SOLVED * (1 + np.abs(price).max()))


@PROPERTY
@given(markets, positive)
def test_units_of_money(market, unit):
    c, eta, d1 = unit * market.trading_cost, unit * market.strength, market.slope / unit
    scaled = solve(market._replace(trading_cost=c, strength=eta, slope=d1))
    assert_same(price_of(scaled) / unit, price_of(solve(market)))


@PROPERTY
@given(markets, positive)
def test_units_of_the_asset(market, unit):
    scaled = solve(
        market._replace(
            trading_cost=market.trading_cost / unit,
            strength=market.strength / unit,
            centre=market.centre * unit,
            intercept=market.intercept * unit,
            slope=market.slope * unit,
            mean=market.mean * unit,
        )
    )
    assert_same(price_of(scaled) * [1.0, unit, unit], price_of(solve(market)))


@PROPERTY
@given(markets, positive)
def test_units_of_time(market, unit):
    scaled = solve(
        market._replace(
            trading_cost=market.trading_cost * unit,
            strength=market.strength / unit,
            discount=market.discount / unit,
            depreciation=market.depreciation / unit,
            intercept=market.intercept / unit,
            slope=market.slope / unit,
            mean=market.mean / unit,
            reversion=market.reversion / unit,
        )
    )
    assert_same(price_of(scaled) / [1.0, unit, 1.0], price_of(solve(market)))


@PROPERTY
@given(markets, numbers)
def test_origin_of_positions(market, shift):
    """Holding `shift` more and replacing what decays of it: the price falls by the cost cδ·shift of trading so."""
    lost = market.depreciation * shift
    intercept = market.intercept - lost * (1 + market.trading_cost * market.slope)
    price, moved = (
        price_of(solve(market)),
        price_of(solve(market._replace(centre=market.centre + shift, intercept=intercept))),
    )
    assert_same(moved, price - np.array([price[2] * shift + market.trading_cost * lost, 0.0, 0.0]))


@PROPERTY
@given(markets, numbers)
def test_supply_that_is_consumed_at_once(market, shift):
    price = price_of(solve(market))
    moved = price_of(solve(market._replace(mean=market.mean + shift, intercept=market.intercept + shift)))
    assert_same(moved, price - np.array([price[1] * shift, 0.0, 0.0]))


@PROPERTY
@given(markets, numbers)
def test_origin_of_prices(market, shift):
    """A higher price for all time is undone by a target that pays its interest and depreciation."""
    centre = market.centre + shift * (market.discount + market.depreciation) / market.strength
    intercept = market.intercept + market.slope * shift
    moved = price_of(solve(market._replace(centre=centre, intercept=intercept)))
    assert_same(moved, price_of(solve(market)) + np.array([shift, 0.0, 0.0]))
