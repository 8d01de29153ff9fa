"""The smoothed market game against utilities summed bid by bid, quadrature, and auctions whose answers are known."""

from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import dblquad, quad
from scipy.special import zeta

from walras.model import (
    EquilibriumError,
    Evolution,
    FirstOrder,
    Learned,
    Reinforce,
    SmoothedAuction,
    choose_smoothing,
    evaluate_bids,
    gradient_variance,
    learn,
    plot_learning,
    sampled_smoothing_error,
    smallest_slope,
    smoothing_error,
    smoothing_error_bound,
    smoothing_error_estimate,
)
from walras.model.auctions.game.learning import Curves
from walras.model.auctions.game.policies import Policies

ROUNDING = 1e-12  # sums of a few numbers of size 1
GRID = 1e-5  # utilities on grids of 4096 rivals' values, 256 own and 1024 bids; measured 5e-6
QUADRATURE = 1e-10  # of a closed form and of scipy at its default 1e-8 of the result, which is 1e-4
DEVIATIONS = 5.0  # standard errors that a statistical test allows: false alarms 6e-7 each
RULES = list(product(("first", "second"), ("published", "own"), ("softmax", "sigmoid")))


def by_hand(bidder, values, bids, pricing, payment, allocation, smoothing):
    """One bidder's utility from one item, in plain Python; `smoothing` of zero is the exact auction."""
    own, rivals = bids[bidder], [bid for other, bid in enumerate(bids) if other != bidder]
    if smoothing == 0.0:
        share = float(own > max(rivals))
        return share * (values[bidder] - (own if pricing == "first" else max(rivals)))
    if allocation == "softmax":
        share = np.exp(own / smoothing) / sum(np.exp(bid / smoothing) for bid in bids)
    else:
        share = np.exp(own / smoothing) / (np.exp(own / smoothing) + np.exp(max(rivals) / smoothing))
    if payment == "published":
        price = sorted(bids)[-1 if pricing == "first" else -2]
    else:
        price = own if pricing == "first" else max(rivals)
    return share * (values[bidder] - price)


def drawn(bidders, items, games=7):
    rng = np.random.default_rng(bidders)
    values = rng.uniform(size=(games, bidders, items))
    return values, values * rng.uniform(size=values.shape)


@pytest.mark.parametrize(("pricing", "payment", "allocation"), RULES)
@pytest.mark.parametrize("bidders", [2, 3, 4])
def test_utilities_equal_those_summed_bid_by_bid(bidders, pricing, payment, allocation):
    values, bids = drawn(bidders, 2)
    rules = {"pricing": pricing, "payment": payment, "allocation": allocation, "smoothing": 0.1}
    auction = SmoothedAuction(bidders, items=2, **rules)

    def expected(**rules):
        return [
            [sum(by_hand(i, v[:, k], b[:, k], **rules) for k in range(2)) for i in range(bidders)]
            for v, b in zip(values, bids, strict=True)
        ]

    assert_allclose(auction.utilities(values, bids), expected(**rules), atol=ROUNDING)
    assert_allclose(auction.exact_utilities(values, bids), expected(**{**rules, "smoothing": 0.0}), atol=ROUNDING)


def test_rivals_bids_can_be_others_than_the_own_ones():
    auction, (values, bids) = SmoothedAuction(3, smoothing=0.1), drawn(3, 1)
    against = 0.5 * values
    for utilities in (auction.utilities, auction.exact_utilities):
        for bidder in range(3):
            mixed = against.copy()
            mixed[:, bidder] = bids[:, bidder]
            assert_allclose(utilities(values, bids, against)[:, bidder], utilities(values, mixed)[:, bidder], atol=ROUNDING)


def test_equal_bids_share_an_item():
    auction = SmoothedAuction(3)
    values, bids = jnp.full((3, 1), 0.9), jnp.array([[0.6], [0.6], [0.1]])
    assert_allclose(auction.exact_utilities(values, bids), [0.15, 0.15, 0.0], atol=ROUNDING)
    assert_allclose(auction.exact_utilities(values, jnp.full((3, 1), 0.6)), [0.1] * 3, atol=ROUNDING)


