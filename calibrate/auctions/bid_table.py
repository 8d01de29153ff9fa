"""The equilibrium distribution of log bids, tabulated so that a likelihood can look it up.

In an auction of n bidders with values V = Q(U), log bids are w(U) = log β(Q(U)), which increase. With k = (n − 1) / risk the
equilibrium has dβ/du = k (Q − β) / u, so the density and the distribution function of log bids at w(u) are

    g = u / (k (Q/β − 1)),   G = u,

exactly, without a derivative of β. Both are tabulated against log(w(1) − w), which near the highest bid is about log(1 − u).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float, Int

from walras.calibrate.auctions.cubics import between, evaluate, hermite
from walras.calibrate.auctions.values import LogQuantile

# Knots are normal scores of u, evenly spaced: 1e-9 of values are below the lowest, as many above the highest.
_KNOTS = np.linspace(-6.0, 6.0, 97)
_HIGHEST_CELL = -12  # the knot at which cells end: 3e-6 of values are above
_CELLS = 160
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1.0), 0.5 * _WEIGHTS

type PerNode = Float[Array, "rows nodes"]


class BidTable(eqx.Module):
    """Log bids of auctions of several kinds, by their number of bidders, less the log scale of an auction's values.

    `nodes`: log bids at quantiles of the highest of the bids.
    """

    bidders: Float[Array, " kinds"]
    nodes: Float[Array, "kinds nodes"]
    knots: Float[Array, "kinds knots"]
    slopes: Float[Array, "kinds knots"]
    top: Float[Array, " kinds"]
    near: Float[Array, " kinds"]
    spacing: Float[Array, " kinds"]
    densities: Float[Array, "kinds cells 4"]
    probabilities: Float[Array, "kinds cells 4"]

    def nodes_of(
        self,
        kind: Int[Array, " rows"],
        bid: Float[Array, " rows"],
        location: Float[Array, " rows"],
        spread: Float[Array, ""],
    ) -> tuple[PerNode, PerNode]:
        """Log scales s at which to know the other bids of an auction whose highest is `bid`, and the logs of their weights.

        The weighted sum of f(s) is ∫ φ(s) g(bid | s) f(s) ds, for a normal density φ, and f that vanishes when some other
        bid is higher. At s(u) = bid − w(u), the bidder at u bids that; u = t^{1/n}, t uniform, is that of the highest of n.
        """
        scale = bid[:, None] - self.nodes[kind]
        log_weight = jss.norm.logpdf(scale, location[:, None], spread) + jnp.log(jnp.asarray(_WEIGHTS))[None]
        bidders = self.bidders[kind][:, None]
        return scale, log_weight - jnp.log(bidders) - (bidders - 1.0) * (jnp.log(jnp.asarray(_NODES))[None] / bidders)

    def log_density(self, kind: Int[Array, " rows"], log_bid: Float[Array, " rows"], scale: PerNode) -> PerNode:
        """log g of a bid at log scales. Beyond the highest bid it is that of the highest."""
        return self._lookup(self.densities, kind, log_bid[:, None] - scale)

    def log_probability(self, kind: Int[Array, " rows"], log_bid: Float[Array, " rows"], scale: PerNode) -> PerNode:
        """log G of a bid at log scales."""
        return jnp.minimum(self._lookup(self.probabilities, kind, log_bid[:, None] - scale), 0.0)

    def quantile(
        self, kind: Int[Array, " rows"], quantile: Float[Array, " rows"], scale: Float[Array, " rows"]
    ) -> Float[Array, " rows"]:
        """The log bid at a quantile and a log scale."""
        cells = hermite(self.knots, self.slopes * (_KNOTS[1] - _KNOTS[0]))
        place = (ndtri(quantile) - _KNOTS[0]) / (_KNOTS[1] - _KNOTS[0])
        return scale + evaluate(cells, kind[:, None], place[:, None])[:, 0]

    def _lookup(self, cells, kind, standard):
        below = jnp.maximum(self.top[kind][:, None] - standard, self.near[kind][:, None])
        return evaluate(cells, kind[:, None], jnp.log(below / self.near[kind][:, None]) / self.spacing[kind][:, None])


def quantiles(bidders: Float[Array, " kinds"]) -> Float[Array, "kinds quantiles"]:
    """The quantiles of values at which `tabulate` wants bids: its knots, then its nodes."""
    nodes = jnp.asarray(_NODES)[None] ** (1.0 / bidders[:, None])
    knots = jnp.broadcast_to(ndtr(jnp.asarray(_KNOTS)), (bidders.size, _KNOTS.size))
    return jnp.concatenate([knots, nodes], axis=1)


def tabulate(
    values: LogQuantile,
    bids: Float[Array, "kinds quantiles"],
    bidders: Float[Array, " kinds"],
    risk: Float[Array, ""],
) -> BidTable:
    """The table of bids at `quantiles(bidders)`, for values whose log quantile function is `values`."""
    log_bids = jnp.log(bids)
    return jax.vmap(lambda log_bid, n: _of_kind(values, log_bid, n, risk))(log_bids, bidders)


def _of_kind(values, log_bid, bidders, risk) -> BidTable:
    z, shade = jnp.asarray(_KNOTS), (bidders - 1.0) / risk
    knots, nodes = log_bid[: z.size], log_bid[z.size :]
    value, value_slope = jax.vmap(jax.value_and_grad(values))(z)
    gap = value - knots
    hazard = jnp.exp(jss.norm.logpdf(z) - jss.norm.logcdf(z))  # d log u / dz
    slopes = hazard * shade * jnp.expm1(gap)
    log_density = jss.norm.logcdf(z) - jnp.log(shade) - jnp.log(jnp.expm1(gap))
    density_slope = hazard + (value_slope - slopes) / jnp.expm1(-gap)
    top, near = knots[-1], knots[-1] - knots[_HIGHEST_CELL]
    spacing = jnp.log((top - knots[0]) / near) / _CELLS
    below = near * jnp.exp(spacing * jnp.arange(_CELLS + 1))
    per_place = -below * spacing  # dw / d(place)

    def cells(value, slope):
        found, change = between(knots, value, slope / slopes, top - below)
        return hermite(found, change * per_place)

    return BidTable(
        bidders=bidders,
        nodes=nodes,
        knots=knots,
        slopes=slopes,
        top=top,
        near=near,
        spacing=spacing,
        densities=cells(log_density, density_slope),
        probabilities=cells(jss.norm.logcdf(z), hazard),
    )
