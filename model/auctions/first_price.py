"""The first-price auction among symmetric bidders."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.bidding import first_order_error, first_price_bid, status_of
from walras.model.auctions.compiled import compiled
from walras.model.auctions.symmetric import SymmetricAuction, SymmetricEquilibrium
from walras.model.auctions.values import (
    HIGHEST,
    inverse,
    quantile,
    require_bidders,
    require_quantiles,
    require_reserve,
    require_risk,
)
from walras.model.equilibrium import Status, checked, require_double_precision


class FirstPriceAuction(SymmetricAuction):
    """n bidders with independent private values; the highest bid wins and is paid.

    `values`: a distribution with `cdf` and `icdf`, or an elementwise quantile function; unbounded values are allowed. `bidders`
    n ≥ 2. `risk`: the exponent ρ in (0, 1] of a bidder's utility (v − b)^ρ, 1 being risk neutral. `reserve`: the lowest bid
    that the seller takes (money), or None. Everything can be differentiated, parameters inside `values` too.

    >>> equilibrium = FirstPriceAuction(lambda u: 2.0 * u, bidders=2).solve()
    >>> [round(float(b), 6) for b in equilibrium.bid(jnp.array([0.5, 1.0, 2.0]))]
    [0.25, 0.5, 1.0]
    """

    values: Any
    bidders: Float[Array, ""] | int
    risk: Float[Array, ""] | float = 1.0
    reserve: Float[Array, ""] | float | None = None

    def __check_init__(self):
        require_quantiles("values", self.values)
        require_bidders(self.bidders)
        require_risk(self.risk)
        require_reserve(self.reserve)

    @property
    def exponent(self) -> Float[Array, ""]:
        """k = (n − 1)/ρ, to which the chance to win matters."""
        return (jnp.asarray(self.bidders, float) - 1.0) / self.risk

    def solve(self, *, throw: bool = True) -> "FirstPriceEquilibrium":
        """The symmetric equilibrium, exact but for a quadrature with fixed nodes.

        `residual` is the error of the bidders' first-order condition (relative to values). Raises `EquilibriumError`, unless
        `throw=False` or under a JAX transformation, for a reserve that no value meets, for bids that are not finite and for
        values that the quadrature does not integrate; then `status` tells.
        """
        require_double_precision()
        return checked(FirstPriceEquilibrium(self, *self._judged()), throw)

    @compiled
    def _judged(self):
        unjudged = FirstPriceEquilibrium(self, jnp.zeros(()), Status.solved)
        residual = first_order_error(quantile(self.values), unjudged._bid_from, self.exponent, self.entry)
        return residual, status_of(residual, (self.entry >= 1.0, Status.reserve_not_met))


class FirstPriceEquilibrium(SymmetricEquilibrium):
    """Bids of a `FirstPriceAuction`: β(Q(u)) = ∫₀¹ k t^{k−1} max(Q(ut), r) dt."""

    auction: FirstPriceAuction
    residual: Float[Array, ""]
    status: Status

    def _bid_from(self, level):
        auction = self.auction
        reserve = 0.0 if auction.reserve is None else auction.reserve

        def bid(one):
            return first_price_bid(quantile(auction.values), auction.exponent, one, auction.entry, reserve)

        return jnp.vectorize(bid)(level)

    @compiled
    def value(self, bid) -> Float[Array, "..."]:
        """The value (money) behind a bid; NaN for a bid that no value makes."""
        bid = jnp.asarray(bid, float)
        entry = self.auction.entry
        level = inverse(self._bid_from, bid, entry, HIGHEST)
        possible = (bid >= self._bid_from(entry)) & (bid <= self._bid_from(jnp.asarray(HIGHEST)))
        return jnp.where(possible, quantile(self.auction.values)(level), jnp.nan)
