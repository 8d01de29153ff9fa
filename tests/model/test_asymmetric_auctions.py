"""Asymmetric first-price auctions against closed forms, symmetric auctions, and bidders' best responses."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from oracles import auctions as oracle
from oracles.auctions import bounded

from walras.model import AsymmetricFirstPriceAuction, EquilibriumError, FirstPriceAuction, Status, verify

SPECTRAL = 1e-8  # 16 modes, upper ends up to 1 : 4
TOP_SLOPE = 1e-10  # the same for derivatives of the top bid, upper ends 1 : 2
DIFFERENCES = 1e-6  # relative, of central differences with a step of 1e-5
GAIN = 1e-6  # of the highest value
MODES = 16


def uniform(own, other, modes=MODES):
    return AsymmetricFirstPriceAuction([dist.Uniform(0.0, own), dist.Uniform(0.0, other)], [1, 1]).solve(modes)


@pytest.mark.parametrize("other", [1.0, 1.3, 2.0, 4.0])
def test_two_uniform_bidders(other):
    found = uniform(jnp.asarray(1.0), jnp.asarray(other))
    top = other / (1 + other)
    assert_allclose(found.top_bid, top, rtol=SPECTRAL)
    assert_allclose(found.top_bids, [top, top], rtol=SPECTRAL)
    bids = np.array([0.0, 0.01, 0.3, 0.7, 0.99]) * top
    for group, (a, b) in enumerate([(1.0, other), (other, 1.0)]):
        values = oracle.two_uniform_groups(a, b, bids)
        assert_allclose(found.inverse_bid(group, bids), values, rtol=SPECTRAL, atol=SPECTRAL * other)
        assert_allclose(found.bid(group, values), bids, rtol=SPECTRAL, atol=SPECTRAL * other)
    assert bool(found.status == Status.solved)
    assert np.all(np.isnan(found.inverse_bid(0, jnp.array([-0.1, top + 0.1]))))
    assert np.isnan(found.bid(0, -0.1))
    assert_allclose(found.bid(0, 2.0), top, rtol=SPECTRAL)


@pytest.mark.slow
def test_derivatives_of_the_top_bid():
    def top(ends):
        return uniform(ends[0], ends[1]).top_bid

    def exact(ends):
        return ends[0] * ends[1] / (ends[0] + ends[1])

    ends = jnp.array([1.0, 2.0])
    for mode in (jax.jacfwd, jax.jacrev):
        assert_allclose(mode(top)(ends), mode(exact)(ends), atol=TOP_SLOPE, rtol=0)
    assert_allclose(jax.hessian(top)(ends), jax.hessian(exact)(ends), atol=SPECTRAL, rtol=0)
    assert_allclose(jax.vmap(top)(jnp.array([[1.0, 2.0], [1.0, 3.0]])), [2 / 3, 3 / 4], rtol=SPECTRAL)


def solved(groups, sizes, modes=24, **options):
    return AsymmetricFirstPriceAuction(groups, sizes).solve(modes, **options)


@pytest.mark.slow
def test_derivatives_where_bids_of_a_group_end_early():
    values = jnp.array([0.2, 0.5, 0.9])

    def outputs(theta):
        groups = [bounded(1.0 + theta, 1.0, 1.0, 1.0 + 0.5 * theta), bounded(1.3, 1.0, -0.5 + theta, 1.2)]
        found = solved(groups, [2, 2], throw=False)
        return jnp.concatenate([found.top_bids, found.bid(0, values), found.bid(1, values), found.expected_revenue()[None]])

    h = 1e-5
    compiled = jax.jit(outputs)
    differences = (compiled(h) - compiled(-h)) / (2 * h)
    assert_allclose(jax.jit(jax.jacfwd(outputs))(0.0), differences, rtol=DIFFERENCES, atol=DIFFERENCES)
    assert compiled(0.0)[0] < compiled(0.0)[1] - 0.01


@pytest.mark.slow
def test_equal_groups_bid_as_symmetric_bidders_do():
    law = bounded(2.0, 1.0, 0.8, 2.0)
    symmetric = FirstPriceAuction(law, 5).solve()
    values = jnp.array([0.1, 0.5, 1.0, 1.9, 2.0])
    found = solved([law, law], [2, 3])
    for group in (0, 1):
        assert_allclose(found.bid(group, values), symmetric.bid(values), rtol=SPECTRAL, atol=SPECTRAL)
    assert_allclose(solved([law], [5]).bid(0, values), symmetric.bid(values), rtol=SPECTRAL, atol=SPECTRAL)
    assert_allclose(found.expected_revenue(), symmetric.expected_revenue(), rtol=SPECTRAL)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(scale=st.floats(0.1, 10.0), order=st.permutations([0, 1, 2]))
def test_units_and_the_order_of_groups_do_not_matter(scale, order):
    laws, sizes = [(1.0, 1.0, 1.0, 1.0), (1.3, 1.0, -0.5, 1.1), (0.8, 1.0, 0.5, 1.05)], jnp.array([1.0, 2.0, 3.0])
    one = solved([bounded(*law) for law in laws], list(sizes))
    other = solved([bounded(*laws[i][:3], scale * laws[i][3]) for i in order], [sizes[i] for i in order])
    assert_allclose(other.top_bids / scale, one.top_bids[jnp.array(order)], rtol=1e-7)
    for place, group in enumerate(order):
        assert_allclose(other.bid(place, 0.7 * scale) / scale, one.bid(group, 0.7), rtol=1e-7)


@pytest.mark.slow
def test_densities_that_vanish_or_explode_at_the_lowest_value():
    found = solved([dist.Beta(0.7, 1.0), bounded(2.5), dist.TruncatedNormal(0.3, 0.5, low=0.0, high=1.0)], [1, 1, 2])
    assert bool(found.status == Status.solved)
    low = 1e-3
    assert np.all(np.array([found.bid(group, low) for group in range(3)]) < low)


def market(rng):
    """Two to four groups of one to four bidders, with different upper ends."""
    groups = rng.integers(2, 5)
    laws = []
    for _ in range(groups):
        a, b = rng.uniform(0.6, 2.5), rng.uniform(0.7, 1.5)
        rate = rng.uniform(-2.0, 2.0)
        kind = rng.integers(3)  # uniform, Kumaraswamy, truncated exponential
        laws.append((a if kind == 1 else 1.0, b if kind == 1 else 1.0, rate if kind == 2 else 1e-8, rng.uniform(1.0, 1.2)))
    return laws, rng.integers(1, 5, groups)


def gains(laws, sizes, modes):
    groups = [bounded(*law) for law in laws]
    auction = AsymmetricFirstPriceAuction(groups, [jnp.asarray(float(size)) for size in sizes])
    equilibrium = auction.solve(modes, throw=False)
    return auction, equilibrium, verify(auction, equilibrium)


@pytest.mark.slow
def test_nobody_gains_in_random_markets():
    """Fifty markets."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        laws, sizes = market(rng)
        _, _, found = gains(laws, sizes, 24)
        assert found.exploitability < GAIN * max(law[3] for law in laws), (laws, sizes)


