"""Priors of a hidden supply path: each is a linear map of independent standard normal variables."""

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.contrib.hsgp.laplacian import eigenfunctions
from numpyro.contrib.hsgp.spectral_densities import diag_spectral_density_squared_exponential

PROCESSES = ("independent", "wiener", "ornstein_uhlenbeck", "smooth")
_BASIS = 32  # functions of the Hilbert-space approximation: enough for length scales from a tenth of the horizon
_BOUNDARY = (
    2.0  # of the box they live on, in half-horizons: for length scales to a third of the horizon (Riutort-Mayol et al. 2023)
)


def path_root(process: str, steps: int, period: float, params) -> Float[Array, "steps variables"]:
    """The root R of the covariance of a path (steps,) whose mean square over the steps is one: path = R · normals.

    "independent" steps; a "wiener" path from zero; an "ornstein_uhlenbeck" process with `supply_reversion` (1 / time);
    "smooth", a Gaussian process with squared-exponential kernel of length `supply_lengthscale` (time), by the Hilbert-space
    approximation of Solin and Särkkä (Stat. Comput. 30, 2020). `period` is the length of a step.
    """
    if process == "independent":
        return jnp.eye(steps)
    earlier = jnp.arange(steps)[:, None] - jnp.arange(steps)[None, :]
    if process == "wiener":
        return jnp.where(earlier >= 0, jnp.sqrt(2.0 / (steps + 1)), 0.0)
    if process == "ornstein_uhlenbeck":
        kept = jnp.exp(-params["supply_reversion"] * period)
        fresh = jnp.sqrt(-jnp.expm1(-2 * params["supply_reversion"] * period)) * jnp.ones(steps).at[0].set(0.0)
        powers = jnp.where(earlier >= 0, kept ** jnp.maximum(earlier, 0), 0.0)
        return powers * fresh.at[0].set(1.0)[None]
    half = steps / 2
    places = (jnp.arange(steps) + 0.5 - half) / half
    length = params["supply_lengthscale"] / (half * period)
    density = diag_spectral_density_squared_exponential(1.0, length, _BOUNDARY, _BASIS, 1)
    return eigenfunctions(places, _BOUNDARY, _BASIS) * jnp.sqrt(density)[None]
