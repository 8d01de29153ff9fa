"""One finite game with quadratic costs and an Ornstein–Uhlenbeck supply that agents do not foresee.

Certainty equivalence: the foreseen formula with each future quantity replaced by its conditional mean. With τ = T − t,
A = (1 − e^{−ϑτ})/ϑ and B = (τ − A)/ϑ,

    ϖ_t = a₀ + a_Q Q_t + a_X X̄_t,   a_Q = −(c + γA + ηB),   a_X = −(γ + ητ),
    a₀ = γ[ζ − q̄(τ−A)] + η[κτ − q̄(τ²/2 − B)].

Source: Gomes–Gutierrez–Ribeiro, SIAM J. Financial Math. 14 (2023), arXiv 2109.01478.
"""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.costs import Quadratic, convex
from walras.model.equilibrium import Status, all_finite, first_failure
from walras.model.supply import RandomSupply


class AffineEquilibrium(eqx.Module):
    """A price that is affine in today's supply and mean position: ϖ = level + supply_response Q + position_response X̄.

    The mean position moves by dX̄ = (m₀ + m_Q Q + m_X X̄) dt with (m₀, m_Q, m_X) = `position_drift`. In a finite game
    the three coefficients are (steps,), at `times`; `price` (steps,) and `mean_position` (steps,) are their expected
    paths when supply starts at its mean.
    """

    times: Float[Array, " steps"]
    level: Float[Array, " steps"]
    supply_response: Float[Array, " steps"]
    position_response: Float[Array, " steps"]
    position_drift: tuple
    supply: RandomSupply
    initial_position: Float[Array, ""]
    trading_cost: Float[Array, ""] | float
    holding: Quadratic
    terminal: Quadratic
    horizon: Float[Array, ""]
    status: Status

    @property
    def mean_position(self) -> Float[Array, " steps"]:
        return self.initial_position + self.supply.mean * self.times

    @property
    def price(self) -> Float[Array, " steps"]:
        return self.price_at(self.supply.mean, self.mean_position)

    def price_at(self, supply, mean_position) -> Float[Array, " steps"]:
        """The price at `times` when supply and the mean position there are as given (scalars or (steps,))."""
        return self.level + self.supply_response * supply + self.position_response * mean_position

    def at(self, times: Float[Array, " times"]) -> "AffineEquilibrium":
        """The same equilibrium with its coefficients at other `times`, increasing and before the horizon."""
        remaining = self.horizon - times
        found = coefficients(self.trading_cost, self.holding, self.terminal, self.supply, remaining)
        return replace(self, times=times, level=found[0], supply_response=found[1], position_response=found[2])

    @property
    def residual(self) -> Float[Array, ""]:
        """The largest violation of agents' optimality, p̄_t = E_t[p̄_s] − η∫ₜˢ (E_t X̄ − κ) du, from midpoint to midpoint.

        The last midpoint is compared with p̄(T) = −γ(X̄_T − ζ). Computed from the coefficients themselves; money / unit.
        """
        gap = jnp.append(jnp.diff(self.times), self.horizon - self.times[-1])
        theta, mean, eta = self.supply.reversion, self.supply.mean, self.holding.strength
        a, b = gap * _phi1(theta * gap), gap**2 * _phi2(theta * gap)
        gamma, zeta = self.terminal.strength, self.terminal.centre
        level, b_q, b_x = self.level, self.supply_response + self.trading_cost, self.position_response
        next_level, next_q, next_x = (
            jnp.append(level[1:], gamma * zeta),
            jnp.append(b_q[1:], 0.0),
            jnp.append(b_x[1:], -gamma),
        )
        expected = (
            next_level + theta * a * mean * next_q + mean * (gap - a) * next_x,
            (1.0 - theta * a) * next_q + a * next_x,
            next_x,
        )
        holding = (eta * (mean * (gap**2 / 2 - b) - self.holding.centre * gap), eta * b, eta * gap)
        violations = [e - v - own for e, v, own in zip(expected, holding, (level, b_q, b_x), strict=True)]
        return jnp.max(jnp.abs(jnp.stack(violations)))


def _phi1(z):
    """(1 − e^{−z}) / z, with its derivatives also where z is small: 1 − z φ₂(z) there."""
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, 1.0, z)
    return jnp.where(small, 1.0 - z * _phi2(z), -jnp.expm1(-safe) / safe)


def _phi2(z):
    """(z − 1 + e^{−z}) / z² without cancellation: its Taylor series where z is small."""
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, 1.0, z)
    series = jnp.ones_like(z)
    for order in range(14, 2, -1):  # Horner: ½ − z/3! + z²/4! − …; 0.5¹³/15! is below double precision
        series = 1.0 - series * jnp.where(small, z, 0.0) / order
    return jnp.where(small, 0.5 * series, (safe + jnp.expm1(-safe)) / safe**2)


def coefficients(trading_cost, holding, terminal, supply, remaining):
    """(a₀, a_Q, a_X) at the times-to-go `remaining` = T − t, by the formula above."""
    eta, kappa = holding.strength, holding.centre
    gamma, zeta = terminal.strength, terminal.centre
    z = supply.reversion * remaining
    a = remaining * _phi1(z)
    b = remaining**2 * _phi2(z)
    level = gamma * (zeta - supply.mean * (remaining - a))
    level = level + eta * (kappa * remaining - supply.mean * (remaining**2 / 2 - b))
    return level, -(trading_cost + gamma * a + eta * b), -(gamma + eta * remaining)


@partial(jax.jit, static_argnames="steps")
def solve_random(market, supply: RandomSupply, horizon, mean_initial, steps) -> AffineEquilibrium:
    """Solve for a supply that agents do not foresee; the coefficients are given at the `steps` midpoints."""
    holding = Quadratic(0.0) if market.holding is None else market.holding
    terminal = Quadratic(0.0) if market.terminal is None else market.terminal
    times = (jnp.arange(steps) + 0.5) * (horizon / steps)
    level, supply_response, position_response = coefficients(market.trading_cost, holding, terminal, supply, horizon - times)
    return AffineEquilibrium(
        times=times,
        level=level,
        supply_response=supply_response,
        position_response=position_response,
        position_drift=(0.0, 1.0, 0.0),
        supply=supply,
        initial_position=jnp.asarray(mean_initial, times.dtype),
        trading_cost=market.trading_cost,
        holding=holding,
        terminal=terminal,
        horizon=jnp.asarray(horizon, times.dtype),
        status=first_failure(
            (~convex(market.trading_cost, holding, terminal), Status.not_convex),
            (~all_finite((level, supply_response, position_response)), Status.not_finite),
        ),
    )