@given(scale=st.floats(1e-3, 1e3), order=st.permutations(range(3)), rule=st.sampled_from(RULES))
@settings(max_examples=25, deadline=None)
def test_units_and_names_of_bidders_do_not_matter(scale, order, rule):
    rules = dict(zip(("pricing", "payment", "allocation"), rule, strict=True))
    values, bids = drawn(3, 1, games=2)
    auction = SmoothedAuction(3, smoothing=0.1, **rules)
    scaled = SmoothedAuction(3, smoothing=0.1 * scale, **rules)
    found = auction.utilities(values, bids)
    assert_allclose(scaled.utilities(scale * values, scale * bids), scale * found, atol=ROUNDING * scale)
    assert_allclose(auction.utilities(values[:, order], bids[:, order]), found[:, list(order)], atol=ROUNDING)


@pytest.mark.parametrize(("pricing", "payment", "allocation"), RULES)
def test_little_smoothing_is_the_exact_auction(pricing, payment, allocation):
    values, bids = drawn(3, 1)  # no two bids are nearer than 1e-3
    auction = SmoothedAuction(3, pricing=pricing, payment=payment, allocation=allocation, smoothing=2e-5)
    assert_allclose(auction.utilities(values, bids), auction.exact_utilities(values, bids), atol=ROUNDING)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.8])
def test_utility_loss_of_first_price_bids(share):
    # Against bids up to `share`, uniform, half the value is best and earns v²/(4 share), of which E v² = 1/3.
    found = evaluate_bids(SmoothedAuction(2), lambda v: share * v, equilibrium=lambda v: 0.5 * v)
    assert_allclose(found.utility_loss, (0.25 / share - 1 + share) / 3, atol=GRID)
    assert_allclose(found.utility, (1 - share) / 3, atol=GRID)
    assert_allclose(found.distance, abs(share - 0.5) / np.sqrt(3), atol=GRID)


def test_utility_loss_of_second_price_bids():
    # The highest of two rivals who bid 0.8 of their values has the distribution (m/0.8)².
    def missed(value):
        return quad(lambda m: (value - m) * 2 * m / 0.64, 0.8 * min(value, 1.0), min(value, 0.8))[0]

    auction = SmoothedAuction(3, pricing="second")
    found = evaluate_bids(auction, lambda v: 0.8 * v)
    expected = quad(missed, 0.0, 0.8)[0] + quad(missed, 0.8, 1.0)[0]
    assert_allclose(found.utility_loss, expected, atol=GRID)
    assert np.all(np.isnan(found.distance))
    assert np.max(evaluate_bids(auction, lambda v: v).utility_loss) < GRID


def test_equilibria_have_no_utility_loss_and_items_add_up():
    for bidders, items in ((2, 1), (3, 2)):
        found = evaluate_bids(SmoothedAuction(bidders, items=items), first_price(bidders))
        assert np.max(found.utility_loss) < GRID
        assert_allclose(found.utility, items / (bidders * (bidders + 1)), atol=items * GRID)


def test_different_distributions_by_bidder():
    # Values up to a and to 1: equilibrium bids invert 2b/(1 + k b²), k = ±(1/a² − 1).
    top = 2.0
    k = 1 / top**2 - 1
    game = SmoothedAuction(2, [lambda u: top * u, lambda u: u])

    def bids(values):
        signs = jnp.broadcast_to(jnp.array([[k], [-k]]), values.shape)
        return values / (1 + jnp.sqrt(1 - signs * values**2))

    found = evaluate_bids(game, bids)
    assert np.max(found.utility_loss) < top * GRID


def first_price(bidders):
    """The equilibrium bids of uniform values."""
    return lambda v: v * (bidders - 1) / bidders


def uniform_first(bidders, **options):
    return SmoothedAuction(bidders, **options), first_price(bidders)


@pytest.mark.parametrize(("payment", "times"), [("published", 2), ("own", 1)])
def test_smoothing_error_of_two_uniform_bidders(payment, times):
    # ∫ (2s − 4s²)/(1 + e^{s/λ}) ds, and as much again for the published price; what lies beyond s = ½ is e⁻⁵⁰.
    auction, bid = uniform_first(2, payment=payment)
    closed = times * (np.pi**2 / 6 * 1e-4 - 6 * zeta(3) * 1e-6)
    assert_allclose(smoothing_error(auction, bid), closed, atol=QUADRATURE)
    assert round(closed, 5) == {2: 3.1e-4, 1: 1.6e-4}[times]
    assert_allclose(smoothing_error_estimate(auction, bid), times * np.pi**2 / 6 * 1e-4, rtol=1e-10)


