"""Whether each of many fits can be trusted: the checks of a single fit, market by market."""

import json

import arviz as az
import numpy as np
import xarray as xr

from walras.calibrate.checks.checking import Report, judged
from walras.calibrate.checks.convergence import Worst, mixed, solver_check, trajectories
from walras.calibrate.checks.misfit import normal_scores, of_errors

DIAGNOSTICS = ("r_hat", "ess_bulk", "ess_tail")


def diagnosed(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """R̂ and bulk and tail effective sizes of parameters (markets, chains, draws, …), each (markets, 3, …)."""
    draws = az.convert_to_dataset(values, sample_dims=["market", "chain", "draw"])
    # The R̂ of chains that never move is infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (az.rhat(draws), az.ess(draws, method="bulk"), az.ess(draws, method="tail"))
    return {name: np.stack([kind[name].to_numpy() for kind in found], axis=1) for name in values}


def report_of(tree: xr.DataTree, market) -> Report:
    """The checks of one market in a tree of `fit_each`, those of a fit by itself but for draws of the prior."""
    diagnostics = tree["diagnostics"].to_dataset().sel(market=market)
    by_kind = {kind: [of.to_numpy() for of in diagnostics.sel(diagnostic=kind).data_vars.values()] for kind in DIAGNOSTICS}
    worst = Worst(
        max(float(np.max(array)) for array in by_kind["r_hat"]),
        min(float(np.min(array)) for array in by_kind["ess_bulk"]),
        min(float(np.min(array)) for array in by_kind["ess_tail"]),
    )
    statistics = tree["sample_stats"].to_dataset().sel(market=market)
    scores = normal_scores(tree["one_step_ahead"]["probability"].sel(market=market).to_numpy())
    depth = json.loads(tree.attrs["sampler"])["max_tree_depth"]
    checks = [
        *mixed(worst, statistics.sizes["chain"]),
        *trajectories(statistics, depth),
        solver_check(int(statistics["solver_failed"].sum())),
        *of_errors(scores, {}),
    ]
    return judged(worst, statistics, checks)
