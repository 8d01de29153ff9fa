"""The stationary market with trading costs from its moments, and the law of its returns and volume."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from oracles.compiling import lightly
from scipy.integrate import quad
from volume_oracle import (
    CHANCE,
    EXACT,
    INVERSE,
    LAWS,
    QUADRATURE,
    STANDARD_ERRORS,
    VALUES,
    deviations,
    gappy,
    law_of,
    log_density,
    log_traded,
    simulated,
    values,
)

from walras.calibrate.law import Law, log_densities
from walras.calibrate.trading_costs.market import trading_costs
from walras.model import Status, TradingCosts


@partial(jax.jit, static_argnames="leading_order")
def there_and_back(moments, asymmetry, leading_order):
    market = TradingCosts.matching(**moments, asymmetry=asymmetry, leading_order=leading_order)
    found = market.stationary(leading_order=leading_order, throw=False)
    low, high = market.risk_aversion
    back = {
        "volatility": found.volatility,
        "drift": found.drift[0],
        "turnover": found.turnover,
        "reversion": found.reversion,
        "supply": market.supply,
    }
    return back, (high - low) / (high + low), market.payoff_volatility


def scales(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda digits: 10.0**digits)


@pytest.mark.parametrize("leading_order", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    volatility=scales(1e-3, 1e2),
    sharpe=scales(1e-3, 1.0),
    turnover=scales(1e-4, 1.0),
    reversion=scales(1e-2, 1e2),
    supply=scales(1e-2, 1e12),
    asymmetry=st.floats(-0.95, 0.95),
)
def test_matching_is_the_inverse_of_stationary(leading_order, volatility, sharpe, turnover, reversion, supply, asymmetry):
    """Else the parameters that are sampled are not the moments that they are called."""
    moments = {
        "volatility": volatility,
        "drift": sharpe * volatility,
        "turnover": turnover * supply,
        "reversion": reversion,
        "supply": supply,
    }
    back, found, payoff_volatility = there_and_back(moments, asymmetry, leading_order)
    assume(payoff_volatility > 0.01 * volatility)  # what is left of a difference loses two digits
    for name, value in moments.items():
        assert_allclose(back[name], value, rtol=INVERSE, err_msg=name)
    assert_allclose(found, asymmetry, atol=INVERSE)


def test_matching_gives_the_published_calibration():
    """US equities, daily: what is published is rounded, and errors of the reversion enter the trading cost twice."""
    supply, volatility, aggregate = 245_714_618_646.0, 1.8788381, 8.30864e-14
    market = TradingCosts.matching(
        volatility=volatility,
        drift=aggregate * supply * volatility**2,
        turnover=0.007481 * supply,
        reversion=0.07813,
        supply=supply,
        leading_order=True,
    )
    assert_allclose(market.aggregate, aggregate, rtol=EXACT)
    assert_allclose(market.risk_aversion[1], 2.0 * market.risk_aversion[0], rtol=EXACT)
    assert_allclose(market.payoff_volatility, volatility, rtol=EXACT)
    assert_allclose(market.trading_cost, 1.08102e-10, rtol=2 * 0.000005 / 0.07813)
    assert_allclose(market.endowment, [2.19e10, -2.19e10], rtol=0.005 / 2.19)


@pytest.mark.parametrize(("asymmetry", "status"), [(0.4, Status.solved), (0.93, Status.volatility_not_positive)])
def test_moments_of_no_market_are_not_solved(asymmetry, status):
    """The payoff of the second would need a volatility below zero: returns would not reveal what agents trade."""
    moments = {"volatility": 0.0117, "drift": 0.0005, "turnover": 0.0069, "reversion": 0.0147, "asymmetry": asymmetry}
    found = jax.jit(lambda params: trading_costs(params, {}))(moments)
    assert found.status == status
    assert (found.market.payoff_volatility > 0) == (status == Status.solved)


@pytest.fixture(scope="module")
def said():
    """What the law says of a table, compiled once."""

    def all_of(law, table):
        ahead = law.one_step_ahead(table)
        return {
            "log_prob": law.log_prob(table),
            "deviations": law.deviations(table[:, 1]),
            "one_step": (ahead.mean, jnp.sqrt(ahead.variance), log_densities(ahead, table[:, 0]), ahead.cdf(table[:, 0])),
            "leave_one_out": law.leave_one_out(table),
            "two_densities": Law.leave_one_out(law, table),
        }

    compiled = jax.jit(all_of)
    return lambda v, table: compiled(law_of(v, len(table)), jnp.asarray(table))


@pytest.mark.parametrize("name", LAWS)
def test_density_and_deviations_are_those_of_the_loop(name, said):
    """A wrong density means that every posterior is wrong."""
    v = values(name)
    table = gappy(v)
    found = said(v, table)
    assert_allclose(found["log_prob"], log_density(table, v), rtol=EXACT)
    assert_allclose(found["deviations"], deviations(table[:, 1], v), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", LAWS)
def test_leaving_one_out_equals_two_densities(name, said):
    v = values(name)
    table = gappy(v)
    found = said(v, table)
    assert_allclose(found["leave_one_out"], found["two_densities"], atol=EXACT * abs(found["log_prob"]))
    assert_allclose(np.isnan(found["leave_one_out"]), np.isnan(table[:, 0]))


def over_the_shock(before, volume, v):
    """Mean, standard deviation, and log density and distribution function at `volume` of the log volume after `before`."""
    kept, fresh = np.exp(-v["reversion"]), np.sqrt(1 - np.exp(-2 * v["reversion"]))
    size = (np.exp(volume - v["level"]) - 1 + v["share"]) / (v["share"] * np.sqrt(np.pi / 2))
    turns = (np.array([0.0, size, -size]) - kept * before) / fresh  # the kink, and where volume needs no error
    ends = np.unique(np.clip([-8.0, *turns, 8.0], -8.0, 8.0))

    def average(function):
        def weighted(shock):
            return function(log_traded(kept * before + fresh * shock, v)) * scipy.stats.norm.pdf(shock)

        small = 1e-10 * np.max(np.abs(weighted(np.linspace(-8.0, 8.0, 2001))))
        return sum(quad(weighted, low, high, epsabs=small, epsrel=0.0, limit=200)[0] for low, high in itertools.pairwise(ends))

    mean = average(lambda log: log)
    variance = v["noise"] ** 2 + average(lambda log: (log - mean) ** 2)
    density, below = (
        average(lambda log, f=f: f(volume, log, v["noise"])) for f in (scipy.stats.norm.pdf, scipy.stats.norm.cdf)
    )
    return mean, np.sqrt(variance), np.log(density), below


@pytest.mark.parametrize(
    "change",
    [{}, {"reversion": 0.02, "noise": 0.6}, {"reversion": 2.0, "noise": 0.05}, {"share": 0.9, "noise": 0.1}, {"share": 0.02}],
)
def test_one_step_ahead_averages_over_the_shock(change, said):
    """Volume has a kink in the shock; a rule that overlooks it misjudges scores by more than models differ."""
    v = {**VALUES, **change}
    table = gappy(v)
    table[9, 0] += 6.0 * v["noise"]  # a surprise
    mean, scale, density, probability = said(v, table)["one_step"]
    x = deviations(table[:, 1], v)
    for row in (1, 5, 9, 11, 25, 39):
        missing = np.isnan(table[row, 0])
        expected = over_the_shock(x[row - 1], 0.0 if missing else table[row, 0], v)
        assert_allclose([mean[row], scale[row]], expected[:2], rtol=QUADRATURE, atol=QUADRATURE)
        at_value = np.full(2, np.nan) if missing else expected[2:]
        assert_allclose([density[row], probability[row]], at_value, atol=QUADRATURE)
    # The first row's deviation is known; it has a volume only where the trend does not need the rows before.
    whole = simulated(len(table), v)
    mean, scale, density, probability = said(v, whole)["one_step"]
    assert_allclose([mean[0], scale[0]], [log_traded(v["first"], v), v["noise"]], rtol=EXACT)
    assert_allclose(density[0], scipy.stats.norm.logpdf(whole[0, 0], mean[0], scale[0]), rtol=EXACT)
    assert_allclose(probability[0], scipy.stats.norm.cdf(whole[0, 0], mean[0], scale[0]), rtol=EXACT)


@pytest.mark.statistical
def test_where_volumes_fall_in_their_laws_is_uniform(said):
    """A p-value above 1e-5 (CHANCE) of the law's own probabilities; normal laws of its moments must fail.

    The more of volume is hedging, the farther log volume is from normal: its law has a long lower tail.
    """
    v = {**VALUES, "share": 0.95, "noise": 0.1}
    table = simulated(1500, v)
    mean, scale, _, probability = said(v, table)["one_step"]
    assert scipy.stats.kstest(probability, "uniform").pvalue > CHANCE
    assert scipy.stats.kstest((table[:, 0] - mean) / scale, "norm").pvalue < CHANCE


@pytest.mark.statistical
def test_simulated_rows_follow_their_laws():
    """What is drawn one step ahead, by the law's own distribution function: a p-value above 1e-5 in three rows (3e-5)."""
    v = {**VALUES, "share": 0.9}
    ahead = law_of(v, 4).one_step_ahead(jnp.asarray(simulated(4, v)))
    drawn = lightly(jax.vmap(ahead.sample))(jax.random.split(jax.random.key(0), 4000))
    probability = lightly(jax.vmap(ahead.cdf))(drawn)
    for row in (0, 1, 3):
        assert scipy.stats.kstest(np.asarray(probability[:, row]), "uniform").pvalue > CHANCE


