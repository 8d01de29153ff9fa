"""Hard limits on positions against finite differences between walls, and what scarcity does to the price."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import walls as oracle
from oracles.compiling import lightly

from walras.model import Diffusion, EquilibriumError, PriceFormation, Quadratic, Status

# The oracle, extrapolated, is good to 1e-6 (twice its nodes change it by less).
WALLS = 5e-6
# In x on 161 points with σ√h = .07, a kernel is resolved tenfold; near walls a grid's error is of second order all the same.
GRID = 2e-4

NOISE = 0.2
SUPPLY = np.array([0.1, -0.2, -0.3, 0.1, 0.2, 0.1, -0.1, -0.1])


def solve(supply, start=(0.3, 0.3), limits=(0.0, 1.0), noise=NOISE, holding=None, terminal=None, **options):
    market = PriceFormation(1.0, holding, terminal, noise=noise, limits=limits)
    options = {"points": 320, "substeps": 1} | options
    return market.solve(supply, initial=np.array(start), solver=Diffusion(**options))


@pytest.fixture(scope="module")
def at_rest():
    return {steps: solve(np.zeros(steps)) for steps in (8, 16)}


def quartic(x):
    return x**4


def walls(start=(0.3, 0.3), **costs):
    return oracle.Walls(0.0, 1.0, NOISE, 1.0, 1.0, np.array(start), np.full(len(start), 1 / len(start)), **costs)


def test_published_check_value(at_rest):
    """All agents at .3 between walls at 0 and 1, no supply and no cost: p̄(T/2) = .0834 (two independent calculations)."""
    middle = {n: 0.5 * (found.costate[n // 2 - 1] + found.costate[n // 2]) for n, found in at_rest.items()}
    # Steps of constant p̄: second order, cancelled by extrapolation; four digits are known.
    assert_allclose((4 * middle[16] - middle[8]) / 3, 0.0835, atol=1e-4)


@pytest.mark.parametrize("steps", [8, 16])
def test_price_without_costs_between_walls(at_rest, steps):
    found = at_rest[steps]
    assert_allclose(found.price, oracle.clearing_price(walls(), np.zeros(steps), 100), atol=GRID, rtol=0)
    assert bool(found.status == Status.solved)
    assert found.residual < 1e-8


def test_price_with_costs_and_supply_between_walls():
    start = (0.3, 0.8)
    holding, terminal = Quadratic(2.0, 0.7), (lambda x: 25 * (x - 0.25) ** 2 * (x - 0.75) ** 2)
    found = solve(SUPPLY, start, holding=holding, terminal=terminal)
    game = walls(start, holding=lambda x: (x - 0.7) ** 2, terminal=terminal)
    expected = oracle.clearing_price(game, SUPPLY, 100)
    # The oracle's V is exact in time, the solver's weighed by the trapezoidal rule: `error` says what that does.
    difference = np.max(np.abs(found.price - expected))
    assert difference < 1.5 * float(found.error) + GRID
    assert difference < 0.05 * np.ptp(expected)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_limits_that_do_not_bind_change_nothing(noise):
    # Neither the grid, which was as wide as the limits, nor the solver: without noise agents were solved as a limit of noise.
    free, wide = (
        PriceFormation(1.0, quartic, noise=noise, limits=limits).solve(SUPPLY, initial=np.array([0.3, 0.8]))
        for limits in (None, (-50.0, 50.0))
    )
    assert_allclose(wide.price, free.price, atol=float(free.error + wide.error), rtol=0)
    assert wide.error < 1e-3


@pytest.mark.slow
def test_the_error_counts_what_a_wall_does_to_steps_and_grids():
    # A storage that fills up: halving steps moves the price ten times as far as one quasi-Newton step says.
    hours = np.arange(12)
    supply = 0.3 * np.sin(2 * np.pi * (hours - 3) / 12)
    market = PriceFormation(3.0, terminal=Quadratic(2.0, 2.0), noise=0.1, limits=(0.0, 3.1))

    def found(points, substeps):
        options = Diffusion(points=points, substeps=substeps)
        return market.solve(supply, horizon=12.0, initial=np.linspace(1, 3, 5), solver=options, throw=False)

    exact = found(512, 64)
    for points, substeps in ((256, 8), (512, 8)):
        coarse = found(points, substeps)
        true = np.max(np.abs(coarse.price - exact.price))
        assert true < coarse.error + exact.error
        assert coarse.error < 5 * (true + exact.error)


@pytest.mark.slow
def test_positions_stay_inside():
    found = solve(SUPPLY, (0.3, 0.8))
    flow = found.dual().flow(found.multipliers)
    nodes = np.asarray(found.grid.nodes())
    assert nodes[0] == 0.0
    assert nodes[-1] == 1.0
    assert_allclose(jnp.sum(flow.mass, axis=1), 1.0, atol=1e-9, rtol=0)  # nobody is lost
    assert np.max(flow.mass[:, [0, -1]]) < 1e-12  # nobody is at a wall
    strategy = found.strategy()
    # Agents near a wall move away from it, until at the end there is no time left to hit it.
    assert np.all(strategy.rate[:-1, 1] + SUPPLY.min() > 0)
    assert np.all(strategy.rate[:-1, -2] + SUPPLY.max() < 0)


@pytest.fixture(scope="module")
def stock():
    """The price at half time when agents have sold much by then, between no walls, one or two."""
    supply = jnp.asarray(np.concatenate([np.full(4, -0.9), np.full(4, 0.0)]))
    solver = Diffusion(points=320, substeps=1, domain=(-0.0, 2.5))

    @lightly
    def price(start, low):
        market = PriceFormation(1.0, Quadratic(1.0, 0.5), noise=NOISE, limits=(low, 2.5))
        found = market.solve(supply, initial=jnp.atleast_1d(start), solver=solver, throw=False)
        return found.price, found.status == Status.solved

    return price


def test_the_price_shows_scarcity(stock):
    free = PriceFormation(1.0, Quadratic(1.0, 0.5))
    premium = []
    for start in (0.6, 0.8, 1.2):
        price, solved = stock(start, 0.0)
        assert bool(solved)
        open_market = free.solve(np.concatenate([np.full(4, -0.9), np.zeros(4)]), initial=start)
        premium.append(float(price[3] - open_market.price[3]))
    # The last sale leaves .15, .35, .75 in stock.
    assert premium[0] > 2 * premium[1] > 0
    assert premium[1] > 5 * premium[2] > -1e-2


@pytest.mark.slow
def test_a_distant_wall_changes_nothing():
    supply = SUPPLY
    both = solve(supply, (0.3, 0.6), limits=(-3.0, 4.0), holding=Quadratic(2.0, 0.5))
    one = solve(supply, (0.3, 0.6), limits=(-3.0, None), holding=Quadratic(2.0, 0.5), domain=(-3.0, 4.0))
    free = solve(supply, (0.3, 0.6), limits=None, holding=Quadratic(2.0, 0.5), points=128, domain=(-2.0, 2.0))
    assert_allclose(both.price, free.price, atol=1e-8, rtol=0)  # clearing errors of 1e-9
    assert_allclose(one.price, free.price, atol=1e-8, rtol=0)


def test_one_wall_is_a_wall_and_a_mirror_image():
    low = solve(SUPPLY, (0.3, 0.6), limits=(0.0, None), domain=(0.0, 2.4))
    high = solve(-SUPPLY, (-0.3, -0.6), limits=(None, 0.0), domain=(-2.4, 0.0))
    far = solve(SUPPLY, (0.3, 0.6), limits=(0.0, 2.4))
    assert_allclose(high.price, -low.price, atol=1e-8, rtol=0)
    assert_allclose(low.price, far.price, atol=1e-3, rtol=0)  # few of them get as far as 2.4, ten deviations away
    assert np.max(np.abs(low.price + SUPPLY)) > 0.01  # ten times that: without a wall the price is −cQ


def test_walls_scale_with_positions():
    wide = solve(3 * SUPPLY, (0.9, 1.8), limits=(0.0, 3.0), noise=3 * NOISE)
    assert_allclose(wide.price, 3 * solve(SUPPLY, (0.3, 0.6)).price, atol=1e-7, rtol=0)  # clearing errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"start": (0.3, 1.2)}, "strictly inside the limits"),
        ({"start": (0.0, 0.3)}, "strictly inside the limits"),
        ({"supply": np.full(8, -0.4)}, "beyond the limits"),
        ({"limits": (1.0, 0.0)}, "lower one first"),
        ({"limits": 1.0}, "pair"),
    ],
)
def test_what_no_price_can_clear_is_refused(arguments, sentence):
    with pytest.raises(EquilibriumError, match=sentence):
        solve(**({"supply": SUPPLY} | arguments))


@pytest.mark.slow
def test_limits_are_parameters_too():
    """Derivatives of the price in both walls and the start, against central differences."""
    step = 1e-5
    inside = Diffusion(points=192, substeps=1)

    def price_of(theta):
        market = PriceFormation(theta[0], Quadratic(theta[1], theta[7]), noise=theta[2], limits=(theta[3], theta[4]))
        return market.solve(jnp.asarray(SUPPLY[:4]), initial=theta[5:7], solver=inside).price

    theta = jnp.array([0.7, 1.5, 0.25, 0.0, 1.0, 0.4, 0.6, 0.4])
    jacobian, price = lightly(jax.jacfwd(price_of))(theta), lightly(price_of)
    differences = np.array([(price(theta + step * d) - price(theta - step * d)) / (2 * step) for d in np.eye(8)]).T
    assert_allclose(jacobian, differences, atol=1e-6, rtol=1e-6)
    # Moving walls, agents and target together changes nothing.
    assert_allclose(jacobian[:, 3:].sum(axis=1), 0.0, atol=1e-12, rtol=0)
