"""The three standard forms of a table, and `standard`, which turns a user's frame into one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from walras.data import columns as tidy
from walras.data import times
from walras.data.errors import DataError
from walras.data.schemas import check_values


@dataclass(frozen=True, kw_only=True)
class Form:
    """A standard form: the columns that make the index, and the column that must be there."""

    keys: tuple[str, ...]
    value: str


FORMS = {
    "series": Form(keys=("time",), value="price"),
    "panel": Form(keys=("market", "time"), value="price"),
    "bids": Form(keys=("auction", "bidder"), value="bid"),
}

CARRIED = ("zone", "days_left_out")  # facts that only some frames have, and keep


def standard(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    form: str = "series",
    units: Mapping[str, str] | None = None,
    time_unit: str | None = None,
    name: str | None = None,
    source: str | None = None,
    licence: str | None = None,
    notes: str | None = None,
) -> pd.DataFrame:
    """Validate a frame and bring it to a standard form. The frame given is not changed.

    | form   | index           | required | others                                            |
    |--------|-----------------|----------|---------------------------------------------------|
    | series | time            | price    | supply, volume (not negative), any numeric driver |
    | panel  | market, time    | price    | the same                                          |
    | bids   | auction, bidder | bid      | any numeric column, such as the auction's reserve |

    Times are datetimes, dates, numbers or ISO 8601 text, strictly increasing in each market; times with a zone become
    UTC unless all are local midnights. Markets, auctions and bidders are integers or text, and the rows of a market or
    an auction are put together. Missing values (NaN) stay missing. Other numeric columns are kept as drivers; the rest
    are left out and named in ``attrs["left_out"]``.

    Args:
        frame: (rows, …); named index levels count as columns, and an unnamed index of dates as ``time``.
        columns: standard name → the frame's own name, where they differ; also renames drivers.
        form: "series", "panel" or "bids".
        units: standard column name → unit, such as ``{"price": "USD/lb"}``.
        time_unit: for dates, the unit in which time is counted (second, minute, hour, day or week; default day, or
            hour if two rows are closer than a day); for numbers, the unit they are in (default "step").
        name, source, licence, notes: provenance, copied to ``attrs``.

    Returns:
        (rows, columns) float64 frame, the required column first, with ``attrs``: name, form, units {column: unit, ""
        where unknown}, source, licence, notes, time_unit, period (the smallest spacing, in time_unit), missing {column:
        count}, rows and left_out; and zone, "UTC", where times with a zone became UTC. ``time_unit`` and ``period`` are
        None for bids. A standard frame given again keeps the units and the provenance it has. pandas copies ``attrs``
        unchanged to slices, so rows, missing and period are those of the whole frame.

    Raises:
        DataError: one sentence naming the field, the value, the row and the remedy.
    """
    shape = _form(form)
    table, label = tidy.renamed(tidy.flat(frame), columns or {}, (*shape.keys, shape.value))
    found = {key: tidy.key(table[key], label[key]) for key in shape.keys}
    keys = pd.DataFrame(found)
    must = {shape.value, "supply", "volume", *(columns or {})}
    values, left_out = tidy.numeric(table.drop(columns=list(shape.keys)), must, label)
    values = values[[shape.value, *values.columns.drop(shape.value)]]
    _check_keys(keys, label)
    check_values(values, shape.value, label, groups=keys.get("market"))

    old = inherited(frame)
    given = {"name": name, "source": source, "licence": licence, "notes": notes}
    known = {column: unit for column, unit in old.get("units", {}).items() if column in values}
    attrs = {
        **{field: old.get(field, "") if value is None else value for field, value in given.items()},
        "form": form,
        "units": _units(values.columns, {**known, **(units or {})}),
        **_clock(keys, old.get("time_unit") if time_unit is None else time_unit),
        "missing": {column: int(values[column].isna().sum()) for column in values},
        "rows": len(values),
        "left_out": [*(column for column in old.get("left_out", []) if column not in table), *left_out],
        **{fact: old[fact] for fact in CARRIED if fact in old},
        **(found["time"].attrs if "time" in found else {}),
    }
    return _indexed(values, keys, attrs)


def inherited(frame: pd.DataFrame) -> dict:
    """The attributes of a frame that is in a standard form already; empty for any other."""
    return dict(frame.attrs) if frame.attrs.get("form") in FORMS else {}


def _form(form: str) -> Form:
    if form not in FORMS:
        close = "".join(f", perhaps {match!r}" for match in get_close_matches(str(form), FORMS, n=1))
        raise DataError(f"form is {form!r}: choose one of {', '.join(FORMS)}{close}")
    return FORMS[form]


def _check_keys(keys: pd.DataFrame, label: Mapping[str, str]) -> None:
    if len(keys) < 2:
        raise DataError(f"the data have {len(keys)} row{'s' * (len(keys) != 1)}: give at least 2")
    if "auction" in keys:
        _check_bidders(keys)
    elif "market" in keys:
        for market, of_market in keys["time"].groupby(keys["market"]):
            if len(of_market) < 2:
                raise DataError(f"market {market!r} has 1 row: give it at least 2, or drop it")
            times.check_order(of_market, label["time"], of=f" of market {market!r}")
    else:
        times.check_order(keys["time"], label["time"])


def _check_bidders(keys: pd.DataFrame) -> None:
    repeated = np.flatnonzero(keys.duplicated())
    if repeated.size:
        auction, bidder = (keys[name].tolist()[repeated[0]] for name in keys)
        raise DataError(
            f"bidder {bidder!r} of auction {auction!r} appears again in row {repeated[0] + 1}: keep one bid of each "
            "bidder in an auction"
        )


def _units(columns: pd.Index, units: Mapping[str, str]) -> dict[str, str]:
    for column in units:
        if column not in columns:
            raise DataError(f"units names {column!r}, but the value columns are {', '.join(columns)}: name one of them")
    return {column: units.get(column, "") for column in columns}


def _clock(keys: pd.DataFrame, unit: str | None) -> dict[str, str | float | None]:
    """The time unit, and the smallest spacing in it."""
    if "time" not in keys:
        return {"time_unit": None, "period": None}
    within = keys["time"].groupby(keys["market"]) if "market" in keys else keys["time"]
    spacings = within.diff().dropna()
    unit = unit or times.unit_of(spacings)
    return {"time_unit": unit, "period": float(times.counted(spacings, unit).min())}


def _indexed(values: pd.DataFrame, keys: pd.DataFrame, attrs: dict) -> pd.DataFrame:
    """Set the index, the rows of each market or auction together."""
    if len(keys.columns) == 1:
        result = values.set_axis(pd.Index(keys["time"], name="time"), axis="index")
    else:
        result = values.set_axis(pd.MultiIndex.from_frame(keys), axis="index")
        result = result.iloc[np.argsort(pd.factorize(keys.iloc[:, 0], sort=True)[0], kind="stable")]
    result.attrs = attrs
    return result
