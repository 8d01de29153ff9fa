"""Forecasts at rolling origins, and how well they did: log scores and CRPS by horizon."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError, require_whole
from walras.calibrate.law import log_densities
from walras.calibrate.predictions.predictive import law_at
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler, chains

# Of each chain at least, in whole chunks, at each origin: the mean score is within 0.005 of that with five times as many.
REFIT_DRAWS = 100
_FEWEST = 10  # rows before the first origin
_SIMULATED = 4  # values for each draw of the parameters: CRPS then varies little with the key


class Scores(NamedTuple):
    """Scores of forecasts: [t, h − 1] is that of row t + h − 1 from the rows before t; NaN where nothing was forecast or seen.

    `log_score` is the log of the predictive density, `crps` the continuous ranked probability score in the target's unit.
    """

    log_score: Float[np.ndarray, "rows horizons"]
    crps: Float[np.ndarray, "rows horizons"]


def origins_of(rows: int, origins: int, share: float) -> tuple[list[int], list[int]]:
    """The first row of each of `origins` blocks that cover the last `share` of the rows, and the row after each."""
    require_whole(origins=(origins, 1))
    if not 0.0 < share < 1.0:
        raise CalibrationError(f"share is {share!r}: give the share of the rows to forecast, between 0 and 1")
    first = round(rows * (1.0 - share))
    edges = np.linspace(first, rows, origins + 1).astype(int)
    if first < _FEWEST or np.any(np.diff(edges) < 1):
        raise CalibrationError(f"data have {rows} rows, too few for {origins} rolling origins: use fewer, or a smaller share")
    return list(edges[:-1]), list(edges[1:])


def blocks(problem: Problem, *, origins: int, share: float, exact: bool, horizon: int) -> tuple[list[int], list[int]]:
    """Where the parameters are refitted, and the row after each block; every scored row is a block where `exact`."""
    rows = len(problem.data)
    if horizon != 1 or exact:
        asked = f"horizon is {horizon}" if horizon != 1 else "exact is true"
        if problem.data.index.nlevels > 1:
            raise CalibrationError(
                f"{asked}, but the rows are not one series in time and have no future to leave out: compare such fits with "
                "exact=False and horizon=1"
            )
    scored = rows - round(rows * (1.0 - share))
    if isinstance(horizon, bool) or not isinstance(horizon, int) or not 1 <= horizon <= max(scored // 2, 1):
        raise CalibrationError(
            f"horizon is {horizon!r}: of {scored} scored rows give a whole number from 1 to {max(scored // 2, 1)}, half of them"
        )
    return origins_of(rows, scored if exact else origins, share)


def rolling_scores(
    problem: Problem,
    sampler: Sampler,
    *,
    key,
    origins: int = 4,
    share: float = 0.4,
    horizon: int = 1,
    exact: bool = False,
) -> Scores:
    """Scores of forecasts of the last `share` of the rows, up to `horizon` rows ahead, from parameters refitted as time goes.

    At each of `origins` rows the posterior is that of the rows before it. Within the block that follows, the model is told
    each row in turn, its parameters unchanged; with `exact` they are refitted before every row, which is leave-future-out
    cross-validation. What is known in advance in a row ahead (its covariates) is used, its targets are not. Chains start from
    the fit to all rows and move for as long as they are then kept. Default priors stay those of the problem: their centres
    and scales come from all of its rows. Refits are by NUTS, with its default options where `sampler` is another.

    Raises `CalibrationError` for too few rows, too long a horizon, or rows that are not in the order of time.
    """
    starts, ends = blocks(problem, origins=origins, share=share, exact=exact, horizon=horizon)
    run_key, draw_key = jax.random.split(key)
    sampler = sampler if isinstance(sampler, NUTS) else NUTS()
    compiled = chains(problem, sampler)
    if not compiled.ready:
        compiled.run(jax.random.split(run_key, sampler.chains))
    chunks = -(-REFIT_DRAWS // sampler.chunk)
    score = _scorer(problem, horizon)
    found = Scores(*(np.full((len(problem.data), horizon), np.nan) for _ in Scores._fields))
    for start, end in zip(starts, ends, strict=True):
        refit = compiled.rerun(problem.observed.at[start:].set(jnp.nan), chunks)
        latent = {name: refit[name].reshape(-1, *refit[name].shape[2:]) for name in problem.latent}
        for part, scored in zip(found, score(latent, start, end, jax.random.fold_in(draw_key, start)), strict=True):
            part[start:end] = scored
    return found


def crps(draws: Float[np.ndarray, "draws values"], observed: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """The continuous ranked probability score E|X − y| − ½ E|X − X′|, its expectation unbiased by the number of draws.

    Source: Gneiting and Raftery, J. Am. Stat. Assoc. 102 (2007); the unbiased form is that of Ferro, Q. J. R. Meteorol. Soc.
    140 (2014). In the unit of the values; smaller is better; NaN where nothing was observed.
    """
    count = len(draws)
    ordered = np.sort(draws, axis=0)
    weights = (2.0 * np.arange(1, count + 1) - count - 1.0) / (count * (count - 1.0))
    return np.abs(draws - observed).mean(axis=0) - weights @ ordered


def _scorer(problem: Problem, horizon: int) -> Callable[..., Scores]:
    """What scores the forecasts made in rows from `start` to `end`, given draws (draws, …) of the latent sites."""
    observed = np.concatenate([np.asarray(problem.observed[:, 0]), np.full(horizon, np.nan)])
    densities = quickly(partial(_densities, problem))
    ahead = quickly(partial(_densities_ahead, problem, horizon))

    def scores(density, simulated, row, width):
        value = observed[row : row + width]
        seen, values = np.isfinite(value), simulated.reshape(-1, width)
        # A draw of the parameters that has no law so far ahead predicts nothing: the row is scored by the others.
        log_score = logsumexp(np.where(np.isnan(density), -np.inf, density), axis=0) - np.log(len(density))
        return np.where(seen, log_score, np.nan), crps(values[np.isfinite(values[:, seen]).all(axis=1)], value)

    def score(latent, start, end, key):
        keys = jax.random.split(key, len(next(iter(latent.values()))))
        if horizon == 1:
            density, simulated = map(np.asarray, densities(latent, keys))
            made = scores(density[:, start:end], simulated[..., start:end], start, end - start)
            return Scores(*(part[:, None] for part in made))
        rows = [scores(*map(np.asarray, ahead(latent, keys, row)), row, horizon) for row in range(start, end)]
        return Scores(*(np.stack(part) for part in zip(*rows, strict=True)))

    return score


def _densities(problem: Problem, latent: dict, keys):
    """For each draw, of each row given those before it: its log density (draws, rows), and values (draws, _SIMULATED, rows)."""
    return jax.lax.map(lambda draw: _of_rows(problem, draw[0], problem.observed, draw[1]), (latent, keys))


def _densities_ahead(problem: Problem, horizon: int, latent: dict, keys, row):
    """The same of the `horizon` rows from `row` on, each given only the rows before `row`; NaN beyond the last."""
    past = jnp.where((jnp.arange(len(problem.data)) < row)[:, None], problem.observed, jnp.nan)
    padding = ((0, 0), (0, horizon))

    def one(draw):
        # With all rows from `row` on missing, the law of each given those before is the law so many steps ahead.
        density, simulated = _of_rows(problem, draw[0], past, draw[1])
        padded = jnp.pad(density[None], padding, constant_values=jnp.nan), jnp.pad(simulated, padding)
        density, simulated = (jax.lax.dynamic_slice_in_dim(array, row, horizon, 1) for array in padded)
        return density[0], simulated

    return jax.lax.map(one, (latent, keys))


def _of_rows(problem: Problem, values: dict, past, key):
    laws = law_at(problem, values).one_step_ahead(past)
    return log_densities(laws, problem.observed[:, 0]), jax.vmap(laws.sample)(jax.random.split(key, _SIMULATED))
