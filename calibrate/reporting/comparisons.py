"""The picture of a comparison."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from walras.calibrate.comparisons.comparing import Comparison
from walras.calibrate.reporting.style import COLOURS, RULE, SOFT, styled

_WIDTH = 10.0  # inches
_REFERENCE = "last price"


@styled
def plot_comparison(found: Comparison) -> Figure:
    """Log scores one row ahead, summed over time, less those of the last price; and CRPS by horizon, if there are several."""
    several = found.horizons.index.get_level_values("horizon").max() > 1
    figure, axes = plt.subplots(1, 1 + several, figsize=(_WIDTH, 3.6), squeeze=False)
    colours = dict(zip(sorted(found.table.index), [*COLOURS, SOFT, RULE] * len(found.table), strict=False))
    _draw_sums(axes[0, 0], found, colours)
    if several:
        _draw_horizons(axes[0, 1], found, colours)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_sums(ax: Axes, found: Comparison, colours):
    reference = _REFERENCE if _REFERENCE in found.pointwise else found.table.index[-1]
    gaps = found.pointwise.sub(found.pointwise[reference], axis=0).cumsum()
    scaled = gaps.index.nlevels == 1 and gaps.index.inferred_type != "string"
    places = gaps.index.to_numpy() if scaled else np.arange(len(gaps))
    for name in found.table.index:
        ax.plot(places, gaps[name], color=colours[name], label=name, linewidth=1.0 if name == reference else 1.8)
    ax.set_title(f"log score less that of {reference!r}, summed: upwards is better")
    ax.set_xlabel(str(found.pointwise.index.name or "row"))
    ax.tick_params(axis="x", labelrotation=30 if gaps.index.inferred_type == "datetime64" else 0)


def _draw_horizons(ax: Axes, found: Comparison, colours):
    for name in found.table.index:
        crps = found.horizons["crps"].xs(name, level="model")
        ax.plot(crps.index, crps, "o-", color=colours[name], markersize=4)
    ax.set_title(f"mean CRPS of {found.target}: downwards is better")
    ax.set_xlabel("rows ahead")
    ax.set_ylim(bottom=0.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
