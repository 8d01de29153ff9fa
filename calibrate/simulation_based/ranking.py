"""Ranks of true values among posterior draws, of one batch of replications."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy.stats import rankdata

from walras.calibrate.compiling import quickly, remember
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import Sampler
from walras.calibrate.simulation_based.truths import at_draw

LOG_LIKELIHOOD = "log likelihood"
_MANY = 20  # elements beyond which a parameter is ranked by its mean and spread


class Batch(NamedTuple):
    """Replications: the data of their random keys, the true values of every site by name, and their tables, (size, …)."""

    keys: np.ndarray
    values: dict[str, np.ndarray]
    tables: np.ndarray


def rank_batch(problem: Problem, sampler: Sampler, highest: int, batch: Batch) -> dict[str, np.ndarray]:
    """Draw from the posterior of each replication and rank its truth among `highest` of the draws, evenly spaced.

    Returns `ranks` (size, quantities), of −1 where the sampler could not start; the effective number of draws `ess` (size,)
    of the quantity that has the fewest; and `divergences` (size,).
    """
    keys = jax.random.wrap_key_data(jnp.asarray(batch.keys))
    draws = sampler.run_each(problem, keys, batch.tables)
    truths = functionals(problem, batch.values, 1)
    drawn = functionals(problem, draws.values, 3)
    every = np.stack([drawn[name] for name in truths], -1)
    finite = np.isfinite(every).all((1, 2, 3))
    kept = np.linspace(0, every.shape[1] * every.shape[2] - 1, highest).round().astype(int)

    def thinned(array):
        return array.reshape(array.shape[0], -1, *array.shape[3:])[:, kept]

    latent = {name: thinned(draws.values[name]) for name in problem.latent}
    truth = {name: batch.values[name][:, None] for name in problem.latent}
    both = {name: np.concatenate([truth[name], latent[name]], axis=1) for name in latent}
    likelihood = np.asarray(_log_likelihoods(problem)(both, batch.tables))
    truths = np.column_stack([*truths.values(), likelihood[:, 0]])
    few = np.concatenate([thinned(every), likelihood[:, 1:, None]], axis=-1)
    # Equal values, of a quantity that has atoms, are in random order.
    random = np.random.default_rng(np.asarray(batch.keys, np.uint32).ravel())
    ranks = (few < truths[:, None]).sum(1) + random.integers(0, (few == truths[:, None]).sum(1) + 1)
    return {
        "ranks": np.where(finite[:, None], ranks, -1),
        "ess": np.where(finite, _fewest_effective(every), np.nan),
        "divergences": draws.statistics.get("diverging", np.zeros(every.shape[:3], bool)).sum((1, 2)),
    }


def functionals(problem: Problem, values: Mapping[str, np.ndarray], leading: int) -> dict[str, np.ndarray]:
    """Numbers by name, of arrays with `leading` dimensions of draws: elements of parameters, and of other vectors, such as
    paths, their mean and spread.
    """
    found = {}
    for name, array in values.items():
        flat = array.reshape(*array.shape[:leading], -1)
        if flat.shape[-1] == 1:
            found[name] = flat[..., 0]
        elif name in problem.sampled and flat.shape[-1] <= _MANY:
            labels = _labels(problem, name, flat.shape[-1])
            found.update({f"{name}[{label}]": flat[..., i] for i, label in enumerate(labels)})
        else:
            found.update({f"mean of {name}": flat.mean(-1), f"spread of {name}": flat.std(-1)})
    return found


def _labels(problem: Problem, name: str, size: int) -> list:
    dimensions = problem.observation.dimensions().get(name, [])
    labels = problem.observation.coordinates(problem.data).get(dimensions[0], []) if len(dimensions) == 1 else []
    return list(labels) if len(labels) == size else list(range(size))


def _fewest_effective(draws: np.ndarray) -> np.ndarray:
    """The smallest effective sample size (size,) of quantities (size, chains, draws, quantities), by their ranks.

    Those that do not vary are left out.
    """
    size, chains, length, quantities = draws.shape
    order = rankdata(draws.reshape(size, -1, quantities), axis=1).reshape(draws.shape)
    varies = np.ptp(order, axis=(1, 2)) > 0
    columns = order.transpose(1, 2, 0, 3).reshape(chains, length, -1)[:, :, varies.ravel()]
    found = np.full((size, quantities), np.inf)
    found[varies] = effective_sample_size(columns)
    return found.min(axis=1)


@remember(4)
def _log_likelihoods(problem: Problem):
    """The function from latent values (replications, draws, …) and tables to log likelihoods (replications, draws)."""

    def of_replication(values_and_table):
        values, table = values_and_table
        return jax.lax.map(lambda one: at_draw(problem, one)[1].log_prob(table), values)

    return quickly(lambda values, tables: jax.lax.map(of_replication, (values, tables)))
