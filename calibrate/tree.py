"""Runs as DataTrees: assembling ArviZ's groups, saving and loading."""

import json
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import arviz as az
import numpy as np
import xarray as xr

from walras.calibrate.errors import CalibrationError
from walras.calibrate.prior import Prior
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import Draws

PACKAGES = ("walras", "jax", "numpyro", "arviz", "xarray", "pandas")
_AHEAD = ("log_density", "probability", "simulated")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def assemble(problem: Problem, draws: Draws, extra: dict, attrs: dict) -> xr.DataTree:
    """The tree of a fit: `extra` are the pointwise quantities of `predictive.pointwise`, each (chains, draws, …)."""
    target = problem.observation.targets[0]
    statistics = {
        "lp": -draws.statistics["potential_energy"],
        "energy": draws.statistics["energy"],
        "n_steps": draws.statistics["num_steps"],
        "tree_depth": np.ceil(np.log2(draws.statistics["num_steps"] + 1)).astype(int),
        "acceptance_rate": draws.statistics["accept_prob"],
        "diverging": draws.statistics["diverging"],
        "step_size": draws.statistics["step_size"],
        "solver_failed": extra["solver_failed"],
        "log_likelihood": extra["log_likelihood"],  # of all data together, log p(y | θ)
    }
    groups = {
        "posterior": {**draws.values, **extra["reconstructed"]},
        "sample_stats": statistics,
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


def describe(problem: Problem, sampler, draws: Draws, key_data) -> dict[str, str]:
    """What a reader needs to know of how a tree came about, as attributes that survive NetCDF."""
    return {
        "problem": json.dumps(problem.to_json(), sort_keys=True),
        "digest": problem.digest,
        "sampler": json.dumps({"kind": type(sampler).__name__, **vars(sampler)}, default=dict, sort_keys=True),
        "max_tree_depth": sampler.max_tree_depth,
        "key": json.dumps(np.asarray(key_data).tolist()),
        "versions": json.dumps(versions()),
        "compile_seconds": f"{draws.compile_seconds:.2f}",
        "sample_seconds": f"{draws.sample_seconds:.2f}",
        "notes": json.dumps(problem.observation.notes(problem.data)),
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
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise CalibrationError(f"{path.parent} cannot be written ({error.strerror}): choose another folder") from error
    try:
        tree.to_netcdf(temporary, engine="h5netcdf")
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise CalibrationError(f"{path} cannot be written ({error.strerror or error}): choose another path") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
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
