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
import numpyro.distributions as dist
from jaxtyping import Array, Float

from walras.calibrate.law import Law, repeated

_ROOT = float(np.sqrt(np.pi / 2.0))
# Laws of the next volume average over the next |x|, up to 8 standard deviations away, by Gauss and Legendre's rule in the log
# of the volume traded: in x itself |x| has a kink, and a small error gives volume a narrow peak.
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
        return self.level + _log_traded(self.share, jnp.abs(deviation))

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
        centre = self._kept * jnp.concatenate([jnp.zeros(1), self.deviations(value[..., 1])[:-1]])
        # x is known in the first row and wherever the return is; over a missing return its spread grows.
        row = jnp.arange(centre.size)
        known = jax.lax.cummax(jnp.where(jnp.isnan(value[..., 1]) & (row > 0), 0, row))
        since = row - jnp.concatenate([jnp.zeros(1, int), known[:-1]])
        spread = jnp.sqrt(-jnp.expm1(-2.0 * self.reversion * since))
        centre = centre.at[0].set(self.first)
        return NextVolume(centre, spread, level=self.level, share=self.share, noise=self.noise)

    def leave_one_out(self, value):
        # Given the returns, volumes are independent.
        return self._volume_log_densities(value[..., 0], self.deviations(value[..., 1]))

    def shocks(self, key, value):
        """w and u in each row; u is drawn where volume is not seen."""
        volume, returns = value[:, 0], value[:, 1]
        deviation = self.deviations(returns)
        expected = self.drift - self.feedback * jnp.concatenate([jnp.zeros(1), deviation[:-1]])
        shocks = jnp.where(jnp.isnan(returns), 0.0, (returns - expected) / self.volatility)
        noises = (volume - self.mean_log_volume(deviation)) / self.noise
        return shocks, jnp.where(jnp.isnan(volume), jax.random.normal(key, volume.shape), noises)

    def replay(self, shocks):
        return self._tabulated(*shocks, jnp.full(self.event_shape, jnp.nan))

    def leave_one_out_probability(self, value):
        mean = self.mean_log_volume(self.deviations(value[..., 1]))
        return jss.norm.cdf(value[..., 0], mean, self.noise)

    def complete(self, key, value):
        shock_key, noise_key = jax.random.split(key)
        shape = self.event_shape[:1]
        return self._tabulated(jax.random.normal(shock_key, shape), jax.random.normal(noise_key, shape), value)

    def _tabulated(self, shocks, noises, value):
        rows = self.event_shape[0]

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


class NextVolume(dist.Distribution):
    """Log volume whose x is normal around `centre` with standard deviation `spread`, both (rows,); zero where x is known."""

    support = dist.constraints.real
    pytree_data_fields = ("centre", "spread", "level", "share", "noise")

    def __init__(self, centre, spread, *, level, share, noise):
        self.centre, self.spread, self.level, self.share, self.noise = centre, spread, level, share, noise
        super().__init__(batch_shape=centre.shape)

    def log_prob(self, value):
        relative = value - self.level
        logs, weights, _ = self._traded(relative)
        density = jax.scipy.special.logsumexp(jss.norm.logpdf(relative[:, None], logs, self.noise), b=weights, axis=1)
        return jnp.where(self.spread > 0, density, jss.norm.logpdf(relative, self._known, self.noise))

    def cdf(self, value):
        relative = value - self.level
        logs, weights, below = self._traded(relative)
        probability = below + jnp.sum(weights * jss.norm.cdf(relative[:, None], logs, self.noise), axis=1)
        # The rule's error may take it beyond these.
        return jnp.where(self.spread > 0, jnp.clip(probability, 0.0, 1.0), jss.norm.cdf(relative, self._known, self.noise))

    @property
    def mean(self):
        return self.level + self._moments[0]

    @property
    def variance(self):
        return self.noise**2 + self._moments[1]

    def sample(self, key, sample_shape=()):
        shock_key, noise_key = jax.random.split(key)
        deviation = dist.Normal(self.centre, self.spread, validate_args=False).sample(shock_key, sample_shape)
        mean = self.level + _log_traded(self.share, jnp.abs(deviation))
        return dist.Normal(mean, self.noise).sample(noise_key)

    @property
    def _moments(self):
        """Mean and variance of the log volume traded, without error and level."""
        logs, weights = self._rule(*self._ends)
        mean = jnp.sum(weights * logs, axis=1)
        variance = jnp.sum(weights * (logs - mean[:, None]) ** 2, axis=1)
        return jnp.where(self.spread > 0, mean, self._known), jnp.where(self.spread > 0, variance, 0.0)

    def _traded(self, relative):
        """Logs of the volume traded that errors take to `relative`, their weights, and the probability of smaller ones."""
        low, high = self._ends
        near, reach = jnp.clip(relative, low, high), _FAR * self.noise
        start = jnp.maximum(low, near - reach)
        size = self._size(start)
        ends = [jss.norm.cdf((sign * size - self.centre) / self._safe_spread) for sign in (1.0, -1.0)]
        return *self._rule(start, jnp.minimum(high, near + reach)), ends[0] - ends[1]

    def _rule(self, low, high):
        """Such logs between two, (rows, nodes), with their probabilities."""
        width = 0.5 * (high - low)[:, None]
        logs = low[:, None] + width * (1.0 + _NODES[None])
        spread = self._safe_spread[:, None]
        of_size = sum(jss.norm.pdf(self._size(logs), sign * self.centre[:, None], spread) for sign in (1.0, -1.0))
        return logs, of_size * jnp.exp(logs) / (self._inner_share * _ROOT) * width * _WEIGHTS[None]

    @property
    def _ends(self):
        size, reach = jnp.abs(self.centre), _FAR * self._safe_spread
        return tuple(_log_traded(self._inner_share, end) for end in (jnp.maximum(size - reach, 0.0), size + reach))

    def _size(self, log_traded):
        """|x|, where the log of the volume traded is such."""
        return (jnp.expm1(log_traded) + self._inner_share) / (self._inner_share * _ROOT)

    @property
    def _known(self):
        return _log_traded(self.share, jnp.abs(self.centre))

    @property
    def _safe_spread(self):
        return jnp.where(self.spread > 0, self.spread, 1.0)

    @property
    def _inner_share(self):
        return jnp.clip(self.share, _EDGE, 1.0 - _EDGE)


def _log_traded(share, size):
    """Log volume over its level, without error, where |x| is `size`."""
    return jnp.log1p(share * (_ROOT * size - 1.0))
