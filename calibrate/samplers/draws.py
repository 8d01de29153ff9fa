"""What samplers take in common, tell while they run, and return."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from walras.calibrate import errors
from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import Problem


class Progress(NamedTuple):
    """Where a run is: `done` of `total` iterations, and how many draws diverged after warm-up.

    The first report, with `done` = 0, comes after compilation and has an estimate of the `seconds` that sampling takes.
    """

    done: int
    total: int
    divergences: int = 0
    seconds: float = float("nan")


class Draws(NamedTuple):
    """What a sampler returns: `values` of every site and `statistics`, each (chains, draws, …), and seconds spent.

    Statistics have ArviZ's names: `lp`, and what else the sampler knows of each draw. `facts`: what it knows of the run, as
    plain data by name.
    """

    values: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    compile_seconds: float
    sample_seconds: float
    facts: Mapping[str, Any] | None = None


class Sampler(ABC):
    """How a problem's posterior is drawn from. Subclasses are frozen dataclasses of plain options."""

    @abstractmethod
    def run(
        self,
        problem: Problem,
        key: jax.Array,
        progress: Callable[[Progress], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Draws:
        """Draw from the problem's posterior, going on from `checkpoints` where they hold something."""

    def run_each(self, problem: Problem, keys: jax.Array, tables: np.ndarray) -> Draws:
        """Draw given each of many tables (replications, rows, targets) in place of the problem's observations.

        `keys` (replications,). Returns arrays (replications, chains, draws, …), not finite where the posterior had no point to
        start from. One fit after another, unless a sampler knows better.
        """
        fits = [self.run(problem.observing(table), key) for key, table in zip(keys, tables, strict=True)]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *((one.values, one.statistics) for one in fits))
        return Draws(*stacked, sum(one.compile_seconds for one in fits), sum(one.sample_seconds for one in fits))


def in_chunks(advance: Callable, state, finished: Callable, checkpoints: Checkpoints | None, report: Callable):
    """`state, part = advance(state)` until `finished(state)`: the last state, and the parts (arrays by name) of all chunks.

    `report(state, parts)` after each chunk. Goes on from `checkpoints`, which are told of each chunk.
    """
    restored = checkpoints and checkpoints.read(state)
    state, parts = (restored.state, restored.arrays) if restored else (state, [])
    while not finished(state):
        state, part = advance(state)
        parts.append({name: np.asarray(array) for name, array in part.items()})
        if checkpoints is not None:
            checkpoints.write(len(parts) - 1, state, parts[-1])
        report(state, parts)
    return state, parts


def require_choice(name: str, value: object, choices: tuple[str, ...]):
    """Raise unless an option is one of the choices."""
    if value not in choices:
        raise CalibrationError(f"sampler {name} is {value!r}: choose one of {', '.join(choices)}")


def require_true_or_false(**options: object):
    """Raise unless each option is a truth value."""
    for name, value in options.items():
        if not isinstance(value, bool):
            raise CalibrationError(f"sampler {name} is {value!r}: choose true or false")


def require_between(low: float, high: float, **options: object):
    """Raise unless each option is a number strictly between two others."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
            raise CalibrationError(f"sampler {name} is {value!r}: give a number between {low:g} and {high:g}")


def require_whole(**options: tuple[object, int]):
    """`errors.require_whole` of options of a sampler."""
    errors.require_whole(**{f"sampler {name}": option for name, option in options.items()})
