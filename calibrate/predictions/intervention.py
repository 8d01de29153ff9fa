"""What a scenario changes, as plain data, and the world that follows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from walras.calibrate.errors import CalibrationError
from walras.calibrate.law import Law

_NUMBER = r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)"
_FORMS = {"times": re.compile(_NUMBER + "[x×]"), "percent": re.compile(_NUMBER + " ?%"), "plain": re.compile(_NUMBER)}


@dataclass(frozen=True)
class Change:
    """`value` becomes factor · value + offset. Numbers, or one for each row (NaN where a row stays as it is).

    >>> Change.parsed("supply", "-10%")
    Change(factor=0.9, offset=0.0)
    """

    factor: float | np.ndarray = 1.0
    offset: float | np.ndarray = 0.0

    @classmethod
    def parsed(cls, name: str, text: "str | float | Change") -> "Change":
        """From "2x" (times two), "+10%" or "-10%", "+0.5" or "-0.5" (more or less by that), "0.3" or "=-0.3" (that value).

        Raises `CalibrationError` for anything else, and for negative multiples.
        """
        if isinstance(text, Change):
            return text
        if not isinstance(text, str):
            return cls._value(name, text, text)
        stripped = text.strip()
        if stripped.startswith("="):
            return cls._value(name, text, stripped[1:])
        kind, number = _form(stripped)
        if kind == "plain":
            return cls(1.0, number) if stripped[0] in "+-" else cls(0.0, number)
        if kind == "percent" and stripped[0] not in "+-":
            kind = ""  # neither a share of what it was nor an addition to it
        factor = number if kind == "times" else 1.0 + number / 100.0
        if not kind or factor < 0:
            raise _unknown(name, text)
        return cls(float(np.round(factor, 12)), 0.0)

    @classmethod
    def _value(cls, name, given, value):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise _unknown(name, given) from None
        if isinstance(value, bool) or not np.isfinite(number):
            raise _unknown(name, given)
        return cls(0.0, number)

    @property
    def path(self) -> bool:
        """Whether it has values for rows."""
        return np.ndim(self.offset) > 0

    def __call__(self, value):
        return self.factor * value + self.offset


def _form(text: str) -> tuple[str, float]:
    for kind, pattern in _FORMS.items():
        if found := pattern.fullmatch(text):
            return kind, float(found["number"])
    return "", 0.0


def _unknown(name, text):
    return CalibrationError(
        f"{name} is set to {text!r}: give a multiple such as 2x, a percentage such as -10%, a difference such as +0.5, or a "
        "value such as 0.3 (=-0.3 where it is negative)"
    )


@dataclass(frozen=True, eq=False)
class Intervention:
    """Changes by the name of a parameter or a column, in a table of data. With `surprise`, agents do not expect them."""

    changes: Mapping[str, Change]
    data: pd.DataFrame
    surprise: bool = False

    def parameters(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters, those named in the changes as they become."""
        return {name: self.changes[name](value) if name in self.changes else value for name, value in params.items()}

    def shift(self, columns: tuple[str, ...]) -> np.ndarray:
        """How far the values of columns move, (rows, columns)."""
        moved = [self.changed(column) - self.data[column].to_numpy(float) for column in columns]
        return np.stack(moved, axis=1) if moved else np.zeros((len(self.data), 0))

    def changed(self, column: str) -> np.ndarray:
        """The values (rows,) that a column takes."""
        values = self.data[column].to_numpy(float)
        return self.changes[column](values) if column in self.changes else values


class World(NamedTuple):
    """Parameters by their economic names, the inputs, the equilibrium that follows, and the law of the data, if there is one.

    A scenario asks of the law what `Law.replay` does.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Any]
    equilibrium: Any
    law: Law | Any | None


def described(columns: tuple[str, ...], table) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns (rows,) of a table, and the mean and standard deviation of each over its rows."""
    series = {name: table[:, column] for column, name in enumerate(columns)}
    figures = {}
    for name, values in series.items():
        figures[f"mean {name}"] = jnp.nanmean(values)
        figures[f"standard deviation of {name}"] = jnp.nanstd(values)
    return series, figures
