"""The generative solver: its parts against exact solutions, and what it trains against the recursion and the lattice."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpyro.infer import MCMC, NUTS
from scipy.optimize import brentq

from walras.model import EquilibriumError, Status, Surrogate, TradingCosts, Training, solve_generative, train_surrogate
from walras.model.trading_costs import lattice, quadratic
from walras.model.trading_costs.generative import solver
from walras.model.trading_costs.generative.clearing import clearing_level, rate
from walras.model.trading_costs.generative.family import Family
from walras.model.trading_costs.generative.game import Game
from walras.model.trading_costs.generative.link import along, walk
from walras.model.trading_costs.generative.networks import Networks
from walras.model.trading_costs.generative.residuals import residuals

LEVEL = 1e-13  # of a clearing level, relative to the values' spread; measured 2e-14
SLOPE = 1e-7  # of its derivative, against central differences with a step of 1e-5; measured 1e-9
SINGLE = 1e-5  # relative, of what networks compute, in single precision; measured 3e-6
WRONG = 100.0  # times as large as SINGLE: what wrong coefficients leave
WELFARE = 0.015  # of the largest: four standard errors, measured, of its estimate on 4096 random paths
TRAINED = 0.005  # relative, of figures after 4000 iterations; measured .0006 to .0013 for three keys
COVERED = 3.0  # how far the estimated error of figures may be from the true one, as a factor; measured 2.1 for 25 trainings
PLACES = 1e-10  # of coordinates and markets, relative: rounding of logarithms
FITTED = 0.005  # relative, of a surrogate's figures; measured .0027
SLOPED = 0.2  # relative, of their derivatives; measured .05 inside the family and .12 at its ends

HORIZON, STEPS = 0.4, 8
KEY = jax.random.key(0)
TINY = Training(iterations=4000, paths=64, width=16, depth=1, chunk=1000)
SMALL = Training(iterations=2000, paths=64, width=16, depth=2)  # slopes between markets need the second layer


def market(cost=0.01, aversion=(1.0, 2.0), risk=(3.0, -3.0), **options):
    return TradingCosts(jnp.array(aversion), jnp.array(risk), cost, **{"payoff_drift": 2.0, **options})


THREE = {
    "risks that offset each other": market(aversion=(1.0, 1.5, 2.5), risk=(4.0, -1.0, -3.0)),
    "a risk that nobody can share": market(aversion=(1.0, 1.5, 2.5), risk=(4.0, -1.0, -2.0), supply=2.0),
}


def figures(equilibrium):
    return jnp.stack([equilibrium.price0, equilibrium.drift0, equilibrium.volatility0])


def exact(case, horizon=HORIZON, steps=STEPS, solved=quadratic):
    return jnp.stack(solved.figures(case, horizon, steps)[:3])


# Clearing


def root(values, power):
    """The clearing level by bisection and secants."""
    exponent = 1.0 / (power - 1.0)
    return brentq(
        lambda c: np.sum(np.sign(values - c) * np.abs(values - c) ** exponent), values.min(), values.max(), xtol=1e-15
    )


@pytest.mark.parametrize("power", [1.02, 1.1, 1.25, 1.5, 2.0])
def test_the_clearing_level_is_the_root(power):
    level = jax.jit(jax.vmap(partial(clearing_level, power=power)))
    for agents in (3, 4, 5, 6):
        values = np.random.default_rng(agents).normal(size=(30, agents))
        values[:10, 0] *= 1e3  # an outlier
        spread, wanted = np.ptp(values, axis=1), np.array([root(row, power) for row in values])
        assert np.max(np.abs(level(values) - wanted) / spread) < LEVEL
    # In single precision and any unit: no power of a small or large number is lost.
    for unit in (1e-6, 1e6):
        found = level(jnp.asarray(unit * values, jnp.float32))
        assert found.dtype == jnp.float32
        assert np.max(np.abs(np.asarray(found, float) / unit - wanted) / spread) < SINGLE


@pytest.mark.parametrize("power", [1.1, 1.5])
def test_the_derivative_of_the_clearing_level_equals_differences(power):
    values, h = np.random.default_rng(0).normal(size=(20, 4)), 1e-5
    slopes = jax.jit(jax.vmap(jax.grad(partial(clearing_level, power=power))))(values)
    differences = [[(root(row + h * to, power) - root(row - h * to, power)) / (2 * h) for to in np.eye(4)] for row in values]
    assert_allclose(slopes, differences, atol=SLOPE, rtol=0)


levels = jax.jit(jax.vmap(clearing_level, (0, None)), static_argnums=1)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-5, 5), min_size=4, max_size=4).filter(lambda values: np.ptp(values) > 1e-3),
    shift=st.floats(-9, 9),
    scale=st.floats(0.1, 9),
    order=st.permutations(range(4)),
    power=st.sampled_from([1.1, 1.25, 1.5]),
)
def test_the_clearing_level_moves_with_its_values(values, shift, scale, order, power):
    given = np.array(values)
    level, *others = levels(np.stack([given, given + shift, scale * given, -given, given[order]]), power)
    assert_allclose(others, [level + shift, scale * level, -level, level], atol=1e-12, rtol=0)
    rates = rate(given - level, jnp.array(0.01), power)
    assert abs(np.sum(rates)) < 1e-10 * np.max(np.abs(rates))


def test_two_agents_clear_half_way_at_any_power():
    assert clearing_level(jnp.array([1.0, 4.0]), 1.3) == 2.5
    # Also where nobody trades, rates with quadratic costs have a slope, which training goes along.
    assert_allclose(jax.grad(lambda y: rate(y, jnp.array(0.01), 2.0))(0.0), 100.0)


# The link, at the exact solution


class Recursion(eqx.Module):
    """The recursion of quadratic costs, written anew, in the place of networks: y = −(Fψ + HW) of all agents but the last, and
    S − βT − αW = −γ̄sR − γ̄AΞW − Σ wy. At the last date nothing is left to trade for.
    """

    feedback: jax.Array
    exposure: jax.Array
    premium: jax.Array
    by_state: jax.Array

    @classmethod
    def of(cls, case):
        gamma, risk, step = np.array(case.risk_aversion), np.array(case.endowment), HORIZON / STEPS
        aggregate, total, others = 1 / np.sum(1 / gamma), np.sum(risk), len(gamma) - 1
        weights = aggregate * (1 / gamma[:-1] - 1 / gamma[-1])
        couplings = np.diag(gamma[:-1]) - (gamma[:-1] - gamma[-1]) / len(gamma)
        hedges = (gamma * risk - np.mean(gamma * risk))[:-1]
        feedback, exposure, ahead, variance = np.zeros((others, others)), np.zeros(others), 0.0, 0.0
        dates = []
        for _ in range(STEPS + 1):
            by_shock = weights @ exposure - aggregate * ahead * total
            premium = -aggregate * case.supply * variance
            dates.append((feedback, exposure, premium, np.append(weights @ feedback, by_shock)))
            sigma = 1.0 + by_shock
            held = feedback + step * couplings * sigma**2
            traded = np.linalg.inv(np.eye(others) + step * held / case.trading_cost)
            feedback, exposure = traded @ held, traded @ (exposure + step * sigma * hedges)
            ahead, variance = ahead + step * sigma, variance + step * sigma**2
        return cls(*(jnp.asarray(np.stack(path[::-1]), jnp.float32) for path in zip(*dates, strict=True)))

    def marginal_cost(self, game, place, date, shock, moved):
        marginal = -(self.feedback[date] @ moved[:-1] + self.exposure[date] * shock)
        return jnp.append(marginal, -jnp.sum(marginal))

    def excess_price(self, game, place, date, shock, moved):
        return self.premium[date] + self.by_state[date] @ jnp.append(moved[:-1], shock)


def larger(networks, part):
    """The same with one of its coefficients a tenth larger, which is wrong."""
    return eqx.tree_at(lambda tree: getattr(tree, part), networks, replace_fn=lambda path: 1.1 * path)


@eqx.filter_jit
def linked(networks, game):
    """The first step of random paths, and all paths' largest gaps relative to marginal costs and to what a step earns."""
    moves = jax.random.rademacher(KEY, (64, game.steps), jnp.float32)

    @jax.vmap
    def of_path(moves):
        return along(networks, game, jnp.zeros(0), walk(networks, game, jnp.zeros(0), moves))

    found = of_path(moves)
    earned = game.step * jnp.max(jnp.abs(found.drift))
    gaps = jnp.max(jnp.abs(found.marginal_gap)) / game.marginal, jnp.max(jnp.abs(found.price_gap)) / earned
    return jax.tree.map(lambda path: path[0, 0], found), jnp.stack(gaps)


