"""Forecasts that know no economics, for comparison: the last value, and a regression on what was seen before."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.stats
from scipy.special import logsumexp

from walras.calibrate.comparisons.rolling import Scores, crps

type Design = Callable[[pd.DataFrame, str], tuple[np.ndarray, np.ndarray]]

_PATHS = 2000  # simulated from each origin


def last_value(frame: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The change from one row to the next, with nothing to explain it: response (rows,), regressors (rows, 0)."""
    change = frame[target].diff().to_numpy(float)
    return change, np.empty((len(frame), 0))


def lagged_regression(frame: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The target on a constant, the previous row's targets and drivers, and today's drivers known in advance.

    Today's value of columns that are traded at the same time as the target ("supply", "volume") is not used.
    """
    traded, known = _columns(frame, target)
    regressors = np.column_stack([np.ones(len(frame)), frame[traded].shift(1).to_numpy(float), frame[known].to_numpy(float)])
    return frame[target].to_numpy(float), regressors


BASELINES: dict[str, Design] = {"last price": last_value, "lagged regression": lagged_regression}


def _columns(frame: pd.DataFrame, target: str) -> tuple[list, list]:
    """The columns that are traded, the target first, and those that are known in advance."""
    traded = [c for c in dict.fromkeys((target, "supply", "volume")) if c in frame]
    return traded, [c for c in frame if c not in traded]


def scores(design: Design, frame: pd.DataFrame, target: str, origins: list[int], ends: list[int]) -> np.ndarray:
    """log predictive density of each scored row (rows,), refitted on the rows before each origin; NaN elsewhere.

    The predictive density is the Student-t of a normal regression with the flat prior of Jeffreys.
    """
    response, regressors = design(frame, target)
    usable = np.isfinite(response) & np.isfinite(regressors).all(axis=1)
    result = np.full(len(frame), np.nan)
    for origin, end in zip(origins, ends, strict=True):
        fitted = usable & (np.arange(len(frame)) < origin)
        scored = usable & (np.arange(len(frame)) >= origin) & (np.arange(len(frame)) < end)
        result[scored] = _predictive(response[fitted], regressors[fitted], response[scored], regressors[scored])
    return result


def rolling_scores(
    name: str, frame: pd.DataFrame, target: str, origins: list[int], ends: list[int], horizon: int, rng: np.random.Generator
) -> Scores:
    """Scores of the baseline `name`, as `walras.calibrate.comparisons.rolling.rolling_scores` has those of a model.

    Several rows ahead its own forecasts take the place of what is not known yet: paths are simulated, with parameters drawn
    from their posterior. What is traded beside the target is then forecast too, by a regression on the same and on what is
    forecast before it. Drivers are known in advance.
    """
    found = Scores(*(np.full((len(frame), horizon), np.nan) for _ in Scores._fields))
    simulate = _SIMULATIONS[name]
    # The values that were seen, and beyond the last row none.
    observed = np.append(frame[target].to_numpy(float), np.full(horizon, np.nan))
    for origin, end in zip(origins, ends, strict=True):
        for row, mean, scale in simulate(frame, target, origin, end, horizon, rng):
            values = mean + scale * rng.standard_normal(mean.shape)
            seen = observed[row : row + horizon]
            found.log_score[row] = logsumexp(scipy.stats.norm.logpdf(seen, mean, scale), axis=0) - np.log(_PATHS)
            found.crps[row] = crps(values, seen)
    # One row ahead the density is known exactly.
    found.log_score[:, 0] = scores(BASELINES[name], frame, target, origins, ends)
    return found


def forecasts(
    frame: pd.DataFrame, target: str, future: pd.DataFrame, levels: list[float], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Quantiles (rows of `future`, levels) of the baselines' predictive laws, from the rows of `frame` alone, by name.

    As in `rolling_scores`, rows count as periods, whatever their times. `future` has the drivers, which both frames have.
    """
    joined = pd.concat([frame, future.reindex(columns=frame.columns)])
    found = {}
    for name, simulate in _SIMULATIONS.items():
        ((_, mean, scale),) = simulate(joined, target, len(frame), len(frame) + 1, len(future), rng)
        found[name] = np.quantile(mean + scale * rng.standard_normal(mean.shape), levels, axis=0).T
    return found


def _random_walk(frame, target, origin, end, horizon, rng):
    """For each row: means (paths, horizon) and scales of the values from there, given the posterior of one variance."""
    price = frame[target].ffill().to_numpy(float)
    change = np.diff(frame[target].to_numpy(float)[:origin])
    change = change[np.isfinite(change)]
    scale = np.sqrt(np.sum(change**2) / rng.chisquare(change.size, _PATHS))
    for row in range(origin, end):
        yield row, np.full((_PATHS, horizon), price[row - 1]), scale[:, None] * np.sqrt(np.arange(1, horizon + 1))


def _regressions(frame, target, origin, end, horizon, rng):
    """The same of regressions: each traded column on all of the row before, on the drivers, and on the columns before it."""
    traded, known = _columns(frame, target)
    values, drivers = frame[traded].to_numpy(float), frame[known].to_numpy(float)
    past = np.column_stack([np.ones(origin - 1), values[: origin - 1], drivers[1:origin]])
    drawn = [_posterior(values[1:origin, i], np.column_stack([past, values[1:origin, :i]]), rng) for i in range(len(traded))]
    for row in range(origin, end):
        now = np.broadcast_to(values[row - 1], (_PATHS, len(traded)))
        mean = np.full((_PATHS, horizon), np.nan)
        for step in range(min(horizon, len(frame) - row)):
            told = np.broadcast_to(drivers[row + step], (_PATHS, len(known)))
            regressors = np.column_stack([np.ones(_PATHS), now, told])
            now = np.empty((_PATHS, 0))
            for coefficients, scale in drawn:
                centre = np.sum(np.column_stack([regressors, now]) * coefficients, axis=1)
                mean[:, step] = centre if now.shape[1] == 0 else mean[:, step]
                now = np.column_stack([now, centre + scale * rng.standard_normal(_PATHS)])
        yield row, mean, drawn[0][1][:, None]


_SIMULATIONS = {"last price": _random_walk, "lagged regression": _regressions}


def _posterior(y, x, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the coefficients (paths, regressors) and the scale (paths,) of a regression with the prior of Jeffreys."""
    usable = np.isfinite(y) & np.isfinite(x).all(axis=1)
    y, x = y[usable], x[usable]
    coefficients, freedom, variance = _least_squares(y, x)
    scale = np.sqrt(freedom * variance / rng.chisquare(freedom, _PATHS))
    # Symmetric, and singular where drivers repeat each other.
    values, vectors = np.linalg.eigh(np.linalg.pinv(x.T @ x))
    spread = vectors * np.sqrt(np.maximum(values, 0.0))
    return coefficients + scale[:, None] * (rng.standard_normal((_PATHS, x.shape[1])) @ spread.T), scale


def _least_squares(y, x) -> tuple[np.ndarray, int, float]:
    """Coefficients, degrees of freedom and the unbiased variance of the errors."""
    coefficients, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    freedom = y.size - int(rank)
    return coefficients, freedom, float(np.sum((y - x @ coefficients) ** 2)) / freedom


def _predictive(y, x, y_new, x_new):
    coefficients, freedom, variance = _least_squares(y, x)
    leverage = np.einsum("ij,jk,ik->i", x_new, np.linalg.pinv(x.T @ x), x_new) if x.shape[1] else np.zeros(len(x_new))
    return scipy.stats.t.logpdf(y_new, freedom, x_new @ coefficients, np.sqrt(variance * (1.0 + leverage)))
