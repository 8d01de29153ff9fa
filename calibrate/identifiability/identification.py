"""What the data can tell of the parameters: asked before sampling, and answered again by a fit."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import scipy.stats
import xarray as xr

from walras.calibrate.errors import CalibrationError, require_whole
from walras.calibrate.finding import Finding
from walras.calibrate.identifiability.directions import Coordinate, Spectrum, in_words, involved
from walras.calibrate.identifiability.information import information_roots, prior_points, started, transform_of, unconstrained
from walras.calibrate.predictions.predictive import require_same
from walras.calibrate.prior import Prior
from walras.calibrate.problem import Problem
from walras.calibrate.reporting.numbers import listed, percent, tick
from walras.model import Status

_LEAST_POINTS, _LEAST_TABLES = 16, 32
_TOLD = 2  # weak directions that the text tells; the table has all
_APART_LEVEL = 0.01  # chance that failing points of the prior are said to lie apart in some parameter when they do not


@dataclass(frozen=True)
class Identification(Finding):
    """What data like these can tell of the parameters, in coordinates in which they are unbounded (logs of positive ones).

    `contraction`: for each parameter 1 − posterior variance / prior variance, `expected` on average over draws of the prior,
    its `5 %` and `95 %` quantiles over them, and `achieved` by a fit (NaN without one). `directions`: the `kind` of each,
    "null" (the law of the data does not change along it) or "weak" (the data are expected to add less than the prior knows);
    whether it `bends` (is another at other values of the parameters); the share of the prior variance that is expected to be
    `left`; and in words, what it `moves`. `loadings` (directions, parameters) are in standard deviations of the prior. The
    market `solves` at this share of `points` of the prior; `failures` says where and why not. `draws` of the prior, with
    `tables` simulated for each, are behind the rest.
    """

    contraction: pd.DataFrame
    directions: pd.DataFrame
    loadings: pd.DataFrame
    solves: float
    failures: str
    points: int
    draws: int
    tables: int

    name: ClassVar[str] = "identify"

    @property
    def identified(self) -> bool:
        """Whether the data tell all parameters apart, however weakly."""
        return not self.of("null")

    def of(self, kind: str) -> list[str]:
        """The labels of the null or weak directions."""
        return [str(label) for label in self.directions.index[self.directions["kind"] == kind]]

    @property
    def text(self) -> str:
        solves = f"The market solves at {_share(self.solves)} of {self.points} points of the prior."
        return " ".join(filter(None, [solves, self.failures, self.sentence, self._weak_sentence, self._contraction_sentence]))

    @property
    def sentence(self) -> str:
        """Which parameters the data can and cannot tell apart."""
        names = list(self.contraction.index)
        if self.identified:
            hardly = " in principle" if self.of("weak") else ""
            return (
                f"The data can tell {'all parameters apart' if len(names) > 1 else 'the parameter'}{hardly}: {listed(names)}."
            )
        null = self.of("null")
        told = [name for name in names if not self.loadings.loc[null, name].any()]
        begin = f"The data can tell {listed(told)}, but not " if told else "The data cannot tell "
        return begin + "; nor ".join(self._untold(label) for label in null) + "."

    def _untold(self, label: str) -> str:
        moves, loading = self.directions.at[label, "moves"], self.loadings.loc[label]
        names = [str(name) for name in loading.index[loading != 0]]
        if len(names) == 1:
            return f"{names[0]}, which changes nothing that is observed"
        if bool(self.directions.at[label, "bends"]):
            curve = "there is a curve along which nothing observed changes"
            return f"{listed(names)} apart: {curve} (near the prior's middle, {moves})"
        return f"{listed(names)} apart: {moves} changes nothing that is observed"

    @property
    def _weak_sentence(self) -> str:
        rows = self.directions.loc[self.of("weak")]
        if rows.empty:
            return ""
        said = [f"{row['moves']} ({percent(row['left'])} of the prior variance is left)" for _, row in rows[:_TOLD].iterrows()]
        more = f" (and along {len(rows) - _TOLD} more)" if len(rows) > _TOLD else ""
        return f"They are expected to say less than the prior does of {'; of '.join(said)}{more}."

    @property
    def _contraction_sentence(self) -> str:
        expected, achieved = self.contraction["expected"], self.contraction["achieved"]
        said = (
            f"Of the prior variance they are expected to take away {percent(expected.max())} at best ({expected.idxmax()}) and "
            f"{percent(expected.min())} at worst ({expected.idxmin()})."
        )
        if achieved.isna().all():
            return said
        furthest = str((achieved - expected).abs().idxmax())
        return said + (
            f" The fit took away {percent(achieved.max())} at best ({achieved.idxmax()}) and {percent(achieved.min())} at "
            f"worst ({achieved.idxmin()}); it is furthest from what was expected for {furthest} ({percent(achieved[furthest])} "
            f"in place of {percent(expected[furthest])})."
        )

    def story(self):
        from walras.calibrate.identifiability.pictures import story  # matplotlib is loaded only when a page is made

        return story(self)


def identify(
    problem: Problem,
    *,
    key: jax.Array,
    tree: xr.DataTree | None = None,
    points: int = 256,
    draws: int = 32,
    tables: int = 256,
    executor=None,
) -> Identification:
    """Ask, before sampling, what data like the problem's can tell of its parameters; with a fit's `tree`, what they told.

    The market is solved at `points` of the prior (scrambled Sobol points; random ones if priors are a callable). At the first
    `draws` of them that it solves, the Fisher information of the law of the whole table is estimated from the scores of
    `tables` simulated tables, with the entries missing that the data lack: directions without information are told exactly,
    all other figures to within a tenth or so. They hold before the data are seen, and for a posterior that is nearly normal.
    Anything sampled beside the parameters is taken out as `walras.calibrate.identifiability.information` says. The rank of the
    Jacobian of expected observables, the usual test, is part of it: a direction that changes no law changes no mean.

    `executor` spreads the work (anything with `map`, such as a `ProcessPoolExecutor`); it changes no result.

    Raises `CalibrationError` when no parameter has a prior, the market solves nowhere, or the tree is another problem's.
    """
    _check(problem, points, draws, tables, tree)
    point_key, start_key, table_key = jax.random.split(key, 3)
    values = prior_points(problem, point_key, points)
    located, slopes = unconstrained(problem, values)
    coordinates, codes = started(problem, values, start_key, executor)
    solves = codes == Status.solved._value
    if not solves.any():
        raise CalibrationError(f"market is solved at none of {points} points of the prior ({_why(codes)}): give other priors")
    some, roots = _informative(problem, coordinates, np.flatnonzero(solves)[:draws], table_key, tables, executor)
    covariance = _covariance(problem, located)
    spectrum = Spectrum.of(roots, covariance)
    from_middle = np.linalg.solve(spectrum.spread, (located[some] - np.median(located, axis=0)).T)
    middle = int(np.argmin((from_middle**2).sum(axis=0)))
    described = _described(problem, np.sqrt(np.diag(covariance)), slopes[some[middle]])
    directions, loadings = _tables(spectrum.directions(middle), described)
    contraction = _contraction(spectrum.contraction, described)
    if tree is not None:
        contraction["achieved"] = 1.0 - _posterior_variance(problem, tree) / np.diag(covariance)
    failures = "" if solves.all() else _where(located, solves, values, described, codes)
    return Identification(contraction, directions, loadings, float(solves.mean()), failures, points, len(some), tables)


def _informative(problem, coordinates, some, key, tables, executor):
    """Those of `some` points at which scores are finite, and the roots of the information there."""
    roots = information_roots(problem, coordinates[some], key, tables, executor)
    finite = np.isfinite(roots).all(axis=(1, 2))
    if not finite.any():
        raise CalibrationError(
            f"scores of simulated data are not finite at any of {some.size} draws of the prior: check the law, or narrow the "
            "priors"
        )
    return some[finite], roots[finite]


def _covariance(problem, located):
    """The prior's; parameters with priors of their own are independent, and a sample of them is only nearly so."""
    finite = np.isfinite(located).all(axis=1)  # a draw may be rounded to the end of its support
    found = np.atleast_2d(np.cov(located[finite].T))
    return found if callable(problem.priors) else np.diag(np.diag(found))