@pytest.mark.parametrize("name", THREE)
def test_the_recursion_leaves_no_gaps(name):
    case = THREE[name]
    networks, game = Recursion.of(case), Game.of(case, HORIZON, STEPS)
    first, gaps = linked(networks, game)
    assert np.all(gaps < SINGLE)
    found = first.excess + 2.0 * HORIZON, first.drift, first.volatility
    assert_allclose(jnp.stack(found), exact(case), rtol=SINGLE)
    for part in ("feedback", "by_state"):
        assert np.max(linked(larger(networks, part), game)[1]) > WRONG * SINGLE


def test_the_recursion_leaves_no_residuals_and_has_its_welfare():
    case = THREE["a risk that nobody can share"]
    networks, game, place = Recursion.of(case), Game.of(case, HORIZON, STEPS), jnp.zeros(0)
    right, wrong = (residuals(each, game, place, KEY, 16, 128) for each in (networks, larger(networks, "feedback")))
    assert max(*right.first_order, right.clearing, right.terminal) < SINGLE
    assert np.max(wrong.first_order) > WRONG * SINGLE
    assert wrong.terminal > WRONG * SINGLE
    judged, error, gap, residual = solver._judged(networks, case, game, place, jnp.array(HORIZON), KEY)
    wanted = quadratic.figures(case, HORIZON, STEPS).welfare
    assert_allclose(judged.welfare, wanted, atol=WELFARE * np.max(np.abs(wanted)), rtol=0)
    assert error < SINGLE
    assert gap < SINGLE
    assert residual < SINGLE * game.marginal


