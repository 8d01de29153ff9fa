"""The equilibrium of a market with noise on a given discretisation, and the figures by which that one is judged."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import slope, values
from walras.model.equilibrium import Status
from walras.model.price_formation.domain import frozen_multipliers, length_scale, reach
from walras.model.price_formation.dual import clearing_error, maximise, promising, refined_change
from walras.model.price_formation.game import Game, PathEquilibrium, midpoints
from walras.model.price_formation.hopf_cole import Grid, Heat, HopfCole, walls
from walras.model.price_formation.strategy import Feedback

COARSEST_SPACING = 1.6  # of the grid, in widths of the narrowest kernel; beyond it prices have errors of 1e-4 and more
LOST, EDGE = 1e-7, 1e-9  # shares of the population that may be lost to underflow, or be at the grid's ends
_EDGE_POINTS = 2
_RARE = 1e-5  # of the largest mass: where fewer are, the grid need not resolve their costs


class Discretisation(eqx.Module):
    """How a game is solved: on a grid of `points` with a `band`, with `substeps` of each step, in a linear or log domain.

    `domain` (low, high) ends the grid, in y, or in x where there are limits; `None` takes a bound on how far agents go. It
    alone is not static: markets that differ in it share a compilation.
    `tolerance` is of the clearing error, relative to the rates of the game.
    """

    points: int = eqx.field(static=True)
    band: int = eqx.field(static=True)
    domain: tuple[Float[Array, ""], Float[Array, ""]] | None
    substeps: int = eqx.field(static=True)
    log_domain: bool = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)


@eqx.filter_jit
def ends(game: Game, multipliers=None):
    """The ends of the grid: in y, or between walls in x."""
    low, high = reach(game, frozen_multipliers(game) if multipliers is None else multipliers)
    if not game.limits:
        return low, high
    mean = jax.lax.stop_gradient(game.mean_position)
    free = (low + jnp.min(mean), high + jnp.max(mean))
    return tuple(end if wall is None else jnp.asarray(wall, end.dtype) for end, wall in zip(free, game.limits, strict=True))


class DiffusionEquilibrium(PathEquilibrium):
    """The equilibrium of a market with noise, with its solution on the grid.

    `multipliers` (steps · substeps,) of the dual; `grid`; `lost` and `at_edges` the largest shares of the population that
    the grid could not represent, and that were at its ends; `kernel_width` the narrowest kernel that it has to resolve;
    `drift` how far agents move in a step, as a share of the grid's band; `occupied` the part of the grid with all but a share
    of 1e-9 of the agents.
    """

    multipliers: Float[Array, " fine_steps"]
    grid: Grid
    discretisation: Discretisation
    lost: Float[Array, ""]
    at_edges: Float[Array, ""]
    kernel_width: Float[Array, ""]
    drift: Float[Array, ""]
    occupied: tuple[Float[Array, ""], Float[Array, ""]]

    @property
    def fine(self) -> Game:
        """The game on the time steps of the solve."""
        return self.game.refined(self.discretisation.substeps)

    def dual(self) -> HopfCole:
        return HopfCole.of(self.fine, self.grid, self.discretisation.log_domain)

    @property
    def residual(self):
        return _residual(self)

    @property
    def error(self):
        return _error(self)

    @property
    def price_scale(self):
        """The size of the price's movements (money / unit), of which `Diffusion.accuracy` is a share."""
        return jnp.maximum(jnp.ptp(self.price), self.game.trading_cost * length_scale(self.game) / self.horizon)

    def strategy(self) -> Feedback:
        return _feedback(self)


