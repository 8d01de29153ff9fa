"""The law of the bids of many auctions.

In auction i the log scale of values is s_i ~ N(l_i, τ²), where l_i follows from what is observed of the auction and the rest is
known to its bidders alone, so that their bids move together. Given s_i, bids y are independent, with the density g(y | s) of
the equilibrium. Their highest possible value then depends on parameters, and the likelihood is not regular; over s_i it is.
With y₁ the highest bid,

    p(y₁ … y_n) = ∫ φ_τ(s − l) g(y₁ | s) Π_{j ≥ 2} g(y_j | s) ds

is a sum over nodes of s that move with y₁ (`nodes_of` of the table), so that none of its terms jumps: no bid is above y₁.

| symbol | code             | meaning                                                       | unit                            |
|--------|------------------|---------------------------------------------------------------|---------------------------------|
| y      | `bid`            | log bids                                                      | log money, or less log reserve  |
| s      | `scale`          | log median of the values in one auction                       | the same                        |
| l      | `location`       | its mean, given the auction's covariates                      | the same                        |
| τ      | `auction_spread` | its standard deviation                                        | 1                               |
| q      | `LogQuantile`    | log values less s, at a normal score                          | 1                               |
| g, G   | `log_density`, `log_probability` | density and distribution function of log bids | 1                               |
| n      | `bidders`        | bidders of an auction, who know their number                  | 1                               |
| ρ      | `risk`           | exponent of their utility, 1 being risk neutral               | 1                               |
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.special
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, Int

from walras.calibrate.auctions.bid_table import BidTable
from walras.calibrate.law import Law, repeated

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_SCORES, _WEIGHTS = scipy.special.ndtri(0.5 * (_NODES + 1.0)), 0.5 * _WEIGHTS


class Ordered(NamedTuple):
    """Which rows are which bids: those of an auction are together, the highest first.

    `first` the row of each auction's highest bid, `others` all other rows; of each row the number of its `auction` (from 0) and
    its `rank` in it (from 1); of each auction its `kind`, a row of the table, and its number of `bidders`.
    """

    first: Int[Array, " auctions"]
    others: Int[Array, " lower"]
    auction: Int[Array, " rows"]
    rank: Int[Array, " rows"]
    kind: Int[Array, " auctions"]
    bidders: Float[Array, " auctions"]


class BidLaw(Law):
    """Log bids, a row each; `unit` (rows,) is what the table's log bids are relative to, such as a log reserve.

    `location` (auctions,) is l, relative to the same. Bids may be missing from some rank on. The density is that of bids in
    order: n! / (n − m)! times that of m of n named bidders.
    """

    pytree_data_fields = ("table", "location", "auction_spread", "unit", "ordered")

    def __init__(
        self,
        table: BidTable,
        location: Float[Array, " auctions"],
        auction_spread: Float[Array, ""],
        unit: Float[Array, " rows"],
        ordered: Ordered,
    ):
        self.table, self.location, self.auction_spread = table, location, auction_spread
        self.unit, self.ordered = unit, ordered
        super().__init__(unit.shape[0], 1)

    def _sums(self, rows: Float[Array, "lower nodes"]) -> Float[Array, "auctions nodes"]:
        """Over the bids of each auction but its highest."""
        auction = self.ordered.auction[self.ordered.others]
        return jax.ops.segment_sum(rows, auction, self.location.shape[0], indices_are_sorted=True)

    def _highest(self, bid) -> tuple[Float[Array, "auctions nodes"], Float[Array, "auctions nodes"]]:
        """Log scales, and the logs of their weights, if `bid` is the highest of each auction."""
        return self.table.nodes_of(self.ordered.kind, bid, self.location, self.auction_spread)

    def _lower(self, bid, scale) -> Float[Array, "lower nodes"]:
        """log g of every bid but the highest, at its auction's log scales."""
        rows = self.ordered.others
        auction = self.ordered.auction[rows]
        return self.table.log_density(self.ordered.kind[auction], bid[rows], scale[auction])

    def _relative(self, value):
        """Bids in the table's unit, and whether they are seen."""
        seen = ~jnp.isnan(value[..., 0])
        return jnp.where(seen, value[..., 0] - self.unit, 0.0), seen

    def log_prob(self, value):
        bid, seen = self._relative(value)
        ordered, lower_seen = self.ordered, seen[self.ordered.others]
        scale, density = self._highest(bid[ordered.first])
        density = density + self._sums(jnp.where(lower_seen[:, None], self._lower(bid, scale), 0.0))
        count = 1 + jax.ops.segment_sum(lower_seen.astype(int), ordered.auction[ordered.others], ordered.first.size)
        density = density + self._unseen(bid, scale, count)
        orders = gammaln(ordered.bidders + 1.0) - gammaln(ordered.bidders - count + 1.0)
        return jnp.sum(jnp.where(seen[ordered.first], logsumexp(density, axis=1) + orders, 0.0))

    def _unseen(self, bid, scale, count) -> Float[Array, "auctions nodes"]:
        """The log probability that the bids beyond the first `count` are below these."""
        missing = (self.ordered.bidders - count)[:, None]

        def looked_up():
            return missing * self.table.log_probability(self.ordered.kind, bid[self.ordered.first + count - 1], scale)

        # Where all bids are seen, the table need not be asked.
        return jax.lax.cond(jnp.any(missing > 0), looked_up, lambda: jnp.zeros_like(scale))

    def one_step_ahead(self, value):
        """The law of each bid given the higher ones of its auction (auctions do not tell of each other)."""
        bid, _ = self._relative(value)
        ordered = self.ordered
        is_first, kind, bidders = ordered.rank == 1, ordered.kind[ordered.auction], ordered.bidders[ordered.auction]
        scale, density = self._highest(bid[ordered.first])
        rows = jnp.zeros((bid.size, scale.shape[1])).at[ordered.others].set(self._lower(bid, scale))
        # Sums over the bids of an auction that are before a row: over all rows before, less those of earlier auctions.
        before = jnp.cumsum(rows, axis=0) - rows
        before = before - before[ordered.first][ordered.auction]
        scale, density = scale[ordered.auction], density[ordered.auction]
        ceiling, remaining = jnp.concatenate([bid[:1], bid[:-1]]), bidders - ordered.rank + 1.0
        lower = remaining[:, None] * self.table.log_probability(kind, ceiling, scale)
        return NextBid(
            self.table,
            self.location[ordered.auction],
            self.auction_spread,
            self.unit,
            kind=kind,
            is_first=is_first,
            scale=scale,
            ceiling=ceiling,
            remaining=remaining,
            log_weights=jax.nn.log_softmax(density + before + lower, axis=1),
        )

    def leave_one_out(self, value):
        """log density of each bid given all others of its auction, as that of a named bidder.

        Where no others are seen, that of the highest bid.
        """
        bid, _ = self._relative(value)
        ordered = self.ordered
        scale, density = self._highest(bid[ordered.first])
        lower = self._lower(bid, scale)
        every = density + self._sums(lower)
        among = ordered.auction[ordered.others]
        whole = logsumexp(every, axis=1)
        alone = jax.ops.segment_sum(jnp.ones(among.size), among, ordered.first.size) == 0
        # Without the highest, the second takes its place.
        second = bid[jnp.where(alone, ordered.first, ordered.first + 1)]
        scale, density = self._highest(second)
        is_third = (ordered.rank[ordered.others] > 2)[:, None]
        rest = logsumexp(density + self._sums(jnp.where(is_third, self._lower(bid, scale), 0.0)), axis=1)
        of_highest = logsumexp(every + self._unseen(bid, scale, jnp.ones(alone.size, int)), axis=1) + jnp.log(ordered.bidders)
        found = jnp.zeros(bid.size).at[ordered.first].set(jnp.where(alone, of_highest, whole - rest))
        found = found.at[ordered.others].set(whole[among] - logsumexp(every[among] - lower, axis=1))
        return jnp.where(jnp.isnan(value[..., 0]), jnp.nan, found)

    def _draw(self, key):
        scale_key, quantile_key = jax.random.split(key)
        ordered, shape = self.ordered, self.location.shape
        scale = self.location + self.auction_spread * jax.random.normal(scale_key, shape)
        # The highest of n uniforms is V^{1/n}, the next below it V^{1/(n−1)} times that, …
        remaining = ordered.bidders[ordered.auction] - ordered.rank + 1.0
        logs = jnp.log(jax.random.uniform(quantile_key, remaining.shape)) / remaining
        total = jnp.cumsum(logs)
        quantile = jnp.exp(total - (total - logs)[ordered.first][ordered.auction])
        return (self.unit + self.table.quantile(ordered.kind[ordered.auction], quantile, scale[ordered.auction]))[:, None]

    def sample(self, key, sample_shape=()):
        return repeated(self._draw, key, sample_shape)


