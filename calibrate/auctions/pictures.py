"""Pictures of a fit to bids. Each draws into `ax`, or a new figure, and returns the axes."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.special
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from walras.calibrate.auctions.counterfactuals import Revenue, drawn, revenue
from walras.calibrate.auctions.market import values_of
from walras.calibrate.auctions.nonparametric import EstimatedValues
from walras.calibrate.problem import Problem
from walras.calibrate.reporting.numbers import tick
from walras.calibrate.reporting.style import ALERT, COLOURS, INK, POSTERIOR, styled

_SIZE = (5.0, 3.2)  # inches
_LEVELS = np.linspace(0.01, 0.99, 99)
_DRAWS, _CURVES = 400, 100
_SCORES = np.linspace(-6.0, 6.0, 241)
_SCALES = 40


@styled
def plot_bid_quantiles(problem: Problem, tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Quantiles of the observed bids, relative to the reserve if there is one, among 90 % bands of the replicated ones.

    One line for each number of bidders. Needs the group `posterior_predictive`.
    """
    ax = _axes(ax)
    inputs, observed = problem.inputs, np.asarray(problem.observed)[:, 0]
    unit = np.asarray(inputs["log_reserve"])[np.asarray(inputs["auction"])] if "log_reserve" in inputs else 0.0
    replicated = tree["posterior_predictive"]["log_bid"].to_numpy().reshape(-1, observed.size)
    numbers = np.asarray(inputs["bidders"])[np.asarray(inputs["auction"])]
    for number, colour in zip(np.unique(numbers), COLOURS * 2, strict=False):
        rows = numbers == number
        bands = np.quantile(np.exp((replicated - unit)[:, rows]), _LEVELS, axis=1)
        low, high = np.quantile(bands, [0.05, 0.95], axis=1)
        ax.fill_between(_LEVELS, low, high, color=colour, alpha=0.25, linewidth=0)
        seen = np.quantile(np.exp((observed - unit)[rows]), _LEVELS)
        ax.plot(_LEVELS, seen, color=colour, label=f"{number:.0f} bidders")
    _logarithmic(ax)
    ax.set_xlabel("share of bids below")
    reserve = problem.observation.reserve
    ax.set_ylabel(f"bid / {reserve}" if reserve else f"bid ({problem.data.attrs['units'].get('bid', '')})".replace(" ()", ""))
    ax.legend()
    return ax


@styled
def plot_values(
    problem: Problem, tree: xr.DataTree, ax: Axes | None = None, *, beside: EstimatedValues | None = None, unit: float = 1.0
) -> Axes:
    """Quantiles of the values behind bids, with 90 % bands, in an average auction and over auctions' own scales.

    `beside`: a nonparametric estimate from the same bids, divided by `unit`: where a reserve binds, its mean log's exponential.
    It counts the auctions' own scales as private, so it is to be compared with the wider of the two.
    """
    ax = _axes(ax)
    for spread, colour, name in ((False, POSTERIOR, "values in an average auction"), (True, ALERT, "values of all auctions")):
        quantiles = value_quantiles(problem, tree, _LEVELS, over_auctions=spread)
        low, high = np.quantile(quantiles, [0.05, 0.95], axis=0)
        ax.fill_between(_LEVELS, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(_LEVELS, np.median(quantiles, axis=0), color=colour, label=name)
    if beside is not None:
        table = beside.quantiles
        ax.plot(table.index, table["value"] / unit, color=INK, linestyle="--", label="nonparametric")
    _logarithmic(ax)
    ax.set_xlabel("share of values below")
    reserve = problem.observation.reserve
    ax.set_ylabel(f"value / {reserve}" if reserve else "value")
    ax.legend()
    return ax


@styled
def plot_revenue(found: Revenue, ax: Axes | None = None) -> Axes:
    """Expected revenue against the reserve, with 90 % bands, and the best reserve, for each number of bidders."""
    ax = _axes(ax)
    for (number, curve), colour in zip(found.curve.groupby(level="bidders"), COLOURS * 2, strict=False):
        reserve = curve.index.get_level_values("reserve")
        ax.fill_between(reserve, curve["low"], curve["high"], color=colour, alpha=0.25, linewidth=0)
        ax.plot(reserve, curve["revenue"], color=colour, label=f"{number} bidders")
        best = found.best.loc[number, "reserve"]
        ax.axvline(best["mean"], color=colour, linestyle=":", linewidth=1.0)
    ax.set_xlabel(f"reserve ({found.unit})" if found.unit else "reserve")
    ax.set_ylabel(f"expected revenue ({found.unit})" if found.unit else "expected revenue")
    ax.legend()
    return ax


def story(problem: Problem, tree: xr.DataTree) -> list[tuple]:
    """What a report says of auctions: quantiles of bids, values, and what reserves would earn."""
    found = revenue(problem, tree, draws=_CURVES)
    sections = [
        (
            "Values",
            "What the good is worth to bidders, with 90 % bands, at average covariates: in an auction of average scale, and "
            "over the scales of all auctions. Bidders know the scale of their auction; they bid against each other's values "
            "in it, so the narrower distribution sets how far they bid below their values.",
            plot_values(problem, tree).figure,
        ),
        (
            "Reserves",
            [
                "Expected revenue of a seller who sets one reserve for auctions of average covariates and does not know their "
                "scale, with 90 % bands; dotted, the reserve that earns most. Values are taken to be the same whatever the "
                "number of bidders.",
                _flat(found.best),
            ],
            plot_revenue(found).figure,
        ),
    ]
    if "posterior_predictive" in tree.children:
        says = "Observed bids (lines) among the replications of the fit (90 % bands), by number of bidders."
        sections.insert(0, ("Quantiles of bids", says, plot_bid_quantiles(problem, tree).figure))
    return sections


def _flat(best):
    return best.set_axis([f"{what}, {which}" for what, which in best.columns], axis=1)


def value_quantiles(problem: Problem, tree: xr.DataTree, levels, *, over_auctions: bool = False) -> np.ndarray:
    """Quantiles of bidders' values at average covariates, (draws, levels), in the unit of bids, or of the reserve if it binds.

    Of an auction of average scale, or `over_auctions` of all scales; where a reserve binds, of those above it.
    """
    params, binding = drawn(problem, tree, _DRAWS), problem.observation.reserve is not None
    logs = np.asarray(jax.jit(jax.vmap(lambda one: jax.vmap(values_of(one))(_SCORES)))(params))
    scores = scipy.special.ndtri((np.arange(_SCALES) + 0.5) / _SCALES) if over_auctions else np.zeros(1)
    found = []
    for log_value, location, spread in zip(logs, params["location"], params["auction_spread"], strict=True):
        places = np.linspace(location - 8.0 * spread + log_value[0], location + 8.0 * spread + log_value[-1], 2000)
        below = scipy.special.ndtr(np.interp(places[None] - location - spread * scores[:, None], log_value, _SCORES))
        if binding:
            cut = scipy.special.ndtr(np.interp(-location - spread * scores, log_value, _SCORES))[:, None]
            below = np.clip((below - cut) / (1.0 - cut), 0.0, None)
        found.append(np.interp(levels, below.mean(axis=0), places))
    return np.exp(np.array(found))


def _logarithmic(ax: Axes):
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    # Not as formulas, which are not parsed in reports.
    ax.yaxis.set_major_formatter(FuncFormatter(tick))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=_SIZE)[1] if ax is None else ax
