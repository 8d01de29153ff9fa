"""The published primal–dual iteration (Wang–Wu Fung–Nurbekyan, arXiv 2506.04169, Algorithm 1), to compare with.

Each agent i has rates α_k over the Euler steps x_{k+1} = x_k + h α_k and pays Σ_k h [½ c α² + V(x_k) + ϖ_k α_k] + Ψ(x_N).
An iteration takes a step down in every agent's rates, with the price held, and one up in the price, at extrapolated rates:

    α′ = α − τ_α (cα_k + ϖ_k + Σ_{j>k} h V′(x_j) + Ψ′(x_N)),   ϖ′ = ϖ + τ_ϖ (mean(2α′ − α) − Q).

The bracket is an agent's gradient over h, which is that in L²(0, T): the scaling of the authors' program (they ascend the
*mean* of agents' costs with the step τ_α M/h, M being the number of agents), in which the step sizes do not depend on M or h.
The authors' settings are the defaults: M = 100, N = 1000, τ_α = 1e-2, τ_ϖ = 1e-1, 10,000 iterations from ϖ = 0 and standard
normal rates. It needs τ_α less than 2 over the largest curvature, here 2 / (c + max V″ + max Ψ″), and τ_α τ_ϖ < 1.

`solve` takes gradients as published, by automatic differentiation of the costs. `solve_fused` iterates the same map with the
gradient written by hand: one pass forward and one back in time, fused with the updates, with nothing stored between that
can be carried. Passes that a case does not need (V = 0) are left out of both.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.price_formation.strategy import Paths

RATE_STEP, PRICE_STEP, ITERATIONS = 1e-2, 1e-1, 10_000
_UNROLL = 4  # time steps in the body of a compiled loop: the fastest of 4 … 32 here


class Published(eqx.Module):
    """Where the iteration ended, as `walras.model.verify` takes it: `price` (steps,), `positions` (steps + 1, agents)."""

    price: Float[Array, " steps"]
    positions: Float[Array, "nodes agents"]
    supply: Float[Array, " steps"]
    horizon: float = eqx.field(default=1.0, static=True)

    @property
    def initial(self):
        return self.positions[0]

    @property
    def weights(self):
        return jnp.full(self.initial.size, 1.0 / self.initial.size)

    @property
    def mean_position(self):
        return jnp.mean(self.initial) + jnp.cumsum(jnp.append(0.0, self.supply)) * self.horizon / self.supply.size

    def strategy(self) -> Paths:
        return Paths(self.positions)


def solve(holding, terminal, supply, initial, *, key: Array, iterations: int = ITERATIONS) -> Published:
    """Iterate on the game with these costs, supply (steps,) and first positions (agents,); `key` draws the first rates."""
    return _iterated(_published_update, holding, terminal, supply, initial, key, iterations)


def solve_fused(holding, terminal, supply, initial, *, key: Array, iterations: int = ITERATIONS) -> Published:
    """The same, with gradients by hand."""
    return _iterated(_fused_update, holding, terminal, supply, initial, key, iterations)


@eqx.filter_jit
def _iterated(update_of, holding, terminal, supply, initial, key, iterations):
    update = update_of(holding, terminal, supply, initial)
    first = jax.random.normal(key, (supply.size, initial.size)), jnp.zeros(supply.size)
    rates, price = jax.lax.fori_loop(0, iterations, lambda _, state: update(*state), first)
    moved = jnp.cumsum(jnp.concatenate([jnp.zeros((1, initial.size)), rates / supply.size]), axis=0)
    return Published(price, initial + moved, supply)


def _published_update(holding, terminal, supply, initial) -> Callable:
    h = 1.0 / supply.size

    def cost(rates, price):
        """The sum of agents' costs."""
        total = h * jnp.sum(0.5 * rates**2 + price[:, None] * rates)
        if holding is not None:
            moved = h * jnp.cumsum(rates[:-1], axis=0)
            total += h * (jnp.sum(holding(initial)) + jnp.sum(holding(initial + moved)))
        return total if terminal is None else total + jnp.sum(terminal(initial + h * jnp.sum(rates, axis=0)))

    def update(rates, price):
        new = rates - RATE_STEP / h * jax.grad(cost)(rates, price)
        return new, price + PRICE_STEP * (jnp.mean(2 * new - rates, axis=1) - supply)

    return update


def _fused_update(holding, terminal, supply, initial) -> Callable:
    h = 1.0 / supply.size

    def forward(position, rate):
        return position + h * rate, h * _slope(holding, position)

    def backward(later, row):
        rate, paid, supplied, force = row
        new = rate - RATE_STEP * (rate + paid + later)
        return later + force, (new, paid + PRICE_STEP * (jnp.mean(2 * new - rate) - supplied))

    def update(rates, price):
        if holding is None:
            later = _slope(terminal, initial + h * jnp.sum(rates, axis=0))
            new = rates - RATE_STEP * (rates + price[:, None] + later)
            return new, price + PRICE_STEP * (jnp.mean(2 * new - rates, axis=1) - supply)
        last, forces = jax.lax.scan(forward, initial, rates, unroll=_UNROLL)
        rows = (rates, price, supply, forces)
        return jax.lax.scan(backward, _slope(terminal, last), rows, reverse=True, unroll=_UNROLL)[1]

    return update


def _slope(cost, position):
    return jnp.zeros_like(position) if cost is None else jax.vmap(jax.grad(cost))(position)
