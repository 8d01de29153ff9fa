"""The market of one finite game."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.costs import Quadratic
from walras.model.equilibrium import EquilibriumError, checked
from walras.model.price_formation.foreseen import PathEquilibrium, solve_foreseen
from walras.model.price_formation.random_supply import AffineEquilibrium, solve_random
from walras.model.supply import RandomSupply

_QUADRATURE_POINTS = 8  # Gauss–Legendre points for the mean of a supply function over one step


class PriceFormation(eqx.Module):
    """A continuum of agents who trade at a cost over one finite game; its equilibrium price is `solve(supply).price`.

    `trading_cost` c > 0 in money · time / unit²; `holding` the running cost V and `terminal` the final cost Ψ (`None`
    for no cost); `noise` σ ≥ 0 the agents' idiosyncratic noise in units / √time, on which the price of a market with
    quadratic costs does not depend. Source: Gomes–Saúde, arXiv 1807.07088.

    >>> market = PriceFormation(0.5, holding=Quadratic(2.0), terminal=Quadratic(1.0))
    >>> equilibrium = market.solve(jnp.array([1.0, 0.0, -1.0]), horizon=3.0)
    >>> [round(float(price), 3) for price in equilibrium.price]  # the mean price of each step
    [-4.167, -2.0, 0.167]
    """

    trading_cost: Float[Array, ""] | float
    holding: Quadratic | None = None
    terminal: Quadratic | None = None
    noise: Float[Array, ""] | float = 0.0

    def __check_init__(self):
        for name in ("holding", "terminal"):
            cost = getattr(self, name)
            if cost is not None and not isinstance(cost, Quadratic):
                raise EquilibriumError(f"{name} is a {type(cost).__name__}: the closed form needs a Quadratic, or None")
        if not _is_scalar(self.trading_cost):
            raise EquilibriumError(
                f"trading_cost has shape {jnp.shape(self.trading_cost)}: give one number, and solve many markets at "
                "once with jax.vmap"
            )

    def solve(
        self,
        supply: Float[Array, " steps"] | Callable | RandomSupply,
        *,
        horizon: float = 1.0,
        initial=0.0,
        steps: int | None = None,
        throw: bool = True,
    ) -> PathEquilibrium | AffineEquilibrium:
        """The equilibrium over [0, horizon].

        `supply`: (steps,) the mean rate over each of the equal steps, or a function of time together with `steps`; both
        are foreseen by every agent. A `RandomSupply`, with `steps`, is not, and gives the price as an affine function of
        the state. `initial`: one position, an array of equally likely positions, or (positions, weights).

        Raises `EquilibriumError` when an argument has the wrong shape and, unless `throw=False` or under a JAX
        transformation, when the market has no equilibrium; then `status` tells.
        """
        mean_initial = _mean_position(initial)
        if isinstance(supply, RandomSupply):
            return checked(solve_random(self, supply, horizon, mean_initial, _require_steps(steps)), throw)
        if callable(supply):
            supply = _step_means(supply, horizon, _require_steps(steps))
        supply = _supply_path(supply, steps)
        return checked(solve_foreseen(self, supply, horizon, mean_initial), throw)


def _is_scalar(value):
    return jnp.ndim(value) == 0


def _require_steps(steps):
    if steps is None or steps < 1:
        raise EquilibriumError(f"steps is {steps}: a supply that is not an array needs the number of steps, such as 100")
    return int(steps)


def _supply_path(supply, steps):
    supply = jnp.asarray(supply, dtype=jnp.result_type(float))
    if supply.ndim != 1 or supply.size == 0:
        raise EquilibriumError(f"supply has shape {supply.shape}: give a one-dimensional array, a rate for each step")
    if steps is not None and steps != supply.size:
        raise EquilibriumError(f"steps is {steps} but supply has {supply.size} entries: leave steps out")
    return supply


def _step_means(supply, horizon, steps):
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_POINTS)
    times = (jnp.arange(steps)[:, None] + 0.5 * (1.0 + nodes)[None, :]) * (horizon / steps)
    return jax.vmap(jax.vmap(supply))(times) @ (0.5 * weights)


def _mean_position(initial):
    positions, weights = initial if isinstance(initial, tuple) else (initial, None)
    positions = jnp.asarray(positions, dtype=jnp.result_type(float))
    if positions.ndim > 1 or positions.size == 0:
        raise EquilibriumError(f"initial has shape {positions.shape}: give one position or a one-dimensional array")
    if weights is None:
        return jnp.mean(positions)
    weights = jnp.asarray(weights, dtype=positions.dtype)
    if weights.shape != positions.shape:
        raise EquilibriumError(
            f"initial has {positions.shape} positions and {weights.shape} weights: give one weight for each position"
        )
    return jnp.sum(weights * positions) / jnp.sum(weights)