def _contraction(expected, described) -> pd.DataFrame:
    low, high = np.quantile(expected, [0.05, 0.95], axis=0)
    index = pd.Index([coordinate.label for coordinate in described], name="parameter")
    return pd.DataFrame({"expected": expected.mean(axis=0), "5 %": low, "95 %": high, "achieved": np.nan}, index=index)


def _check(problem, points, draws, tables, tree):
    if not problem.sampled:
        raise CalibrationError("priors fix every parameter: give at least one of them a Prior")
    require_whole(points=(points, _LEAST_POINTS), draws=(draws, 1), tables=(tables, _LEAST_TABLES))
    if tree is not None:
        require_same(problem, tree)


def _posterior_variance(problem, tree):
    draws = {name: tree["posterior"][name].to_numpy() for name in problem.sampled}
    located, _ = unconstrained(problem, {name: array.reshape(-1, *array.shape[2:]) for name, array in draws.items()})
    return located.var(axis=0)


def _described(problem, deviations, slopes) -> list[Coordinate]:
    """The coordinates in the order of `unconstrained`."""
    sites = problem.sites(lambda: problem.parameters(problem.inputs))
    dimensions, known = problem.observation.dimensions(), problem.observation.coordinates(problem.data)
    found = []
    for name in problem.sampled:
        transform = transform_of(sites[name]["fn"])
        shape = jax.eval_shape(transform.inv, sites[name]["value"]).shape
        log = isinstance(transform, dist.transforms.ExpTransform)
        given = {} if callable(problem.priors) else problem.priors
        unit = given[name].unit if isinstance(given.get(name), Prior) else ""
        labels = [known.get(dimension) for dimension in dimensions.get(name, [])]
        found += [(label, log, unit) for label in _labels(name, shape, labels)]
    return [
        Coordinate(label, log, float(slope), unit, float(deviation))
        for (label, log, unit), slope, deviation in zip(found, slopes, deviations, strict=True)
    ]


