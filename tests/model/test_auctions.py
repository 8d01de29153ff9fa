"""Symmetric auctions against closed forms, adaptive quadrature, best responses and revenue equivalence."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy.special import gammainc
from numpy.testing import assert_allclose
from oracles import auctions as oracle
from oracles.compiling import lightly
from scipy import stats

from walras.model import (
    AffiliatedFirstPriceAuction,
    AllPayAuction,
    EquilibriumError,
    FirstPriceAuction,
    ProcurementAuction,
    SecondPriceAuction,
    Status,
    verify,
)
from walras.model.auctions.values import inverse

CLOSED_FORM = 1e-11  # relative: rounding of 48 summands where the integrand is analytic
QUADRATURE = 1e-8  # relative, what the quadrature's nodes were chosen for
DIFFERENCES = 1e-6  # relative, of central differences with a step of 1e-5
UNIMPROVABLE = 2e-7  # of money about 1: the certificate's own interpolation of bids

LEVELS = np.array([1e-6, 1e-3, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6, 1 - 1e-9])


def weibull(scale, shape):
    return lambda u: scale * (-jnp.log1p(-u)) ** (1.0 / shape)


def gamma(shape):
    return lambda u: inverse(lambda v: gammainc(shape, v), u, 0.0, 200.0)


# Quantiles for JAX, and the same distribution in SciPy.
FAMILIES = {
    "uniform": (dist.Uniform(1.0, 3.0), stats.uniform(1.0, 2.0)),
    "power": (lambda u: u ** (1 / 3.0), stats.beta(3.0, 1.0)),
    "exponential": (dist.Exponential(2.0), stats.expon(scale=0.5)),
    "log-normal": (dist.LogNormal(0.2, 1.0), stats.lognorm(1.0, scale=np.exp(0.2))),
    "Weibull": (weibull(1.5, 0.7), stats.weibull_min(0.7, scale=1.5)),
    "gamma": (gamma(2.5), stats.gamma(2.5)),
    "Pareto": (dist.Pareto(1.0, 3.0), stats.pareto(3.0)),
}


@pytest.mark.parametrize("risk", [1.0, 0.3])
@pytest.mark.parametrize("bidders", [2, pytest.param(5, marks=pytest.mark.slow), 20])
def test_closed_forms(bidders, risk):
    n = bidders
    v = jnp.linspace(0.05, 1.0, 7)
    uniform = FirstPriceAuction(dist.Uniform(1.0, 3.0), n, risk).solve()
    assert_allclose(uniform.bid(1 + 2 * v), 1 + 2 * v * (n - 1) / (n - 1 + risk), rtol=CLOSED_FORM)
    power = FirstPriceAuction(lambda u: u ** (1 / 2.5), n, risk).solve()
    assert_allclose(power.bid(v), v * 2.5 * (n - 1) / (2.5 * (n - 1) + risk), rtol=CLOSED_FORM)
    reserved = FirstPriceAuction(dist.Uniform(0.0, 1.0), n, reserve=0.4).solve()
    above = jnp.linspace(0.4, 1.0, 5)
    assert_allclose(reserved.bid(above), (n - 1) * above / n + 0.4**n / (n * above ** (n - 1)), rtol=CLOSED_FORM)
    all_pay = AllPayAuction(dist.Uniform(0.0, 1.0), n).solve()
    assert_allclose(all_pay.bid(v), (n - 1) * v**n / n, rtol=CLOSED_FORM)
    for equilibrium in (uniform, power, reserved, all_pay):
        assert equilibrium.residual < CLOSED_FORM
        assert bool(equilibrium.status == Status.solved)


def test_two_exponential_bidders():
    v = jnp.array([0.01, 0.5, 2.0, 10.0])
    found = FirstPriceAuction(dist.Exponential(2.0), 2).solve().bid(v)
    assert_allclose(found, 0.5 - v * np.exp(-2 * v) / -np.expm1(-2 * v), rtol=QUADRATURE)


# The oracle asks for more digits than there are.
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("bidders", "risk"), [(2, 1.0), pytest.param(3, 0.6, marks=pytest.mark.slow), (20, 0.3)])
def test_bids_equal_adaptive_quadrature_also_where_values_are_unbounded(family, bidders, risk):
    values, same = FAMILIES[family]
    found = FirstPriceAuction(values, bidders, risk).solve().bid_at(LEVELS)
    expected = [oracle.bid_by_quadrature(same, bidders, risk, same.ppf(level)) for level in LEVELS]
    # A level near 1 has lost digits of the distance to 1: how far quantiles move by its rounding.
    rounding = np.abs(same.ppf(np.minimum(LEVELS + 2e-16, 1 - 1e-16)) / same.ppf(LEVELS) - 1)
    assert np.all(np.abs(found / np.array(expected) - 1) < QUADRATURE + 4 * rounding)


def test_risk_aversion_by_the_differential_equation():
    values, same = FAMILIES["log-normal"]
    found = FirstPriceAuction(values, 3, 0.5, reserve=0.7).solve()
    for value in (0.9, 2.0, 5.0):
        expected = oracle.crra_bid_by_ode(same, 3, 0.5, 0.7, 0.7, value)  # the reserve's own value bids the reserve
        assert_allclose(found.bid(value), expected, rtol=QUADRATURE)
        assert_allclose(expected, oracle.bid_by_quadrature(same, 3, 0.5, value, 0.7), rtol=QUADRATURE)


def test_procurement():
    cost = jnp.array([0.1, 1.0, 4.0])
    same = stats.lognorm(0.5)
    found = ProcurementAuction(dist.LogNormal(0.0, 0.5), 3).solve()
    assert_allclose(found.bid(cost), [oracle.procurement_bid_by_quadrature(same, 3, float(c)) for c in cost], rtol=QUADRATURE)
    limited = ProcurementAuction(dist.LogNormal(0.0, 0.5), 3, reserve=1.3).solve()
    assert_allclose(limited.bid(1.0), oracle.procurement_bid_by_quadrature(same, 3, 1.0, 1.3), rtol=QUADRATURE)
    assert_allclose(limited.bid(jnp.array([1.3, 1.4])), [1.3, np.nan], rtol=QUADRATURE)
    # Two bidders with costs uniform on [1, 2] bid 1 + c/2; the lowest of two costs is 4/3 on average.
    uniform = ProcurementAuction(dist.Uniform(1.0, 2.0), 2).solve()
    assert_allclose(uniform.bid(jnp.array([1.0, 1.4, 2.0])), [1.5, 1.7, 2.0], rtol=CLOSED_FORM)
    assert_allclose(uniform.expected_payment(), 5 / 3, rtol=QUADRATURE)
    # Quantiles by halving, where there is a distribution function alone.
    beta = ProcurementAuction(dist.Beta(2.0, 3.0), 2).solve()
    assert_allclose(beta.bid(0.5), oracle.procurement_bid_by_quadrature(stats.beta(2, 3), 2, 0.5), rtol=QUADRATURE)


@pytest.mark.slow
def test_affiliated_signals():
    common = AffiliatedFirstPriceAuction(lambda x, y: 0.5 * (x + y), oracle.rival_with_common_shock, (0.0, 2.0)).solve()
    signal = jnp.array([0.01, 0.4, 0.99, 1.0, 1.6, 1.99])
    assert_allclose(common.bid(signal), 2 * signal / 3, rtol=QUADRATURE)
    # Independent private values are a special case: F = 3y² − 2y³, three bidders.
    own = AffiliatedFirstPriceAuction(lambda x, y: x, lambda y, x: (3 * y**2 - 2 * y**3) ** 2, (0.0, 1.0)).solve()
    signal = np.array([0.05, 0.5, 0.95])
    # Signals far from zero, down to the lowest: uniform values bid halfway up.
    far = AffiliatedFirstPriceAuction(lambda x, y: x, lambda y, x: y - 100.0, (100.0, 101.0)).solve()
    assert_allclose(far.bid(jnp.array([100.0, 100.01, 101.0])), [100.0, 100.005, 100.5], rtol=QUADRATURE)
    assert_allclose(own.bid(signal), [oracle.bid_by_quadrature(stats.beta(2, 2), 3, 1.0, v) for v in signal], rtol=QUADRATURE)


@pytest.mark.parametrize("bidders", [2, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reserve", [None, 0.8])
def test_revenue_equivalence(bidders, reserve):
    values, same = FAMILIES["log-normal"]
    expected = oracle.second_price_revenue(same, bidders, reserve or 0.0)
    first = FirstPriceAuction(values, bidders, reserve=reserve).solve()
    second = SecondPriceAuction(values, bidders, reserve).solve()
    revenues = [first.expected_revenue(), second.expected_revenue()]
    if reserve is None:
        revenues.append(AllPayAuction(values, bidders).solve().expected_revenue())
    assert_allclose(revenues, expected, rtol=QUADRATURE)
    assert_allclose(first.sale_probability, 1 - same.cdf(reserve or 0.0) ** bidders, rtol=CLOSED_FORM)
    kept = 0.3 * (1 - first.sale_probability)
    assert_allclose(first.expected_revenue(0.3) - first.expected_revenue(), kept, atol=CLOSED_FORM)


def test_the_best_reserve_leaves_no_virtual_value_below_the_sellers():
    # r − (1 − F(r))/f(r) is the seller's value: with values of rate 2, r = 0.3 + 1/2 for any number of bidders.
    def revenue(reserve, bidders):
        return FirstPriceAuction(dist.Exponential(2.0), bidders, reserve=reserve).solve().expected_revenue(0.3)

    slope = jax.jit(jax.grad(revenue))
    for bidders in (2.0, 6.0):
        assert slope(0.7, bidders) > 1e-3
        assert abs(slope(0.8, bidders)) < QUADRATURE
        assert slope(0.9, bidders) < -1e-3


def test_who_does_not_bid():
    found = FirstPriceAuction(dist.Uniform(1.0, 2.0), 3, reserve=1.5).solve()
    assert_allclose(found.bid(jnp.array([0.5, 1.49, 1.5, 2.0, 2.5])), [np.nan, np.nan, 1.5, *[found.bid(2.0)] * 2])
    assert_allclose(found.bid_at(jnp.array([-0.1, 0.4, 0.5, 1.1])), [np.nan, np.nan, 1.5, np.nan])
    assert np.isnan(SecondPriceAuction(dist.Uniform(1.0, 2.0), 3, 1.5).solve().bid(1.2))
    assert np.isnan(FirstPriceAuction(dist.Uniform(1.0, 2.0), 3).solve().bid(0.9))
    gradient = jax.grad(lambda r: jnp.nansum(FirstPriceAuction(dist.Uniform(1.0, 2.0), 3, reserve=r).solve().bid_at(LEVELS)))
    assert np.isfinite(gradient(1.5))
    assert found.bid(jnp.ones((2, 3)) * 1.7).shape == (2, 3)


def test_values_are_recovered_from_bids():
    found = FirstPriceAuction(dist.LogNormal(0.0, 0.5), 4, 0.7).solve()
    values = jnp.array([0.3, 1.0, 3.0])
    assert_allclose(found.value(found.bid(values)), values, rtol=QUADRATURE)
    assert np.isnan(found.value(100.0))


@pytest.mark.parametrize("mode", [pytest.param(jax.jacfwd, marks=pytest.mark.slow), jax.jacrev])
def test_derivatives_equal_differences(mode):
    values = jnp.array([0.5, 1.0, 3.0])

    def outputs(theta):
        law = dist.LogNormal(0.1 * theta, 0.5 + theta)
        first = FirstPriceAuction(law, 3 + theta, 0.8 - theta, reserve=0.4 + 0.2 * theta).solve(throw=False)
        quantiles = FirstPriceAuction(weibull(1 + theta, 2 + theta), 3).solve(throw=False)
        supplier = ProcurementAuction(law, 3 + theta, 0.8 - theta).solve(throw=False)
        return jnp.concatenate(
            [
                jnp.stack([first.expected_revenue(), first.sale_probability]),
                first.bid(values),
                quantiles.bid(values),
                supplier.bid(values),
            ]
        )

    h = 1e-5
    compiled = lightly(outputs)
    differences = (compiled(h) - compiled(-h)) / (2 * h)
    assert_allclose(lightly(mode(outputs))(0.0), differences, rtol=DIFFERENCES, atol=DIFFERENCES)


@pytest.mark.slow
def test_second_derivatives_and_batches():
    def outputs(theta):
        found = FirstPriceAuction(dist.LogNormal(0.0, 0.5 + theta), 3, 0.8 - theta, reserve=0.4 + 0.2 * theta).solve(
            throw=False
        )
        values = jnp.array([0.5, 1.0])
        return jnp.concatenate([found.bid(values), found.value(found.bid(jnp.array([0.5, 1.0])) * (1 - 0.1 * theta))])

    h = 1e-5
    slope = lightly(jax.jacfwd(outputs))
    second = lightly(jax.jacfwd(jax.jacrev(outputs)))(0.0)
    assert_allclose(second, (slope(h) - slope(-h)) / (2 * h), rtol=DIFFERENCES, atol=10 * DIFFERENCES)
    assert_allclose(lightly(jax.vmap(outputs))(jnp.array([0.0, 0.1]))[1], lightly(outputs)(0.1), rtol=CLOSED_FORM)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.01, 100.0), shift=st.floats(0.0, 10.0), bidders=st.integers(2, 20), risk=st.floats(0.3, 1.0))
def test_bids_are_in_the_units_of_values_and_below_them(scale, shift, bidders, risk):
    levels = jnp.linspace(0.01, 0.99, 9)
    one = FirstPriceAuction(weibull(1.0, 2.0), bidders, risk).solve().bid_at(levels)
    other = FirstPriceAuction(lambda u: shift + weibull(scale, 2.0)(u), bidders, risk).solve().bid_at(levels)
    assert_allclose(other, shift + scale * one, rtol=1e-12)
    assert np.all(np.diff(one) > 0)
    assert np.all(one < weibull(1.0, 2.0)(levels))


LAW = dist.LogNormal(0.0, 0.5)
AUCTIONS = {
    "first price": FirstPriceAuction(LAW, 3),
    "risk and reserve": FirstPriceAuction(LAW, 4, 0.7, 0.8),
    "procurement": ProcurementAuction(LAW, 3),
    "procurement with a reserve": ProcurementAuction(LAW, 3, 0.5, 1.3),
    "second price": SecondPriceAuction(LAW, 3, 0.8),
    "all pay": AllPayAuction(LAW, 3),
    "affiliated": AffiliatedFirstPriceAuction(lambda x, y: 0.5 * (x + y), oracle.rival_with_common_shock, (0.0, 2.0)),
}


@pytest.mark.parametrize("name", AUCTIONS)
def test_no_bidder_gains_by_deviating_and_wrong_bids_are_caught(name):
    equilibrium = AUCTIONS[name].solve()
    found = verify(AUCTIONS[name], equilibrium)
    assert found.deviation_gain.shape == (1,)
    assert abs(found.exploitability) < UNIMPROVABLE
    wrong = verify(AUCTIONS[name], SimpleNamespace(bid=lambda value: 0.97 * equilibrium.bid(value)))
    assert wrong.exploitability > 1000 * UNIMPROVABLE


UNIT = dist.Uniform(0.0, 1.0)
BAD = {
    "one bidder": (lambda: FirstPriceAuction(UNIT, 1), "bidders is 1: give one number, at least 2"),
    "bidders by group": (lambda: AllPayAuction(UNIT, jnp.array([2, 3])), "give one number"),
    "no quantiles": (lambda: FirstPriceAuction(dist.Weibull(1.0, 2.0), 2), "Weibull, whose icdf is not implemented"),
    "neither": (lambda: SecondPriceAuction(3.0, 2), "values is a float: give a distribution"),
    "several values": (lambda: FirstPriceAuction(dist.Uniform(jnp.zeros(2), 1.0), 2), "give the distribution of one number"),
    "discrete": (lambda: FirstPriceAuction(dist.DiscreteUniform(0, 10), 3), "DiscreteUniform, which is discrete"),
    "negative": (lambda: AllPayAuction(dist.Uniform(-1.0, 1.0), 2), "values start at -1.0: everybody pays"),
    "neither cdf nor icdf": (lambda: FirstPriceAuction(dist.Kumaraswamy(2.0, 2.0), 3), "Kumaraswamy, whose icdf"),
    "no spread": (lambda: ProcurementAuction(lambda u: 0.0 * u, 2), "costs has quantiles .* give a distribution"),
    "risk": (lambda: FirstPriceAuction(UNIT, 2, 1.5), "risk is 1.5: give the exponent"),
    "no utility": (lambda: FirstPriceAuction(UNIT, 2, 0.0), "risk is 0.0"),
    "negative reserve": (lambda: FirstPriceAuction(UNIT, 2, reserve=-0.1), "reserve is -0.1: give one finite number"),
    "reserve": (lambda: SecondPriceAuction(UNIT, 2, float("nan")), "reserve is nan"),
    "reserve above values": (lambda: FirstPriceAuction(UNIT, 2, reserve=1.0).solve(), "meets the reserve"),
    "reserve below costs": (lambda: ProcurementAuction(dist.Uniform(1.0, 2.0), 2, reserve=0.5).solve(), "meets the reserve"),
    "signals": (lambda: AffiliatedFirstPriceAuction(max, max, (1.0, 0.0)), "signals are"),
    "not functions": (lambda: AffiliatedFirstPriceAuction(1.0, max, (0.0, 1.0)), "give value"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_sentence(name):
    make, message = BAD[name]
    with pytest.raises(EquilibriumError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_failures_are_statuses_where_they_are_traced():
    @jax.jit
    def judged(reserve):
        return FirstPriceAuction(UNIT, 2, reserve=reserve).solve().status == Status.reserve_not_met

    assert bool(judged(1.5))
    assert not bool(judged(0.5))
    found = FirstPriceAuction(lambda u: jnp.where(u < 0.5, u, 1.0 + u), 2).solve(throw=False)  # a gap in values
    assert bool(found.status == Status.bids_not_found)


def test_single_precision_is_refused(single_precision):
    with pytest.raises(EquilibriumError, match="double precision"):
        FirstPriceAuction(UNIT, 2).solve()


class Grown(dist.Uniform):
    """Uniform values that grow by a factor which JAX is not told of."""

    def __init__(self, factor):
        super().__init__(0.0, 1.0)
        self.factor = factor

    def cdf(self, value):
        return super().cdf(value / self.factor)

    def icdf(self, q):
        return self.factor * super().icdf(q)


class Plain:
    """Values of a class that JAX does not know."""

    def __init__(self, factor):
        self.factor = factor

    def cdf(self, value):
        return jnp.clip(value / self.factor, 0.0, 1.0)

    def icdf(self, level):
        return self.factor * level


@pytest.mark.parametrize("values", [Grown, Plain, lambda factor: lambda u: factor * u])
def test_values_are_those_of_the_moment(values):
    bids = [FirstPriceAuction(values(factor), 2).solve().bid(0.5 * factor) for factor in (1.0, 2.0, 6.0)]
    assert_allclose(bids, [0.25, 0.5, 1.5], rtol=CLOSED_FORM)
    changing = Plain(1.0)
    auction = FirstPriceAuction(changing, 2)
    assert_allclose(auction.solve().bid(0.5), 0.25, rtol=CLOSED_FORM)
    changing.factor = 0.5
    assert_allclose([auction.solve().bid(0.5), auction.solve().expected_revenue()], [0.25, 0.5 / 3], rtol=QUADRATURE)


def test_other_parameters_are_not_compiled_again():
    events = []

    def listen(event, _, **__):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for scale in (1.0, 2.0):
            events.clear()
            FirstPriceAuction(dist.Uniform(0.0, scale), 3, reserve=0.1 * scale).solve().bid(scale * jnp.linspace(0.2, 1.0, 11))
            if scale == 1.0:
                assert any("backend_compile" in event for event in events)
        assert not any("backend_compile" in event for event in events)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
