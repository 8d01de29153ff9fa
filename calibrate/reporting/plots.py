"""The pictures of a report, one function each; they return matplotlib axes or figures and serve notebooks as well."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
import xarray as xr
from arviz_base.labels import BaseLabeller
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from walras.calibrate.checks.checking import forecast_transforms
from walras.calibrate.problem import Problem
from walras.calibrate.reporting import contents
from walras.calibrate.reporting.numbers import tick
from walras.calibrate.reporting.style import ALERT, INK, MIDDLE, PALE, POSTERIOR, PRIOR, RULE, SOFT, styled

WIDTH = 10.0  # inches
_COLUMNS = 4
_PANELS = 24  # of a trace plot
_TRACE_DRAWS = 500  # per chain
_TITLE = {"size": 9, "color": INK}
_LOG_FORMAT = FuncFormatter(lambda value, _: tick(10.0**value))


@styled
def plot_fit(problem: Problem, tree: xr.DataTree, ax: Axes | None = None, rows: slice = slice(None)) -> Axes:
    """The first target in `rows` with 50 % and 90 % bands of its one-step-ahead prediction; gaps stay empty."""
    ax = ax if ax is not None else plt.subplots(figsize=(WIDTH, 3.6))[1]
    name = contents.target(problem)
    observed = tree["observed_data"][name].to_numpy()
    places = contents.positions(problem.data.index, observed.size)[rows]
    bands = {p: band[:, rows] for p, band in contents.bands(tree).items()}
    _draw_bands(ax, places, bands)
    low, high = bands[0.9]
    outside = (observed[rows] < low) | (observed[rows] > high)
    dot = {"marker": "o", "linestyle": "none", "markersize": 4 if places.size <= 250 else 1.5}
    ax.plot(places[~outside], observed[rows][~outside], color=INK, label="observed", **dot)
    if outside.any():
        ax.plot(places[outside], observed[rows][outside], color=ALERT, label="observed, outside the 90 % band", **dot)
    _part(ax, problem.data.index[rows], places)
    _finish(ax, _index_label(problem), _with_unit(problem, name))
    return ax


@styled
def plot_path(problem: Problem, tree: xr.DataTree, name: str) -> Figure:
    """The reconstructed series `name` with 50 % and 90 % bands, and the column that it is named after where known.

    A series over the rows of the data is drawn over that column; one on a grid of its own above it.
    """
    path = contents.posterior(tree)[name]
    dimension = next(d for d in path.dims if d not in ("chain", "draw"))
    column = contents.column_of(problem, name)
    over_rows = dimension in tree["observed_data"].dims
    panels = 1 if over_rows or column is None else 2
    figure, axes = plt.subplots(panels, 1, figsize=(WIDTH, 1.0 + 2.4 * panels), squeeze=False)
    places = _own_positions(problem, path, dimension, over_rows)
    bands = {p: path.quantile([(1 - p) / 2, (1 + p) / 2], ("chain", "draw")).to_numpy() for p in (0.5, 0.9)}
    _draw_bands(axes[0, 0], places, bands)
    if column is not None:
        last = axes[-1, 0]
        times = contents.positions(problem.data.index, len(problem.data))
        last.plot(times, problem.data[column], "o", color=INK, markersize=3.5, label=f"{column}, observed")
        if panels == 2:
            _finish(last, _index_label(problem), _with_unit(problem, column))
    label = _index_label(problem) if over_rows else str(dimension)
    _finish(axes[0, 0], label, _with_unit(problem, column, name) if column else name)
    return figure


@styled
def plot_prior_posterior(problem: Problem, tree: xr.DataTree) -> Figure:
    """Prior (grey) and posterior densities of each sampled parameter; vectors of more than twenty are left out.

    Axes are logarithmic, and densities are of the logarithm, where a linear axis would show nothing.
    """
    prior, posterior = contents.prior_draws(problem, tree), contents.posterior(tree)
    names = contents.short(problem, tree)
    logs = {name for name in names if contents.wide(prior[name], posterior[name])}
    groups = {
        label: xr.Dataset({n: np.log10(draws[n]) if n in logs else draws[n] for n in names})
        for label, draws in (("prior", prior), ("posterior", posterior))
    }
    drawn = az.plot_prior_posterior(
        xr.DataTree.from_dict(groups),
        **_grid(tree, names, 1.5),
        visuals={"title": _TITLE},
    )
    for name in names:
        for ax in np.ravel(drawn.viz["plot"][name].to_numpy()):
            _dress_density(ax, name in logs)
    return _relegend(drawn.viz["figure"].item(), ["prior", "posterior"], [PRIOR, POSTERIOR])


@styled
def plot_long_vector(problem: Problem, tree: xr.DataTree, name: str) -> Figure:
    """Means and 90 % intervals of the elements of a long vector parameter, over the prior's."""
    posterior, prior = contents.posterior(tree)[name], contents.prior_draws(problem, tree)[name]
    labels = contents.elements(posterior)
    places = np.arange(len(labels))
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    low, high = prior.quantile([0.05, 0.95], ("chain", "draw")).to_numpy().reshape(2, -1)
    ax.vlines(places, low, high, color=RULE, linewidth=3, label="prior, 90 %")
    low, high = posterior.quantile([0.05, 0.95], ("chain", "draw")).to_numpy().reshape(2, -1)
    ax.vlines(places, low, high, color=POSTERIOR, linewidth=1.5, label="posterior, 90 %")
    ax.plot(places, posterior.mean(("chain", "draw")).to_numpy().ravel(), "o", color=POSTERIOR, markersize=3)
    shown = places[:: max(1, len(labels) // 24)]
    ax.set_xticks(shown, [labels[i] for i in shown], rotation=60, ha="right")
    _finish(ax, "", name)
    return figure


@styled
def plot_traces(problem: Problem, tree: xr.DataTree) -> Figure:
    """Traces of the sampled parameters; the first to 24 panels, without vectors of more than twenty elements."""
    posterior, names = contents.posterior(tree), _panelled(problem, tree)
    drawn = az.plot_trace(
        _thinned(tree),
        **_grid(tree, names, 1.35),
        visuals={"trace": {"width": 0.5, "alpha": 0.8}, "title": _TITLE, "xlabel": False},
    )
    for name in names:
        logarithmic = contents.wide(posterior[name])
        for ax in np.ravel(drawn.viz["plot"][name].to_numpy()):
            if logarithmic:
                ax.set_yscale("log")
                ax.yaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_major_locator(LogLocator(numticks=4) if logarithmic else MaxNLocator(3))
            ax.yaxis.set_major_formatter(FuncFormatter(tick))
    return drawn.viz["figure"].item()


@styled
def plot_ranks(problem: Problem, tree: xr.DataTree) -> Figure:
    """How far the distribution of ranks of each chain's draws, among those of all chains, is from uniform.

    Chains that agree stay in the grey band, all of them in 99 of 100 panels: Kolmogorov's limit for as many independent
    draws as each chain's effective sample size. Needs two chains. Panels as in `plot_traces`.
    """
    names, thinned = _panelled(problem, tree), _thinned(tree)
    # ArviZ's own envelope is off: it takes draws for independent, and is far too wide for two chains.
    drawn = az.plot_rank(
        thinned,
        **_grid(tree, names, 1.35),
        method="envelope",
        thin=False,
        stats={"ecdf_pit": {"n_simulations": 1}},
        visuals={"ecdf_lines": {"width": 1.0}, "credible_interval": False, "title": _TITLE, "xlabel": False},
    )
    limits = _rank_limits(contents.posterior(thinned)[names])
    for name in names:
        axes = np.ravel(drawn.viz["plot"][name].to_numpy())
        for ax, limit in zip(axes, np.ravel(limits[name].to_numpy()), strict=True):
            ax.axhspan(-limit, limit, color=RULE, alpha=0.6, linewidth=0)
            reach = max(1.3 * limit, *(np.abs(line.get_ydata()).max() * 1.05 for line in ax.lines))
            ax.set_ylim(-reach, reach)
    return drawn.viz["figure"].item()


def _rank_limits(draws: xr.Dataset) -> xr.Dataset:
    """Kolmogorov's limit for one chain against all, of each element.

    Effective sizes are those of single chains: the size of all together shrinks when chains disagree, which would widen
    the band just when it must not.
    """
    chains = draws.sizes["chain"]
    effective = az.ess(draws, sample_dims=["draw"]).mean("chain")
    return scipy.special.kolmogi(0.01 / chains) * np.sqrt((1.0 - 1.0 / chains) / effective)


@styled
def plot_replications(tree: xr.DataTree, name: str) -> Figure:
    """Statistics of simulated series of `name` against those of the data; p is the share at least as large."""
    simulated, observed = contents.replications(tree, name)
    theirs, ours, shares = contents.statistics(simulated), contents.statistics(observed), contents.replication_p(tree, name)
    figure, axes = plt.subplots(1, len(ours), figsize=(WIDTH, 2.1))
    for ax, label in zip(axes, ours, strict=True):
        values = theirs[label][np.isfinite(theirs[label])]
        odd = not 0.01 <= shares[label] <= 0.99
        low, high = np.quantile(values, [0.005, 0.995]) if values.size else (0.0, 0.0)
        if high - low > 1e-9 * max(abs(low), abs(high)):
            ax.hist(values, bins=25, range=(low, high), color=MIDDLE)
        elif values.size:
            ax.axvline(high, color=MIDDLE, linewidth=6)  # all alike, as is the lag-1 autocorrelation of two rows
        ax.axvline(float(ours[label]), color=ALERT if odd else INK, linewidth=2)
        ax.set_title(f"{label}\np = {shares[label]:.2f}", color=ALERT if odd else INK)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_formatter(FuncFormatter(tick))
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    return figure


@styled
def plot_forecast_errors(tree: xr.DataTree) -> Figure:
    """One-step-ahead errors: their probability transforms, normal scores, and autocorrelation."""
    scores = forecast_transforms(tree)
    scores = scores[np.isfinite(scores)]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.6))
    _transforms(left, scores)
    _normal_scores(middle, scores)
    _autocorrelations(right, scores)
    return figure


