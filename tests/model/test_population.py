"""Sampled paths, densities and expected costs: against closed forms, each other, the dual's value and direct simulation."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.testing import assert_allclose
from scipy.interpolate import CubicSpline
from scipy.stats import kstest, norm

from walras.model import (
    Agents,
    Diffusion,
    DoubleWell,
    EquilibriumError,
    PriceFormation,
    Quadratic,
    RandomSupply,
    density,
    expected_costs,
    plot_costs,
    plot_density,
    plot_paths,
    plot_price,
    sample_paths,
)
from walras.model.price_formation.agents import Trajectories

STEPS, AGENTS = 8, 10_000
SUPPLY = jnp.sin(10 * (jnp.arange(STEPS) + 0.5) / STEPS)
START = (jnp.array([0.0, 0.5, 1.2]), jnp.array([0.2, 0.5, 0.3]))
LINEAR = PriceFormation(1.3, holding=Quadratic(4.0, 0.3), terminal=Quadratic(5.0, 0.2), noise=0.3)
GRID = Diffusion(points=96, band=96, domain=(-3.0, 3.0), substeps=4)
# Time's error of the Diffusion solve on 4 substeps against the closed form: second order, 4e-4 of costs of order one.
TIME_ERROR = 2e-3
# Rounding, in sums over grids and differences of value functions whose size is 1e2.
ROUNDING = 1e-11


@pytest.fixture(scope="module")
def linear():
    return LINEAR.solve(SUPPLY, initial=START, horizon=1.5)


@pytest.fixture(scope="module")
def chain():
    """The same market, solved on a grid."""
    return LINEAR.solve(SUPPLY, initial=START, horizon=1.5, solver=GRID)


@pytest.fixture(scope="module")
def walled():
    market = PriceFormation(1.0, terminal=DoubleWell(50.0, 0.25, 0.75), noise=0.2, limits=(0.0, 1.0))
    options = Diffusion(points=48, band=48, domain=(0.0, 1.0), substeps=4)
    return market.solve(jnp.array([0.3, -0.2, 0.1, 0.2]), initial=jnp.array([0.3, 0.4, 0.6]), solver=options)


@pytest.fixture(scope="module")
def paths():
    """Without noise, with a cost that is convex and not quadratic."""
    market = PriceFormation(1.0, holding=lambda x: (x - 0.2) ** 4, terminal=Quadratic(2.0))
    return market.solve(SUPPLY, initial=START, solver=Agents(substeps=2))


@pytest.fixture(scope="module")
def two_assets():
    market = PriceFormation(
        jnp.array([[1.0, 0.3], [0.3, 2.0]]),
        Quadratic(jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.array([0.1, 0.2])),
        Quadratic(1.0),
    )
    return market.solve(jnp.stack([SUPPLY, -0.5 * SUPPLY], axis=1), initial=jnp.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]]))


def euler_variances(market, first_variance, horizon, fine):
    """E y² of dy = −g y dt + σ dW at the ends of 8 steps and ∫E y², ∫g² E y² by Heun's rule: an independent route to both."""
    c, eta, gamma = market.trading_cost, market.holding.strength, market.terminal.strength
    h = horizon / fine

    def riccati(g):
        return g * g - eta / c

    rule = np.empty(fine + 1)
    rule[-1] = gamma / c
    for k in range(fine, 0, -1):
        middle = rule[k] - 0.5 * h * riccati(rule[k])
        rule[k - 1] = rule[k] - h * riccati(middle)
    variance = np.empty(fine + 1)
    variance[0] = first_variance
    for k in range(fine):
        slope = -2 * rule[k] * variance[k] + market.noise**2
        end = variance[k] + h * slope
        variance[k + 1] = variance[k] + 0.5 * h * (slope - 2 * rule[k + 1] * end + market.noise**2)
    return variance, rule


def first_variance():
    positions, weights = map(np.asarray, START)
    return weights @ (positions - weights @ positions) ** 2


def test_quadratic_costs_against_the_riccati_equation_by_finite_differences(linear):
    """Heun's rule on 8000 steps is right to 1e-6."""
    fine, h = 1000, 1.5 / 8000
    variance, rule = euler_variances(LINEAR, first_variance(), 1.5, fine * STEPS)
    found = expected_costs(linear)

    def integrals(values):
        return h * np.array([np.sum(row) - 0.5 * (row[0] + row[-1]) for row in windows(values)])

    def windows(values):
        return [values[k * fine : (k + 1) * fine + 1] for k in range(STEPS)]

    mean = np.interp(np.arange(fine * STEPS + 1) / fine, np.arange(STEPS + 1), linear.mean_position)
    assert_allclose(found.trading, 0.65 * (integrals(rule**2 * variance) + 1.5 / STEPS * SUPPLY**2), atol=2e-6)
    assert_allclose(found.holding, 2.0 * integrals((mean - 0.3) ** 2 + variance), atol=2e-6)
    assert_allclose(found.payments, 1.5 / STEPS * linear.price * SUPPLY, rtol=1e-12)
    assert_allclose(found.terminal, 2.5 * ((mean[-1] - 0.2) ** 2 + variance[-1]), atol=2e-6)


