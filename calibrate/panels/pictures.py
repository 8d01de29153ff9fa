"""Pictures of a panel's fits."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from walras.calibrate.reporting.style import MIDDLE, POSTERIOR, styled

_SHOWN, _COLUMNS = 9, 3
_WIDTH, _HEIGHT = 7.6, 2.1  # inches, of a row of panels


@styled
def plot_markets(summary: pd.DataFrame) -> Figure:
    """Posterior means and 90 % intervals of every market, from the lowest mean to the highest, for up to nine parameters."""
    names = list(summary.index.unique("parameter"))[:_SHOWN]
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    size = (_WIDTH * columns / _COLUMNS, _HEIGHT * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, name in zip(axes.flat, names, strict=False):
        of_one = summary.xs(name, level="parameter").sort_values("mean")
        places = np.arange(1, len(of_one) + 1)
        # Many markets make one dark band of thick lines.
        ax.vlines(places, of_one["5 %"], of_one["95 %"], color=MIDDLE, linewidth=np.clip(120 / len(of_one), 0.3, 3.0))
        ax.plot(places, of_one["mean"], "o", color=POSTERIOR, markersize=np.clip(100 / len(of_one), 0.8, 4.0))
        ax.set_title(name)
        if len(of_one) < 2:
            ax.set_xticks([1])
    figure.supxlabel("markets, lowest mean first", fontsize="small")
    for ax in list(axes.flat)[len(names) :]:
        ax.remove()
    return figure
