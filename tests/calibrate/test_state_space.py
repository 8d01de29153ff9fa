"""The exact likelihood with random supply, against dense Gaussian laws of the continuous equations.

The oracle takes nothing from the code but the data: it composes dQ = ϑ(q̄ − Q)dt + s dB, dX̄ = (m Q + m_X X̄)dt,
du = −φu dt + s_u dB_u by matrix exponentials over gaps and periods, prices being averages of a period.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import linear_gaussian as oracle
from oracles.compiling import lightly
from simulated import series

from walras.calibrate import Law, Problem, StochasticPrices
from walras.calibrate.price_formation.state_space import Dynamics, stationary_covariance, transitions

# Block exponentials of norm below ten, a quadrature of 24 nodes and covariances of condition below 1e6.
EXACT = 1e-8
# Central differences with step 1e-5 of a log density of size ten known to 1e-11.
DIFFERENCES = 1e-5
# Standard errors within which a sum over draws must lie: 2e-6 of normal variables are beyond.
STANDARD_ERRORS = 4.8

VALUES = {
    "price_level": 1.3,
    "price_impact": 0.8,
    "absorption": 0.4,
    "holding_cost": 0.3,
    "depreciation": 0.35,
    "discount": 0.02,
    "price_trend": 0.05,
    "trading_cost": 0.8,
    "terminal_cost": 0.5,
    "supply_reversion": 0.9,
    "supply_sd": 1.7,
    "supply_mean": 2.2,
    "supply_reliability": 0.7,
    "price_noise": 0.6,
    "error_persistence": 0.65,
    "shock_correlation": -0.5,
    "demand_effect": [0.3],
    "supply_effect": [-0.4, 0.2],
}
TIMES = [0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 13, 16]
MISSING = [("price", 3), ("supply", 5), ("price", 7), ("supply", 7)]
FULL = {"errors": "ar1", "correlated": True, "demand": ("holiday",), "instruments": ("storm", "holiday")}
CASES = {
    "known": ("stationary", {"supply": "known"}),
    "known with everything": ("stationary", {"supply": "known", **FULL}),
    "measured with everything": ("stationary", {"supply": "measured", **FULL}),
    "latent": ("stationary", {"supply": "latent", "demand": ("holiday",)}),
    "game, measured with everything": ("random_supply", {"supply": "measured", **FULL}),
    "game, latent": ("random_supply", {"supply": "latent"}),
}


def stationary_responses(v):
    """(a_Q, a_X) of the price, and (m_Q, m_X), by the formulas of the stationary market."""
    c, d1 = v["price_impact"] / (1 - v["absorption"]), v["absorption"] / v["price_impact"]
    r, delta, theta, wedge = v["discount"], v["depreciation"], v["supply_reversion"], 1 + c * d1
    b_x = min(np.roots([d1 / wedge, -(r + 2 * delta), -v["holding_cost"]]))
    b_q = b_x / (wedge * (r + delta + theta) - d1 * b_x)
    a_q, a_x = (b_q - c) / wedge, b_x / wedge
    return a_q, a_x, 1 + d1 * a_q, d1 * a_x - delta


def game_responses(v, horizon, time):
    """(mean price, a_Q, a_X) of the finite game at `time`."""
    left, theta, gamma, eta = horizon - time, v["supply_reversion"], v["terminal_cost"], v["holding_cost"]
    a = (1 - np.exp(-theta * left)) / theta
    mean = v["price_level"] + v["price_trend"] * (left - horizon / 2)
    return mean, -(v["trading_cost"] + gamma * a + eta * (left - a) / theta), -(gamma + eta * left)


def centred(problem, columns):
    table = problem.data[list(columns)].to_numpy()
    return table - table[problem.data["price"].notna()].mean(axis=0)


def dense(problem, v):
    """Mean and covariance of (price, supply, Q, X̄, u, mean Q, mean X̄) of every row, stacked."""
    observation, times = problem.observation, problem.data.index.to_numpy(float)
    game, ar1, horizon = problem.market == "random_supply", observation.errors == "ar1", times[-1] + 1.0
    theta = v["supply_reversion"]
    a_q, a_x, m_q, m_x = (None, None, 1.0, 0.0) if game else stationary_responses(v)
    reliable = v["supply_reliability"] if observation.supply == "measured" else 1.0
    move, _, averaging = oracle.averaged_moments([[-theta]], [0.0], [[1.0]], 1.0)
    s = v["supply_sd"] * np.sqrt(reliable / (move[1, 0] ** 2 / (2 * theta) + averaging[1, 1]))
    phi = -np.log(v["error_persistence"]) if ar1 else 1.0
    s_u = v["price_noise"] * np.sqrt(2 * phi) if ar1 else 0.0
    shared = v["shock_correlation"] * s * s_u if observation.correlated else 0.0
    drift = np.array([[-theta, 0.0, 0.0], [m_q, m_x, 0.0], [0.0, 0.0, -phi]])
    diffusion = np.array([[s**2, 0.0, shared], [0.0, 0.0, 0.0], [shared, 0.0, s_u**2]])
    if game:
        start = np.array([[s**2 / (2 * theta), 0, shared / (theta + phi)], [0, 0, 0], [shared / (theta + phi), 0, 0]])
        start[2, 2] = v["price_noise"] ** 2 if ar1 else 0.0
    else:
        start = oracle.stationary_moments(drift, np.zeros(3), diffusion)[1]
    shifts = centred(problem, observation.instruments) @ v["supply_effect"] if observation.instruments else np.zeros(times.size)
    demand = centred(problem, observation.demand) @ v["demand_effect"] if observation.demand else np.zeros(times.size)
    noise = np.diag([0 if ar1 else v["price_noise"] ** 2, (1 - reliable) * v["supply_sd"] ** 2, *np.zeros(5)])
    steps, maps, offsets = [], [], []
    for row, time in enumerate(times):
        before = time - times[row - 1] - 1.0 if row else 0.0
        wait, _, waited = oracle.linear_sde_moments(drift, np.zeros(3), diffusion, before)
        over, offset, gathered = oracle.averaged_moments(drift, [0.0, m_q * shifts[row], 0.0], diffusion, 1.0)
        carried = np.hstack([over @ wait, np.zeros((6, 3))])  # the last period's averages do not matter
        steps.append((carried, offset, over @ waited @ over.T + gathered))
        price, to_q, to_x = game_responses(v, horizon, time + 0.5) if game else (v["price_level"], a_q, a_x)
        maps.append(np.zeros((7, 6)))
        maps[-1][0, [2, 3, 4]] = 1.0, to_q, to_x
        maps[-1][1, 3] = 1.0
        maps[-1][2:, :5] = np.eye(5)
        offsets.append([price + demand[row] + to_q * shifts[row], v["supply_mean"] + shifts[row], 0, 0, 0, shifts[row], 0])
    first = np.zeros((6, 6))
    first[:3, :3] = start
    carried, offset, gathered = zip(*steps, strict=True)
    first = carried[0] @ first @ carried[0].T + gathered[0]
    return oracle.dense_gaussian(carried[1:], offset[1:], gathered[1:], maps, offsets, [noise] * times.size, offset[0], first)


@cache
def case(name):
    """The problem, its parameters, and what the law says of its data."""
    market, options = CASES[name]
    problem = Problem(market, series(len(TIMES), times=TIMES, missing=MISSING), StochasticPrices(**options))
    values = {name: jnp.asarray(VALUES[name], float) for name in problem.priors}

    def said(values):
        law = law_of(problem, values)
        table = problem.observed
        return law, law.log_prob(table), law.one_step_ahead(table), law.smooth(table), law.leave_one_out(table)

    return problem, values, jax.jit(said)(values)


def law_of(problem, values):
    return problem.observation.law(problem.build(values, problem.inputs), values, problem.inputs)


def observations(problem):
    """Observed entries of the oracle's stacked vector; NaN where there is none, and for the states."""
    return np.hstack([np.asarray(problem.observed), np.full((len(problem.data), 5), np.nan)])