def _transforms(ax, scores):
    bins = 10 if scores.size >= 50 else 5
    low, high = scipy.stats.binom.interval(0.95, scores.size, 1 / bins)
    ax.axhspan(low, high, color=RULE, alpha=0.6, linewidth=0)
    ax.hist(scipy.stats.norm.cdf(scores), bins=np.linspace(0, 1, bins + 1), color=MIDDLE, edgecolor="white")
    ax.set_title("Where values fell in their predictions")
    ax.set_xlabel("predicted probability of a smaller value")
    ax.set_ylabel("rows")


def _normal_scores(ax, scores):
    expected, ordered = np.asarray(scipy.stats.probplot(scores, fit=False))
    ends = [np.minimum(expected, ordered).min(), np.maximum(expected, ordered).max()] if scores.size else [0, 1]
    ax.plot(ends, ends, color=SOFT, linewidth=0.8)
    ax.plot(expected, ordered, "o", color=POSTERIOR, markersize=3)
    ax.set_title("Errors in standard deviations, ordered")
    ax.set_xlabel("expected if normal")
    ax.set_ylabel("found")


def _autocorrelations(ax, scores):
    ax.set_title("Autocorrelation of the errors")
    lags = min(20, scores.size - 1)
    if lags < 2:
        return
    limit = 1.96 / np.sqrt(scores.size)
    ax.axhspan(-limit, limit, color=RULE, alpha=0.6, linewidth=0)
    ax.acorr(scores - scores.mean(), maxlags=lags, color=POSTERIOR, linewidth=2.5)
    ax.set_xlim(0.3, lags + 0.7)
    reach = max(0.4, 1.1 * float(np.abs(np.correlate(scores, scores, "full")[scores.size :]).max() / (scores @ scores)))
    ax.set_ylim(-reach, reach)
    ax.set_xlabel("lag, in rows")