@eqx.filter_jit
def solve(chosen: Discretisation, game: Game, start=None) -> DiffusionEquilibrium:
    """The equilibrium; `start` are multipliers (steps · substeps,) to start from."""
    fine = game.refined(chosen.substeps)
    low, high = ends(fine, start) if chosen.domain is None else chosen.domain
    grid = Grid(low, high, chosen.points, chosen.band)
    dual = HopfCole.of(fine, grid, chosen.log_domain)
    scale = length_scale(fine) / fine.horizon
    guess = promising(dual, frozen_multipliers(fine)) if start is None else start
    found = maximise(dual, guess, scale, chosen.tolerance)
    flow = dual.flow(found.multipliers)
    mass = flow.mass
    costate = jnp.cumsum(found.multipliers[::-1])[::-1]
    price = jnp.mean(costate.reshape(game.steps, -1), axis=1) - game.trading_cost * game.supply
    lost = jnp.max(jnp.abs(jnp.sum(mass, axis=1) - 1.0))
    at_edges = _at_edges(mass, game.limits)
    kernel = _narrowest(dual, mass, fine)
    moved, allowed = dual.drift(flow)
    drift = moved / allowed if grid.neighbours else jnp.zeros(())
    finite = jnp.all(jnp.isfinite(price)) & _finite(game) & (_without_cost(dual, mass, fine) <= LOST)
    status = _status(chosen.tolerance, game, found, finite, scale, lost, at_edges, grid.spacing / kernel, drift)
    return DiffusionEquilibrium(
        game=game,
        times=midpoints(game),
        price=price,
        mean_position=game.mean_position,
        status=status,
        iterations=found.iterations,
        multipliers=found.multipliers,
        grid=grid,
        discretisation=chosen,
        lost=lost,
        at_edges=at_edges,
        kernel_width=kernel,
        drift=drift,
        occupied=_occupied(grid, mass),
    )


def _at_edges(mass, limits):
    low, high = limits or (None, None)
    left = 0.0 if low is not None else jnp.max(jnp.sum(mass[:, :_EDGE_POINTS], axis=1))
    right = 0.0 if high is not None else jnp.max(jnp.sum(mass[:, -_EDGE_POINTS:], axis=1))
    return jnp.maximum(left, right)


def _occupied(grid, mass):
    nodes, some = grid.nodes(), jnp.any(mass > EDGE, axis=0)
    return jnp.min(jnp.where(some, nodes, grid.high)), jnp.max(jnp.where(some, nodes, grid.low))


def _narrowest(dual, mass, game):
    """The width s of the narrowest product of a kernel and a value function: s⁻² = 1/(σ²h) + V″h/ε, where agents are."""
    present = mass > _RARE * jnp.max(mass, axis=1, keepdims=True)
    bend = jnp.max(jnp.where(present & jnp.isfinite(dual.bend), dual.bend, 0.0))
    return 1.0 / jnp.sqrt(1.0 / (game.noise**2 * game.step) + jnp.maximum(bend, 0.0) / dual.epsilon)


