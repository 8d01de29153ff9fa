"""What a market with trading costs is made of, checked."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, is_traced

BALANCED = 1e-9  # of the largest endowment: what their sum may be through rounding


def _array(value):
    """A list as an array; anything else as it is."""
    return jnp.asarray(value, float) if isinstance(value, list | tuple) else value


class Parameters(eqx.Module):
    """The fields of `TradingCosts`, which says what they are."""

    risk_aversion: Float[Array, " agents"] = eqx.field(converter=_array)
    endowment: Float[Array, " agents"] | Float[Array, "agents assets assets"] = eqx.field(converter=_array)
    trading_cost: Float[Array, ""] | Float[Array, "assets assets"] | float = eqx.field(converter=_array)
    power: float = eqx.field(default=2.0, static=True)
    supply: Float[Array, ""] | Float[Array, " assets"] | float = 1.0
    payoff_drift: Float[Array, ""] | Float[Array, " assets"] | float = 0.0
    payoff_volatility: Float[Array, ""] | Float[Array, "assets assets"] | float = 1.0

    def __check_init__(self):
        if isinstance(self.power, Tracer | jax.Array) or not 1.0 < self.power <= 2.0:
            raise EquilibriumError(f"power is {self.power}: give a plain number above 1 and at most 2")
        agents = jnp.shape(self.risk_aversion)
        if len(agents) != 1 or agents[0] < 2:
            raise EquilibriumError(f"risk_aversion has shape {agents}: give one number for each of at least two agents")
        if jnp.shape(self.endowment)[:1] != agents or jnp.ndim(self.endowment) not in (1, 3):
            raise EquilibriumError(
                f"endowment has shape {jnp.shape(self.endowment)} and risk_aversion {agents}: give one number, or for several "
                "assets one (assets, assets) matrix, for each agent"
            )
        matrix = jnp.shape(self.endowment)[1:]
        vector = matrix[:1]
        if len(set(matrix)) > 1:
            raise EquilibriumError(f"endowment has shape {agents + matrix}: give one number or a square matrix for each agent")
        allowed = {
            "trading_cost": (matrix,),
            "payoff_volatility": (matrix,),
            "supply": ((), vector),
            "payoff_drift": ((), vector),
        }
        for name, shapes in allowed.items():
            shape = jnp.shape(getattr(self, name))
            if shape not in shapes:
                wanted = " or ".join(dict.fromkeys("one number" if found == () else str(found) for found in shapes))
                raise EquilibriumError(f"{name} has shape {shape}: give {wanted}, for as many assets as endowment has")
        if matrix and self.power != 2.0:
            raise EquilibriumError(f"power is {self.power}: several assets are solved for quadratic costs, power=2, only")
        self._check_values()

    def _check_values(self):
        for name in ("risk_aversion", "endowment", "trading_cost", "supply", "payoff_drift", "payoff_volatility"):
            value = getattr(self, name)
            if not is_traced(value) and not np.all(np.isfinite(np.asarray(value))):
                raise EquilibriumError(f"{name} is {value}: give finite numbers")
        if not is_traced(self.risk_aversion) and not np.all(np.asarray(self.risk_aversion) > 0):
            raise EquilibriumError(f"risk_aversion is {self.risk_aversion}: give positive numbers")
        if not is_traced(self.payoff_volatility):
            volatility = np.asarray(self.payoff_volatility)
            if not (np.linalg.matrix_rank(volatility) == len(volatility) if volatility.ndim else volatility > 0):
                wanted = "a matrix that can be inverted" if volatility.ndim else "a positive number"
                raise EquilibriumError(f"payoff_volatility is {self.payoff_volatility}: give {wanted}")
        if not is_traced(self.trading_cost):
            cost = np.asarray(self.trading_cost)
            positive = np.all(np.linalg.eigvalsh(cost) > 0) and np.allclose(cost, cost.T) if cost.ndim else cost > 0
            if not positive:
                wanted = "a symmetric positive definite matrix" if cost.ndim else "a positive number"
                raise EquilibriumError(f"trading_cost is {self.trading_cost}: give {wanted}")

    @property
    def aggregate(self) -> Float[Array, ""]:
        """γ̄, the risk aversion of all agents together."""
        return 1.0 / jnp.sum(1.0 / jnp.asarray(self.risk_aversion))

    @property
    def unshared(self) -> Float[Array, ""]:
        """|Σξ| relative to the largest |ξ|: the risk that agents cannot offset among themselves."""
        endowment = jnp.asarray(self.endowment)
        return jnp.max(jnp.abs(jnp.sum(endowment, axis=0))) / jnp.maximum(jnp.max(jnp.abs(endowment)), 1e-300)

    @property
    def initial(self) -> Float[Array, "agents ..."]:
        """What agents hold at first, (agents,) or (agents, assets): each its share of the supply of risk."""
        supply = jnp.broadcast_to(jnp.asarray(self.supply, float), jnp.shape(self.endowment)[1:2])
        share = self.aggregate / jnp.asarray(self.risk_aversion)
        return share.reshape(-1, *[1] * supply.ndim) * supply
