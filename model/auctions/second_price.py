"""The second-price auction among symmetric bidders."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.bidding import nodes, status_of
from walras.model.auctions.compiled import compiled
from walras.model.auctions.symmetric import SymmetricAuction, SymmetricEquilibrium
from walras.model.auctions.values import quantile, require_bidders, require_quantiles, require_reserve
from walras.model.equilibrium import Status, checked, require_double_precision


class SecondPriceAuction(SymmetricAuction):
    """n bidders with independent private values; the highest bid wins and pays the second highest, or the reserve.

    Fields as those of `FirstPriceAuction`. Whatever the attitude to risk, bidders bid their values (Vickrey).

    >>> round(float(SecondPriceAuction(lambda u: u, bidders=3).solve().expected_revenue()), 6)
    0.5
    """

    values: Any
    bidders: Float[Array, ""] | int
    reserve: Float[Array, ""] | float | None = None

    def __check_init__(self):
        require_quantiles("values", self.values)
        require_bidders(self.bidders)
        require_reserve(self.reserve)

    def solve(self, *, throw: bool = True) -> "SecondPriceEquilibrium":
        """The equilibrium in which bids are values; `residual` is zero.

        Raises `EquilibriumError`, unless `throw=False` or under a JAX transformation, for a reserve that no value meets.
        """
        require_double_precision()
        return checked(SecondPriceEquilibrium(self, *self._judged()), throw)

    @compiled
    def _judged(self):
        residual = jnp.zeros(())
        return residual, status_of(residual, (self.entry >= 1.0, Status.reserve_not_met))


class SecondPriceEquilibrium(SymmetricEquilibrium):
    """Bids of a `SecondPriceAuction`: values."""

    auction: SecondPriceAuction
    residual: Float[Array, ""]
    status: Status

    def _bid_from(self, level):
        return quantile(self.auction.values)(level)

    @compiled
    def bid(self, value) -> Float[Array, "..."]:
        """The value itself; NaN below the reserve, where a bidder does not bid."""
        value = jnp.asarray(value, float)
        return jnp.where(value >= self.auction.lowest, value, jnp.nan)

    def _payments(self):
        """The second highest value has density n(n−1)(1−u)u^{n−2}; where it is below the reserve, the reserve is paid."""
        auction, rivals = self.auction, jnp.asarray(self.auction.bidders, float) - 1.0
        level, weights = nodes(auction.entry**rivals, rivals)
        second = auction.bidders * jnp.sum(weights * (1.0 - level) * quantile(auction.values)(level))
        if auction.reserve is None:
            return second
        return second + auction.bidders * (1.0 - auction.entry) * auction.entry**rivals * auction.reserve
