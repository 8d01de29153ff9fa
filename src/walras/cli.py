"""The command line. Heavy libraries are imported inside the commands, so that help answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from walras import WalrasError

app = typer.Typer(
    help="Bayesian calibration of market-equilibrium models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets that walras knows.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Run = Annotated[Path, typer.Argument(help="A run directory, as written by walras fit --out.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Where the work is done: local (worker processes), or a Dask scheduler such as tcp://host:8786; else here."
    ),
]
Workers = Annotated[int, typer.Option(help="Worker processes of --scheduler local.")]
Origins = Annotated[int, typer.Option(help="Rolling origins at which each model is refitted.")]


def main():
    """Run a command; what the user can mend ends in one sentence and exit code 2."""
    try:
        app()
    except WalrasError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(2)


def _prepare():
    """Double precision, a quiet plotting backend, and compiled programs kept from run to run."""
    from walras.calibrate.session import prepare

    prepare()


@app.command()
def demo(out: Annotated[Path, typer.Option(help="An empty or new folder for the report and the fits.")] = Path("walras-demo")):
    """Fit the Fulton fish market under three specifications, compare them, and write the report."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.demo import run_demo

    console = Console()
    page, analyses = run_demo(out, console)
    main_analysis = next(iter(analyses.values()))
    console.print(_posterior_table(run.summary(main_analysis.problem, main_analysis.tree)))
    for name, analysis in analyses.items():
        _print_checks(console, analysis.checks, name)
    console.print(f"report: {page.resolve()}", markup=False, soft_wrap=True)


@app.command()
def fit(
    spec: Annotated[Path, typer.Argument(help="The specification, a TOML file.")],
    out: Annotated[Path, typer.Option(help="An empty or new folder for the run.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out that was interrupted, if there is one.")
    ] = False,
    scheduler: Scheduler = None,
    workers: Workers = 2,
):
    """Fit a specification and write the run directory with its report. Exits with 1 if a check fails.

    A run that is killed loses no more than its last chunk of draws: with --resume it ends as if nothing had happened.
    """
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.fitting import fit as fit_problem
    from walras.calibrate.predictive import posterior_predictive
    from walras.calibrate.progress import sampling_bar
    from walras.calibrate.reporting import report as write_report
    from walras.calibrate.spec import Spec

    console = Console()
    specification = Spec.from_toml(spec)
    if specification.one_by_one:
        _fit_each(console, specification, out, resume, scheduler, workers)
        return
    if scheduler is not None:
        raise run.CalibrationError(
            "--scheduler is for panels whose markets are fitted one by one: leave it out, or give [panel] with pooling = 'none'"
        )
    problem, sampler = run.build(specification)
    folder = run.claim(out, resume)
    if resume and run.complete(folder):
        console.print(f"run directory {folder} is complete: there is nothing to resume", markup=False)
        return
    for note in problem.observation.notes(problem.data):
        console.print(f"note: {note}", markup=False)
    key, kept = run.key_of(specification), folder / run.CHECKPOINT
    with sampling_bar(console) as bar:
        tree = fit_problem(problem, sampler, key=key, progress=bar, checkpoint=kept, resume=resume)
    tree = posterior_predictive(problem, tree, key=run.key_of(specification, 1), draws=min(100, sampler.draws))
    judged = run.write(folder, specification, problem, tree)
    console.print(_posterior_table(run.summary(problem, tree)))
    _print_checks(console, judged)
    console.print(f"report: {write_report(problem, tree, folder / 'report.html')}", markup=False, soft_wrap=True)
    run.finish(folder)
    if judged.verdict == "fail":
        raise typer.Exit(1)


