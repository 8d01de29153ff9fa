"""Which parameters matter for which outputs of a problem."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.errors import CalibrationError, require_whole
from walras.calibrate.finding import Finding
from walras.calibrate.predictions.predictive import require_same
from walras.calibrate.problem import Problem
from walras.calibrate.sensitivities import indices, local, words
from walras.calibrate.sensitivities.evaluation import Forward, Output, Values, standardised
from walras.calibrate.sensitivities.space import Space, space_of

METHODS = ("local", "sobol", "morris", "shapley")
_INDEPENDENT = ("sobol", "morris")
_SCREENED = 32  # points at which a parameter is exchanged to see which outputs it moves
_ROUNDING = 1e-9
_SOLVED = 0.5  # the share of draws with an equilibrium below which those say little


@dataclass(frozen=True)
class Sensitivity(Finding):
    """How outputs respond to parameters, over the `over` ("posterior" or "prior").

    `local`, `paths`: elasticities at draws of outputs that are numbers, and of those along rows. `sobol`, `pairs`, `morris`,
    `shapley`: tables of indices, None where not asked for. `unmoved`: for each output the parameters that it does not depend
    on. `points`: for the draws and each method, how many points were tried and how many had no equilibrium. `copula`: the
    variance of outputs under the Gaussian copula of dependent parameters, relative to that over their draws. `held`: the
    latents that are held fixed.
    """

    over: str
    local: pd.DataFrame | None
    paths: pd.DataFrame | None
    sobol: pd.DataFrame | None
    pairs: pd.DataFrame | None
    morris: pd.DataFrame | None
    shapley: pd.DataFrame | None
    unmoved: dict
    points: dict
    copula: dict
    held: list

    name: ClassVar[str] = "sensitivity"

    @property
    def text(self) -> str:
        return words.text(self)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of numbers that there are, by title, with one row for each output and parameter."""
        told = (
            ("elasticities: median and 90 % band over draws", self.local, ["median", "low", "high", "measure"]),
            ("Shapley effects", self.shapley, ["share", "share_low", "share_high"]),
            ("Sobol indices", self.sobol, ["first", "total", "total_low", "total_high"]),
            ("elementary effects", self.morris, ["mu_star", "mu", "sigma"]),
        )
        return {title: _lines(table[columns]) for title, table, columns in told if table is not None and len(table)}

    def story(self) -> list[tuple]:
        from walras.calibrate.sensitivities.story import story  # matplotlib is loaded only when a page is made

        return story(self)


