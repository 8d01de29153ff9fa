"""A market whose posterior is known: prices scatter normally, with a known noise, around a level with a normal prior."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
from numpyro import distributions as dist
from scipy import stats

from walras.calibrate import IndependentRows, Observation, Prior, Problem
from walras.model import Status


@dataclass(frozen=True, kw_only=True)
class Levels(Observation):
    """A column of prices around one level."""

    noise: float = 0.5
    targets: ClassVar[tuple[str, ...]] = ("price",)

    def observed(self, frame):
        return frame[["price"]].to_numpy()

    def inputs(self, frame):
        return {"rows": np.zeros(len(frame))}

    def law(self, equilibrium, params, inputs):
        return IndependentRows(dist.Normal(equilibrium.level + inputs["rows"], self.noise))


def one_level(params, inputs):
    return SimpleNamespace(level=params["level"], status=Status.solved)


def problem_of(prices, centre=0.0, scale=1.0, noise=0.5) -> Problem:
    frame = pd.DataFrame({"price": prices}, index=pd.RangeIndex(len(prices), name="time"))
    return Problem(one_level, frame, Levels(noise=noise), {"level": Prior("Normal", centre, scale)})


def posterior(prices, centre=0.0, scale=1.0, noise=0.5) -> tuple[float, float]:
    """Mean and standard deviation of the level."""
    precision = scale**-2 + len(prices) * noise**-2
    return (centre * scale**-2 + np.sum(prices) * noise**-2) / precision, precision**-0.5


def predictive(prices, **known):
    """The law of another price."""
    mean, sd = posterior(prices, **known)
    return stats.norm(mean, np.hypot(sd, known.get("noise", 0.5)))
