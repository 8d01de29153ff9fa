"""What equilibria with trading costs have in common, whatever the costs: their figures at time 0, and paths."""

from abc import abstractmethod
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, Status, all_finite, first_failure, is_traced
from walras.model.trading_costs.frictionless import Frictionless
from walras.model.trading_costs.parameters import Parameters

# Steps are too few where the figures' relative error is larger, or where agents trade away more of a deviation in the finest
# step that is extrapolated from: errors then have no expansion in the step, and their estimate means nothing.
_LARGEST_ERROR, _MOST_TRADED = 0.01, 0.5
_SMALL_DRIFT = 0.01


class Figures(NamedTuple):
    """Price, drift and volatility at time 0, and what each agent's objective is worth (money).

    `traded` is the largest share of a deviation from where agents want to be that they trade away in one step.
    """

    price: Float[Array, "..."]
    drift: Float[Array, "..."]
    volatility: Float[Array, "..."]
    welfare: Float[Array, " agents"]
    traded: Float[Array, ""]


class Simulation(NamedTuple):
    """Paths at the `times` (steps + 1,) of a solve; of several assets each has a last axis (assets,).

    `shock` W and `price` are (paths, steps + 1), `position` (paths, steps + 1, agents). An agent that trades at `rate`
    (paths, steps, agents) does so at a step's start, and holds its new position over the step.
    """

    times: Float[Array, " nodes"]
    shock: Float[Array, "paths nodes ..."]
    price: Float[Array, "paths nodes ..."]
    position: Float[Array, "paths nodes agents ..."]
    rate: Float[Array, "paths steps agents ..."]

    @property
    def volume(self) -> Float[Array, "paths steps ..."]:
        """Units that change hands per time: half of all agents' trading, each unit being bought and sold."""
        return 0.5 * jnp.sum(jnp.abs(self.rate), axis=2)


class TradingEquilibrium(eqx.Module):
    """The equilibrium of a `market`, in which agents trade at equal steps between `times` (steps + 1,).

    `price0`, `drift0`, `volatility0` and `welfare` (agents,), what each agent's objective is worth (money), are those of
    continuous trading, extrapolated; `error` is the largest of their relative errors, as estimated. `residual` is the largest
    violation of agents' first-order conditions, and of the price's dynamics, with the steps of the solve (money / unit).
    """

    market: eqx.AbstractVar[Parameters]
    times: eqx.AbstractVar[Float[Array, " nodes"]]
    limit: eqx.AbstractVar[Figures]
    error: eqx.AbstractVar[Float[Array, ""]]
    residual: eqx.AbstractVar[Float[Array, ""]]
    status: eqx.AbstractVar[Status]

    @property
    def price0(self) -> Float[Array, "..."]:
        return self.limit.price

    @property
    def drift0(self) -> Float[Array, "..."]:
        return self.limit.drift

    @property
    def volatility0(self) -> Float[Array, "..."]:
        return self.limit.volatility

    @property
    def welfare(self) -> Float[Array, " agents"]:
        return self.limit.welfare

    @property
    def liquidity_premium(self) -> Float[Array, "..."]:
        """By how much the price's drift at time 0 exceeds that of the market without trading costs."""
        return self.drift0 - Frictionless(self.market, self.times[-1]).drift0

    @property
    def liquidity_discount(self) -> Float[Array, "..."]:
        """By how much the price at time 0 is below that of the market without trading costs."""
        return Frictionless(self.market, self.times[-1]).price0 - self.price0

    @abstractmethod
    def simulate(self, key: Array, paths: int) -> Simulation:
        """Random paths, at the steps of the solve."""

    @abstractmethod
    def along(self, increments: Float[Array, "paths steps ..."]) -> Simulation:
        """Paths along given increments of W, (paths, steps) or (paths, steps, assets), such as a scenario's."""

    def _require_increments(self, increments) -> Float[Array, "paths steps ..."]:
        increments = jnp.asarray(increments, float)
        wanted = (self.times.size - 1, *jnp.shape(self.market.endowment)[1:2])
        if increments.shape[1:] != wanted or increments.ndim != 1 + len(wanted):
            raise EquilibriumError(
                f"increments have shape {increments.shape}: give (paths, {', '.join(map(str, wanted))}), one for each step"
            )
        return increments

    def _require_lattice_moves(self, increments) -> Float[Array, "paths steps"]:
        increments = self._require_increments(increments)
        size = jnp.sqrt(self.times[1] - self.times[0])
        if not is_traced((increments, size)) and not np.allclose(np.abs(increments), size, rtol=1e-6, atol=0.0):
            raise EquilibriumError(
                f"increments are not all ±{float(size):.6g}: this market is solved on a lattice of such moves"
            )
        return increments


def require_horizon(horizon):
    """Raise unless it is one positive number, or not known yet."""
    if not isinstance(horizon, Tracer) and not (jnp.ndim(horizon) == 0 and 0 < float(horizon) < np.inf):
        raise EquilibriumError(f"horizon is {horizon}: give one positive number")


def require_steps(steps):
    """Raise unless it is a whole number of at least 1."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise EquilibriumError(f"steps is {steps}: give a whole number of at least 1, such as 32")


def continuous_limit(column: list[Figures], horizon) -> tuple[Figures, Float[Array, ""]]:
    """The limit of figures of steps, 2 steps, 4 steps, …, whose errors have an expansion in powers of the step (Richardson).

    And the largest relative error: how far the last order of extrapolation moved it. Errors of the price are in units of
    what it earns over the horizon, but at least a hundredth of its risk, those of an agent's welfare in units of the largest.
    `traded` is that of the last level.
    """
    traded = jax.lax.stop_gradient(column[-1].traded)
    before = column[-1]
    for order in range(1, len(column)):
        before, weight = column[-1], 1.0 / (2**order - 1)
        column = [jax.tree.map(lambda coarse, fine, w=weight: fine + w * (fine - coarse), *pair) for pair in pairwise(column)]
    (found,) = column
    # Where drift is small, as with little supply, risk says what matters.
    risk = jnp.max(jnp.abs(found.volatility)) / jnp.sqrt(horizon)
    drift = jnp.maximum(jnp.max(jnp.abs(found.drift)), _SMALL_DRIFT * risk)
    scales = drift * horizon, drift, found.volatility, jnp.maximum(jnp.max(jnp.abs(found.welfare)), 1e-300)
    moved = [
        jnp.max(jnp.abs(now - then)) / jnp.max(jnp.abs(scale))
        for now, then, scale in zip(found[:4], before[:4], scales, strict=True)
    ]
    return found._replace(traded=traded), jnp.max(jnp.stack(moved))


def status_of(market: Parameters, found: Figures, error, *failures) -> Status:
    """Whether a market whose figures have that error is solved; `failures` are others, graver than that."""
    cost = jnp.asarray(market.trading_cost)
    lowest = jnp.min(jnp.linalg.eigvalsh(jax.lax.stop_gradient(cost))) if cost.ndim else cost
    return first_failure(
        (~(jnp.min(jnp.asarray(market.risk_aversion)) > 0) | ~(lowest > 0), Status.not_convex),
        *failures,
        (~all_finite(found), Status.not_finite),
        (~(error <= _LARGEST_ERROR) | ~(found.traded <= _MOST_TRADED), Status.steps_too_coarse),
    )
