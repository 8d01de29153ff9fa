"""The command line. Heavy libraries are imported inside the commands, so that help answers at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
def identify(
    spec: Annotated[Path, typer.Argument(help="The specification, a TOML file; or a run directory.")],
    out: Annotated[Path | None, typer.Option(help="An empty or new folder for identify.json and a page of pictures.")] = None,
):
    """What data like these can tell of the parameters, before a fit; of a run, also what they told."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.identifiability.identification import identify as identify_problem
    from walras.calibrate.reporting import report_findings
    from walras.calibrate.spec import Spec

    console = Console()
    if spec.is_dir():
        specification, problem, tree = run.read(spec)
    else:
        specification, tree = Spec.from_toml(spec), None
        problem, _ = run.build(specification)
    folder = None if out is None else run.claim(out)
    found = identify_problem(problem, key=run.key_of(specification, 3), tree=tree)
    console.print(found.text, markup=False, highlight=False)
    console.print(_frame_table(found.contraction.dropna(axis=1, how="all"), "share of the prior variance that data take away"))
    if spec.is_dir():
        found.save(spec)
    if folder is not None:
        found.save(folder)
        page = report_findings([found], folder / "report.html", title="What the data can tell", lead=f"Of {spec.name}.")
        console.print(f"report: {page}", markup=False, soft_wrap=True)


@contextmanager
def _resumable() -> Iterator[None]:
    """Say of what is interrupted that it is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted: what is complete is kept, and the same command with --resume goes on from it")
        raise typer.Exit(130) from None


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
    from walras.calibrate.predictions.predictive import posterior_predictive
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
    with _resumable(), sampling_bar(console) as bar:
        tree = fit_problem(problem, sampler, key=key, progress=bar, checkpoint=kept, resume=resume)
    tree = posterior_predictive(
        problem, tree, key=run.key_of(specification, 1), draws=min(100, tree["posterior"].sizes["draw"])
    )
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
    with _resumable(), scheduler(address, workers) as executor, markets_bar(console) as bar:
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
    from walras.calibrate.checks.checking import check as check_tree

    _, problem, tree = run.read(path)
    judged = check_tree(problem, tree)
    run.write_checks(path, judged)
    _print_checks(Console(), judged)
    if judged.verdict == "fail":
        raise typer.Exit(1)


@app.command()
def predict(path: Run, draws: Annotated[int, typer.Option(help="Replicated series for each chain.")] = 100):
    """Simulate replicated series, in place of those before, and forecast the next period; adds predictions.csv to the run."""
    _prepare()
    from walras.calibrate import run

    console = Console()
    specification, problem, tree = run.read(path)
    table = run.predict(path, specification, problem, tree, draws)
    console.print(_frame_table(table.tail(5), "one step ahead, the last rows and the next period"))
    console.print(f"predictions: {path / 'predictions.csv'}", markup=False, soft_wrap=True)


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(help="Run directories.")],
    origins: Origins = 4,
    horizon: Annotated[int, typer.Option(help="Rows ahead up to which forecasts are scored.")] = 1,
    exact: Annotated[bool, typer.Option("--exact", help="Refit before every scored row: leave-future-out.")] = False,
):
    """Score forecasts of runs of the same data, beside naive ones; writes compare.json in each run."""
    _prepare()
    from walras.calibrate import run

    comparison = run.compare_runs(paths, origins=origins, horizon=horizon, exact=exact)
    console = Console()
    console.print(_frame_table(comparison.table, "scores, best first"))
    if horizon > 1:
        console.print(_frame_table(comparison.horizons, "by horizon"))
    console.print(comparison.text, markup=False)


@app.command()
def sensitivity(
    path: Run,
    over: Annotated[str, typer.Option(help="Draws of the posterior, or of the prior.")] = "posterior",
    method: Annotated[list[str] | None, typer.Option(help="local, shapley, sobol, morris; may be given several times.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="An output; may be given several times. All by default.")] = None,
    draws: Annotated[int, typer.Option(help="Draws at which elasticities are taken.")] = 200,
    samples: Annotated[int, typer.Option(help="Size of designs; a power of two for Sobol's.")] = 512,
    scheduler: Scheduler = None,
    workers: Workers = 2,
):
    """Tell which parameters matter for which outputs; adds sensitivity.json to the run."""
    _prepare()
    from walras.calibrate import CalibrationError, distributing, run
    from walras.calibrate import sensitivity as analyse

    if over not in ("posterior", "prior"):
        raise CalibrationError(f"--over is {over!r}: choose posterior or prior")
    specification, problem, tree = run.read(path)
    with distributing.scheduler(scheduler, workers) as executor:
        found = analyse(
            problem,
            tree if over == "posterior" else None,
            key=run.key_of(specification, 4),
            methods=method,
            outputs=output or (),
            draws=draws,
            samples=samples,
            executor=executor,
        )
    saved = found.save(path)
    console = Console()
    for title, table in found.tables().items():
        console.print(_frame_table(table, title))
    console.print(found.text, markup=False)
    console.print(f"sensitivity: {saved}", markup=False, soft_wrap=True)


@app.command()
def forecast(
    path: Run,
    periods: Annotated[int | None, typer.Option(help="How many further rows; 1 unless a file has them.")] = None,
    future: Annotated[Path | None, typer.Option(help="A table of the rows to forecast: their times and covariates.")] = None,
):
    """Forecast the rows after the last, with bands, beside naive baselines; adds forecast.json to the run."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.predictions.forecasting import forecast_bands

    specification, problem, tree = run.read(path)
    rows = None if future is None else run.rows_of(future, specification, problem)
    found = forecast_bands(problem, tree, rows, key=run.key_of(specification, 2), periods=periods)
    written, console = found.save(path), Console()
    for name in found.bands.index.unique("series"):
        console.print(_frame_table(found.bands.loc[name], f"forecast of {name}"))
    console.print(found.text, markup=False)
    console.print(f"forecast: {written}", markup=False, soft_wrap=True)


