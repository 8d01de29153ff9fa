"""The law of returns and volume in the stationary market of two agents, with one shock a row.

In units of its standard deviation, the first agent's deviation x from what it would hold without costs moves with the shock w
that moves the price, and is traded away:

    rₜ = m − b xₜ₋₁ + σ wₜ,   xₜ = e^{−k} xₜ₋₁ + √(1 − e^{−2k}) wₜ,   log Vₜ = ℓ + log(1 − h + h √(π/2) |xₜ|) + τ uₜ,

w and u independent standard normal. So returns tell w, and from the first x everything that agents trade; volume is what
they trade, a share h of it all, with an error. (√(π/2)|x| has mean 1.)
"""

import jax
import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
from jaxtyping import Array, Float

from walras.calibrate.law import Law, OneStepAhead, repeated

_ROOT = float(np.sqrt(np.pi / 2.0))
# Predictions of volume average over the next |x|, up to 8 standard deviations away, by Gauss and Legendre's rule in the log of
# the volume traded: in x itself |x| has a kink, and a small error gives volume a narrow peak.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_FAR = 8.0
_EDGE = 1e-6  # the share is kept as far from 0, where that log does not vary, and from 1, where it has no lower end


class ReturnsAndVolume(Law):
    """(log volume, return) of rows; the parameters as in the module's formulas, `first` being x in the first row.

    Returns are missing in the first row, which has no row before it, and in rows to be forecast; nowhere else.
    """

    pytree_data_fields = ("reversion", "volatility", "drift", "feedback", "first", "level", "share", "noise")

    def __init__(self, rows: int, *, reversion, volatility, drift, feedback, first, level, share, noise):
        self.reversion, self.volatility, self.drift, self.feedback = reversion, volatility, drift, feedback
        self.first, self.level, self.share, self.noise = first, level, share, noise
        super().__init__(rows, 2)

    @property
    def _kept(self):
        return jnp.exp(-self.reversion)

    @property
    def _fresh(self):
        return jnp.sqrt(-jnp.expm1(-2.0 * self.reversion))

    def deviations(self, returns: Float[Array, " rows"]) -> Float[Array, " rows"]:
        """x in each row. A missing return is taken to have no shock."""
        kept = self._kept + self._fresh * self.feedback / self.volatility
        known = ~jnp.isnan(returns)
        shocks = self._fresh * (jnp.where(known, returns, self.drift) - self.drift) / self.volatility
        factors = jnp.where(known, kept, self._kept).at[0].set(0.0)
        shocks = shocks.at[0].set(self.first)
        return jax.lax.associative_scan(lambda one, two: (one[0] * two[0], two[0] * one[1] + two[1]), (factors, shocks))[1]

    def mean_log_volume(self, deviation: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.level + jnp.log1p(self.share * (_ROOT * jnp.abs(deviation) - 1.0))

    def _volume_log_densities(self, volume, deviation):
        seen = ~jnp.isnan(volume)
        # Where nothing is seen x may be 0, where all volume being hedged has no finite log: its gradient would be NaN.
        mean = self.mean_log_volume(jnp.where(seen, deviation, 1.0))
        return jnp.where(seen, jss.norm.logpdf(jnp.where(seen, volume, mean), mean, self.noise), jnp.nan)

    def log_prob(self, value):
        volume, returns = value[..., 0], value[..., 1]
        deviation = self.deviations(returns)
        expected = self.drift - self.feedback * jnp.concatenate([jnp.zeros(1), deviation[:-1]])
        known = ~jnp.isnan(returns)
        of_returns = jss.norm.logpdf(jnp.where(known, returns, expected), expected, self.volatility)
        return jnp.sum(jnp.where(known, of_returns, 0.0)) + jnp.nansum(self._volume_log_densities(volume, deviation))

    def one_step_ahead(self, value):
        volume = value[..., 0]
        seen = ~jnp.isnan(volume)
        centre = jnp.abs(self._kept * jnp.concatenate([jnp.zeros(1), self.deviations(value[..., 1])[:-1]]))
        low = self._log_traded(jnp.maximum(centre - _FAR * self._fresh, 0.0))
        high = self._log_traded(centre + _FAR * self._fresh)
        logs, weights = self._next(centre, low, high)
        mean = jnp.sum(weights * logs, axis=1)
        variance = jnp.sum(weights * (logs - mean[:, None]) ** 2, axis=1)
        # The density: where the errors that take the volume there are likely, too.
        relative = jnp.where(seen, volume - self.level, mean)
        near, reach = jnp.clip(relative, low, high), _FAR * self.noise
        logs, weights = self._next(centre, jnp.maximum(low, near - reach), jnp.minimum(high, near + reach))
        density = jax.scipy.special.logsumexp(jss.norm.logpdf(relative[:, None], logs, self.noise), b=weights, axis=1)
        # x is known in the first row.
        first = self.mean_log_volume(self.first)
        mean, variance = (self.level + mean).at[0].set(first), variance.at[0].set(0.0)
        density = density.at[0].set(jss.norm.logpdf(jnp.where(seen[0], volume[0], first), first, self.noise))
        return OneStepAhead(mean, jnp.sqrt(self.noise**2 + variance), jnp.where(seen, density, jnp.nan))

    def _log_traded(self, size):
        """Log volume over its level, without error, where |x| is `size`."""
        return jnp.log1p(self._inner_share * (_ROOT * size - 1.0))

    def _next(self, centre, low, high):
        """Such logs between two, (rows, nodes), with their probabilities, when x is normal around `centre`."""
        width, share = 0.5 * (high - low)[:, None], self._inner_share
        logs = low[:, None] + width * (1.0 + _NODES[None])
        size = (jnp.expm1(logs) + share) / (share * _ROOT)
        of_size = sum(jss.norm.pdf(size, sign * centre[:, None], self._fresh) for sign in (1.0, -1.0))
        return logs, of_size * jnp.exp(logs) / (share * _ROOT) * width * _WEIGHTS[None]

    @property
    def _inner_share(self):
        return jnp.clip(self.share, _EDGE, 1.0 - _EDGE)

    def leave_one_out(self, value):
        # Given the returns, volumes are independent.
        return self._volume_log_densities(value[..., 0], self.deviations(value[..., 1]))

    def complete(self, key, value):
        shock_key, noise_key = jax.random.split(key)
        rows = self.event_shape[0]
        shocks, noises = jax.random.normal(shock_key, (rows,)), jax.random.normal(noise_key, (rows,))

        def forward(before, row):
            returned, shock, first = row
            expected = self.drift - self.feedback * before
            known = ~jnp.isnan(returned)
            shock = jnp.where(known, (jnp.where(known, returned, 0.0) - expected) / self.volatility, shock)
            now = jnp.where(first, self.first, self._kept * before + self._fresh * shock)
            return now, (now, jnp.where(first & ~known, jnp.nan, expected + self.volatility * shock))

        rows_in = value[..., 1], shocks, jnp.arange(rows) == 0
        _, (deviation, returns) = jax.lax.scan(forward, jnp.zeros(()), rows_in)
        volume = self.mean_log_volume(deviation) + self.noise * noises
        return jnp.stack([jnp.where(jnp.isnan(value[..., 0]), volume, value[..., 0]), returns], axis=-1)

    def sample(self, key, sample_shape=()):
        nothing = jnp.full(self.event_shape, jnp.nan)
        return repeated(lambda k: self.complete(k, nothing), key, sample_shape)

    def reconstruct(self, key, value):
        """`deviation`: x in each row."""
        return {"deviation": self.deviations(value[..., 1])}