@pytest.mark.slow
def test_many_bidders_take_more_modes_and_the_status_says_so():
    auction = AsymmetricFirstPriceAuction([dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 2.0)], [10.0, 10.0])
    with pytest.raises(EquilibriumError, match="more of them"):
        auction.solve()
    assert verify(auction, auction.solve(48)).exploitability < 2 * GAIN


@pytest.mark.slow
def test_nobody_gains_where_a_group_stops_bidding_early_and_wrong_bids_are_caught():
    laws, sizes = [(1.0, 1.0, 1e-8, 1.0), (1.3, 1.0, 0.8, 1.2)], [2, 2]
    auction, equilibrium, found = gains(laws, sizes, 24)
    assert found.exploitability < GAIN
    assert found.deviation_gain.shape == (2,)
    wrong = verify(auction, SimpleNamespace(bid=lambda group, value: 0.97 * equilibrium.bid(group, value)))
    assert wrong.exploitability > 100 * GAIN


UNIT = dist.Uniform(0.0, 1.0)
BAD = {
    "no groups": (([], []), "values has 0 groups"),
    "sizes": (([UNIT, UNIT], [1]), "values has 2 groups and bidders 1"),
    "empty group": (([UNIT, UNIT], [2, 0]), r"bidders\[1\] is 0: give each group at least one bidder"),
    "one bidder": (([UNIT], [1]), "one bidder in all"),
    "unbounded": (([UNIT, dist.LogNormal(0.0, 1.0)], [1, 1]), r"values\[1\] lies between 0.0 and inf: .* bounded"),
    "lowest values": (([UNIT, dist.Uniform(0.5, 1.0)], [1, 1]), r"values\[1\] starts at 0.5 and values\[0\] at 0.0"),
    "not a distribution": (([UNIT, 3.0], [1, 1]), r"values\[1\] is a float"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_sentence(name):
    given_fields, message = BAD[name]
    with pytest.raises(EquilibriumError, match=message) as raised:
        AsymmetricFirstPriceAuction(*given_fields)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("modes", [True, 3, 2.5])
def test_bad_modes(modes):
    with pytest.raises(EquilibriumError, match="modes is"):
        AsymmetricFirstPriceAuction([UNIT], [2]).solve(modes)