@app.command()
def scenario(
    path: Run,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=2x, NAME=-10%, NAME=+0.5 or NAME=0.3; repeatable.")
    ] = None,
    supply: Annotated[Path | None, typer.Option(help="A table with times and another path of supply.")] = None,
    surprise: Annotated[bool, typer.Option("--surprise", help="Agents do not expect the change of supply.")] = False,
    label: Annotated[str | None, typer.Option(help="The end of the file's name; after the changes by default.")] = None,
):
    """What would have been: differences with bands, of the same draws and shocks; adds scenario-LABEL.json to the run."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.predictions.scenarios import scenario as find

    specification, problem, tree = run.read(path)
    changes = run.changes_of(set_ or [], supply, specification, problem)
    found = find(problem, tree, changes, key=run.key_of(specification, 3), surprise=surprise, label=label)
    written, console = found.save(path), Console()
    moved = found.figures[found.figures["difference"] != 0.0][["baseline", "difference", "difference 5 %", "difference 95 %"]]
    console.print(_frame_table(moved.set_axis(["baseline", "difference", "5 %", "95 %"], axis=1), "what differs"))
    console.print(found.text, markup=False)
    console.print(f"scenario: {written}", markup=False, soft_wrap=True)


@app.command()
def report(path: Run):
    """Write report.html of a run, with what the steps around it have found."""
    _prepare()
    from walras.calibrate import run
    from walras.calibrate.reporting import report as write_report

    _, problem, tree = run.read(path)
    page = write_report(problem, tree, path / "report.html", findings=run.findings(path))
    Console().print(f"report: {page}", markup=False, soft_wrap=True)


@app.command()
def sbc(
    spec: Annotated[Path, typer.Argument(help="The specification, a TOML file.")],
    out: Annotated[Path, typer.Option(help="An empty or new folder for the ranks and the report.")],
    replications: Annotated[int, typer.Option(help="Data sets that are simulated and fitted.")] = 1000,
    rows: Annotated[int | None, typer.Option(help="Simulate as many of the data's first rows; all by default.")] = None,
    scheduler: Scheduler = None,
    workers: Workers = 2,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out that was interrupted, if there is one.")
    ] = False,
):
    """Test the sampler on data simulated from the specification itself. Exits with 1 if its posteriors are wrong.

    The sampler is that of the specification, or one short chain for each data set where it names none.
    """
    _prepare()
    from walras.calibrate.simulation_based.command import run_sbc

    console = Console()
    with _resumable():
        found, page = run_sbc(
            spec, out, console, replications=replications, rows=rows, address=scheduler, workers=workers, resume=resume
        )
    console.print(_frame_table(found.table, "ranks and coverage"))
    console.print(found.text, markup=False)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    if found.rejected:
        raise typer.Exit(1)


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
    # Names are the user's: square brackets in them are no markup.
    table = Table(title=Text(title))
    for name in frame.index.names:
        table.add_column(Text(str(name or "")))
    for column in frame.columns:
        table.add_column(Text(str(column)), justify="right")
    for label, row in frame.iterrows():
        labels = label if isinstance(label, tuple) else (label,)
        cells = (*(str(part).removesuffix(" 00:00:00") for part in labels), *(_number(value) for value in row))
        table.add_row(*map(Text, cells))
    return table


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_checks(console: Console, judged, name: str = "checks"):
    console.print(f"{name}: {judged.verdict}", markup=False)
    for item in judged.checks:
        if item.verdict != "pass":
            console.print(f"  {item.verdict}: {item.name} = {item.value:.4g}; {item.remedy}", markup=False)
    if judged.misspecification:
        console.print(judged.misspecification, markup=False)
