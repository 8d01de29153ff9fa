"""Agents hit by noise, with any costs and hard limits on positions: Hopf–Cole, exact in each agent's global optimum.

With ε = cσ², the value function of an agent is −ε log φ, and on the time grid of the dual, in y = x − X̄(t),

    φ_N = exp(−(Ψ + (h/2) V + λ_N y)/ε),   φ_k = exp(−(h V(X̄_k + y) + λ_k y)/ε) · (K φ_{k+1}),
    D = −ε Σᵢ wᵢ log (Kφ₁)(yᵢ),

K being the heat kernel of variance σ²h. The kernel as a Gaussian times Δy on a uniform grid, evaluated at the starting points
themselves, is spectrally accurate once Δy resolves its width; time is second order, and exact where V = 0.

A step moves agents by a few widths of its kernel, while φ may span many orders of magnitude over the grid: the grid is cut into
tiles as long as agents move in a step, and each is reached from itself and its two neighbours, on a scale of its own.

A hard wall makes φ vanish there; between two nodes the Brownian bridge survives it with probability 1 − exp(−2 d d′/(σ²h)), d
and d′ being the distances from the wall. Walls stand still in x, so the grid does too then, and moves in y: in a step
over which the mean position moves by m, K φ = exp(−mx/(σ²h) − m²/(2σ²h)) K₀(exp(mx/(σ²h)) φ), K₀ being the kernel without it.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.model.costs import curvature, expected, values
from walras.model.price_formation.dual import Dual, Evaluation
from walras.model.price_formation.game import Game, trapezium

_SMALLEST = 1e-140  # of φ relative to its largest value nearby; smaller ones would give derivatives that are not finite
_PROHIBITIVE = 1e5  # in units of ε: φ = exp(−1e5) is zero
_TAIL = 8.0  # widths of a step's kernel beyond the agents' drift that a tile has to cover: 1e-15 of them go farther


class Grid(eqx.Module):
    """A uniform grid of `points` positions from `low` to `high`: of y, or of x where there are limits.

    In a step agents move by less than `band` points, of which `points` is a multiple.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]
    points: int = eqx.field(static=True)
    band: int = eqx.field(static=True)

    @property
    def spacing(self) -> Float[Array, ""]:
        return (self.high - self.low) / (self.points - 1)

    @property
    def neighbours(self) -> int:
        """How many tiles on each side are within reach of a tile."""
        return 1 if self.band < self.points else 0

    def nodes(self) -> Float[Array, " points"]:
        return self.low + self.spacing * jnp.arange(self.points)

    def tiles(self, values: Float[Array, " points"]) -> Float[Array, "tiles reached"]:
        """For each tile the values within its reach, −∞ beyond the grid's ends."""
        own = values.reshape(-1, self.band)
        beyond = jnp.full((1, self.band), -jnp.inf)
        if not self.neighbours:
            return own
        before, after = jnp.concatenate([beyond, own[:-1]]), jnp.concatenate([own[1:], beyond])
        return jnp.concatenate([before, own, after], axis=1)

    def around(self, position: Float[Array, " agents"]) -> Int[Array, "agents reached"]:
        """The indices of the nodes within reach of positions anywhere on the grid."""
        half = min(self.band, (self.points - 1) // 2)
        nearest = jnp.round(jax.lax.stop_gradient((position - self.low) / self.spacing))
        first = jnp.clip(jnp.nan_to_num(nearest).astype(int) - half, 0, self.points - 2 * half - 1)
        return first[:, None] + jnp.arange(2 * half + 1)[None]


class Flow(NamedTuple):
    """The solution on the grid at the nodes k = 1 … N: log φ, log Kφ_{k+1} (a row less), and the population.

    A row of `mass` sums to one, unless φ was too small to represent where agents went.
    """

    log_value: Float[Array, "steps points"]
    log_ahead: Float[Array, "steps_less_one points"]
    mass: Float[Array, "steps points"]


class HopfCole(Dual):
    """The dual by backward transport of φ on a grid; everything in it is an array, made from a game by `of`.

    `nodes` are the grid's, and `distance` (steps, points) is y there at each time; `cost` the time-weighted V (and Ψ) there,
    `bend` their second derivatives. `kernel` (band, reached) is the heat kernel from the nodes of a tile to those within its
    reach; between walls it differs by tile, (tiles, band, reached), and `tilt` (steps − 1,) is m/(σ²h) for each step. `first`
    (agents,) is where agents are on the grid after the first step if they only take in supply, `entry` (agents, near) the heat
    kernel from there to the nodes `near` them.
    """

    trading_cost: Float[Array, ""]
    step: Float[Array, ""]
    epsilon: Float[Array, ""]
    nodes: Float[Array, " points"]
    distance: Float[Array, "steps points"]
    cost: Float[Array, "steps points"]
    bend: Float[Array, "steps points"]
    kernel: Float[Array, "..."]
    tilt: Float[Array, " steps_less_one"] | None
    first: Float[Array, " agents"]
    entry: Float[Array, "agents near"]
    near: Int[Array, "agents near"]
    weights: Float[Array, " agents"]
    grid: Grid
    log_domain: bool = eqx.field(static=True)

    @classmethod
    def of(cls, game: Game, grid: Grid, log_domain: bool = False) -> "HopfCole":
        mean, nodes, h = game.mean_position, grid.nodes(), game.step
        shift = mean[1:, None]
        ones = jnp.ones((game.steps, 1))
        distance = nodes[None] - shift if game.limits else nodes[None] * ones
        position = nodes[None] * ones if game.limits else nodes[None] + shift

        def weighted(f):
            return trapezium(h, f(game.holding, position), f(game.terminal, position[-1]))

        epsilon = game.trading_cost * game.noise**2
        cost = weighted(values)
        heat = Heat(game.noise**2 * h, grid, game.limits)
        kernel = heat.between()
        first, entry, near = heat.entering(game.initial, mean)
        return cls(
            trading_cost=game.trading_cost,
            step=h,
            epsilon=epsilon,
            nodes=nodes,
            distance=distance,
            cost=bounded(cost, epsilon),
            bend=jax.lax.stop_gradient(weighted(curvature)),
            kernel=kernel if log_domain else jnp.exp(kernel),
            tilt=jnp.diff(mean)[1:] / heat.variance if game.limits else None,
            first=first,
            entry=entry,
            near=near,
            weights=game.weights,
            grid=jax.lax.stop_gradient(grid),
            log_domain=log_domain,
        )

    def value(self, multipliers, cost):
        """D as a function of multipliers and of the costs on the grid; its derivative in the latter is the population."""
        return self._value_and_logs(multipliers, cost)[0]

    def _value_and_logs(self, multipliers, cost):
        arriving, logs = self._backward(multipliers, cost)
        return -self.epsilon * jnp.sum(self.weights * arriving), logs

    def mean(self, multipliers, state):
        return jax.grad(self.value)(multipliers, self.cost)

    def evaluate(self, multipliers, state):
        value, (mean, mass) = jax.value_and_grad(self.value, argnums=(0, 1))(multipliers, self.cost)
        return Evaluation(value, mean, self.expected_curvature(mass), state)

    def linearised(self, multipliers, state):
        def mean(at):
            found = self.evaluate(at, state)
            return found.mean, found

        _, hessian, found = jax.linearize(mean, multipliers, has_aux=True)
        return found, hessian

    def expected_curvature(self, mass):
        return jnp.maximum(expected(mass, self.bend), 0.0)

    def flow(self, multipliers) -> Flow:
        """The solution at the multipliers that were found."""
        mass, (log_value, log_ahead) = jax.grad(self._value_and_logs, argnums=1, has_aux=True)(multipliers, self.cost)
        return Flow(log_value, log_ahead, mass)

    def _backward(self, multipliers, cost):
        """log Kφ₁ at the first positions (agents,); log φ (steps, points) and log Kφ_{k+1} (steps − 1, points)."""
        exponents = -(cost + multipliers[:, None] * self.distance) / self.epsilon
        variance = self._variance
        # In the log domain a derivative would keep a matrix for every step; it is computed again instead.
        transport = jax.checkpoint(lambda *at: self._transport(*at)) if self.log_domain else self._transport

        def back(log_value, row):
            exponent, tilt = row
            if tilt is None:
                ahead = transport(self.kernel, log_value)
            else:
                tilted = tilt * self.nodes
                ahead = transport(self.kernel, log_value + tilted) - tilted - 0.5 * variance * tilt**2
            return exponent + ahead, (log_value, ahead)

        first, (later, ahead) = jax.lax.scan(back, exponents[-1], (exponents[:-1], self.tilt), reverse=True)
        arriving = jax.nn.logsumexp(self.entry + first[self.near], axis=1)
        return arriving, (jnp.concatenate([first[None], later]), ahead)

    def _transport(self, kernel, log_value):
        """log Kφ on the grid."""
        reached = self.grid.tiles(log_value)
        if self.log_domain:
            kernel = kernel if kernel.ndim == 3 else kernel[None]
            return jax.nn.logsumexp(kernel + reached[:, None, :], axis=2).ravel()
        largest = jax.lax.stop_gradient(jnp.max(reached, axis=1, keepdims=True))
        scaled = jnp.exp(reached - largest)
        moved = scaled @ kernel.T if kernel.ndim == 2 else jnp.einsum("tbr,tr->tb", kernel, scaled)
        return (jnp.log(jnp.maximum(moved, _SMALLEST)) + largest).ravel()

    @property
    def _variance(self):
        """σ²h."""
        return self.epsilon / self.trading_cost * self.step

    def drift(self, flow: Flow):
        """How far agents move on average in a step, at most (units), and how far a tile lets them."""
        present = flow.mass[:-1] > 1e-12 * jnp.max(flow.mass[:-1], axis=1, keepdims=True)
        variance = self._variance
        moves = variance * jnp.asarray(jnp.gradient(flow.log_ahead, self.grid.spacing, axis=1))
        if self.tilt is not None:  # on a grid that stands still agents also move with the mean
            moves = moves + variance * self.tilt[:, None]
        farthest = jnp.max(jnp.where(present, jnp.abs(moves), 0.0), initial=0.0)
        arrival = jax.nn.softmax(self.entry + flow.log_value[0][self.near], axis=1)
        entered = jnp.sum(arrival * self.grid.nodes()[self.near], axis=1) - self.first
        farthest = jnp.maximum(farthest, jnp.max(jnp.abs(entered)))
        return farthest + _TAIL * jnp.sqrt(variance), self.grid.band * self.grid.spacing


class Heat(eqx.Module):
    """The logarithm of transition densities times Δy over one step, with the walls' factor if there are limits."""

    variance: Float[Array, ""]
    grid: Grid
    limits: tuple | None

    def log_density(self, start, end, moved):
        """From positions `start` to `end` in x, or in y, when the mean position moves by `moved`."""
        log = jnp.log(self.grid.spacing) - 0.5 * jnp.log(2 * jnp.pi * self.variance)
        log = log - (end - start - moved) ** 2 / (2 * self.variance)
        for wall in walls(self.limits):
            product = jnp.maximum((start - wall) * (end - wall), 0.0)
            survival = -jnp.expm1(-2 * product / self.variance)
            log = log + jnp.log(jnp.maximum(survival, _SMALLEST))
        return log

    def between(self):
        """From the nodes of a tile to those within its reach, if the mean position does not move."""
        grid = self.grid
        if not self.limits:
            reached = grid.spacing * (jnp.arange((1 + 2 * grid.neighbours) * grid.band) - grid.neighbours * grid.band)
            return self.log_density(reached[grid.neighbours * grid.band :][: grid.band, None], reached[None], 0.0)
        nodes = grid.nodes()
        start = nodes.reshape(-1, grid.band)[:, :, None]
        # Beyond the ends there is nothing to arrive at; any position serves.
        end = jnp.where(jnp.isfinite(grid.tiles(nodes)), grid.tiles(nodes), grid.low)[:, None, :]
        return self.log_density(start, end, 0.0)

    def entering(self, initial, mean):
        """From positions at a node (agents,): where on the grid they are at the next one if they only take in supply.

        And the log densities (agents, near) of arriving at the nodes that they may reach, and the indices of these.
        """
        moved = mean[1] - mean[0] if self.limits else 0.0
        first = initial if self.limits else initial - mean[0]
        near = self.grid.around(first + moved)
        return first + moved, self.log_density(first[:, None], self.grid.nodes()[near], moved), near


def bounded(cost, epsilon):
    """Beyond a barrier, and where a cost is not a number, φ is zero; a finite cost says so."""
    return jnp.where(cost < jnp.inf, cost, _PROHIBITIVE * jax.lax.stop_gradient(epsilon))


def walls(limits) -> list:
    """The walls that there are."""
    return [wall for wall in limits or () if wall is not None]
