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

    >>> print(Prior("LogNormal", 0.0, 0.5, unit="USD/lb"))
    LogNormal(0, 0.5) USD/lb
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
                f"prior family {self.family!r} is not a distribution class of NumPyro: use one such as 'LogNormal'"
            )
        try:
            made = kind(*(np.asarray(a, float) for a in self.args), validate_args=True)
        except (ValueError, TypeError, AssertionError, AttributeError) as error:
            raise CalibrationError(
                f"prior {self.family}{self.args} is not valid ({error}): see numpyro.distributions.{self.family}"
            ) from error
        if made.is_discrete:
            raise CalibrationError(
                f"prior family {self.family!r} is discrete, and samplers move continuously: use one such as 'LogNormal'"
            )
        return made.to_event(len(made.batch_shape)) if made.batch_shape else made

    def like(self, args) -> dist.Distribution:
        """The distribution of this family with other parameters of the same shapes, which may be traced."""
        made = getattr(dist, self.family)(*args)
        return made.to_event(len(made.batch_shape)) if made.batch_shape else made

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

    `default` is a `Prior`, or a number for a parameter that is held fixed unless the user gives it a prior. Values lie
    strictly between `lower` and `upper`, or are one of those two if it is in `attains`.
    """

    default: Prior | float
    lower: float = -math.inf
    upper: float = math.inf
    attains: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.default.distribution().event_shape if isinstance(self.default, Prior) else ()

    @property
    def range(self) -> str:
        """The values that make sense, as an interval: "(0, 1]"."""
        left, right = ("[" if self.lower in self.attains else "("), ("]" if self.upper in self.attains else ")")
        return f"{left}{self.lower:g}, {self.upper:g}{right}"

    def allows(self, value: float) -> bool:
        return self.lower < value < self.upper or value in self.attains

    def covers(self, prior: Prior) -> bool:
        """Whether all values of a prior make sense, but for single points at the ends."""
        support = prior.distribution().support
        while isinstance(support, dist.constraints.independent):
            support = support.base_constraint
        low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
        return bool(np.all(np.asarray(low) >= self.lower) and np.all(np.asarray(high) <= self.upper))
