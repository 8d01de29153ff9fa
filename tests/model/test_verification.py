"""The certificate of an equilibrium against closed forms, published prices and brute force."""

from types import SimpleNamespace

import numpy as np
import pytest
from oracles.general_costs import sine_supply
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.linalg import expm
from scipy.optimize import minimize, root

from walras.model import EquilibriumError, PriceFormation, Quadratic
from walras.model.price_formation.strategy import Feedback, Paths
from walras.model.price_formation.verification import verify

ETA, GAMMA, COST = 2.0, 1.5, 0.8
START = np.array([-0.3, 0.1, 0.9])

# Finite differences extrapolated over two resolutions: the default tolerance of verify, 2e-5 of a rate scale of 1 to 3.
NUMERICAL = 6e-5
# Without noise, V is weighted by the trapezoidal rule, and the closed form is exact in time: (h²/12) η max|Q′| / c with room.
TRAPEZOID = 2.0


def well(x):
    return 25 * (x - 0.25) ** 2 * (x - 0.75) ** 2


def equilibrium_of(price, supply, initial, strategy=None, horizon=1.0):
    """Stand-in for a solved equilibrium; by default agents keep their distance to the mean."""
    supply, initial = np.asarray(supply, float), np.asarray(initial, float)
    path = initial.mean() + horizon / supply.size * np.append(0.0, np.cumsum(supply))
    keep = Paths(initial + (path - path[0])[:, None])
    return SimpleNamespace(
        horizon=horizon,
        supply=supply,
        price=np.asarray(price, float),
        mean_position=path,
        initial=initial,
        weights=np.full(initial.size, 1 / initial.size),
        strategy=lambda: keep if strategy is None else strategy,
    )


def market_of(noise=0.0, holding=None, terminal=None, limits=None, trading_cost=1.0):
    return SimpleNamespace(trading_cost=trading_cost, holding=holding, terminal=terminal, noise=noise, limits=limits)


# Quadratic costs


def gain(horizon=1.0):
    """g of the optimal rule β = −g y, by the Riccati equation of the value's curvature, as a function of time."""
    curvature = solve_ivp(lambda _, p: ETA - p**2 / COST, (0, horizon), [GAMMA], dense_output=True, rtol=1e-10, atol=1e-12)
    return lambda t: curvature.sol(horizon - t)[0] / COST


def quadratic_game(steps, noise, shift=0.0, effort=1.0):
    """The closed-form equilibrium, its price shifted, whose agents use `effort` times the optimal gain; 0 as open loop."""
    market = PriceFormation(COST, Quadratic(ETA, 0.2), Quadratic(GAMMA, -0.1), noise=noise)
    solved = market.solve(sine_supply(steps), initial=START)
    path = np.asarray(solved.mean_position)
    position = path[:, None] + np.linspace(-4, 4, 51)
    rate = -effort * gain()(np.linspace(0, 1, steps + 1))[:, None] * (position - path[:, None])
    strategy = Feedback(np.linspace(0, 1, steps + 1), position, rate) if effort else None
    return market, equilibrium_of(np.asarray(solved.price) + shift, solved.supply, START, strategy)


def gap_of_effort(noise, effort):
    """Completing the square, a rule β costs E∫ (c/2)(β − β*)² more than the best; β = −effort · g y here."""
    g = gain()
    moment = np.mean((START - START.mean()) ** 2)
    result = solve_ivp(
        lambda t, m: [noise**2 - 2 * effort * g(t) * m[0], 0.5 * COST * ((1 - effort) * g(t)) ** 2 * m[0]],
        (0, 1),
        [moment, 0.0],
        rtol=1e-9,
        atol=1e-12,
    )
    return result.y[1, -1]


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_closed_form_with_noise_clears_and_cannot_be_exploited(noise):
    checked = verify(*quadratic_game(32, noise))
    assert checked.clearing_error < NUMERICAL
    assert checked.accuracy < NUMERICAL
    assert np.abs(checked.strategy_rate - checked.supply).max() < NUMERICAL
    # The rule is interpolated linearly in time, whose square error costs h⁴.
    assert abs(checked.exploitability) < (1 / 32) ** 4


