"""The market of one finite game."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from walras.model.costs import DoubleWell, Quadratic
from walras.model.equilibrium import EquilibriumError, Status, checked, is_traced
from walras.model.price_formation.agents import Agents
from walras.model.price_formation.diffusion import Diffusion
from walras.model.price_formation.foreseen import ClosedForm
from walras.model.price_formation.game import Game, PathEquilibrium, require_quadratic
from walras.model.price_formation.random_supply import AffineEquilibrium, solve_random
from walras.model.price_formation.vanishing_noise import VanishingNoise
from walras.model.supply import RandomSupply

_QUADRATURE_POINTS = 8  # Gauss–Legendre points for the mean of a supply function over one step
_FIRST_STEPS, _MOST_STEPS = 32, 1024  # of a supply function whose steps are chosen
_STEPS_WANTED = "steps is None: under a JAX transformation a supply function needs the number of steps"
_JUMP = 0.05  # from one chosen step to the next, of the largest price


class Solver(Protocol):
    """Anything that solves games: ready-made are `ClosedForm`, `Diffusion`, `Agents` and `VanishingNoise`."""

    def solve(self, game: Game) -> PathEquilibrium: ...


class PriceFormation(eqx.Module):
    """A continuum of agents who trade at a cost over one finite game; its equilibrium price is `solve(supply).price`.

    `trading_cost` c > 0 in money · time / unit²; `holding` the running cost V (money / time) and `terminal` the final cost Ψ
    (money): any function of one position, written with jax.numpy, or `None` for no cost; `noise` σ ≥ 0 the agents'
    idiosyncratic noise in units / √time, on which the price of a market with quadratic costs does not depend; `limits`
    (low, high) between which positions of one asset must stay, and strictly between which agents start, `None` for no limit on
    that side. A cost that has parameters is best an `equinox.Module` like `Quadratic`, or a `jax.tree_util.Partial`: its
    parameters are then those of the market.

    For several assets `trading_cost` is a symmetric positive definite matrix, and costs are of a vector of positions.
    Source: Gomes–Saúde, arXiv 1807.07088; several assets and general costs: Wang–Wu Fung–Nurbekyan, arXiv 2506.04169.

    >>> market = PriceFormation(0.5, holding=Quadratic(2.0), terminal=Quadratic(1.0))
    >>> equilibrium = market.solve(jnp.array([1.0, 0.0, -1.0]), horizon=3.0)
    >>> [round(float(price), 3) for price in equilibrium.price]  # the mean price of each step
    [-4.167, -2.0, 0.167]
    """

    trading_cost: Float[Array, ""] | Float[Array, "assets assets"] | float
    holding: Callable | None = None
    terminal: Callable | None = None
    noise: Float[Array, ""] | float = 0.0
    limits: tuple | None = None

    def __check_init__(self):
        for name in ("holding", "terminal"):
            cost = getattr(self, name)
            if cost is not None and not callable(cost):
                raise EquilibriumError(f"{name} is {cost!r}: give a function of one position, such as Quadratic(1.0), or None")
        shape = jnp.shape(self.trading_cost)
        if len(shape) not in (0, 2) or len(set(shape)) > 1:
            raise EquilibriumError(
                f"trading_cost has shape {shape}: give one number, or for several assets a square matrix, and solve many "
                "markets at once with jax.vmap"
            )
        if jnp.ndim(self.noise):
            raise EquilibriumError(f"noise has shape {jnp.shape(self.noise)}: give one number")
        if not is_traced(self.noise) and float(self.noise) < 0:
            raise EquilibriumError(f"noise is {self.noise}: give a number that is not negative")
        if shape and not is_traced(self.trading_cost) and not np.allclose(self.trading_cost, jnp.asarray(self.trading_cost).T):
            raise EquilibriumError(f"trading_cost is {self.trading_cost}: give a symmetric matrix")
        if self.limits is not None:
            self._check_limits()

    def _check_limits(self):
        if not isinstance(self.limits, tuple) or len(self.limits) != 2:
            raise EquilibriumError(f"limits is {self.limits!r}: give a pair (low, high), with None for no limit on a side")
        low, high = self.limits
        lower, upper = -np.inf if low is None else low, np.inf if high is None else high
        if jnp.ndim(lower) or jnp.ndim(upper):
            raise EquilibriumError(f"limits are {low} and {high}: give one number on each side, or None")
        if not is_traced(self.limits) and not lower < upper:
            raise EquilibriumError(f"limits are {low} and {high}: give the lower one first, and None for no limit on a side")

    def solve(
        self,
        supply: Float[Array, "steps ..."] | Callable | RandomSupply,
        *,
        horizon: float = 1.0,
        initial=0.0,
        steps: int | None = None,
        solver: Solver | None = None,
        throw: bool = True,
    ) -> PathEquilibrium | AffineEquilibrium:
        """The equilibrium over [0, horizon].

        `supply`: (steps,) or (steps, assets), the mean rate over each of the equal steps, or a function of time, with `steps`
        or without (they are then chosen so that the price has settled); both are foreseen by every agent. A `RandomSupply`,
        with `steps`, is not, and gives the price as an affine function of the state. `initial`: one position, an array of
        equally likely positions, or (positions, weights); for several assets a position has `assets` entries.

        `solver`: `None` takes what fits the market. Quadratic costs without limits have a `ClosedForm`; a market with noise is
        solved by `Diffusion`; one without by `Agents` where costs are convex and limits do not bind, and else by
        `VanishingNoise`. Under a JAX transformation grids and steps cannot be chosen from values, and are coarse unless given.

        Raises `EquilibriumError` when an argument has the wrong shape and, unless `throw=False` or under a JAX
        transformation, when the market has no equilibrium or it was not found; then `status` tells.
        """
        if isinstance(supply, RandomSupply):
            found = self._solve_random(supply, horizon, initial, steps)
        elif callable(supply) and steps is None:
            found = self._with_chosen_steps(supply, horizon, initial, solver)
        elif callable(supply):
            found = self._solve_path(_step_means(supply, horizon, _require_steps(steps)), horizon, initial, solver)
        else:
            found = self._solve_path(_supply_path(supply, steps), horizon, initial, solver)
        return checked(found, throw)

    def _solve_random(self, supply, horizon, initial, steps):
        require_quadratic(self, "a RandomSupply")
        if self.limits is not None:
            raise EquilibriumError(f"limits are {self.limits}: with a RandomSupply there can be none")
        positions, weights = _population(initial, None)
        return solve_random(self, supply, horizon, jnp.sum(weights * positions), _require_steps(steps))

    def _solve_path(self, supply, horizon, initial, solver):
        assets = supply.shape[1] if supply.ndim == 2 else None
        if jnp.shape(self.trading_cost) != (() if assets is None else (assets, assets)):
            raise EquilibriumError(
                f"supply has shape {supply.shape} and trading_cost {jnp.shape(self.trading_cost)}: for several assets give "
                "(steps, assets) and (assets, assets), for one asset (steps,) and a number"
            )
        if assets is not None and self.limits is not None:
            raise EquilibriumError(f"limits are {self.limits}: with several assets there can be none, give Barrier-like costs")
        for name in ("holding", "terminal"):
            _require_cost(getattr(self, name), name, assets)
        game = Game.of(self, supply, _positive(horizon, "horizon"), *_population(initial, assets))
        return (self._fitting_solver(game) if solver is None else solver).solve(game)

    def _with_chosen_steps(self, supply, horizon, initial, solver):
        if is_traced((self, horizon, initial)):
            raise EquilibriumError(_STEPS_WANTED)
        steps = _FIRST_STEPS
        while True:
            found = self._solve_path(_step_means(supply, horizon, steps), horizon, initial, solver)
            if is_traced(found):
                raise EquilibriumError(_STEPS_WANTED)
            scale = float(jnp.maximum(jnp.max(jnp.abs(found.price)), 1e-300))
            # The price moves within a step too: means over steps have settled once halving them changes little.
            settled = float(jnp.max(jnp.abs(jnp.diff(found.price, axis=0)))) <= _JUMP * scale
            if settled or steps >= _MOST_STEPS or not bool(found.status == Status.solved):
                return found
            steps *= 2

    def _fitting_solver(self, game) -> Solver:
        if game.limits is None and all(isinstance(cost, Quadratic) for cost in (game.holding, game.terminal)):
            return ClosedForm()
        if isinstance(self.noise, Tracer) or float(self.noise) != 0.0:
            return Diffusion()
        if game.supply.ndim > 1:
            return Agents()
        return _Convexity()


class _Convexity(eqx.Module):
    """Without noise: agents' own trajectories where costs prove to be convex and limits not to bind.

    Else the limit of vanishing noise.
    """

    def solve(self, game):
        if is_traced(game):
            wells = any(isinstance(cost, DoubleWell) for cost in (game.holding, game.terminal))
            return (VanishingNoise() if wells or game.limits else Agents()).solve(game)
        found = Agents().solve(replace(game, limits=None))
        if bool(found.status == Status.costs_not_convex) or not _within(found, game):
            return VanishingNoise().solve(game)
        return replace(found, game=game)


def _within(found, game) -> bool:
    """Whether all agents stay strictly inside the limits without minding them, which are then no limits to anybody."""
    low, high = game.bounds
    return bool(jnp.all((found.fine_positions > low) & (found.fine_positions < high)))


def _positive(value, name):
    if not isinstance(value, Tracer) and not (jnp.ndim(value) == 0 and float(value) > 0):
        raise EquilibriumError(f"{name} is {value}: give one positive number")
    return value


def _require_cost(cost, name, assets):
    """A cost must be a number for one position; that of one asset with a plain `Quadratic` is."""
    if cost is None or (isinstance(cost, Quadratic) and jnp.ndim(cost.strength) == 0):
        return
    shape = () if assets is None else (assets,)
    try:
        found = jax.eval_shape(lambda position: cost(position), jax.ShapeDtypeStruct(shape, jnp.result_type(float)))
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise EquilibriumError(
            f"{name} is a function that JAX cannot trace: write it with jax.numpy, not numpy, and with jnp.where, not if"
        ) from error
    except (TypeError, ValueError) as error:
        raise EquilibriumError(f"{name} does not accept a position of shape {shape}: {error}") from error
    if not hasattr(found, "shape") or found.shape != ():
        raise EquilibriumError(
            f"{name} gives {getattr(found, 'shape', found)} for a position of shape {shape}: give a function of one position "
            "that returns one number"
        )
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise EquilibriumError(f"{name} gives numbers of type {found.dtype}: give a function that returns real numbers")


def _require_steps(steps):
    if steps is None or steps < 1:
        raise EquilibriumError(f"steps is {steps}: a supply that is not an array needs the number of steps, such as 100")
    return int(steps)


def _supply_path(supply, steps):
    supply = jnp.asarray(supply, dtype=jnp.result_type(float))
    if supply.ndim not in (1, 2) or supply.size == 0:
        raise EquilibriumError(
            f"supply has shape {supply.shape}: give an array with a rate for each step, (steps,) or (steps, assets)"
        )
    if steps is not None and steps != supply.shape[0]:
        raise EquilibriumError(f"steps is {steps} but supply has {supply.shape[0]} entries: leave steps out")
    return supply


def _step_means(supply, horizon, steps):
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    times = (jnp.arange(steps)[:, None] + 0.5 * (1.0 + nodes)[None, :]) * (horizon / steps)
    try:
        rates = jax.vmap(jax.vmap(supply))(times)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError, TypeError) as error:
        raise EquilibriumError(
            "supply is a function that JAX cannot trace: write it with jax.numpy, not numpy or math, and with jnp.where, not if"
        ) from error
    return jnp.tensordot(rates, 0.5 * weights, axes=(1, 0))


def _population(initial, assets):
    """The agents' first positions (agents,) or (agents, assets), and their weights (agents,), which sum to one."""
    positions, weights = initial if isinstance(initial, tuple) else (initial, None)
    positions = jnp.asarray(positions, dtype=jnp.result_type(float))
    if assets is not None and positions.ndim < 2:
        if positions.shape not in ((), (assets,)):
            raise EquilibriumError(
                f"initial has shape {positions.shape}: for {assets} assets give ({assets},) or (agents, {assets})"
            )
        positions = jnp.broadcast_to(positions, (1, assets))
    else:
        positions = jnp.atleast_1d(positions)
    if positions.ndim != (1 if assets is None else 2) or positions.size == 0 or positions.shape[1:] not in ((), (assets,)):
        raise EquilibriumError(f"initial has shape {positions.shape}: give one position or a one-dimensional array of them")
    agents = positions.shape[0]
    if weights is None:
        return positions, jnp.full(agents, 1.0 / agents, positions.dtype)
    # Before JAX makes them traced, under a transformation.
    usable = isinstance(weights, Tracer) or (np.all(np.asarray(weights) >= 0) and np.sum(np.asarray(weights)) > 0)
    weights = jnp.asarray(weights, dtype=positions.dtype)
    if weights.shape != (agents,):
        raise EquilibriumError(
            f"initial has {agents} positions and weights of shape {weights.shape}: give one weight for each position"
        )
    if not usable:
        raise EquilibriumError("initial has weights that are negative or all zero: give positive ones")
    return positions, weights / jnp.sum(weights)