# A training


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def trained(folder):
    """A small training; and its checkpoint half-way, which is what a run that is killed then leaves."""
    reports, checkpoint = [], folder / "trained"

    def report(progress):
        reports.append(progress)
        if progress.done == TINY.iterations // 2:
            (folder / "half-way").write_bytes(checkpoint.read_bytes())

    options = {"key": KEY, "training": TINY, "checkpoint": checkpoint, "progress": report}
    return solve_generative(market(), HORIZON, STEPS, **options), reports


def untrained(*_):
    return Networks(2, 0, TINY.width, TINY.depth, KEY)


def test_trained_figures_are_those_of_the_recursion(trained):
    found, reports = trained
    wanted = exact(market())
    assert_allclose(figures(found), wanted, rtol=TRAINED)
    scale = jnp.array([wanted[1] * HORIZON, wanted[1], wanted[2]])
    true = np.max(np.abs(figures(found) - wanted) / scale)
    assert true / COVERED < found.error < true * COVERED
    welfare = quadratic.figures(market(), HORIZON, STEPS).welfare
    assert_allclose(found.welfare, welfare, atol=WELFARE * np.max(np.abs(welfare)), rtol=0)
    assert bool(found.status == Status.solved)
    assert [report.done for report in reports] == [1000, 2000, 3000, 4000]
    assert reports[-1].generator < 0.1 * reports[0].generator
    assert reports[-1].total == 4000


def test_trained_paths_clear_and_end_at_the_payoff(trained):
    found, _ = trained
    paths = found.simulate(jax.random.key(1), 5)
    assert paths.price.shape == (5, STEPS + 1)
    assert paths.rate.shape == (5, STEPS, 2)
    assert_allclose(paths.price[:, -1], 2.0 * HORIZON + paths.shock[:, -1], rtol=1e-12)
    assert_allclose(paths.price[:, 0], found.price0, rtol=SINGLE)
    assert_allclose(paths.position.sum(axis=2), 1.0, atol=SINGLE)
    assert_allclose(paths.rate.sum(axis=2), 0.0, atol=SINGLE * np.max(paths.rate))
    step = HORIZON / STEPS
    assert_allclose(jnp.diff(paths.position, axis=1), step * paths.rate, atol=SINGLE)
    again = found.along(jnp.diff(paths.shock, axis=1))
    assert_allclose(again.price, paths.price, rtol=1e-12)
    wanted = found.market.solve(HORIZON, STEPS, throw=False).along(jnp.diff(paths.shock, axis=1))
    assert_allclose(paths.price, wanted.price, atol=TRAINED * np.ptp(wanted.price), rtol=0)
    assert_allclose(paths.position, wanted.position, atol=TRAINED * np.ptp(wanted.position), rtol=0)
    for increments, message in ((jnp.full((2, STEPS), 0.1), "increments are not all ±"), (jnp.ones((2, 7)), "increments have")):
        with pytest.raises(EquilibriumError, match=message):
            found.along(increments)


