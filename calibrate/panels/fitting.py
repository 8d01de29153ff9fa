"""Fitting every market of a panel by itself."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from rich.console import Console

from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.errors import CalibrationError
from walras.calibrate.executing import each
from walras.calibrate.panels.batches import Batch, run_batch
from walras.calibrate.panels.gathering import gathered
from walras.calibrate.panels.judging import diagnosed
from walras.calibrate.panels.panel import Name, Panel, Prepared, key_of, padded, prepare
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import NUTS, Sampler
from walras.calibrate.tree import identity
from walras.progress import Bar, shown

_NOT_STARTED = (
    "its posterior density is zero or not finite where chains start: check that the priors allow the data, or give init "
    "values by name"
)


class MarketsDone(NamedTuple):
    """Where a run is: `done` of `total` markets, and how many could not be fitted."""

    done: int
    total: int
    failed: int


def fit_each(
    panel: Panel,
    sampler: Sampler | None = None,
    *,
    key: jax.Array,
    executor: Executor | None = None,
    batch: int = 50,
    progress: bool | Callable[[MarketsDone], None] = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> xr.DataTree:
    """Draw from the posterior of every market by itself: no market says anything of another.

    Markets of equal shape are fitted `batch` at a time by one program. Batches go to the workers of `executor`; the draws are
    the same to the bit whatever their number, and a market's random key follows from `key` and its name alone.

    Returns a DataTree whose variables have a dimension `market`: `posterior` and `sample_stats` (market, chain, draw, …),
    `diagnostics` (R̂ and effective sizes), `observed_data` and `one_step_ahead` (market, row). The latter has, over all
    draws, the log of the mean density of each observed value given those before it, and the probability of a smaller one.
    Short markets end with missing rows. `failures` says which markets could not be fitted, and why; the groups lack them.

    `progress`: True for a bar, or a function of `MarketsDone`. `checkpoint`: a folder that keeps batches while the run goes on;
    with `resume` a run that was killed goes on after its last batch.

    Raises `CalibrationError` when no market can be fitted, and for checkpoints as `fit` does.
    """
    sampler = NUTS() if sampler is None else sampler
    if not isinstance(sampler, NUTS):
        raise CalibrationError(f"sampler is {type(sampler).__name__}: markets side by side are sampled by NUTS")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise CalibrationError(f"batch is {batch!r}: give a whole number of markets of at least 1")
    attrs = {**identity(panel, sampler, key), "batch": batch}
    held = None if checkpoint is None else Checkpoints(checkpoint, attrs, resume)
    markets, failed = _prepared(panel, executor, batch)
    pieces = list(_pieces(panel, markets, key, batch))
    with shown(progress, markets_bar) as report:
        parts = []
        for part in _results(pieces, sampler, executor, held):
            parts.append(part)
            names = [name for piece in pieces[: len(parts)] for name in piece.batch.names]
            unstarted = sum(int((~part["started"]).sum()) for part in parts)
            if report is not None:
                report(MarketsDone(len(names) + len(failed), len(panel.frames), len(failed) + unstarted))
    for piece, part in zip(pieces, parts, strict=True):
        failed |= {n: _NOT_STARTED for n, started in zip(piece.batch.names, part["started"], strict=True) if not started}
    if len(failed) == len(panel.frames):
        name, why = next(iter(failed.items()))
        raise CalibrationError(f"none of the {len(failed)} markets can be fitted; market {name!r}: {why}")
    tree = gathered([(piece.template, piece.batch, part) for piece, part in zip(pieces, parts, strict=True)])
    told = {name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in attrs.items()}
    tree.attrs = {**told, "failed": json.dumps([[name, why] for name, why in sorted(failed.items(), key=lambda f: str(f[0]))])}
    return tree


def failures(tree: xr.DataTree) -> dict[Name, str]:
    """Why each market that could not be fitted could not, by name."""
    return dict(map(tuple, json.loads(tree.attrs["failed"])))


class Piece(NamedTuple):
    """A batch, and a problem of its kind and shapes for which its program is made."""

    template: Problem
    batch: Batch


def _prepared(panel: Panel, executor, size: int) -> tuple[list[Prepared], dict[Name, str]]:
    """The markets as numbers, and why each of the rest was refused."""
    frames = list(panel.frames.items())
    groups = [frames[start : start + size] for start in range(0, len(frames), size)]
    found = [one for group in each(partial(prepare, panel.without_data()), groups, executor) for one in group]
    return [one for one in found if not one.failure], {one.name: one.failure for one in found if one.failure}


def _pieces(panel: Panel, markets: list[Prepared], key, size: int) -> Iterator[Piece]:
    """Batches, each of markets that one program computes."""
    programs: dict[str, list[Prepared]] = {}
    for one in padded(panel, markets) if markets else []:
        programs.setdefault(one.program, []).append(one)
    for alike in programs.values():
        template = panel.problem(alike[0].name)
        fixed = min(size, len(alike))
        for start in range(0, len(alike), fixed):
            several = tuple(alike[start : start + fixed])
            keys = np.stack([np.asarray(jax.random.key_data(key_of(key, one.name))) for one in several])
            yield Piece(template, Batch(several, keys, fixed))


def _results(pieces: list[Piece], sampler, executor, held: Checkpoints | None) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of every batch in order: those that are on disk, and then those that are computed."""
    restored = held and held.read(())
    done = restored.arrays if restored else []
    yield from done
    for number, part in enumerate(each(partial(_fit_piece, sampler), pieces[len(done) :], executor), len(done)):
        if held is not None:
            held.write(number, (), part)
        yield part


def _fit_piece(sampler: NUTS, piece: Piece) -> dict[str, np.ndarray]:
    """The arrays of a batch by "group/name", each with its markets along the first dimension."""
    fitted = run_batch(piece.template, sampler, piece.batch)
    parameters = {name: np.nan_to_num(fitted.values[name]) for name in piece.template.sampled}
    groups = {
        "posterior": fitted.values,
        "sample_stats": fitted.statistics,
        "one_step_ahead": fitted.scores,
        "diagnostics": diagnosed(parameters),
    }
    return {
        "started": fitted.started,
        **{f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()},
    }


def markets_bar(console: Console | None = None) -> Bar:
    """A bar for `MarketsDone`."""
    return Bar("fitting markets", lambda report: f"{report.failed} failed", console)
