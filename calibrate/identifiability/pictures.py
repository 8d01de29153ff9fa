"""The report's account of what data can tell of the parameters."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from walras.calibrate.reporting.numbers import percent
from walras.calibrate.reporting.plots import WIDTH
from walras.calibrate.reporting.style import ALERT, INK, MIDDLE, POSTERIOR, RULE, SIGNS, styled

if TYPE_CHECKING:
    from walras.calibrate.identifiability.identification import Identification

_ROW = 0.26  # inches
_WRITTEN = 12  # parameters beside which numbers still fit into the cells of a map


@styled
def plot_contraction(found: "Identification") -> Figure:
    """For each parameter the share of the prior variance that the data take away: expected over the prior, and achieved."""
    table = found.contraction
    places = np.arange(len(table))[::-1]
    figure, ax = plt.subplots(figsize=(WIDTH, 1.0 + _ROW * len(table)))
    ax.hlines(places, table["5 %"], table["95 %"], color=MIDDLE, linewidth=4, label="expected, 90 % of draws of the prior")
    ax.plot(table["expected"], places, "o", color=POSTERIOR, markersize=5, label="expected, mean")
    if table["achieved"].notna().any():
        ax.plot(table["achieved"], places, "D", color=ALERT, markersize=5, label="achieved by the fit")
    ax.axvline(0.0, color=RULE, linewidth=1, zorder=0)
    ax.set_yticks(places, table.index)
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.set_xlim(min(0.0, float(table[["5 %", "achieved"]].min(axis=None))) - 0.02, 1.02)
    ax.set_xlabel("share of the prior variance that the data take away")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False)
    return figure


@styled
def plot_directions(found: "Identification") -> Figure:
    """How null and weak directions move the parameters, in standard deviations of the prior."""
    moved = (found.loadings.abs() > 0.05).any()
    loadings = found.loadings.loc[:, moved]
    figure, ax = plt.subplots(figsize=(min(WIDTH, 2.5 + 1.2 * loadings.shape[1]), 1.3 + _ROW * len(loadings)))
    ax.pcolormesh(loadings.to_numpy(), cmap=SIGNS, vmin=-1.0, vmax=1.0, edgecolors="white", linewidth=1.5)
    if loadings.shape[1] <= _WRITTEN:
        for (row, column), value in np.ndenumerate(loadings.to_numpy()):
            if abs(value) > 0.05:
                colour = "white" if abs(value) > 0.6 else INK
                text = f"{value:+.2f}".replace("-", "−")
                ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
    left = found.directions["left"]
    ax.set_yticks(np.arange(len(loadings)) + 0.5, [f"{label}: {percent(left[label])} left" for label in loadings.index])
    ax.set_xticks(np.arange(loadings.shape[1]) + 0.5, loadings.columns, rotation=35, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure


def story(found: "Identification") -> list[tuple]:
    """What data can tell, before the fit and after it; then the directions that they cannot tell, or hardly."""
    table = found.contraction if found.contraction["achieved"].notna().any() else found.contraction.drop(columns="achieved")
    note = (
        f"From {found.tables} simulated tables of data at each of {found.draws} draws of the prior. Coordinates are logs of "
        "what is positive, and unbounded for the rest; a share below zero is a posterior wider than the prior."
    )
    sections: list[tuple] = [("What the data can tell", [found.text, table, note], plot_contraction(found))]
    if len(found.directions):
        told = found.directions[["left", "moves"]].rename(columns={"left": "prior variance left", "moves": "what it moves"})
        text = (
            "Along a null direction the law of the data does not change at all, and no data move the prior there. Along a "
            "weak one they are expected to add less than the prior knows."
        )
        sections.append(("What the data cannot tell, or hardly", [text, told], plot_directions(found)))
    return sections