@pytest.mark.parametrize(("pricing", "payment"), [("first", "published"), ("first", "own"), ("second", "own")])
def test_smoothing_error_of_three_bidders_by_other_quadrature(pricing, payment):
    # Values √u, so that F = v² and first-price bids are 4v/5; the highest of two rivals' values has F² = v⁴.
    slope = 0.8 if pricing == "first" else 1.0
    auction = SmoothedAuction(3, jnp.sqrt, pricing=pricing, payment=payment, allocation="sigmoid", smoothing=0.05)

    def integrand(other, value, won):
        own, rival = slope * value, slope * other
        share = 1 / (1 + np.exp((rival - own) / 0.05))
        first = max(own, rival) if payment == "published" else own
        price = first if pricing == "first" else rival
        return (won - share) * (value - price) * 4 * other**3 * 2 * value

    expected = dblquad(lambda o, v: integrand(o, v, 1.0), 0, 1, 0, lambda v: v, epsabs=1e-11)[0]
    expected += dblquad(lambda o, v: integrand(o, v, 0.0), 0, 1, lambda v: v, 1, epsabs=1e-11)[0]
    assert_allclose(smoothing_error(auction, lambda v: slope * v), expected, atol=QUADRATURE)


@pytest.mark.parametrize(("pricing", "payment"), list(product(("first", "second"), ("published", "own"))))
def test_smoothing_error_tends_to_its_estimate(pricing, payment):
    # Values √u and two bidders. The next order is λ: halving it halves what the estimate misses.
    missed = []
    for smoothing in (0.01, 0.005):
        auction = SmoothedAuction(2, jnp.sqrt, pricing=pricing, payment=payment, smoothing=smoothing)
        bid = (lambda v: 2 * v / 3) if pricing == "first" else (lambda v: v)
        missed.append(float(smoothing_error(auction, bid) / smoothing_error_estimate(auction, bid)) - 1)
    assert abs(missed[0]) < 0.1
    assert abs(missed[1] / missed[0]) < 0.6


@pytest.mark.statistical
@pytest.mark.parametrize(("pricing", "payment", "allocation"), RULES)
def test_estimate_is_that_of_sampled_games(pricing, payment, allocation):
    """Four bidders with uniform values; false alarms 6e-7 each. The control is the estimate of the other allocation."""
    bid = (lambda v: 0.75 * v) if pricing == "first" else (lambda v: v)
    rules = {"pricing": pricing, "payment": payment, "smoothing": 0.01}
    auction = SmoothedAuction(4, allocation=allocation, **rules)
    found = sampled_smoothing_error(auction, bid, key=jax.random.key(0), batch=2**17)
    next_order = 0.06 * np.pi**2 / 6 * 1e-4  # of relative size a few λ, of terms that partly cancel in the estimate

    def misses(auction):
        return abs(found.mean - smoothing_error_estimate(auction, bid)) - next_order > DEVIATIONS * found.standard_error

    assert not misses(auction)
    if pricing == "first":  # with second prices the two differ by the third order only
        assert misses(SmoothedAuction(4, allocation="sigmoid" if allocation == "softmax" else "softmax", **rules))


@pytest.mark.parametrize("bidders", [2, 3, 4, 5])
def test_smoothing_error_falls_with_the_square_and_stays_below_the_bound(bidders):
    errors = []
    for smoothing in (0.001, 0.01, 0.08):
        auction, bid = uniform_first(bidders, smoothing=smoothing, allocation="sigmoid")
        errors.append(float(smoothing_error(auction, bid)))
        assert 0 < errors[-1] < float(smoothing_error_bound(auction, smallest_slope(auction, bid)))
        assert errors[-1] < smoothing * (np.log(2) + 1) * bidders / (bidders - 1)  # the published bound, with the least of β′
    assert_allclose(errors[1] / errors[0], 100, rtol=0.15)


def test_slope_is_that_of_the_bids_for_two_uniform_bidders():
    auction, bid = uniform_first(2)
    assert_allclose(smallest_slope(auction, bid), 0.5, rtol=1e-6)
    assert_allclose(smoothing_error_bound(auction, 0.5), 0.01 * (np.log(2) + 1) / 0.5, rtol=1e-12)
    # For more, the density of the highest rival's bid is greatest at the top: (n−1)/β′ = n.
    assert_allclose(smallest_slope(*uniform_first(5)), 0.2, rtol=1e-6)


def test_smoothing_is_chosen_from_the_error_that_is_wanted():
    auction, bid = uniform_first(2)
    at_most, about = choose_smoothing(auction, 1e-3, slope=0.5), choose_smoothing(auction, 1e-3, bid=bid)
    assert_allclose(at_most, 1e-3 * 0.5 / (np.log(2) + 1), rtol=1e-12)
    assert_allclose(smoothing_error(SmoothedAuction(2, smoothing=about), bid), 1e-3, rtol=0.1)
    assert about > 10 * at_most


