"""Fitting a problem."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.predictions.predictive import pointwise, prior_draws
from walras.calibrate.problem import Problem
from walras.calibrate.progress import sampling_bar
from walras.calibrate.samplers import NUTS, Progress, Sampler
from walras.calibrate.tree import assemble, describe, identity
from walras.progress import shown

_PRIOR_DRAWS = 500  # of the prior: to show beside the posterior, and to count solver failures


def fit(
    problem: Problem,
    sampler: Sampler | None = None,
    *,
    key: jax.Array,
    progress: bool | Callable[[Progress], None] = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> xr.DataTree:
    """Draw from the problem's posterior.

    Returns a DataTree with ArviZ's groups: `posterior` (parameters, derived quantities, and what was not observed),
    `sample_stats`, `log_likelihood` (log p(y_t | y_−t), for PSIS-LOO), `log_prior`, `prior`, `observed_data`, `constant_data`,
    and `one_step_ahead` (for each row given those before it: a simulated value, the log density of the observed value and the
    probability of a smaller one). Its attributes say how it came about.

    `progress`: True for a bar, or a function of `Progress`. `checkpoint`: a folder that keeps the run while it goes on; with
    `resume` a run that was killed goes on from its last chunk, to the same draws, and a finished one is read. The folder may
    be removed when the tree has been saved.

    Raises `CalibrationError` when a chain cannot start or workers cannot import the market; when the checkpoint is in use,
    of another run, unreadable, or cannot be written.
    """
    sample_key, path_key, prior_key = jax.random.split(key, 3)
    sampler = NUTS() if sampler is None else sampler
    held = None if checkpoint is None else Checkpoints(checkpoint, identity(problem, sampler, key), resume)
    with shown(progress, sampling_bar) as report:
        draws = sampler.run(problem, sample_key, report, held)
    latent = {name: draws.values[name] for name in problem.latent}
    extra = pointwise(problem, latent, path_key)
    attrs = describe(problem, sampler, draws, key)
    prior, failed = prior_draws(problem, prior_key, _PRIOR_DRAWS)
    attrs["prior_solved"] = f"{1.0 - failed.mean():.4f}"
    return assemble(problem, draws, {**jax.tree.map(np.asarray, extra), "prior": prior}, attrs)
