"""Fitting a problem."""

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr

from walras.calibrate import samplers
from walras.calibrate.predictive import pointwise, prior_draws
from walras.calibrate.problem import Problem
from walras.calibrate.progress import sampling_bar
from walras.calibrate.samplers import NUTS, Progress
from walras.calibrate.tree import assemble, describe
from walras.progress import shown

_PRIOR_DRAWS = 500  # of the prior: to show beside the posterior, and to count solver failures


def fit(
    problem: Problem,
    sampler: NUTS | None = None,
    *,
    key: jax.Array,
    progress: bool | Callable[[Progress], None] = False,
) -> xr.DataTree:
    """Draw from the problem's posterior.

    Returns a DataTree with ArviZ's groups: `posterior` (parameters, derived quantities, and what was not observed),
    `sample_stats`, `log_likelihood` (log p(y_t | y_−t), for PSIS-LOO), `log_prior`, `prior`, `observed_data`, `constant_data`,
    and `one_step_ahead` (for each row given those before it: a simulated value, the log density of the observed value and the
    probability of a smaller one). Its attributes say how it came about.

    `progress`: True for a bar, or a function of `Progress`.

    Raises `CalibrationError` when a chain cannot start or workers cannot import the market.
    """
    sample_key, path_key, prior_key = jax.random.split(key, 3)
    sampler = NUTS() if sampler is None else sampler
    with shown(progress, sampling_bar) as report:
        draws = samplers.run(problem, sampler, sample_key, report)
    latent = {name: draws.values[name] for name in problem.latent}
    extra = pointwise(problem, latent, path_key)
    attrs = describe(problem, sampler, draws, jax.random.key_data(key))
    prior, failed = prior_draws(problem, prior_key, _PRIOR_DRAWS)
    attrs["prior_solved"] = f"{1.0 - failed.mean():.4f}"
    return assemble(problem, draws, {**jax.tree.map(np.asarray, extra), "prior": prior}, attrs)
