"""Run directories: a fit on disk, with the specification that made it."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import arviz as az
import jax
import numpy as np
import pandas as pd
import xarray as xr

from walras import data
from walras.calibrate import registry
from walras.calibrate.checks.checking import Report, check
from walras.calibrate.comparisons.comparing import Comparison, compare, require_comparable, rolling_scores
from walras.calibrate.errors import CalibrationError
from walras.calibrate.finding import Finding
from walras.calibrate.identifiability.identification import Identification
from walras.calibrate.panels.panel import Panel
from walras.calibrate.panels.pooled import Markets
from walras.calibrate.predictions.forecasting import Forecast
from walras.calibrate.predictions.predictive import forecast, posterior_predictive, unforecastable
from walras.calibrate.predictions.scenarios import Scenario
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import MAP, NUTS, SMC, SVI, Laplace, Sampler
from walras.calibrate.sensitivities.analysis import Sensitivity
from walras.calibrate.spec import Spec
from walras.calibrate.tree import load, priors, save
from walras.calibrate.writing import write_whole

CREDIBLE = 0.9  # the probability of the intervals in tables


def summary(problem: Problem, tree: xr.DataTree) -> pd.DataFrame:
    """The posterior table: parameters, then quantities derived from them; 90 % equal-tailed intervals."""
    posterior = tree["posterior"]
    rows = {"time", "row", "grid"}
    derived = [n for n in posterior.data_vars if n not in problem.latent and not rows & set(posterior[n].dims)]
    names = [*problem.sampled, *derived]
    return az.summary(tree, var_names=names, ci_kind="eti", ci_prob=CREDIBLE, round_to="none")


def build(spec: Spec) -> tuple[Problem, Sampler]:
    """The problem and the sampler of a specification. Raises where it has a problem for each market: see `build_panel`."""
    if spec.one_by_one:
        raise CalibrationError(
            "panel pooling is 'none', markets fitted one by one, which only walras fit does: choose complete or partial pooling"
        )
    market, frame, observation, priors = _described(spec)
    if spec.panel is not None:
        roles = {role: tuple(getattr(spec.panel, role)) for role in ("by_market", "own", "centred")}
        observation = Markets(observation=observation, **roles)
    return Problem(market, frame, observation, priors), _sampler(dict(spec.sampler))


def build_panel(spec: Spec) -> tuple[Panel, Sampler]:
    """The panel and the sampler of a specification whose markets are fitted one by one."""
    return Panel(*_described(spec)), _sampler(dict(spec.sampler))


def _described(spec: Spec) -> tuple:
    """The market, its data, how it is observed, and priors."""
    frame = _frame(spec)
    market = registry.market(spec.market.name)
    observation = _with(market.observation, spec.observation, "observation")
    given = {name: value if isinstance(value, float | int) else value.prior() for name, value in spec.priors.items()}
    for name in spec.market.fixed:
        if name in given:
            raise CalibrationError(f"{name} is both fixed in [market] and given a prior in [priors]: keep one of them")
    return spec.market.name, frame, observation, {**spec.market.fixed, **given}


_SAMPLERS = {kind.__name__: kind for kind in (NUTS, MAP, Laplace, SVI, SMC)}


def _sampler(options: dict) -> Sampler:
    """The sampler of a [sampler] table, NUTS unless its `kind` says another."""
    kind = options.pop("kind", "NUTS")
    if kind not in _SAMPLERS:
        raise CalibrationError(f"sampler kind is {kind!r}: choose one of {', '.join(_SAMPLERS)}")
    return _with(_SAMPLERS[kind], options, "sampler")


def _with(kind, options, table):
    """An instance of a dataclass with these options; an unknown one is a sentence."""
    known = [field.name for field in fields(kind)]
    for name in options:
        if name not in known:
            raise CalibrationError(f"{table} has the unknown option {name!r}: known are {', '.join(known)}")
    return kind(**options)


def _frame(spec: Spec) -> pd.DataFrame:
    if spec.data.name is not None:
        return data.load(spec.data.name)
    options = {key: value for key, value in (("time_unit", spec.data.time_unit),) if value is not None}
    frame = data.read(spec.data.path, columns=spec.data.columns, form=spec.data.form, units=spec.data.units, **options)
    return data.days(frame, zone=spec.data.zone) if spec.data.days else frame


def claim(path: Path, resume: bool = False) -> Path:
    """A folder for a run: an empty one or, with `resume`, one that a run was begun in.

    Raises when it holds something else already, or cannot be made.
    """
    begun = (path / CHECKPOINT).is_dir() or (path / "posterior.nc").is_file()
    used = path.exists() and (not path.is_dir() or any(entry.name not in _LEFT_BEHIND for entry in path.iterdir()))
    if used and begun and not resume:
        raise CalibrationError(f"run directory {path} holds a run: add --resume to go on with it, or choose another --out")
    if used and not begun:
        raise CalibrationError(f"run directory {path} is already used: choose another --out, or remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / _PROBE).touch()
        (path / _PROBE).unlink()
    except OSError as error:
        raise CalibrationError(f"run directory {path} cannot be written ({error.strerror}): choose another --out") from error
    return path


CHECKPOINT = "checkpoint"  # the folder inside a run directory that keeps the run while it goes on
_PROBE, _FINISHED = ".writable", ".finished"
_LEFT_BEHIND = (_PROBE, _FINISHED)  # by a process that was killed


def complete(path: Path) -> bool:
    """Whether a run directory has everything that `walras fit` writes."""
    return (path / "posterior.nc").is_file() and not (path / CHECKPOINT).exists()


def finish(path: Path):
    """Remove what only a run that goes on needs."""
    shutil.rmtree(path / _FINISHED, ignore_errors=True)
    # Renamed first: a half of it would not be a checkpoint.
    (path / CHECKPOINT).rename(path / _FINISHED)
    shutil.rmtree(path / _FINISHED)
    for left in path.glob("*.tmp"):
        left.unlink()


def write(path: Path, spec: Spec, problem: Problem, tree: xr.DataTree) -> Report:
    """Write spec.json, posterior.nc, summary.csv and check.json of a fit; returns its checks."""
    judged = check(problem, tree)
    record = {
        "spec": json.loads(spec.model_dump_json()),
        "problem": problem.to_json(),
        "digest": problem.digest,
        "versions": json.loads(tree.attrs["versions"]),
        "seed": spec.seed,
    }
    _write_json(path / "spec.json", record)
    save(tree, path / "posterior.nc")
    write_whole(path / "summary.csv", summary(problem, tree).to_csv())
    write_checks(path, judged)
    return judged


def read(path: Path | str) -> tuple[Spec, Problem, xr.DataTree]:
    """The specification, the problem (its data read again) and the tree of a run directory."""
    path = Path(path)
    try:
        record = json.loads((path / "spec.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CalibrationError(f"{path} is not a run directory ({error}): give the --out of walras fit") from error
    if not {"spec", "digest"} <= set(record):
        raise CalibrationError(f"{path} is not a run directory (its spec.json is another's): give the --out of walras fit")
    spec = Spec.checked(record["spec"], path / "spec.json")
    if spec.one_by_one:
        raise CalibrationError(
            f"{path} holds markets that were fitted one by one: summary.csv and checks.csv have what was found, "
            "and for other steps fit a market alone, from a table of its rows"
        )
    tree = load(path / "posterior.nc")
    # The priors are those of the run, even where a later version has other defaults.
    problem = replace(build(spec)[0], priors=priors(tree))
    if problem.digest != record["digest"]:
        raise CalibrationError(f"the data of {path} have changed since it was fitted: fit again, or restore them")
    return spec, problem, tree


def _write_json(path: Path, record: dict):
    write_whole(path, json.dumps(record, indent=2, sort_keys=True, default=_number) + "\n")


def _number(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def key_of(spec: Spec, purpose: int = 0) -> jax.Array:
    """The random key of a specification: 0 for fitting, others for what is simulated afterwards."""
    return jax.random.fold_in(jax.random.key(spec.seed), purpose)


def write_checks(path: Path, judged: Report):
    _write_json(path / "check.json", judged.to_json())


def predict(path: Path, spec: Spec, problem: Problem, tree: xr.DataTree, draws: int) -> pd.DataFrame:
    """Add replicated series to a run's posterior.nc and write predictions.csv: each row one step ahead, and the next.

    The table has the mean and the 5, 25, 75 and 95 % quantiles of the first target; the next period is last, if the
    market can be forecast.
    """
    extended = posterior_predictive(problem, tree, key=key_of(spec, 1), draws=draws)
    table = one_step_table(problem, tree)
    if not unforecastable(problem):
        ahead = forecast(problem, tree, key=key_of(spec, 2))[problem.observation.targets[0]]
        values = ahead.to_numpy().reshape(-1, ahead.sizes["time"]).T
        table = pd.concat([table, pd.DataFrame(_quantiles(values), index=pd.Index(ahead["time"], name=table.index.name))])
    save(extended, path / "posterior.nc")
    write_whole(path / "predictions.csv", table.to_csv())
    return table


def one_step_table(problem: Problem, tree: xr.DataTree) -> pd.DataFrame:
    """Mean and quantiles of each row's one-step-ahead predictive law, by the keys of the data's rows."""
    simulated = tree["one_step_ahead"]["simulated"].to_numpy()
    return pd.DataFrame(_quantiles(simulated.reshape(-1, simulated.shape[-1]).T), index=problem.data.index)


def _quantiles(values: np.ndarray) -> dict[str, np.ndarray]:
    found = np.quantile(values, [0.05, 0.25, 0.75, 0.95], axis=1)
    return {"mean": values.mean(axis=1), "5 %": found[0], "25 %": found[1], "75 %": found[2], "95 %": found[3]}


def rows_of(path: Path, spec: Spec, problem: Problem) -> pd.DataFrame:
    """A CSV or Parquet table of rows with the keys of the problem's data, its columns named as the data's or in standard form.

    It needs no price. Raises `CalibrationError` for a file that cannot be read and columns that are missing.
    """
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
        frame = frame.rename(columns={own: standard for standard, own in (spec.data.columns or {}).items()})
        keys = {str(name): _key(frame[name], problem.data.index.get_level_values(name)) for name in problem.data.index.names}
        values = frame.drop(columns=list(keys)).select_dtypes("number").astype(float)
    except (OSError, ValueError, TypeError) as error:
        raise CalibrationError(f"{path} cannot be read ({error}): give a CSV or Parquet file like the data's") from error
    except KeyError as error:
        raise CalibrationError(f"{path} has no column {error}: give the keys of rows as the data have them") from error
    several = len(keys) > 1
    values.index = pd.MultiIndex.from_frame(pd.DataFrame(keys)) if several else pd.Index(keys["time"], name="time")
    return values


def _key(column: pd.Series, like: pd.Index) -> pd.Series:
    """Keys of rows, of the type that the data's have."""
    if isinstance(like, pd.DatetimeIndex):
        times = pd.to_datetime(column)
        return times.dt.tz_convert("UTC") if times.dt.tz is not None and like.tz is not None else times
    return pd.to_numeric(column).astype(float) if pd.api.types.is_numeric_dtype(like) else column.astype(str)


