"""Forecasts with their bands, where their uncertainty comes from, and what naive baselines say."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.comparisons import baselines
from walras.calibrate.errors import CalibrationError
from walras.calibrate.finding import Finding
from walras.calibrate.predictions.predictive import (
    extended_by,
    flat,
    latent_values,
    over_draws,
    require_same,
    thinned,
    world_at,
)
from walras.calibrate.problem import Problem
from walras.calibrate.reporting.numbers import listed, number, percent

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
_COLUMNS = [f"{100 * level:.0f} %" for level in LEVELS]
_PAST = 60  # rows before the forecast that are shown


@dataclass(frozen=True)
class Forecast(Finding):
    """The predictive law of each target in rows after the last.

    `bands`: rows by name of the series and time, with `mean` and quantiles. `baselines`: quantiles of the first target by the
    last value and a lagged regression, by name and time. `variance`: for each time the shares of the first target's variance
    that are due to not knowing the parameters, to what happens to the other targets (such as supply), and to errors. `past`:
    the last rows of the data.
    """

    bands: pd.DataFrame
    baselines: pd.DataFrame
    variance: pd.DataFrame
    past: pd.DataFrame
    units: dict
    remarks: list

    name: ClassVar[str] = "forecast"

    @property
    def text(self):
        target = self.bands.index[0][0]
        table, unit = self.bands.loc[target], self.units.get(target, "")
        said = f"The forecast of the next {target} is {_range(table.iloc[0], unit)}"
        if len(table) > 1:
            said += f", and {len(table)} rows ahead {_range(table.iloc[-1], unit)}"
        naive = {name: rows.iloc[-1] for name, rows in self.baselines.groupby(level="baseline", sort=False)}
        others = [f"of the {name} {_range(row, unit)}" for name, row in naive.items() if np.isfinite(row["50 %"])]
        said += f"; that {listed(others)}." if others else "."
        causes = [f"{percent(share)} from {cause}" for cause, share in self.variance.iloc[-1].items()]
        return " ".join([said, f"Of the variance of the last row come {listed(causes)}.", *self.remarks])

    def story(self):
        from walras.calibrate.reporting.scenario_plots import plot_forecast  # matplotlib is loaded only for pictures

        target = self.bands.index[0][0]
        beside = self.bands.loc[target].join(self.variance.add_prefix("variance: "))
        return [("Forecast", [self.text, beside, self.baselines.reset_index()], plot_forecast(self))]


def forecast_bands(
    problem: Problem,
    tree: xr.DataTree,
    future: pd.DataFrame | None = None,
    *,
    key: jax.Array,
    periods: int | None = None,
    draws: int | None = None,
) -> Forecast:
    """The forecast of `forecast` in tables, beside naive baselines, with the sources of its variance.

    `future` and `periods` as there; `draws` of each chain, 500 or all by default. Raises `CalibrationError` as `forecast` does.
    """
    require_same(problem, tree)
    extended, rows = extended_by(problem, future, periods)
    kept = min(500, tree["posterior"].sizes["draw"]) if draws is None else draws
    values = flat(thinned(latent_values(problem, tree), kept))
    tables = _completions(extended, rows, values, key)
    if not np.isfinite(tables).all():
        raise CalibrationError("forecasts are not finite in some draws: check the run with walras check")
    targets, times = problem.observation.targets, extended.data.index[-rows:]
    bands = {name: _bands(tables[:, 0, :, column], times) for column, name in enumerate(targets)}
    seen = pd.DataFrame(np.asarray(problem.observed), index=problem.data.index, columns=list(targets))
    return Forecast(
        bands=pd.concat(bands, names=["series"]),
        baselines=_baselines(
            problem, extended, rows, seen[targets[0]], np.random.default_rng(np.asarray(jax.random.key_data(key)))
        ),
        variance=_shares(tables[..., 0], targets, times),
        past=seen.iloc[-_PAST:],
        units=dict(problem.data.attrs.get("units", {})),
        remarks=[*_remarks(problem, future), *_below_zero(seen, bands)],
    )


def _completions(extended: Problem, rows: int, values, key) -> np.ndarray:
    """For each draw three continuations (draws, 3, rows, targets), the third with the other targets of the first."""

    def one(values, key):
        law, keys = world_at(extended, values)[2], jax.random.split(key, 3)
        first, second = law.complete(keys[0], extended.observed), law.complete(keys[1], extended.observed)
        third = law.complete(keys[2], extended.observed.at[-rows:, 1:].set(first[-rows:, 1:]))
        return jax.numpy.stack([first, second, third])[:, -rows:]

    return over_draws(one, values, jax.random.split(key, len(next(iter(values.values())))))


def _bands(draws: np.ndarray, times: pd.Index) -> pd.DataFrame:
    table = pd.DataFrame(np.quantile(draws, LEVELS, axis=0).T, index=times, columns=_COLUMNS)
    table.insert(0, "mean", draws.mean(axis=0))
    return table


def _shares(draws: np.ndarray, targets, times) -> pd.DataFrame:
    """By the law of total variance: continuations of one draw covary by what they share, its parameters and other targets."""
    centred = draws - draws.mean(axis=0)
    alone, with_others = (np.mean(centred[:, 0] * centred[:, other], axis=0) for other in (1, 2))
    total = np.mean(centred[:, 0] ** 2, axis=0)
    known = np.clip(alone / total, 0.0, 1.0)
    found = {"parameters": known}
    if len(targets) > 1:
        found[" and ".join(targets[1:])] = np.clip(with_others / total, known, 1.0) - known
    found["errors"] = 1.0 - sum(found.values())
    return pd.DataFrame(found, index=times)


def _baselines(problem: Problem, extended: Problem, rows: int, target: pd.Series, rng) -> pd.DataFrame:
    traded = [name for name in ("supply", "volume") if name in problem.data]
    kept = [*traded, *dict.fromkeys(problem.observation.covariates)]
    frame = problem.data[kept].assign(**{target.name: target})
    future = extended.data[kept].iloc[-rows:]
    found = baselines.forecasts(frame, str(target.name), future, LEVELS, rng)
    tables = {name: pd.DataFrame(values, index=future.index, columns=_COLUMNS) for name, values in found.items()}
    return pd.concat(tables, names=["baseline"])


def _remarks(problem: Problem, future) -> list[str]:
    given = () if future is None else future.columns
    absent = [name for name in dict.fromkeys(problem.observation.covariates) if name not in given]
    return [f"Not given, and taken to be at their means: {', '.join(absent)}."] if absent else []


def _below_zero(seen: pd.DataFrame, bands: dict[str, pd.DataFrame]) -> list[str]:
    below = [name for name, table in bands.items() if seen[name].min() > 0.0 > table["5 %"].min()]
    return [f"The law of {name} is normal: its band reaches below zero, where no observation is." for name in below]


def _range(row, unit) -> str:
    return f"{number(row['50 %'])} {unit}".strip() + f" (90 %: {number(row['5 %'])} to {number(row['95 %'])})"
