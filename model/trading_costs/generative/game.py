"""A market over equal steps, with the sizes that its networks work in."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.trading_costs.parameters import Parameters
from walras.model.trading_costs.small_costs import scale


class Game(eqx.Module):
    """Agents who trade at `steps` steps. In the precision of the networks.

    `trading_time` is how long agents take to trade a deviation away when costs are small, and `deviation`, `marginal` and
    `premium` are the sizes of their deviations, of what trading faster costs them, and of the price less its payoff's
    expectation.
    """

    risk_aversion: Float[Array, " agents"]
    endowment: Float[Array, " agents"]
    initial: Float[Array, " agents"]
    per_shock: Float[Array, " agents"]
    cost: Float[Array, ""]
    volatility: Float[Array, ""]
    step: Float[Array, ""]
    trading_time: Float[Array, ""]
    deviation: Float[Array, ""]
    marginal: Float[Array, ""]
    premium: Float[Array, ""]
    steps: int = eqx.field(static=True)
    power: float = eqx.field(static=True)

    @classmethod
    def of(cls, market: Parameters, horizon, steps: int) -> "Game":
        gamma, xi, cost, supply, alpha = (
            jnp.asarray(getattr(market, name), float)
            for name in ("risk_aversion", "endowment", "trading_cost", "supply", "payoff_volatility")
        )
        total, aggregate = jnp.sum(xi), market.aggregate
        # What agents hold without costs moves by so much when W does.
        per_shock = (aggregate * total / gamma - xi) / alpha
        exposure, mean = jnp.maximum(jnp.max(jnp.abs(per_shock)), 1e-6), jnp.mean(gamma)
        length = scale(cost, market.power, exposure, mean, alpha)
        trading_time = jnp.minimum(horizon, 2.0 * length**2 / exposure**2)
        deviation = exposure * jnp.sqrt(0.5 * trading_time)
        marginal = cost * (deviation / trading_time) ** (market.power - 1.0)
        asymmetry = (jnp.max(gamma) - jnp.min(gamma)) / (jnp.max(gamma) + jnp.min(gamma))
        shared = aggregate * alpha * horizon * (alpha * jnp.abs(supply) + jnp.abs(total) * jnp.sqrt(horizon))
        numbers = {
            "risk_aversion": gamma,
            "endowment": xi,
            "initial": market.initial,
            "per_shock": per_shock,
            "cost": cost,
            "volatility": alpha,
            "step": jnp.asarray(horizon / steps),
            "trading_time": trading_time,
            "deviation": deviation,
            "marginal": marginal,
            "premium": shared + asymmetry * marginal * jnp.sqrt(horizon / trading_time) + 1e-6 * alpha * jnp.sqrt(horizon),
        }
        numbers = jax.tree.map(lambda number: number.astype(jnp.float32), numbers)
        return cls(**numbers, steps=steps, power=market.power)

    def exposure(self, volatility, moved, shock) -> Float[Array, " agents"]:
        """σφⁿ + ξⁿW, what agents bear who hold `moved` more than at first."""
        return volatility * (self.initial + moved) + self.endowment * shock

    @property
    def move(self) -> Float[Array, ""]:
        """√D, by which W moves in a step."""
        return jnp.sqrt(self.step)

    @property
    def horizon(self) -> Float[Array, ""]:
        return self.steps * self.step