def shifted(game, by):
    """Policies that bid the value and `by` times the values' interquartile range."""
    policies = Policies.truthful(game, jax.random.key(0))
    return eqx.tree_at(lambda tree: tree.network.layers[-1].bias, policies, replace_fn=lambda bias: jnp.full_like(bias, by))


@pytest.mark.statistical
@pytest.mark.parametrize(
    "estimator", [FirstOrder(), Reinforce(noise=0.02), Evolution(population=256, noise=0.02)], ids=["first", "score", "es"]
)
def test_gradients_are_those_of_one_bidder_who_deviates(estimator):
    """All bid v + 0.1; bidding more wins (v − b)·g = −0.1 and costs P(win) = ½. The standard errors are of 64 repetitions, so
    that false alarms are 1e-5 each. The control is the gradient when rivals move along: −½.
    """
    game = SmoothedAuction(2, smoothing=0.002)
    policies = shifted(game, 0.2)
    keys = jax.random.split(jax.random.key(1), 64)
    found = jax.lax.map(lambda key: estimator(game, policies, key, 4096)[0].network.layers[-1].bias[0, 0], keys)
    error = np.std(found, ddof=1) / np.sqrt(len(keys))
    edges = 2e-3  # where there are rivals on one side only, over a range of λ or the noise
    spread = 0.5
    assert abs(np.mean(found) + 0.6 * spread) < DEVIATIONS * error + edges
    assert abs(np.mean(found) + 0.5 * spread) > DEVIATIONS * error + edges


@pytest.mark.slow
def test_first_order_gradients_vary_least():
    # At the start, by orders of magnitude: 2e-6, 1e-4 and 2 measured.
    game = SmoothedAuction(2)
    policies = Policies.truthful(game, jax.random.key(0))
    first, score, evolution = (
        float(gradient_variance(game, policies, one, key=jax.random.key(1), batch=256, repeats=32).variance)
        for one in (FirstOrder(), Reinforce(), Evolution())
    )
    assert 5 * first < score
    assert 5 * first < evolution


def test_first_price_is_learned_and_then_truth_telling_in_the_second_price_auction():
    key, short = jax.random.key(0), {"iterations": 400, "batch": 2048, "learning_rate": 0.01}
    first = learn(SmoothedAuction(2), key=key, equilibrium=lambda v: 0.5 * v, **short)
    assert np.max(first.curves.distance[-1]) < 0.03  # from 0.29; measured 0.008 to 0.02 with five keys
    assert np.max(first.curves.utility_loss[-1]) < 0.005  # from 0.083
    assert first.bid(jnp.array([[0.0], [1.0]])).shape == (2, 1)
    second = learn(SmoothedAuction(2, pricing="second"), key=key, equilibrium=lambda v: v, start=first, **short)
    assert second.done == 800
    assert np.max(second.curves.distance[-1]) < 0.03
    assert np.max(second.curves.utility_loss[-1]) < 5e-4


@pytest.mark.slow
def test_policies_of_their_own_for_two_items():
    reports = []
    game = SmoothedAuction(2, items=2)
    found = learn(
        game,
        key=jax.random.key(0),
        iterations=150,
        batch=512,
        chunk=75,
        shared=False,
        progress=reports.append,
        learning_rate=0.01,
    )
    assert found.curves.utility_loss.shape == (2, 2)
    assert np.max(found.curves.utility_loss[-1]) < 0.05  # from 0.17
    assert [report.done for report in reports] == [75, 150]
    values = game.sample(jax.random.key(1), 5)
    assert_allclose(found.policies(values)[:, 1], found.bid(values[:, 1], bidder=1), rtol=1e-6)
    assert not np.allclose(found.bid(values[:, 1], bidder=0), found.bid(values[:, 1], bidder=1))


@pytest.mark.parametrize("estimator", [Reinforce(), Evolution()], ids=["score", "es"])
def test_estimators_of_the_exact_game_learn(estimator):
    found = learn(
        SmoothedAuction(2), key=jax.random.key(0), estimator=estimator, iterations=100, batch=1024, learning_rate=0.02
    )
    assert np.max(found.curves.utility_loss[-1]) < 0.04  # from 0.083


