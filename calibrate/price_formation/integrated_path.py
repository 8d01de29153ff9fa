"""The law of a price series that is affine in a hidden normal path: the path is integrated out, not sampled."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from walras.calibrate.law import Law, left_out, left_out_probability, repeated


class IntegratedPath(Law):
    """price = mean + response · (q − E q) + e, with q ~ N(path_mean, R Rᵀ) and e ~ N(0, noise).

    Fields: `mean_price` (rows,) the price at the path's mean; `response` (rows, steps); `path_mean` (steps,) and `path_root` R
    (steps, variables); `noise` (rows, rows) the covariance of the errors, not singular.
    """

    pytree_data_fields = ("mean_price", "response", "path_mean", "path_root", "noise")

    def __init__(
        self,
        mean_price: Float[Array, " rows"],
        response: Float[Array, "rows steps"],
        path_mean: Float[Array, " steps"],
        path_root: Float[Array, "steps variables"],
        noise: Float[Array, "rows rows"],
    ):
        self.mean_price, self.response, self.noise = mean_price, response, noise
        self.path_mean, self.path_root = path_mean, path_root
        super().__init__(mean_price.shape[0], 1)

    def _covariance(self):
        spread = self.response @ self.path_root
        return spread @ spread.T + self.noise

    def _whitened(self, value):
        """Which rows are seen, the errors (rows,), the root L (rows, rows) of their covariance, and L⁻¹ errors.

        A missing row has an error of zero and a variance of one, uncorrelated with the others: it says nothing.
        """
        seen = ~jnp.isnan(value[:, 0])
        error = jnp.where(seen, value[:, 0] - self.mean_price, 0.0)
        both = seen[:, None] & seen[None, :]
        root = jnp.linalg.cholesky(jnp.where(both, self._covariance(), jnp.eye(seen.size)))
        return seen, error, root, solve_triangular(root, error, lower=True)

    def log_prob(self, value):
        seen, _, root, white = self._whitened(value)
        logs = jnp.log(2.0 * jnp.pi) * jnp.sum(seen) + jnp.sum(white**2)
        return -0.5 * logs - jnp.sum(jnp.log(jnp.diagonal(root)))

    def one_step_ahead(self, value):
        seen, _, root, white = self._whitened(value)
        covariance = self._covariance()
        # Column t, down to row t − 1, is L⁻¹ times the covariances of row t with the rows seen before it.
        earlier = jnp.triu(solve_triangular(root, jnp.where(seen[:, None], covariance, 0.0), lower=True), k=1)
        mean = self.mean_price + earlier.T @ white
        scale = jnp.sqrt(jnp.diagonal(covariance) - jnp.sum(earlier**2, axis=0))
        return dist.Normal(mean, scale)

    def leave_one_out(self, value):
        return left_out(*self._without_each(value))

    def leave_one_out_probability(self, value):
        return left_out_probability(*self._without_each(value))

    def _without_each(self, value):
        """Where prices are seen, Σ⁻¹ errors and diag Σ⁻¹."""
        seen, error, root, _ = self._whitened(value)
        inverse = cho_solve((root, True), jnp.eye(seen.size))
        return seen, inverse @ error, jnp.diagonal(inverse)

    def _simulate(self, key):
        path_key, noise_key = jax.random.split(key)
        path = jax.random.normal(path_key, self.path_root.shape[1:])
        return path, jax.random.normal(noise_key, self.mean_price.shape)

    def sample(self, key, sample_shape=()):
        return repeated(lambda k: self.replay(self._simulate(k)), key, sample_shape)

    def shocks(self, key, value):
        """Standard normals of the path (variables,) and of the errors (rows,): a simulation, then corrected."""
        path, error = self._simulate(key)
        seen, _, root, _ = self._whitened(value)
        missed = cho_solve((root, True), jnp.where(seen, value[:, 0] - self.replay((path, error))[:, 0], 0.0))
        path = path + self.path_root.T @ (self.response.T @ missed)
        return path, error + self._noise_root.T @ missed

    def replay(self, shocks):
        path, error = shocks
        return (self.mean_price + self.response @ (self.path_root @ path) + self._noise_root @ error)[:, None]

    @property
    def _noise_root(self):
        return jnp.linalg.cholesky(self.noise)

    def reconstruct(self, key, value):
        """A draw of the path (steps,) given the observations."""
        return {"supply_path": self.path_mean + self.path_root @ self.shocks(key, value)[0]}

    def complete(self, key, value):
        return jnp.where(jnp.isnan(value), self.replay(self.shocks(key, value)), value)
