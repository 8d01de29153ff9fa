"""The tables of a report, their cells already text."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.checks.checking import Report
from walras.calibrate.prior import Prior
from walras.calibrate.problem import Problem
from walras.calibrate.reporting import contents
from walras.calibrate.reporting.numbers import number

_LONG_TEXT = 90  # characters of a prior that are shown


@dataclass(frozen=True)
class Table:
    """Columns with their headings; `numeric` says which are aligned to the right."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class ParameterRows:
    """One parameter of the posterior table: a row of cells for each element, and where its prior comes from."""

    name: str
    unit: str
    prior: str
    why: str
    rows: list[tuple[str, ...]]

    @property
    def vector(self) -> bool:
        return len(self.rows) > 1 or self.rows[0][0] != ""

    @property
    def long(self) -> bool:
        return len(self.rows) > contents.MANY


PARAMETER_COLUMNS = ("mean", "sd", "5 %", "95 %", "prior 5 %", "prior 95 %", "R̂", "ESS bulk", "ESS tail")


def from_frame(frame: pd.DataFrame) -> Table:
    """A frame as a table, its index first unless it only counts rows."""
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=[name or "" for name in frame.index.names])
    numeric = tuple(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes)
    rows = [tuple(_cell(value) for value in row) for row in frame.itertuples(index=False)]
    return Table(tuple(str(name) for name in frame.columns), numeric, rows)


def _cell(value) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float | np.integer | np.floating) else str(value)


def parameters(problem: Problem, tree: xr.DataTree, prior: xr.Dataset) -> list[ParameterRows]:
    """The posterior of each sampled parameter beside its prior."""
    names = problem.sampled
    intervals, given = contents.prior_intervals(prior, names), {} if callable(problem.priors) else problem.priors
    return [
        _parameter(name, given.get(name), _parameter_rows(table, intervals[name]))
        for name, table in contents.summaries(tree, names).items()
    ]


def _parameter(name, prior, rows) -> ParameterRows:
    if not isinstance(prior, Prior):
        return ParameterRows(name, "", "", "", rows)
    # the prior's own text ends with its unit, which has a place of its own here
    text = str(prior).removesuffix(f" {prior.unit}") if prior.unit else str(prior)
    shown = text if len(text) <= _LONG_TEXT else text[: _LONG_TEXT - 1] + "…"
    return ParameterRows(name, prior.unit, shown.replace("-", "−"), prior.why, rows)


def _parameter_rows(table: pd.DataFrame, intervals: np.ndarray) -> list[tuple[str, ...]]:
    return [
        (
            str(label),
            *(number(row[column]) for column in ("mean", "sd", "low", "high")),
            *(number(end) for end in ends),
            f"{row['r_hat']:.3f}" if np.isfinite(row["r_hat"]) else number(row["r_hat"]),
            *(_count(row[column]) for column in ("ess_bulk", "ess_tail")),
        )
        for (label, row), ends in zip(table.iterrows(), intervals, strict=True)
    ]


def _count(value) -> str:
    return number(round(value)) if np.isfinite(value) else number(value)


def fixed(problem: Problem) -> list[tuple[str, str]]:
    """The parameters that are held at a number."""
    if callable(problem.priors):
        return []
    return [(name, number(float(value))) for name, value in problem.priors.items() if not isinstance(value, Prior)]


def derived(tree: xr.DataTree, names: list[str]) -> Table:
    """Mean, standard deviation and 90 % interval of quantities that follow from the parameters."""
    rows = [
        (f"{name}[{label}]" if label else name, *(number(row[c]) for c in ("mean", "sd", "low", "high")))
        for name, table in contents.summaries(tree, names).items()
        for label, row in table.iterrows()
    ]
    return Table(("quantity", "mean", "sd", "5 %", "95 %"), (False, True, True, True, True), rows)


def columns(problem: Problem) -> Table:
    """The data's columns: unit, missing values, mean and range."""
    data, units = problem.data, problem.data.attrs.get("units", {})
    rows = [
        (str(name), str(units.get(name, "")), number(int(data[name].isna().sum())), *_range(data[name]))
        for name in data.columns
    ]
    return Table(("column", "unit", "missing", "mean", "smallest", "largest"), (False, False, True, True, True, True), rows)


def _range(column: pd.Series) -> tuple[str, str, str]:
    if not pd.api.types.is_numeric_dtype(column):
        return ("", "", "")
    return number(column.mean()), number(column.min()), number(column.max())


def checks(report: Report) -> list[dict[str, str]]:
    """Each check with its verdict, the worst first; a remedy is shown for those that did not pass."""
    order = {"fail": 0, "warn": 1, "pass": 2}
    ordered = sorted(report.checks, key=lambda check: order[check.verdict])
    return [
        {
            "name": check.name,
            "verdict": check.verdict,
            "value": number(check.value if isinstance(check.value, int) else float(check.value), 4),
            "remedy": "" if check.verdict == "pass" else check.remedy,
        }
        for check in ordered
    ]
