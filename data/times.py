"""Observation times: parsing, order, unit and the time elapsed since the first row."""

import numpy as np
import pandas as pd
from pandas.api import types

from walras.data.errors import DataError

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
OFFSET = r"(?<=\d)(Z|[+-]\d{2}:?\d{2})$"  # of a time of day in ISO 8601


def parse(column: pd.Series, label: str) -> pd.Series:
    """Times as naive datetimes or numbers; ``attrs["zone"]`` is "UTC" where times with a zone became UTC.

    Args:
        column: datetimes, dates, periods, integers, floats, or ISO 8601 text.
        label: how messages name the column.

    Raises:
        DataError: a time is missing, infinite or not ISO 8601, or the numbers are dates written as digits.
    """
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise DataError(f"{label} is missing in row {missing[0] + 1}: give every row a time or drop the row")
    if types.is_bool_dtype(column):
        raise DataError(f"{label} is {column.iloc[0]} in row 1: give dates or numbers")
    if types.is_numeric_dtype(column):
        return _numbers(column, label)
    if isinstance(column.dtype, pd.PeriodDtype):
        return column.dt.to_timestamp()
    if types.is_datetime64_any_dtype(column):
        return _naive(column)
    return _iso(column, label)


def _numbers(column: pd.Series, label: str) -> pd.Series:
    infinite = np.flatnonzero(~np.isfinite(column.to_numpy(float)))
    if infinite.size:
        raise DataError(f"{label} is {column.iloc[infinite[0]]} in row {infinite[0] + 1}: give finite times")
    if _are_digits_of_dates(column):
        raise DataError(
            f"{label} is {column.iloc[0]} in row 1, a date written as a number, whose differences are not days: "
            "write it as YYYY-MM-DD"
        )
    return column.astype("int64" if types.is_integer_dtype(column) else "float64")


def _are_digits_of_dates(column: pd.Series) -> bool:
    if not types.is_integer_dtype(column) or not column.between(1800_01_01, 2200_12_31).all():
        return False
    return bool(pd.to_datetime(column.astype(str), format="%Y%m%d", errors="coerce").notna().all())


def _naive(column: pd.Series) -> pd.Series:
    if column.dt.tz is None:
        return column
    return _days_or_utc(column.dt.tz_localize(None), column.dt.tz_convert("UTC").dt.tz_localize(None))


def _iso(column: pd.Series, label: str) -> pd.Series:
    text = column.astype(object).map(str)
    utc = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    bad = np.flatnonzero(utc.isna())
    if bad.size:
        raise DataError(
            f"{label} is {text.iloc[bad[0]]!r} in row {bad[0] + 1}, which is not an ISO date: "
            "write it as YYYY-MM-DD, or YYYY-MM-DD HH:MM"
        )
    naive = utc.dt.tz_localize(None)
    wall = text.str.replace(OFFSET, "", regex=True)
    return naive if wall.equals(text) else _days_or_utc(pd.to_datetime(wall, format="ISO8601"), naive)


def _days_or_utc(local: pd.Series, utc: pd.Series) -> pd.Series:
    """Days stay local days, since a change to summer time must not make one 23 hours long; instants become UTC."""
    if (local == local.dt.normalize()).all():
        return local
    utc.attrs["zone"] = "UTC"
    return utc


def check_order(times: pd.Series, label: str, of: str = "") -> None:
    """Refuse repeated and unsorted times.

    Args:
        times: the parsed times of one market, indexed by row number from 0.
        label: how messages name the column.
        of: the market, for the message; empty for a series.

    Raises:
        DataError: the times are not strictly increasing.
    """
    repeated = times.index[times.duplicated()]
    if len(repeated):
        first = times.index[times == times[repeated[0]]][0]
        raise DataError(
            f"{label} is {show(times[repeated[0]])} in both row {first + 1} and row {repeated[0] + 1}{of}: "
            "keep one row for each time"
        )
    late = np.flatnonzero(times.to_numpy()[1:] < times.to_numpy()[:-1])
    if late.size:
        before, after = times.index[late[0]], times.index[late[0] + 1]
        raise DataError(
            f"{label} falls from {show(times[before])} in row {before + 1} to {show(times[after])} in row "
            f"{after + 1}{of}: sort the rows by time"
        )


def show(time: object) -> str:
    """A time as the user would write it: midnight is left out."""
    return str(time).removesuffix(" 00:00:00")


def unit_of(spacings: pd.Series) -> str:
    """The unit in which to count times with these spacings: step for numbers, hour or day for dates."""
    if not types.is_timedelta64_dtype(spacings):
        return "step"
    return "hour" if spacings.min() < pd.Timedelta(days=1) else "day"


def counted(spans: pd.Series, unit: str) -> pd.Series:
    """Durations as floats in `unit`; numbers as they are.

    Raises:
        DataError: the spans are durations and the unit is not a known one.
    """
    if not types.is_timedelta64_dtype(spans):
        return spans
    if unit not in SECONDS:
        raise DataError(f"time_unit is {unit!r}: for dates choose one of {', '.join(SECONDS)}")
    return spans.dt.total_seconds() / SECONDS[unit]


def elapsed(frame: pd.DataFrame) -> np.ndarray:
    """Time since the first row of a series.

    Closed days, weekends and other gaps in the calendar appear as larger differences.

    >>> from walras.data import standard
    >>> friday_and_monday = pd.DataFrame({"time": ["2024-01-05", "2024-01-08"], "price": [1.1, 1.3]})
    >>> elapsed(standard(friday_and_monday, form="series"))
    array([0., 3.])

    Args:
        frame: a series (index ``time``), such as `load` or `read` returns; for one market of a panel pass
            ``frame.loc[market]``.

    Returns:
        (rows,) float64, 0 at the first row, in ``frame.attrs["time_unit"]``. Without that attribute: days, or hours
        if two rows are less than a day apart; numbers as they are.

    Raises:
        DataError: the frame is not indexed by time alone, has no rows, or counts its dates in an unknown unit.
    """
    index = frame.index
    if index.name != "time" or not len(index):
        raise DataError(
            f"the frame has {len(index)} rows indexed by {', '.join(map(repr, index.names))}: give rows indexed by "
            "'time', which for one market of a panel are frame.loc[market]"
        )
    since = index.to_series() - index[0]
    return counted(since, frame.attrs.get("time_unit") or unit_of(since.diff())).to_numpy(dtype=float)
