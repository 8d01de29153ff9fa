"""The Fulton fish market, analysed: three specifications, compared out of sample, with a placebo and the literature."""

import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import jax
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from walras.calibrate import run
from walras.calibrate.checks.checking import Report
from walras.calibrate.comparisons.rolling import Scores
from walras.calibrate.identifiability.identification import Identification
from walras.calibrate.price_formation.placebo import Placebo, placebo
from walras.calibrate.problem import Problem
from walras.calibrate.progress import note
from walras.calibrate.session import prepare
from walras.calibrate.spec import Spec

_WEEKDAYS = ["mon", "tues", "wed", "thurs"]
_WEATHER = ["wave2", "wave3"]
_MAIN = "stationary, correlated shocks"
_BENCHMARK = "foreseen supply (benchmark)"

_COMMON = {"seed": 7, "data": {"name": "fulton_fish"}}
_STATIONARY = {"errors": "ar1", "demand": _WEEKDAYS, "instruments": [*_WEATHER, *_WEEKDAYS]}

# Longest first, so that two workers end together.
SPECIFICATIONS: dict[str, dict] = {
    _MAIN: {
        **_COMMON,
        "market": {"name": "stationary"},
        "observation": {**_STATIONARY, "correlated": True},
        "sampler": {"target_accept": 0.98},
    },
    "stationary": {
        **_COMMON,
        "market": {"name": "stationary"},
        "observation": _STATIONARY,
        "sampler": {"target_accept": 0.9},
    },
    _BENCHMARK: {
        **_COMMON,
        "market": {"name": "price_formation"},
        "observation": {"errors": "ar1", "demand": _WEEKDAYS},
        "sampler": {"target_accept": 0.99},
    },
}


class Fitted(NamedTuple):
    """One specification, fitted: what a worker sends back, with its run directory."""

    folder: Path
    rolling: Scores
    told: list[Identification]  # of the main specification


class Analysis(NamedTuple):
    """The specifications with their fits, and where they are."""

    problem: Problem
    tree: xr.DataTree
    checks: Report
    rolling: Scores
    told: list[Identification]


def run_demo(out: Path, console: Console) -> tuple[Path, dict[str, Analysis]]:
    """Fit the specifications in two worker processes, and write `out`/report.html. Returns its path and the fits."""
    run.claim(out)
    prepare()
    console.print(f"Fitting the Fulton fish market under {len(SPECIFICATIONS)} specifications, on two processes.")
    fitted, unrelated = _fit_all(out, console)
    analyses = {name: _read(result) for name, result in fitted.items()}
    return _write(out, analyses, unrelated), analyses


def _fit_all(out: Path, console: Console) -> tuple[dict[str, Fitted], Placebo]:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
    context = get_context("spawn")
    with context.Manager() as manager, bars, ProcessPoolExecutor(2, mp_context=context, initializer=prepare) as pool:
        queue = manager.Queue()
        tasks = {name: bars.add_task(name, total=None, note="compiling") for name in SPECIFICATIONS}
        watcher = threading.Thread(target=_watch, args=(queue, bars, tasks), daemon=True)
        watcher.start()
        jobs = {
            name: pool.submit(_fit_one, name, record, out / f"fit-{number}", queue)
            for number, (name, record) in enumerate(SPECIFICATIONS.items(), 1)
        }
        unrelated = pool.submit(_placebo, SPECIFICATIONS[_BENCHMARK])
        results = {name: job.result() for name, job in jobs.items()}
        queue.put(None)
        watcher.join()
        return results, unrelated.result()


def _watch(queue: Queue, bars: Progress, tasks: dict):
    for name, done, total, said in iter(queue.get, None):
        bars.update(tasks[name], completed=done, total=total, note=said)


def _fit_one(name: str, record: dict, folder: Path, queue: Queue) -> Fitted:
    """Fit one specification in a worker: write its run directory, and score it at rolling origins."""
    from walras.calibrate.comparisons.comparing import rolling_scores
    from walras.calibrate.fitting import fit
    from walras.calibrate.identifiability.identification import identify
    from walras.calibrate.predictions.predictive import posterior_predictive

    spec = Spec.model_validate(record)
    problem, sampler = run.build(spec)

    def tell(progress):
        queue.put((name, progress.done, progress.total, note(progress)))

    tree = fit(problem, sampler, key=run.key_of(spec), progress=tell)
    tree = posterior_predictive(problem, tree, key=run.key_of(spec, 1), draws=100)
    run.write(run.claim(folder), spec, problem, tree)
    rolling = rolling_scores(problem, sampler, key=run.key_of(spec, 2))
    told = [identify(problem, key=run.key_of(spec, 3), tree=tree)] if name == _MAIN else []
    return Fitted(folder, rolling, told)


def _placebo(record: dict) -> Placebo:
    problem, _ = run.build(Spec.model_validate(record))
    return placebo(problem, key=jax.random.key(1))


def _read(result: Fitted) -> Analysis:
    from walras.calibrate.checks.checking import check

    _, problem, tree = run.read(result.folder)
    return Analysis(problem, tree, check(problem, tree), result.rolling, result.told)


def _write(out: Path, analyses: dict[str, Analysis], unrelated: Placebo) -> Path:
    from walras.calibrate.comparisons.comparing import compare
    from walras.calibrate.demo_story import story
    from walras.calibrate.reporting import report

    fits = {name: (analysis.problem, analysis.tree) for name, analysis in analyses.items()}
    rolling = {name: analysis.rolling for name, analysis in analyses.items()}
    comparison = compare(fits, key=jax.random.key(0), rolling=rolling)
    main = analyses[_MAIN]
    told = story(analyses, comparison, unrelated, _MAIN, _BENCHMARK)
    return report(main.problem, main.tree, out / "report.html", comparison=comparison, story=told, findings=main.told)
