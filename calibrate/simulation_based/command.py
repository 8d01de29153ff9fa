"""What `walras sbc` does."""

from pathlib import Path

from rich.console import Console

from walras.calibrate import run
from walras.calibrate.distributing import scheduler
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import Problem
from walras.calibrate.reporting import report_findings
from walras.calibrate.simulation_based.finding import SBC
from walras.calibrate.simulation_based.running import bar, sbc
from walras.calibrate.spec import Spec

_PURPOSE = 7  # of the random key
_REPORT = "report.html"


def run_sbc(
    spec: Path,
    out: Path,
    console: Console,
    *,
    replications: int,
    rows: int | None,
    address: str | None,
    workers: int,
    resume: bool,
) -> tuple[SBC, Path]:
    """Calibrate a specification's sampler; writes sbc.json and report.html, whose path is returned with the finding."""
    specification = Spec.from_toml(spec)
    problem, sampler = run.build(specification)
    problem = _shortened(problem, rows)
    if resume and (out / f"{SBC.name}.json").is_file() and not (out / run.CHECKPOINT).exists():
        return SBC.load(out), out / _REPORT
    folder = run.claim(out, resume)
    with scheduler(address, workers) as executor, bar(console) as progress:
        found = sbc(
            problem,
            sampler if specification.sampler else None,
            key=run.key_of(specification, _PURPOSE),
            replications=replications,
            executor=executor,
            progress=progress,
            checkpoint=folder / run.CHECKPOINT,
            resume=resume,
        )
    found.save(folder)
    title = f"Calibration of the sampler: {specification.market.name}"
    lead = (
        f"Of {spec.name}: {len(problem.data)} rows simulated {replications} times, with seed {specification.seed}, by "
        f"{sampler if specification.sampler else 'a short chain of NUTS for each (the specification names no sampler)'}."
    )
    page = report_findings([found], folder / _REPORT, title=title, lead=lead)
    run.finish(folder)
    return found, page


def _shortened(problem: Problem, rows: int | None) -> Problem:
    if rows is None:
        return problem
    if not 2 <= rows <= len(problem.data):
        raise CalibrationError(f"rows is {rows}: the data have {len(problem.data)}, give a number from 2 to that")
    return problem.with_data(problem.data.iloc[:rows])
