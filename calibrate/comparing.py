"""Comparing fits by how well they predict: one step ahead, at rolling origins, and leaving one out."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from walras.calibrate import baselines
from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictive import one_step_densities
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler, chains

# Of each chain at least, in whole chunks, at each origin: the mean score is within 0.005 of that with five times as many.
REFIT_DRAWS = 100


@dataclass(frozen=True)
class Comparison:
    """`table`: a row for each model, best first. `pointwise`: the rolling log score of each scored row (rows, models).

    Columns of the table: `rolling` (mean log score of the scored rows), `difference` to the best and its standard error
    `se` (sums over rows), `one_step` (in-sample mean, parameters fitted to all rows) and `loo` (PSIS-LOO, sum), NaN for
    baselines; `pareto_k` the share of rows where PSIS is unreliable.
    """

    table: pd.DataFrame
    pointwise: pd.DataFrame
    text: str


def origins_of(rows: int, origins: int, share: float) -> tuple[list[int], list[int]]:
    """The first row of each of `origins` blocks that cover the last `share` of the rows, and the row after each."""
    first = round(rows * (1.0 - share))
    edges = np.linspace(first, rows, origins + 1).astype(int)
    if first < 10 or np.any(np.diff(edges) < 1):
        raise CalibrationError(f"data have {rows} rows, too few for {origins} rolling origins: use fewer, or a smaller share")
    return list(edges[:-1]), list(edges[1:])


def rolling_scores(problem: Problem, sampler: Sampler, *, key, origins: int = 4, share: float = 0.4) -> np.ndarray:
    """One-step-ahead log density of each of the last rows (rows,), refitted at rolling origins; NaN before the first.

    At each origin the posterior is that of the rows before it; within a block the model is then told each row in turn,
    its parameters unchanged. Chains start from the fit to all rows and move for as long as they are then kept. Default
    priors stay those of the problem: their centres and scales come from all of its rows. Refits are by NUTS, with its default
    options where `sampler` is another.
    """
    sampler = sampler if isinstance(sampler, NUTS) else NUTS()
    compiled = chains(problem, sampler)
    if not compiled.ready:
        compiled.run(jax.random.split(key, sampler.chains))
    starts, ends = origins_of(len(problem.data), origins, share)
    chunks = -(-REFIT_DRAWS // sampler.chunk)
    refits = [compiled.rerun(problem.observed.at[start:].set(jnp.nan), chunks) for start in starts]
    latent = {name: np.concatenate([values[name] for values in refits]) for name in problem.latent}
    densities = one_step_densities(problem, latent).reshape(origins, -1, len(problem.data))
    scores = logsumexp(densities, axis=1) - np.log(densities.shape[1])
    result = np.full(len(problem.data), np.nan)
    for origin, (start, end) in enumerate(zip(starts, ends, strict=True)):
        result[start:end] = scores[origin, start:end]
    return result


def compare(
    fits: Mapping[str, tuple[Problem, xr.DataTree]],
    *,
    key,
    sampler: Sampler | None = None,
    origins: int = 4,
    share: float = 0.4,
    rolling: Mapping[str, np.ndarray] | None = None,
) -> Comparison:
    """Score fits of the same target in the same rows, beside the last price and a lagged regression.

    `rolling`: scores already computed by `rolling_scores`, by name; the others are computed here with `sampler`.
    Raises `CalibrationError` when the fits have different targets or rows.
    """
    problems = {name: problem for name, (problem, _) in fits.items()}
    _require_comparable(problems)
    first = next(iter(problems.values()))
    sampler = NUTS() if sampler is None else sampler
    target = first.observation.targets[0]
    starts, ends = origins_of(len(first.data), origins, share)
    scored = {
        name: rolling[name]
        if rolling and name in rolling
        else rolling_scores(problem, sampler, key=key, origins=origins, share=share)
        for name, problem in problems.items()
    }
    if target in first.data:
        for name, design in baselines.BASELINES.items():
            scored[name] = baselines.scores(design, first.data, target, starts, ends)
    pointwise = pd.DataFrame(scored, index=first.data.index).dropna()
    table = pd.DataFrame({"rolling": pointwise.mean()})
    best = table["rolling"].idxmax()
    gaps = pointwise.sub(pointwise[best], axis=0)
    table["difference"] = gaps.sum()
    table["se"] = gaps.std(ddof=1) * np.sqrt(len(gaps))
    for name, (_, tree) in fits.items():
        table.loc[name, "one_step"] = float(_mean_log(tree["one_step_ahead"]["log_density"]).mean(skipna=True))
        loo = _loo(tree, target)
        table.loc[name, "loo"], table.loc[name, "pareto_k"] = loo
    table = table.sort_values("rolling", ascending=False)
    return Comparison(table, pointwise, _in_words(table, len(pointwise), target))


def _mean_log(log_density):
    """log of the mean density over draws, of each row."""
    stacked = log_density.stack(sample=("chain", "draw"))
    highest = stacked.max("sample")
    return np.log(np.exp(stacked - highest).mean("sample")) + highest


def _loo(tree, target):
    """PSIS-LOO and the share of rows with a Pareto k above 0.7, over the rows that are observed; NaN of a single point."""
    if tree["posterior"].sizes["draw"] == 1:
        return np.nan, np.nan
    density = tree["log_likelihood"].to_dataset()[[target]]
    rows = density[target].dims[-1]
    kept = density.isel({rows: np.flatnonzero(np.isfinite(density[target]).all(("chain", "draw")).to_numpy())})
    parts = xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset(), "log_likelihood": kept})
    with warnings.catch_warnings():
        # the table says in how many rows the estimate is unreliable
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")
        result = az.loo(parts, pointwise=True)
    return float(result.elpd), float((result.pareto_k > 0.7).mean())


def _in_words(table, rows, target):
    best = table.index[0]
    close = [n for n in table.index[1:] if abs(table.loc[n, "difference"]) < 2 * table.loc[n, "se"]]
    worse = [n for n in table.index[1:] if n not in close]
    text = f"Over the last {rows} scored rows, {best!r} predicts {target} best one step ahead."
    if close:
        text += " Within two standard errors of it: " + ", ".join(map(repr, close)) + "."
    if worse:
        text += " Clearly worse: " + ", ".join(map(repr, worse)) + "."
    return text


def _require_comparable(problems: Mapping[str, Problem]):
    names = list(problems)
    if not names:
        raise CalibrationError("fits is empty: give at least one fit by name")
    first = problems[names[0]]
    target = first.observation.targets[0]
    for name in names[1:]:
        other = problems[name]
        same_rows = first.data.index.equals(other.data.index)
        if other.observation.targets[0] != target or not same_rows or not _same(first, other):
            raise CalibrationError(
                f"{names[0]!r} and {name!r} do not predict the same values: compare fits of one target in the same rows"
            )


def _same(a: Problem, b: Problem) -> bool:
    return np.array_equal(np.asarray(a.observed[:, 0]), np.asarray(b.observed[:, 0]), equal_nan=True)