def changes_of(sets: list[str], supply: Path | None, spec: Spec, problem: Problem) -> dict[str, str | pd.Series]:
    """The changes of `scenario` from NAME=VALUE texts and a file with another path of supply."""
    changes: dict[str, str | pd.Series] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise CalibrationError(f"--set {text!r} has no NAME=VALUE: give one such as supply=-10%")
        if name in changes:
            raise CalibrationError(f"--set names {name} twice: give one change of it")
        changes[name] = value
    if supply is not None:
        column = getattr(problem.observation, "supply_column", None)
        if column is None:
            raise CalibrationError(f"--supply is given, but {type(problem.observation).__name__} has no supply: use --set")
        rows = rows_of(supply, spec, problem)
        if column not in rows or column in changes:
            what = "is set twice" if column in changes else f"is not a column of {supply}"
            raise CalibrationError(f"{column} {what}: give its path in the file, and nothing else of it")
        changes[column] = rows[column]
    return changes


def compare_runs(paths: list[Path], **options) -> Comparison:
    """Compare runs by name of their directories, and write compare.json in each. `options` are those of `rolling_scores`."""
    runs = {path.resolve().name: read(path) for path in paths}
    if len(runs) < len(paths):
        raise CalibrationError("two of the runs have the same directory name: rename one")
    fits = {name: (problem, tree) for name, (_, problem, tree) in runs.items()}
    require_comparable({name: problem for name, (problem, _) in fits.items()})
    samplers = {name: build(spec)[1] for name, (spec, _, _) in runs.items()}
    rolling = {
        name: rolling_scores(problem, samplers[name], key=key_of(spec), **options) for name, (spec, problem, _) in runs.items()
    }
    found = compare(fits, key=jax.random.key(0), sampler=samplers, rolling=rolling, **options)
    for path in paths:
        found.save(path)
    return found


def findings(path: Path) -> list[Finding]:
    """What the steps around a fit have left in its run directory, in the order of the steps."""
    kinds = (Identification, Comparison, Sensitivity, Forecast, Scenario)
    return [kind.load(path, file.stem) for kind in kinds for file in sorted(path.glob(f"{kind.name}*.json"))]
