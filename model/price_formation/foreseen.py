"""One finite game with quadratic costs and a supply that every agent foresees: the price in closed form.

With V = η/2 (x−κ)² and Ψ = γ/2 (x−ζ)² the average of the agents' optimality conditions, cα + ϖ = p and ṗ = V′(x),
p(T) = −Ψ′(x_T), holds for any law of the initial positions and any noise, and clearing turns it into

    ϖ(t) = −c Q(t) − γ (X̄(T) − ζ) − η ∫ₜᵀ (X̄(s) − κ) ds.

Supply is constant on each of N equal steps; `price` is the mean of ϖ over each step, for which the sums below are exact.
Source: Gomes–Saúde, Dyn. Games Appl. 11 (2021), arXiv 1807.07088.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import Quadratic, convex
from walras.model.equilibrium import Status, status_of


class PathEquilibrium(eqx.Module):
    """The equilibrium of one finite game along a foreseen supply path.

    `times` (steps,) step midpoints; `price` (steps,) step means; `mean_position` (steps + 1,) at the nodes;
    `supply` (steps,) the step-mean rates it clears; `status` how the solve ended.
    """

    times: Float[Array, " steps"]
    price: Float[Array, " steps"]
    mean_position: Float[Array, " nodes"]
    supply: Float[Array, " steps"]
    horizon: Float[Array, ""]
    trading_cost: Float[Array, ""] | float
    holding: Quadratic
    terminal: Quadratic
    status: Status

    @property
    def residual(self) -> Float[Array, ""]:
        """The clearing error max |E[α*] − Q| (units / time): agents' best response to the price, solved afresh."""
        response = self.positions(self.mean_position[:1])[:, 0]
        rate = jnp.diff(response) / self._step
        return jnp.max(jnp.abs(rate - self.supply))

    def positions(self, initial: Float[Array, " agents"]) -> Float[Array, "nodes agents"]:
        """Optimal paths (steps + 1, agents), at the nodes, of agents who start at `initial` and face this price.

        Exact for paths that are linear within a step. With idiosyncratic noise they are the agents' mean paths.
        """
        initial = jnp.asarray(initial)
        diagonal, off_diagonal, right_side = self._best_response_system()
        padding = jnp.zeros(1)
        right_side = jnp.tile(right_side[:, None], initial.size).at[0].add(-off_diagonal * initial)
        off_diagonals = jnp.full(diagonal.size - 1, off_diagonal)
        nodes = jax.lax.linalg.tridiagonal_solve(
            jnp.append(padding, off_diagonals), diagonal, jnp.append(off_diagonals, padding), right_side
        )
        return jnp.concatenate([initial[None], nodes])

    @property
    def _step(self):
        return self.horizon / self.price.size

    def _best_response_system(self):
        """The tridiagonal optimality system of one agent's nodes x₁ … x_N: diagonal, off-diagonal, right side."""
        h, c = self._step, self.trading_cost
        eta, kappa = self.holding.strength, self.holding.centre
        gamma, zeta = self.terminal.strength, self.terminal.centre
        # ∫V over a step with ends a, b is ηh/6 (a² + ab + b²) in a, b measured from κ.
        off_diagonal = -c / h + eta * h / 6
        diagonal = jnp.full(self.price.size, 2 * (c / h + eta * h / 3)).at[-1].set(c / h + eta * h / 3 + gamma)
        pull = jnp.full(self.price.size, eta * kappa * h).at[-1].set(eta * kappa * h / 2 + gamma * zeta)
        return diagonal, off_diagonal, pull + jnp.append(jnp.diff(self.price), -self.price[-1])


def closed_form(trading_cost, holding, terminal, supply, horizon, mean_initial):
    """The step-mean price (steps,) and mean position (steps + 1,) of the formula above."""
    h = horizon / supply.size
    moved = h * jnp.cumsum(supply)
    position = mean_initial + jnp.append(jnp.zeros(1, supply.dtype), moved)
    pressure = holding.strength * h * (0.5 * (position[:-1] + position[1:]) - holding.centre)  # η∫(X̄−κ) of each step
    later = jnp.append(jnp.cumsum(pressure[::-1])[::-1][1:], 0.0)
    # The mean over t in the step of η∫ from t to the step's end: the weight (s − t_k)/h on η(X̄(s) − κ).
    own = holding.strength * h * (0.5 * (position[:-1] - holding.centre) + supply * h / 3)
    end = terminal.strength * (position[-1] - terminal.centre)
    return -trading_cost * supply - end - later - own, position


@jax.jit
def solve_foreseen(market, supply, horizon, mean_initial) -> PathEquilibrium:
    """Solve for a supply (steps,) that agents foresee."""
    holding = Quadratic(0.0) if market.holding is None else market.holding
    terminal = Quadratic(0.0) if market.terminal is None else market.terminal
    price, position = closed_form(market.trading_cost, holding, terminal, supply, horizon, mean_initial)
    return PathEquilibrium(
        times=(jnp.arange(supply.size) + 0.5) * (horizon / supply.size),
        price=price,
        mean_position=position,
        supply=supply,
        horizon=jnp.asarray(horizon, price.dtype),
        trading_cost=market.trading_cost,
        holding=holding,
        terminal=terminal,
        status=status_of(price, position, convex=convex(market.trading_cost, holding, terminal)),
    )
