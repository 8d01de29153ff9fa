"""`days`: an intraday series, such as hourly electricity, as a panel of trading days."""

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from numbers import Real
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from walras.data import columns as tidy
from walras.data.errors import DataError
from walras.data.forms import standard

DAY = pd.Timedelta(days=1)
HOUR = pd.Timedelta(hours=1)


def days(
    frame: pd.DataFrame,
    *,
    supply: Mapping[str, float] | None = None,
    unit: str | None = None,
    zone: str | None = None,
) -> pd.DataFrame:
    """A series with several rows a day as a panel: each whole day is a market, observed at the same hours.

    >>> from walras.data import standard
    >>> times = pd.date_range("2024-06-01", periods=6, freq="8h")
    >>> frame = pd.DataFrame({"price": [40.0, -5, 60, 45, 20, 80], "load": 50.0, "renewables": [20.0, 60, 30, 25, 45, 10]})
    >>> days(standard(frame.set_index(times), units={"load": "GW", "renewables": "GW"}))["supply"]
    market      time
    2024-06-01  0.0    -30.0
                8.0     10.0
                16.0   -20.0
    2024-06-02  0.0    -25.0
                8.0     -5.0
                16.0   -40.0
    Name: supply, dtype: float64

    The step is the most frequent spacing on most days (the smallest, if several are): an hour makes days of 24 rows, half
    an hour of 48, a quarter of 96. Days that are not whole are left out, never filled: days on which the clocks change,
    days with missing rows, rows at other times or a missing supply, and days whose price is missing or the same
    throughout, which the panel form refuses. A single missing price stays missing, and prices may be negative.

    A row's time is the start of its step, and the days are those of a clock. Times without a zone are what the clock
    shows; they cannot tell when it changes, so drop such days if the file has made them whole. Times with a zone, which
    `read` and `standard` turn to UTC, need the clock's: pass `zone`, or a frame whose index has that zone.

    Args:
        frame: a series, as `read` and `standard` return it or take it, its times dates with a time of day.
        supply: column → weight; their weighted sum is the column ``supply``. Default: the frame's own column
            ``supply``, or without one {"renewables": 1.0, "load": -1.0}, net supply. Supply is a rate: energies of a
            quarter of an hour (MWh) become powers (MW) with weights of 4.
        unit: of ``supply``; default that of its columns, where they agree and the weights are 1 and -1.
        zone: IANA name of the zone whose days these are, such as "Europe/Berlin".

    Returns:
        (days · steps, columns) panel: market the date as YYYY-MM-DD, time the hours since midnight; price, supply, then
        every other column of the frame. ``attrs`` are those of `standard`, with days_left_out {date: reason}; their number
        and the zone are in notes.

    Raises:
        DataError: the frame is not a series of dates, has a row a day or fewer, lacks a column of `supply`, or no day is
            whole; one sentence with the remedy.
    """
    series = _series(frame)
    weights = _weights(series, supply)
    units = {**series.attrs["units"], "supply": _unit(series, weights) if unit is None else unit}
    instant, named = _instants(series, frame, zone)
    clock = pd.DataFrame({"instant": instant, "wall": instant.dt.tz_localize(None)})
    clock["day"] = clock["wall"].dt.normalize()
    step = _step(clock)

    table = series.drop(columns="supply", errors="ignore").reset_index(drop=True)
    table.insert(1, "supply", sum(weight * series[column].to_numpy() for column, weight in weights.items()))
    reasons = _reasons(table, clock, step)
    whole = clock["day"].map(reasons == "")
    if not whole.any():
        raise DataError(
            f"none of {len(reasons)} days is whole at the usual spacing of {step / HOUR:g} h ({reasons.index[0]:%Y-%m-%d}: "
            f"{reasons.iloc[0]}): give regular times, and at least one day with every row"
        )
    hours = (clock["wall"] - clock["day"]).dt.total_seconds() / 3600
    table = table.assign(market=clock["day"].dt.strftime("%Y-%m-%d"), time=hours)[whole]
    left_out = {f"{day:%Y-%m-%d}": reason for day, reason in reasons.items() if reason}
    table.attrs = {**series.attrs, "days_left_out": left_out}
    table.attrs.pop("zone", None)
    return standard(table, form="panel", units=units, time_unit="hour", notes=_notes(series.attrs["notes"], named, reasons))