def test_one_step_ahead_is_the_joint_density_less_the_return(said):
    """p(volume | past) is the joint density of a row's volume and return, integrated over the return.

    So one-step-ahead densities of volume and densities of returns do not sum to the log density: that knows each row's
    return before its volume.
    """
    table = simulated(40, VALUES)
    before, kept, sd = deviations(table[:, 1], VALUES)[-2], np.exp(-VALUES["reversion"]), VALUES["volatility"]
    expected = VALUES["drift"] - VALUES["feedback"] * before
    kink = expected - sd * kept * before / np.sqrt(1 - kept**2)
    ends = np.array([expected - 9 * sd, kink, expected + 9 * sd])
    assert np.all(np.diff(ends) > 0)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    middle, width = 0.5 * (ends[1:] + ends[:-1])[:, None], 0.5 * np.diff(ends)[:, None]
    returns, weights = (middle + width * nodes).ravel(), (width * weights).ravel()

    @jax.jit
    @jax.vmap
    def joint(returned):
        return law_of(VALUES, 40).log_prob(jnp.asarray(table).at[-1, 1].set(returned))

    past = table.copy()
    past[-1] = np.nan
    integrated = np.sum(weights * np.exp(joint(returns) - said(VALUES, past)["log_prob"]))
    assert_allclose(np.log(integrated), said(VALUES, table)["one_step"][2][-1], atol=QUADRATURE)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"first": 0.0},
        {"first": 1e-300},
        {"first": 0.0, "share": 1.0},
        {"share": 0.0},
        {"reversion": 1e-6},
        {"reversion": 40.0},
        {"feedback": 0.0},
    ],
)
def test_gradients_are_finite(change):
    """A chain cannot leave a place without a gradient, and the median of the first deviation, where chains start, is 0."""
    gradient = gradient_of({**VALUES, **change}, gappy(VALUES))
    assert all(np.isfinite(value) for value in gradient.values()), gradient


