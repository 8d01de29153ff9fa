"""The solver for agents without noise and with convex costs: one trajectory for each, in one or several assets.

Agent i's cost with multipliers λ, on the time grid of the dual, is

    Σ_k c/(2h) |y_k − y_{k−1}|² + h V(X̄_k + y_k) + λ_k y_k,   with (h/2) V + Ψ in place of hV at k = N.

Its minimum is found by Newton's method on the block-tridiagonal optimality system, all agents at once.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model import block_tridiagonal
from walras.model.costs import convex, times
from walras.model.equilibrium import Status, all_finite, first_failure, is_traced, require_double_precision
from walras.model.price_formation.domain import frozen_multipliers, length_scale
from walras.model.price_formation.dual import Dual, Evaluation, maximise
from walras.model.price_formation.dual_equilibrium import DualEquilibrium, on_chosen_substeps, price_of, require_positive
from walras.model.price_formation.game import Game, midpoints, trapezium
from walras.model.price_formation.strategy import Paths

_NEWTON_STEPS = 200  # of agents' own problems, with the shortened ones
_SETTLED = 1e-10  # length of the last Newton step, relative to the lengths of the game; the error is its square
_UNSETTLED = 1e-6  # the same when the search has ended, beyond which it has not found agents' best responses
_DIGITS = 1e-6
_CONVEXITY_POINTS = 257
_CONVEXITY_AGENTS = 64  # of several assets, whose costs are checked along their own paths
_ROUNDING = 1e-9
_SAMPLE = 256  # agents, from which substeps are chosen
_MOST_STEPS, _MOST_POSITIONS = 4096, 100_000_000  # that are chosen; agents × steps: ten gigabytes


class Agents(eqx.Module):
    """Solves markets without noise whose costs are convex: `initial` positions are a quadrature of the population.

    `substeps`: into which each step of the supply is cut; `None` chooses them, from a sample of the agents, for a price error
    of about `accuracy` times the price's own scale, and under a JAX transformation, where values are not known, takes one.
    `tolerance`: of the clearing error, relative to the rates of the game. Time and memory grow in proportion to agents and
    steps.
    """

    substeps: int | None = eqx.field(default=None, static=True)
    tolerance: float = eqx.field(default=1e-9, static=True)
    accuracy: float = eqx.field(default=1e-4, static=True)

    def __check_init__(self):
        require_positive(self, "substeps", "tolerance", "accuracy")

    def solve(self, game: Game) -> "TrajectoryEquilibrium":
        """The equilibrium; `PriceFormation.solve` calls this."""
        require_double_precision()
        if self.substeps is not None or is_traced(game):
            return _solve(game, self.substeps or 1, self.tolerance)
        few = _sample(game)
        most = max(min(_MOST_POSITIONS // game.initial.size, _MOST_STEPS) // game.steps, 1)
        sampled = on_chosen_substeps(lambda substeps, _: _solve(few, substeps, self.tolerance), self.accuracy, most)
        if few is game:
            return sampled
        found = _solve(game, sampled.substeps, self.tolerance)
        # The sample says whether those steps do.
        status = first_failure((found.status != Status.solved, found.status), (sampled.status != Status.solved, sampled.status))
        return eqx.tree_at(lambda e: e.status, found, status)


def _sample(game):
    """The game of few of its agents, whose price has about the same error."""
    agents = game.weights.size
    if agents <= _SAMPLE:
        return game
    first = np.asarray(game.initial).reshape(agents, -1)
    # Quantiles of one asset; several are shuffled, since they may come in the order of a grid.
    order = np.argsort(first[:, 0]) if first.shape[1] == 1 else np.random.default_rng(0).permutation(agents)
    below = np.cumsum(np.asarray(game.weights)[order])
    at = np.searchsorted(below, (np.arange(_SAMPLE) + 0.5) / _SAMPLE * below[-1])
    weights = jnp.full(_SAMPLE, 1.0 / _SAMPLE, game.weights.dtype)
    return eqx.tree_at(lambda g: (g.initial, g.weights), game, (game.initial[order[np.minimum(at, agents - 1)]], weights))


class TrajectoryEquilibrium(DualEquilibrium):
    """The equilibrium of a market without noise: `positions` (steps + 1, agents, …) at the nodes.

    `fine_positions` (steps · substeps + 1, agents, …) are at all nodes of the solve.
    """

    fine_positions: Float[Array, "fine_nodes agents ..."]

    @property
    def positions(self) -> Float[Array, "nodes agents ..."]:
        return self.fine_positions[:: self.substeps]

    def dual(self) -> "Trajectories":
        return Trajectories.of(self.fine)

    def finer_dual(self) -> "Trajectories":
        return Trajectories.of(self.fine.refined(2))

    def strategy(self) -> Paths:
        return Paths(self.positions)


class Trajectories(Dual):
    """The dual by agents' own optimal trajectories."""

    trading_cost: Float[Array, "..."]
    step: Float[Array, ""]
    holding: Any
    terminal: Any
    mean_position: Float[Array, "steps ..."]
    first: Float[Array, "agents ..."]  # y₀
    weights: Float[Array, " agents"]
    length: Float[Array, ""]

    @classmethod
    def of(cls, game: Game) -> "Trajectories":
        mean = game.mean_position
        return cls(
            trading_cost=game.trading_cost,
            step=game.step,
            holding=game.holding,
            terminal=game.terminal,
            mean_position=mean[1:],
            first=game.initial - mean[:1],
            weights=game.weights,
            # A single agent has no length of its own, but its position has digits.
            length=jax.lax.stop_gradient(length_scale(game) + _DIGITS * jnp.max(jnp.abs(game.initial))),
        )

    def first_state(self):
        """Agents keep their distance from the mean position, or so much of it as a barrier allows."""
        keep = jnp.broadcast_to(self.first[None], (self.mean_position.shape[0], *self.first.shape))
        distance = keep
        for share in (0.5, 0.25, 0.0):
            allowed = jnp.isfinite(self._terms(lambda cost: cost, distance))
            distance = jnp.where(allowed.reshape(*allowed.shape, *[1] * (keep.ndim - 2)), distance, share * keep)
        return jax.lax.stop_gradient(distance)

    def mean(self, multipliers, state):
        return self._average(_respond(self, multipliers, state))

    def evaluate(self, multipliers, state):
        distance = _respond(self, multipliers, state)
        tilted = jnp.sum(self._average(distance) * multipliers)
        value = jnp.sum(self.weights * self._costs(distance)) + tilted
        bends = jnp.einsum("ki...,i->k...", self._bend(distance), self.weights)
        return Evaluation(value, self._average(distance), self._positive(bends), distance)

    def linearised(self, multipliers, state):
        found = self.evaluate(multipliers, state)
        inverses = block_tridiagonal.factorise(self._diagonal(found.state), self._neighbour)

        def product(vector):
            return -self._average(block_tridiagonal.solve(inverses, self._neighbour, self._for_all(vector)))

        return found, product

    def _average(self, distance):
        return jnp.einsum("ki...,i->k...", distance, self.weights)

    def _for_all(self, vector):
        return jnp.broadcast_to(vector[:, None], (vector.shape[0], *self.first.shape))

    def _positive(self, bends):
        return jnp.maximum(bends, 0.0) if bends.ndim == 1 else bends

    @property
    def _neighbour(self):
        return -self.trading_cost / self.step

    def _each(self, f, cost, position):
        """A function of the cost at one agent's position, at all positions (…, assets)."""
        applied = f(cost)
        for _ in range(position.ndim - (self.mean_position.ndim - 1)):
            applied = jax.vmap(applied)
        return applied(position)

    def _terms(self, f, distance):
        position = distance + self.mean_position[:, None]
        return trapezium(self.step, self._each(f, self.holding, position), self._each(f, self.terminal, position[-1]))

    def _bend(self, distance):
        return self._terms(jax.hessian, distance)

    def _steps_of(self, distance):
        return jnp.diff(distance, axis=0, prepend=self.first[None])

    def _costs(self, distance):
        """Each agent's cost (agents,), without the multipliers'."""
        moves = self._steps_of(distance)
        paid = 0.5 / self.step * moves * times(self.trading_cost, moves)
        trading = jnp.sum(paid.reshape(*moves.shape[:2], -1), axis=(0, 2))
        return trading + jnp.sum(self._terms(lambda cost: cost, distance), axis=0)

    def gradient(self, distance, multipliers):
        """The slope of each agent's cost in its own positions (steps, agents, …)."""
        moves = times(self.trading_cost, self._steps_of(distance)) / self.step
        stiff = moves - jnp.concatenate([moves[1:], jnp.zeros_like(moves[:1])])
        return stiff + self._terms(jax.grad, distance) + multipliers[:, None]

    def _diagonal(self, distance):
        steps = distance.shape[0]
        repeats = jnp.full(steps, 2.0).at[-1].set(1.0)
        own = repeats.reshape(-1, *[1] * self.trading_cost.ndim) * (self.trading_cost / self.step)[None]
        return self._bend(distance) + own[:, None]

    def newton_step(self, distance, right):
        """The solution of each agent's Newton system (steps, agents, …)."""
        inverses = block_tridiagonal.factorise(self._diagonal(distance), self._neighbour)
        return block_tridiagonal.solve(inverses, self._neighbour, right)


