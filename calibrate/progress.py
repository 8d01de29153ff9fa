"""The progress bar of a fit."""

from rich.console import Console

from walras.calibrate import samplers
from walras.progress import Bar


def sampling_bar(console: Console | None = None) -> Bar:
    """A bar for a run's `samplers.Progress`."""
    return Bar("sampling", note, console)


def note(report: samplers.Progress) -> str:
    """What a bar says of a report: the estimate before sampling, divergences during it."""
    return f"estimated {report.seconds:.0f} s" if report.done == 0 else f"{report.divergences} divergences"
