"""A progress bar for a run."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from walras.calibrate import samplers


class Bar:
    """Shows a run's `samplers.Progress` with rich; call it with each report, and `stop` it at the end."""

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
        self._progress.start()
        self._task = self._progress.add_task(title, total=None, note="compiling")

    def __call__(self, report: samplers.Progress):
        if report.done == 0:
            note = f"estimated {report.seconds:.0f} s"
        else:
            note = f"{report.divergences} divergences"
        self._progress.update(self._task, completed=report.done, total=report.total, note=note)

    def stop(self):
        self._progress.stop()