@jax.jit
def gradient_of(v, table):
    return jax.grad(lambda v: law_of(v, len(table)).log_prob(table))(v)


def test_gradient_equals_finite_differences():
    """Central differences of a density of size 200 known to 1e-13, with relative steps of 1e-5: eight digits."""
    table = gappy(VALUES)
    gradient = gradient_of(VALUES, table)
    for name, value in VALUES.items():
        up, down = (log_density(table, {**VALUES, name: value * (1 + e)}) for e in (1e-5, -1e-5))
        assert_allclose(gradient[name], (up - down) / (2e-5 * value), rtol=1e-6, atol=1e-6 / value, err_msg=name)


def standard_errors(samples, expected):
    return np.abs(samples.mean(0) - expected) / (samples.std(0) / np.sqrt(len(samples)))


def errors_of_moments(tables, firsts, v):
    """Standard errors by which moments of simulated tables (draws, rows, 2) are off, given x in the first rows (draws,)."""
    size = np.abs(deviations(tables[..., 1], {**v, "first": firsts}))
    errors = {}
    for apart in (1, 5):
        kept = np.exp(-apart * v["reversion"])
        expected = 2 / np.pi * (np.sqrt(1 - kept**2) + kept * np.arcsin(kept))
        errors[f"|x|, {apart} apart"] = standard_errors((size[:, apart:] * size[:, :-apart]).mean(1), expected)
    errors["relative volume"] = standard_errors(np.exp(tables[..., 0]).mean(1), np.exp(v["level"] + v["noise"] ** 2 / 2))
    of_returns = ((tables[:, 1:, 1] - v["drift"]) ** 2).mean(1)
    errors["return"] = standard_errors(of_returns, v["volatility"] ** 2 + v["feedback"] ** 2)
    return errors