def _series(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as a standard series of dates."""
    form = frame.attrs.get("form", "series")
    if form != "series":
        raise DataError(f"the frame is in the form {form!r}: days are made of a series, so give one, such as read returns")
    series = standard(frame, form="series")
    if not isinstance(series.index, pd.DatetimeIndex):
        raise DataError(
            f"time is {series.index[0]} in row 1, a number: give dates with a time of day, such as 2024-01-31 13:00"
        )
    if "market" in series:
        raise DataError("the data have a column 'market', which the panel needs for its days: rename or drop it")
    return series


def _instants(series: pd.DataFrame, frame: pd.DataFrame, zone: str | None) -> tuple[pd.Series, str]:
    """The times (rows,) in the zone whose days are wanted, and its name; without a zone, as they are, and ""."""
    instant = pd.Series(series.index)
    own = getattr(tidy.flat(frame)["time"].dtype, "tz", None)
    if own is None and zone is None and "zone" in series.attrs:
        raise DataError(
            "time had a zone and is in UTC now, whose days need not be the market's: name its zone, such as "
            "zone='Europe/Berlin', or zone='UTC' for days of UTC"
        )
    if "zone" in series.attrs:
        wanted = own if zone is None else _zone(zone)
        return instant.dt.tz_localize("UTC").dt.tz_convert(wanted), str(wanted)
    if zone is not None and own is None:
        raise DataError(
            f"zone is {zone!r}, but the times have no zone to turn into it: leave it out if they are local times, or name "
            "theirs first, with frame.tz_localize('UTC')"
        )
    return instant, ""


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise DataError(f"zone is {name!r}, which is not a known time zone: write it as 'Europe/Berlin' or 'UTC'") from error


def _weights(series: pd.DataFrame, supply: Mapping[str, float] | None) -> dict[str, float]:
    if supply is None:
        supply = {"supply": 1.0} if "supply" in series else {"renewables": 1.0, "load": -1.0}
    if not isinstance(supply, Mapping) or not supply:
        raise DataError(f"supply is {supply!r}: give columns with weights, such as {{'renewables': 1.0, 'load': -1.0}}")
    for column, weight in supply.items():
        if column not in series:
            why = "is left out, not being numbers" if column in series.attrs["left_out"] else "is not in the data"
            raise DataError(
                f"column {column!r} of supply {why}, the columns being {', '.join(series.columns)}: say what supply is made "
                "of, with supply={'renewables': 1.0, 'load': -1.0} and your own names"
            )
        if not isinstance(weight, Real) or isinstance(weight, bool) or not isfinite(weight) or weight == 0:
            raise DataError(f"the weight of column {column!r} in supply is {weight!r}: give a number other than 0")
    if "supply" in series and set(supply) != {"supply"}:
        raise DataError(
            f"the data have a column 'supply', which the sum of {', '.join(map(repr, supply))} would replace: rename it, or "
            "leave supply out to use it"
        )
    return {column: float(weight) for column, weight in supply.items()}


def _unit(series: pd.DataFrame, weights: Mapping[str, float]) -> str:
    """The unit of columns that are only added and subtracted; unknown otherwise."""
    if any(abs(weight) != 1.0 for weight in weights.values()):
        return ""
    known = {column: series.attrs["units"][column] for column in weights if series.attrs["units"][column]}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{column!r} in {unit!r}" for column, unit in known.items())
        raise DataError(f"supply would add {listed}: give weights that make them one unit, and name it with unit=…")
    return next(iter(known.values())) if len(known) == len(weights) else ""


def _step(clock: pd.DataFrame) -> pd.Timedelta:
    """The spacing that is the most frequent one on most days."""
    spacing = clock["instant"].diff()
    counts = spacing.groupby([clock["day"], spacing]).size()
    step = pd.Series([usual for _, usual in counts.groupby(level=0).idxmax()]).mode().iloc[0]
    if step >= DAY:
        raise DataError(f"time is usually {step / HOUR:g} h apart: give several rows a day, or use the series as it is")
    if DAY % step:
        raise DataError(
            f"time is usually {step / HOUR:g} h apart, which does not divide a day: give regular times, such as hourly ones"
        )
    return step


def _reasons(table: pd.DataFrame, clock: pd.DataFrame, step: pd.Timedelta) -> pd.Series:
    """Why each day is left out, empty for whole days.

    Args:
        table: (rows, columns) with price and supply.
        clock: (rows, 3) instant; wall, the time without its zone; day, its midnight.
        step: spacing of the rows.

    Returns:
        (days,) text indexed by midnights.
    """
    steps, rows = DAY // step, clock.groupby("day")
    since = clock["wall"] - clock["day"]
    expected = (since - since.dt.floor(step)).mode().iloc[0] + rows.cumcount() * step
    size, spans = rows.size(), rows["instant"].max() - rows["instant"].min()
    irregular = (since != expected).groupby(clock["day"]).any() | (spans != (steps - 1) * step)
    prices = table["price"].groupby(clock["day"]).nunique()
    cases = {
        "rows at other times": irregular,
        "supply missing": table["supply"].isna().groupby(clock["day"]).any(),
        "price missing": prices == 0,
        "price constant": prices == 1,
    }
    found = np.select([size != steps, *cases.values()], [size.map(f"{{}} of {steps} rows".format), *cases], "")
    return pd.Series(found, index=size.index)


def _notes(old: str, zone: str, reasons: pd.Series) -> str:
    """The notes of the series, the zone of the days, and how many are left out why."""
    counts = Counter(reason for reason in reasons if reason)
    why = ", ".join(f"{reason} ({number})" for reason, number in counts.items())
    told = [old, f"Days of {zone}." if zone else "", f"{sum(counts.values())} of {len(reasons)} days are left out: {why}."]
    return " ".join(filter(None, told if counts else told[:2]))
