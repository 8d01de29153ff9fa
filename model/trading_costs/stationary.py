"""Two agents whose risks offset each other, far from the horizon.

With ξ¹ = −ξ² = ξ, c₂ = (γ¹+γ²)/2, ε = (γ²−γ¹)/(γ¹+γ²) and quadratic costs, the deviation z of the first agent's position from
what it would hold without costs is an Ornstein–Uhlenbeck process,

    dz = −kz dt + (ξ/σ) dW,   k = σ √(c₂/λ),   σ = α + ε ξ √(λc₂),   μ = γ̄ s σ² + ½(γ¹−γ²) σ² z,

and turnover is E|φ̇| = (ξ/σ) √(k/π). The same W moves the price and makes agents trade.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.equilibrium import Status, all_finite, first_failure
from walras.model.trading_costs.parameters import BALANCED, Parameters
from walras.model.trading_costs.small_costs import scale, shape


class StationaryTrading(eqx.Module):
    """The stationary law of positions and trading of two agents.

    `volatility` σ of the price (money / (unit · √time)); `reversion` k of positions (1 / time; E[−zφ̇]/E z² where costs are not
    quadratic); `scale` ℓ of deviations and `position_sd` the standard deviation of the first agent's position around what it
    would hold without costs (units); `turnover` the mean units traded per time; `cost` what trading costs each on average, and
    `risk_cost` what deviations cost the two on average, (c₂σ²/2) E z² (money / time); `drift` = (γ̄sσ², ½(γ¹−γ²)σ²), that of
    the price as a constant and a multiple of z.
    """

    market: Parameters
    volatility: Float[Array, ""]
    reversion: Float[Array, ""]
    scale: Float[Array, ""]
    position_sd: Float[Array, ""]
    turnover: Float[Array, ""]
    cost: Float[Array, ""]
    risk_cost: Float[Array, ""]
    drift: tuple
    status: Status

    def rate(self, deviation: Float[Array, "..."]) -> Float[Array, "..."]:
        """How fast the first agent trades (units / time) when its position deviates by so much (units)."""
        form = shape(self.market.power)
        across = jnp.abs(deviation) / self.scale
        rates = jnp.interp(across.ravel(), form.deviation, form.rate, right="extrapolate").reshape(across.shape)
        return -jnp.sign(deviation) * rates * self._speed

    @property
    def _speed(self):
        """c²/2ℓ."""
        return self.reversion * self.position_sd**2 / self.scale


def stationary(market, leading_order: bool) -> StationaryTrading:
    """The stationary law; with `leading_order` with the payoff's volatility in place of the price's."""
    q = market.power
    gamma = jnp.asarray(market.risk_aversion, float)
    xi = 0.5 * (jnp.asarray(market.endowment, float)[0] - jnp.asarray(market.endowment, float)[1])
    lam, alpha = jnp.asarray(market.trading_cost, float), jnp.asarray(market.payoff_volatility, float)
    mean_aversion, asymmetry = 0.5 * (gamma[0] + gamma[1]), (gamma[1] - gamma[0]) / (gamma[0] + gamma[1])
    sigma = alpha if leading_order else alpha + asymmetry * xi * jnp.sqrt(lam * mean_aversion)
    c = jnp.abs(xi) / sigma
    length = scale(lam, q, c, mean_aversion, sigma)
    form = shape(q)
    speed = c**2 / (2.0 * length)
    spread = length * np.sqrt(form.mean(form.deviation**2))
    figures = {
        "volatility": sigma,
        "reversion": c**2 / (2.0 * spread**2),
        "scale": length,
        "position_sd": spread,
        "turnover": speed * form.mean(form.rate),
        "cost": lam / q * speed**q * form.mean(form.rate**q),
        "risk_cost": 0.5 * mean_aversion * sigma**2 * spread**2,
    }
    bad = ~(lam > 0) | ~jnp.all(gamma > 0)
    return StationaryTrading(
        market=market,
        **figures,
        drift=(market.aggregate * market.supply * sigma**2, 0.5 * (gamma[0] - gamma[1]) * sigma**2),
        status=first_failure(
            (bad, Status.not_convex),
            (market.unshared > BALANCED, Status.risks_not_offset),
            (~(sigma > 0) | ~(alpha > 0), Status.volatility_not_positive),
            (~all_finite(figures), Status.not_finite),
        ),
    )
