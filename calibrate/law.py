"""The law of the data given an equilibrium.

A `Law` is a NumPyro distribution over the table of observations, (rows, targets), in which NaN stands for a missing
observation. From it the generic code derives the likelihood, simulation, predictive checks and every score.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from walras.calibrate.errors import CalibrationError


class Law(dist.Distribution):
    """A distribution over (rows, targets) tables with missing entries.

    A subclass gives `log_prob` (of the entries that are not NaN), `sample` (complete tables) and `one_step_ahead`.
    """

    support = dist.constraints.independent(dist.constraints.real, 2)

    def __init__(self, rows: int, targets: int):
        super().__init__(batch_shape=(), event_shape=(rows, targets))

    def one_step_ahead(self, value: Float[Array, "rows targets"]) -> dist.Distribution:
        """The law of the first target in each row given the rows before it, batch shape (rows,), with a `cdf`."""
        raise NotImplementedError

    def reconstruct(self, key: Array, value: Float[Array, "rows targets"]) -> dict[str, Array]:
        """A draw, given the observations, of what was not observed (by name); nothing unless a subclass says so."""
        return {}

    def shocks(self, key: Array, value: Float[Array, "rows targets"]) -> Any:
        """A draw, given the observations, of the standard shocks that made them: what `replay` makes tables of.

        By default a key, so that tables of two laws share their random numbers but not what the observations tell of them.
        """
        return key

    def replay(self, shocks: Any) -> Float[Array, "rows targets"]:
        """The table that this law makes of another's `shocks`; of its own, the observations and draws of missing ones."""
        return self.sample(shocks)

    def complete(self, key: Array, value: Float[Array, "rows targets"]) -> Float[Array, "rows targets"]:
        """The table with its missing entries drawn from their law given the observed ones."""
        raise CalibrationError(f"{type(self).__name__} cannot draw missing observations: forecast with another market")

    def leave_one_out(self, value: Float[Array, "rows targets"]) -> Float[Array, " rows"]:
        """log p(y_t | y_−t) of the first target: log p(y) less log p of the table with that entry missing."""
        complete = self.log_prob(value)
        without = jax.vmap(lambda row: self.log_prob(value.at[row, 0].set(jnp.nan)))(jnp.arange(value.shape[0]))
        return jnp.where(jnp.isnan(value[:, 0]), jnp.nan, complete - without)

    def leave_one_out_probability(self, value: Float[Array, "rows targets"]) -> Float[Array, " rows"]:
        """P(Y_t ≤ y_t | y_−t) of the first target; NaN where missing, and everywhere unless a subclass knows it."""
        return jnp.full(value.shape[0], jnp.nan)


def log_densities(laws: dist.Distribution, value: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """The log density of each value under the law of its row; NaN where it is missing."""
    missing = jnp.isnan(value)
    # A safe value where the entry is missing keeps the gradient finite.
    safe = jnp.where(missing, 0.0, value).sum() / jnp.maximum(jnp.sum(~missing), 1)
    return jnp.where(missing, jnp.nan, laws.log_prob(jnp.where(missing, safe, value)))


def probabilities(laws: dist.Distribution, value: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """The probability of a smaller value than each under the law of its row; NaN where it is missing."""
    missing = jnp.isnan(value)
    return jnp.where(missing, jnp.nan, laws.cdf(jnp.where(missing, jnp.nanmean(value), value)))


def repeated(draw: Callable[[Array], Array], key: Array, sample_shape: tuple[int, ...]) -> Array:
    """`draw(key)` with independent keys, (*sample_shape, …)."""
    draws = jax.vmap(draw)(jax.random.split(key, int(np.prod(sample_shape)) or 1))
    return draws.reshape(*sample_shape, *draws.shape[1:])


def left_out(seen: Array, weighted: Float[Array, " rows"], precision: Float[Array, " rows"]) -> Float[Array, " rows"]:
    """log p(y_t | y_−t) of normal observations, NaN where not seen.

    With Σ their covariance and e their deviations, `weighted` is Σ⁻¹e (up to its sign) and `precision` diag Σ⁻¹: y_t given
    the rest is normal with error (Σ⁻¹e)_t / (Σ⁻¹)_tt and variance 1 / (Σ⁻¹)_tt.
    """
    log_density = 0.5 * (jnp.log(precision) - jnp.log(2.0 * jnp.pi) - weighted**2 / precision)
    return jnp.where(seen, log_density, jnp.nan)


def left_out_probability(
    seen: Array, weighted: Float[Array, " rows"], precision: Float[Array, " rows"]
) -> Float[Array, " rows"]:
    """P(Y_t ≤ y_t | y_−t) of normal observations, as `left_out`; here the sign of `weighted` counts."""
    return jnp.where(seen, jax.scipy.stats.norm.cdf(weighted / jnp.sqrt(precision)), jnp.nan)


class IndependentRows(Law):
    """Rows that are independent given the equilibrium: `rows` is a distribution with batch shape (rows,)."""

    pytree_data_fields = ("rows",)

    def __init__(self, rows: dist.Distribution):
        self.rows = rows
        super().__init__(rows.batch_shape[0], 1)

    def log_prob(self, value):
        return jnp.nansum(log_densities(self.rows, value[..., 0]), axis=-1)

    def sample(self, key, sample_shape=()):
        return self.rows.sample(key, sample_shape)[..., None]

    def complete(self, key, value):
        return jnp.where(jnp.isnan(value), self.sample(key), value)

    def one_step_ahead(self, value):
        return self.rows

    def leave_one_out_probability(self, value):
        return probabilities(self.rows, value[:, 0])
