"""Forecasts that know no economics, for comparison: the last value, and a regression on what was seen before."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.stats

type Design = Callable[[pd.DataFrame, str], tuple[np.ndarray, np.ndarray]]


def last_value(frame: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The change from one row to the next, with nothing to explain it: response (rows,), regressors (rows, 0)."""
    change = frame[target].diff().to_numpy(float)
    return change, np.empty((len(frame), 0))


def lagged_regression(frame: pd.DataFrame, target: str, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The target on a constant, the targets and drivers of so many rows before, and today's drivers known in advance.

    Today's value of columns that are traded at the same time as the target ("supply", "volume") is not used.
    """
    lagged = frame.shift(rows)
    known = frame.drop(columns=[c for c in (target, "supply", "volume") if c in frame])
    traded = lagged[[c for c in (target, "supply", "volume") if c in frame]]
    regressors = np.column_stack([np.ones(len(frame)), traded.to_numpy(float), known.to_numpy(float)])
    return frame[target].to_numpy(float), regressors


BASELINES: dict[str, Design] = {"last price": last_value, "lagged regression": lagged_regression}


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


def forecasts(frame: pd.DataFrame, target: str, future: pd.DataFrame, levels: list[float]) -> dict[str, np.ndarray]:
    """Quantiles (rows of `future`, levels) of both baselines' predictive laws, from the rows of `frame` alone, by name.

    Rows count as periods, whatever their times. The last value moves as a random walk, its steps of unknown spread; the
    regression h rows ahead is on what was traded h rows before. `future` has the drivers, which both frames have.
    """
    steps, _ = last_value(frame, target)
    steps = steps[np.isfinite(steps)]
    last, ahead = frame[target].dropna().iloc[-1], np.sqrt(np.arange(1, len(future) + 1))
    walk = scipy.stats.t.ppf(levels, steps.size)[None] * np.sqrt(np.mean(steps**2)) * ahead[:, None] + last
    joined = pd.concat([frame, future.reindex(columns=frame.columns)])
    regressed = [_regressed(joined, target, rows, len(frame), levels) for rows in range(1, len(future) + 1)]
    return {"last price": walk, "lagged regression": np.array(regressed)}


def _regressed(joined, target, rows, known, levels):
    response, regressors = lagged_regression(joined, target, rows)
    usable = np.isfinite(response) & np.isfinite(regressors).all(axis=1) & (np.arange(len(joined)) < known)
    new = regressors[[known + rows - 1]]
    if usable.sum() <= regressors.shape[1] or not np.isfinite(new).all():
        return np.full(len(levels), np.nan)
    return _student(response[usable], regressors[usable], new).ppf(levels)


def _predictive(y, x, y_new, x_new):
    return _student(y, x, x_new).logpdf(y_new)


def _student(y, x, x_new):
    """The predictive law at new regressors (rows,)."""
    coefficients, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    freedom = y.size - rank
    variance = np.sum((y - x @ coefficients) ** 2) / freedom
    leverage = np.einsum("ij,jk,ik->i", x_new, np.linalg.pinv(x.T @ x), x_new) if x.shape[1] else np.zeros(len(x_new))
    return scipy.stats.t(freedom, x_new @ coefficients, np.sqrt(variance * (1.0 + leverage)))
