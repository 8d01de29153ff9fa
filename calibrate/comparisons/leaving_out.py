"""Leaving one row out: importance sampling, mended by moment matching and, where asked, by refits."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from scipy.special import logsumexp

from walras.calibrate.comparisons.rolling import REFIT_DRAWS
from walras.calibrate.compiling import quickly
from walras.calibrate.predictions.predictive import latent_values, law_at
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler, chains

RELIABLE = 0.7  # the largest Pareto k of an estimate that is relied on (Vehtari et al., J. Mach. Learn. Res. 25 (2024))
_MATCHED_DRAWS = 2000  # at most as many are moved: each iteration evaluates the posterior at all of them
_WEIGHTED_DRAWS = 1000
_TOGETHER = 50  # draws evaluated side by side


def leave_one_out(problem: Problem, tree: xr.DataTree, *, sampler: Sampler | None = None, key=None) -> Any:
    """PSIS-LOO of the first target in the rows where it is observed, as ArviZ's ELPDDataLOO with pointwise values.

    Rows with a Pareto k above 0.7 are estimated again by moment matching (Paananen et al., Stat. Comput. 31 (2021)). With a
    `sampler` and a `key`, rows where that does not suffice are refitted without the row; their `pareto_k` is then 0.
    """
    target = problem.observation.targets[0]
    rows = np.flatnonzero(~np.isnan(np.asarray(problem.observed[:, 0])))
    parts = _parts(tree, target, rows)
    with warnings.catch_warnings():
        # `pareto_k` says where the estimate is unreliable, before and after
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")
        warnings.filterwarnings("ignore", message="Observation .* did not improve")
        warnings.filterwarnings("ignore", message="After Moment Matching")
        found = az.loo(parts, pointwise=True)
        # Where a row left out has no weight at all, az.loo gives a k that is not a number.
        if np.any(~(found.pareto_k <= RELIABLE)):
            _match(problem, tree, parts, found, rows)
    if sampler is not None:
        _refit(problem, sampler, found, rows, key)
    return found


def _parts(tree, target, rows) -> xr.DataTree:
    density = tree["log_likelihood"].to_dataset()[[target]]
    kept = density.isel({density[target].dims[-1]: rows})
    return xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset(), "log_likelihood": kept})


def weights_without(tree: xr.DataTree, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Smoothed importance weights (draws, rows), summing to one, that make draws those of the posterior without each row.

    Of every so many of all draws, at most 1000 in total; the second value is that step.
    """
    (target,) = tree["log_likelihood"].data_vars
    step = -(-tree["posterior"]["draw"].size * tree["posterior"]["chain"].size // _WEIGHTED_DRAWS)
    density = tree["log_likelihood"][target].to_numpy()[..., rows]
    flat = density.reshape(-1, rows.size)[::step]
    # ArviZ takes log densities here, of which the weights are the inverses.
    return np.exp(array_stats.psislw(flat.T, axis=-1)[0]).T, step


def _match(problem, tree, parts, found, rows):
    """Replace the estimates of unreliable rows by those of moved draws where these are better."""
    step = -(-found.n_samples // _MATCHED_DRAWS)
    thin = xr.DataTree.from_dict({name: node.to_dataset().isel(draw=slice(None, None, step)) for name, node in parts.items()})
    start = az.loo(thin, pointwise=True)
    # Only the rows that are unreliable with all draws are moved.
    asked = ~(found.pareto_k.to_numpy() <= RELIABLE)
    start.pareto_k[:] = np.where(asked, np.maximum(start.pareto_k, RELIABLE + 1e-3), 0.0)
    vectors, log_density, log_left_out = functions(problem, tree)
    vectors = vectors[:, ::step]
    dims = ("chain", "draw")
    coords = {name: thin["posterior"][name] for name in dims}

    def over(function, *fixed):
        def evaluate(upars, *row):
            flat = jnp.asarray(upars.to_numpy().reshape(-1, upars.shape[-1]))
            return xr.DataArray(np.asarray(function(flat, *row)).reshape(upars.shape[:2]), coords, dims)

        return evaluate

    matched = az.loo_moment_match(
        thin,
        start,
        log_prob_upars_fn=over(log_density),
        log_lik_i_upars_fn=lambda upars, i: over(log_left_out)(upars, int(rows[i])),
        upars=xr.DataArray(vectors, {**coords, "parameter": np.arange(vectors.shape[-1])}, (*dims, "parameter")),
        k_threshold=RELIABLE,
        pointwise=True,
    )
    better = asked & (matched.pareto_k.to_numpy() < found.pareto_k.fillna(np.inf).to_numpy())
    found.elpd_i[better] = matched.elpd_i.to_numpy()[better]
    found.pareto_k[better] = matched.pareto_k.to_numpy()[better]
    _total(found)


def functions(problem: Problem, tree: xr.DataTree) -> tuple[np.ndarray, Callable, Callable]:
    """The draws as unconstrained vectors (chains, draws, dimension), and functions of such vectors (draws, dimension).

    The first is the log density of the posterior up to a constant, in those coordinates; the second, also of a row, log
    p(y_row | the other rows).
    """
    values = latent_values(problem, tree)
    sizes = next(iter(values.values())).shape[:2]
    flat = {name: jnp.asarray(array.reshape(-1, *array.shape[2:])) for name, array in values.items()}
    one = {name: array[0] for name, array in flat.items()}
    with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks inside its transforms
        by_site = ravel_pytree(unconstrain_fn(problem.model, (), {}, one))[1]

    def vector(values):
        return ravel_pytree(unconstrain_fn(problem.model, (), {}, values))[0]

    def log_density(vector):
        return -potential_energy(problem.model, (), {}, by_site(vector))

    def log_left_out(row, vector):
        values = constrain_fn(problem.model, (), {}, by_site(vector))
        law = law_at(problem, {name: values[name] for name in problem.latent})
        return law.leave_one_out(problem.observed)[row]

    def mapped(function):
        return partial(jax.lax.map, function, batch_size=_TOGETHER)

    vectors = np.asarray(quickly(mapped(vector))(flat)).reshape(*sizes, -1)
    return vectors, quickly(mapped(log_density)), quickly(lambda flat, row: mapped(partial(log_left_out, row))(flat))


def _refit(problem, sampler, found, rows, key):
    """Refit without each row that is still unreliable: its score is then the mean density over draws that never saw it."""
    sampler = sampler if isinstance(sampler, NUTS) else NUTS()
    compiled = chains(problem, sampler)
    unreliable = np.flatnonzero(~(found.pareto_k.to_numpy() <= RELIABLE))
    if unreliable.size and not compiled.ready:
        compiled.run(jax.random.split(key, sampler.chains))
    score = quickly(
        lambda latent, row: jax.lax.map(lambda values: law_at(problem, values).leave_one_out(problem.observed)[row], latent)
    )
    for place in unreliable:
        row = int(rows[place])
        draws = compiled.rerun(problem.observed.at[row, 0].set(jnp.nan), -(-REFIT_DRAWS // sampler.chunk))
        density = np.asarray(score({n: draws[n].reshape(-1, *draws[n].shape[2:]) for n in problem.latent}, row))
        found.elpd_i[place] = logsumexp(density) - np.log(density.size)
        found.pareto_k[place] = 0.0
    _total(found)


def _total(found):
    each = found.elpd_i.to_numpy()
    found.elpd = each.sum()
    found.se = np.sqrt(each.size * np.var(each, ddof=1))
