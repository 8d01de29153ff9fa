"""Global sensitivity of any vectorised function, by the designs and estimators of SALib.

A function takes a table (points, parameters) and returns its outputs by name, each (points,); NaN where it has no value. The
parameters are given by their inverse distribution functions.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from walras.calibrate.errors import CalibrationError, require_whole

type Outputs = dict[str, np.ndarray]
type Function = Callable[[Float[np.ndarray, "points parameters"]], Outputs]
type Quantiles = Mapping[str, Callable[[np.ndarray], np.ndarray]]

CONFIDENCE = 0.9  # of the bands around indices
MOST_FAILED = 0.05  # the share of points without a value beyond which a design says little
_INNER = [0.05, 0.95]  # quantiles between which Morris's method steps: at 0 and 1 most priors are infinite
_LEVELS = 4
_TAIL = 0.01


def sobol(
    function: Function, quantiles: Quantiles, *, key: jax.Array, samples: int = 512, second: bool = True, logs: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Sobol indices of independent parameters, from `samples` · (2 d + 2) points (d + 2 without `second`).

    `samples`: a power of two. Returns a table by (output, parameter): `first`, the share of the output's variance that the
    parameter explains alone, and `total`, its interactions included, with 90 % bootstrap bands `first_low` … `total_high`; the
    `scale` of the output, "log" or "plain"; and `tail_share`, the part of its variance that 1 % of the points make. With
    `second`, also a table by (output, parameter, other) of the shares that pairs explain beyond their own. With `logs`,
    outputs of one sign enter by their logs: see `scaled`.

    Saltelli et al. (2010); Jansen's estimator of totals. Raises `CalibrationError` without SALib, or when more than 5 % of
    points have no value.
    """
    if samples < 2 or samples & (samples - 1):
        raise CalibrationError(f"samples is {samples}: give a power of two, such as 512, as Sobol's sequence needs")
    salib, space, seed = library(), _space(quantiles), _seed(key)
    points = salib.sobol_sample.sample(space, samples, calc_second_order=second, seed=seed)
    outputs = _blocks(function(_through(quantiles, points)), len(points) // samples, logs)
    rows, pairs = {}, {}
    for name, (values, told) in outputs.items():
        if np.ptp(values) == 0.0:
            continue
        found = salib.sobol.analyze(space, values, calc_second_order=second, conf_level=CONFIDENCE, seed=seed)
        both = {"first": (found["S1"], found["S1_conf"]), "total": (found["ST"], found["ST_conf"])}
        rows[name] = _banded(both, quantiles).assign(**told)
        if second:
            pairs[name] = _pairs(found, list(quantiles))
    table = _joined(rows, ["output", "parameter"])
    return table, _joined(pairs, ["output", "parameter", "other"]) if second else None


def morris(
    function: Function, quantiles: Quantiles, *, key: jax.Array, trajectories: int = 64, logs: bool = False
) -> pd.DataFrame:
    """Elementary effects of independent parameters, from `trajectories` · (d + 1) points.

    Returns a table by (output, parameter), in the output's units, per step across the parameter's 90 % range: `mu`, the mean
    effect; `mu_star`, the mean of its size, with a 90 % bootstrap band `mu_star_low`, `mu_star_high`; `sigma`, the standard
    deviation, which curvature and interactions make. With `logs`, outputs of one sign enter by their logs.

    Morris (1991); Campolongo et al. (2007). Raises `CalibrationError` as `sobol` does.
    """
    require_whole(trajectories=(trajectories, 2))
    salib, space, seed = library(), _space(quantiles, _INNER), _seed(key)
    points = salib.morris_sample.sample(space, trajectories, num_levels=_LEVELS, seed=seed)
    outputs = function(_through(quantiles, points))
    kept = _complete(outputs, len(quantiles) + 1)
    rows = {}
    for name, (values, told) in _blocks(outputs, len(quantiles) + 1, logs).items():
        options = {"conf_level": CONFIDENCE, "num_levels": _LEVELS, "seed": seed}
        found = salib.morris.analyze(space, points[kept], values, **options)
        star = _banded({"mu_star": (found["mu_star"], found["mu_star_conf"])}, quantiles)
        rows[name] = star.assign(mu=np.asarray(found["mu"]), sigma=np.asarray(found["sigma"]), **told)
    return _joined(rows, ["output", "parameter"])


def shapley(
    function: Function,
    quantiles: Quantiles,
    *,
    key: jax.Array,
    correlation: Float[np.ndarray, "parameters parameters"] | None = None,
    trajectories: int = 1000,
    logs: bool = False,
) -> pd.DataFrame:
    """Shapley effects, from `trajectories` · (d + 1) points: shares of the output's variance that add up to one.

    `correlation` is that of the parameters' normal scores, under a Gaussian copula; independent if None. A parameter's share
    is what knowing it adds to the explained variance, averaged over the orders in which parameters may be learnt: what
    dependent parameters explain together is split between them. Returns a table by (output, parameter): `share`, with a 90 %
    band `share_low`, `share_high`. With `logs`, outputs of one sign enter by their logs.

    Goda (2021) for independent parameters. For dependent ones the same trajectories are those of the independent shocks
    of a triangular (Rosenblatt) transformation in which the parameters still to be replaced come first: replacing some then
    draws them given the others, as Song, Nelson and Staum (2016) ask. Raises `CalibrationError` as `sobol` does.
    """
    require_whole(trajectories=(trajectories, 2))
    salib, space, seed = library(), _space(quantiles), _seed(key)
    points = salib.shapley_sample.sample(space, trajectories, seed=seed)
    dependent = points if correlation is None else _dependent(points, np.asarray(correlation, float))
    outputs = function(_through(quantiles, dependent))
    kept = _complete(outputs, len(quantiles) + 1)
    rows = {}
    for name, (values, told) in _blocks(outputs, len(quantiles) + 1, logs).items():
        if np.ptp(values) == 0.0:
            continue
        found = salib.shapley.analyze(space, points[kept], values, conf_level=CONFIDENCE)
        share = {"share": (found["shapley_normalized"], found["shapley_normalized_conf"])}
        rows[name] = _banded(share, quantiles).assign(**told)
    return _joined(rows, ["output", "parameter"])


def scaled(values: np.ndarray, logs: bool = True) -> tuple[np.ndarray, str]:
    """Values as an analysis takes them, and their scale: the "log" of their size where they have one sign, or "plain"."""
    finite = values[np.isfinite(values)]
    if logs and finite.size and (np.all(finite > 0) or np.all(finite < 0)):
        return np.log(np.abs(values)), "log"
    return values, "plain"


def tail_share(values: np.ndarray) -> float:
    """The share of the variance that the farthest 1 % of the values make; 0.09 where they are normal."""
    squares = np.sort((values - np.nanmean(values))[np.isfinite(values)] ** 2)
    total = squares.sum()
    return float(squares[-max(1, int(_TAIL * squares.size)) :].sum() / total) if total > 0 else 0.0


def _dependent(points, correlation):
    """Trajectories of independent uniforms (n · (d + 1), d) as ones of dependent uniforms."""
    width = points.shape[1]
    paths = points.reshape(-1, width + 1, width)
    # What changes last is drawn first, given nothing; what changes first, given all the others.
    changed = (paths[:, 1:] != paths[:, :-1]).argmax(axis=2)
    order = changed[:, ::-1]
    roots = np.linalg.cholesky(correlation[order[:, :, None], order[:, None, :]])
    shocks = ndtri(np.take_along_axis(paths, order[:, None, :], axis=2))
    scores = np.empty_like(shocks)
    np.put_along_axis(scores, np.broadcast_to(order[:, None, :], shocks.shape), shocks @ roots.mT, axis=2)
    return ndtr(scores).reshape(points.shape)


def _through(quantiles: Quantiles, points: np.ndarray) -> np.ndarray:
    return np.column_stack([quantile(points[:, i]) for i, quantile in enumerate(quantiles.values())])


def _complete(outputs: Outputs, size: int) -> np.ndarray:
    """Which points are in blocks of `size` points that all have a value. Raises when too many have none."""
    finite = reduce(np.logical_and, (np.isfinite(values) for values in outputs.values()))
    if np.mean(~finite) > MOST_FAILED:
        worst = min(outputs, key=lambda name: np.isfinite(outputs[name]).sum())
        raise CalibrationError(
            f"output {worst!r} has no value at {100 * np.mean(~finite):.2g} % of the design's points, where the market has no "
            "equilibrium or the output is not finite: narrow the priors (check and identify say where), or leave it out"
        )
    return np.repeat(finite.reshape(-1, size).all(axis=1), size)


def _blocks(outputs: Outputs, size: int, logs: bool) -> dict[str, tuple[np.ndarray, dict]]:
    """The values of complete blocks of the design, scaled, and what a table says of them."""
    kept = _complete(outputs, size)
    if kept.sum() < 2 * size:
        raise CalibrationError(f"{kept.sum() // size} whole blocks of the design have values: give more samples")
    found = {name: scaled(values[kept], logs) for name, values in outputs.items()}
    return {name: (values, {"scale": scale, "tail_share": tail_share(values)}) for name, (values, scale) in found.items()}


def _banded(indices: dict, quantiles: Quantiles) -> pd.DataFrame:
    columns = {}
    for name, (value, width) in indices.items():
        value, width = np.asarray(value, float), np.asarray(width, float)
        columns.update({name: value, f"{name}_low": value - width, f"{name}_high": value + width})
    return pd.DataFrame(columns, index=list(quantiles))


def _pairs(found, names: list[str]) -> pd.DataFrame:
    left, right = np.triu_indices(len(names), k=1)
    index = pd.MultiIndex.from_arrays([[names[i] for i in left], [names[j] for j in right]])
    value, width = found["S2"][left, right], found["S2_conf"][left, right]
    return pd.DataFrame({"second": value, "second_low": value - width, "second_high": value + width}, index=index)


def _joined(tables: dict[str, pd.DataFrame], names: list[str]) -> pd.DataFrame:
    tables = {name: table for name, table in tables.items() if len(table)}
    return pd.concat(tables).rename_axis(names) if tables else nothing(*names)


def nothing(*names: str) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame(index=pd.MultiIndex.from_arrays([[] for _ in names], names=names))


def _space(quantiles: Quantiles, bounds=(0.0, 1.0)) -> dict:
    if not quantiles:
        raise CalibrationError("no parameter is uncertain: give at least one of them a prior")
    return {"num_vars": len(quantiles), "names": list(quantiles), "bounds": [list(bounds)] * len(quantiles)}


def _seed(key: jax.Array) -> int:
    return int(jax.random.randint(key, (), 1, 2**31 - 1))  # SALib takes 0 for none


def library() -> SimpleNamespace:
    """SALib's designs and estimators; it is an extra."""
    try:
        from SALib.analyze import morris, shapley, sobol
        from SALib.sample import morris as morris_sample
        from SALib.sample import shapley as shapley_sample
        from SALib.sample import sobol as sobol_sample
    except ImportError as error:
        raise CalibrationError(
            'global indices need SALib 1.6 or later: pip install "walras[sensitivity]", or ask for method local alone'
        ) from error
    return SimpleNamespace(
        sobol=sobol,
        morris=morris,
        shapley=shapley,
        sobol_sample=sobol_sample,
        morris_sample=morris_sample,
        shapley_sample=shapley_sample,
    )