@eqx.filter_custom_jvp
def _respond(dual: Trajectories, multipliers, start):
    """Every agent's optimal distances (steps, agents, …), by a damped Newton method from `start`."""

    def along(vector, other):
        return jnp.sum((vector * other).reshape(*vector.shape[:2], -1), axis=(0, 2))

    def shaped(per_agent, like):
        return per_agent.reshape(1, -1, *[1] * (like.ndim - 2))

    def advance(state):
        distance, direction, size, slope, _, count = state
        trial = distance + shaped(size, direction) * direction
        gradient = dual.gradient(trial, multipliers)
        slope_there = along(gradient, direction)
        # A convex cost has fallen where it still falls, or hardly rises.
        better = jnp.isfinite(slope_there) & (slope_there <= -0.5 * slope) & jnp.isfinite(dual._costs(trial))
        new = -dual.newton_step(trial, gradient)
        accept = shaped(better, direction)
        distance = jnp.where(accept, trial, distance)
        direction = jnp.where(accept, new, direction)
        size = jnp.where(better, 1.0, 0.3 * size)
        slope = jnp.where(better, along(gradient, new), slope)
        left = jnp.max(jnp.abs(shaped(size, direction) * direction))
        return distance, direction, size, slope, left, count + 1

    def unfinished(state):
        *_, left, count = state
        return (left > _SETTLED * dual.length) & (count < _NEWTON_STEPS)

    agents = dual.first.shape[0]
    begin = (start, jnp.zeros_like(start), jnp.ones(agents), jnp.zeros(agents), jnp.full((), jnp.inf), 0)
    distance, direction, size, *_ = jax.lax.while_loop(unfinished, advance, begin)
    # The last direction is the solution's own error to first order: taking it squares the error.
    return distance + shaped(size, direction) * direction


