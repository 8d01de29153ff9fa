"""Costs of holding a position."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Quadratic(eqx.Module):
    """The cost x ↦ ½ strength (x − centre)².

    `strength` is in money / (unit² · time) for a running cost and money / unit² for a terminal one; `centre` is in
    units of the asset. A strength of zero is no cost.
    """

    strength: Float[Array, ""] | float
    centre: Float[Array, ""] | float = 0.0

    def __call__(self, position):
        return 0.5 * self.strength * (position - self.centre) ** 2


def convex(trading_cost: Float[Array, ""] | float, *costs: Quadratic) -> Array:
    """Whether an agent who pays these costs has a convex problem."""
    return jnp.all(jnp.stack([jnp.asarray(trading_cost) > 0, *(jnp.asarray(cost.strength) >= 0 for cost in costs)]))
