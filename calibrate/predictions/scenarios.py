"""What would have been: each draw's own shocks, in a market that was changed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from walras.calibrate.errors import CalibrationError
from walras.calibrate.finding import Finding
from walras.calibrate.panels.pooled import Markets
from walras.calibrate.predictions.intervention import Change, Intervention
from walras.calibrate.predictions.predictive import flat, latent_values, over_draws, require_same, thinned
from walras.calibrate.problem import Problem, solved
from walras.calibrate.reporting.numbers import listed, number

_BAND = (0.05, 0.95)
_USUAL = (0.01, 0.99)  # quantiles of the prior beyond which a parameter is extrapolated
_SHOWN, _TOLD = 12, 3  # figures in a report's table, and in words
_ROUNDING = 1e-9  # of a value: what is left of a difference of two worlds that are alike, replayed from one set of shocks


@dataclass(frozen=True)
class Scenario(Finding):
    """A counterfactual of a fit: means and 90 % bands over draws of its posterior, as it was and as it would have been.

    `figures` (a row for each number) and `series` (rows by name of the series and row of the data) have `baseline`,
    `counterfactual` and `difference`, each with its `5 %` and `95 %`; figures also `relative`, the difference as a share of the
    baseline. The difference is of the same draw under the same shocks. `changes`: what was set, by name; `remarks`: what a
    reader must know; `unsolved`: draws (of `draws`) left out, whose market has no equilibrium in one of the worlds.
    """

    label: str
    changes: dict
    figures: pd.DataFrame
    series: pd.DataFrame
    units: dict
    draws: int
    unsolved: int
    remarks: list

    name: ClassVar[str] = "scenario"

    @property
    def file(self):
        return f"{self.name}-{self.label}" if self.label else self.name

    @property
    def text(self):
        moved = self.figures[self.figures["difference"] != 0.0].head(_TOLD)
        given = f"With {listed([f'{name} set to {change}' for name, change in self.changes.items()])}"
        if not len(moved):
            return " ".join([f"{given}, nothing changes.", *self.remarks])
        said = [self._difference(name, row) for name, row in moved.iterrows()]
        return " ".join([f"{given}, the {said[0]}.", *(f"The {part}." for part in said[1:]), *self.remarks])

    def _difference(self, name, row) -> str:
        unit = self.units.get(name.split()[-1], "")
        low, high = (_signed(row[f"difference {end}"]) for end in ("5 %", "95 %"))
        share = f" or {_signed(100 * row['relative'])} %" if np.isfinite(row["relative"]) else ""
        return (
            f"{name} would be {number(row['counterfactual'])} {unit} instead of {number(row['baseline'])}, a difference of "
            f"{_signed(row['difference'])}{share} (90 %: {low} to {high})"
        ).replace("  ", " ")

    def story(self):
        from walras.calibrate.reporting.scenario_plots import plot_scenario  # matplotlib is loaded only for pictures

        kept = ["baseline", "counterfactual", "difference", "difference 5 %", "difference 95 %", "relative"]
        shown = self.figures[self.figures["difference"] != 0.0].head(_SHOWN)[kept]
        return [(f"What if: {self.label or 'a scenario'}", [self.text, shown], plot_scenario(self))]


def scenario(
    problem: Problem,
    tree: xr.DataTree,
    changes: Mapping[str, Any],
    *,
    key: jax.Array,
    surprise: bool = False,
    draws: int | None = None,
    label: str | None = None,
) -> Scenario:
    """The data of a fit as they would have been under `changes`, beside as they were.

    `changes`: by the name of an economic parameter (of the market's `Structure`) or of a column (supply, a covariate, a
    reserve, the number of bidders), a change as `Change.parsed` takes it; for columns also a pandas Series of values by row.
    Each draw of the posterior keeps its parameters and the shocks that it finds behind the data; only what `changes` names
    differs, and whatever follows from it in equilibrium. With `surprise` agents do not expect a change of supply, and learn it
    as it comes. `draws`: of each chain, 250 or all by default. `label`: names the file, by default after the changes.

    Raises `CalibrationError` for unknown names, changes that make no sense, and where no draw has an equilibrium.
    """
    require_same(problem, tree)
    if isinstance(problem.observation, Markets):
        raise CalibrationError("the run has many markets in one posterior, and a scenario is of one: fit that market alone")
    if not changes:
        raise CalibrationError("changes is empty: set a parameter or a column, such as supply=-10%")
    parsed = {name: _change(problem, name, change) for name, change in changes.items()}
    intervention = Intervention(parsed, problem.data, surprise)
    kept = min(250, tree["posterior"].sizes["draw"]) if draws is None else draws
    values = flat(thinned(latent_values(problem, tree), kept))
    _require_known(problem, values, parsed)
    count = len(next(iter(values.values())))
    order: list[str] = []
    found = over_draws(_paired(problem, intervention, order), values, jax.random.split(key, count))
    _require_allowed(problem, found["changed"])
    used = ~found["failed"] & np.all([np.isfinite(f) for f in found["figures"].values()], axis=(0, 2))
    if not used.any():
        raise CalibrationError(f"no draw has an equilibrium with {_in_words(changes)}: make a smaller change")
    return Scenario(
        label=_slug(changes) if label is None else _safe(label),
        changes={name: _spoken(change) for name, change in changes.items()},
        figures=_figures({name: found["figures"][name][used] for name in order if name in found["figures"]}),
        series=_series(problem, {name: found["series"][name][used] for name in order if name in found["series"]}),
        units=dict(problem.data.attrs.get("units", {})),
        draws=count,
        unsolved=int((~used).sum()),
        remarks=_remarks(problem, tree, intervention, found["changed"], int((~used).sum()), count),
    )


def _paired(problem: Problem, intervention: Intervention, order: list[str]):
    """A function of one draw: what is reported of both worlds, pairs along the first dimension.

    `order` takes the names in their order, which JAX does not keep.
    """
    observation, observed = problem.observation, problem.observed
    nothing = Intervention({}, problem.data)

    def one(values, key):
        params, inputs = _structure(problem, values)
        worlds = [observation.counterfactual(params, inputs, what, problem.solve) for what in (nothing, intervention)]
        laws = [world.law for world in worlds]
        shocks = None if laws[0] is None else laws[0].shocks(key, observed)
        tables = [None if law is None else law.replay(shocks) for law in laws]
        told = [observation.outcomes(world, table) for world, table in zip(worlds, tables, strict=True)]
        order[:] = [name for part in told[0] for name in part]
        series, figures = jax.tree.map(lambda *pair: jnp.stack(jnp.broadcast_arrays(*pair)), *told)
        changed = {n: jnp.stack([jnp.asarray(w.params[n], float) for w in worlds]) for n in intervention.changes if n in params}
        failed = ~(solved(worlds[0].equilibrium) & solved(worlds[1].equilibrium))
        return {"series": series, "figures": figures, "changed": changed, "failed": failed}

    return one


def _structure(problem: Problem, values):
    """Economic parameters and complete inputs of a draw."""
    program = handlers.substitute(lambda: problem.completed(problem.inputs), data=values)
    with handlers.block(), handlers.seed(rng_seed=0):
        completed: tuple = program()
    return problem.structure(*completed), completed[1]


def _change(problem: Problem, name: str, change) -> Change:
    if not isinstance(change, pd.Series):
        return Change.parsed(name, change)
    if name not in problem.observation.levers:
        raise CalibrationError(f"{name} is set to a path: only columns have one, {_listed(problem.observation.levers)}")
    unknown = change.index.difference(problem.data.index)
    if len(unknown) or not len(change) or change.index.has_duplicates:
        where = f"has {unknown[0]!s}, which is no row of the data" if len(unknown) else "is empty or has a row twice"
        raise CalibrationError(f"the path of {name} {where}: give rows of the data, each at most once")
    if not np.isfinite(change.to_numpy(float)).all():
        raise CalibrationError(f"the path of {name} has missing values: give numbers, and leave out rows that stay as they are")
    values = change.reindex(problem.data.index).to_numpy(float)
    return Change(np.where(np.isnan(values), 1.0, 0.0), np.nan_to_num(values))


def _require_known(problem: Problem, values, changes):
    first = {name: array[0] for name, array in values.items()}
    names = jax.eval_shape(lambda first: _structure(problem, first)[0], first)
    levers = problem.observation.levers
    for name in changes:
        if name not in names and name not in levers:
            columns = f", and the columns {_listed(levers)}" if levers else ""
            raise CalibrationError(f"{name} cannot be set: this market has the parameters {_listed(sorted(names))}{columns}")


def _require_allowed(problem: Problem, changed):
    """That parameters with a declared range stay in it."""
    declared = dict(problem.observation.parameters(problem.data))
    if problem.registered:
        declared |= problem.registered.parameters(problem.observation, problem.data)
    for name in set(changed) & set(declared):
        parameter = declared[name]
        wrong = [value for value in np.ravel(changed[name][:, 1]) if not parameter.allows(value)]
        if wrong:
            raise CalibrationError(f"{name} would become {wrong[0]:.4g}: make it stay in {parameter.range}")


def _bands(pairs: np.ndarray, relative: bool) -> dict[str, np.ndarray]:
    """Columns of a table from (draws, 2, …)."""
    gap, size = pairs[:, 1] - pairs[:, 0], np.abs(pairs).max(axis=1)
    difference = np.where(np.abs(gap) > _ROUNDING * size, gap, np.where(np.isnan(gap), np.nan, 0.0))
    worlds = {"baseline": pairs[:, 0], "counterfactual": pairs[:, 1], "difference": difference}
    if relative:
        signs = np.sign(pairs[:, 0])
        same = np.all(signs == signs[:1], axis=0) & (signs[0] != 0)
        worlds["relative"] = np.where(same, worlds["difference"] / np.where(same, np.abs(pairs[:, 0]), 1.0), np.nan)
    columns = {}
    for name, draws in worlds.items():
        columns[name] = draws.mean(axis=0)
        columns[f"{name} 5 %"], columns[f"{name} 95 %"] = np.quantile(draws, _BAND, axis=0)
    return columns


def _figures(pairs: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = {name: _bands(values, relative=True) for name, values in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("figure")


def _series(problem: Problem, pairs: dict[str, np.ndarray]) -> pd.DataFrame:
    tables = {name: pd.DataFrame(_bands(values, relative=False), index=problem.data.index) for name, values in pairs.items()}
    if not tables:
        return pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["series", "row"]))
    return pd.concat(tables, names=["series"])


def _remarks(problem, tree, intervention, changed, unsolved, count) -> list[str]:
    found = [f"{unsolved} of {count} draws have no equilibrium and are left out."] if unsolved else []
    if intervention.surprise:
        found.append("Agents do not expect the change of supply, and learn each row's as it comes.")
    elif any(change.path for change in intervention.changes.values()):
        found.append("Agents whose supply is random learn the path row by row; those of one finite game foresee it.")
    for name in intervention.changes:
        if name in changed:
            found += _beyond_prior(name, tree, changed[name])
        elif name in problem.data:
            found += _beyond_data(name, problem.data[name].to_numpy(float), intervention)
    return found


def _beyond_prior(name, tree, changed) -> list[str]:
    prior = tree.children.get("prior")
    if prior is None or name not in prior:
        return []
    low, high = np.nanquantile(prior[name].to_numpy(), _USUAL)
    median = float(np.median(changed[:, 1]))
    if low <= median <= high:
        return []
    return [
        f"This extrapolates: {name} of {number(median)} is outside the prior's 98 % range, {number(low)} to {number(high)}."
    ]


def _beyond_data(name, before, intervention) -> list[str]:
    after = intervention.changed(name)
    outside = float(np.mean((after < np.nanmin(before)) | (after > np.nanmax(before))))
    if outside == 0.0:
        return []
    span = f"{number(np.nanmin(before))} to {number(np.nanmax(before))}"
    return [f"This extrapolates: {100 * outside:.0f} % of the rows' {name} are outside what the data have, {span}."]


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _spoken(change) -> str:
    if isinstance(change, pd.Series):
        return "a path of its own"
    return change if isinstance(change, str) else repr(change)


def _listed(names) -> str:
    return ", ".join(dict.fromkeys(map(str, names)))


def _in_words(changes) -> str:
    return listed([f"{name}={_spoken(change)}" for name, change in changes.items()])


def _slug(changes: Mapping) -> str:
    return _safe("_".join(f"{name}={'path' if isinstance(c, pd.Series) else c}" for name, c in changes.items()))


def _safe(label: str) -> str:
    """A label as the end of a file's name."""
    return re.sub(r"[^\w.=+%-]+", "-", label)[:80]
