"""Rates of trading, and the level at which they clear."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ITERATIONS = 7  # of Newton's method from the middle, between bounds; measured with 300 values at any power: rounding


def rate(marginal: Float[Array, "..."], cost: Float[Array, ""], power: float) -> Float[Array, "..."]:
    """sgn(y)(|y|/λ)^{1/(q−1)}: how fast to trade where trading faster costs λ|φ̇|^{q−1} at the margin."""
    scaled = marginal / cost
    # A power of |y| would have no slope at y = 0, where rates with quadratic costs do.
    return scaled if power == 2.0 else jnp.sign(scaled) * jnp.abs(scaled) ** (1.0 / (power - 1.0))


def clearing_level(values: Float[Array, " agents"], power: float) -> Float[Array, ""]:
    """The c at which Σ sgn(vⁿ − c)|vⁿ − c|^{1/(q−1)} = 0: agents who value trading at vⁿ and pay c then clear the market."""
    if power == 2.0 or values.size == 2:
        return jnp.mean(values)
    exponent = 1.0 / (power - 1.0)
    fixed = jax.lax.stop_gradient(values)
    # Between -1 and 1, of which no power is too large or too small a number.
    low, high = jnp.min(fixed), jnp.max(fixed)
    middle, unit = 0.5 * (low + high), jnp.where(low < high, 0.5 * (high - low), 1.0)
    apart = (fixed - middle) / unit

    def slopes(level):
        """|v − c|^{p−1}, to which what each agent's rate does when c falls is proportional."""
        return jnp.abs(apart - level) ** (exponent - 1.0)

    def narrow(_, bounds):
        level, low, high = bounds
        slope = slopes(level)
        excess = jnp.sum((apart - level) * slope)
        low, high = jnp.where(excess > 0, level, low), jnp.where(excess > 0, high, level)
        newton = level + excess / (exponent * jnp.maximum(jnp.sum(slope), jnp.finfo(fixed.dtype).tiny))
        return jnp.where((low <= newton) & (newton <= high), newton, 0.5 * (low + high)), low, high

    ends = jnp.ones_like(middle)
    level, _, _ = jax.lax.fori_loop(0, _ITERATIONS, narrow, (jnp.zeros_like(middle), -ends, ends))
    # The derivative of the level, by the implicit function theorem.
    weights = slopes(level) / jnp.maximum(jnp.sum(slopes(level)), jnp.finfo(fixed.dtype).tiny)
    return middle + unit * level + jnp.sum(weights * (values - fixed))
