"""A problem whose posterior is known, and samplers that draw from it: rightly, or wrong in one way."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import distributions as dist

from walras.calibrate import IndependentRows, Observation, Prior, Problem
from walras.calibrate.samplers import Draws, Sampler
from walras.model import Status

ROWS, NOISE, PRIOR_MEAN, PRIOR_SD = 6, 0.7, 1.0, 0.5


class Level(eqx.Module):
    level: jax.Array
    status: Status


def level(params, inputs):
    """A market whose price is a level, and which has no equilibrium below `floor`."""
    found = params["level"] > params.get("floor", -jnp.inf)
    return Level(params["level"], Status.where(found, Status.solved, Status.not_finite))


@dataclass(frozen=True, kw_only=True)
class NoisyLevels(Observation):
    """Levels seen with normal errors of a known spread."""

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def observed(self, frame):
        return frame[["price"]].to_numpy(float)

    def inputs(self, frame):
        return {"rows": np.arange(len(frame))}

    def law(self, equilibrium, params, inputs):
        return IndependentRows(dist.Normal(jnp.full(inputs["rows"].size, equilibrium.level), NOISE))

    def quantities(self, equilibrium, params, inputs):
        return {"path": jnp.cumsum(jnp.full(3, equilibrium.level))}


def problem(missing=1, **fixed):
    prices = np.linspace(0.0, 2.0, ROWS)
    prices[:missing] = np.nan
    return Problem(
        level, pd.DataFrame({"price": prices}), NoisyLevels(), {"level": Prior("Normal", PRIOR_MEAN, PRIOR_SD), **fixed}
    )


@dataclass(frozen=True, kw_only=True)
class Exact(Sampler):
    """Independent draws from the posterior of `problem()`, then shifted by `shift` of its deviations and scaled by `scale`."""

    shift: float = 0.0
    scale: float = 1.0
    draws: int = 400

    def run(self, problem, key, progress=None, checkpoints=None):
        draws = self.run_each(problem, key[None], np.asarray(problem.observed)[None])
        return draws._replace(values={name: array[0] for name, array in draws.values.items()}, statistics={})

    def run_each(self, problem, keys, tables):
        precision = PRIOR_SD**-2 + (~np.isnan(tables)).sum((1, 2)) * NOISE**-2
        mean = (PRIOR_MEAN * PRIOR_SD**-2 + np.nansum(tables, (1, 2)) * NOISE**-2) / precision
        return self.made(mean, 1.0 / np.sqrt(precision), keys)

    def made(self, mean, sd, keys):
        """Normal draws (replications, 1, draws) around means (replications,)."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(keys)).ravel())
        deviations = self.shift + self.scale * rng.normal(size=(len(keys), 1, self.draws))
        found = (mean + deviations.T * sd).T
        return Draws({"level": found, "path": found[..., None] * np.arange(1, 4)}, {}, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Blind(Exact):
    """Draws from the prior, whatever the data."""

    def run_each(self, problem, keys, tables):
        return self.made(np.full(len(keys), PRIOR_MEAN), PRIOR_SD, keys)
