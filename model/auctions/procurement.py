"""The procurement auction, in which the lowest bid wins: a first-price auction in the mirror.

A bidder with cost c bids as one with value −c does: levels u of costs become 1 − u, and bids change their sign.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.bidding import first_order_error, first_price_bid, mean_of_highest, status_of
from walras.model.auctions.compiled import compiled
from walras.model.auctions.values import (
    ends,
    probability,
    quantile,
    require_bidders,
    require_quantiles,
    require_reserve,
    require_risk,
)
from walras.model.equilibrium import Status, checked, require_double_precision


class ProcurementAuction(eqx.Module):
    """n bidders with independent private costs; the lowest bid wins and is paid to the winner.

    `costs`: a distribution with `cdf` and `icdf`, or an elementwise quantile function. `bidders` n ≥ 2. `risk`: the exponent ρ
    in (0, 1] of a bidder's utility (b − c)^ρ. `reserve`: the highest bid that the buyer takes (money), or None; then unbounded
    costs need a finite mean. Everything can be differentiated, parameters inside `costs` too.

    >>> equilibrium = ProcurementAuction(lambda u: 1.0 + u, bidders=2).solve()
    >>> [round(float(b), 6) for b in equilibrium.bid(jnp.array([1.0, 1.5, 2.0]))]
    [1.5, 1.75, 2.0]
    """

    functions: ClassVar = {"costs": 1}  # fields that may be functions, and of how many numbers

    costs: Any
    bidders: Float[Array, ""] | int
    risk: Float[Array, ""] | float = 1.0
    reserve: Float[Array, ""] | float | None = None

    def __check_init__(self):
        require_quantiles("costs", self.costs)
        require_bidders(self.bidders)
        require_risk(self.risk)
        require_reserve(self.reserve)

    @property
    def exponent(self) -> Float[Array, ""]:
        """k = (n − 1)/ρ, to which the chance to win matters."""
        return (jnp.asarray(self.bidders, float) - 1.0) / self.risk

    @property
    def entry(self) -> Float[Array, ""]:
        """The probability that a bidder does not bid."""
        return jnp.zeros(()) if self.reserve is None else 1.0 - probability(self.costs)(jnp.asarray(self.reserve, float))

    def mirrored(self, level):
        """−Q(1 − u): the quantiles of minus the costs."""
        return -quantile(self.costs)(1.0 - level)

    def solve(self, *, throw: bool = True) -> "ProcurementEquilibrium":
        """The symmetric equilibrium, exact but for a quadrature with fixed nodes.

        `residual` is the error of the bidders' first-order condition (relative to costs). Raises `EquilibriumError`, unless
        `throw=False` or under a JAX transformation, for a reserve that no cost meets, for bids that are not finite and for
        costs that the quadrature does not integrate; then `status` tells.
        """
        require_double_precision()
        return checked(ProcurementEquilibrium(self, *self._judged()), throw)

    @compiled
    def _judged(self):
        unjudged = ProcurementEquilibrium(self, jnp.zeros(()), Status.solved)
        residual = first_order_error(self.mirrored, unjudged._mirrored_bid, self.exponent, self.entry)
        return residual, status_of(residual, (self.entry >= 1.0, Status.reserve_not_met))


class ProcurementEquilibrium(eqx.Module):
    """Bids of a `ProcurementAuction`, which increase with costs. Arguments of methods may have any shape."""

    auction: ProcurementAuction
    residual: Float[Array, ""]
    status: Status

    def _mirrored_bid(self, level):
        auction = self.auction
        reserve = 0.0 if auction.reserve is None else auction.reserve

        def bid(one):
            return first_price_bid(auction.mirrored, auction.exponent, one, auction.entry, -reserve)

        return jnp.vectorize(bid)(level)

    @compiled
    def bid_at(self, level) -> Float[Array, "..."]:
        """The bid (money) of the bidder whose cost is the quantile at a level; NaN for levels that do not bid."""
        level = jnp.asarray(level, float)
        entry = self.auction.entry
        bid = -self._mirrored_bid(jnp.clip(1.0 - level, entry, 1.0))
        return jnp.where((level >= 0.0) & (1.0 - level >= entry), bid, jnp.nan)

    @compiled
    def bid(self, cost) -> Float[Array, "..."]:
        """The bid (money) at a cost.

        NaN for a cost above the reserve or above the support, which does not bid; a cost below the support bids what the lowest
        one does.
        """
        cost = jnp.asarray(cost, float)
        auction = self.auction
        limit = ends(auction.costs)[1] if auction.reserve is None else auction.reserve
        bid = -self._mirrored_bid(jnp.clip(1.0 - probability(auction.costs)(cost), auction.entry, 1.0))
        return jnp.where(cost <= limit, bid, jnp.nan)

    @property
    @compiled
    def sale_probability(self) -> Float[Array, ""]:
        """The probability that somebody bids."""
        return 1.0 - self.auction.entry**self.auction.bidders

    @compiled
    def expected_payment(self, buyer_value=0.0) -> Float[Array, ""]:
        """What a risk-neutral buyer expects to pay (money): the lowest bid, and `buyer_value` where nobody bids."""
        paid = -mean_of_highest(self._mirrored_bid, self.auction.bidders, self.auction.entry)
        return paid + buyer_value * (1.0 - self.sale_probability)