def _finite(game):
    leaves = jax.tree.leaves(eqx.filter(game, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _without_cost(dual, mass, game):
    """The largest share of the population that is where a cost is not a number: elsewhere that serves as infinite."""
    position = dual.distance + game.mean_position[1:, None]
    missing = jnp.isnan(values(game.holding, position))
    missing = missing.at[-1].set(missing[-1] | jnp.isnan(values(game.terminal, position[-1])))
    return jnp.max(jnp.sum(jnp.where(missing, mass, 0.0), axis=1))


def _status(tolerance, game, found, finite, scale, lost, at_edges, spacing, drift):
    low, high = game.limits or (None, None)
    low, high = -jnp.inf if low is None else low, jnp.inf if high is None else high
    outside = jnp.any((game.initial <= low) | (game.initial >= high))
    mean = game.mean_position
    status = Status.solved
    for failed, reason in (
        (found.residual > 10 * tolerance * scale, Status.not_converged),
        (spacing > COARSEST_SPACING, Status.grid_too_coarse),
        (lost > LOST, Status.noise_too_small),
        (drift > 1.0, Status.band_too_narrow),
        (at_edges > EDGE, Status.domain_too_small),
        (~finite, Status.not_finite),
        (jnp.any((mean <= low) | (mean >= high)), Status.supply_beyond_limits),
        (outside, Status.starts_outside_limits),
        (~(game.noise > 0), Status.no_noise),
        (~(game.trading_cost > 0), Status.not_convex),
        (~game.finite, Status.not_finite),
    ):
        status = Status.where(jnp.asarray(failed), reason, status)
    return status


@eqx.filter_jit
def _residual(equilibrium):
    dual = equilibrium.dual()
    return clearing_error(dual, dual.mean(equilibrium.multipliers, dual.first_state()))


@eqx.filter_jit
def _error(equilibrium):
    """One quasi-Newton step on a grid with half the steps and two thirds of the spacing says how far the price is off."""
    fine = equilibrium.fine.refined(2)
    coarse, band = equilibrium.grid, equilibrium.grid.band * 3 // 2
    grid = Grid(coarse.low, coarse.high, coarse.points // coarse.band * band, band)
    dual = HopfCole.of(fine, grid, equilibrium.discretisation.log_domain)
    change = refined_change(dual, jnp.cumsum(equilibrium.multipliers[::-1])[::-1])
    # Second order: half the steps leave a quarter of the error.
    return 4.0 / 3.0 * jnp.max(jnp.abs(jnp.mean(change.reshape(equilibrium.game.steps, -1), axis=1)))


@eqx.filter_jit
def _feedback(equilibrium) -> Feedback:
    """The rate of agents beyond the supply rate, σ² ∂ log φ/∂y, at the nodes.

    The trapezium's rule gives agents half of a node's cost before the node and half after it: the rate at the node itself is
    that of φ with half the node's cost taken off.
    """
    dual, game = equilibrium.dual(), equilibrium.fine
    flow = dual.flow(equilibrium.multipliers)
    tilt = dual.cost + equilibrium.multipliers[:, None] * dual.distance
    half = jnp.full((game.steps, 1), 0.5).at[-1].set(0.0)
    position = dual.distance + game.mean_position[1:, None]
    at_nodes = game.noise**2 * _slopes(flow.log_value + half * tilt / dual.epsilon, position, equilibrium)
    # At the end, agents trade against Ψ′ alone, and on average not at all.
    end = slope(game.terminal, position[-1])
    end = -(end - jnp.sum(flow.mass[-1] * end)) / game.trading_cost
    if not game.limits:
        at_nodes = at_nodes.at[-1].set(end)
    # At the start there is no node's cost, only the half of it that a node there would have.
    nodes = equilibrium.grid.nodes()
    first = nodes if game.limits else nodes + game.mean_position[0]
    entry, near = Heat(game.noise**2 * game.step, equilibrium.grid, game.limits).entering(first, game.mean_position)
    pull = slope(game.holding, first)
    held = jnp.sum(game.weights * slope(game.holding, game.initial))
    ahead = jax.nn.logsumexp(entry + flow.log_value[0][near], axis=1)
    start = game.noise**2 * _slopes(ahead[None], first[None], equilibrium)[0]
    start = start - 0.5 * game.step / game.trading_cost * (pull - held)
    every = slice(None, None, equilibrium.discretisation.substeps)
    return Feedback(jnp.concatenate([first[None], position])[every], jnp.concatenate([start[None], at_nodes])[every])


def _slopes(log_value, position, equilibrium):
    """∂ log φ/∂y (rows, points). At a wall φ vanishes like the distance from it, of which the logarithm is kept apart."""
    spacing, wall_slope = equilibrium.grid.spacing, jnp.zeros_like(log_value)
    for wall in walls(equilibrium.game.limits):
        inwards = jnp.sign(_middle(position) - wall)
        distance = jnp.where(jnp.abs(position - wall) > 0.5 * spacing, position - wall, 0.25 * spacing * inwards)
        log_value = log_value - jnp.log(jnp.abs(distance))
        wall_slope = wall_slope + 1.0 / distance
    if equilibrium.game.limits:
        # On the wall itself there is nothing left to take the logarithm of: the smooth rest goes on in a straight line.
        low, high = equilibrium.game.limits
        if low is not None:
            log_value = log_value.at[:, 0].set(2 * log_value[:, 1] - log_value[:, 2])
        if high is not None:
            log_value = log_value.at[:, -1].set(2 * log_value[:, -2] - log_value[:, -3])
    return jnp.asarray(jnp.gradient(log_value, spacing, axis=1)) + wall_slope


def _middle(position):
    return jnp.mean(position, axis=1, keepdims=True)
