"""How far agents go: the part of the line that a grid has to cover."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import values
from walras.model.price_formation.game import Game, trapezium

# Of a geometric lattice beyond the outermost first positions: how many places, and how far the last is, in units, or in
# lengths of the game if that is longer than a unit.
_OFFSETS, _FARTHEST = 192, 1e4
_DEVIATIONS = 7.5  # of the noise over the whole horizon: 1e-13 of the agents go farther


@eqx.filter_jit
def length_scale(game: Game) -> Float[Array, ""]:
    """The length over which agents differ and move (units): spread of the population, noise, and supply."""
    mean = game.mean_position
    squares = ((game.initial - mean[:1]) ** 2).reshape(game.initial.shape[0], -1)
    spread = jnp.sqrt(jnp.sum(game.weights @ squares))
    return spread + game.noise * jnp.sqrt(game.horizon) + jnp.max(jnp.ptp(mean, axis=0))


@eqx.filter_jit
def frozen_multipliers(game: Game) -> Float[Array, " steps"]:
    """The multipliers if every agent kept its distance from the mean position: where the search starts."""
    mean = game.mean_position

    def weighted_slope(cost):
        at = jax.vmap(lambda x: jnp.sum(game.weights * jax.vmap(jax.grad(cost))(game.initial - mean[0] + x)))
        return at(mean[1:])

    found = -trapezium(game.step, weighted_slope(game.holding), weighted_slope(game.terminal)[-1])
    return jnp.where(jnp.isfinite(found), found, 0.0)


@eqx.filter_jit
def reach(game: Game, multipliers) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The lowest and the highest distance y that agents reach, given multipliers (units).

    Without noise an agent goes no farther than where the tilted costs stop falling, nor farther than what could be gained
    on the way pays for; noise is added to that. Constant under differentiation: the solution does not depend on its grid.
    """
    # A game without noise or spread, such as one agent, still has a length: that of its costs is found by the lattice.
    length = jnp.maximum(length_scale(game), 1e-6)
    farthest = _FARTHEST * jnp.maximum(1.0, 1.0 / length)
    offsets = length * jnp.expm1(jnp.linspace(0.0, 1.0, _OFFSETS) * jnp.log1p(farthest))
    away = game.initial - game.mean_position[0]
    low = jnp.min(away) - _distance(game, multipliers, jnp.min(away) - offsets)
    high = jnp.max(away) + _distance(game, multipliers, jnp.max(away) + offsets)
    noise = _DEVIATIONS * game.noise * jnp.sqrt(game.horizon)
    return jax.lax.stop_gradient(low - noise), jax.lax.stop_gradient(high + noise)


def _distance(game, multipliers, lattice):
    """How far along a lattice (points,) of distances y, which starts at an outermost agent, such an agent goes."""
    mean = game.mean_position[1:, None]
    tilted = trapezium(game.step, values(game.holding, mean + lattice[None]), values(game.terminal, mean[-1] + lattice))
    tilted = tilted + multipliers[:, None] * lattice[None]
    tilted = jnp.where(jnp.isfinite(tilted), tilted, jnp.inf)
    along = jnp.abs(lattice - lattice[0])
    gain = jnp.sum(tilted[:, 0][:, None] - jax.lax.associative_scan(jnp.minimum, tilted, axis=1), axis=0)
    affordable = game.trading_cost * along**2 / (2 * game.horizon) <= gain
    falling = jnp.any(jnp.diff(tilted, axis=1) < 0, axis=0)
    falls_later = jnp.append(jnp.flip(jax.lax.associative_scan(jnp.logical_or, jnp.flip(falling))), False)
    # One point beyond the last that is both, since the lattice is coarse.
    within = affordable & falls_later
    last = jnp.max(jnp.where(within, jnp.arange(lattice.size), -1)) + 1
    moved = jnp.any(falling) & jnp.any(within[1:])
    return jnp.where(moved, along[jnp.minimum(last, lattice.size - 1)], 0.0)
