"""Whether a sampler did its work: the checks that suit each of them."""

import json
from typing import NamedTuple

import arviz as az
import numpy as np
import xarray as xr

from walras.calibrate.checks.verdicts import Check, above, below
from walras.calibrate.problem import Problem

_WORST = (("r_hat", "max"), ("ess_bulk", "min"), ("ess_tail", "min"))


class Worst(NamedTuple):
    """The largest R̂ and the smallest effective sizes, in bulk and tail, over parameters; NaN of a single point."""

    r_hat: float
    ess_bulk: float
    ess_tail: float


def mixing(problem: Problem, tree: xr.DataTree) -> Worst:
    """How well the draws of a fit mix."""
    if tree["posterior"].sizes["draw"] == 1:
        return Worst(np.nan, np.nan, np.nan)
    summary = az.summary(tree, var_names=problem.sampled, kind="diagnostics", round_to="none")
    return Worst(*(float(summary[column].astype(float).agg(worst)) for column, worst in _WORST))


def convergence(tree: xr.DataTree, worst: Worst) -> list[Check]:
    """The checks that suit how the draws came about, which the run's attributes and statistics tell."""
    if "gradient" in tree.attrs:
        return [*_climbing(tree), *_approximating(tree)]
    chains = tree["posterior"].sizes["chain"]
    if "temperatures" in tree.attrs:
        return [*mixed(worst, chains, "runs disagree: raise particles", "raise particles"), *_tempering(tree)]
    depth = json.loads(tree.attrs["sampler"]).get("max_tree_depth", 10)
    return [*mixed(worst, chains), *trajectories(tree["sample_stats"].to_dataset(), depth)]


def mixed(
    worst: Worst,
    chains: int,
    disagree: str = "chains disagree: draw longer, or raise target_accept, or use SMC",
    longer: str = "draw longer",
) -> list[Check]:
    """Checks of whether chains agree, and are long enough."""
    agree = disagree if chains > 1 else "one chain has nothing to agree with: run two or more"
    return [
        Check("r_hat", above(worst.r_hat, 1.01, 1.05), worst.r_hat, agree),
        Check("ess_bulk", below(worst.ess_bulk, 400, 100), worst.ess_bulk, f"too few effective draws for the centre: {longer}"),
        Check(
            "ess_tail", below(worst.ess_tail, 400, 100), worst.ess_tail, f"too few effective draws for the intervals: {longer}"
        ),
    ]


def solver_check(failures: int) -> Check:
    """The check that the market has an equilibrium at every draw."""
    return Check(
        "solver_failures",
        above(failures, 0, 0),
        failures,
        "the market has no equilibrium at some draws: the posterior there is not to be trusted, narrow the priors",
    )


def trajectories(statistics: xr.Dataset, max_tree_depth: int) -> list[Check]:
    """Checks of Hamiltonian trajectories, from the statistics (chain, draw) of draws."""
    saturated = float(np.mean(statistics["tree_depth"].to_numpy() >= max_tree_depth))
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
            above(saturated, 0.0, 0.5),
            saturated,
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
