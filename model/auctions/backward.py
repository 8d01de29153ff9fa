"""Where the search for asymmetric bids starts: integration of the first-order conditions from the top bid down.

From a top bid that is too high, values fall to bids before these reach the lowest value; from one that is too low they
never do. Such an error grows on the way down, while differences between groups die out, often within a hundredth of the
top bid. Steps are therefore finest at the top and implicit in these differences, by a W-method of second order
(Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.7); and the result is used as far down as
the paths on both sides of the true top bid agree.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_STEPS, _LAST = 96, 0.1  # as far down as this part of the top bid
_PARTS = 1.0 - (1.0 - _LAST) * np.linspace(0.0, 1.0, _STEPS + 1) ** 2  # of the top bid, where steps end
_CANDIDATES, _ROUNDS = 16, 8
_AGREED = 1e-2  # by which L may differ between both paths
_IMPLICIT = 1.0 - np.sqrt(0.5)  # the W-method's parameter with which it is L-stable
ENDED = -1e-9  # L above which a group's bids have ended
_FIRST = 0.1 * ENDED  # L at the top bid, where densities may be infinite
_LEAST = 1e-6  # margin, over the range of values, below which a bidder does not wish to win


class Path(NamedTuple):
    """Increasing bids (over the range of values), L of all groups at them, and the first bid at which L can be used."""

    bid: Float[Array, " nodes"]
    log_levels: Float[Array, "nodes groups"]
    first: Float[Array, ""]


def integrate(groups: Any) -> Path:
    """The path from the highest top bid from which values stay above bids."""
    heights = jnp.asarray(np.linspace(0.0, 1.0, _CANDIDATES + 2)[1:-1])

    def narrowed(_, bracket):
        low, high = bracket
        tops = low + (high - low) * heights
        survives = jax.vmap(lambda top: _down(groups, top)[1])(tops)
        last = jnp.max(jnp.where(survives, tops, low))
        return last, jnp.min(jnp.where(tops > last, tops, high))

    low, high = jax.lax.fori_loop(0, _ROUNDS, narrowed, (jnp.zeros(()), _second_highest(groups)))
    below, above = _down(groups, low)[0], _down(groups, high)[0]
    apart = jnp.max(jnp.abs(below - above), axis=1) > _AGREED
    bid = low * jnp.asarray(_PARTS)
    used = jnp.argmax(apart)  # the first on the way down where they are apart
    used = jnp.where(jnp.any(apart), jnp.maximum(used - 1, 1), bid.size - 1)
    return Path(bid[::-1], below[::-1], bid[used])


def _second_highest(groups):
    """The second highest bidder's highest value, which top bids are below, over the range of values."""
    highest = (groups.highest - groups.lowest) / groups.span
    order = jnp.argsort(-highest)
    return highest[order][jnp.argmax(jnp.cumsum(groups.counts[order]) >= 2.0)]


def _down(groups, top) -> tuple[Float[Array, "nodes groups"], Bool[Array, ""]]:
    """L from the top bid down, and whether values stay above bids."""

    def step(state, parts):
        level, alive = state
        part, following = parts
        length = top * (part - following)

        first = _Slopes.at(groups, level, top * part)
        move = first.implicit(-first.slope, length)
        second = _Slopes.at(groups, level + length * move, top * following)
        turn = first.implicit(-second.slope - 2.0 * move, length)
        alive = alive & (first.margin > 0) & (second.margin > 0)
        level = jnp.where(alive, jnp.minimum(level + length * (1.5 * move + 0.5 * turn), _FIRST), level)
        return (level, alive), level

    start = jnp.full_like(groups.counts, _FIRST)
    parts = jnp.asarray(_PARTS)
    (_, alive), path = jax.lax.scan(step, (start, jnp.asarray(True)), (parts[:-1], parts[1:]))
    return jnp.concatenate([start[None], path]), alive


class _Slopes(NamedTuple):
    """L′ of all groups, zero for those whose bids end below, and the least margin φ − b of those that bid."""

    slope: Float[Array, " groups"]
    margin: Float[Array, ""]
    pace: Float[Array, " groups"]  # at which a group's 1/(φ − b) falls in its L
    shares: Float[Array, " groups"]  # of bidders in each group

    @staticmethod
    def at(groups, log_level, bid):
        """Those that bid have the largest margins, and S is the least of what any such number of groups gives."""

        def margins(level):
            return groups.margins(level[:, None], bid[None])[:, 0]

        margin, gain = jax.jvp(margins, (log_level,), (jnp.ones_like(log_level),))
        pull = 1.0 / jnp.maximum(margin, _LEAST)
        order = jnp.argsort(-margin)
        counts = groups.counts[order]
        bidders = jnp.cumsum(counts)
        sums = jnp.cumsum(counts * pull[order]) / jnp.where(bidders > 1.0, bidders - 1.0, 1.0)
        slope = jnp.maximum(jnp.min(jnp.where(bidders > 1.0, sums, jnp.inf)) - pull, 0.0)
        bids = (slope > 0) | (log_level < ENDED)
        counts = jnp.where(bids, groups.counts, 0.0)
        return _Slopes(
            slope,
            jnp.min(jnp.where(bids, margin, jnp.inf)),
            jnp.where(bids & (margin > _LEAST), gain * pull**2, 0.0),
            counts / jnp.maximum(jnp.sum(counts), 1.0),
        )

    def implicit(self, right, length):
        """(1 − γhJ)⁻¹ of something, where J holds what makes differences between groups die out, and no growth of errors.

        J = shares·pace − diag(pace): with N in the place of N − 1, what all groups share neither grows nor dies out.
        """
        kept = 1.0 / (1.0 + _IMPLICIT * length * self.pace)
        mixed = jnp.sum(self.shares * (1.0 - kept) * right) / jnp.maximum(1.0 - jnp.sum(self.shares * (1.0 - kept)), _LEAST)
        return kept * (right + jnp.where(self.shares > 0, mixed, 0.0))
