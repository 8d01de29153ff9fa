"""Batches of markets as one DataTree."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from walras.calibrate.panels.batches import Batch
from walras.calibrate.panels.judging import DIAGNOSTICS
from walras.calibrate.problem import Problem

type Part = tuple[Problem, Batch, Mapping[str, np.ndarray]]

_LEADING = {
    "posterior": ("market", "chain", "draw"),
    "sample_stats": ("market", "chain", "draw"),
    "one_step_ahead": ("market", "row"),
    "diagnostics": ("market", "diagnostic"),
}


def gathered(parts: Sequence[Part]) -> xr.DataTree:
    """A tree of all batches; markets in the order of their names, without those whose chains could not start."""
    groups = {group: [_dataset(group, *part) for part in parts] for group in _LEADING}
    groups["observed_data"] = [_observed(problem, batch, part["started"]) for problem, batch, part in parts]
    return xr.DataTree.from_dict({group: _joined(datasets) for group, datasets in groups.items()})


def _joined(datasets: list[xr.Dataset]) -> xr.Dataset:
    # Along rows and steps, shorter markets are filled with missing values.
    return xr.concat(datasets, "market", join="outer").sortby("market")


def _dataset(group: str, problem: Problem, batch: Batch, part: Mapping[str, np.ndarray]) -> xr.Dataset:
    leading, inner = _LEADING[group], {**problem.observation.dimensions()}
    variables = {}
    for path, array in part.items():
        if path.startswith(f"{group}/"):
            name = path.removeprefix(f"{group}/")
            rest = array.ndim - len(leading)
            dims = [_row(dim) for dim in inner.get(name, [f"{name}_dim_{axis}" for axis in range(rest)])] if rest else []
            variables[name] = ((*leading, *dims), array)
    found = xr.Dataset(variables, coords={"market": list(batch.names)})
    known = {**problem.observation.coordinates(problem.data), "diagnostic": list(DIAGNOSTICS)}
    coords = {dim: known.get(dim, np.arange(size)) for dim, size in found.sizes.items() if dim != "market"}
    return found.assign_coords(coords).isel(market=part["started"])


def _observed(problem: Problem, batch: Batch, started) -> xr.Dataset:
    tables = np.stack([one.observed for one in batch.markets])
    times = np.stack([one.times_of(tables.shape[1]) for one in batch.markets])
    found = xr.Dataset(
        {
            **{name: (("market", "row"), tables[..., i]) for i, name in enumerate(problem.observation.targets)},
            "time": (("market", "row"), times),
        },
        coords={"market": list(batch.names), "row": np.arange(tables.shape[1])},
    )
    return found.isel(market=started)


def _row(dimension: str) -> str:
    """Markets have times of their own, so that along them rows are counted."""
    return "row" if dimension == "time" else dimension
