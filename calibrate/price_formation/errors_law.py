"""The law of a price series around a known mean: independent or AR(1) errors, normal or Student-t."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from walras.calibrate.law import Law, left_out_probability, log_densities, probabilities


class SeriesErrors(Law):
    """price = mean + u, where u has stationary scale `scale` and decays by persistence^elapsed between observations.

    The standardised innovations from one observed value to the next are independent, normal or (with
    `degrees_of_freedom`) Student-t; missing values are stepped over by their elapsed time. (That is exact for normal
    innovations; for Student-t innovations with persistence, leaving a value out is thereby approximate.) `elapsed`
    (rows,) is time in periods; `persistence` zero makes the errors independent.
    """

    pytree_data_fields = ("mean_price", "scale", "persistence", "degrees_of_freedom", "elapsed")

    def __init__(
        self,
        mean_price: Float[Array, " rows"],
        scale: Float[Array, ""],
        elapsed: Float[Array, " rows"],
        persistence: Float[Array, ""] | None = None,
        degrees_of_freedom: Float[Array, ""] | None = None,
    ):
        self.mean_price, self.scale, self.elapsed = mean_price, scale, elapsed
        self.persistence, self.degrees_of_freedom = persistence, degrees_of_freedom
        super().__init__(mean_price.shape[0], 1)

    def _errors(self, mean, scale):
        if self.degrees_of_freedom is None:
            return dist.Normal(mean, scale)
        return dist.StudentT(self.degrees_of_freedom, mean, scale)

    def _previous(self, observed):
        """For each row, the index of the last observed row before it, or −1."""
        rows = jnp.where(observed, jnp.arange(observed.size), -1)
        return jnp.concatenate([jnp.array([-1]), jax.lax.cummax(rows)[:-1]])

    def _decay(self, previous):
        """What remains of the error of the previous observed row: 0 where there is none or errors are independent."""
        if self.persistence is None:
            return jnp.zeros(self.mean_price.size)
        since = self.elapsed - self.elapsed[jnp.maximum(previous, 0)]
        # where() on both sides keeps the gradient of 0^0 out of rows that have no predecessor
        power = jnp.power(self.persistence, jnp.where(previous >= 0, since, 1.0))
        return jnp.where(previous >= 0, power, 0.0)

    def one_step_ahead(self, value):
        price = value[:, 0]
        observed = ~jnp.isnan(price)
        error = jnp.where(observed, price - self.mean_price, 0.0)
        previous = self._previous(observed)
        decay = self._decay(previous)
        mean = self.mean_price + decay * error[jnp.maximum(previous, 0)]
        scale = self.scale * jnp.sqrt(1.0 - decay**2)
        return self._errors(mean, scale)

    def log_prob(self, value):
        return jnp.nansum(log_densities(self.one_step_ahead(value), value[:, 0]))

    def leave_one_out_probability(self, value):
        """Not known where Student-t errors persist."""
        if self.persistence is None:
            return probabilities(self._errors(self.mean_price, self.scale), value[:, 0])
        if self.degrees_of_freedom is not None:
            return super().leave_one_out_probability(value)
        seen = ~jnp.isnan(value[:, 0])
        previous = self._previous(seen)
        decay = self._decay(previous)
        # What each row says of itself, and what the next seen row says of it.
        own = jnp.where(seen, 1.0 / (self.scale**2 * (1.0 - decay**2)), 0.0)
        precision = own.at[previous].add(jnp.where(previous >= 0, decay**2 * own, 0.0))
        slope = jax.grad(lambda price: self.log_prob(price[:, None]))(value[:, 0])
        return left_out_probability(seen, -slope, jnp.where(seen, precision, 1.0))

    def sample(self, key, sample_shape=()):
        shocks = self._errors(0.0, 1.0).sample(key, (*sample_shape, self.mean_price.size))
        prices = jax.vmap(self.replay)(shocks.reshape(-1, self.mean_price.size))
        return prices.reshape(*shocks.shape, 1)

    def shocks(self, key, value):
        """The standardised innovations (rows,). A row without a price has what its error decays to, and none."""
        observed = ~jnp.isnan(value[:, 0])
        error = jnp.where(observed, value[:, 0] - self.mean_price, 0.0)

        def advance(before, row):
            error, kept, observed = row
            error = jnp.where(observed, error, kept * before)
            return error, (error - kept * before) / (self.scale * jnp.sqrt(1.0 - kept**2))

        return jax.lax.scan(advance, jnp.zeros(()), (error, self._row_decay, observed))[1]

    def replay(self, shocks):
        def advance(error, row):
            shock, kept = row
            error = kept * error + self.scale * jnp.sqrt(1.0 - kept**2) * shock
            return error, error

        return (self.mean_price + jax.lax.scan(advance, jnp.zeros(()), (shocks, self._row_decay))[1])[:, None]

    @property
    def _row_decay(self):
        """What remains of the error of the row before, observed or not."""
        return self._decay(jnp.arange(self.mean_price.size) - 1)