def _labels(name: str, shape: tuple[int, ...], known: list) -> list[str]:
    """The name of a number, or of each element: by the labels of its dimensions where they fit, else by its place."""
    sides = [
        own if own is not None and len(own) == size else range(size)
        for own, size in zip([*known, *[None] * len(shape)], shape, strict=False)
    ]
    return [name + (f"[{', '.join(map(str, place))}]" if place else "") for place in product(*sides)]


def _tables(directions, described) -> tuple[pd.DataFrame, pd.DataFrame]:
    deviations, rows, loadings, counts = np.array([c.deviation for c in described]), [], [], {}
    for direction in directions:
        counts[direction.kind] = counts.get(direction.kind, 0) + 1
        rows.append((f"{direction.kind} {counts[direction.kind]}", direction, in_words(direction, described)))
        parts = direction.parts / deviations
        if direction.kind == "null":
            parts = np.where(np.isin(np.arange(parts.size), involved(direction, described)), parts, 0.0)
        loadings.append(parts / np.linalg.norm(parts) * np.sign(parts[np.argmax(np.abs(parts))]))
    index = pd.Index([label for label, _, _ in rows], name="direction", dtype=object)
    table = pd.DataFrame(
        {
            "kind": [direction.kind for _, direction, _ in rows],
            "bends": [direction.bends for _, direction, _ in rows],
            "left": np.array([direction.left for _, direction, _ in rows], float),
            "moves": [moves for _, _, moves in rows],
        },
        index=index,
    )
    names = [c.label for c in described]
    return table, pd.DataFrame(np.reshape(loadings, (len(rows), len(names))), index=index, columns=names)


def _where(located, solves, values, described, codes) -> str:
    """Where in the prior the market is not solved, and why."""
    tests = [scipy.stats.ks_2samp(column[solves], column[~solves]) for column in located.T]
    which = int(np.argmax([test.statistic for test in tests]))
    if tests[which].pvalue > _APART_LEVEL / len(tests):
        return f"Where it does not, the parameters look like elsewhere ({_why(codes)})."
    flat = np.concatenate([array.reshape(len(array), -1) for array in values.values()], axis=1)
    label, unit = described[which].label, described[which].unit
    if flat.shape != located.shape:
        return f"Where it does not, {label} lies apart ({_why(codes)})."
    fails, rest = np.median(flat[~solves, which]), np.median(flat[solves, which])
    side = "small" if fails < rest else "large"
    told = f"{tick(fails)} {unit}".rstrip()
    return f"Where it does not, {label} is {side} (its median there is {told}, elsewhere {tick(rest)}): {_why(codes)}."


def _why(codes) -> str:
    """The text of the status that failing solves have most often."""
    failed = codes[codes != Status.solved._value]
    most = np.bincount(failed).argmax()
    return str(Status[eqx.tree_at(lambda status: status._value, Status.not_finite, np.asarray(most))])


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"