def test_grid_and_closed_form_have_the_same_law_and_costs(linear, chain):
    for ours, closed in zip(expected_costs(chain), expected_costs(linear), strict=True):
        assert_allclose(ours, closed, atol=TIME_ERROR)
    ours, closed = (moments(density(one)) for one in (chain, linear))
    assert_allclose(ours, closed, atol=TIME_ERROR)
    variance, _ = euler_variances(LINEAR, first_variance(), 1.5, 8000)
    assert_allclose(closed[2] - closed[1] ** 2, variance[1000::1000], atol=2e-6)


def moments(found):
    """Mass, mean and mean square of a tabulated density."""
    spacing = found.positions[:, 1] - found.positions[:, 0]
    return np.stack([np.sum(found.density * found.positions**k, axis=1) * spacing for k in range(3)])


@jax.jit
def value(found):
    return found.dual().value(found.multipliers, found.dual().cost)


@pytest.mark.parametrize("name", ["chain", pytest.param("walled", marks=pytest.mark.slow)])
def test_costs_add_up_to_the_value_of_the_dual(name, request):
    """The dual leaves out supply's own trading costs, what is paid for it, and the first half of the trapezium at the start."""
    found = request.getfixturevalue(name)
    game = found.game
    first = jnp.sum(game.weights * jax.vmap(game.holding)(game.initial))
    left_out = (
        game.step * jnp.sum(0.5 * game.trading_cost * game.supply**2 + found.price * game.supply)
        + 0.5 * found.fine.step * first
    )
    assert_allclose(expected_costs(found).total, value(found) + left_out, atol=ROUNDING)


def test_costs_of_paths_add_up_to_the_value_of_the_dual(paths):
    fine = paths.game.refined(2)
    dual = Trajectories.of(fine)
    optimal = jax.jit(lambda: dual.evaluate(paths.multipliers, dual.first_state()).value)()
    first = jnp.sum(fine.weights * jax.vmap(fine.holding)(fine.initial))
    # Trading costs are in the dual those of y; as markets clear, (c/2) Q² is what they lack.
    left_out = jnp.sum(paths.game.step * (0.5 * SUPPLY**2 + paths.price * SUPPLY)) + 0.5 * fine.step * first
    assert_allclose(expected_costs(paths).total, optimal + left_out, atol=1e-9)


def test_marginal_value_of_a_first_position_is_the_price_of_it(linear):
    """By the envelope theorem the mean cost falls by −p(0) for each agent's own first position: costs from a derivative."""

    def total(moved):
        # The price is held: only agents' costs of the same market may change, of which all are quadratic.
        return expected_costs(LINEAR.solve(SUPPLY, initial=(START[0] + moved, START[1]), horizon=1.5)).total

    # d total/d moved = −E p(0) + ∫ dϖ/dmoved · Q, and the price of the whole moves as the closed form says.
    moved = jax.grad(total)(0.0)
    price = jax.jacfwd(lambda at: LINEAR.solve(SUPPLY, initial=(START[0] + at, START[1]), horizon=1.5).price)(0.0)
    held = jnp.sum(linear.game.step * (0.5 * (linear.mean_position[:-1] + linear.mean_position[1:]) - 0.3))
    first_costate = -5.0 * (linear.mean_position[-1] - 0.2) - 4.0 * held
    assert_allclose(moved, -first_costate + linear.game.step * jnp.sum(price * SUPPLY), rtol=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["linear", "chain", "walled"])
def test_samples_have_the_density(name, request):
    """Kolmogorov–Smirnov at each node: a level of 1e-6 for each of 8 nodes at most gives false alarms at a rate of 1e-5."""
    found = request.getfixturevalue(name)
    drawn, law = np.asarray(sample_paths(found, jax.random.key(3), AGENTS)), density(found)
    assert drawn.shape == (found.game.steps + 1, AGENTS)
    assert set(drawn[0]) == set(np.asarray(found.initial))
    for row, positions, values in zip(drawn[1:], law.positions, law.density, strict=True):
        assert kstest(row, CubicSpline(positions, values).antiderivative()).pvalue > 1e-6


