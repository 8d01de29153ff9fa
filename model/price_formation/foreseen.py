"""One finite game with quadratic costs and a supply that every agent foresees: the price in closed form.

With V = η/2 (x−κ)² and Ψ = γ/2 (x−ζ)² the average of the agents' optimality conditions, cα + ϖ = p and ṗ = V′(x),
p(T) = −Ψ′(x_T), holds for any law of the initial positions and any noise, and clearing turns it into

    ϖ(t) = −c Q(t) − γ (X̄(T) − ζ) − η ∫ₜᵀ (X̄(s) − κ) ds.

Supply is constant on each of N equal steps; `price` is the mean of ϖ over each step, for which the sums below are exact.
For several assets c, η and γ are symmetric matrices, and the formula is the same.
Source: Gomes–Saúde, Dyn. Games Appl. 11 (2021), arXiv 1807.07088.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model import block_tridiagonal
from walras.model.costs import convex, times
from walras.model.equilibrium import EquilibriumError, Status, all_finite, first_failure
from walras.model.price_formation.game import Game, PathEquilibrium, midpoints, require_quadratic
from walras.model.price_formation.strategy import Feedback, Paths


class ClosedForm(eqx.Module):
    """Solves markets with quadratic costs and no limits, for any noise and one or several assets."""

    def solve(self, game: Game) -> "ClosedFormEquilibrium":
        require_quadratic(game, "the closed form")
        if game.limits:
            raise EquilibriumError(f"limits are {game.limits}: the closed form knows none, leave solver out")
        return _solve(game)


class ClosedFormEquilibrium(PathEquilibrium):
    """The equilibrium of a market with quadratic costs, exact."""

    @property
    def residual(self) -> Float[Array, ""]:
        """The clearing error max |E[α*] − Q| (units / time): agents' best response to the price, solved afresh."""
        response = self.positions(self.mean_position[:1])[:, 0]
        rate = jnp.diff(response, axis=0) / self.game.step
        return jnp.max(jnp.abs(rate - self.supply))

    @property
    def error(self):
        return jnp.zeros((), self.price.dtype)

    @property
    def substeps(self):
        """The price is known at any time; it hardly varies within so many parts of each step."""
        return math.ceil(_MANY_STEPS / self.game.steps)

    def _on_substeps(self, substeps):
        return _solve(self.game.refined(substeps))

    def positions(self, initial: Float[Array, "agents ..."]) -> Float[Array, "nodes agents ..."]:
        """Optimal paths (steps + 1, agents), at the nodes, of agents who start at `initial` and face this price.

        Exact for paths that are linear within a step. With idiosyncratic noise they are the agents' mean paths. With several
        assets both have a trailing dimension (assets,).
        """
        return _best_response(self.game, self.price, jnp.asarray(initial))

    def strategy(self) -> Feedback | Paths:
        """With noise, agents are pulled to the mean position at rate g: c g′ = c g² − η back from g(T) = γ/c."""
        game = self.game
        if self.price.ndim > 1:
            return Paths(self.positions(self.initial))
        away = jnp.linspace(-1.0, 1.0, 3) * _FAR * (1.0 + jnp.max(jnp.abs(self.initial)) + game.noise * jnp.sqrt(game.horizon))
        nodes = game.step * jnp.arange(game.steps + 1)
        # A stiff terminal cost pulls like 1/(T − t) near the end.
        time = jnp.sort(jnp.concatenate([nodes, game.horizon * (1 - _SHARES_LEFT)]))
        pull = pull_rate(
            game.holding.strength / game.trading_cost, game.terminal.strength / game.trading_cost, game.horizon - time
        )
        position = jnp.interp(time, nodes, self.mean_position)[:, None] + away[None]
        return Feedback(time, position, -pull[:, None] * away[None])


_MANY_STEPS = 32  # over which a price hardly varies within a step
_SHARES_LEFT = 2.0 ** (-np.arange(1, 80, 2) / 8)  # of the horizon, at which a linear rule is tabulated too; never at a node
_FAR = 1e3  # how far, in units of the population, a linear rule is tabulated


def pull_rate(ratio, end, remaining):
    """The solution g of g′ = g² − η/c at times to go: √(η/c) tanh(√(η/c) τ + artanh …), written to hold at η = 0 too."""
    root = jnp.sqrt(jnp.maximum(ratio, 1e-30))
    tanh = jnp.tanh(root * remaining)
    return (end + root * tanh) / (1.0 + end * tanh / root)


@jax.jit
def _best_response(game, price, initial):
    diagonal, neighbour, right_side = _best_response_system(game, price)
    several = neighbour.ndim > 0
    right_side = jnp.broadcast_to(right_side[:, None], (right_side.shape[0], *initial.shape))
    moved = initial @ neighbour if several else neighbour * initial
    diagonal = diagonal[:, None] if several else diagonal.reshape(-1, 1)
    inverses = block_tridiagonal.factorise(diagonal, neighbour)
    nodes = block_tridiagonal.solve(inverses, neighbour, right_side.at[0].add(-moved))
    return jnp.concatenate([initial[None], nodes])


def _best_response_system(game, price):
    """The block-tridiagonal optimality system of one agent's nodes x₁ … x_N: diagonal, off-diagonal, right side."""
    h, c = game.step, game.trading_cost
    eta, gamma = _strength(game.holding, c), _strength(game.terminal, c)
    # ∫V over a step with ends a, b is ηh/6 (a² + ab + b²) in a, b measured from κ.
    neighbour = -c / h + eta * h / 6
    own = c / h + eta * h / 3
    diagonal = jnp.repeat((2 * own)[None], price.shape[0], axis=0).at[-1].set(own + gamma)
    pull = h * times(game.holding.strength, jnp.broadcast_to(game.holding.centre, price[0].shape))
    end = times(game.terminal.strength, jnp.broadcast_to(game.terminal.centre, price[0].shape))
    pulls = jnp.repeat(pull[None], price.shape[0], axis=0).at[-1].set(pull / 2 + end)
    return diagonal, neighbour, pulls + jnp.concatenate([jnp.diff(price, axis=0), -price[-1:]])


def _strength(cost, like):
    """A strength as a matrix where trading costs are one."""
    strength = jnp.asarray(cost.strength)
    return strength if strength.ndim == like.ndim else strength * jnp.eye(like.shape[0])


@jax.jit
def _solve(game: Game) -> ClosedFormEquilibrium:
    h, supply, position = game.step, game.supply, game.mean_position
    holding, terminal = game.holding, game.terminal
    held = position - jnp.broadcast_to(holding.centre, position.shape)
    pressure = h * times(holding.strength, 0.5 * (held[:-1] + held[1:]))  # η∫(X̄−κ) of each step
    later = jnp.concatenate([jnp.cumsum(pressure[::-1], axis=0)[::-1][1:], jnp.zeros_like(pressure[:1])])
    # The mean over t in the step of η∫ from t to the step's end: the weight (s − t_k)/h on η(X̄(s) − κ).
    own = h * times(holding.strength, 0.5 * held[:-1] + supply * h / 3)
    end = times(terminal.strength, position[-1] - terminal.centre)
    price = -game.traded(supply) - end[None] - later - own
    return ClosedFormEquilibrium(
        game=game,
        times=midpoints(game),
        price=price,
        mean_position=position,
        status=first_failure(
            (~convex(game.trading_cost, holding, terminal), Status.not_convex),
            (~all_finite((price, position)), Status.not_finite),
        ),
        iterations=jnp.asarray(0),
    )
