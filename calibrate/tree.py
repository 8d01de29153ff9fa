"""Runs as DataTrees: assembling ArviZ's groups, saving and loading."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import arviz as az
import jax
import numpy as np
import xarray as xr

from walras.calibrate.errors import CalibrationError
from walras.calibrate.prior import Prior
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import Draws, Sampler
from walras.calibrate.writing import whole

PACKAGES = ("walras", "jax", "numpyro", "arviz", "blackjax", "optax", "xarray", "pandas")
_AHEAD = ("log_density", "probability", "simulated")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def assemble(problem: Problem, draws: Draws, extra: dict, attrs: dict) -> xr.DataTree:
    """The tree of a fit: `extra` are the pointwise quantities of `predictive.pointwise`, each (chains, draws, …)."""
    target = problem.observation.targets[0]
    groups = {
        "posterior": {**draws.values, **extra["reconstructed"]},
        "sample_stats": {
            **draws.statistics,
            "solver_failed": extra["solver_failed"],
            "log_likelihood": extra["log_likelihood"],  # of all data together, log p(y | θ)
        },
        "log_likelihood": {target: extra["leave_one_out"]},
        "log_prior": extra["log_prior"],
        "prior": extra["prior"],
        "one_step_ahead": {name: extra[name] for name in _AHEAD},
        "leave_one_out": {"probability": extra["left_out_probability"]},
        "observed_data": observed_columns(problem),
        "constant_data": constants(problem),
    }
    return to_tree(problem, groups, attrs)


def observed_columns(problem: Problem) -> dict[str, np.ndarray]:
    """The observed targets that have a value, by name."""
    table = np.asarray(problem.observed)
    columns = zip(problem.observation.targets, table.T, strict=True)
    return {name: column for name, column in columns if not np.isnan(column).all()}


def constants(problem: Problem) -> dict[str, np.ndarray]:
    """The data's remaining columns."""
    return {_variable(n): problem.data[n].to_numpy() for n in problem.data.columns if n not in problem.observation.targets}


def _variable(column) -> str:
    """The name of a column as a variable of a tree, which keeps "/" for its groups."""
    return str(column).replace("/", "∕")


def to_tree(problem: Problem, groups: dict, attrs: dict | None = None) -> xr.DataTree:
    """Groups of arrays as a DataTree with the problem's names along every dimension."""
    rows = "time" if problem.data.index.nlevels == 1 else "row"
    times = problem.data.index if problem.data.index.nlevels == 1 else np.arange(len(problem.data))
    dims = {**problem.observation.dimensions()}
    for name in [*problem.observation.targets, *map(_variable, problem.data.columns), *_AHEAD]:
        dims.setdefault(name, [rows])
    coords = {rows: np.asarray(times), **problem.observation.coordinates(problem.data)}
    # A quantity NAME_by_X has one value for each X.
    for name in {name for variables in groups.values() for name in variables}:
        if "_by_" in name and (dim := name.rpartition("_by_")[2]) in coords:
            dims.setdefault(name, [dim])
    datasets = {}
    for group, variables in groups.items():
        # a log prior is one number a draw, even of a vector parameter
        known = {} if group == "log_prior" else {name: dims[name] for name in variables if name in dims}
        datasets[group] = az.dict_to_dataset(
            variables,
            dims=known,
            coords={name: coords[name] for names in known.values() for name in names if name in coords},
            sample_dims=[] if group.endswith("_data") else ["chain", "draw"],
        )
    tree = xr.DataTree.from_dict(datasets)
    tree.attrs = attrs or {}
    return tree


def identity(problem: Problem, sampler: Sampler, key: jax.Array) -> dict:
    """Which run this is, as plain data: what its draws follow from."""
    found = {
        "data": problem.data_digest,  # first: default priors differ where the data do
        "problem": problem.to_json(),
        "sampler": {"kind": type(sampler).__name__, **vars(sampler)},
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "versions": versions(),
        "digest": problem.digest,  # last: it differs where anything does, such as the source of a market's function
    }
    return json.loads(json.dumps(found, default=dict))


def describe(problem: Problem, sampler: Sampler, draws: Draws, key: jax.Array) -> dict[str, str]:
    """What a reader needs to know of how a tree came about, as attributes that survive NetCDF."""
    told = {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in identity(problem, sampler, key).items()
    }
    return {
        **told,
        "compile_seconds": f"{draws.compile_seconds:.2f}",
        "sample_seconds": f"{draws.sample_seconds:.2f}",
        "notes": json.dumps(problem.observation.notes(problem.data)),
        **{name: json.dumps(value) for name, value in (draws.facts or {}).items()},
    }


def priors(tree: xr.DataTree) -> dict[str, Prior | float]:
    """The priors of a saved run, as data."""
    recorded = json.loads(tree.attrs["problem"])["priors"]
    if isinstance(recorded, str):
        raise CalibrationError(f"priors of this run are the function {recorded}: import it to use them")
    return {name: Prior.from_json(prior) if isinstance(prior, dict) else prior for name, prior in recorded.items()}


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a tree as NetCDF, whole or not at all. Raises `CalibrationError` when the folder cannot be written."""
    path = Path(path)
    # With checksums: what is damaged later is refused, and not taken for draws.
    encoding = {
        node.path: {name: {"fletcher32": True} for name, array in node.data_vars.items() if array.ndim and array.size}
        for node in tree.subtree
    }
    with whole(path) as file:
        tree.to_netcdf(file, engine="h5netcdf", encoding=encoding)
    return path


def load(path: str | Path) -> xr.DataTree:
    """Read a tree that `save` wrote. Raises `CalibrationError` for a missing, truncated or foreign file."""
    path = Path(path)
    if not path.is_file():
        raise CalibrationError(f"{path} does not exist: give the posterior.nc of a run")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CalibrationError(f"{path} cannot be read ({error}): it is truncated or not NetCDF, fit again") from error
    if "problem" not in tree.attrs or "posterior" not in tree.children:
        raise CalibrationError(f"{path} is not a run of walras: it has no posterior, or does not say of which problem")
    return tree
