"""Priors as plain data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpyro.distributions as dist

from walras.calibrate.errors import CalibrationError

type Argument = float | tuple[float, ...]


@dataclass(frozen=True, init=False)
class Prior:
    """A NumPyro distribution by name: `Prior("LogNormal", 0.0, 0.5, unit="USD/lb", why="…")`.

    `args` are the distribution's parameters in its own order; a sequence of numbers gives a vector parameter. Plain
    data: survives JSON, pickling and a process boundary. Raises `CalibrationError` for an unknown family or
    parameters that the family does not allow.
    """

    family: str
    args: tuple[Argument, ...]
    unit: str
    why: str

    def __init__(self, family: str, *args, unit: str = "", why: str = ""):
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "args", tuple(_plain(family, argument) for argument in args))
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "why", why)
        self.distribution()

    def distribution(self) -> dist.Distribution:
        """The NumPyro distribution; a vector prior is one event."""
        kind = getattr(dist, self.family, None)
        if kind is None or not (isinstance(kind, type) and issubclass(kind, dist.Distribution)):
            raise CalibrationError(
                f"prior family {self.family!r} is not a NumPyro distribution: use a name such as 'LogNormal' or 'Normal'"
            )
        try:
            made = kind(*(np.asarray(a, float) for a in self.args), validate_args=True)
        except (ValueError, TypeError) as error:
            raise CalibrationError(
                f"prior {self.family}{self.args} is not valid ({error}): see numpyro.distributions.{self.family}"
            ) from error
        if made.is_discrete:
            raise CalibrationError(
                f"prior family {self.family!r} is discrete, and samplers move continuously: use one such as 'LogNormal'"
            )
        return made.to_event(len(made.batch_shape)) if made.batch_shape else made

    def covers_only(self, lower: float, upper: float) -> bool:
        """Whether the prior has no mass below `lower` or above `upper`, judged by its support at points outside."""
        probes = [lower - gap for gap in (1e-6, 1.0, 1e6)] + [upper + gap for gap in (1e-6, 1.0, 1e6)]
        distribution = self.distribution()
        support = distribution.support or dist.constraints.real
        shape = distribution.event_shape
        return not any(bool(np.all(support(np.full(shape, point)))) for point in probes if math.isfinite(point))

    def to_json(self) -> dict:
        return {"family": self.family, "args": list(self.args), "unit": self.unit, "why": self.why}

    @classmethod
    def from_json(cls, record: Mapping) -> "Prior":
        return cls(record["family"], *record["args"], unit=record.get("unit", ""), why=record.get("why", ""))

    def __str__(self):
        arguments = ", ".join(_short(argument) for argument in self.args)
        return f"{self.family}({arguments})" + (f" {self.unit}" if self.unit else "")


def _plain(family, argument) -> Argument:
    try:
        numbers = tuple(float(a) for a in argument) if hasattr(argument, "__len__") else float(argument)
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"prior {family} has the parameter {argument!r}: give a number or a sequence of numbers"
        ) from error
    if not all(math.isfinite(a) for a in (numbers if isinstance(numbers, tuple) else (numbers,))):
        raise CalibrationError(f"prior {family} has the parameter {argument!r}: give a finite number")
    return numbers


def _short(argument: Argument) -> str:
    if isinstance(argument, tuple):
        return "[" + ", ".join(f"{a:.4g}" for a in argument) + "]"
    return f"{argument:.4g}"


@dataclass(frozen=True)
class Parameter:
    """What a market or an observation says of one of its parameters: a default, and the values that make sense.

    `default` is a `Prior`, or a number for a parameter that is held fixed unless the user gives it a prior.
    """

    default: Prior | float
    lower: float = -math.inf
    upper: float = math.inf