def test_closed_form_without_noise_clears_to_second_order():
    errors = [verify(*quadratic_game(steps, 0.0)).clearing_error for steps in (16, 32, 64)]
    assert errors[2] < TRAPEZOID / 64**2
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("effort", [0.0, 0.5, 1.3])
def test_gap_of_a_wrong_strategy_is_the_closed_form(noise, effort):
    checked = verify(*quadratic_game(64, noise, effort=effort))
    # Straight moves within steps; relative, since the gaps are from .003 to .2.
    assert checked.exploitability == pytest.approx(gap_of_effort(noise, effort), rel=2e-3)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_clearing_error_of_a_shifted_price_is_the_closed_form(noise):
    shift, steps = 0.1, 32
    checked = verify(*quadratic_game(steps, noise, shift=shift))
    # The mean deviation ȳ solves c ȳ″ = η ȳ, ȳ(0) = 0, c ȳ′(1) = −γ ȳ(1) − shift.
    k = np.sqrt(ETA / COST)
    size = -shift / (COST * k * np.cosh(k) + GAMMA * np.sinh(k))
    deviation = size * np.sinh(k * np.linspace(0, 1, steps + 1))
    tolerance = NUMERICAL if noise else TRAPEZOID / steps**2
    np.testing.assert_allclose(checked.rate - checked.supply, np.diff(deviation) * steps, atol=tolerance, rtol=0)
    assert checked.clearing_error == pytest.approx(np.abs(np.diff(deviation)).max() * steps, abs=tolerance)


def test_mean_cost_is_the_closed_form():
    noise, steps = 0.3, 64
    market, equilibrium = quadratic_game(steps, noise)
    checked = verify(market, equilibrium)
    # Along X̄ itself plus ½ P y² plus the noise's part, by quadrature on a fine grid within steps.
    times = (np.arange(steps * 200) + 0.5) / (steps * 200)
    path = np.interp(times, np.linspace(0, 1, steps + 1), equilibrium.mean_position)
    constant = np.mean(0.5 * ETA * (path - 0.2) ** 2) + 0.5 * GAMMA * (equilibrium.mean_position[-1] + 0.1) ** 2
    constant += np.mean(0.5 * COST * equilibrium.supply**2 + equilibrium.price * equilibrium.supply)
    g = gain()
    spread = 0.5 * COST * g(0.0) * np.var(START) + 0.5 * COST * noise**2 * np.mean(g(times))
    assert checked.cost == pytest.approx(constant + spread, abs=1e-5)  # of 200 points a step, and the scheme's 1e-6


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_one_step(noise):
    market = market_of(noise, terminal=Quadratic(GAMMA, -0.1))
    price = -0.5 - GAMMA * (START.mean() + 0.5 + 0.1)  # −cQ − γ (X̄(T) − ζ)
    assert verify(market, equilibrium_of([price], [0.5], START)).clearing_error < NUMERICAL


# The third published case: V = 0, Ψ a double well, p̄ constant


def third_case(costate, noise, steps=50, points=1000, **options):
    supply = sine_supply(steps)
    equilibrium = equilibrium_of(costate - supply, supply, (np.arange(points) + 0.5) / points)
    return verify(market_of(noise, terminal=well), equilibrium, **options)


# Prices are published to 5e-6; rates respond at most like ∂α/∂p̄ = 1/c, and the split's response is of order one.
PUBLISHED = 2e-5


@pytest.mark.parametrize(("noise", "costate"), [(0.3, -0.36301), (0.2, -0.20947), (0.1, -0.16619), (0.07, -0.16376)])
def test_published_price_of_the_third_case_clears(noise, costate):
    checked = third_case(costate, noise)
    assert checked.accuracy < 4e-5
    assert checked.clearing_error < PUBLISHED
    assert third_case(costate + 0.002, noise).clearing_error > 3e-4  # ∂E[α]/∂p̄ is .25 or more


def test_published_price_of_the_third_case_without_noise_clears():
    checked = third_case(-0.161633, 0.0, points=2000)
    assert checked.pure_clearing_error < 2.5e-4  # one agent of 2000 on the other side of the split moves .45/2000
    assert checked.clearing_error < PUBLISHED
    assert checked.accuracy < 1e-9  # rounding, over a step


def test_a_local_equilibrium_is_seen():
    assert third_case(-0.25, 0.0).clearing_error > 0.04
    assert third_case(-0.25, 0.05).clearing_error > 0.04


