"""The law of bids against quadrature of the textbook formulas (`oracles.bids`), with and without a binding reserve."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from oracles.bids import joint_log_density, log_bid
from oracles.compiling import lightly

from walras.calibrate.auctions import bid_table, reserve_table
from walras.calibrate.auctions.law import BidLaw, Ordered
from walras.calibrate.auctions.market import values_of
from walras.calibrate.auctions.values import FAMILIES, quantile_function
from walras.calibrate.law import Law
from walras.model import FirstPriceAuction

SPREAD, AUCTIONS = 0.4, 0.35  # of log values in an auction, and of auctions
# Of log densities: cubics between 97 knots and in 160 cells.
TABLE = 5e-5
# The same over two dimensions, 72 scales by 96 cells.
TABLE_OF_SCALES = 5e-4
# Of an auction's log density: a rule with 32 nodes, or 20.
LIKELIHOOD = 2e-4
CHANCE = 1e-5


def ordered(sizes, rows=None):
    """Auctions with so many bidders, of which the highest `rows` bids are observed."""
    sizes, rows = np.asarray(sizes), np.asarray(sizes if rows is None else rows)
    auction = np.repeat(np.arange(sizes.size), rows)
    first = np.cumsum(rows) - rows
    rank = np.arange(auction.size) - first[auction] + 1
    kind = np.unique(sizes, return_inverse=True)[1]
    parts = (first, np.flatnonzero(rank > 1), auction, rank, kind, sizes.astype(float))
    return Ordered(*map(jnp.asarray, parts))


def table_of(params, numbers, risk=1.0):
    numbers, risk, values = jnp.asarray(numbers, float), jnp.asarray(risk, float), values_of(params)

    def bids(n, levels):
        return FirstPriceAuction(quantile_function(values), n, risk).solve(throw=False).bid_at(levels)

    return bid_table.tabulate(values, jax.vmap(bids)(numbers, bid_table.quantiles(numbers)), numbers, risk)


@functools.cache
def tabulated(reserve, numbers, spread=SPREAD, risk=1.0):
    """Of numbers of bidders padded to four, so that one compiled program makes all tables."""
    numbers = jnp.asarray((*numbers, *numbers[-1:] * 4)[:4], float)
    return (_above_reserve if reserve else _whole)(jnp.asarray(spread), numbers, jnp.asarray(risk))


@jax.jit
def _above_reserve(spread, numbers, risk):
    return reserve_table.tabulate(values_of({"value_spread": spread}), numbers, risk, jnp.asarray(-3.0), jnp.asarray(4.0))


@jax.jit
def _whole(spread, numbers, risk):
    return table_of({"value_spread": spread}, numbers, risk)


def law_of(sizes, rows=None, spread=SPREAD, auctions=AUCTIONS, location=0.0, reserve=False, risk=1.0):
    of = ordered(sizes, rows)
    table = tabulated(reserve, tuple(np.unique(sizes).tolist()), spread, risk)
    return BidLaw(table, jnp.full(len(sizes), location), jnp.asarray(auctions), jnp.zeros(of.rank.size), of)


# Compiled, since one operation after the other takes far longer.
log_prob, one_step_ahead, leave_one_out, sample = (
    jax.jit(getattr(BidLaw, name)) for name in ("log_prob", "one_step_ahead", "leave_one_out", "sample")
)
density_of, below, quantile = (
    jax.jit(lambda table, *places, name=name: getattr(table, name)(*places))
    for name in ("log_density", "log_probability", "quantile")
)
log_density_ahead, probability_ahead = (
    jax.jit(lambda law, value, name=name: getattr(law, name)(value)) for name in ("log_prob", "cdf")
)


@pytest.mark.parametrize(("bidders", "risk"), [(2, 1.0), (3, 0.5), (6, 1.0)])
def test_table_of_bids(bidders, risk):
    table = tabulated(False, (bidders,), SPREAD, risk)
    levels = np.array([0.001, 0.1, 0.5, 0.9, 0.99])
    bids, values = log_bid(levels, bidders, SPREAD, risk)
    expected = np.log(levels) - np.log((bidders - 1) / risk) - np.log(np.expm1(values - bids))
    kind, scale = jnp.zeros(levels.size, int), jnp.zeros((levels.size, 1))
    assert_allclose(density_of(table, kind, bids, scale)[:, 0], expected, atol=TABLE)
    assert_allclose(below(table, kind, bids, scale)[:, 0], np.log(levels), atol=TABLE)
    assert_allclose(quantile(table, kind, levels, scale[:, 0]), bids, atol=TABLE)


@pytest.mark.parametrize("bidders", [2, 5])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.37, 1.6])
def test_table_above_a_reserve(bidders, scale):
    """From where the reserve cuts most values off to where it hardly cuts any."""
    table = law_of([2, 5], reserve=True).table
    levels = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    bids, values = log_bid(levels, bidders, SPREAD, 1.0, scale, True)
    expected = np.log(levels) - np.log(bidders - 1) - np.log(np.expm1(values - bids))
    kind, scales = jnp.full(levels.size, [2, 5].index(bidders)), jnp.full((levels.size, 1), scale)
    assert_allclose(density_of(table, kind, bids, scales)[:, 0], expected, atol=TABLE_OF_SCALES)
    assert_allclose(jnp.exp(below(table, kind, bids, scales)[:, 0]), levels, atol=TABLE_OF_SCALES)
    assert_allclose(quantile(table, kind, levels, scales[:, 0]), bids, atol=TABLE_OF_SCALES)


def test_a_reserve_that_cuts_nobody_off_changes_nothing():
    """Far below all values it must give the law without one."""
    levels = np.array([0.1, 0.5, 0.95])
    kind, scales = jnp.zeros(3, int), jnp.full(3, 3.5)
    without = quantile(law_of([3], spread=0.3).table, kind, levels, scales)
    above = quantile(law_of([3], spread=0.3, reserve=True).table, kind, levels, scales)
    assert_allclose(above, without, atol=TABLE_OF_SCALES)


BIDS = {2: (0.3, 0.1), 3: (0.5, 0.45, -0.3), 5: (0.4, 0.1, 0.0, -0.2, -0.25)}


@pytest.mark.parametrize("bidders", BIDS)
def test_density_of_all_bids_of_some_and_of_the_highest(bidders):
    """All of an auction, its highest two, and its highest alone; of an auction partly missing as of one not recorded."""
    bids = np.array(BIDS[bidders])
    for seen in sorted({bidders, 2, 1}):
        expected = joint_log_density(bids[:seen], bidders, SPREAD, 0.1, AUCTIONS)
        recorded = log_prob(law_of([bidders], [seen], location=0.1), jnp.asarray(bids[:seen, None]))
        missing = jnp.where(jnp.arange(bidders) < seen, jnp.asarray(bids), jnp.nan)[:, None]
        assert_allclose([recorded, log_prob(law_of([bidders], location=0.1), missing)], expected, atol=LIKELIHOOD)


def test_auctions_add_up_and_missing_ones_say_nothing():
    sizes, bids = [2, 5, 3], np.concatenate([BIDS[n] for n in (2, 5, 3)])[:, None]
    law = law_of(sizes)
    single = [float(log_prob(law_of([n]), jnp.asarray(BIDS[n])[:, None])) for n in sizes]
    assert_allclose(log_prob(law, jnp.asarray(bids)), np.sum(single), atol=1e-9)
    without = np.where(np.repeat(np.arange(3), sizes)[:, None] == 1, np.nan, bids)
    assert_allclose(log_prob(law, jnp.asarray(without)), single[0] + single[2], atol=1e-9)


def direct(table, kind, bids, location, auctions):
    """The density above a reserve by a sum over a very fine grid of scales; too low for the highest bid, they count nothing."""
    scales = np.linspace(-2.5, 3.0, 20001)
    kinds = jnp.full(len(bids), kind)
    logs = np.asarray(density_of(table, kinds, jnp.asarray(bids), jnp.broadcast_to(scales, (len(bids), scales.size))))
    possible = log_bid(1.0 - 1e-9, len(bids), SPREAD, 1.0, scales, True)[0] >= bids[0]
    value = np.exp(scipy.stats.norm.logpdf(scales, location, auctions) + logs.sum(0)) * possible
    return np.log(np.trapezoid(value, scales)) + scipy.special.gammaln(len(bids) + 1)


@pytest.mark.parametrize("bids", [(0.3, 0.1), (0.02, 0.01), (0.0, 0.0), (0.9, 0.3), (0.7, 0.6, 0.45, 0.2, 0.0)])
def test_density_above_a_reserve(bids):
    """Also of bids at the reserve itself, of which the data have one in a hundred."""
    law = law_of([len(bids)], location=0.1, reserve=True)
    both = law_of([2, 5], reserve=True).table
    expected = direct(both, [2, 5].index(len(bids)), bids, 0.1, AUCTIONS)
    assert_allclose(log_prob(law, jnp.asarray(bids)[:, None]), expected, atol=5 * LIKELIHOOD)


@pytest.mark.parametrize("reserve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_step_ahead_densities_are_the_joint_density(reserve):
    sizes = [2, 5, 2, 3]
    law = law_of(sizes, reserve=reserve)
    bids = sample(law, jax.random.key(3))
    ahead = one_step_ahead(law, bids)
    assert_allclose(log_density_ahead(ahead, bids[:, 0]).sum(), log_prob(law, bids), rtol=1e-10)
    h = 1e-4
    slope = (probability_ahead(ahead, bids[:, 0]) - probability_ahead(ahead, bids[:, 0] - 2 * h)) / (2 * h)
    others = np.asarray(law.ordered.others)
    density = np.exp(log_density_ahead(ahead, bids[:, 0] - h))
    # The distribution function of the highest is another rule, over quantiles of the auction's scale.
    assert_allclose(slope[others], density[others], rtol=1e-3)
    assert_allclose(slope, density, rtol=0.1)


@pytest.mark.parametrize("bidders", BIDS)
def test_leaving_one_out(bidders):
    """Of named bidders: the joint density over that of the others."""
    bids = np.array(BIDS[bidders])
    found = leave_one_out(law_of([bidders]), jnp.asarray(bids)[:, None])
    whole = joint_log_density(bids, bidders, SPREAD, 0.0, AUCTIONS, named=True)
    for place in range(bidders):
        rest = joint_log_density(np.delete(bids, place), bidders, SPREAD, 0.0, AUCTIONS, named=True)
        assert_allclose(found[place], whole - rest, atol=LIKELIHOOD)


@pytest.mark.statistical
@pytest.mark.parametrize("reserve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_simulated_bids_follow_the_law(reserve):
    """Where simulated bids fall in their laws given the higher ones: uniform, a p-value above 1e-5 each; not so if the
    auctions' scales are taken to be half as spread."""
    sizes = np.repeat([2, 3, 5], 300)
    law = law_of(sizes, reserve=reserve, location=0.2)
    bids = sample(law, jax.random.key(1))
    rows = np.asarray(law.ordered.rank)
    for one, fits in ((law, True), (law_of(sizes, reserve=reserve, location=0.2, auctions=0.5 * AUCTIONS), False)):
        probability = np.asarray(probability_ahead(one_step_ahead(one, bids), bids[:, 0]))
        p = [scipy.stats.kstest(probability[rows == rank], "uniform").pvalue for rank in (1, 2)]
        assert (min(p) > CHANCE) == fits, p


