"""Pictures of ranks."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from walras.calibrate.reporting.numbers import number
from walras.calibrate.reporting.plots import WIDTH
from walras.calibrate.reporting.style import ALERT, MIDDLE, PALE, POSTERIOR, PRIOR, styled
from walras.calibrate.simulation_based.finding import SBC
from walras.calibrate.simulation_based.uniformity import band

_COLUMNS, _HEIGHT = 4, 1.6
_BARS = 20


@styled
def plot_ecdf_differences(found: SBC) -> Figure:
    """For each quantity the share of ranks up to each, less that of uniform ranks, in its simultaneous band."""
    count, highest = len(found.ranks), found.draws
    uniform = np.arange(1, highest + 1) / (highest + 1)
    ends = (np.asarray(end) / count - uniform for end in band(count, highest, found.level / len(found.table)))
    low, high = (np.concatenate([[0.0], end, [0.0]]) for end in ends)
    places = np.concatenate([[0.0], uniform, [1.0]])
    figure, panels = _panels(found)
    for ax, name in zip(panels, _ordered(found), strict=True):
        shares = np.searchsorted(np.sort(found.ranks[name]), np.arange(highest), side="right") / count
        ax.fill_between(places, low, high, color=PALE, lw=0, step="post")
        ax.step(places, np.concatenate([[0.0], shares - uniform, [0.0]]), color=_colour(found, name), lw=1.2, where="post")
        ax.set_xlim(0, 1)
    _label(panels, "rank, as a share of draws", "share less uniform")
    return figure


@styled
def plot_ranks(found: SBC) -> Figure:
    """For each quantity a histogram of its ranks, with the band of each bar."""
    count, ranks = len(found.ranks), found.draws + 1
    edges = np.linspace(0, ranks, min(_BARS, ranks) + 1).round()
    low, high = binom.interval(0.99, count, np.diff(edges) / ranks)
    figure, panels = _panels(found)
    for ax, name in zip(panels, _ordered(found), strict=True):
        ax.stairs(high, edges / ranks, baseline=low, fill=True, color=PRIOR, alpha=0.35, lw=0)
        heights = np.histogram(found.ranks[name] + 0.5, edges)[0]
        ax.stairs(heights, edges / ranks, baseline=None, color=_colour(found, name), lw=1.2)
        ax.set(xlim=(0, 1), ylim=(0, None))
    _label(panels, "rank, as a share of draws", "replications")
    return figure


def _ordered(found: SBC) -> list[str]:
    """Those that are rejected first."""
    return [*found.rejected, *(name for name in found.table.index if name not in found.rejected)]


def _colour(found: SBC, name: str) -> str:
    return ALERT if name in found.rejected else POSTERIOR


def _panels(found: SBC):
    count = len(found.table)
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.6 + _HEIGHT * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    panels = axes.ravel()
    for ax, name in zip(panels, _ordered(found), strict=False):
        ax.set_title(_short(name), color=_colour(found, name))
        ax.axhline(0.0, color=MIDDLE, lw=0.6, zorder=0)
        ax.xaxis.set_major_formatter(lambda value, _: number(value, 1) if value in (0, 0.5, 1) else "")
        ax.set_xticks([0, 0.5, 1])
    for ax in panels[count:]:
        ax.remove()
    # Where the last row has fewer, those above have axes of their own.
    for ax in panels[count - columns : count]:
        ax.xaxis.set_tick_params(labelbottom=True)
    return figure, panels[:count]


def _short(name: str, longest: int = 26) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _label(panels, below: str, beside: str):
    figure = panels[0].figure
    figure.supxlabel(below, fontsize=9)
    figure.supylabel(beside, fontsize=9)
