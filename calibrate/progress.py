"""The progress bar of a fit."""

from rich.console import Console

from walras.calibrate.samplers import Progress
from walras.progress import Bar


def sampling_bar(console: Console | None = None) -> Bar:
    """A bar for a run's `Progress`."""
    return Bar("sampling", note, console)


def note(report: Progress) -> str:
    """What a bar says of a report: the estimate before sampling, divergences during it."""
    return f"estimated {report.seconds:.0f} s" if report.done == 0 else f"{report.divergences} divergences"