def _fit_each(console, specification, out, resume, address, workers):
    """Fit the markets of a panel one by one, here or by workers."""
    from walras.calibrate import run
    from walras.calibrate.distributing import scheduler
    from walras.calibrate.panels import running
    from walras.calibrate.panels.fitting import fit_each, markets_bar

    panel, sampler = run.build_panel(specification)
    folder = run.claim(out, resume)
    if resume and run.complete(folder):
        console.print(f"run directory {folder} is complete: there is nothing to resume", markup=False)
        return
    key, kept, batch = run.key_of(specification), folder / run.CHECKPOINT, specification.panel.batch
    with scheduler(address, workers) as executor, markets_bar(console) as bar:
        tree = fit_each(panel, sampler, key=key, executor=executor, batch=batch, progress=bar, checkpoint=kept, resume=resume)
    found = running.write(folder, specification, panel, tree)
    console.print(_frame_table(found.checks.drop(columns="solver_failures").head(20), "markets, the first ones"))
    console.print(found.text, markup=False)
    console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)
    run.finish(folder)
    if found.verdict == "fail":
        raise typer.Exit(1)


@app.command()
def check(path: Run):
    """Judge a run: convergence, failures, misfit. Exits with 1 if a check fails."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.checking import check as check_tree

    _, problem, tree = run.read(path)
    judged = check_tree(problem, tree)
    run.write_checks(path, judged)
    _print_checks(Console(), judged)
    if judged.verdict == "fail":
        raise typer.Exit(1)


@app.command()
def predict(path: Run, draws: Annotated[int, typer.Option(help="Replicated series for each chain.")] = 100):
    """Simulate replicated series and forecast the next period; adds predictions.csv to the run."""
    _prepare()
    from walras.calibrate import run

    console = Console()
    specification, problem, tree = run.read(path)
    table = run.predict(path, specification, problem, tree, draws)
    console.print(_frame_table(table.tail(5), "one step ahead, the last rows and the next period"))
    console.print(f"predictions: {path / 'predictions.csv'}", markup=False, soft_wrap=True)


@app.command()
def compare(paths: Annotated[list[Path], typer.Argument(help="Run directories.")], origins: Origins = 4):
    """Score runs of the same data by their one-step-ahead predictions, beside naive baselines."""
    _prepare()
    from walras.calibrate import run

    comparison = run.compare_runs(paths, origins)
    console = Console()
    console.print(_frame_table(comparison.table, "log scores, best first"))
    console.print(comparison.text, markup=False)


@app.command()
def report(path: Run):
    """Write report.html of a run."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.reporting import report as write_report

    _, problem, tree = run.read(path)
    Console().print(f"report: {write_report(problem, tree, path / 'report.html')}", markup=False, soft_wrap=True)


@data_app.command("list")
def list_data():
    """The data sets, one a line."""
    from walras import data

    Console().print(_frame_table(data.catalogue().drop(columns="columns"), "data sets"))


@data_app.command("show")
def show_data(name: Annotated[str, typer.Argument(help="A name from walras data list.")]):
    """What a data set is, where it comes from, and its first rows."""
    from walras import data

    console = Console()
    console.print(data.describe(name), markup=False)
    console.print(_frame_table(data.load(name).head(), "the first rows"))


def _posterior_table(summary) -> Table:
    kept = summary[["mean", "sd", *[c for c in summary if c.startswith("eti")], "ess_bulk", "r_hat"]]
    return _frame_table(
        kept.rename(columns=lambda name: name.replace("eti90_lb", "5 %").replace("eti90_ub", "95 %")), "posterior"
    )


def _frame_table(frame, title: str) -> Table:
    table = Table(title=title)
    table.add_column(str(frame.index.name or ""))
    for column in frame.columns:
        table.add_column(str(column), justify="right")
    for label, row in frame.iterrows():
        table.add_row(str(label), *(_number(value) for value in row))
    return table


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_checks(console: Console, judged, name: str = "checks"):
    console.print(f"{name}: {judged.verdict}", markup=False)
    for item in judged.checks:
        if item.verdict != "pass":
            console.print(f"  {item.verdict}: {item.name} = {item.value:.4g}; {item.remedy}", markup=False)
