"""What the steps around a fit find: kept on disk beside it, and told in its report."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from walras.calibrate.errors import CalibrationError
from walras.calibrate.writing import write_whole


@dataclass(frozen=True)
class Finding(ABC):
    """What a step found of a problem or a fit. Subclasses are frozen dataclasses of tables, arrays, text and numbers.

    A run directory keeps it as `<file>.json`, and the run's report tells its `story`.
    """

    name: ClassVar[str]

    @property
    def file(self) -> str:
        """The file's name without its ending: `name`, and what tells several of a kind apart."""
        return self.name

    @property
    @abstractmethod
    def text(self) -> str:
        """What was found, in a few sentences."""

    @abstractmethod
    def story(self) -> list[tuple]:
        """Sections of a report: each `(heading, body)` or `(heading, body, figure)`, as `report` takes them."""

    def __str__(self):
        return self.text

    def save(self, folder: str | Path) -> Path:
        """Write `<file>.json` in a folder, whole or not at all."""
        record = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        path = Path(folder) / f"{self.file}.json"
        write_whole(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path, file: str | None = None) -> Self:
        """Read what `save` wrote, as `file` if it is not `name`. Raises `CalibrationError` for a missing or foreign file."""
        path = Path(folder) / f"{file or cls.name}.json"
        try:
            record = json.loads(path.read_text())
            return cls(**{field.name: _restored(record[field.name]) for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{path} cannot be read ({error}): run the step again") from error


def _plain(value) -> Any:
    """A value as JSON has them; tables and arrays are marked by what they are, and what is not finite is text."""
    if isinstance(value, pd.DataFrame):
        split = {"columns": list(value.columns), "index": list(value.index), "names": list(value.index.names)}
        return {"table": {**_plain(split), "values": [_plain(value[name].to_numpy()) for name in value.columns]}}
    if isinstance(value, np.ndarray):
        return {"array": _plain(value.tolist()), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, pd.Timestamp):
        return {"time": value.isoformat()}
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return {"number": str(value)}
    return value


def _restored(value) -> Any:
    if isinstance(value, list):
        return [_restored(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"table": table}:
            rows = [tuple(row) if isinstance(row, list) else row for row in _restored(table["index"])]
            several = len(table["names"]) > 1
            index = pd.MultiIndex.from_tuples(rows, names=table["names"]) if several else pd.Index(rows, name=table["names"][0])
            columns = [_restored(column) for column in table["values"]]
            return pd.DataFrame(dict(enumerate(columns)), index=index).set_axis(_restored(table["columns"]), axis=1)
        case {"array": values, "dtype": dtype}:
            return np.array(_restored(values), dtype=dtype)
        case {"time": text}:
            return pd.Timestamp(text)
        case {"number": text}:
            return float(text)
    return {name: _restored(entry) for name, entry in value.items()}
