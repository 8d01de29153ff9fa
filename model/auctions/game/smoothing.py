"""What smoothing takes from bidders' utility when all bid by the same function: exactly, to leading order, and at most.

Only near ties does the smoothed allocation differ from the exact one. Let bids be b(u) at the quantile level u of the value
v(u), and the rivals' highest bid have density g₁. To the second order in λ what a bidder gains by losing nearly what was won
and what it loses by winning nearly what was lost cancel up to the slopes of both at the tie, and to the price's own slope:

    exact − smoothed = (π²/12) λ² (n−1) ∫₀¹ [ (v′ − 1 + κ) uⁿ⁻² / b_u − (n−2) (v − b) uⁿ⁻³ / b_u² ] du + O(λ³),

v′ = dv/db, b_u = db/du; κ = 1 for published prices, and for own ones 0 in a first-price and 2 in a second-price auction. Its
last term, from what a rival's density adds, is for the sigmoid alone: ties of three, which count for the softmax, cancel it.

The bound: a bidder who wins by s expects to lose at most the share 1/(1 + e^{s/λ}/(k−1)), k = 2, or n for the softmax, and one
who loses by s to win as little; that integrates to λ log k, and errors of the two have opposite signs. So

    |exact − smoothed| ≤ λ (log k + 1) · (largest value − smallest) / slope,   slope = 1 / max g₁,

where the 1 is for the price, whose own share is at most (π²/12) κ λ g₁ (which takes λ below half of the values' range). For
two bidders with uniform values the slope is the least derivative of the bid function, as in Kohring, Pieroth and Bichler's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.equilibrium import EquilibriumError, require_double_precision

_TIE = np.pi**2 / 12  # ∫₀^∞ z / (1 + e^z) dz
_PANELS, _NODES = 40, 10  # panels whose lengths halve towards an end, and Gauss nodes in each

type BidFunction = Callable[[Array], Array]  # elementwise, of values


def smoothing_error(game: SmoothedAuction, bid: BidFunction) -> Float[Array, ""]:
    """The exact utility less the smoothed one, of a bidder on average when all bid `bid` (elementwise, increasing): quadrature.

    For auctions in which it depends on rivals through their highest bid alone; `sampled_smoothing_error` is for any.
    """
    require_double_precision()
    value, _ = _functions(game, bid)
    if game.bidders > 2 and (game.allocation == "softmax" or (game.pricing, game.payment) == ("second", "published")):
        raise EquilibriumError(
            f"bidders is {game.bidders}, and utilities depend on more than the highest rival's bid: take the sigmoid with "
            "first or own prices, or sampled_smoothing_error"
        )

    def at(level):
        below, above = level * (1.0 - _GRADED[0]), level + (1.0 - level) * _GRADED[0]
        rivals = jnp.concatenate([below, above])
        weights = jnp.concatenate([level * _GRADED[1], (level - 1.0) * _GRADED[1]])  # minus: what is won that was lost
        own, other = bid(value(level)), bid(value(rivals))
        missed = jax.nn.sigmoid(-jnp.abs(other - own) / game.smoothing)
        earned = value(level) - _price(game, own, other)
        return jnp.sum(weights * (game.bidders - 1) * rivals ** (game.bidders - 2) * missed * earned)

    return game.items * jnp.sum(_LEVELS[1] * jax.lax.map(at, jnp.asarray(_LEVELS[0])))


def smoothing_error_estimate(game: SmoothedAuction, bid: BidFunction) -> Float[Array, ""]:
    """Its leading order, proportional to λ², for any game with one distribution of values."""
    require_double_precision()
    value, slopes = _functions(game, bid)
    level, n = jnp.asarray(_LEVELS[0]), game.bidders
    value_slope, bid_slope = slopes(level)
    price = 1.0 if game.payment == "published" else 0.0 if game.pricing == "first" else 2.0
    of_pairs = (value_slope / bid_slope - 1.0 + price) * level ** (n - 2) / bid_slope
    if game.allocation == "sigmoid" and n > 2:
        of_pairs = of_pairs - (n - 2) * (value(level) - bid(value(level))) * level ** (n - 3) / bid_slope**2
    return game.items * _TIE * game.smoothing**2 * (n - 1) * jnp.sum(_LEVELS[1] * of_pairs)


def smallest_slope(game: SmoothedAuction, bid: BidFunction) -> Float[Array, ""]:
    """1 / the largest density of the highest rival's bid when all bid `bid`; for two uniform bidders the least of `bid`′."""
    require_double_precision()
    _, slopes = _functions(game, bid)
    level = jnp.asarray(_LEVELS[0])
    return 1.0 / jnp.max((game.bidders - 1) * level ** (game.bidders - 2) / slopes(level)[1])


