"""Log bids where a reserve binds, relative to it, tabulated over the log scale of values.

All who bid have values V = exp(s + q(z)) of at least the reserve, 1, and know how many they are. So z is at least z_r, where
s + q(z_r) = 0, with the normal law cut there, and levels among bidders are u = 1 − Φ(−z)/Φ(−z_r). The bid's excess over the
reserve, D = β − 1, is the mean of V − 1 below,

    D(u) u^k = ∫₀^u (V − 1) k t^{k−1} dt,   k = (n − 1) / risk,

summed panel by panel, and log bids y = log(1 + D) have the density g = u / (k (V/β − 1)), which at the reserve is
(k + 1)/k times the hazard rate of log values. Tables are over s, and over y on a logarithmic scale of its distance to the
highest bid: both ends of the range of y, 0 and the highest bid, are then lines of the grid, whatever s.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float, Int

from walras.calibrate.auctions.bid_table import PerNode
from walras.calibrate.auctions.cubics import (
    between,
    bicubic,
    differences,
    evaluate,
    evaluate_bicubic,
    hermite,
)
from walras.calibrate.auctions.values import LogQuantile
from walras.model.auctions.values import inverse

_LOWEST, _BEYOND = -8.0, 6.0  # normal scores: 6e-16 of values are below, and 1e-9 of those of bidders above
_FARTHEST = 12.0  # the highest score at which the reserve may cut
_KNOTS = 64  # panels of scores
_HIGHEST_CELL = -11  # the knot at which cells of y end
_SCALES, _CELLS = 64, 80
_PANEL = np.polynomial.legendre.leggauss(4)
_NARROW = 1e-13
# Nodes of s above that at which the highest bid is the highest possible; near it the density rises fast, so they crowd.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_NODES, _WEIGHTS = (0.5 * (_NODES + 1.0)) ** 2, 0.5 * _WEIGHTS * (_NODES + 1.0)
_SMALLEST = -600.0  # the log of a probability
_WIDER = 1.4  # the spread of the nodes relative to that of s: bids may say that s is far from its mean


class ReserveTable(eqx.Module):
    """Log bids relative to the reserve, by number of bidders and log scale; the same functions as of a `BidTable`."""

    lowest: Float[Array, ""]
    spacing: Float[Array, ""]
    top: Float[Array, "kinds scales 4"]
    reach: Float[Array, "kinds scales 4"]
    scale_of_top: Float[Array, "kinds cells 4"]
    top_range: Float[Array, "kinds 2"]
    densities: Float[Array, "kinds scales cells 16"]
    probabilities: Float[Array, "kinds knots knots"]
    probability_slopes: Float[Array, "kinds knots knots"]

    def nodes_of(
        self,
        kind: Int[Array, " rows"],
        bid: Float[Array, " rows"],
        location: Float[Array, " rows"],
        spread: Float[Array, ""],
    ) -> tuple[PerNode, PerNode]:
        """Log scales s at which to know the other bids of an auction whose highest is `bid`, and the logs of their weights.

        They are quantiles of a normal law, wider than that of s, above the s at which `bid` is the highest possible.
        """
        low, high = self.top_range[kind, 0], self.top_range[kind, 1]
        place = jnp.log(jnp.clip(bid, low, high) / low) / jnp.log(high / low) * self.scale_of_top.shape[1]
        first = evaluate(self.scale_of_top, kind, place)
        wide = _WIDER * spread
        above = log_ndtr((location - first) / wide)
        share = jnp.exp(jnp.maximum(above[:, None] + jnp.log1p(-jnp.asarray(_NODES))[None], _SMALLEST))
        score = -ndtri(share)
        scale = location[:, None] + wide * score
        log_weight = 0.5 * (1.0 - _WIDER**2) * score**2 + np.log(_WIDER) + above[:, None] + jnp.log(jnp.asarray(_WEIGHTS))[None]
        return scale, log_weight + self.log_density(kind, bid, scale)

    def log_density(self, kind: Int[Array, " rows"], log_bid: Float[Array, " rows"], scale: PerNode) -> PerNode:
        """log g of a bid at log scales. Beyond the highest bid it is that of the highest."""
        return evaluate_bicubic(self.densities, kind[:, None], *self._places(kind, log_bid, scale))

    def log_probability(self, kind: Int[Array, " rows"], log_bid: Float[Array, " rows"], scale: PerNode) -> PerNode:
        """log G of a bid at log scales."""
        # Cells are made here: a likelihood of all bids does not need them.
        cells = jax.vmap(_cells)(self.probabilities, self.probability_slopes)
        found = evaluate_bicubic(cells, kind[:, None], *self._places(kind, log_bid, scale))
        return jnp.log(jnp.clip(found, np.finfo(float).tiny ** 0.5, 1.0))

    def quantile(
        self, kind: Int[Array, " rows"], quantile: Float[Array, " rows"], scale: Float[Array, " rows"]
    ) -> Float[Array, " rows"]:
        """The log bid at a quantile and a log scale, by halving its range."""
        row = (scale - self.lowest) / self.spacing
        top = evaluate(self.top, kind, jnp.clip(row, 0.0, self.top.shape[1]))
        return inverse(lambda bid: jnp.exp(self.log_probability(kind, bid, scale[:, None])[:, 0]), quantile, 0.0, top)

    def _places(self, kind, log_bid, scale):
        """Where in the tables a bid is at log scales: the row, and the column from the highest bid to the reserve."""
        row = jnp.clip((scale - self.lowest) / self.spacing, 0.0, self.top.shape[1])
        top, reach = (evaluate(cells, kind[:, None], row) for cells in (self.top, self.reach))
        # reach is the log of the highest bid over the distance at which columns start
        below = jnp.clip((top - log_bid[:, None]) / top, jnp.exp(-reach), 1.0)
        return row, (jnp.log(below) + reach) / reach * self.densities.shape[2]


def tabulate(
    values: LogQuantile,
    bidders: Float[Array, " kinds"],
    risk: Float[Array, ""],
    lowest: Float[Array, ""],
    highest: Float[Array, ""],
) -> ReserveTable:
    """The table for log scales, relative to the log reserve, from `lowest` to `highest`.

    Scales at which one in 1e33 bids count as that.
    """
    lowest = jnp.maximum(lowest, -values(jnp.full((), _FARTHEST)))
    highest = jnp.maximum(highest, lowest + 1.0)
    spacing = (highest - lowest) / _SCALES
    scales = lowest + spacing * jnp.arange(_SCALES + 1)
    cuts = jax.vmap(lambda scale: _cut(values, scale))(scales)

    def of_kind(number):
        column = jax.vmap(lambda scale, cut: _column(values, scale, cut, (number - 1.0) / risk))(scales, cuts)
        top, reach, density, density_slope, probability, probability_slope = column
        share, ratio = jnp.linspace(0.0, 1.0, _SCALES + 1), jnp.log(top[-1] / top[0])
        found, change = between(top, scales, spacing / differences(top), top[0] * jnp.exp(ratio * share))
        change = change * top[0] * jnp.exp(ratio * share) * ratio / _SCALES
        return {
            "top": hermite(top, differences(top)),
            "reach": hermite(reach, differences(reach)),
            "scale_of_top": hermite(found, change),
            "top_range": jnp.stack([top[0], top[-1]]),
            "densities": _cells(density, density_slope),
            "probabilities": probability,
            "probability_slopes": probability_slope,
        }

    return ReserveTable(lowest=lowest, spacing=spacing, **jax.vmap(of_kind)(bidders))


def _cells(value, slope) -> Float[Array, "scales cells 16"]:
    return bicubic(value, slope, differences(value), differences(slope))


def _cut(values: LogQuantile, scale) -> Float[Array, ""]:
    """The normal score of the lowest value that bids, exp(scale + q) = 1."""

    def halve(ends):
        middle = 0.5 * (ends[0] + ends[1])
        below = jax.lax.stop_gradient(values(middle) + scale) < 0.0
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    ends = (jnp.full((), _LOWEST), jnp.full((), _FARTHEST))
    score = jax.lax.while_loop(lambda ends: ends[1] - ends[0] > _NARROW, halve, ends)[0]
    inside = (score > _LOWEST + 1e-9) & (score < _FARTHEST - 1e-9)
    # Two steps of Newton from the root have its first and second derivatives.
    for _ in range(2):
        value, slope = jax.value_and_grad(values)(score)
        score = jnp.where(inside, score - (value + scale) / slope, score)
    return score


def _column(values: LogQuantile, scale, cut, shade):
    """For one log scale: the highest log bid, the reach of columns, and log g and G with their slopes, along columns."""
    end = jnp.sqrt(jnp.maximum(cut, 0.0) ** 2 + _BEYOND**2)
    step = (end - cut) / _KNOTS
    z = cut + step * jnp.arange(_KNOTS + 1)
    level, excess = _level(z, cut), jnp.expm1(scale + jax.vmap(values)(z))
    bid_excess = _excess(values, scale, cut, z, level, shade)
    bid_excess = bid_excess.at[0].set(jnp.maximum(excess[0], 0.0))
    log_bid, hazard = jnp.log1p(bid_excess), _density(z, cut)
    value_slope = jax.vmap(jax.grad(values))(z)
    gap = (excess - bid_excess)[1:]
    density = jnp.log(level[1:]) - jnp.log(shade) - jnp.log(gap) + log_bid[1:]
    at_reserve = jnp.log((shade + 1.0) / shade) + jnp.log(hazard[0] / value_slope[0])
    density = jnp.append(at_reserve, density)
    bid_slope = hazard * jnp.exp(-density)  # in z
    slope = hazard[1:] / level[1:] - ((1.0 + excess) * value_slope - (1.0 + bid_excess) * bid_slope)[1:] / gap + bid_slope[1:]
    slope = jnp.append(2.0 * (density[1] - density[0]) / step - slope[0], slope)
    top, near = log_bid[-1], log_bid[-1] - log_bid[_HIGHEST_CELL]
    reach = jnp.log(top / near)
    below = near * jnp.exp(reach * jnp.linspace(0.0, 1.0, _CELLS + 1))
    per_place = -below * reach / _CELLS
    found, change = between(log_bid, density, slope / bid_slope, top - below)
    probability, probable = between(log_bid, level, jnp.exp(density), top - below)
    return top, reach, found, change * per_place, probability, probable * per_place


def _excess(values, scale, cut, z, level, shade):
    """D at the scores z: that of the knot before, which counts for less, and the panel's own integral."""
    nodes, weights = (jnp.asarray(part)[None] for part in _PANEL)
    half = 0.5 * (z[1:] - z[:-1])[:, None]
    inside = z[:-1, None] + half * (1.0 + nodes)
    level_inside, above = _level(inside, cut), level[1:, None]
    value = jnp.expm1(scale + jax.vmap(jax.vmap(values))(inside))
    own = jnp.sum(weights * half * shade * (level_inside / above) ** (shade - 1.0) * value * _density(inside, cut) / above, 1)
    kept = (level[:-1] / level[1:]) ** shade
    first = jnp.maximum(jnp.expm1(scale + values(z[0])), 0.0)
    own = own.at[0].add(kept[0] * first)
    carried = jax.lax.associative_scan(lambda one, two: (one[0] * two[0], two[0] * one[1] + two[1]), (kept.at[0].set(0.0), own))
    return jnp.append(first, carried[1])


def _level(z, cut):
    """u: levels among those who bid. Where the reserve cuts nobody off, those of all."""
    cutting = cut > _LOWEST + 1e-9
    # In each half by what is small there.
    lower = (ndtr(z) - jnp.where(cutting, ndtr(cut), 0.0)) / ndtr(-cut)
    upper = -jnp.expm1(jnp.minimum(log_ndtr(-z) - jnp.where(cutting, log_ndtr(-cut), 0.0), 0.0))
    return jnp.where(z < 0.0, lower, upper)


def _density(z, cut):
    """du / dz."""
    return jnp.exp(jss.norm.logpdf(z) - log_ndtr(-cut))