@pytest.mark.slow
def test_residuals_tell_what_is_trained_from_what_is_not(trained):
    found, _ = trained
    surrogate = Surrogate(Family.between(market(), market()), untrained(), jnp.array(HORIZON), jnp.array(False), STEPS)
    first = surrogate.equilibrium(market(), key=KEY)
    good, bad = (each.residuals(KEY, states=16, paths=128) for each in (found, first))
    assert np.all(good.first_order < 0.01)
    assert np.all(bad.first_order > 0.1)
    assert good.terminal < 0.01
    assert bad.terminal > 0.1
    assert good.clearing < SINGLE  # marginal costs are linear in rates, and so agents' conditions add up whatever is proposed
    assert good.noise < np.min(good.first_order)
    assert first.error > 10 * found.error
    assert first.residual > 10 * found.residual
    assert bool(first.status == Status.not_trained)


def test_what_is_not_trained_is_refused(monkeypatch):
    monkeypatch.setattr(solver, "train", untrained)
    with pytest.raises(EquilibriumError, match="train with more iterations"):
        solve_generative(market(), HORIZON, STEPS, key=KEY)
    assert bool(solve_generative(market(), HORIZON, STEPS, key=KEY, throw=False).status == Status.not_trained)
    # Of agents who are alike and bear no supply the price is known without any training, and how they trade is not.
    alike = TradingCosts(jnp.array([1.0, 1.0]), jnp.array([3.0, -3.0]), 1.0, power=1.2, supply=0.0)
    found = solve_generative(alike, 1.0, STEPS, key=KEY, throw=False)
    assert found.error < SINGLE
    assert bool(found.status == Status.not_trained)


def test_a_surrogate_that_is_not_trained_says_so(monkeypatch):
    monkeypatch.setattr(solver, "train", untrained)
    found = train_surrogate(market(), market(), HORIZON, STEPS, key=KEY)
    assert not found.trained
    assert bool(found(market()).status == Status.not_trained)


# Checkpoints


@pytest.mark.slow
def test_a_training_that_goes_on_ends_as_if_never_stopped(trained, folder):
    reports = []
    training = replace(TINY, chunk=500)
    options = {"key": KEY, "training": training, "checkpoint": folder / "half-way", "progress": reports.append}
    again = train_surrogate(market(), market(), HORIZON, STEPS, **options)
    assert [report.done for report in reports] == [2500, 3000, 3500, 4000]
    wanted = jax.tree.leaves(eqx.filter(trained[0].networks, eqx.is_array))
    for one, other in zip(jax.tree.leaves(eqx.filter(again.networks, eqx.is_array)), wanted, strict=True):
        assert np.array_equal(one, other)


CHANGED = {
    "iterations": {"training": replace(TINY, iterations=2)},
    "paths": {"training": replace(TINY, paths=65)},
    "learning_rate": {"training": replace(TINY, learning_rate=0.02)},
    "key": {"key": jax.random.key(1)},
    "horizon": {"horizon": 0.5},
    "steps": {"steps": 4},
    "low": {"market": market(cost=0.02)},
}


@pytest.mark.parametrize("setting", CHANGED)
def test_a_checkpoint_of_another_training_is_refused(trained, folder, setting):
    own = {"market": market(), "horizon": HORIZON, "steps": STEPS, "key": KEY, "training": TINY}
    given = {**own, "checkpoint": folder / "trained", **CHANGED[setting]}
    with pytest.raises(EquilibriumError, match=f"is of a training with {setting}=") as raised:
        solve_generative(**given)
    assert "\n" not in str(raised.value)