@pytest.mark.parametrize("name", CASES)
def test_log_density(name):
    """A wrong one means that every posterior is wrong."""
    problem, values, (_, log_prob, *_) = case(name)
    expected = oracle.dense_gaussian_logpdf(observations(problem), *dense(problem, values))
    assert_allclose(log_prob, expected, rtol=EXACT)


@pytest.mark.parametrize("name", CASES)
def test_one_step_ahead(name):
    """Each row's predictive law must be its law given all earlier rows, prices and quantities, and nothing else."""
    problem, values, (_, _, one_step, *_) = case(name)
    mean, cov = dense(problem, values)
    table = observations(problem)
    for row in range(len(table)):
        past = np.where(np.arange(len(table))[:, None] < row, table, np.nan)
        # the first row has no past: an entry of no variance stands for it
        given = oracle.dense_conditional(past, mean, cov) if row else (mean, cov)
        assert_allclose(one_step.mean[row], given[0][7 * row], rtol=EXACT)
        assert_allclose(one_step.scale[row], np.sqrt(given[1][7 * row, 7 * row]), rtol=EXACT)


@pytest.mark.parametrize("name", CASES)
def test_smoothed_path(name):
    """A wrong smoother would show the user a supply that the model does not believe in."""
    problem, values, (_, _, _, smoothed, _) = case(name)
    mean, _ = oracle.dense_conditional(observations(problem), *dense(problem, values))
    assert_allclose(smoothed, mean.reshape(-1, 7)[:, 2:], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", CASES)
def test_leaving_one_out_by_derivative_equals_two_densities(name):
    """The generic identity log p(y) − log p(y without y_t) and the shortcut must agree, or PSIS-LOO is wrong."""
    problem, _, (law, *_, leave_one_out) = case(name)
    expected = jax.jit(lambda law: Law.leave_one_out(law, problem.observed))(law)
    assert_allclose(leave_one_out, expected, rtol=EXACT)
    assert_allclose(np.isnan(leave_one_out), np.isnan(problem.observed[:, 0]))


def test_rounding_does_not_grow_with_the_rows():
    """Slow errors beside stocks that settle slowly, both seen exactly: rounding that is not symmetric would grow here.

    It once took eight off the log density of 169 weeks of avocados, and drew chains to where it did.
    """
    slow = {"price_impact": 0.036, "absorption": 0.2, "holding_cost": 0.022, "depreciation": 0.12, "supply_reversion": 0.667}
    slow |= {"supply_sd": 1.33, "price_noise": 0.47, "error_persistence": 0.987}
    problem = Problem("stationary", series(170), StochasticPrices(errors="ar1"))
    values = {name: jnp.asarray({**VALUES, **slow}[name], float) for name in problem.priors}
    expected = oracle.dense_gaussian_logpdf(observations(problem), *dense(problem, values))
    assert_allclose(jax.jit(lambda v: law_of(problem, v).log_prob(problem.observed))(values), expected, rtol=EXACT)


def test_missing_rows_say_nothing():
    """A row without a price and a quantity must add exactly nothing to the likelihood."""
    problem, _, (law, *_) = case("known with everything")
    partial = jax.jit(lambda law, table: law.log_prob(table))
    assert_allclose(partial(law, problem.observed.at[7:].set(jnp.nan)), partial(law, problem.observed.at[8:].set(jnp.nan)))


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["latent", pytest.param("game, measured with everything", marks=pytest.mark.slow)])
def test_draws_given_the_data(name):
    """Draws of what was not observed have the mean and covariance of the dense conditional law.

    Means and variances of 60 random combinations, each within 4.8 standard errors: a false alarm in 2e-4 of keys.
    """
    problem, values, (law, *_) = case(name)
    mean, cov = oracle.dense_conditional(observations(problem), *dense(problem, values))
    rows, count = len(problem.data), 8_000
    keys = jax.random.split(jax.random.key(3), count)

    def both(key):
        one, two = jax.random.split(key)
        return law.reconstruct(one, problem.observed)["supply_path"], law.complete(two, problem.observed)

    paths, tables = (np.asarray(a).reshape(count, -1) for a in jax.jit(jax.vmap(both))(keys))
    index = np.arange(rows) * 7
    entries = np.stack([index, index + 1], 1).ravel()
    supplied = mean[index + 5] + (VALUES["supply_mean"] if "supply_mean" in values else 0.0)
    same = np.isfinite(np.asarray(problem.observed)).ravel()
    assert_allclose(tables[:, same], np.broadcast_to(mean[entries][same], (count, same.sum())), rtol=EXACT)
    expect_law(paths, supplied, cov[np.ix_(index + 5, index + 5)])
    expect_law(tables[:, ~same], mean[entries][~same], cov[np.ix_(entries[~same], entries[~same])])