@pytest.mark.statistical
def test_a_density_that_is_slightly_wrong_is_found_out(chain):
    """The negative control: samples moved by a tenth of their width fail the same test, all but one in 1e5 times."""
    drawn, law = np.asarray(sample_paths(chain, jax.random.key(3), AGENTS)), density(chain)
    wrong = drawn[-1] + 0.1 * np.std(drawn[-1])
    assert kstest(wrong, CubicSpline(law.positions[-1], law.density[-1]).antiderivative()).pvalue < 1e-6


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["linear", "chain"])
def test_samples_are_an_ornstein_uhlenbeck_process(name, request):
    """Each step's y_k − a y_{k−1} is normal, and independent of y_{k−1}: levels of 1e-6 for 16 tests, 2e-5 in all.

    The rule and its variance are those of finite differences; on the grid they differ by less than a hundredth of what 10,000
    draws tell.
    """
    found = request.getfixturevalue(name)
    distance = np.asarray(sample_paths(found, jax.random.key(4), AGENTS) - found.mean_position[:, None])
    _, rule = euler_variances(LINEAR, first_variance(), 1.5, 8000)
    h = 1.5 / 8000
    for k in range(STEPS):
        window = rule[k * 1000 : (k + 1) * 1000 + 1]
        pulled = np.append(0.0, np.cumsum(0.5 * h * (window[:-1] + window[1:])))
        kept = np.exp(pulled - pulled[-1])  # of a hit at each time until the step's end
        width = LINEAR.noise * np.sqrt(h * (np.sum(kept**2) - 0.5 * (kept[0] ** 2 + 1.0)))
        hits = (distance[k + 1] - kept[0] * distance[k]) / width
        assert kstest(hits, norm.cdf).pvalue > 1e-6
        assert abs(np.corrcoef(hits, distance[k])[0, 1]) < 4.9 / np.sqrt(AGENTS)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["linear", "chain", "walled", "paths", "two_assets"])
def test_expected_costs_are_means_over_samples(name, request):
    """The terminal cost, and holding costs by the trapezium at the nodes, within five standard errors: false alarms at 3e-5.

    Coarse nodes integrate holding costs to an error that is allowed for: the difference of the two rules at the means.
    """
    found = request.getfixturevalue(name)
    game, costs = found.game, expected_costs(found)
    drawn = sample_paths(found, jax.random.key(5), AGENTS)
    final, each = jax.jit(lambda at: (jax.vmap(game.terminal)(at[-1]), jax.vmap(jax.vmap(game.holding))(at)))(drawn)
    final = np.asarray(final)
    assert abs(final.mean() - costs.terminal) < 5 * final.std() / np.sqrt(AGENTS)
    held, spread = np.asarray(each).mean(axis=1), np.asarray(each).std(axis=1).max() / np.sqrt(AGENTS)
    trapezium = 0.5 * game.step * (held[:-1] + held[1:])
    bend = np.abs(np.diff(held, 2)).max() * float(game.step) if held.size > 2 else 0.0
    assert np.all(np.abs(trapezium - costs.holding) < 5 * game.step * spread + bend + 1e-12)


def test_trading_costs_are_those_of_the_feedback_rule(chain):
    """E ∫ (c/2) β² from the feedback rule over the density, which shares no formula with value functions' differences.

    Its trapezium in time is coarse, and right to a few hundredths.
    """
    rule, law, game = chain.strategy(), density(chain), chain.game
    ends = np.searchsorted(rule.time, law.times - 1e-9)
    rows = zip(law.positions, rule.position[ends], rule.rate[ends], strict=True)
    rate = np.stack([np.interp(p, q, r) for p, q, r in rows])
    spacing = law.positions[:, 1] - law.positions[:, 0]
    squares = np.sum(rate**2 * law.density, axis=1) * spacing
    start = np.interp(game.initial, rule.position[0], rule.rate[0])
    squares = np.append(np.sum(game.weights * start**2), squares)
    beyond = expected_costs(chain).trading - 0.5 * game.step * game.trading_cost * game.supply**2
    trapezium = 0.25 * game.step * game.trading_cost * (squares[:-1] + squares[1:])
    assert_allclose(beyond[1:], trapezium[1:], rtol=0.1)


def test_limits_hold(walled):
    drawn = sample_paths(walled, jax.random.key(6), AGENTS)
    assert float(drawn.min()) > 0.0
    assert float(drawn.max()) < 1.0
    law = density(walled)
    assert float(law.positions[0, 0]) == 0.0
    assert float(jnp.max(law.density[:, [0, -1]])) == pytest.approx(0.0, abs=1e-12)