def test_the_population_splits_where_published():
    # With all agents at one place, the best responses jump there, by .45.
    def response(start, indifference=0.0):
        supply = sine_supply(10)
        equilibrium = equilibrium_of(-0.161633 - supply, supply, [start])
        return verify(market_of(terminal=well), equilibrium, indifference=indifference)

    # The split is published to 5e-6, of a p̄ to 5e-7.
    assert response(0.15445).rate.mean() < 0.2 < 0.5 < response(0.15447).rate.mean()
    # The published supply is between the two rates, so that those who are indifferent can meet it.
    at_the_split = response(0.15446, indifference=1e-4)
    assert at_the_split.clearing_error < 1e-9 < 0.05 < at_the_split.pure_clearing_error


def test_indifferent_agents_share_themselves():
    # All agents on top of a symmetric double well: half of them go to each side.
    market = market_of(holding=well, terminal=well)
    checked = verify(market, equilibrium_of(np.zeros(20), np.zeros(20), [0.5]))
    assert checked.clearing_error < 1e-9 < 0.3 < checked.pure_clearing_error
    # Standing still on the top costs more than either side.
    assert checked.exploitability > 0.05


@pytest.mark.slow
def test_small_noise_tends_to_none():
    supply = sine_supply(200)  # the noiseless game is in discrete time: 4e-6 from the continuous one
    equilibrium = equilibrium_of(0.1 - supply, supply, np.linspace(0.0, 0.9, 40))
    without = verify(market_of(0.0, holding=well), equilibrium).cost
    first, second, third = (verify(market_of(noise, holding=well), equilibrium).cost - without for noise in (0.04, 0.02, 0.01))
    # The costs of two programmes of different kinds differ by O(σ²).
    assert 3 < first / second < 5
    assert 3 < second / third < 5


def test_noiseless_paths_are_global_optima_of_the_discrete_problem():
    steps, start = 12, 0.47
    supply, costate = sine_supply(steps), np.linspace(-0.3, 0.1, steps)
    checked = verify(market_of(holding=well), equilibrium_of(costate - supply, supply, [start]))

    def cost(x):
        path = np.append(start, x)
        move = np.diff(path)
        weight = np.append(0.5, np.append(np.ones(steps - 1), 0.5)) / steps
        return 0.5 * steps * move @ move + (costate - supply) @ move + weight @ well(path)

    rng = np.random.default_rng(1)
    tries = [minimize(cost, start + rng.normal(0, 0.4) * np.linspace(0, 1, steps), tol=1e-12).fun for _ in range(12)]
    assert checked.cost == pytest.approx(min(tries), abs=1e-8)  # of the quasi-Newton search, squared


# Limits


def test_limits_without_noise():
    # Agents sell until nothing is left: straight to the wall at 0 from .3, freely (rate −.5) from .9.
    checked = verify(market_of(limits=(0.0, None)), equilibrium_of(np.full(10, 0.5), np.zeros(10), [0.3, 0.9]))
    np.testing.assert_allclose(checked.rate, (-0.3 - 0.5) / 2, atol=1e-9)  # rounding


def test_an_obstacle_without_noise():
    steps, start = 15, 0.2
    supply = sine_supply(steps)
    price = 1.6 * np.cos(6 * np.arange(steps) / steps) - 0.5 * supply
    market = market_of(holding=Quadratic(1.0, 0.3), limits=(0.0, 0.45))
    checked = verify(market, equilibrium_of(price, supply, [start]))

    def cost(x):
        path = np.append(start, x)
        move = np.diff(path)
        weight = np.append(0.5, np.append(np.ones(steps - 1), 0.5)) / steps
        return 0.5 * steps * move @ move + price @ move + weight @ (0.5 * (path - 0.3) ** 2)

    found = minimize(cost, np.full(steps, start), bounds=[(0.0, 0.45)] * steps, tol=1e-15, options={"maxfun": 10**5})
    path = np.append(start, found.x)
    assert np.min(path) == 0.0
    assert np.max(path) == 0.45
    assert checked.cost == pytest.approx(found.fun, abs=1e-7)  # of the bounded search
    np.testing.assert_allclose(checked.mean_position, path, atol=1e-4)  # the root of its tolerance


NOISE = 0.2
STAY = 0.3


def survival(t, x, modes=40):
    """P(a Brownian motion of noise σ at x stays between 0 and 1 until 1), and its slope."""
    n = np.arange(1, 2 * modes, 2)
    size = 4 / (n * np.pi) * np.exp(-0.5 * (n * np.pi * NOISE) ** 2 * (1 - t))
    angle = np.pi * np.multiply.outer(x, n)
    return np.sin(angle) @ size, np.cos(angle) @ (size * n * np.pi)


