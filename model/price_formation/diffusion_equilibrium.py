"""The equilibrium of a market with noise on a given discretisation, and the figures by which that one is judged."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import values
from walras.model.equilibrium import Status, all_finite, first_failure
from walras.model.price_formation.domain import frozen_multipliers, length_scale, reach
from walras.model.price_formation.dual import costate_of, halved_multipliers, maximise, promising
from walras.model.price_formation.dual_equilibrium import DualEquilibrium, price_of
from walras.model.price_formation.feedback import feedback
from walras.model.price_formation.game import Game, midpoints, step_means
from walras.model.price_formation.hopf_cole import Grid, HopfCole
from walras.model.price_formation.strategy import Feedback

COARSEST_SPACING = 1.6  # of the grid, in widths of the narrowest kernel; beyond it prices have errors of 1e-4 and more
# Shares of the population that may be lost to underflow, or be at the grid's ends; at least the tolerance of the clearing.
LOST, EDGE = 1e-7, 1e-9
_EDGE_POINTS = 2
# What a difference is to the error itself: of half the step at first order, and of two thirds of the spacing at second.
_FIRST_ORDER, _FINER_GRID = 2.0, 9.0 / 5.0
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
    return _within((low + jnp.min(mean), high + jnp.max(mean)), game.bounds)


class DiffusionEquilibrium(DualEquilibrium):
    """The equilibrium of a market with noise, with its solution on the grid.

    `grid`, on which the dual was maximised; `lost` and `at_edges` the largest shares of the population that
    the grid could not represent, and that were at its ends; `kernel_width` the narrowest kernel that it has to resolve;
    `drift` how far agents move in a step, as a share of the grid's band; `occupied` the part of the grid with all but a share
    of 1e-9 of the agents.
    """

    grid: Grid
    discretisation: Discretisation
    lost: Float[Array, ""]
    at_edges: Float[Array, ""]
    kernel_width: Float[Array, ""]
    drift: Float[Array, ""]
    occupied: tuple[Float[Array, ""], Float[Array, ""]]

    def dual(self) -> HopfCole:
        return HopfCole.of(self.fine, self.grid, self.discretisation.log_domain)

    def finer_dual(self) -> HopfCole:
        """That with half the steps and two thirds of the grid's spacing."""
        return HopfCole.of(self.fine.refined(2), self.finer_grid, self.discretisation.log_domain)

    @property
    def finer_grid(self) -> Grid:
        """One with two thirds of the spacing."""
        coarse, band = self.grid, max(self.grid.band * 3 // 2, self.grid.band + 1)
        return Grid(coarse.low, coarse.high, coarse.points // coarse.band * band, band)

    @property
    def error(self):
        return super().error if self.game.limits is None else _error_between_walls(self)

    def strategy(self) -> Feedback:
        return feedback(self)


@eqx.filter_jit
def _error_between_walls(equilibrium):
    """How far the price moves on two thirds of the grid's spacing, and there on half the steps, each solved anew.

    The force of a wall is no part of the preconditioner, so that one step with it would not tell; near a wall the error of
    the steps falls more slowly than with their square, and may be of the other sign than the grid's. Infinite if either
    solve fails.
    """
    game, chosen, multipliers = equilibrium.game, equilibrium.discretisation, equilibrium.multipliers
    scale = length_scale(game) / game.horizon
    found = costate_of(multipliers)

    def solved(dual, start):
        better = maximise(dual, start, scale, chosen.tolerance)
        failed = ~(better.residual <= 10 * chosen.tolerance * scale)
        return jnp.where(failed, jnp.inf, costate_of(better.multipliers))

    def apart(one, other):
        return jnp.max(jnp.abs(step_means(one, game.steps) - step_means(other, game.steps)))

    in_space = solved(HopfCole.of(equilibrium.fine, equilibrium.finer_grid, chosen.log_domain), multipliers)
    # Kernels of half the steps are narrower, for which the grid itself may be too coarse.
    in_time = solved(equilibrium.finer_dual(), halved_multipliers(in_space))
    return jnp.nan_to_num(_FIRST_ORDER * apart(in_time, in_space) + _FINER_GRID * apart(in_space, found), nan=jnp.inf)


@eqx.filter_jit
def solve(chosen: Discretisation, game: Game, start=None) -> DiffusionEquilibrium:
    """The equilibrium; `start` are multipliers (steps · substeps,) to start from."""
    fine = game.refined(chosen.substeps)
    low, high = ends(fine, start) if chosen.domain is None else _within(chosen.domain, game.bounds)
    grid = Grid(low, high, chosen.points, chosen.band)
    dual = HopfCole.of(fine, grid, chosen.log_domain)
    scale = length_scale(fine) / fine.horizon
    guess = promising(dual, frozen_multipliers(fine)) if start is None else start
    found = maximise(dual, guess, scale, chosen.tolerance)
    flow = dual.flow(found.multipliers)
    mass = flow.mass
    price = price_of(game, found.multipliers)
    lost = jnp.max(jnp.abs(jnp.sum(mass, axis=1) - 1.0))
    at_edges = _at_edges(grid, mass, game.bounds)
    kernel = _narrowest(dual, mass, fine)
    moved, allowed = dual.drift(flow)
    drift = moved / allowed if grid.neighbours else jnp.zeros(())
    finite = all_finite(price) & (_without_cost(dual, mass, fine) <= LOST)
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


def _within(domain, bounds):
    """The domain's ends, or walls that are nearer."""
    return jnp.maximum(domain[0], bounds[0]), jnp.minimum(domain[1], bounds[1])


def _at_edges(grid, mass, bounds):
    """The largest share of the population at an end of the grid that is not a wall."""
    left = jnp.max(jnp.sum(mass[:, :_EDGE_POINTS], axis=1))
    right = jnp.max(jnp.sum(mass[:, -_EDGE_POINTS:], axis=1))
    return jnp.maximum(jnp.where(grid.low > bounds[0], left, 0.0), jnp.where(grid.high < bounds[1], right, 0.0))


def _occupied(grid, mass):
    nodes, some = grid.nodes(), jnp.any(mass > EDGE, axis=0)
    return jnp.min(jnp.where(some, nodes, grid.high)), jnp.max(jnp.where(some, nodes, grid.low))


def _narrowest(dual, mass, game):
    """The width s of the narrowest product of a kernel and a value function: s⁻² = 1/(σ²h) + V″h/ε, where agents are."""
    present = mass > _RARE * jnp.max(mass, axis=1, keepdims=True)
    bend = jnp.max(jnp.where(present & jnp.isfinite(dual.bend), dual.bend, 0.0))
    return 1.0 / jnp.sqrt(1.0 / (game.noise**2 * game.step) + jnp.maximum(bend, 0.0) / dual.epsilon)


def _without_cost(dual, mass, game):
    """The largest share of the population that is where a cost is not a number: elsewhere that serves as infinite."""
    position = dual.distance + game.mean_position[1:, None]
    missing = jnp.isnan(values(game.holding, position))
    missing = missing.at[-1].set(missing[-1] | jnp.isnan(values(game.terminal, position[-1])))
    return jnp.max(jnp.sum(jnp.where(missing, mass, 0.0), axis=1))


def _status(tolerance, game, found, finite, scale, lost, at_edges, spacing, drift):
    low, high = game.bounds
    outside = jnp.any((game.initial <= low) | (game.initial >= high))
    mean = game.mean_position
    return first_failure(
        (~all_finite(game), Status.not_finite),
        (~(game.trading_cost > 0), Status.not_convex),
        (~(game.noise > 0), Status.no_noise),
        (outside, Status.starts_outside_limits),
        (jnp.any((mean <= low) | (mean >= high)), Status.supply_beyond_limits),
        (~finite, Status.not_finite),
        (at_edges > jnp.maximum(EDGE, tolerance), Status.domain_too_small),
        (drift > 1.0, Status.band_too_narrow),
        (lost > jnp.maximum(LOST, tolerance), Status.noise_too_small),
        (spacing > COARSEST_SPACING, Status.grid_too_coarse),
        (found.residual > 10 * tolerance * scale, Status.not_converged),
    )
