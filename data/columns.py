"""From a user's frame to plain columns: standard names, keys and float64 values."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from pandas.api import types

from walras.data import times
from walras.data.errors import DataError


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Named index levels as columns, rows numbered from 0, column names as text.

    Raises:
        DataError: two columns have the same name.
    """
    if isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex) and frame.index.name is None:
        frame = frame.rename_axis("time")
    named = [level for level in frame.index.names if level is not None and level not in frame.columns]
    table = frame.reset_index(level=named).reset_index(drop=True).rename(columns=str)
    if not table.columns.is_unique:
        raise DataError(f"column {table.columns[table.columns.duplicated()][0]!r} appears twice: rename or drop one")
    table.attrs = {}  # pandas would pass them on to every column
    return table


def renamed(table: pd.DataFrame, columns: Mapping[str, str], required: Iterable[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table under standard names, and how messages name each of its columns.

    Raises:
        DataError: a column is not there, has two names, or takes the name of another.
    """
    for wanted in (*required, *columns):
        own = columns.get(wanted, wanted)
        if own not in table:
            role = f"column {own!r}" if own == wanted else f"column {own!r} (for {wanted!r})"
            raise DataError(
                f"{role} is not in the data, whose columns are {', '.join(table.columns)}: say which one it is with "
                f"columns={{{wanted!r}: …}}"
            )
    own, uses = next(iter(Counter(columns.values()).most_common(1)), ("", 0))
    if uses > 1:
        raise DataError(f"columns gives {own!r} {uses} names: give it one, and copy the column if you mean both")
    new = table.rename(columns={own: wanted for wanted, own in columns.items()})
    if not new.columns.is_unique:
        twice = new.columns[new.columns.duplicated()][0]
        raise DataError(
            f"columns calls {columns[twice]!r} {twice!r}, but the data have another column {twice!r}: rename that one "
            f"too, with columns={{'other': {twice!r}}}, or drop it"
        )
    label = {name: name for name in new.columns}
    label |= {wanted: f"{wanted} (column {own!r})" for wanted, own in columns.items() if own != wanted}
    return new, label


def key(column: pd.Series, label: str) -> pd.Series:
    """An index column: parsed times, or integers or text for markets, auctions and bidders.

    Raises:
        DataError: a key is missing, or a time is not one.
    """
    if column.name == "time":
        return times.parse(column, label)
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise DataError(f"{label} is missing in row {missing[0] + 1}: name it or drop the row")
    return column.astype("int64") if types.is_integer_dtype(column) else column.astype(str)


def numeric(table: pd.DataFrame, wanted: set[str], label: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """The numeric columns as float64, and the names of the others.

    Args:
        table: columns under standard names.
        wanted: names that must be numeric; any other column may be left out.
        label: how messages name each column.

    Raises:
        DataError: a wanted column holds something that is not a number.
    """
    names = table.columns.tolist()
    keep = [name for name in names if name in wanted or _is_driver(table[name])]
    values = pd.DataFrame({name: _floats(table[name], label[name]) for name in keep}, index=table.index)
    return values, [name for name in names if name not in values]


def _is_driver(column: pd.Series) -> bool:
    """Numbers under a name: pandas calls a column without a header "Unnamed: 0"."""
    return _is_real(column) and not str(column.name).startswith("Unnamed: ")


def _is_real(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column) and not types.is_complex_dtype(column)


def _floats(column: pd.Series, label: str) -> np.ndarray:
    if _is_real(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    text = column.astype(object).map(str)
    numbers = pd.to_numeric(text, errors="coerce")
    bad = np.flatnonzero(numbers.isna() & column.notna())
    if bad.size:
        raise DataError(
            f"{label} is {text.iloc[bad[0]]!r} in row {bad[0] + 1}, which is not a number: write a plain number such "
            "as 1.5, or leave it empty if it is missing"
        )
    return numbers.to_numpy(dtype=float)
