"""One finite game along a foreseen supply path, and what every solution of it has."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.costs import Quadratic, as_function, times
from walras.model.equilibrium import EquilibriumError, Status, is_traced
from walras.model.price_formation.strategy import Feedback, Paths


class Game(eqx.Module):
    """What a solver is given: costs, noise and limits of a market, a supply path and the agents' first positions.

    `supply` (steps,) or (steps, assets), the mean rate over each of the equal steps of [0, horizon]; `initial` (agents,) or
    (agents, assets), with `weights` (agents,) that sum to one.
    """

    trading_cost: Float[Array, "..."]
    holding: Any
    terminal: Any
    noise: Float[Array, ""]
    limits: tuple | None
    supply: Float[Array, "..."]
    horizon: Float[Array, ""]
    initial: Float[Array, "..."]
    weights: Float[Array, " agents"]

    @classmethod
    def of(cls, market, supply, horizon, initial, weights) -> "Game":
        dtype = supply.dtype
        assets = supply.shape[1] if supply.ndim == 2 else None
        return cls(
            trading_cost=jnp.asarray(market.trading_cost, dtype),
            holding=as_function(market.holding, assets, dtype),
            terminal=as_function(market.terminal, assets, dtype),
            noise=jnp.asarray(market.noise, dtype),
            limits=_walls(market.limits, dtype),
            supply=supply,
            horizon=jnp.asarray(horizon, dtype),
            initial=initial,
            weights=weights,
        )

    @property
    def steps(self) -> int:
        return self.supply.shape[0]

    @property
    def step(self) -> Float[Array, ""]:
        """The length of a step."""
        return self.horizon / self.steps

    @property
    def mean_position(self) -> Float[Array, "nodes ..."]:
        """X̄ at the nodes: its first value, and the exact integral of supply."""
        first = jnp.tensordot(self.weights, self.initial, axes=1)[None]
        return jnp.concatenate([first, first + self.step * jnp.cumsum(self.supply, axis=0)])

    @property
    def bounds(self) -> tuple:
        """The limits, infinite where there is none."""
        low, high = self.limits or (None, None)
        return -jnp.inf if low is None else low, jnp.inf if high is None else high

    def refined(self, substeps: int) -> "Game":
        """The same game with each step cut into `substeps`."""
        return eqx.tree_at(lambda game: game.supply, self, jnp.repeat(self.supply, substeps, axis=0))

    def traded(self, rate: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
        """The money c·rate that trading at a rate costs at the margin."""
        return times(self.trading_cost, rate)


class PathEquilibrium(eqx.Module):
    """The equilibrium of one finite game along a foreseen supply path.

    `times` (steps,) step midpoints; `price` (steps,) step means; `mean_position` (steps + 1,) at the nodes; with several
    assets price and mean position have a trailing dimension (assets,). `status` tells how the solve ended, `iterations` how
    many Newton steps it took. `game` is what was solved.
    """

    game: Game
    times: Float[Array, " steps"]
    price: Float[Array, "steps ..."]
    mean_position: Float[Array, "nodes ..."]
    status: Status
    iterations: Array

    @property
    def supply(self) -> Float[Array, "steps ..."]:
        return self.game.supply

    @property
    def horizon(self) -> Float[Array, ""]:
        return self.game.horizon

    @property
    def initial(self) -> Float[Array, "agents ..."]:
        return self.game.initial

    @property
    def weights(self) -> Float[Array, " agents"]:
        return self.game.weights

    @property
    def costate(self) -> Float[Array, "steps ..."]:
        """p̄ = ϖ + cQ over each step: the mean marginal value of the position, which is smooth in time."""
        return self.price + self.game.traded(self.supply)

    @property
    @abstractmethod
    def substeps(self) -> int:
        """For how many equal parts of each step the price is known: those into which the solve cut it."""

    def refined(self, substeps: int) -> "PathEquilibrium":
        """The same equilibrium in the game with each step cut into `substeps`, a divisor of those for which it is known.

        `price` keeps its means over the steps, and has within them the course that the solve found.
        """
        fine = self._on_substeps(substeps)
        off = self.price - step_means(fine.price, self.game.steps)
        return eqx.tree_at(lambda e: e.price, fine, fine.price + jnp.repeat(off, substeps, axis=0))

    @abstractmethod
    def _on_substeps(self, substeps: int) -> "PathEquilibrium":
        """The solution in the game with each step cut into `substeps`."""

    @property
    @abstractmethod
    def residual(self) -> Float[Array, ""]:
        """The clearing error max |E[α*] − Q| (units / time): agents' response to this price, computed afresh."""

    @property
    @abstractmethod
    def error(self) -> Float[Array, ""]:
        """An estimate of the largest error of `price` from the steps and grids of the solve (money / unit)."""

    @abstractmethod
    def strategy(self) -> Feedback | Paths:
        """What the agents do."""


def _walls(limits, dtype):
    """The limits as arrays; one that is known to be infinite is none."""

    def none(wall):
        return wall is None or (not is_traced(wall) and np.isinf(wall))

    walls = tuple(None if none(wall) else jnp.asarray(wall, dtype) for wall in limits or ())
    return None if all(wall is None for wall in walls) else walls


def require_quadratic(market, needed_by: str):
    """Both costs of a market or a game must be `Quadratic`, or none."""
    for name in ("holding", "terminal"):
        cost = getattr(market, name)
        if cost is not None and not isinstance(cost, Quadratic):
            raise EquilibriumError(f"{name} is a {type(cost).__name__}: {needed_by} needs a Quadratic, or None")


def trapezium(step, running: Float[Array, "steps ..."], final) -> Float[Array, "steps ..."]:
    """What a running and a final cost (or its derivatives) weigh at nodes 1 … N: second order in the step.

    h at inner nodes, and h/2 at the last with the final one added. The half step at node 0 is the same for every path.
    """
    return (step * running).at[-1].multiply(0.5).at[-1].add(final)


def step_means(path: Float[Array, "fine_steps ..."], steps: int) -> Float[Array, "steps ..."]:
    """The means over each of `steps` steps of a path given on equal parts of them."""
    return jnp.mean(path.reshape(steps, -1, *path.shape[1:]), axis=1)


def midpoints(game: Game) -> Float[Array, " steps"]:
    return (jnp.arange(game.steps) + 0.5) * game.step
