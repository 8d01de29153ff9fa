"""The benchmark without trading costs: agents share all risks at once, and the price bears only what nobody can share.

With Ξ = Σξⁿ, the volatility solves dσ/dt = γ̄ σ Ξ back from α, and

    μ = γ̄ σ (σᵀ s + Ξ W),   S = βT + σW − γ̄ ∫ₜᵀ σσᵀ s du,   φⁿ = (σσᵀ)⁻¹ μ/γⁿ − σ⁻ᵀ ξⁿ W.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.trading_costs.parameters import Parameters


class Frictionless(eqx.Module):
    """Price, drift and volatility of the market without trading costs, and what agents would hold."""

    market: Parameters
    horizon: Float[Array, ""]

    def volatility(self, time):
        """σ at one time, a number or (assets, assets): α exp(−γ̄ (T − t) Ξ)."""
        market = self.market
        total = jnp.sum(jnp.asarray(market.endowment), axis=0)
        exponent = -market.aggregate * (self.horizon - time) * total
        alpha = jnp.asarray(market.payoff_volatility, float)
        return alpha * jnp.exp(exponent) if total.ndim == 0 else alpha @ jax.scipy.linalg.expm(exponent)

    @property
    def volatility0(self) -> Float[Array, "..."]:
        return self.volatility(0.0)

    @property
    def drift0(self) -> Float[Array, "..."]:
        return self.market.aggregate * self._variance_of_supply(0.0)

    @property
    def price0(self) -> Float[Array, "..."]:
        return jnp.asarray(self.market.payoff_drift) * self.horizon - self.market.aggregate * self._premium()

    def _premium(self):
        """∫ σσᵀ s dt: for one asset the integral of an exponential, for several a block of a matrix's (Van Loan)."""
        market = self.market
        decay = -market.aggregate * jnp.sum(jnp.asarray(market.endowment, float), axis=0)
        alpha = jnp.asarray(market.payoff_volatility, float)
        if decay.ndim == 0:
            grown = 2.0 * decay * self.horizon
            small = jnp.abs(grown) < 1e-8
            safe = jnp.where(small, 1.0, grown)
            return alpha**2 * self._supply * self.horizon * jnp.where(small, 1.0 + 0.5 * grown, jnp.expm1(safe) / safe)
        assets = decay.shape[0]
        blocks = jnp.block([[-decay, jnp.eye(assets)], [jnp.zeros((assets, assets)), decay.T]])
        exponential = jax.scipy.linalg.expm(blocks * self.horizon)
        gathered = exponential[assets:, assets:].T @ exponential[:assets, assets:]
        return alpha @ gathered @ alpha.T @ self._supply

    def position(self, time, shock) -> Float[Array, "agents ..."]:
        """What agents hold, (agents,) or (agents, assets), at one time and value of W, a number or (assets,)."""
        market, sigma = self.market, self.volatility(time)
        total = jnp.sum(jnp.asarray(market.endowment), axis=0)
        risk_aversion = jnp.asarray(market.risk_aversion)
        if sigma.ndim == 0:
            exposed = market.aggregate * (sigma * market.supply + total * shock)
            return (exposed / risk_aversion - jnp.asarray(market.endowment) * shock) / sigma
        exposed = market.aggregate * (sigma.T @ self._supply + total @ shock)
        wanted = jnp.outer(1.0 / risk_aversion, exposed) - jnp.asarray(market.endowment) @ shock
        return jnp.linalg.solve(sigma.T[None], wanted[..., None])[..., 0]

    @property
    def _supply(self):
        return jnp.broadcast_to(jnp.asarray(self.market.supply, float), jnp.shape(self.market.endowment)[1:2])

    def _variance_of_supply(self, time):
        sigma = self.volatility(time)
        return sigma**2 * self._supply if sigma.ndim == 0 else sigma @ (sigma.T @ self._supply)