def sensitivity(
    problem: Problem,
    tree: xr.DataTree | None = None,
    *,
    key: jax.Array,
    methods: Sequence[str] | None = None,
    outputs: Mapping[str, Output] | Sequence[str] = (),
    draws: int = 200,
    samples: int = 512,
    executor: Executor | None = None,
) -> Sensitivity:
    """Elasticities and indices of what follows from a problem's parameters: over the posterior in `tree`, or else the prior.

    `methods`: "local" (elasticities at `draws` draws), "shapley", and over independent priors "sobol" and "morris"; by default
    local and shapley over a posterior, local and sobol over a prior. `outputs`: names of some of the observation's outputs, all
    by default; or functions of (equilibrium, parameters, inputs) by name, which return a number or an array along rows.
    `samples`: of a Sobol design (a power of two), and trajectories of Shapley's; Morris's has a quarter of them.

    Latents, such as a supply path, are held fixed in units of their own law: in elasticities as they are at each draw, in
    indices at their mean over the posterior's draws, or at one draw of the prior. Outputs that are numbers have indices; those
    of one sign enter by their logs. A problem with latents, or outputs, that workers cannot import cannot be spread.

    The same key gives the same results with any executor. Raises `CalibrationError` for unknown outputs or methods, Sobol or
    Morris of dependent parameters, a missing SALib, and when more than 5 % of a design's points have no equilibrium.
    """
    asked = _methods(problem, tree, methods)
    require_whole(samples=(samples, 2))
    study = _study(problem, tree, key, outputs, draws, executor, "local" in asked)
    keys = dict(zip(METHODS, jax.random.split(jax.random.fold_in(key, 1), len(METHODS)), strict=True))
    tables: dict = dict.fromkeys(("local", "paths", "sobol", "pairs", "morris", "shapley"))
    if "local" in asked:
        rows = _labels(problem)
        tables["local"] = local.elasticities(study.values, study.draws, study.space, study.moves)
        tables["paths"] = local.paths(study.values, study.draws, study.space, study.moves, rows)
    if "sobol" in asked:
        run = partial(indices.sobol, key=keys["sobol"], samples=samples, logs=True)
        tables["sobol"], tables["pairs"] = run(*study.design("sobol", study.movers()))
    if "morris" in asked:
        run = partial(indices.morris, key=keys["morris"], trajectories=max(2, samples // 4), logs=True)
        tables["morris"] = run(*study.design("morris", study.movers()))
    if "shapley" in asked:
        tables["shapley"] = study.shapley(keys["shapley"], samples)
    return Sensitivity(
        over="prior" if tree is None else "posterior",
        unmoved=study.unmoved(),
        points=study.points,
        copula=study.copula,
        held=sorted(study.space.noise),
        **tables,
    )


class _Study:
    """The outputs at draws, which parameters move them, and designs over those that do."""

    def __init__(self, space: Space, forward: Forward, draws, noise: dict, values: Values, over_posterior: bool):
        self.space, self.forward, self.draws, self.values = space, forward, draws, values
        self.held = {n: np.mean(v, axis=0, keepdims=True) if over_posterior else v[:1] for n, v in noise.items()}
        self.moves = _moves(forward, draws, self.held)
        self.points = {"draws": [len(draws), int(np.sum(~values.solved))]}
        self.copula: dict[str, float] = {}

    @property
    def numbers(self) -> list[str]:
        """The outputs that are single numbers."""
        return [name for name, values in self.values.outputs.items() if values.ndim == 1]

    def movers(self) -> list[int]:
        """The columns that move an output which is a number."""
        moved = [self.moves[name] for name in self.numbers]
        return [int(i) for i in np.flatnonzero(np.any(moved, axis=0))] if moved else []

    def unmoved(self) -> dict[str, list[str]]:
        names = np.array(self.space.names)
        return {output: list(map(str, names[~moves])) for output, moves in self.moves.items()}

    def design(self, method: str, columns: list[int], outputs: Sequence[str] = ()) -> tuple[Callable, dict]:
        """The function of these columns, the others at their medians, and their quantile functions."""
        return partial(self._evaluate, method, columns, outputs), self.space.only(columns)[0]

    def _evaluate(self, method: str, columns: list[int], outputs: Sequence[str], table: np.ndarray) -> dict[str, np.ndarray]:
        points = np.tile(self.space.typical, (len(table), 1))
        points[:, columns] = table
        found = self.forward(points, self.held)
        tried, failed = self.points.get(method, [0, 0])
        self.points[method] = [tried + len(points), failed + int(np.sum(~found.solved))]
        return {name: found.outputs[name] for name in outputs or self.numbers}

    def shapley(self, key: jax.Array, trajectories: int) -> pd.DataFrame:
        """Effects on each output among the parameters that move it: dependence gives no share to others."""
        groups: dict[tuple[int, ...], list[str]] = {}
        for name in self.numbers:
            groups.setdefault(tuple(int(i) for i in np.flatnonzero(self.moves[name])), []).append(name)
        tables = []
        for columns, names in groups.items():
            if not columns:
                continue
            evaluate, quantiles = self.design("shapley", list(columns), names)
            correlation = self.space.only(list(columns))[1]
            seen: list[dict] = []

            def function(table, evaluate=evaluate, seen=seen):
                seen.append(evaluate(table))
                return seen[-1]

            options = {"key": key, "correlation": correlation, "trajectories": trajectories, "logs": True}
            tables.append(indices.shapley(function, quantiles, **options))
            if correlation is not None:
                # Each trajectory starts at a draw of the copula.
                starts = {name: seen[0][name][:: len(columns) + 1] for name in names}
                self.copula.update({name: _ratio(values, self.values.outputs[name]) for name, values in starts.items()})
        return pd.concat(tables) if tables else indices.nothing("output", "parameter")


def _study(problem, tree, key, outputs, draws, executor, derivatives) -> _Study:
    if not problem.sampled:
        raise CalibrationError("no parameter has a prior: there is nothing whose change could be followed")
    require_whole(draws=(draws, 10))
    space = space_of(problem, tree, key)
    own, kept = (tuple(outputs.items()), ()) if isinstance(outputs, Mapping) else ((), _names(outputs))
    forward = Forward(problem, tuple(space.shapes.items()), own, kept, executor)
    rows = np.linspace(0, len(space.draws) - 1, min(draws, len(space.draws))).astype(int)
    noise = standardised(forward, space.draws[rows], {name: values[rows] for name, values in space.noise.items()})
    values = forward(space.draws[rows], noise, derivatives)
    if not values.outputs:
        raise CalibrationError(
            f"outputs are empty, and {problem.observation.kind} has none of its own: give functions of the equilibrium by name"
        )
    if np.mean(values.solved) < _SOLVED:
        raise CalibrationError(
            f"the market has no equilibrium at {np.sum(~values.solved)} of {len(rows)} draws: narrow the priors (identify says "
            "where it has one)"
        )
    return _Study(space, forward, space.draws[rows], noise, values, tree is not None)


def _methods(problem: Problem, tree: xr.DataTree | None, methods: Sequence[str] | None) -> tuple[str, ...]:
    if tree is not None:
        require_same(problem, tree)
    dependent = "a posterior" if tree is not None else "a joint prior" if callable(problem.priors) else None
    asked = _names(methods or (("local", "shapley") if dependent else ("local", "sobol")))
    for method in asked:
        if method not in METHODS:
            raise CalibrationError(f"method {method!r} is not known: choose from {', '.join(METHODS)}")
        if dependent and method in _INDEPENDENT:
            raise CalibrationError(
                f"method {method!r} takes parameters to be independent, which those of {dependent} are not: use shapley"
            )
    if set(asked) != {"local"}:
        indices.library()  # before anything is computed
    return asked


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _moves(forward: Forward, draws, held) -> dict[str, np.ndarray]:
    """For each output, which columns (columns,) change it at all, where they are exchanged between two draws."""
    base = draws[: min(_SCREENED, len(draws))] if len(draws) <= _SCREENED else draws[:: len(draws) // _SCREENED][:_SCREENED]
    number, width = base.shape
    exchanged = np.repeat(base[None], width + 1, axis=0)
    for column in range(width):
        exchanged[column + 1, :, column] = np.roll(base[:, column], 1)
    found = forward(exchanged.reshape(-1, width), held)
    solved = found.solved.reshape(width + 1, number)
    both = solved[1:] & solved[0]
    moves = {}
    for name, values in found.outputs.items():
        values = values.reshape(width + 1, number, -1)
        changed = ~np.isclose(values[1:], values[0], rtol=_ROUNDING, atol=0.0, equal_nan=True).all(axis=-1)
        # What cannot be seen to leave the output alone is taken to move it.
        moves[name] = (changed & both).any(axis=1) | ~both.any(axis=1)
    return moves


def _ratio(values, draws) -> float:
    """The variance of values relative to that over draws, on the scale of indices."""
    return float(np.nanvar(indices.scaled(values)[0]) / max(np.nanvar(indices.scaled(draws)[0]), np.finfo(float).tiny))


def _labels(problem: Problem) -> list:
    """Names of the data's rows: their times, or numbers."""
    index = problem.data.index
    return list(range(len(index))) if index.nlevels > 1 else list(index)


def _lines(table: pd.DataFrame) -> pd.DataFrame:
    labels = [f"{output}, {parameter}" for output, parameter in table.index]
    return table.set_index(pd.Index(labels, name="output, parameter"))
