"""The stationary market: agents who discount, stocks that depreciate, and consumers who respond to the price.

Agents minimise E ∫ e^{−rt} [(c/2) α² + V(x) + ϖ α] dt with ẋ = α − δx, V = η/2 (x−κ)². Consumers take d₀ − d₁ϖ, supply is
an Ornstein–Uhlenbeck process that nobody foresees, and the price clears the market, E[α] = Q − d₀ + d₁ϖ. Then

    X̄′ = E[α] − δX̄,   dp̄ = ((r+δ) p̄ + η(X̄−κ)) dt + martingale,   ϖ = (p̄ − c(Q − d₀)) / (1 + c d₁),

and p̄ = b₀ + b_Q Q + b_X X̄, where, with D = 1 + c d₁, b_X is the negative root of

    (d₁/D) b_X² − (r+2δ) b_X − η = 0,
    b_Q = b_X / [D (r+δ+ϑ) − d₁ b_X],
    b₀ = (ηκ + ϑ q̄ b_Q − b_X d₀/D) / ((r+δ) − d₁ b_X/D).

The last three equate the coefficients of X̄, Q and 1 in the drift of p̄.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import Quadratic
from walras.model.equilibrium import EquilibriumError, Status, all_finite, checked, first_failure
from walras.model.supply import RandomSupply


class LinearDemand(eqx.Module):
    """Consumption at rate intercept − slope · price; units / time and units² / (money · time)."""

    intercept: Float[Array, ""] | float
    slope: Float[Array, ""] | float = 0.0


class StationaryEquilibrium(eqx.Module):
    """A price that is affine in today's supply and stock: ϖ = level + supply_response Q + position_response X̄.

    All fields are scalars. The mean position (the stock per agent) moves by dX̄ = (m₀ + m_Q Q + m_X X̄) dt with
    (m₀, m_Q, m_X) = `position_drift`; `costate` = (b₀, b_Q, b_X). `price` and `mean_position` are the stationary means.
    """

    level: Float[Array, ""]
    supply_response: Float[Array, ""]
    position_response: Float[Array, ""]
    position_drift: tuple
    costate: tuple
    market: "StationaryMarket"
    supply: RandomSupply
    status: Status

    @property
    def mean_position(self) -> Float[Array, ""]:
        m0, m_q, m_x = self.position_drift
        return -(m0 + m_q * self.supply.mean) / m_x

    @property
    def price(self) -> Float[Array, ""]:
        return self.price_at(self.supply.mean, self.mean_position)

    def price_at(self, supply, mean_position):
        """The price when supply and the mean position are as given (any equal shapes)."""
        return self.level + self.supply_response * supply + self.position_response * mean_position

    def trading_rate(self, position, supply, mean_position):
        """The optimal rate of one agent at `position`: the clearing rate, less a pull towards the mean position.

        The pull g solves g² + (r+2δ) g − η/c = 0: the agent's own deviation is a problem without price or supply.
        """
        market = self.market
        decay = market.discount + 2 * market.depreciation
        ratio = market.holding.strength / market.trading_cost
        pull = 2 * ratio / (decay + jnp.sqrt(decay**2 + 4 * ratio))
        consumption = market.demand.intercept - market.demand.slope * self.price_at(supply, mean_position)
        return supply - consumption - pull * (position - mean_position)

    @property
    def residual(self) -> Float[Array, ""]:
        """The largest violation, recomputed from the coefficients, of p̄'s drift and of market clearing.

        In units of the terms compared: money / (unit · time) for the drift, money / unit for clearing.
        """
        market, supply = self.market, self.supply
        b0, b_q, b_x = self.costate
        m0, m_q, m_x = self.position_drift
        grow = market.discount + market.depreciation
        eta, kappa = market.holding.strength, market.holding.centre
        drift = (
            b_q * supply.reversion * supply.mean + b_x * m0 - grow * b0 + eta * kappa,
            -b_q * supply.reversion + b_x * m_q - grow * b_q,
            b_x * m_x - grow * b_x - eta,
        )
        c, demand = market.trading_cost, market.demand
        # cα + ϖ = p̄ with α the rate that clears, coefficient by coefficient
        first_order = (
            c * (demand.slope * self.level - demand.intercept) + self.level - b0,
            c * (1.0 + demand.slope * self.supply_response) + self.supply_response - b_q,
            c * demand.slope * self.position_response + self.position_response - b_x,
        )
        return jnp.max(jnp.abs(jnp.stack([jnp.asarray(term) for term in (*drift, *first_order)])))


class StationaryMarket(eqx.Module):
    """Agents with holding cost `holding`, discount r ≥ 0 and depreciation δ ≥ 0 (1 / time), facing consumers `demand`.

    >>> market = StationaryMarket(0.5, Quadratic(2.0, 3.0), depreciation=0.3, demand=LinearDemand(4.0, 1.0))
    >>> equilibrium = market.solve(RandomSupply(mean=1.0, reversion=0.5, volatility=0.2))
    >>> [round(float(x), 3) for x in (equilibrium.price, equilibrium.supply_response, equilibrium.position_response)]
    [3.717, -0.685, -0.893]
    """

    trading_cost: Float[Array, ""] | float
    holding: Quadratic
    discount: Float[Array, ""] | float = 0.0
    depreciation: Float[Array, ""] | float = 0.0
    demand: LinearDemand = LinearDemand(0.0, 0.0)

    def __check_init__(self):
        if not isinstance(self.holding, Quadratic):
            raise EquilibriumError(f"holding is a {type(self.holding).__name__}: the stationary market needs a Quadratic")

    def solve(self, supply: RandomSupply, *, throw: bool = True) -> StationaryEquilibrium:
        """The stationary equilibrium; raises `EquilibriumError` as `PriceFormation.solve` does."""
        if not isinstance(supply, RandomSupply):
            raise EquilibriumError(f"supply is a {type(supply).__name__}: the stationary market needs a RandomSupply")
        return checked(_solve(self, supply), throw)


@jax.jit
def _solve(market: StationaryMarket, supply: RandomSupply) -> StationaryEquilibrium:
    c, d0, d1 = market.trading_cost, market.demand.intercept, market.demand.slope
    eta, kappa = market.holding.strength, market.holding.centre
    r, delta, theta = market.discount, market.depreciation, supply.reversion
    wedge = 1.0 + c * d1  # D
    decay = r + 2 * delta
    # The negative root, in the form that does not cancel; −η/(r+2δ) at d₁ = 0.
    b_x = -2 * eta / (decay + jnp.sqrt(decay**2 + 4 * d1 * eta / wedge))
    b_q = b_x / (wedge * (r + delta + theta) - d1 * b_x)
    b0 = (eta * kappa + theta * supply.mean * b_q - b_x * d0 / wedge) / (r + delta - d1 * b_x / wedge)
    level, supply_response, position_response = (b0 + c * d0) / wedge, (b_q - c) / wedge, b_x / wedge
    position_drift = (d1 * level - d0, 1.0 + d1 * supply_response, d1 * position_response - delta)
    # A market without holding costs has no stock to settle, only a price; its mean position is then irrelevant.
    settles = jnp.logical_and(position_drift[2] < 0, jnp.asarray(theta) > 0)
    convex = (
        (jnp.asarray(c) > 0)
        & (jnp.asarray(eta) >= 0)
        & (jnp.asarray(d1) >= 0)
        & (jnp.asarray(r) >= 0)
        & (jnp.asarray(delta) >= 0)
    )
    return StationaryEquilibrium(
        level=jnp.asarray(level),
        supply_response=jnp.asarray(supply_response),
        position_response=jnp.asarray(position_response),
        position_drift=position_drift,
        costate=(b0, b_q, b_x),
        market=market,
        supply=supply,
        status=first_failure(
            (~convex, Status.not_convex),
            (~settles, Status.not_stationary),
            (~all_finite((level, supply_response, position_response)), Status.not_finite),
        ),
    )
