"""The all-pay auction among symmetric bidders."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.bidding import first_order_error, first_price_bid, nodes, status_of
from walras.model.auctions.compiled import compiled
from walras.model.auctions.symmetric import SymmetricAuction, SymmetricEquilibrium
from walras.model.auctions.values import ends, quantile, require_bidders, require_quantiles
from walras.model.equilibrium import EquilibriumError, Status, checked, is_traced, require_double_precision


class AllPayAuction(SymmetricAuction):
    """n risk-neutral bidders with independent private values; the highest bid wins and everybody pays what they bid.

    Fields as those of `FirstPriceAuction`.

    >>> equilibrium = AllPayAuction(lambda u: u, bidders=3).solve()
    >>> [round(float(b), 6) for b in equilibrium.bid(jnp.array([0.5, 1.0]))]
    [0.083333, 0.666667]
    """

    values: Any
    bidders: Float[Array, ""] | int

    def __check_init__(self):
        require_quantiles("values", self.values)
        require_bidders(self.bidders)
        lowest = ends(self.values)[0]
        if not is_traced(lowest) and lowest < 0:
            raise EquilibriumError(
                f"values start at {lowest}: everybody pays in an all-pay auction, so give values of at least 0"
            )

    @property
    def reserve(self) -> None:
        """There is none."""

    @property
    def exponent(self) -> Float[Array, ""]:
        """The number of rivals."""
        return jnp.asarray(self.bidders, float) - 1.0

    def solve(self, *, throw: bool = True) -> "AllPayEquilibrium":
        """The symmetric equilibrium, exact but for a quadrature with fixed nodes.

        `residual` is the error of the bidders' first-order condition (relative to values). Raises `EquilibriumError`, unless
        `throw=False` or under a JAX transformation, for bids that are not finite; then `status` tells.
        """
        require_double_precision()
        return checked(AllPayEquilibrium(self, *self._judged()), throw)

    @compiled
    def _judged(self):
        unjudged = AllPayEquilibrium(self, jnp.zeros(()), Status.solved)
        residual = first_order_error(quantile(self.values), unjudged._if_winning, self.exponent)
        return residual, status_of(residual)


class AllPayEquilibrium(SymmetricEquilibrium):
    """Bids of an `AllPayAuction`: β(Q(u)) = ∫₀ᵘ Q(s) (n−1) s^{n−2} ds, what a first-price bidder expects to pay."""

    auction: AllPayAuction
    residual: Float[Array, ""]
    status: Status

    def _if_winning(self, level):
        """The bid over the probability to win with it."""
        auction = self.auction
        return jnp.vectorize(lambda one: first_price_bid(quantile(auction.values), auction.exponent, one))(level)

    def _bid_from(self, level):
        return level**self.auction.exponent * self._if_winning(level)

    def _payments(self):
        """Everybody's bids: n times the mean of one."""
        levels, weights = nodes(0.0, 1.0)
        return self.auction.bidders * jnp.sum(weights * self._bid_from(levels))