class NextBid(dist.Distribution):
    """The next lower bid of an auction, (rows,), or its highest where `is_first`.

    Where not `is_first`, `scale` (rows, nodes) are log scales, with the logs of their probabilities given the higher bids,
    `ceiling` is the bid before, and `remaining` the number of bids below that; where it is, the number of bids.
    """

    support = dist.constraints.real
    pytree_data_fields = (
        "table",
        "location",
        "auction_spread",
        "unit",
        "kind",
        "is_first",
        "scale",
        "ceiling",
        "remaining",
        "log_weights",
    )

    def __init__(self, table, location, auction_spread, unit, *, kind, is_first, scale, ceiling, remaining, log_weights):
        self.table, self.location, self.auction_spread, self.unit = table, location, auction_spread, unit
        self.kind, self.is_first, self.scale = kind, is_first, scale
        self.ceiling, self.remaining, self.log_weights = ceiling, remaining, log_weights
        super().__init__(batch_shape=location.shape)

    def _below(self, bid):
        """log of the probability that one bid is below, given that it is below the ceiling; and of the latter."""
        ceiling = self.table.log_probability(self.kind, self.ceiling, self.scale)
        return self.table.log_probability(self.kind, jnp.minimum(bid, self.ceiling), self.scale) - ceiling, ceiling

    def log_prob(self, value):
        bid, remaining = value - self.unit, self.remaining[:, None]
        scale, weight = self.table.nodes_of(self.kind, bid, self.location, self.auction_spread)
        others = (remaining - 1.0) * self.table.log_probability(self.kind, bid, scale)
        as_first = logsumexp(jnp.log(remaining) + weight + others, axis=1)
        below, ceiling = self._below(bid)
        density = self.table.log_density(self.kind, bid, self.scale) - ceiling + (remaining - 1.0) * below
        as_next = logsumexp(jnp.log(remaining) + self.log_weights + density, axis=1)
        return jnp.where(self.is_first, as_first, jnp.where(bid <= self.ceiling, as_next, -jnp.inf))

    def cdf(self, value):
        bid, remaining = value - self.unit, self.remaining[:, None]
        # A sum over quantiles of the log scale, which the probability does not jump in.
        scale = self.location[:, None] + self.auction_spread * jnp.asarray(_SCORES)[None]
        as_first = jnp.exp(remaining * self.table.log_probability(self.kind, bid, scale)) @ jnp.asarray(_WEIGHTS)
        as_next = jnp.sum(jnp.exp(self.log_weights + remaining * self._below(bid)[0]), axis=1)
        return jnp.where(self.is_first, as_first, as_next)

    def sample(self, key, sample_shape=()):
        return repeated(self._draw, key, sample_shape) if sample_shape else self._draw(key)

    def _draw(self, key):
        node_key, scale_key, quantile_key = jax.random.split(key, 3)
        node = jax.random.categorical(node_key, self.log_weights)[:, None]
        any_scale = self.location + self.auction_spread * jax.random.normal(scale_key, self.location.shape)
        scale = jnp.where(self.is_first, any_scale, jnp.take_along_axis(self.scale, node, axis=1)[:, 0])
        ceiling = self.table.log_probability(self.kind, self.ceiling, scale[:, None])[:, 0]
        fresh = jnp.log(jax.random.uniform(quantile_key, self.location.shape)) / self.remaining
        return self.unit + self.table.quantile(self.kind, jnp.exp(jnp.where(self.is_first, 0.0, ceiling) + fresh), scale)