def _draw_bands(ax, places, bands):
    """Intervals (2, rows) by probability as steps, each as wide as the usual distance between rows."""
    for probability, colour in ((0.9, PALE), (0.5, MIDDLE)):
        x, low, high = _steps(places, *bands[probability])
        ax.fill_between(x, low, high, color=colour, linewidth=0, label=f"{100 * probability:.0f} % band")


def _steps(places, low, high):
    """Corners of the steps; a step ends where no row follows within one and a half usual distances, and NaN parts them."""
    if places.size == 1:
        half = np.timedelta64(12, "h") if np.issubdtype(places.dtype, np.datetime64) else 0.5
        return np.array([places[0] - half, places[0] + half]), np.repeat(low, 2), np.repeat(high, 2)
    between = np.diff(places)
    usual = np.median(between)
    reach = np.minimum(between, usual) / 2
    left, right = np.append(usual / 2, reach), np.append(reach, usual / 2)
    x = np.stack([places - left, places + right, places + right], 1).ravel()
    parted = np.append(between > 1.5 * usual, True)
    low, high = (np.stack([v, v, np.where(parted, np.nan, v)], 1).ravel() for v in (low, high))
    return x, low, high


def _part(ax, index, places):
    """Lines between the markets of a panel, and their names where these have room."""
    if "market" not in index.names:
        return
    names = index.get_level_values("market")
    first = np.flatnonzero(names[1:] != names[:-1]) + 1
    for place in first:
        ax.axvline(places[place] - 0.5, color=RULE, linewidth=0.8, zorder=0)
    ends = np.array([0, *first, len(names)])
    if ends.size - 1 <= _PANELS:
        ax.set_xticks((places[ends[:-1]] + places[ends[1:] - 1]) / 2, names[ends[:-1]])


