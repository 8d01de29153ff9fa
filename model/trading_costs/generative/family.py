"""Markets between two: those that one training covers."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from walras.model.equilibrium import EquilibriumError, is_traced
from walras.model.trading_costs.parameters import Parameters

FIELDS = ("risk_aversion", "endowment", "trading_cost", "supply", "payoff_drift", "payoff_volatility")
_ON_SEGMENT = 1e-6  # relative to a field's size: how far rounding may take a market from the family


class Family(eqx.Module):
    """The box of markets between `low` and `high`: each field that differs moves along the segment between its two values,
    all its entries together; geometrically where every entry keeps its sign.

    A place (fields that differ,) is between -1, at `low`, and 1, at `high`.
    """

    low: Parameters
    high: Parameters
    varying: tuple[str, ...] = eqx.field(static=True)
    geometric: tuple[bool, ...] = eqx.field(static=True)

    @classmethod
    def between(cls, low: Parameters, high: Parameters) -> "Family":
        for market in (low, high):
            if not isinstance(market, Parameters):
                raise EquilibriumError(f"a market is {market!r}: give a TradingCosts")
        if is_traced((low, high)):
            raise EquilibriumError("the markets are known only to a JAX transformation: train outside it, on plain numbers")
        if low.power != high.power:
            raise EquilibriumError(f"powers are {low.power} and {high.power}: a family of markets has one")
        shapes = jnp.shape(low.endowment), jnp.shape(high.endowment)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1:
            raise EquilibriumError(f"endowments have shapes {shapes[0]} and {shapes[1]}: give one asset, and as many agents")
        varying = tuple(name for name in FIELDS if np.any(np.asarray(getattr(low, name)) != np.asarray(getattr(high, name))))
        signed = [np.asarray(getattr(low, name)) * np.asarray(getattr(high, name)) for name in varying]
        return cls(low, high, varying, tuple(bool(np.all(product > 0)) for product in signed))

    def at(self, place: Float[Array, " places"]) -> Parameters:
        """The market there."""
        market = self.low
        for coordinate, name, geometric in zip(0.5 * (place + 1.0), self.varying, self.geometric, strict=True):
            low, high = self._ends(name)
            value = low * (high / low) ** coordinate if geometric else low + coordinate * (high - low)
            market = eqx.tree_at(lambda tree, name=name: getattr(tree, name), market, value)
        return market

    def place(self, market: Parameters) -> Float[Array, " places"]:
        """Where a market is; differentiable in the market's parameters."""
        places = []
        for name, geometric in zip(self.varying, self.geometric, strict=True):
            low, high = self._ends(name)
            value = jnp.asarray(getattr(market, name), float)
            if geometric:
                ends, here = jnp.log(jnp.abs(high / low)), jnp.log(jnp.maximum(value / low, 1e-300))
            else:
                ends, here = high - low, value - low
            differs = ends != 0
            shares = jnp.sum(jnp.where(differs, here / jnp.where(differs, ends, 1.0), 0.0)) / jnp.sum(differs)
            places.append(2.0 * shares - 1.0)
        return jnp.stack(places) if places else jnp.zeros(0)

    def contains(self, market: Parameters) -> Bool[Array, ""]:
        """Whether a market is in the family."""
        place = self.place(market)
        nearest = self.at(place)
        near = [jnp.max(jnp.abs(place), initial=0.0) <= 1.0 + _ON_SEGMENT]
        for name in FIELDS:
            value, wanted = jnp.asarray(getattr(market, name)), jnp.asarray(getattr(nearest, name))
            size = jnp.maximum(jnp.max(jnp.abs(wanted)), 1e-300)
            near.append(jnp.max(jnp.abs(value - wanted)) <= _ON_SEGMENT * size)
        return jnp.all(jnp.stack(near))

    def _ends(self, name):
        return jnp.asarray(getattr(self.low, name), float), jnp.asarray(getattr(self.high, name), float)
