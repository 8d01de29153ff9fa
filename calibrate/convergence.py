"""Whether a sampler did its work: the checks that suit each of them."""

import json

import arviz as az
import numpy as np
import xarray as xr

from walras.calibrate.problem import Problem
from walras.calibrate.verdicts import Check, above, below

_WORST = (("r_hat", "max"), ("ess_bulk", "min"), ("ess_tail", "min"))


def mixing(problem: Problem, tree: xr.DataTree) -> tuple[float, ...]:
    """The largest R̂ and the smallest effective sizes, in bulk and tail, over the parameters; NaN of a single point."""
    if tree["posterior"].sizes["draw"] == 1:
        return (np.nan,) * 3
    summary = az.summary(tree, var_names=problem.sampled, kind="diagnostics", round_to="none")
    return tuple(float(summary[column].astype(float).agg(worst)) for column, worst in _WORST)


def convergence(tree: xr.DataTree, r_hat: float, bulk: float, tail: float) -> list[Check]:
    """The checks that suit how the draws came about, which the run's attributes and statistics tell."""
    if "gradient" in tree.attrs:
        return [*_climbing(tree), *_approximating(tree)]
    tempered = "temperatures" in tree.attrs
    longer = "raise particles" if tempered else "draw longer"
    disagree = (
        "runs disagree: raise particles" if tempered else "chains disagree: draw longer, or raise target_accept, or use SMC"
    )
    found = [
        Check(
            "r_hat",
            above(r_hat, 1.01, 1.05),
            r_hat,
            disagree if tree["posterior"].sizes["chain"] > 1 else "one chain has nothing to agree with: run two or more",
        ),
        Check("ess_bulk", below(bulk, 400, 100), bulk, f"too few effective draws for the centre: {longer}"),
        Check("ess_tail", below(tail, 400, 100), tail, f"too few effective draws for the intervals: {longer}"),
    ]
    return [*found, *(_tempering(tree) if tempered else _trajectories(tree))]


def _trajectories(tree: xr.DataTree) -> list[Check]:
    """Checks of Hamiltonian trajectories."""
    statistics = tree["sample_stats"]
    divergences, draws = int(statistics["diverging"].sum()), statistics["diverging"].size
    return [
        Check(
            "divergences",
            above(divergences, 0, 0.01 * draws),
            divergences,
            "the sampler missed parts of the posterior: raise target_accept, or give narrower priors",
        ),
        Check("e_bfmi", below(_e_bfmi(statistics), 0.3, 0.1), _e_bfmi(statistics), "heavy tails: give narrower priors"),
        Check(
            "tree_depth",
            above(_saturated(tree), 0.0, 0.5),
            _saturated(tree),
            "trajectories were cut short: raise max_tree_depth, or give narrower priors",
        ),
    ]


def _climbing(tree: xr.DataTree) -> list[Check]:
    """Checks of a mode: that it is one, and how many starts found it."""
    slope, starts, agreeing = (float(tree.attrs[name]) for name in ("gradient", "starts", "starts_agreeing"))
    return [
        Check("gradient", above(slope, 1e-3, 0.1), slope, "the mode was not reached: raise iterations"),
        Check(
            "starts_agreeing",
            below(agreeing, min(starts, 2.0), 1.0),
            agreeing,
            f"no other of {starts:.0f} starts found this mode, and a higher one may be missed: give more starts, or use SMC",
        ),
    ]


def _approximating(tree: xr.DataTree) -> list[Check]:
    """Checks of a normal distribution in place of the posterior."""
    found = []
    if "pareto_k" in tree.attrs:
        k = float(tree.attrs["pareto_k"])
        remedy = "the posterior is not normal, intervals of this approximation are not to be trusted: use NUTS"
        found += [Check("pareto_k", above(k, 0.7, 1.0), k, remedy)]
    if "elbo_change" in tree.attrs:
        change = float(tree.attrs["elbo_change"])
        found += [Check("elbo_change", above(change, 0.1, 1.0), change, "the bound was still rising: take more steps")]
    return found


def _tempering(tree: xr.DataTree) -> list[Check]:
    """Checks of sequential Monte Carlo: that particles moved, and that runs agree on the evidence."""
    acceptance, spread = (json.loads(tree.attrs[name]) for name in ("smallest_acceptance", "log_evidence_runs"))
    return [
        Check(
            "acceptance",
            below(acceptance, 0.4, 0.1),
            acceptance,
            "particles hardly moved at one temperature: raise moves, or particles",
        ),
        Check(
            "log_evidence_spread",
            above(float(np.std(spread)), 0.5, 2.0),
            float(np.std(spread)),
            "runs disagree on the evidence: raise particles, or moves",
        ),
    ]


def _e_bfmi(statistics) -> float:
    """The smallest over chains of E-BFMI: the share of energy's variance that one momentum draw explores."""
    energy = statistics["energy"].to_numpy()
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def _saturated(tree) -> float:
    """The share of draws whose trajectory reached the largest depth."""
    depth = tree["sample_stats"]["tree_depth"].to_numpy()
    return float(np.mean(depth >= json.loads(tree.attrs["sampler"]).get("max_tree_depth", 10)))
