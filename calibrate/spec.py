"""SPEC.toml: a calibration as plain text.

seed = 1
[data]            # a registered set, or your own file
path = "prices.csv"
columns = {time = "day", price = "p", supply = "q"}
[market]
name = "stationary"
fixed = {discount = 0.0002}
[observation]
supply = "known"
errors = "ar1"
[priors]
depreciation = {family = "LogNormal", args = [-1.0, 0.3], why = "keeps for three days"}
[sampler]
draws = 1000
[panel]           # many markets: data of form "panel"
pooling = "partial"
by_market = ["price_level"]
"""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from walras.calibrate.errors import CalibrationError
from walras.calibrate.prior import Prior


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(_Table):
    """Where the data come from: `name` of a registered set, or `path` of a CSV or Parquet file with its `columns`.

    With `days` an intraday series becomes a panel of whole trading days, by the clock of `zone` if its times have one.
    """

    name: str | None = None
    path: str | None = None
    columns: dict[str, str] | None = None
    form: Literal["series", "panel", "bids"] = "series"
    units: dict[str, str] | None = None
    time_unit: str | None = None
    days: bool = False
    zone: str | None = None

    @model_validator(mode="after")
    def _one_source(self):
        if (self.name is None) == (self.path is None):
            raise ValueError("give either the name of a registered data set or the path of a file")
        return self


class MarketTable(_Table):
    """A registered market, or an import path `module:attribute`, and the parameters held fixed."""

    name: str
    fixed: dict[str, float] = {}


class PriorTable(_Table):
    family: str
    args: list[float | list[float]]
    unit: str = ""
    why: str = ""

    def prior(self) -> Prior:
        return Prior(self.family, *self.args, unit=self.unit, why=self.why)


class PanelTable(_Table):
    """How the markets of a panel are fitted.

    `pooling` "none": each by itself, `batch` at a time. "complete": all parameters are shared. "partial": those in
    `by_market` are drawn around a population (sampled as they are where `centred`), those in `own` are each market's, and
    the rest are shared.
    """

    pooling: Literal["none", "complete", "partial"] = "none"
    by_market: list[str] = []
    own: list[str] = []
    centred: list[str] = []
    batch: StrictInt = 50

    @model_validator(mode="after")
    def _roles(self):
        roles = bool(self.by_market or self.own)
        if roles != (self.pooling == "partial"):
            raise ValueError("name parameters in by_market or own with pooling = 'partial', and only then")
        return self


class Spec(_Table):
    """A whole specification; unknown keys are errors."""

    seed: int = 0
    data: DataTable
    market: MarketTable
    observation: dict[str, StrictBool | StrictStr | StrictInt | list[str]] = {}
    priors: dict[str, float | PriorTable] = {}
    sampler: dict[str, int | float | bool | str | dict[str, float]] = {}
    panel: PanelTable | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether markets of a panel are fitted each by itself."""
        return self.panel is not None and self.panel.pooling == "none"

    @classmethod
    def checked(cls, record: dict, path: Path) -> "Spec":
        """A specification from plain data that was read from `path`. Raises `CalibrationError` for what is not valid."""
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            if first["type"] == "missing":
                raise CalibrationError(f"specification {path}: {where} is missing: add it") from error
            if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
                known = ", ".join(cls.model_fields)
                raise CalibrationError(f"specification {path}: {where} is unknown: choose from {known}") from error
            why = f"it is a table of its own, [{where}]" if first["type"] == "model_type" else first["msg"]
            raise CalibrationError(f"specification {path}: {where} is {first['input']!r} ({why}): mend it") from error

    @classmethod
    def from_toml(cls, path: str | Path) -> "Spec":
        """Read a specification. A relative data path is taken from the folder of the file."""
        path = Path(path)
        try:
            record = tomllib.loads(path.read_text())
        except OSError as error:
            raise CalibrationError(f"specification {path} cannot be read ({error.strerror}): give a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CalibrationError(f"specification {path} is not TOML ({error}): mend that line") from error
        spec = cls.checked(record, path)
        if spec.data.path is None or Path(spec.data.path).is_absolute():
            return spec
        resolved = str((path.parent / spec.data.path).resolve())
        return spec.model_copy(update={"data": spec.data.model_copy(update={"path": resolved})})
