"""The checks on the values of a standard frame, and the sentence a failed check becomes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from walras.data.errors import DataError


def check_values(values: pd.DataFrame, value: str, label: Mapping[str, str], groups: pd.Series | None = None) -> None:
    """Refuse values that cannot be data.

    Args:
        values: (rows, columns) float64, rows numbered from 0.
        value: the required column, which must vary (in every group, if there are groups).
        label: how messages name each column.
        groups: (rows,) the market of each row.

    Raises:
        DataError: an infinite value, a negative bid or volume, or a required column that is missing or constant.
    """
    # imported here because it doubles the time to import this package, and listing the catalogue needs no checks
    import pandera.pandas as pa

    finite = pa.Check(np.isfinite, error="it must be finite, so correct it or leave it empty")
    signed = pa.Check.ge(0, error="it cannot be negative, so correct it or leave it empty")
    checks = {name: [finite, signed] if name in ("bid", "volume") else [finite] for name in values}
    schema = pa.DataFrameSchema({name: pa.Column(float, checks[name], nullable=True) for name in values})
    try:
        schema.validate(values, lazy=True)
    except pa.errors.SchemaErrors as errors:
        raise DataError(_sentence(errors.failure_cases.iloc[0], label)) from errors
    for group, column in [("", values[value])] if groups is None else values[value].groupby(groups):
        _check_informative(column, label[value] if groups is None else f"{label[value]} of market {group!r}")


def _sentence(case: pd.Series, label: Mapping[str, str]) -> str:
    return f"{label[case['column']]} is {case['failure_case']} in row {case['index'] + 1}: {case['check']}"


def _check_informative(column: pd.Series, label: str) -> None:
    seen = column.dropna().unique()
    if not seen.size:
        raise DataError(f"{label} is missing in every row: check which column it is, or give rows that have it")
    if seen.size == 1:
        raise DataError(
            f"{label} is {seen[0]} wherever it is given, and a constant carries no information: check which column it "
            "is, or give rows in which it changes"
        )