def expect_law(draws, mean, cov):
    """Random combinations of the draws have the given mean and variance up to sampling error."""
    weights = np.random.default_rng(5).normal(size=(mean.size, 15))
    combined, variance = (draws - mean) @ weights, np.einsum("ij,ik,kj->j", weights, cov, weights)
    assert np.max(np.abs(combined.mean(0)) / np.sqrt(variance / len(draws))) < STANDARD_ERRORS
    assert np.max(np.abs(np.mean(combined**2, 0) / variance - 1.0)) < STANDARD_ERRORS * np.sqrt(2 / len(draws))


@pytest.mark.statistical
def test_simulated_tables():
    """Tables simulated without data have the model's mean and covariance, shifts included (4.8 standard errors: 1e-4)."""
    problem, values, (law, *_) = case("measured with everything")
    mean, cov = dense(problem, values)
    tables = np.asarray(jax.jit(lambda key: law.sample(key, (20_000,)))(jax.random.key(1))).reshape(20_000, -1)
    entries = np.stack([np.arange(len(problem.data)) * 7, np.arange(len(problem.data)) * 7 + 1], 1).ravel()
    expect_law(tables, mean[entries], cov[np.ix_(entries, entries)])


@pytest.mark.parametrize(
    "name", ["measured with everything", pytest.param("game, measured with everything", marks=pytest.mark.slow)]
)
def test_gradient_equals_finite_differences(name):
    """NUTS needs the derivative in every parameter; a where() that leaks NaN or a cut branch would show here."""
    problem, values, _ = case(name)
    density = jax.jit(lambda values: law_of(problem, values).log_prob(problem.observed))
    gradient = jax.jit(jax.grad(density))(values)
    for name, value in values.items():
        for place in np.ndindex(value.shape):
            up, down = (density({**values, name: value.at[place].add(e)}) for e in (1e-5, -1e-5))
            assert_allclose(gradient[name][place], (up - down) / 2e-5, rtol=DIFFERENCES, atol=DIFFERENCES, err_msg=name)


