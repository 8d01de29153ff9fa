"""The pictures of a sensitivity analysis, and its sections of a report."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from walras.calibrate.reporting.numbers import number, tick
from walras.calibrate.reporting.style import ALERT, INK, MIDDLE, PALE, POSTERIOR, RULE, SIGNS, styled
from walras.calibrate.sensitivities.local import PRIOR_SDS, SPREADS, wide

_WIDTH = 10.0  # inches
_COLUMNS = 3
_BARS = 8  # parameters of an output that are drawn
_NEGLIGIBLE = 0.01  # relative to the strongest
_REACH = 3.0  # of an axis, relative to the longest bar
_WRITTEN = 90  # cells of a table whose numbers can be read


def story(found) -> list[tuple]:
    """Sections of a report: tornado plots, heat maps along rows, shares of variance."""
    from walras.calibrate.reporting.style import without_screen

    with without_screen():
        return [*_local(found), *_global(found)]


def _local(found) -> list[tuple]:
    sections = []
    if found.local is not None and len(found.local):
        sections.append(
            (
                f"Sensitivity to each parameter, over the {found.over}",
                [
                    found.text,
                    f"How each output changes, to first order, for one standard deviation of a parameter over the "
                    f"{found.over}: "
                    "bars are medians over draws, lines 90 % of them. In per cent of the output; for one that may have either "
                    "sign (marked *), in per cent of its own spread.",
                ],
                plot_tornado(found.local),
            )
        )
        body = (
            "Medians over draws: the percentage by which an output changes for one per cent more of a parameter. "
            "For parameters "
            "that may be zero or negative (marked †) the change is that of the output's log for one standard deviation of the "
            "prior; for outputs that may have either sign (marked *) it is in units of their own spread."
        )
        sections.append(("Elasticities", body, plot_heat(_marked(found.local))))
    if found.paths is not None:
        sections += [
            (f"Sensitivity of {name} along its rows", "Medians over draws.", plot_rows(found.paths.loc[name], name))
            for name in found.paths.index.unique("output")
        ]
    return sections


def _global(found) -> list[tuple]:
    sections = []
    lead = [] if sections or found.local is not None else [found.text]
    if found.shapley is not None and len(found.shapley):
        body = (
            "Shares of each output's variance, that of its log where it has one sign. What dependent parameters "
            "explain together "
            "is split between them; only parameters that an output depends on have shares."
        )
        sections.append(
            ("Where uncertainty comes from: Shapley effects", [*lead, body], plot_heat(wide(found.shapley, "share")))
        )
    if found.sobol is not None and len(found.sobol):
        body = (
            "First-order indices (dark): the share of an output's variance that a parameter explains alone. "
            "Total indices (pale): "
            "with its interactions. Lines are 90 % bootstrap bands."
        )
        sections.append(("Where uncertainty comes from: Sobol indices", [*lead, body], plot_sobol(found.sobol)))
    if found.morris is not None and len(found.morris):
        body = (
            "Elementary effects of steps across each parameter's 90 % range, relative to the largest of the output: bars are "
            "their mean size μ* with its 90 % bootstrap band, dots their standard deviation σ, which curvature "
            "and interactions make."
        )
        sections.append(("Elementary effects", [*lead, body], plot_morris(found.morris)))
    return sections


def _marked(table: pd.DataFrame) -> pd.DataFrame:
    """Medians, parameters × outputs, with marks of those that are not elasticities."""
    medians, measures = wide(table, "median"), wide(table, "measure").to_numpy(object).astype(str)
    either = np.char.startswith(measures, SPREADS).any(axis=0)
    signed = np.char.endswith(measures, PRIOR_SDS).any(axis=1)
    medians.columns = [f"{name} *" if mark else name for name, mark in zip(medians.columns, either, strict=True)]
    medians.index = [f"{name} †" if mark else name for name, mark in zip(medians.index, signed, strict=True)]
    return medians


@styled
def plot_tornado(table: pd.DataFrame) -> Figure:
    """A panel for each output of a `local` table, its strongest parameters at the top."""
    figure, panels = _panels(table)
    for ax, output in panels:
        rows = _strongest(table.loc[output], "per_sd")
        per_cent = 100.0 * _per_sd(rows)
        _bars(ax, per_cent, "median", "low", "high", list(np.where(per_cent["median"] >= 0, POSTERIOR, ALERT)))
        ax.axvline(0.0, color=INK, linewidth=0.8)
        ax.set_xlim(*_limits(per_cent))
        ax.set_xlabel("%")
        if rows["measure"].iloc[0].startswith(SPREADS):
            ax.set_title(f"{output} *")
    return figure


@styled
def plot_sobol(table: pd.DataFrame) -> Figure:
    """First-order and total indices, a panel for each output."""
    figure, panels = _panels(table)
    for ax, output in panels:
        rows = _strongest(table.loc[output], "total")
        _bars(ax, rows, "total", "total_low", "total_high", PALE, line=MIDDLE)
        _bars(ax, rows, "first", "first_low", "first_high", POSTERIOR, height=0.35)
        ax.set_xlim(0.0, 1.05)
    return figure


@styled
def plot_morris(table: pd.DataFrame) -> Figure:
    """Mean sizes of elementary effects (bars) and their spread (dots), relative to the largest, a panel for each output."""
    figure, panels = _panels(table)
    for ax, output in panels:
        rows = _strongest(table.loc[output], "mu_star")
        relative = rows.drop(columns="scale") / float(rows["mu_star"].max())
        _bars(ax, relative, "mu_star", "mu_star_low", "mu_star_high", PALE, line=MIDDLE)
        ax.plot(relative["sigma"], np.arange(len(rows)), "o", color=POSTERIOR, markersize=4)
        ax.set_xlim(left=0.0)
    return figure


@styled
def plot_heat(values: pd.DataFrame) -> Figure:
    """Parameters × outputs as colours, with their numbers where there is room."""
    size = values.shape
    figure, ax = plt.subplots(figsize=(min(_WIDTH, 3.2 + 0.75 * size[1]), 1.6 + 0.32 * size[0]), layout="constrained")
    limit = float(np.nanmax(np.abs(values.to_numpy()), initial=0.0)) or 1.0
    image = ax.imshow(values.to_numpy(float), cmap=SIGNS, norm=CenteredNorm(0.0, limit), aspect="auto")
    ax.set_xticks(range(size[1]), values.columns, rotation=40, ha="right")
    ax.set_yticks(range(size[0]), values.index)
    if values.size <= _WRITTEN:
        for (row, column), value in np.ndenumerate(values.to_numpy(float)):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 * limit else INK
                ax.text(column, row, number(value, 2), ha="center", va="center", fontsize=7, color=colour)
    _dress_heat(figure, ax, image)
    return figure


@styled
def plot_rows(table: pd.DataFrame, output: str) -> Figure:
    """Parameters × rows of one output of a `paths` table as colours."""
    values = wide(table, "median", across="row")
    parameters, rows = values.index, values.columns
    figure, ax = plt.subplots(figsize=(_WIDTH, 1.4 + 0.35 * len(parameters)), layout="constrained")
    limit = float(np.nanmax(np.abs(values.to_numpy()), initial=0.0)) or 1.0
    image = ax.imshow(values.to_numpy(float), cmap=SIGNS, norm=CenteredNorm(0.0, limit), aspect="auto")
    shown = np.unique(np.linspace(0, len(rows) - 1, min(8, len(rows))).astype(int))
    ax.set_xticks(shown, [_label(rows[i]) for i in shown])
    ax.set_yticks(range(len(parameters)), parameters)
    ax.set_title(output)
    _dress_heat(figure, ax, image)
    return figure


def _dress_heat(figure: Figure, ax: Axes, image):
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=ax, fraction=0.03, pad=0.02, format=FuncFormatter(tick))
    bar.outline.set_visible(False)
    # Colours are centred at zero, but shares are hardly below it. Cells may all be empty.
    bar.ax.set_ylim(bottom=min(0.0, float(np.ma.filled(image.get_array().min(), 0.0))))


def _label(row) -> str:
    return str(row.date()) if isinstance(row, pd.Timestamp) else tick(row) if isinstance(row, float) else str(row)


def _panels(table: pd.DataFrame):
    """A figure with a panel for each output, and pairs of panel and output."""
    outputs = list(table.index.unique("output"))
    columns = min(_COLUMNS, len(outputs))
    lines = -(-len(outputs) // columns)
    most = int(min(_BARS, table.groupby(level="output").size().max()))
    size = (_WIDTH * max(columns, 2) / _COLUMNS, lines * (1.0 + 0.24 * max(most, 3)))
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.ravel()[len(outputs) :]:
        ax.set_visible(False)
    for ax, output in zip(axes.ravel(), outputs, strict=False):
        ax.set_title(str(output))
    return figure, list(zip(axes.ravel(), outputs, strict=False))


def _strongest(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows with the largest values that are not negligible."""
    size = rows[column].abs().sort_values(ascending=False)
    return rows.loc[size[size >= _NEGLIGIBLE * size.iloc[0]].index].iloc[:_BARS]


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Room for bands, but for those that reach far beyond the bars."""
    far = _REACH * float(rows["median"].abs().max()) or 1.0
    low, high = max(-far, min(0.0, float(rows["low"].min()))), min(far, max(0.0, float(rows["high"].max())))
    margin = 0.04 * ((high - low) or 1.0)
    return low - margin * (low < 0.0), high + margin * (high > 0.0)


def _per_sd(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians and bands for one standard deviation of each parameter."""
    unit = (rows["per_sd"] / rows["median"]).where(rows["median"] != 0.0, 0.0)
    return rows[["median", "low", "high"]].mul(unit, axis=0)


def _bars(ax: Axes, rows: pd.DataFrame, value: str, low: str, high: str, colour, height: float = 0.62, line: str = INK):
    places = np.arange(len(rows))
    ax.barh(places, rows[value], color=colour, height=height)
    ax.hlines(places, rows[low], rows[high], color=line, linewidth=1.2)
    ax.set_yticks(places, rows.index)
    ax.set_ylim(max(len(rows), 3) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(tick))
    ax.grid(axis="x", color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
