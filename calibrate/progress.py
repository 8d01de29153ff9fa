"""A progress bar for a run."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from walras.calibrate import samplers


class Bar:
    """Shows a run's `samplers.Progress` with rich; call it with each report, inside `with`."""

    def __init__(self, title: str = "sampling", console: Console | None = None):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task = self._progress.add_task(title, total=None, note="compiling")

    def __call__(self, report: samplers.Progress):
        self._progress.update(self._task, completed=report.done, total=report.total, note=note(report))

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()


def note(report: samplers.Progress) -> str:
    """What a bar says of a report: the estimate before sampling, divergences during it."""
    return f"estimated {report.seconds:.0f} s" if report.done == 0 else f"{report.divergences} divergences"