@pytest.mark.statistical
def test_simulated_tables_have_the_moments_of_the_law():
    """Two autocorrelations of |x|, mean volume and the variance of returns, each within 4.5 standard errors: 3e-5 of keys.

    A reversion that is a third larger must be seen.
    """
    v = {**VALUES, "feedback": 0.004}
    firsts = np.random.default_rng(2).normal(size=4000)

    @jax.jit
    def tables(reversion):
        def one(key, first):
            return law_of({**v, "reversion": reversion, "first": first}, 40).sample(key)

        return jax.vmap(one)(jax.random.split(jax.random.key(0), firsts.size), jnp.asarray(firsts))

    right = errors_of_moments(np.asarray(tables(v["reversion"])), firsts, v)
    assert max(right.values()) < STANDARD_ERRORS, right
    wrong = errors_of_moments(np.asarray(tables(4 / 3 * v["reversion"])), firsts, v)
    assert max(wrong.values()) > STANDARD_ERRORS, wrong


@pytest.mark.statistical
def test_complete_keeps_what_is_known_and_draws_the_rest(said):
    """Six means within 4.5 standard errors and three laws with p-values above 1e-5: a false alarm in 1e-4 of keys."""
    v, rows, draws = {**VALUES, "feedback": 0.004}, 40, 5000
    table = gappy(v)
    table[-2:] = np.nan
    law, keys = law_of(v, rows), jax.random.split(jax.random.key(1), draws)
    tables = np.asarray(jax.jit(jax.vmap(lambda key: law.complete(key, jnp.asarray(table))))(keys))
    known = np.isfinite(table)
    assert_allclose(tables[:, known], np.broadcast_to(table[known], (draws, known.sum())), rtol=EXACT)
    assert np.isnan(tables[:, 0, 1]).all() and np.isfinite(np.delete(tables, 0, axis=1)).all()

    (mean, scale, *_), next_row = said(v, table)["one_step"], tables[:, -2]
    x = deviations(tables[..., 1], v)
    expected = v["drift"] - v["feedback"] * x[0, -3]
    means = np.array([mean[-2], expected])
    scales = np.array([scale[-2], v["volatility"]])
    standardised = (next_row - means) / scales
    within = [*standard_errors(standardised, 0.0), *standard_errors(standardised**2, 1.0)]
    residual = (tables[..., 0] - log_traded(x, v)) / v["noise"]
    shock = (tables[:, -1, 1] - v["drift"] + v["feedback"] * x[:, -2]) / v["volatility"]
    within += [standard_errors(residual[:, -1] * shock, 0.0), standard_errors(residual[:, -1] * residual[:, -2], 0.0)]
    assert max(within) < STANDARD_ERRORS, within
    for drawn in (shock, residual[:, -1], residual[:, 11]):
        assert scipy.stats.kstest(drawn, "norm").pvalue > CHANCE
