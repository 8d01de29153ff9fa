"""Pictures of scenarios and forecasts."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from walras.calibrate.reporting.numbers import tick
from walras.calibrate.reporting.style import ALERT, COLOURS, INK, MIDDLE, PALE, POSTERIOR, RULE, SOFT, styled

if TYPE_CHECKING:
    from walras.calibrate.predictions.forecasting import Forecast
    from walras.calibrate.predictions.scenarios import Scenario

_WIDTH = 10.0  # inches
_MARKED = 130  # rows up to which each has a mark
_LONG, _LAST = 600, 250  # rows: of longer series these are shown


@styled
def plot_scenario(found: "Scenario") -> Figure:
    """For each series both worlds above, and their difference below, with 90 % bands; without series, the figures."""
    if not len(found.series):
        return _figures(found)
    names = list(found.series.index.unique("series"))
    figure, axes = plt.subplots(
        2 * len(names), 1, figsize=(_WIDTH, 3.9 * len(names)), height_ratios=[1.5, 1.0] * len(names), layout="constrained"
    )
    for name, above, below in zip(names, axes[::2], axes[1::2], strict=True):
        table = found.series.loc[name]
        table = table.iloc[-_LAST:] if len(table) > _LONG else table
        places, unit = _places(table.index), found.units.get(name, "")
        for world, colour in (("baseline", INK), ("counterfactual", POSTERIOR)):
            _band(above, places, table, world, colour)
        above.set_ylabel(f"{name} ({unit})" if unit else name)
        _legend_above(above)
        _band(below, places, table, "difference", ALERT)
        below.axhline(0.0, color=RULE, linewidth=1.0, zorder=0)
        below.set_ylabel("difference")
        below.sharex(above)
    axes[-1].set_xlabel(_row_label(found.series))
    return figure


def _figures(found):
    """Relative differences with 90 % bands; differences where a figure has no sign of its own."""
    table = found.figures.iloc[::-1].dropna(subset="relative")
    figure, ax = plt.subplots(figsize=(_WIDTH, 1.0 + 0.32 * len(table)), layout="constrained")
    places = np.arange(len(table))
    ax.axvline(0.0, color=RULE, linewidth=1.0, zorder=0)
    ax.hlines(places, 100 * table["relative 5 %"], 100 * table["relative 95 %"], color=MIDDLE, linewidth=3)
    ax.plot(100 * table["relative"], places, "o", color=POSTERIOR, markersize=5)
    ax.set_yticks(places, list(table.index))
    ax.set_xlabel("difference from the baseline, %")
    return figure


def _legend_above(ax: Axes):
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=6, borderaxespad=0.2)


def _band(ax: Axes, places, table: pd.DataFrame, name: str, colour):
    marked = {"marker": "o", "markersize": 2.5} if len(places) <= _MARKED else {}
    ax.fill_between(places, table[f"{name} 5 %"], table[f"{name} 95 %"], color=colour, alpha=0.25, linewidth=0)
    ax.plot(places, table[name], color=colour, linewidth=1.0, label=name, **marked)
    ax.yaxis.set_major_formatter(lambda value, _: tick(value))


def _places(index: pd.Index):
    return np.arange(len(index)) if index.nlevels > 1 else index.to_numpy()


def _row_label(series: pd.DataFrame) -> str:
    return "row" if series.index.nlevels > 2 else str(series.index.names[-1] or "row")


@styled
def plot_forecast(found: "Forecast") -> Figure:
    """Each target's last rows and its forecast, with 50 % and 90 % bands; baselines' medians and 90 % bands as lines."""
    names = list(found.bands.index.unique("series"))
    figure, axes = plt.subplots(len(names), 1, figsize=(_WIDTH, 3.4 * len(names)), layout="constrained", squeeze=False)
    for name, ax in zip(names, axes[:, 0], strict=True):
        table, past = found.bands.loc[name], found.past[name]
        ax.fill_between(table.index, table["5 %"], table["95 %"], color=PALE, label="90 %")
        ax.fill_between(table.index, table["25 %"], table["75 %"], color=MIDDLE, label="50 %")
        dots = {"marker": "o", "markersize": 3.0}
        ax.plot(table.index, table["50 %"], color=POSTERIOR, label="median", **dots)
        ax.plot(past.index, past, color=INK, linewidth=1.0, label="observed", **dots)
        if name == names[0]:
            _baselines(ax, found)
        unit = found.units.get(name, "")
        ax.set_ylabel(f"{name} ({unit})" if unit else name)
        ax.yaxis.set_major_formatter(lambda value, _: tick(value))
        _legend_above(ax)
        ax.axvline(past.index[-1], color=SOFT, linewidth=0.8, linestyle=":")
    axes[-1, 0].set_xlabel(str(found.past.index.name or "row"))
    return figure


def _baselines(ax, found):
    for (name, table), colour in zip(found.baselines.groupby(level="baseline", sort=False), COLOURS[1:], strict=False):
        rows = table.droplevel("baseline")
        ax.plot(rows.index, rows["50 %"], color=colour, label=f"{name}, with 90 %")
        for end in ("5 %", "95 %"):
            ax.plot(rows.index, rows[end], color=colour, linewidth=1.0, linestyle="--")
