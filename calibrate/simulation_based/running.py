"""Simulation-based calibration of a problem."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.errors import CalibrationError, require_whole
from walras.calibrate.executing import each
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler, Target
from walras.calibrate.simulation_based.finding import SBC, judge
from walras.calibrate.simulation_based.ranking import LOG_LIKELIHOOD, Batch, functionals, rank_batch
from walras.calibrate.simulation_based.truths import Truths, simulate
from walras.calibrate.tree import identity
from walras.progress import Bar, shown

# One chain, that forgets its start and then has some 200 independent draws.
SHORT = NUTS(chains=1, warmup=300, draws=500)
_TOGETHER, _IN_TURN = 50, 4  # replications in a batch, where their densities are evaluated side by side, and where not


class Done(NamedTuple):
    """How many replications are `done` of a `total`."""

    done: int
    total: int


def sbc(
    problem: Problem,
    sampler: Sampler | None = None,
    *,
    key: jax.Array,
    replications: int = 1000,
    draws: int = 79,
    level: float = 0.01,
    batch: int | None = None,
    executor: Executor | None = None,
    progress: bool | Callable[[Done], None] = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> SBC:
    """Test a sampler on data simulated from the problem itself: do its posteriors hold the truth as often as they say?

    Each replication draws parameters from the prior and a table of observations from their law, which lacks what the data
    lack; `sampler` (one chain of NUTS unless said) draws from its posterior; and the rank of the true value of each quantity
    among `draws` posterior draws, evenly spaced, is noted. If the sampler is right, ranks are uniform (Talts et al. 2018).
    Quantities are the elements of parameters, what is derived from them, mean and spread of longer vectors, and the log
    likelihood (Modrák et al. 2023). They are tested jointly: a sampler that is right is rejected with probability `level` at
    most.

    Replications are run in batches of `batch` (50 side by side; 4 in turn, for a market that is solved by iteration), which
    go to the workers of `executor`: ranks do not depend on their number. `checkpoint`: a folder that keeps batches that are
    done; with `resume` it goes on from them. `progress`: True for a bar, or a function of `Done`.

    Raises `CalibrationError` when the prior cannot be simulated, for options out of range, and as `fit` does.
    """
    _check(replications, draws, level, batch)
    sampler = SHORT if sampler is None else sampler
    truth_key, fit_key = jax.random.split(key)
    truths = simulate(problem, truth_key, replications)
    size = min(batch or _usual_size(problem), replications)
    options = {"replications": replications, "draws": draws, "batch": size}
    held = checkpoint and Checkpoints(checkpoint, {**options, **identity(problem, sampler, key)}, resume)
    with shown(progress, bar) as report:
        found = list(_ranked(problem, sampler, draws, list(_batches(truths, fit_key, size)), executor, held or None, report))
    joined = {name: np.concatenate([one[name] for one in found])[:replications] for name in found[0]}
    names = [*functionals(problem, truths.values, 1), LOG_LIKELIHOOD]
    return judge(names, joined, unsolved=truths.unsolved, draws=draws, level=level)


def _ranked(problem, sampler, draws, batches, executor, held: Checkpoints | None, report) -> Iterator[dict[str, np.ndarray]]:
    """What is found of each batch: read where it was kept, else computed, and kept as it comes."""
    restored = held and held.read(())
    found = restored.arrays if restored else []
    yield from found
    size, total = len(batches[0].tables), len(batches) * len(batches[0].tables)
    if report is not None:
        report(Done(len(found) * size, total))
    fresh = each(partial(rank_batch, problem, sampler, draws), batches[len(found) :], executor)
    for number, ranks in enumerate(fresh, len(found)):
        if held is not None:
            held.write(number, (), ranks)
        if report is not None:
            report(Done((number + 1) * size, total))
        yield ranks


def _batches(truths: Truths, key, size: int) -> Iterator[Batch]:
    """Batches of one size: the last is filled up with replications of the first, which are left out again."""
    count = len(truths.tables)
    whole = -(-count // size) * size
    keys = np.asarray(jax.random.key_data(jax.random.split(key, whole)))
    for start in range(0, whole, size):
        which = np.arange(start, start + size) % count
        values = {name: array[which] for name, array in truths.values.items()}
        yield Batch(keys[start : start + size], values, truths.tables[which])


def _usual_size(problem: Problem) -> int:
    target = Target(problem)
    z = target.first_points(jax.random.split(jax.random.key(0), 1))[0]
    return _TOGETHER if target.mapping(z, target.data) is jax.vmap else _IN_TURN


def bar(console: Console | None = None) -> Bar:
    """A progress bar of replications."""
    return Bar("replications", lambda done: "", console)


def _check(replications, draws, level, batch):
    require_whole(replications=(replications, 10), draws=(draws, 9), batch=(1 if batch is None else batch, 1))
    if not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise CalibrationError(f"level is {level!r}: give a number between 0 and 1")