def _finish(ax, xlabel, ylabel):
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.margins(x=0.01)
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)


def _index_label(problem) -> str:
    index = problem.data.index
    name = " × ".join(str(n) for n in index.names if n is not None) or ("date" if _dated(index) else "row")
    unit = problem.data.attrs.get("time_unit", "") if index.nlevels == 1 and not _dated(index) else ""
    return f"{name} ({unit})" if unit else name


def _dated(index) -> bool:
    return pd.api.types.is_datetime64_any_dtype(index)


def _with_unit(problem, column, label=None) -> str:
    unit = problem.data.attrs.get("units", {}).get(column, "")
    return f"{label or column} ({unit})" if unit and unit != "1" else str(label or column)


def _own_positions(problem, path, dimension, over_rows):
    rows = path.sizes[dimension]
    if over_rows:
        return contents.positions(problem.data.index, rows)
    return contents.positions(path.indexes[dimension], rows) if dimension in path.indexes else np.arange(rows)


def _dress_density(ax, logarithmic):
    for line, colour in zip(ax.lines, (PRIOR, POSTERIOR), strict=False):
        line.set_color(colour)
        ax.fill_between(line.get_xdata(), line.get_ydata(), color=colour, alpha=0.35, linewidth=0)
    ax.set_xlim(*_middle(*ax.lines[:2]))
    ax.set_ylim(bottom=0)
    # whole powers of ten where the axis spans several
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=logarithmic and np.ptp(ax.get_xlim()) > 2))
    ax.xaxis.set_major_formatter(_LOG_FORMAT if logarithmic else FuncFormatter(tick))


def _middle(prior, posterior):
    """The range of the posterior and of the middle 99 % of the prior, whose far tails would squeeze the picture."""
    x, density, places = (np.asarray(a) for a in (prior.get_xdata(), prior.get_ydata(), posterior.get_xdata()))
    share = np.cumsum(density) / np.sum(density)
    low, high = np.interp([0.005, 0.995], share, x)
    return min(float(low), float(places.min())), max(float(high), float(places.max()))


def _relegend(figure, labels, colours):
    for legend in list(figure.legends):
        legend.remove()
    handles = [Line2D([], [], color=colour, linewidth=5, alpha=0.6) for colour in colours]
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def _panelled(problem, tree):
    """The parameters whose elements are drawn one by one, as many as fit."""
    names, posterior = contents.short(problem, tree), contents.posterior(tree)
    while len(names) > 1 and sum(contents.size(posterior[n]) for n in names) > _PANELS:
        names = names[:-1]
    return names


def _grid(tree, names, height):
    """What ArviZ's plots of a panel for each element of `names` have in common."""
    panels = sum(contents.size(contents.posterior(tree)[name]) for name in names)
    return {
        "var_names": names,
        "labeller": _OneLine(),
        "col_wrap": _COLUMNS,
        "backend": "matplotlib",
        "figure_kwargs": {"figsize": (WIDTH, 0.5 + height * -(-panels // _COLUMNS))},
    }


def _thinned(tree):
    draws = tree["posterior"].sizes["draw"]
    kept = np.linspace(0, draws - 1, min(draws, _TRACE_DRAWS)).astype(int)
    groups = ("posterior", "sample_stats")
    return xr.DataTree.from_dict({name: tree[name].to_dataset().isel(draw=kept) for name in groups})


class _OneLine(BaseLabeller):
    """ArviZ's labels with the element beside the name rather than below it."""

    def make_label_vert(self, *args, **kwargs):
        return self.make_label_flat(*args, **kwargs)