def test_learning_in_parts_is_as_in_one_piece():
    options = {"key": jax.random.key(0), "batch": 64, "chunk": 5, "learning_rate": lambda step: 0.01 / (1 + step)}
    whole = learn(SmoothedAuction(2), iterations=10, **options)
    parts = learn(SmoothedAuction(2), iterations=5, start=learn(SmoothedAuction(2), iterations=5, **options), **options)
    np.testing.assert_array_equal(whole.curves.iterations, parts.curves.iterations)
    np.testing.assert_array_equal(whole.curves.utility_loss, parts.curves.utility_loss)
    for one, other in zip(jax.tree.leaves(whole.policies), jax.tree.leaves(parts.policies), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_uniform_bidders_are_learned_to_four_thousandths(seed):
    found = learn(SmoothedAuction(2, smoothing=0.005), key=jax.random.key(seed), equilibrium=lambda v: 0.5 * v)
    assert np.max(found.curves.distance[-1]) < 0.004


def test_picture_of_learning():
    points = np.array([2, 4]), np.array([[0.1, 0.2], [0.01, 0.02]])
    game = SmoothedAuction(2)
    curves = Curves(points[0], points[1], 2 * points[1], points[1][:, :1])
    found = Learned(game, Policies.truthful(game, jax.random.key(0)), curves, ())
    axes = plot_learning({"one": found, "other": found})
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == [
        "one, utility loss",
        "one, distance",
        "other, utility loss",
        "other, distance",
    ]
    assert_allclose(axes.lines[0].get_xdata(), [2, 4])
    assert_allclose(axes.lines[1].get_ydata(), [0.4, 0.04])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bidders": 1}, "bidders is 1: give a whole number of at least 2"),
        ({"items": 0}, "items is 0"),
        ({"pricing": "third"}, "pricing is 'third': give one of 'first', 'second'"),
        ({"payment": "all"}, "payment is 'all'"),
        ({"allocation": "hard"}, "allocation is 'hard'"),
        ({"smoothing": 0.0}, "smoothing is 0.0: give a positive number"),
        ({"values": 3.0}, "values is 3.0: give a distribution with an icdf"),
        ({"values": [jnp.sqrt]}, "values has 1 distributions for 2 bidders"),
    ],
)
def test_games_that_cannot_be_are_refused(options, words):
    with pytest.raises(EquilibriumError, match=words):
        SmoothedAuction(**{"bidders": 2, **options})


def test_arguments_that_cannot_be_used_are_refused():
    game, key = SmoothedAuction(3), jax.random.key(0)
    different = SmoothedAuction(2, [jnp.sqrt, jnp.square])
    for words, call in (
        ("bids has shape", lambda: game.utilities(jnp.ones((5, 3, 1)), jnp.ones((5, 3)))),
        ("values has shape", lambda: game.utilities(jnp.ones((5, 2, 1)), jnp.ones((5, 2, 1)))),
        ("iterations is 0", lambda: learn(game, key=key, iterations=0)),
        ("learning_rate is -1", lambda: learn(game, key=key, learning_rate=-1.0)),
        ("shared is True", lambda: learn(different, key=key, shared=True)),
        ("interquartile", lambda: learn(SmoothedAuction(2, jnp.ones_like), key=key)),
        ("population is 3", lambda: Evolution(population=3)),
        ("noise is 0", lambda: Reinforce(noise=0.0)),
        ("batch is 8", lambda: learn(game, key=key, batch=8, estimator=Evolution())),
        ("more than the highest rival", lambda: smoothing_error(game, lambda v: v)),
        ("different distributions", lambda: smoothing_error_estimate(different, lambda v: v)),
        ("the bound is for bounded ones", lambda: smoothing_error_bound(SmoothedAuction(2, lambda u: u / (1 - u)), 1.0)),
        ("error is 0", lambda: choose_smoothing(game, 0.0, slope=1.0)),
        (
            "beyond values' interquartile range",
            lambda: choose_smoothing(SmoothedAuction(3, payment="own", allocation="sigmoid"), 1e-3, bid=first_price(3)),
        ),
        ("either a slope or a bid function", lambda: choose_smoothing(game, 1e-3)),
    ):
        with pytest.raises(EquilibriumError, match=words):
            call()


def test_a_start_from_another_game_is_refused():
    start = learn(SmoothedAuction(2), key=jax.random.key(0), iterations=1, batch=8)
    with pytest.raises(EquilibriumError, match="start has 1 policies of 2 bidders"):
        learn(SmoothedAuction(3), key=jax.random.key(0), start=start)


def test_single_precision_is_refused(single_precision):
    with pytest.raises(EquilibriumError, match="double precision"):
        learn(SmoothedAuction(2), key=jax.random.key(0))
