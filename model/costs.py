"""Costs of holding a position: ready-made ones, and what solvers ask of any cost."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.formula import Formula


class Quadratic(eqx.Module):
    """The cost x ↦ ½ strength (x − centre)², or ½ (x − centre)ᵀ strength (x − centre) for several assets.

    `strength` is in money / (unit² · time) for a running cost and money / unit² for a terminal one; `centre` is in
    units of the asset. For several assets `strength` is (assets, assets), symmetric and positive semi-definite, and
    positions are (..., assets). A strength of zero is no cost.
    """

    strength: Float[Array, ""] | Float[Array, "assets assets"] | float
    centre: Float[Array, ""] | Float[Array, " assets"] | float = 0.0

    def __call__(self, position):
        away = position - jnp.broadcast_to(jnp.asarray(self.centre), jnp.shape(position))
        cost = 0.5 * away * times(self.strength, away)
        return cost if jnp.ndim(self.strength) == 0 else jnp.sum(cost, axis=-1)


class DoubleWell(eqx.Module):
    """The cost x ↦ ½ strength (x − left)² (x − right)²: agents prefer either of two positions, and not what lies between.

    `strength` is in money / (unit⁴ · time) for a running cost and money / unit⁴ for a terminal one; `left` and `right` in
    units. Not convex.
    """

    strength: Float[Array, ""] | float
    left: Float[Array, ""] | float
    right: Float[Array, ""] | float

    def __call__(self, position):
        return 0.5 * self.strength * (position - self.left) ** 2 * (position - self.right) ** 2


class Barrier(eqx.Module):
    """The convex cost x ↦ −strength log[4 (x − low)(high − x)/(high − low)²], infinite outside (low, high).

    Zero in the middle; a soft limit on positions, for markets without noise. `strength` is in money / time for a running
    cost and money for a terminal one; `low` and `high` in units.
    """

    strength: Float[Array, ""] | float
    low: Float[Array, ""] | float
    high: Float[Array, ""] | float

    def __call__(self, position):
        share = (position - self.low) * (self.high - position) * 4 / (self.high - self.low) ** 2
        inside = share > 0
        # A safe argument outside keeps derivatives finite there.
        return jnp.where(inside, -self.strength * jnp.log(jnp.where(inside, share, 1.0)), jnp.inf)


def as_function(cost, assets: int | None, dtype):
    """The cost as a function of one agent's position; no cost is the constant zero.

    Parameters of ready-made costs become arrays: numbers would be constants of a program that is compiled for each value.
    Functions become formulas.
    """
    cost = Quadratic(0.0) if cost is None else cost
    if not isinstance(cost, eqx.Module):
        return Formula.of(cost, jnp.zeros(() if assets is None else (assets,), dtype))
    if not isinstance(cost, Quadratic | DoubleWell | Barrier):
        return cost
    if assets is not None and isinstance(cost, Quadratic) and jnp.ndim(cost.strength) == 0:
        cost = Quadratic(cost.strength * jnp.eye(assets, dtype=dtype), cost.centre)
    return jax.tree.map(lambda parameter: jnp.asarray(parameter, dtype), cost)


def slope(cost, position):
    """V′ at each position (...,) of one asset."""
    return jax.vmap(jax.grad(cost))(position.ravel()).reshape(position.shape)


def curvature(cost, position):
    """V″ at each position (...,) of one asset."""
    return jax.vmap(jax.grad(jax.grad(cost)))(position.ravel()).reshape(position.shape)


def values(cost, position):
    """V at each position (...,) of one asset, for a cost written for one position."""
    return jax.vmap(cost)(position.ravel()).reshape(position.shape)


def expected(mass: Float[Array, "... points"], cost: Float[Array, "... points"]) -> Float[Array, "..."]:
    """The mean of a cost, or of its derivative, over a population: nobody is where it is infinite or not a number."""
    return jnp.sum(mass * jnp.where(jnp.isfinite(cost), cost, 0.0), axis=-1)


def times(strength: Float[Array, "..."] | float, position: Float[Array, "..."]) -> Float[Array, "..."]:
    """A strength, a number or for several assets a symmetric matrix, times positions (…,) or (…, assets)."""
    return strength * position if jnp.ndim(strength) == 0 else position @ strength


def convex(trading_cost: Float[Array, "..."] | float, *costs: Quadratic) -> Array:
    """Whether an agent who pays these quadratic costs has a convex problem."""
    semidefinite = []
    for cost in costs:
        low, high = _extreme_eigenvalues(cost.strength)
        semidefinite.append(low >= -_EIGENVALUE_ROUNDING * high)
    return jnp.all(jnp.stack([_extreme_eigenvalues(trading_cost)[0] > 0, *semidefinite]))


_EIGENVALUE_ROUNDING = 1e-12  # of the largest; a semi-definite matrix has a smallest one of ±1e-16 of that


def _extreme_eigenvalues(strength):
    strength = jnp.asarray(strength)
    if strength.ndim == 0:
        return strength, strength
    found = jnp.linalg.eigvalsh(jax.lax.stop_gradient(strength))
    return found[0], found[-1]