@_respond.def_jvp
def _respond_jvp(primals, tangents):
    dual, multipliers, start = primals
    tangent, multipliers_dot, _ = tangents
    distance = _respond(dual, multipliers, start)

    def gradient(dual, multipliers):
        return dual.gradient(distance, multipliers)

    _, moved = eqx.filter_jvp(gradient, (dual, multipliers), (tangent, multipliers_dot))
    _, hessian = jax.linearize(lambda at: dual.gradient(at, multipliers), distance)

    constant = eqx.combine(jax.lax.stop_gradient(eqx.filter(dual, eqx.is_array)), dual)  # costs may be plain functions

    def solve(_, right):
        return constant.newton_step(jax.lax.stop_gradient(distance), right)

    return distance, -jax.lax.custom_linear_solve(hessian, moved, solve, symmetric=True)


@eqx.filter_jit
def _solve(game: Game, substeps: int, tolerance: float) -> TrajectoryEquilibrium:
    fine = game.refined(substeps)
    dual = Trajectories.of(fine)
    scale = length_scale(fine) / fine.horizon
    found = maximise(dual, _guess(fine), scale, tolerance)
    price = price_of(game, found.multipliers)
    distance = _respond(dual, found.multipliers, found.state)
    positions = jnp.concatenate([game.initial[None], distance + fine.mean_position[1:, None]])
    return TrajectoryEquilibrium(
        game=game,
        times=midpoints(game),
        price=price,
        mean_position=game.mean_position,
        status=_status(tolerance, fine, dual, found, price, scale, distance),
        iterations=found.iterations,
        multipliers=found.multipliers,
        fine_positions=positions,
    )


def _guess(game):
    if game.supply.ndim == 1:
        return frozen_multipliers(game)
    return jnp.zeros_like(game.supply)


def _status(tolerance, game, dual, found, price, scale, distance):
    return first_failure(
        (~all_finite(game), Status.not_finite),
        (~convex(game.trading_cost), Status.not_convex),
        (game.noise != 0, Status.noise_not_seen),
        (~_costs_convex(game, dual, distance), Status.costs_not_convex),
        (~all_finite(price), Status.not_finite),
        (~(found.residual <= 10 * tolerance * scale) | ~_settled(dual, distance, found.multipliers), Status.not_converged),
    )


def _settled(dual, distance, multipliers):
    """Whether agents' distances are their best ones: at a kink of a cost Newton's method goes back and forth."""
    left = dual.newton_step(distance, dual.gradient(distance, multipliers))
    return jnp.max(jnp.abs(left)) <= _UNSETTLED * dual.length


def _costs_convex(game, dual, distance):
    """Whether costs are convex over all that agents visit: on a grid of that, or with several assets on sampled paths."""
    distance = jax.lax.stop_gradient(distance)
    if game.supply.ndim == 1:
        position = jnp.concatenate([distance + dual.mean_position[:, None], game.initial[None]])
        lattice = jnp.linspace(jnp.min(position), jnp.max(position), _CONVEXITY_POINTS)
        bends = [dual._each(jax.hessian, cost, lattice) for cost in (game.holding, game.terminal)]
    else:
        some = distance[:, :: max(distance.shape[1] // _CONVEXITY_AGENTS, 1)] + dual.mean_position[:, None]
        bends = [
            jnp.linalg.eigvalsh(dual._each(jax.hessian, cost, at))
            for cost, at in ((game.holding, some), (game.terminal, some[-1]))
        ]
    return jnp.all(jnp.stack([jnp.min(bend) >= -_ROUNDING * jnp.max(jnp.abs(bend)) for bend in bends]))
