"""Markets without noise whose costs are not convex: the limit of vanishing noise.

Without noise such a population splits, and any finite set of agents has many local equilibria. With noise the equilibrium is
unique and every agent's optimum global; its price is smooth in σ² and, far below the noise at which agents' wells blur,
nearly linear. So the market is solved at a few noises, and the polynomial in σ² through them is read off at zero.
"""

import math
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, Status, first_failure, is_traced
from walras.model.price_formation.diffusion import Diffusion
from walras.model.price_formation.diffusion_equilibrium import DiffusionEquilibrium
from walras.model.price_formation.domain import frozen_multipliers, length_scale, reach
from walras.model.price_formation.dual_equilibrium import relative_error
from walras.model.price_formation.game import Game, PathEquilibrium, midpoints
from walras.model.price_formation.strategy import Feedback

_POINTS = 19.2  # of a grid that cannot be chosen from values, times the noise: resolves 32 steps
_DIGITS = 1e-4  # of positions: where agents differ and move by less, the length is that over which costs move them
_UNRELIABLE = 0.05  # of the price's scale: an error beyond which the limit is not told from the noises


class VanishingNoise(eqx.Module):
    """Solves markets without noise as the limit of decreasing noises, with an error estimate.

    First positions are atoms. Where they stand for a continuum that splits, let there be hundreds: between two neighbours the
    price cannot tell where it does, which `error` does not count. In the published third case (p̄ = −.161633) 100 of them at
    the middles of equal intervals give a price that is off by 7e-4, 200 by 3e-4, 400 by 2e-6.

    `noises`: at least two, decreasing, as multiples of the length over which agents differ and move in the game, per square
    root of the horizon. `diffusion`: the options with which each is solved.
    """

    noises: tuple[float, ...] = eqx.field(default=(0.1, 0.07, 0.05), static=True)
    diffusion: Diffusion = Diffusion()

    def __check_init__(self):
        falling = all(a > b > 0 for a, b in zip(self.noises, self.noises[1:], strict=False))
        if len(self.noises) < 2 or not falling:
            raise EquilibriumError(f"noises is {self.noises}: give at least two positive numbers, each less than the last")

    def solve(self, game: Game) -> "NoiseLimit":
        """The equilibrium; `PriceFormation.solve` calls this."""
        quiet = eqx.tree_at(lambda g: g.noise, game, jnp.zeros_like(game.noise))
        length = _length(quiet) / jnp.sqrt(game.horizon)
        levels = []
        for noise in self.noises:
            noisy = eqx.tree_at(lambda g: g.noise, game, noise * length)
            levels.append(self._diffusion(noise, game).solve(noisy))
        limit = _limit(game, tuple(levels))
        if not is_traced(limit) and bool(limit.status == Status.solved) and relative_error(limit) > _UNRELIABLE:
            limit = eqx.tree_at(lambda e: e.status, limit, Status.noise_limit_unreliable)
        return limit

    def _diffusion(self, noise, game):
        """Under a transformation the grid cannot be chosen from values: it is finer in proportion for smaller noises."""
        if not is_traced(game) or self.diffusion.points is not None:
            return self.diffusion
        return replace(self.diffusion, points=32 * math.ceil(_POINTS / 32 / noise))


class NoiseLimit(PathEquilibrium):
    """The limit of equilibria with less and less noise.

    `levels`: the equilibria that were solved; `spread` (steps,) by how much the last two extrapolations of the price differ.
    """

    levels: tuple[DiffusionEquilibrium, ...]
    spread: Float[Array, " steps"]

    @property
    def residual(self):
        """The largest clearing error of the levels; `verify` clears the limit itself."""
        return jnp.max(jnp.stack([level.residual for level in self.levels]))

    @property
    def error(self):
        """What extrapolating leaves open, and what it makes of the levels' own errors (money / unit)."""
        weights = jnp.abs(_weights(_variances(self.levels)))
        levels = jnp.sum(weights * jnp.stack([level.error for level in self.levels]))
        return jnp.max(jnp.abs(self.spread)) + levels

    @property
    def price_scale(self):
        """The size of the price's movements (money / unit)."""
        return self.levels[-1].price_scale

    @property
    def substeps(self):
        """Those that all levels have."""
        return math.gcd(*(level.substeps for level in self.levels))

    def _on_substeps(self, substeps):
        return _limit(self.game.refined(substeps), tuple(level.refined(substeps) for level in self.levels))

    def strategy(self) -> Feedback:
        """That of the level with the least noise."""
        return self.levels[-1].strategy()


def _length(game):
    """The length over which agents differ and move; if they hardly do, over which costs would move them."""
    low, high = reach(game, frozen_multipliers(game))
    moved = high - low - jnp.ptp(game.initial)
    length = length_scale(game)
    digits = _DIGITS * jnp.maximum(jnp.max(jnp.abs(game.initial)), 1.0)
    return jnp.where(length > digits, length, jnp.maximum(moved, digits))


@eqx.filter_jit
def _limit(game, levels):
    variances = _variances(levels)
    prices = jnp.stack([level.price for level in levels])
    price, coarser = _at_zero(variances, prices), _at_zero(variances[1:], prices[1:])
    spread = price - coarser
    unreliable = jnp.max(jnp.abs(spread)) > _UNRELIABLE * levels[-1].price_scale
    failed = [(level.status != Status.solved, level.status) for level in reversed(levels)]
    status = first_failure(*failed, (unreliable, Status.noise_limit_unreliable))
    return NoiseLimit(
        game=game,
        times=midpoints(game),
        price=price,
        mean_position=game.mean_position,
        status=status,
        iterations=jnp.sum(jnp.stack([level.iterations for level in levels])),
        levels=levels,
        spread=spread,
    )


def _variances(levels):
    return jnp.stack([level.game.noise**2 for level in levels])


def _at_zero(nodes, values):
    """The polynomial through (nodes, values) at zero."""
    return jnp.tensordot(_weights(nodes), values, axes=1)


def _weights(nodes):
    """Lagrange's weights of values at `nodes` for the polynomial at zero."""
    others = [jnp.delete(nodes, i) for i in range(nodes.size)]
    return jnp.stack([jnp.prod(other / (other - node)) for node, other in zip(nodes, others, strict=True)])
