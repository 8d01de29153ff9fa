"""A progress bar for what takes minutes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """Shows reports of a run with rich: call it with each, inside `with`.

    A report has how many iterations are `done` of a `total`; `note` says in words what else it has.
    """

    def __init__(self, title: str, note: Callable[[Any], str], console: Console | None = None):
        self._note = note
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

    def __call__(self, report):
        self._progress.update(self._task, completed=report.done, total=report.total, note=self._note(report))

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()


@contextmanager
def shown(progress: bool | Callable, bar: Callable[[], Bar]) -> Iterator[Callable | None]:
    """What a run reports to: a bar for True, nothing for False, or the function that `progress` is."""
    if progress is True:
        with bar() as report:
            yield report
    else:
        yield progress or None
