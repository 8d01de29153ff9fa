"""Pictures of the equilibrium of one finite game. Each draws into `ax`, or a new figure, and returns the axes.

Units are words for the axes: `time`, such as "days", `unit` of the asset, such as "MWh", and `money`, such as "EUR".
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.game import PathEquilibrium
from walras.model.price_formation.population import density, expected_costs, sample_paths

INK, SOFT, RULE = "#22303c", "#6b7785", "#d5dbe1"
COLOURS = ("#1f6f8b", "#d08c2c", "#6a8d4e", "#8a5a83", "#4f5d75", "#b0563f")
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
}
_WIDTH, _HEIGHT = 7.0, 3.0  # inches
_SHOWN = 1e-3  # the share of the population that a picture of its density may cut off on each side, at each time
_BRIGHTEST = 0.995  # the quantile of densities at which colours saturate, since a population may start at a point


def _styled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Draw in this style, leaving the user's own settings as they were."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapped


@_styled
def plot_price(equilibrium: PathEquilibrium, ax=None, *, time: str = "", unit: str = "", money: str = ""):
    """The mean price of each step; dashed, p̄ = ϖ + cQ, what it would be if no supply had to be taken in just then."""
    ax = _axes(ax)
    edges = _nodes(equilibrium)
    price, costate = (np.asarray(path).reshape(edges.size - 1, -1) for path in (equilibrium.price, equilibrium.costate))
    for asset, colour in zip(range(price.shape[1]), itertools.cycle(COLOURS)):
        name = "price" if price.shape[1] == 1 else f"asset {asset + 1}"
        ax.stairs(price[:, asset], edges, baseline=None, color=colour, linewidth=1.3, label=name)
        dashed = {"linestyle": (0, (4, 2)), "linewidth": 0.9, "label": "at zero supply" if asset == 0 else None}
        ax.plot(np.asarray(equilibrium.times), costate[:, asset], color=colour, **dashed)
    _legend(ax)
    return _labelled(ax, edges, time, _with_unit("price", f"{money}/{unit}" if money and unit else money))


@_styled
def plot_paths(
    equilibrium: PathEquilibrium, key: jax.Array, ax=None, *, agents: int = 60, time: str = "", unit: str = "", asset: int = 0
):
    """Positions of some agents drawn at random with `key`, the population's mean position, and limits where there are any."""
    ax = _axes(ax)
    nodes = _nodes(equilibrium)
    paths = np.asarray(sample_paths(equilibrium, key, agents))
    mean = np.asarray(equilibrium.mean_position)
    paths, mean = (path[..., asset] if mean.ndim > 1 else path for path in (paths, mean))
    ax.plot(nodes, paths, color=COLOURS[0], linewidth=0.7, alpha=0.55)
    ax.plot(nodes, mean, color=INK, linewidth=1.8, label="mean of all agents")
    _draw_limits(ax, equilibrium)
    _legend(ax)
    return _labelled(ax, nodes, time, _with_unit("position", unit))


@_styled
def plot_density(equilibrium: PathEquilibrium, ax=None, *, time: str = "", unit: str = ""):
    """The density of positions over time, the darker the more agents, of a market with noise; and its mean."""
    from matplotlib.colors import LinearSegmentedColormap

    ax = _axes(ax)
    found = density(equilibrium)
    positions, values = np.asarray(found.positions), np.asarray(found.density)
    share = np.cumsum(values, axis=1) / np.sum(values, axis=1, keepdims=True)
    low = min(row[np.searchsorted(part, _SHOWN)] for row, part in zip(positions, share, strict=True))
    high = max(row[np.searchsorted(part, 1.0 - _SHOWN)] for row, part in zip(positions, share, strict=True))
    start = np.asarray(equilibrium.initial)
    low, high = min(low, start.min()), max(high, start.max())
    lattice = np.linspace(low, high, 301)
    image = [np.interp(lattice, row, part, 0.0, 0.0) for row, part in zip(positions, values, strict=True)]
    image = np.stack([image[0], *image], axis=1)  # there is no density at the start: the first one stands for it
    nodes = _nodes(equilibrium)
    shades = LinearSegmentedColormap.from_list("density", ["white", "#8fbfcf", "#1f6f8b", "#0c2f3d"])
    mesh = ax.pcolormesh(
        nodes,
        lattice,
        image,
        shading="gouraud",
        cmap=shades,
        vmin=0.0,
        vmax=np.quantile(image, _BRIGHTEST),
        rasterized=True,
    )
    ax.plot(nodes, equilibrium.mean_position, color=COLOURS[1], linewidth=1.6, label="mean of all agents")
    _draw_limits(ax, equilibrium)
    _legend(ax)
    bar = ax.figure.colorbar(mesh, ax=ax, extend="max", pad=0.02)
    bar.set_label(_with_unit("agents per unit", f"1/{unit}" if unit else ""))
    bar.outline.set_visible(False)
    return _labelled(ax, nodes, time, _with_unit("position", unit))


@_styled
def plot_costs(equilibrium: PathEquilibrium, ax=None, *, time: str = "", money: str = ""):
    """What agents pay on average, per unit of time; the legend has the whole of each, and the terminal cost."""
    ax = _axes(ax)
    costs = expected_costs(equilibrium)
    edges = _nodes(equilibrium)
    for colour, name in zip(COLOURS, ("trading", "holding", "payments"), strict=False):
        each = np.asarray(getattr(costs, name))
        if not each.any():
            continue
        ax.stairs(
            each / np.diff(edges), edges, baseline=None, color=colour, linewidth=1.4, label=f"{name}, {each.sum():.3g} in all"
        )
    if float(costs.terminal):
        ax.plot([], [], " ", label=f"terminal, {float(costs.terminal):.3g}")
    ax.axhline(0.0, color=SOFT, linewidth=0.6)
    _legend(ax)
    return _labelled(ax, edges, time, _with_unit("mean cost per time", f"{money}/{time}" if money and time else money))


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(_WIDTH, _HEIGHT))[1]


def _nodes(equilibrium):
    if not isinstance(equilibrium, PathEquilibrium):
        raise EquilibriumError(f"equilibrium is a {type(equilibrium).__name__}: pictures are of a game with foreseen supply")
    return np.linspace(0.0, float(equilibrium.horizon), equilibrium.price.shape[0] + 1)


def _legend(ax):
    """Above the axes, where it hides nothing."""
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2, handlelength=1.6, columnspacing=1.4)


def _draw_limits(ax, equilibrium):
    for limit in equilibrium.game.limits or ():
        if limit is not None:
            ax.axhline(float(limit), color="#c4472f", linewidth=1.0, linestyle=(0, (5, 2)))


def _labelled(ax, nodes, time, vertical):
    ax.set_xlim(nodes[0], nodes[-1])
    ax.set_xlabel(_with_unit("time", time))
    ax.set_ylabel(vertical)
    return ax


def _with_unit(name, unit):
    return f"{name} ({unit})" if unit else name
