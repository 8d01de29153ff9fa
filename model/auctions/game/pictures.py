"""A picture of learning."""

from collections.abc import Mapping

import numpy as np

from walras.model.auctions.game.learning import Learned
from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.pictures import COLOURS, STYLE

_SIZE = 7.0, 3.2  # inches
_FLOOR = 1e-8  # of losses, on a logarithmic axis


def plot_learning(learned: Learned | Mapping[str, Learned], ax=None):
    """The utility loss, and dashed the distance from the equilibrium where it is known, against iterations, both logarithmic.

    The largest over bidders. Several runs, such as with different estimators, are given by name. Draws into `ax`, or a new
    figure, and returns the axes.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    runs = learned if isinstance(learned, Mapping) else {"": learned}
    if not runs or any(run.done == 0 for run in runs.values()):
        raise EquilibriumError(f"learned has runs {list(runs)}: give at least one, and of at least one iteration each")
    with mpl.rc_context(STYLE):
        ax = plt.subplots(figsize=_SIZE)[1] if ax is None else ax
        for index, (name, run) in enumerate(runs.items()):
            _draw(ax, run, f"{name}, " if name else "", COLOURS[index % len(COLOURS)])
        ax.set_yscale("log")
        ax.set_xlim(left=0)
        ax.set_xlabel("iterations")
        ax.set_ylabel("utility loss; distance (dashed)" if _known(runs) else "utility loss")
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(runs), borderaxespad=0.2, handlelength=2.4)
    return ax


def _draw(ax, run: Learned, name: str, colour: str):
    curves = run.curves
    ax.plot(curves.iterations, np.maximum(curves.utility_loss.max(axis=1), _FLOOR), color=colour, label=f"{name}utility loss")
    if np.all(np.isfinite(curves.distance)):
        dashed = {"linestyle": (0, (4, 2)), "linewidth": 1.0}
        ax.plot(curves.iterations, curves.distance.max(axis=1), color=colour, label=f"{name}distance", **dashed)


def _known(runs: Mapping[str, Learned]) -> bool:
    return any(bool(np.all(np.isfinite(run.curves.distance))) for run in runs.values())