def walls_without_costs(steps):
    """Agents between walls at 0 and 1 who pay for nothing else: noise conditioned to stay inside, in closed form."""
    x = np.linspace(0.002, 0.998, 499)
    rates = []
    for t in np.linspace(0, 1, steps + 1):
        chance, slope = survival(min(t, 1 - 1e-4), x)
        rates.append(NOISE**2 * slope / chance)
    strategy = Feedback(np.linspace(0, 1, steps + 1), np.tile(x, (steps + 1, 1)), np.array(rates))
    return market_of(NOISE, limits=(0.0, 1.0)), equilibrium_of(np.zeros(steps), np.zeros(steps), [STAY], strategy)


@pytest.mark.slow
def test_walls_without_other_costs_are_conditioned_noise():
    steps = 64
    checked = verify(*walls_without_costs(steps))
    x = (np.arange(2000) + 0.5) / 2000
    n = np.arange(1, 200)
    mean = [STAY]
    for t in np.linspace(0, 1, steps + 1)[1:]:
        law = np.sin(np.pi * np.outer(x, n)) @ (2 * np.sin(np.pi * n * STAY) * np.exp(-0.5 * (n * np.pi * NOISE) ** 2 * t))
        alive = law * (survival(t, x)[0] if t < 1 else 1.0)
        mean.append(alive @ x / alive.sum())
    np.testing.assert_allclose(checked.rate, np.diff(mean) * steps, atol=NUMERICAL)
    assert checked.cost == pytest.approx(-(NOISE**2) * np.log(survival(0.0, np.array([STAY]))[0][0]), abs=1e-5)
    # The rule is interpolated in time, of first order where it changes at once near the walls: 4e-5 of a cost of 6e-3.
    assert -1e-6 < checked.exploitability < 8e-5
    np.testing.assert_allclose(checked.strategy_rate, checked.rate, atol=1e-4)


def rates_by_matrix_exponentials(price, nodes=300):
    """Mean rates between walls under a price constant on each step: the linear equation of exp(−u/cσ²), V = Ψ = 0, c = 1."""
    steps, dx = len(price), 1 / nodes
    x = np.arange(1, nodes) * dx
    second = (np.diag(np.full(nodes - 2, 1.0), 1) + np.diag(np.full(nodes - 2, 1.0), -1) - 2 * np.eye(nodes - 1)) / dx**2
    heat = expm(0.5 * NOISE**2 * second / steps)
    tilts = np.exp(-np.outer(price, x - STAY) / NOISE**2)
    values = [np.ones(nodes - 1)]
    for tilt in tilts[::-1]:
        values.append(heat @ (values[-1] * tilt) / tilt)
    values = values[::-1]
    law, mean = (np.abs(x - STAY) < 0.5 * dx) / values[0], [STAY]
    for k, tilt in enumerate(tilts):
        law = heat @ (law / tilt) * tilt
        mean.append((law * values[k + 1]) @ x)
    return np.diff(mean) * steps


@pytest.mark.slow
def test_walls_and_a_rough_supply_agree_with_matrix_exponentials():
    # ϖ jumps with supply and p̄ = ϖ + cQ is constant, so that no interpolation enters.
    supply = np.random.default_rng(3).normal(0, 0.5, 8)
    market, equilibrium = walls_without_costs(8)
    equilibrium.supply, equilibrium.price = supply, 0.05 - supply
    coarse, fine = (rates_by_matrix_exponentials(0.05 - supply, nodes) for nodes in (200, 400))
    # The oracle extrapolated is good to 1e-6; rates here are up to 1.2.
    np.testing.assert_allclose(verify(market, equilibrium).rate, (4 * fine - coarse) / 3, atol=NUMERICAL)


def test_clearing_price_between_walls():
    steps = 8
    market, equilibrium = walls_without_costs(steps)

    def rate(price):
        equilibrium.price = price
        return verify(market, equilibrium, tolerance=1e-2).rate

    # Where an independent market with steps of its own clears.
    other = root(rates_by_matrix_exponentials, np.linspace(0.1, 0.03, 2 * steps), args=(100,)).x
    start = other.reshape(steps, 2).mean(axis=1)
    found = root(rate, start, method="broyden1", options={"fatol": 2e-5, "jac_options": {"alpha": -1.0}})
    assert found.success
    # Both are of second order in their steps, whose difference is 2e-4 at T/2.
    assert 0.5 * (found.x[3] + found.x[4]) == pytest.approx(0.5 * (other[7] + other[8]), abs=5e-4)


