"""The game: n bidders with private values for items that are sold at the same time, smoothed or exact."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.values import implements, quantile
from walras.model.equilibrium import EquilibriumError, is_traced

_CHOICES = {"pricing": ("first", "second"), "payment": ("published", "own"), "allocation": ("softmax", "sigmoid")}
_LOWEST_LEVEL = 2.0**-25  # of single-precision levels, which can otherwise be 0, where a quantile may be -inf


class SmoothedAuction(eqx.Module):
    """Simultaneous sealed-bid auctions of `items` among `bidders`, whose smoothed form has derivatives everywhere.

    Values are additive over items: a bidder has a value for each, drawn independently over bidders and items, and bids for
    each. `values` says from what: anything with an `icdf`, or a quantile function; a sequence of these has one for each
    bidder; none is uniform on [0, 1]. In the smoothed game the highest bid does not win all of an item; bidder i has the share

        softmax:  x_i = exp(b_i/λ) / Σ_j exp(b_j/λ)           sigmoid:  x_i = 1 / (1 + exp((max_{j≠i} b_j − b_i)/λ))

    and the utility Σ_items x_i (v_i − p_i). `smoothing` λ has the unit of bids. The two allocations are one for two bidders;
    for more the sigmoid sees the highest rival only, and its shares need not add up to 1. With a "published"
    `payment` everyone pays the price that the exact auction publishes: the highest bid of all when `pricing` is "first", the
    second highest when it is "second". With "own" everyone pays what winning would cost: the own bid, or the rivals'
    highest. Source: Kohring, Pieroth and Bichler (ICML 2023), who use the softmax and the published price.

    >>> auction = SmoothedAuction(2, smoothing=0.1)
    >>> values, bids = jnp.array([[0.8], [0.4]]), jnp.array([[0.4], [0.3]])
    >>> [round(float(x), 4) for x in auction.utilities(values, bids)]
    [0.2924, 0.0]
    >>> [round(float(x), 4) for x in auction.exact_utilities(values, bids)]
    [0.4, 0.0]
    """

    bidders: int = eqx.field(static=True)
    values: Any = None
    items: int = eqx.field(static=True, default=1)
    pricing: Literal["first", "second"] = eqx.field(static=True, default="first")
    payment: Literal["published", "own"] = eqx.field(static=True, default="published")
    smoothing: Float[Array, ""] | float = 0.01
    allocation: Literal["softmax", "sigmoid"] = eqx.field(static=True, default="softmax")

    def __check_init__(self):
        for name, least in (("bidders", 2), ("items", 1)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise EquilibriumError(f"{name} is {number!r}: give a whole number of at least {least}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise EquilibriumError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(map(repr, choices))}")
        if not is_traced(self.smoothing) and not 0.0 < float(self.smoothing) < float("inf"):
            raise EquilibriumError(f"smoothing is {self.smoothing}: give a positive number, such as 0.01 of the largest value")
        if isinstance(self.values, Sequence) and len(self.values) != self.bidders:
            raise EquilibriumError(f"values has {len(self.values)} distributions for {self.bidders} bidders: give one for each")
        self.quantile_functions()

    @property
    def symmetric(self) -> bool:
        """Whether all bidders' values have one distribution."""
        return not isinstance(self.values, Sequence)

    def quantile_functions(self) -> list[Callable]:
        """Of the value of each bidder, or of the one distribution of all."""
        return [_quantile_function(values) for values in ([self.values] if self.symmetric else self.values)]

    def values_at(self, levels: Float[Array, "*batch bidders items"]) -> Float[Array, "*batch bidders items"]:
        """The values whose quantile levels these are."""
        functions = self.quantile_functions()
        if self.symmetric:
            return functions[0](levels)
        return jnp.stack([function(levels[..., bidder, :]) for bidder, function in enumerate(functions)], axis=-2)

    def sample(self, key: Array, batch: int) -> Float[Array, "batch bidders items"]:
        """Random values of `batch` games, in single precision."""
        shape = (batch, self.bidders, self.items)
        return self.values_at(jax.random.uniform(key, shape, jnp.float32, _LOWEST_LEVEL)).astype(jnp.float32)

    def utilities(self, values, bids, against=None) -> Float[Array, "*batch bidders"]:
        """Of the smoothed game, for values and bids (…, bidders, items).

        Each bidder's rivals make the bids `against`, of the same shape, if they are given, and `bids` otherwise.
        """
        rivals = self._rivals(values, bids, against)
        top = jnp.max(rivals, axis=-2)
        share = jax.nn.sigmoid((bids - self._contested(rivals, top)) / self.smoothing)
        return jnp.sum(share * (values - self._price(bids, rivals, top)), axis=-1)

    def exact_utilities(self, values, bids, against=None) -> Float[Array, "*batch bidders"]:
        """As `utilities`, of the auction as it is: the highest bid wins, and equal ones share."""
        rivals = self._rivals(values, bids, against)
        top = jnp.max(rivals, axis=-2)
        tied = jnp.sum(rivals == bids[..., None, :], axis=-2)
        share = jnp.where(bids > top, 1.0, jnp.where(bids == top, 1.0 / (1.0 + tied), 0.0))
        return jnp.sum(share * (values - (bids if self.pricing == "first" else top)), axis=-1)

    def _rivals(self, values, bids, against) -> Float[Array, "*batch bidders rivals items"]:
        against = bids if against is None else against
        wanted = (self.bidders, self.items)
        for name, given in (("values", values), ("bids", bids), ("against", against)):
            if jnp.shape(given)[-2:] != wanted or jnp.shape(given) != jnp.shape(values):
                raise EquilibriumError(
                    f"{name} has shape {jnp.shape(given)}: give (…, {self.bidders}, {self.items}), bidders and items last, "
                    "for values and bids alike"
                )
        return jnp.stack([jnp.roll(against, -other, axis=-2) for other in range(1, self.bidders)], axis=-2)

    def _contested(self, rivals, top):
        """The bid at which a bidder's share is one half."""
        if self.allocation == "sigmoid" or self.bidders == 2:
            return top
        return self.smoothing * jax.nn.logsumexp(rivals / self.smoothing, axis=-2)

    def _price(self, bids, rivals, top):
        if self.payment == "own":
            return bids if self.pricing == "first" else top
        if self.pricing == "first":
            return jnp.maximum(bids, top)
        price = jnp.minimum(bids, top)
        if self.bidders == 2:
            return price
        return jnp.maximum(price, jax.lax.top_k(jnp.moveaxis(rivals, -2, -1), 2)[0][..., 1])


def _quantile_function(values) -> Callable:
    if values is None:
        return lambda level: level
    function = getattr(values, "icdf", values)
    if not callable(function):
        raise EquilibriumError(f"values is {values!r}: give a distribution with an icdf, or a quantile function")
    return function if function is values or implements("icdf", values) else quantile(values)