@pytest.mark.statistical
@pytest.mark.parametrize("reserve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_next_bids_are_drawn_from_their_law(reserve):
    law = law_of([3, 3], reserve=reserve)
    bids = sample(law, jax.random.key(5))
    ahead = one_step_ahead(law, bids)
    drawn = jax.jit(jax.vmap(ahead.sample))(jax.random.split(jax.random.key(2), 3000))
    probability = np.asarray(jax.jit(jax.vmap(ahead.cdf))(drawn))
    for row in range(6):
        assert scipy.stats.kstest(probability[:, row], "uniform").pvalue > CHANCE


@pytest.mark.parametrize("reserve", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_equal_differences(reserve):
    sizes = [2, 3, 5, 2, 2]
    bids = sample(law_of(sizes, reserve=reserve), jax.random.key(0))
    of = ordered(sizes)
    numbers = jnp.array([2.0, 3.0, 5.0])

    @jax.jit
    def log_density(theta):
        values = values_of({"value_spread": theta[0]})
        if reserve:
            table = reserve_table.tabulate(values, numbers, theta[3], -2.5, 3.5)
        else:
            table = table_of({"value_spread": theta[0]}, numbers, theta[3])
        return BidLaw(table, jnp.full(5, theta[2]), theta[1], jnp.zeros(of.rank.size), of).log_prob(bids)

    theta, h = jnp.array([0.43, 0.3, 0.05, 0.8]), 1e-5
    steps = h * jnp.eye(4)
    differences = [(log_density(theta + step) - log_density(theta - step)) / (2 * h) for step in steps]
    assert_allclose(jax.jit(jax.grad(log_density))(theta), differences, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_increase_from_a_median_of_one(name):
    params = {
        "lognormal": {"value_spread": 0.4},
        "weibull": {"value_shape": 2.0},
        "spline": {"value_slopes": jnp.array([0.2, 0.5, 0.3, 0.4, 0.1, 0.6])},
    }[name]
    scores = jnp.linspace(-6.0, 6.0, 101)
    values = jax.vmap(FAMILIES[name].of(params))(scores)
    assert values_of(params).keywords == FAMILIES[name].of(params).keywords
    assert np.all(np.diff(values) > 0)
    assert_allclose(values[50], 0.0, atol=1e-12)


def test_weibull_is_that_of_scipy():
    levels = np.array([0.01, 0.3, 0.5, 0.99])
    found = quantile_function(values_of({"value_shape": 1.7}))(levels)
    expected = scipy.stats.weibull_min(1.7).ppf(levels)
    assert_allclose(found, expected / scipy.stats.weibull_min(1.7).median(), rtol=1e-10)


def test_generic_leaving_one_out_of_auctions_of_one_observed_bid():
    law = law_of([3, 2], [1, 1])
    bids = jnp.array([[0.2], [-0.1]])
    assert_allclose(leave_one_out(law, bids), lightly(Law.leave_one_out)(law, bids), atol=1e-9)
