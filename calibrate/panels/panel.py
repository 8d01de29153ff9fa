"""A panel: many markets of one kind, each with data of its own."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from walras import WalrasError
from walras.calibrate.errors import CalibrationError
from walras.calibrate.observation import Observation
from walras.calibrate.prior import Prior
from walras.calibrate.problem import PRIORS, Identified, Problem

type Name = str | int


@dataclass(frozen=True, eq=False)
class Panel(Identified):
    """Markets of one kind to be fitted one by one: what a `Problem` has, with the rows of many markets.

    `data`: rows indexed by market and time, or with columns of these names; markets may differ in length and in times.
    `market`, `observation`, `priors`: of a single market, the same for all. Priors that are not given take their units from
    each market's own data. Raises `CalibrationError` when there is no column of markets.
    """

    market: str | Callable
    data: pd.DataFrame
    observation: Observation
    priors: Mapping[str, Prior | float] | Callable = field(default_factory=dict)

    def __post_init__(self):
        frame = self.data
        if tuple(frame.index.names) != ("market", "time"):
            flat = frame.reset_index() if frame.index.names[0] else frame
            missing = [name for name in ("market", "time") if name not in flat]
            if missing:
                raise CalibrationError(
                    f"column {missing[0]!r} is missing from the panel: name one of {', '.join(map(str, flat.columns))}"
                )
            frame = flat.set_index(["market", "time"])
            frame.attrs = self.data.attrs
        object.__setattr__(self, "data", frame)

    @cached_property
    def frames(self) -> dict[Name, pd.DataFrame]:
        """The rows of each market as a series, by name and in the order of names."""
        return frames_of(self.data)

    def problem(self, name: Name) -> Problem:
        """One market by itself. Raises `CalibrationError` for an unknown market, and what `Problem` raises."""
        if name not in self.frames:
            raise CalibrationError(f"market {name!r} is not in the panel: it has {_some(self.frames)}")
        return _problem(self, self.frames[name])

    def without_data(self) -> "Panel":
        """What the markets have in common."""
        nothing = self.data.iloc[:0]
        return Panel(self.market, nothing, self.observation, self.priors)


def frames_of(frame: pd.DataFrame) -> dict[Name, pd.DataFrame]:
    """The rows of each market of a panel as a series, in the order of names."""
    attrs = {**frame.attrs, "form": "series"} if "form" in frame.attrs else {}
    found = {}
    for name, rows in frame.groupby(level="market", sort=True):
        plain = name.item() if isinstance(name, np.generic) else name
        found[plain] = rows.droplevel("market")
        found[plain].attrs = attrs
    return found


class Prepared(NamedTuple):
    """A market as numbers: its observations and inputs, the parameters of its priors among them.

    A market that cannot be fitted has a `failure`
    and nothing else.
    """

    name: Name
    failure: str = ""
    kind: str = ""
    observed: np.ndarray = np.empty((0, 0))
    inputs: Mapping = {}
    times: np.ndarray = np.empty(0)

    def times_of(self, rows: int) -> np.ndarray:
        """The times of its rows, and missing ones up to `rows`."""
        return pd.Series(self.times).reindex(range(rows)).to_numpy()

    @property
    def program(self) -> str:
        """What decides which program computes this market: its kind and the shapes of its numbers."""
        return f"{self.kind} {jax.tree.map(np.shape, (self.observed, dict(self.inputs)))}"


def prepare(common: Panel, frames: Iterable[tuple[Name, pd.DataFrame]]) -> list[Prepared]:
    """Markets as numbers, those that are refused with the sentence that says why."""
    return [_prepared(common, name, frame) for name, frame in frames]


def _prepared(common: Panel, name: Name, frame: pd.DataFrame) -> Prepared:
    try:
        problem = _problem(common, frame)
        # A solver that is chosen from the prior is part of the program.
        alone = problem.registered is not None and problem.registered.solver is not None
    except WalrasError as error:
        return Prepared(name, failure=str(error))
    observed, inputs = jax.tree.map(np.asarray, (problem.observed, problem.inputs))
    times = problem.data.index.to_numpy()
    if callable(problem.priors):
        return Prepared(name, "", str(name) if alone else "", observed, inputs, times)
    families = {n: prior.family if isinstance(prior, Prior) else "fixed" for n, prior in problem.priors.items()}
    arguments = {n: _arguments(prior) for n, prior in problem.priors.items()}
    return Prepared(name, "", f"{families} {name if alone else ''}", observed, {**inputs, PRIORS: arguments}, times)


def _problem(common: Panel, frame: pd.DataFrame) -> Problem:
    return Problem(common.market, frame, common.observation, common.priors)


def _arguments(prior):
    if isinstance(prior, Prior):
        return tuple(np.asarray(argument, float) for argument in prior.args)
    return np.asarray(prior, float)


def padded(common: Panel, markets: list[Prepared]) -> list[Prepared]:
    """Markets lengthened to the same number of rows where the observation allows that."""
    long = common.observation.padded([(one.inputs, one.observed) for one in markets])
    return [one._replace(inputs=inputs, observed=observed) for one, (inputs, observed) in zip(markets, long, strict=True)]


def key_of(key: jax.Array, name: Name) -> jax.Array:
    """A market's own random key: its draws do not depend on which other markets there are."""
    for word in np.frombuffer(hashlib.sha256(str(name).encode()).digest()[:8], np.uint32):
        key = jax.random.fold_in(key, int(word))
    return key


def _some(names) -> str:
    shown = ", ".join(map(repr, list(names)[:5]))
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
