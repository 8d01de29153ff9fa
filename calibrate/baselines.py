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


def lagged_regression(frame: pd.DataFrame, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The target on a constant, the previous row's targets and drivers, and today's drivers known in advance.

    Today's value of columns that are traded at the same time as the target ("supply", "volume") is not used.
    """
    lagged = frame.shift(1)
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


def _predictive(y, x, y_new, x_new):
    coefficients, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    freedom = y.size - rank
    variance = np.sum((y - x @ coefficients) ** 2) / freedom
    leverage = np.einsum("ij,jk,ik->i", x_new, np.linalg.pinv(x.T @ x), x_new) if x.shape[1] else np.zeros(len(x_new))
    return scipy.stats.t.logpdf(y_new, freedom, x_new @ coefficients, np.sqrt(variance * (1.0 + leverage)))
