"""A fit as one page: `report` writes it, `walras.calibrate.reporting.plots` has its pictures for notebooks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictions.predictive import require_same
from walras.calibrate.problem import Problem
from walras.calibrate.writing import whole

if TYPE_CHECKING:
    from walras.calibrate.comparisons.comparing import Comparison
    from walras.calibrate.finding import Finding

__all__ = ["report", "report_findings"]


def report(
    problem: Problem,
    tree: xr.DataTree,
    path: str | Path,
    *,
    comparison: "Comparison | None" = None,
    story: Sequence[Sequence[Any]] | None = None,
    findings: "Sequence[Finding]" = (),
) -> Path:
    """Write the fit `tree` of `problem` as one self-contained HTML page at `path`; returns the path.

    Groups `prior` and `posterior_predictive` are used where the tree has them. `comparison`: scores of several models, as
    `compare` returns them. `story`: sections that follow the headline, each `(heading, body)` or `(heading, body,
    figure)`: the body is text (blank lines part paragraphs), a `markupsafe.Markup` of trusted HTML, a pandas DataFrame,
    or a list of these; the figure a matplotlib Figure, which stays open. `findings`: of other steps, such as `sensitivity`;
    their stories come after the fit's own.

    The page is written whole or not at all. Raises `CalibrationError` when it cannot be written, or when the tree was
    fitted to another problem.
    """
    from walras.calibrate.reporting.page import render  # matplotlib and jinja2 are loaded only when a page is made

    require_same(problem, tree)
    return _written(path, lambda: render(problem, tree, comparison, story or (), findings))


def report_findings(findings: "Sequence[Finding]", path: str | Path, *, title: str, lead: str = "") -> Path:
    """Write the stories of findings as one self-contained HTML page at `path`; returns the path.

    For steps that have no fit to be told with. The page is written whole or not at all.
    """
    from walras.calibrate.reporting.page import render_story

    return _written(path, lambda: render_story(title, lead, [section for found in findings for section in found.story()]))


def _written(path: str | Path, render: Callable[[], str]) -> Path:
    path = Path(path)
    if path.exists() and not path.is_file():
        raise CalibrationError(f"{path} is not a file and is left as it is: give the name of a file, such as report.html")
    with whole(path) as file:
        file.write_text(render(), encoding="utf-8")
    return path
