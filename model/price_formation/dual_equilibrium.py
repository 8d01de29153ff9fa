"""Equilibria found as the maximum of the dual: their price, its error and its course within steps, from the multipliers."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, Status
from walras.model.price_formation.domain import length_scale
from walras.model.price_formation.dual import Dual, clearing_error, costate_of, refined_change
from walras.model.price_formation.game import Game, PathEquilibrium, midpoints, step_means

_ROUNDS = 6  # of choosing substeps
_DIGITS = 1e-6
_USELESS = 0.05  # an error of the price, as a share of its scale, beyond which it is none


class DualEquilibrium(PathEquilibrium):
    """The equilibrium of a game whose steps were cut into `substeps`: `multipliers` (steps · substeps, …) maximise its dual."""

    multipliers: Float[Array, "fine_steps ..."]

    @property
    def substeps(self) -> int:
        return self.multipliers.shape[0] // self.game.steps

    @property
    def fine(self) -> Game:
        """The game on the time steps of the solve."""
        return self.game.refined(self.substeps)

    @abstractmethod
    def dual(self) -> Dual:
        """The dual that was maximised."""

    @abstractmethod
    def finer_dual(self) -> Dual:
        """That with half the steps, and on a finer grid if there is one."""

    @property
    def residual(self):
        return _residual(self)

    @property
    def error(self):
        return _error(self)

    @property
    def price_scale(self):
        """The size of the price's movements (money / unit), of which a solver's `accuracy` is a share."""
        moves = jnp.max(jnp.ptp(self.price, axis=0))
        return jnp.maximum(moves, jnp.max(jnp.abs(self.game.trading_cost)) * length_scale(self.game) / self.horizon)

    def _on_substeps(self, substeps):
        game = self.game.refined(substeps)
        return replace(
            self,
            game=game,
            times=midpoints(game),
            price=price_of(game, self.multipliers),
            mean_position=game.mean_position,
        )


def on_chosen_substeps[E: DualEquilibrium](solve: Callable[[int, E | None], E], accuracy: float, most: int) -> E:
    """An equilibrium whose `error` is within `accuracy` of the price's scale, if `most` substeps reach that.

    `solve(substeps, found)` solves with so many substeps, knowing what was found with fewer.
    """
    found = solve(1, None)
    if not bool(found.status == Status.solved):
        return found
    error = relative_error(found)
    for _ in range(_ROUNDS):
        if not accuracy < error < math.inf or found.substeps >= most:
            break
        # Second order in the step; powers of two, so that similar markets share a compilation.
        finer = solve(min(most, found.substeps * 2 ** max(1, math.ceil(0.5 * math.log2(error / accuracy)))), found)
        if not bool(finer.status == Status.solved):
            break  # a solution whose `error` is larger than asked for is better than none
        finer_error = relative_error(finer)
        if not finer_error < error:
            break  # on a grid of its own, more steps need not be better
        found, error = finer, finer_error
    if not error <= max(accuracy, _USELESS):
        found = eqx.tree_at(lambda e: e.status, found, Status.steps_too_coarse)
    return found


def relative_error(found) -> float:
    """The estimated error as a share of the price's scale, or of a millionth of the price if it hardly moves."""
    scale = max(float(found.price_scale), _DIGITS * float(jnp.max(jnp.abs(found.price))))
    return float(found.error) / max(scale, 1e-300)


def require_positive(solver, *options: str):
    """Options of a solver that are given must be positive."""
    for option in options:
        value = getattr(solver, option)
        if value is not None and not value > 0:
            raise EquilibriumError(f"solver {option} is {value}: give a positive number")


def price_of(game: Game, multipliers: Float[Array, "fine_steps ..."]) -> Float[Array, "steps ..."]:
    """ϖ = p̄ − cQ, the mean over each step."""
    return step_means(costate_of(multipliers), game.steps) - game.traded(game.supply)


@eqx.filter_jit
def _residual(equilibrium):
    dual = equilibrium.dual()
    return clearing_error(dual, dual.mean(equilibrium.multipliers, dual.first_state()))


@eqx.filter_jit
def _error(equilibrium):
    """One quasi-Newton step on the finer dual says how far the price is off."""
    change = refined_change(equilibrium.finer_dual(), costate_of(equilibrium.multipliers))
    # Second order: half the steps leave a quarter of the error.
    return 4.0 / 3.0 * jnp.max(jnp.abs(step_means(change, equilibrium.game.steps)))