def test_without_noise_agents_keep_their_paths(paths, two_assets):
    for found, one in ((paths, ()), (two_assets, (2,))):
        drawn = np.asarray(sample_paths(found, jax.random.key(7), 50))
        assert drawn.shape == (STEPS + 1, 50, *one)
        own = np.asarray(found.strategy().positions)
        assert all(np.any(np.all(own == drawn[:, [i]], axis=tuple(a for a in range(own.ndim) if a != 1))) for i in range(50))


def test_quadratic_costs_without_noise_are_the_limit_of_those_with(linear):
    quiet = PriceFormation(1.3, LINEAR.holding, LINEAR.terminal).solve(SUPPLY, initial=START, horizon=1.5)
    nearly = PriceFormation(1.3, LINEAR.holding, LINEAR.terminal, noise=1e-5).solve(SUPPLY, initial=START, horizon=1.5)
    assert_allclose(sample_paths(quiet, jax.random.key(0), 9), sample_paths(nearly, jax.random.key(0), 9), atol=1e-4)
    assert_allclose(expected_costs(quiet).total, expected_costs(nearly).total, atol=1e-8)


def test_costs_of_two_assets_along_straight_lines(two_assets):
    """By Gauss's rule with two points in each step, exact for squares."""
    game, own = two_assets.game, np.asarray(two_assets.strategy().positions)
    rate = np.diff(own, axis=0) / float(game.step)
    trading = 0.5 * np.einsum("kia,ab,kib->k", rate, game.trading_cost, rate) * float(game.step) / 3
    points = [own[:-1] + (0.5 + s / np.sqrt(12)) * np.diff(own, axis=0) for s in (-1, 1)]
    away = np.stack(points) - np.asarray(game.holding.centre)
    holding = 0.25 * np.einsum("gkia,ab,gkib->k", away, game.holding.strength, away) * float(game.step) / 3
    found = expected_costs(two_assets)
    assert_allclose(found.trading, trading, rtol=1e-12)
    assert_allclose(found.holding, holding, rtol=1e-12)
    assert_allclose(found.payments, game.step * np.sum(two_assets.price * game.supply, axis=1), rtol=1e-12)
    assert_allclose(found.terminal, 0.5 * np.mean(np.sum(own[-1] ** 2, axis=1)), rtol=1e-12)


@pytest.mark.slow
def test_in_transformations():
    def total(noise):
        market = PriceFormation(1.0, terminal=DoubleWell(50.0, 0.25, 0.75), noise=noise)
        found = market.solve(
            jnp.zeros(2), initial=jnp.array([0.3, 0.6]), solver=Diffusion(points=64, band=64, domain=(-2.0, 2.0))
        )
        return expected_costs(found).total

    noises = jnp.array([0.4, 0.4 - 1e-4, 0.4 + 1e-4])
    costs, slopes = jax.jit(jax.vmap(lambda at: jax.jvp(total, (at,), (1.0,))))(noises)
    assert_allclose(slopes[0], (costs[2] - costs[1]) / 2e-4, rtol=1e-6)


def test_what_has_no_density_or_paths_says_so(paths, two_assets):
    with pytest.raises(EquilibriumError, match="the market has no noise"):
        density(paths)
    with pytest.raises(EquilibriumError, match="the market has no noise"):
        density(PriceFormation(1.0).solve(SUPPLY))
    matrix = jnp.eye(2)
    noisy = PriceFormation(matrix, terminal=Quadratic(1.0), noise=0.2).solve(jnp.ones((3, 2)))
    with pytest.raises(EquilibriumError, match=r"noise is 0\.2: with noise"):
        sample_paths(noisy, jax.random.key(0), 3)
    foreseen_by_nobody = PriceFormation(1.0, terminal=Quadratic(1.0)).solve(RandomSupply(0.0, 1.0, 1.0), steps=3)
    with pytest.raises(EquilibriumError, match="AffineEquilibrium"):
        expected_costs(foreseen_by_nobody)
    with pytest.raises(EquilibriumError, match="AffineEquilibrium"):
        plot_price(foreseen_by_nobody)


def test_pictures(linear, walled, paths, two_assets):
    key = jax.random.key(0)
    with mpl.rc_context({"backend": "Agg"}):
        import matplotlib.pyplot as plt

        for found in (linear, walled, paths, two_assets):
            drawn = [
                plot_price(found),
                plot_paths(found, key, agents=5, unit="MWh"),
                plot_costs(found, time="days", money="EUR"),
            ]
            assert all(isinstance(ax, Axes) for ax in drawn)
            assert drawn[1].get_ylabel() == "position (MWh)"
        _, ax = plt.subplots()
        assert plot_density(linear, ax, time="days") is ax
        assert ax.get_xlabel() == "time (days)"
        plot_density(walled)
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")
