"""Many block-tridiagonal systems at once, by elimination along the diagonal (the Thomas algorithm)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Scans with the systems in the trailing axes: on CPU many times faster than a batch of library tridiagonal solves.


def factorise(diagonal: Float[Array, "steps ... blocks blocks"], neighbour: Float[Array, "blocks blocks"]):
    """What `solve` needs of symmetric systems with these diagonal blocks and one constant block beside the diagonal.

    For blocks of size one, `diagonal` is (steps, ...) and `neighbour` a scalar. The systems must be positive definite.
    """
    if jnp.ndim(neighbour) == 0:

        def eliminate(previous, block):
            inverse = 1.0 / (block - neighbour**2 * previous)
            return inverse, inverse
    else:

        def eliminate(previous, block):
            inverse = jnp.linalg.inv(block - neighbour @ previous @ neighbour.T)
            return inverse, inverse

    return jax.lax.scan(eliminate, jnp.zeros_like(diagonal[0]), diagonal)[1]


def solve(inverses, neighbour, right: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
    """The solutions for right sides (steps, ..., blocks), or (steps, ...) for blocks of size one."""

    def apply(block, vector):
        return block * vector if jnp.ndim(neighbour) == 0 else jnp.einsum("...ij,...j->...i", block, vector)

    def forward(previous, row):
        inverse, side = row
        now = apply(inverse, side - apply(neighbour, previous))
        return now, now

    def backward(later, row):
        inverse, now = row
        solution = now - apply(inverse, apply(jnp.transpose(neighbour), later))
        return solution, solution

    zero = jnp.zeros_like(right[0])
    partial = jax.lax.scan(forward, zero, (inverses, right))[1]
    return jax.lax.scan(backward, zero, (inverses, partial), reverse=True)[1]
