"""One finite game along a foreseen supply path, and what every solution of it has."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import as_function
from walras.model.equilibrium import Status
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
            limits=market.limits and tuple(None if wall is None else jnp.asarray(wall, dtype) for wall in market.limits),
            supply=supply,
            horizon=jnp.asarray(horizon, dtype),
            initial=initial,
            weights=weights,
        )

    @property
    def finite(self) -> Array:
        """Whether every number of the game is finite (limits apart, which may be absent)."""
        leaves = jax.tree.leaves([self.__dict__[name] for name in self.__dataclass_fields__ if name != "limits"])
        numbers = [leaf for leaf in leaves if isinstance(leaf, float) or eqx.is_inexact_array(leaf)]
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(number)) for number in numbers]))

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

    def refined(self, substeps: int) -> "Game":
        """The same game with each step cut into `substeps`."""
        return eqx.tree_at(lambda game: game.supply, self, jnp.repeat(self.supply, substeps, axis=0))

    def traded(self, rate: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
        """The money c·rate that trading at a rate costs at the margin."""
        return self.trading_cost * rate if self.trading_cost.ndim == 0 else rate @ self.trading_cost


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
    def residual(self) -> Float[Array, ""]:
        """The clearing error max |E[α*] − Q| (units / time): agents' response to this price, computed afresh."""

    @property
    @abstractmethod
    def error(self) -> Float[Array, ""]:
        """An estimate of the largest error of `price` from the steps and grids of the solve (money / unit)."""

    @abstractmethod
    def strategy(self) -> Feedback | Paths:
        """What the agents do."""


def midpoints(game: Game) -> Float[Array, " steps"]:
    return (jnp.arange(game.steps) + 0.5) * game.step