def dynamics(reversion=0.9, settling=0.4, correlation=-0.5, error_rate=0.3):
    return Dynamics(*map(jnp.asarray, (reversion, settling, 0.7, 1.3, error_rate, 0.8, correlation)))


def matrices(d):
    drift = np.array([[-d.reversion, 0, 0], [d.inflow, -d.settling, 0], [0, 0, -d.error_rate]])
    shared = d.correlation * d.volatility * d.error_volatility
    return drift, np.array([[d.volatility**2, 0, shared], [0, 0, 0], [shared, 0, d.error_volatility**2]])


MEETING = 0.9 + 3e-6
DYNAMICS = {
    "general": dynamics(),
    "nothing settles": dynamics(settling=0.0),
    "equal rates": dynamics(settling=0.9),
    "nearly equal rates": dynamics(settling=MEETING),
    "slow": dynamics(reversion=0.01, settling=0.002, error_rate=0.005),
}
KEPT = np.array([0, 1, 2, 3, 4])  # the code has no average of u


@pytest.mark.parametrize("name", DYNAMICS)
def test_transitions_equal_the_block_exponential(name):
    times = [1e-3, 0.5, 3.0]
    maps, covariances = lightly(transitions)(DYNAMICS[name], jnp.array(times))
    for time, move, added in zip(times, maps, covariances, strict=True):
        transition, _, covariance = oracle.averaged_moments(
            matrices(DYNAMICS[name])[0], np.zeros(3), matrices(DYNAMICS[name])[1], time
        )
        assert_allclose(move, transition[KEPT], rtol=EXACT, atol=EXACT * time)
        # entries of X̄ are products of high powers of a short time: compare on the scale of each pair of entries
        scale = np.sqrt(np.outer(np.diag(covariance)[KEPT], np.diag(covariance)[KEPT]))
        assert np.max(np.abs(added - covariance[np.ix_(KEPT, KEPT)]) / scale) < 1e-6


def composed(drift, diffusion, duration, halvings):
    """The same moments from many short periods: exponentials of fast modes lose digits, their composition does not."""
    transition, _, covariance = oracle.averaged_moments(drift, np.zeros(3), diffusion, duration / 2**halvings)
    move, average = transition[:3], transition[3:]
    for _ in range(halvings):
        carry = np.block([[move, np.zeros((3, 3))], [0.5 * average, 0.5 * np.eye(3)]])
        fresh = np.diag([1.0] * 3 + [0.5] * 3)
        covariance = carry @ covariance @ carry.T + fresh @ covariance @ fresh
        move, average = move @ move, 0.5 * (average + average @ move)
    return np.vstack([move, average]), covariance


@pytest.mark.parametrize("rates", [{"reversion": 300.0}, {"settling": 300.0}, {"error_rate": 300.0}, {"reversion": 30.0}])
def test_fast_modes(rates):
    """The default prior of supply's reversion reaches 300 per period; one quadrature rule must serve it too."""
    d = dynamics(**rates)
    transition, covariance = composed(*matrices(d), 1.0, 10)
    maps, covariances = lightly(transitions)(d, jnp.ones(1))
    assert_allclose(maps[0], transition[KEPT], rtol=EXACT, atol=EXACT)
    scale = np.sqrt(np.outer(np.diag(covariance)[KEPT], np.diag(covariance)[KEPT]))
    # A thousandth of a standard deviation's variance is far below what a hundred prices can tell.
    assert np.max(np.abs(covariances[0] - covariance[np.ix_(KEPT, KEPT)]) / scale) < 1e-4


def test_stationary_covariance():
    expected = oracle.stationary_moments(matrices(dynamics())[0], np.zeros(3), matrices(dynamics())[1])[1]
    assert_allclose(stationary_covariance(dynamics()), expected, rtol=EXACT)
