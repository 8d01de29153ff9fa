"""Rates of trading, and the level at which they clear."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ITERATIONS = 14  # of Newton's method between bounds; measured: 1e-6 of the values' spread at q = 1.1, rounding from 1.25 on


def rate(marginal: Float[Array, "..."], cost: Float[Array, ""], power: float) -> Float[Array, "..."]:
    """sgn(y)(|y|/λ)^{1/(q−1)}: how fast to trade where trading faster costs λ|φ̇|^{q−1} at the margin."""
    return jnp.sign(marginal) * (jnp.abs(marginal) / cost) ** (1.0 / (power - 1.0))


def clearing_level(values: Float[Array, " agents"], power: float) -> Float[Array, ""]:
    """The c at which Σ sgn(vⁿ − c)|vⁿ − c|^{1/(q−1)} = 0: agents who value trading at vⁿ and pay c then clear the market."""
    if power == 2.0 or values.size == 2:
        return jnp.mean(values)
    exponent = 1.0 / (power - 1.0)
    fixed = jax.lax.stop_gradient(values)

    def slopes(level):
        """|v − c|^{p−1}, to which what each agent's rate does when c falls is proportional."""
        return jnp.abs(fixed - level) ** (exponent - 1.0)

    def narrow(_, bounds):
        level, low, high = bounds
        slope = slopes(level)
        excess = jnp.sum((fixed - level) * slope)
        low, high = jnp.where(excess > 0, level, low), jnp.where(excess > 0, high, level)
        newton = level + excess / (exponent * jnp.maximum(jnp.sum(slope), jnp.finfo(fixed.dtype).tiny))
        return jnp.where((low < newton) & (newton < high), newton, 0.5 * (low + high)), low, high

    start = jnp.mean(fixed), jnp.min(fixed), jnp.max(fixed)
    level, _, _ = jax.lax.fori_loop(0, _ITERATIONS, narrow, start)
    # The derivative of the level, by the implicit function theorem.
    weights = slopes(level) / jnp.maximum(jnp.sum(slopes(level)), jnp.finfo(fixed.dtype).tiny)
    return level + jnp.sum(weights * (values - fixed))