def test_distant_walls_do_not_matter():
    noise = 0.1
    market, equilibrium = quadratic_game(16, noise, shift=0.05)
    walled = market_of(noise, market.holding, market.terminal, (-40.0, 60.0), COST)
    free, far = verify(market, equilibrium), verify(walled, equilibrium)
    np.testing.assert_allclose(far.rate, free.rate, atol=NUMERICAL)
    assert far.cost == pytest.approx(free.cost, abs=1e-5)


# Brute force


def test_a_controlled_random_walk_agrees():
    noise, steps, start, costate = 0.4, 4, 0.4, np.array([-0.3, -0.2, -0.2, -0.1])
    checked = verify(market_of(noise, holding=well), equilibrium_of(costate, np.zeros(steps), [start]), tolerance=1e-3)
    # Steps of ±dx or none, rates chosen at every node and time; the price is what verify promises to use.
    dx, substeps = 0.02, 3200
    dt = 1 / substeps
    x = np.arange(-70, 120) * dx
    spline = CubicSpline(np.linspace(0, 1, steps + 1), np.append(0, np.cumsum(costate)) / steps)
    price = spline((np.arange(substeps) + 0.5) * dt, 1)
    value, rates = np.zeros(x.size), []
    for p in price[::-1]:
        rate = np.clip(-((np.append(value[1:], value[-1]) - np.append(value[0], value[:-1])) / (2 * dx) + p), -8.0, 8.0)
        up, down = (0.5 * dt * (noise**2 / dx**2 + sign * rate / dx) for sign in (1, -1))
        value = (
            value
            + up * (np.append(value[1:], value[-1]) - value)
            + down * (np.append(value[0], value[:-1]) - value)
            + dt * (0.5 * rate**2 + p * rate + well(x))
        )
        rates.append(rate)
    law, mean = (np.abs(x - start) < 0.5 * dx).astype(float), [start]
    for n, rate in enumerate(rates[::-1]):
        up, down = (0.5 * dt * (noise**2 / dx**2 + sign * rate / dx) * law for sign in (1, -1))
        law = law - up - down + np.append(0.0, up[:-1]) + np.append(down[1:], 0.0)
        if (n + 1) % (substeps // steps) == 0:
            mean.append(law @ x)
    # First order in dt and second in dx: halving both changes these by less than half of this.
    np.testing.assert_allclose(checked.rate, np.diff(mean) * steps, atol=5e-3)
    assert checked.cost == pytest.approx(float(np.interp(start, x, value)), abs=2e-3)


# Bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"price": np.zeros((4, 2))}, "one asset"),
        ({"price": np.array([0.0, np.nan, 0.0, 0.0])}, "price is not finite"),
        ({"supply": np.zeros(3)}, r"supply has shape \(3,\): verify needs \(4\)"),
        ({"weights": np.ones(3)}, "weights sum to 3"),
        ({"weights": np.ones(2)}, "weights has shape"),
        ({"horizon": 0.0}, "horizon 0"),
        ({"strategy": lambda: None}, "NoneType"),
        ({"strategy": lambda: Paths(np.zeros((4, 3)))}, "positions has shape"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_bad_equilibria_are_refused(change, sentence, noise):
    equilibrium = equilibrium_of(np.zeros(4), np.zeros(4), START)
    vars(equilibrium).update(change)
    with pytest.raises(EquilibriumError, match=sentence):
        verify(market_of(noise, terminal=well), equilibrium)


def test_bad_markets_are_refused():
    equilibrium = equilibrium_of(np.zeros(4), np.zeros(4), START)
    with pytest.raises(EquilibriumError, match="put them inside the limits"):
        verify(market_of(limits=(0.0, 1.0)), equilibrium)
    with pytest.raises(EquilibriumError, match="must be Feedback"):
        verify(market_of(0.1, limits=(-1.0, 1.0)), equilibrium)
    with pytest.raises(EquilibriumError, match="no weights"):
        verify(market_of(), SimpleNamespace(horizon=1.0, supply=0, price=0, initial=0))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_costs_that_send_agents_away_are_refused(noise):
    with pytest.raises(EquilibriumError, match="leave every bounded set"):
        verify(market_of(noise, terminal=lambda x: -(x**2)), equilibrium_of(np.zeros(4), np.zeros(4), START))