DAMAGES = {
    "empty": lambda whole: b"",
    "half a header": lambda whole: whole[:40],
    "half of the networks": lambda whole: whole[: len(whole) // 2],
    "all but the last byte": lambda whole: whole[:-1],
    "something else": lambda whole: b"\x89PNG\r\n" + whole,
    "another header": lambda whole: b"[1, 2]" + whole[whole.index(b"\n") :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(trained, folder, damage):
    path = folder / damage
    path.write_bytes(DAMAGES[damage]((folder / "trained").read_bytes()))
    with pytest.raises(EquilibriumError, match="cannot be read .* delete it"):
        solve_generative(market(), HORIZON, STEPS, key=KEY, training=TINY, checkpoint=path)


# Families of markets


@pytest.fixture(scope="module")
def family():
    low = market(0.01, (1.0, 2.0, 3.0), (3.0, -3.0, 1.0), supply=0.0)
    return Family.between(low, market(0.04, (2.0, 3.0, 3.0), (-1.0, -4.0, 1.0), supply=3.0))


@settings(max_examples=25, deadline=None)
@given(place=st.tuples(*[st.floats(-1, 1)] * 4).map(np.array))
def test_places_and_markets_are_inverses(family, place):
    there = family.at(jnp.array(place))
    assert_allclose(family.place(there), place, atol=PLACES)
    assert bool(family.contains(there))
    again = family.at(family.place(there))
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(there), strict=True):
        assert_allclose(one, other, rtol=PLACES, atol=PLACES)


def test_fields_move_geometrically_where_they_keep_their_sign(family):
    assert family.varying == ("risk_aversion", "endowment", "trading_cost", "supply")
    for place, wanted in ((-jnp.ones(4), family.low), (jnp.ones(4), family.high)):
        for one, other in zip(jax.tree.leaves(family.at(place)), jax.tree.leaves(wanted), strict=True):
            assert_allclose(one, other, atol=PLACES)
    middle = family.at(jnp.zeros(4))
    assert_allclose(middle.trading_cost, 0.02, rtol=PLACES)
    assert_allclose(middle.risk_aversion, np.sqrt([2.0, 6.0, 9.0]), rtol=PLACES)
    assert_allclose(middle.endowment, [1.0, -3.5, 1.0], rtol=PLACES)
    assert_allclose(middle.supply, 1.5, rtol=PLACES)


OUTSIDE = {
    "beyond an end": {"trading_cost": 0.041},
    "off the segment": {"risk_aversion": jnp.array([1.5, 2.0, 3.0])},
    "a field that is fixed": {"payoff_drift": 2.1},
    "another sign": {"trading_cost": -0.02},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_markets_outside_the_family_are_told(family, name):
    fields = {field: jnp.asarray(value) for field, value in OUTSIDE[name].items()}
    other = eqx.tree_at(lambda tree: [getattr(tree, field) for field in fields], family.low, list(fields.values()))
    assert bool(family.contains(family.low))
    assert not bool(family.contains(other))


# Surrogates

COSTS = jnp.array([0.011, 0.015, 0.02, 0.028, 0.038])  # in the family, and none of its ends


def with_slopes(of_market):
    """Figures (costs, 3) at given costs, and their derivatives in the cost, of a function of a market."""
    return jax.jit(jax.vmap(lambda cost: (of_market(market(cost)), jax.jacrev(lambda c: of_market(market(c)))(cost))))


of_recursion = with_slopes(exact)


@pytest.fixture(scope="module")
def surrogate():
    return train_surrogate(market(0.01), market(0.04), HORIZON, STEPS, key=KEY, training=SMALL)


@pytest.fixture(scope="module")
def of_surrogate(surrogate):
    return with_slopes(lambda case: figures(surrogate(case)))


@pytest.mark.slow
def test_a_surrogate_and_its_derivatives_are_close_to_the_recursion_at_costs_it_was_not_given(of_surrogate):
    found, slopes = of_surrogate(COSTS)
    wanted, wanted_slopes = of_recursion(COSTS)
    assert_allclose(found, wanted, rtol=FITTED)
    assert_allclose(slopes, wanted_slopes, rtol=SLOPED)
    # One figure, or one slope, for all costs would be seen.
    assert np.all(np.ptp(wanted, axis=0) > 10 * FITTED * wanted[0])
    assert np.all(np.ptp(wanted_slopes, axis=0) > 2 * SLOPED * np.abs(wanted_slopes[-1]))


@pytest.mark.slow
def test_held_out_errors_are_of_the_size_of_the_true_ones(surrogate, of_surrogate):
    with pytest.raises(EquilibriumError, match="markets is -1"):
        surrogate.held_out(KEY, -1)
    errors, gaps, markets = surrogate.held_out(jax.random.key(3), 5)
    costs = markets.trading_cost
    assert errors.shape == gaps.shape == costs.shape == (5,)
    assert np.all((costs > 0.01) & (costs < 0.04))
    assert np.ptp(np.log(costs)) > 0.1
    (wanted, _), (found, _) = of_recursion(costs), of_surrogate(costs)
    scale = jnp.stack([wanted[:, 1] * HORIZON, wanted[:, 1], wanted[:, 2]], axis=1)
    true = np.max(np.abs(found - wanted) / scale, axis=1)
    assert np.max(true) / COVERED < np.max(errors) < COVERED * np.max(true)


@pytest.mark.slow
def test_markets_that_a_surrogate_was_not_trained_for(surrogate):
    compiled = eqx.filter_jit(surrogate)
    for cost, status in ((0.02, Status.solved), (0.05, Status.outside_family)):
        assert bool(compiled(market(jnp.array(cost))).status == status)
    for other in (market(0.02, power=1.5), market(0.02, (1.0, 2.0, 3.0), (1.0, 1.0, -2.0))):
        with pytest.raises(EquilibriumError, match="the networks were trained for"):
            surrogate(other)


@pytest.mark.slow
def test_a_surrogate_inside_a_numpyro_program(surrogate):
    def program(observed):
        cost = numpyro.sample("cost", dist.Uniform(0.01, 0.04))
        numpyro.sample("volatility", dist.Normal(surrogate(market(cost)).volatility0, 0.005), obs=observed)

    sampler = MCMC(NUTS(program), num_warmup=100, num_samples=100, progress_bar=False)
    sampler.run(jax.random.key(4), exact(market(0.02))[2])
    cost = sampler.get_samples()["cost"]
    # An uncertainty of .005 in the volatility is one of .0012 in the cost, a seventh of what was known before.
    assert abs(cost.mean() - 0.02) < 0.0012
    assert 0.0006 < cost.std() < 0.0024


# Bad input

BAD = {
    "no iterations": ({"iterations": 0}, "iterations is 0: give a whole number"),
    "paths": ({"paths": 2.5}, "paths is 2.5"),
    "width": ({"width": -1}, "width is -1"),
    "depth": ({"depth": True}, "depth is True"),
    "chunk": ({"chunk": "50"}, "chunk is '50'"),
    "learning rate": ({"learning_rate": -0.1}, "learning_rate is -0.1: give a positive number"),
    "no number": ({"learning_rate": np.nan}, "learning_rate is nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_trainings_end_in_one_sentence(name):
    given, message = BAD[name]
    with pytest.raises(EquilibriumError, match=message):
        Training(**given)


ASSETS = TradingCosts(jnp.ones(2), jnp.zeros((2, 2, 2)), jnp.eye(2), payoff_volatility=jnp.eye(2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0.0}, "horizon is 0.0"),
        ({"horizon": np.nan}, "horizon is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"low": ASSETS, "high": ASSETS}, "give one asset"),
        ({"high": market(power=1.5)}, "powers are 2.0 and 1.5"),
        ({"high": market(aversion=(1.0, 2.0, 3.0), risk=(1.0, 1.0, -2.0))}, "as many agents"),
    ],
)
def test_bad_arguments_of_a_training(given, message):
    arguments = {"low": market(), "high": market(), "horizon": HORIZON, "steps": STEPS, "key": KEY, **given}
    with pytest.raises(EquilibriumError, match=message):
        train_surrogate(**arguments)


def test_a_market_that_a_transformation_hides_is_refused():
    with pytest.raises(EquilibriumError, match="train outside it"):
        jax.grad(lambda cost: solve_generative(market(cost), HORIZON, STEPS, key=KEY).price0)(0.01)


def test_a_checkpoint_that_cannot_be_written_is_told_before_training(tmp_path):
    options = {"key": KEY, "training": TINY, "checkpoint": tmp_path / "no folder" / "file"}
    with pytest.raises(EquilibriumError, match="cannot be written"):
        train_surrogate(market(), market(), HORIZON, STEPS, **options, progress=pytest.fail)


# Trainings of full size, a few minutes each

PUBLISHED_TEN = market(
    aversion=tuple(np.linspace(1.0, 1.9, 10)),
    risk=(28.9, 14.9, 11.8, -14.0, -19.1, -27.0, 22.2, 31.5, -26.3, -22.9),
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_agents(seed):
    training = Training(iterations=2000)
    found = solve_generative(PUBLISHED_TEN, 0.2, 32, key=jax.random.key(seed), training=training)
    errors = np.abs(figures(found) / exact(PUBLISHED_TEN, 0.2, 32) - 1)
    assert np.all(errors < [0.003, 0.01, 0.01])
    assert np.max(errors[1:]) < COVERED * found.error


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_power_three_halves(seed):
    case = market(power=1.5)
    found = solve_generative(case, HORIZON, 32, key=jax.random.key(seed), training=Training(iterations=5000))
    errors = np.abs(figures(found) / exact(case, HORIZON, 32, lattice) - 1)
    assert np.all(errors < 0.01)
    assert np.max(errors[1:]) < COVERED * found.error
