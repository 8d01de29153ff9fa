"""Comparing fits by how well they predict: at rolling origins, beside naive forecasts, and leaving one row out."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.comparisons import baselines
from walras.calibrate.comparisons.leaving_out import RELIABLE, leave_one_out
from walras.calibrate.comparisons.rolling import Scores, blocks, origins_of, rolling_scores
from walras.calibrate.errors import CalibrationError
from walras.calibrate.executing import each
from walras.calibrate.finding import Finding
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler

__all__ = ["Comparison", "compare", "origins_of", "rolling_scores"]

_APART = 2.0  # standard errors beyond which two scores are said to differ


@dataclass(frozen=True)
class Comparison(Finding):
    """How well models of one target predict it in the same rows, beside naive forecasts.

    `table` has a row for each model, best first:

    * `rolling`: mean log score one row ahead at rolling origins; leave-future-out where `exact`;
    * `difference`, `se`: the sum over rows of the log score less the best one's, and its standard error, rows being paired;
    * `crps`, `crps_difference`, `crps_se`: the mean CRPS of the same forecasts in the target's unit (smaller is better), less
      that of the best by log score, and its standard error;
    * `one_step`: as `rolling`, in the rows that the parameters were fitted to (all of them): too good by what was learnt there;
    * `loo`, `loo_se`: log score of all rows, each given all others (PSIS-LOO with moment matching), as a sum, with its
      standard error; `pareto_k`: the share of rows where it is still unreliable. NaN for naive forecasts.

    `horizons` has a row for each model and horizon: `log_score` and `crps` are means over the `rows` whose forecast of that
    horizon all models have, the others as in `table`, but means too. Their standard errors allow for forecasts that overlap.
    `pointwise` holds the log score one row ahead (rows, models), of the rows where all have one; `unscored` says in how many
    rows that were seen a fit has none. `foreseeing` names the models whose agents know what supply comes: benchmarks.
    """

    table: pd.DataFrame
    pointwise: pd.DataFrame
    horizons: pd.DataFrame
    target: str
    exact: bool
    foreseeing: tuple[str, ...]
    unscored: dict[str, int]

    name: ClassVar[str] = "compare"

    @property
    def text(self) -> str:
        return " ".join([_in_words(self), *_of_horizons(self), *_of_loo(self)])

    def story(self) -> list[tuple]:
        from walras.calibrate.reporting.comparisons import plot_comparison  # matplotlib is loaded when a page is made

        heading = "Leave-future-out scores" if self.exact else "Scores at rolling origins"
        tables = [self.table] if self.horizons.index.get_level_values("horizon").max() == 1 else [self.table, self.horizons]
        pictures = [plot_comparison(self)] if len(self.table) > 1 else []  # one line alone says nothing
        return [(heading, [self.text, *tables], *pictures)]


def compare(
    fits: Mapping[str, tuple[Problem, xr.DataTree]],
    *,
    key,
    sampler: Sampler | Mapping[str, Sampler] | None = None,
    origins: int = 4,
    share: float = 0.4,
    horizon: int = 1,
    exact: bool = False,
    rolling: Mapping[str, Scores] | None = None,
    executor: Executor | None = None,
) -> Comparison:
    """Score fits of the same target in the same rows, beside the last price and a lagged regression.

    The last `share` of the rows is forecast up to `horizon` rows ahead, with parameters refitted at `origins` rows; with
    `exact` before every row (leave-future-out), and rows where leaving one out stays unreliable are then refitted too.
    `sampler`: one for all, or one for each name. `rolling`: scores already computed by `rolling_scores`, by name; the others
    are computed here, by the workers of an `executor` if one is given. In this process, chains that `fit` has left go on from
    where they are.

    Raises `CalibrationError` when the fits have different targets or rows, and for what `rolling_scores` refuses.
    """
    problems = {name: problem for name, (problem, _) in fits.items()}
    require_comparable(problems)
    first = next(iter(problems.values()))
    samplers = dict(sampler) if isinstance(sampler, Mapping) else dict.fromkeys(problems, sampler or NUTS())
    options = {"origins": origins, "share": share, "horizon": horizon, "exact": exact}
    starts, ends = blocks(first, **options)
    scored = dict(rolling or {})
    missing = [name for name in problems if name not in scored]
    jobs = [(problems[name], samplers[name], key, options) for name in missing]
    scored = {**scored, **dict(zip(missing, each(_score, jobs, executor), strict=True))}
    scored = {name: scored[name] for name in problems}
    target = first.observation.targets[0]
    if target in first.data:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        for name in baselines.BASELINES:
            scored[name] = baselines.rolling_scores(name, first.data, target, starts, ends, horizon, rng)
    horizons = _by_horizon(scored)
    pointwise = pd.DataFrame({name: scores.log_score[:, 0] for name, scores in scored.items()}, index=first.data.index)
    seen = pointwise.iloc[starts[0] :][np.isfinite(np.asarray(first.observed)[starts[0] :, 0])]
    unscored = {name: int(count) for name, count in seen[list(problems)].isna().sum().items() if count}
    pointwise = pointwise.dropna()  # naive forecasts need the row before
    table = _summary(pointwise, horizons.xs(1, level="horizon"))
    table[["one_step", "loo", "loo_se", "pareto_k"]] = np.nan
    for name, (problem, tree) in fits.items():
        table.loc[name, "one_step"] = float(_mean_log(tree["one_step_ahead"]["log_density"]).mean(skipna=True))
        if tree["posterior"].sizes["draw"] == 1:
            continue  # a single point has no weights
        left = leave_one_out(problem, tree, sampler=samplers[name] if exact else None, key=key)
        table.loc[name, ["loo", "loo_se"]] = float(left.elpd), float(left.se)
        table.loc[name, "pareto_k"] = float(np.mean(~(left.pareto_k.to_numpy() <= RELIABLE)))
    foreseeing = tuple(name for name, problem in problems.items() if problem.observation.foresees)
    return Comparison(table, pointwise, horizons, target, exact, foreseeing, unscored)


def _score(job) -> Scores:
    problem, sampler, key, options = job
    return rolling_scores(problem, sampler, key=key, **options)


def _summary(pointwise: pd.DataFrame, one_ahead: pd.DataFrame) -> pd.DataFrame:
    """The table without what is found from all rows."""
    table = pd.DataFrame({"rolling": pointwise.mean()}).sort_values("rolling", ascending=False)
    gaps = pointwise.sub(pointwise[table.index[0]], axis=0)
    table["difference"] = gaps.sum()
    table["se"] = gaps.std(ddof=1) * np.sqrt(len(gaps))
    return table.join(one_ahead[["crps", "crps_difference", "crps_se"]])


def _by_horizon(scored: Mapping[str, Scores]) -> pd.DataFrame:
    """Mean scores by horizon and model, over the rows whose forecast of that horizon every model has."""
    found = []
    for horizon in range(1, next(iter(scored.values())).log_score.shape[1] + 1):
        logs, losses = (
            pd.DataFrame({name: getattr(scores, kind)[:, horizon - 1] for name, scores in scored.items()})
            for kind in ("log_score", "crps")
        )
        kept = logs.notna().all(axis=1) & losses.notna().all(axis=1)
        logs, losses = logs[kept], losses[kept]
        best = logs.mean().idxmax()
        table = pd.DataFrame({"rows": int(kept.sum()), "log_score": logs.mean()})
        for kind, values in (("log", logs), ("crps", losses)):
            gaps = values.sub(values[best], axis=0)
            if kind == "crps":
                table["crps"] = values.mean()
            table[f"{kind}_difference"] = gaps.mean()
            table[f"{kind}_se"] = [mean_error(gaps[name].to_numpy(), horizon - 1) for name in gaps]
        table = table.sort_values("log_score", ascending=False)
        table.index = pd.MultiIndex.from_product([[horizon], table.index], names=["horizon", "model"])
        found.append(table)
    return pd.concat(found)


def mean_error(series: np.ndarray, lags: int) -> float:
    """The standard error of the mean of a series (rows,) that is correlated up to `lags` rows apart.

    With the weights of Newey and West (Econometrica 55 (1987)); without lags the usual one.
    """
    deviation = series - series.mean()
    total = deviation @ deviation
    for lag in range(1, min(lags, series.size - 1) + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * (deviation[lag:] @ deviation[:-lag])
    return float(np.sqrt(total / (series.size - 1) / series.size))


def _mean_log(log_density):
    """log of the mean density over draws, of each row."""
    stacked = log_density.stack(sample=("chain", "draw"))
    highest = stacked.max("sample")
    return np.log(np.exp(stacked - highest).mean("sample")) + highest


def _in_words(found: Comparison) -> str:
    table, rows = found.table, len(found.pointwise)
    best, others = table.index[0], table.index[1:]
    close = [name for name in others if abs(table.loc[name, "difference"]) < _APART * table.loc[name, "se"]]
    worse = [name for name in others if name not in close]
    how = "refitted before every row" if found.exact else "refitted at rolling origins"
    text = f"Over the last {rows} scored rows, {best!r} predicts {found.target} best one step ahead ({how})."
    if close:
        text += " Within two standard errors of it, so that these rows cannot tell them apart: "
        text += ", ".join(map(repr, close)) + "."
    if worse:
        text += " Clearly worse: " + ", ".join(map(repr, worse)) + "."
    if len(others):
        least = _APART * table.loc[others, "se"].min() / rows
        text += f" Differences in the mean log score below {least:.2g} cannot be seen in so many rows."
    if found.foreseeing:
        text += f" Told of supply in advance, and so no forecast but a benchmark: {', '.join(map(repr, found.foreseeing))}."
    for name, rows in found.unscored.items():
        text += f" {name!r} has no density in {rows} rows, which are left out: check its fit with walras check."
    return text


def _of_horizons(found: Comparison) -> list[str]:
    """What the longest horizon says."""
    horizon = found.horizons.index.get_level_values("horizon").max()
    if horizon == 1:
        return []
    table = found.horizons.xs(horizon, level="horizon")
    best, others = table["crps"].idxmin(), table.iloc[1:]
    worse = others.index[np.abs(others["log_difference"]) > _APART * others["log_se"]]
    told = ", ".join(map(repr, worse)) or "none"
    return [
        f"{horizon} rows ahead {best!r} has the smallest CRPS, {table.loc[best, 'crps']:.3g}, and {table.index[0]!r} the best "
        f"log score; clearly worse by log score: {told}."
    ]


def _of_loo(found: Comparison) -> list[str]:
    unreliable = found.table["pareto_k"].fillna(0.0)
    names = unreliable.index[unreliable > 0]
    if not len(names):
        return []
    told = ", ".join(f"{name!r} ({unreliable[name]:.1%} of rows)" for name in names)
    return [f"Leaving one out (`loo`) is unreliable in some rows of {told}: use exact=True, or go by `rolling`."]


def require_comparable(problems: Mapping[str, Problem]):
    """Raise unless these predict the same target in the same rows, under names of their own."""
    names = list(problems)
    if not names:
        raise CalibrationError("fits is empty: give at least one fit by name")
    taken = sorted(set(names) & set(baselines.BASELINES))
    if taken:
        raise CalibrationError(f"a fit is named {taken[0]!r}, as a naive forecast is: give it another name")
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