def smoothing_error_bound(game: SmoothedAuction, slope: Float[Array, ""] | float) -> Float[Array, ""]:
    """The most that smoothing can change a bidder's utility, by the `slope` of `smallest_slope`; values must be bounded."""
    lowest, highest = (game.quantile_functions()[0](jnp.asarray(level)) for level in (0.0, 1.0))
    if not bool(jnp.isfinite(highest - lowest)):
        raise EquilibriumError(f"values range from {lowest} to {highest}: the bound is for bounded ones; take the estimate")
    contenders = game.bidders if game.allocation == "softmax" else 2
    return game.items * game.smoothing * (np.log(contenders) + 1.0) * (highest - lowest) / slope


def choose_smoothing(
    game: SmoothedAuction, error: float, *, slope: Array | float | None = None, bid: BidFunction | None = None
) -> Float[Array, ""]:
    """The λ at which smoothing changes a bidder's utility by `error`: at most, from a `slope`; about, from a known `bid`."""
    if (slope is None) == (bid is None) or not error > 0.0:
        raise EquilibriumError(f"error is {error}: give a positive one, and either a slope or a bid function")
    if slope is not None:
        return game.smoothing * error / smoothing_error_bound(game, slope)
    assert bid is not None
    value, _ = _functions(game, bid)
    found = game.smoothing * jnp.sqrt(error / jnp.abs(smoothing_error_estimate(game, bid)))
    low, high = value(jnp.asarray(0.25)), value(jnp.asarray(0.75))
    if not found < high - low:
        raise EquilibriumError(
            f"error is {error}: the leading order would have it at λ = {found}, beyond values' interquartile range, where it "
            "means nothing; give a smaller error, or a slope"
        )
    return found


class SampledError(NamedTuple):
    """The mean over bidders of exact less smoothed utilities, and its standard error."""

    mean: Float[Array, ""]
    standard_error: Float[Array, ""]


def sampled_smoothing_error(game: SmoothedAuction, bid: BidFunction, *, key: Array, batch: int) -> SampledError:
    """As `smoothing_error`, from `batch` random games: for any auction."""
    require_double_precision()
    values = game.sample(key, batch).astype(float)
    bids = bid(values)
    errors = jnp.mean(game.exact_utilities(values, bids) - game.utilities(values, bids), axis=-1)
    return SampledError(jnp.mean(errors), jnp.std(errors) / jnp.sqrt(batch))


def _functions(game: SmoothedAuction, bid):
    """The value at a level, and both its slope and that of the bid; elementwise."""
    if not game.symmetric:
        raise EquilibriumError("bidders' values have different distributions: errors of smoothing are known for one of all")
    value = game.quantile_functions()[0]

    def slopes(level):
        return jax.jvp(lambda u: (value(u), bid(value(u))), (level,), (jnp.ones_like(level),))[1]

    return value, slopes


def _price(game: SmoothedAuction, own, other):
    if game.payment == "own":
        return jnp.broadcast_to(own, other.shape) if game.pricing == "first" else other
    return jnp.maximum(own, other) if game.pricing == "first" else jnp.minimum(own, other)


def _graded() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] that resolve every scale near 0."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    ends = np.concatenate([[0.0], 2.0 ** np.arange(1.0 - _PANELS, 1.0)])
    half, middle = 0.5 * np.diff(ends), 0.5 * (ends[1:] + ends[:-1])
    return (middle[:, None] + half[:, None] * nodes).ravel(), np.outer(half, weights).ravel()


_GRADED = _graded()
_LEVELS = np.concatenate([_GRADED[0], 2.0 - _GRADED[0][::-1]]) / 2, np.concatenate([_GRADED[1], _GRADED[1][::-1]]) / 2
