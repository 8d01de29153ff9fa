"""What the equilibria of auctions among symmetric bidders offer."""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.bidding import mean_of_highest
from walras.model.auctions.compiled import compiled
from walras.model.auctions.values import probability, quantile
from walras.model.equilibrium import Status


class SymmetricAuction(eqx.Module):
    """Bidders with independent private values from one distribution, and a reserve that bids must reach."""

    functions: ClassVar = {"values": 1}  # fields that may be functions, and of how many numbers

    values: eqx.AbstractVar[Any]
    bidders: eqx.AbstractVar[Float[Array, ""] | int]
    reserve: eqx.AbstractVar[Any]

    @property
    def entry(self) -> Float[Array, ""]:
        """The level of the reserve among values: the probability that a bidder does not bid."""
        return jnp.zeros(()) if self.reserve is None else probability(self.values)(jnp.asarray(self.reserve, float))

    @property
    def lowest(self) -> Float[Array, ""]:
        """The lowest value that bids."""
        lowest = quantile(self.values)(jnp.zeros(()))
        return lowest if self.reserve is None else jnp.maximum(lowest, self.reserve)


class SymmetricEquilibrium(eqx.Module):
    """Bids that increase with values. Arguments of methods may have any shape, which is that of the result."""

    auction: eqx.AbstractVar[Any]
    residual: eqx.AbstractVar[Float[Array, ""]]
    status: eqx.AbstractVar[Status]

    @abstractmethod
    def _bid_from(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        """Bids at levels from `entry` to 1."""

    @compiled
    def bid_at(self, level) -> Float[Array, "..."]:
        """The bid (money) of the bidder whose value is the quantile at a level; NaN for levels that do not bid."""
        level = jnp.asarray(level, float)
        entry = self.auction.entry
        return jnp.where((level >= entry) & (level <= 1.0), self._bid_from(jnp.clip(level, entry, 1.0)), jnp.nan)

    @compiled
    def bid(self, value) -> Float[Array, "..."]:
        """The bid (money) at a value.

        NaN for a value below the reserve or below the support, which does not bid; a value above the support bids what the
        highest one does.
        """
        value = jnp.asarray(value, float)
        return jnp.where(value >= self.auction.lowest, self._bid_from(self._level(value)), jnp.nan)

    def _level(self, value):
        return jnp.clip(probability(self.auction.values)(value), self.auction.entry, 1.0)

    @property
    @compiled
    def sale_probability(self) -> Float[Array, ""]:
        """The probability that somebody bids."""
        return 1.0 - self.auction.entry**self.auction.bidders

    @compiled
    def expected_revenue(self, seller_value=0.0) -> Float[Array, ""]:
        """What a risk-neutral seller expects (money): payments, and `seller_value` for a good that is not sold."""
        return self._payments() + seller_value * (1.0 - self.sale_probability)

    def _payments(self) -> Float[Array, ""]:
        """The expected payment of the winner."""
        return mean_of_highest(self._bid_from, self.auction.bidders, self.auction.entry)
