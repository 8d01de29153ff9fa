"""Whether a fit can be trusted: convergence, failures, and misfit, each with a verdict and a remedy."""

import json
from dataclasses import asdict, dataclass

import arviz as az
import numpy as np
import xarray as xr

from walras.calibrate.misfit import forecast_transforms, in_words, misfit, unlike
from walras.calibrate.power_scaling import prior_checks
from walras.calibrate.problem import Problem
from walras.calibrate.verdicts import Check, Verdict, above, below

__all__ = ["Check", "Report", "check", "forecast_transforms", "unlike"]

_ORDER = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Report:
    """The checks of a fit. `verdict` is the worst of them; `to_json` is the content of check.json."""

    r_hat: float
    ess_bulk: float
    divergences: int
    solver_failures: int
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        return max((check.verdict for check in self.checks), key=_ORDER.index)

    @property
    def misspecification(self) -> str:
        """What the checks of misfit say together, in one sentence; empty where all pass."""
        return in_words(list(self.checks))

    def to_json(self) -> dict:
        record = asdict(self)
        return {
            "verdict": self.verdict,
            **record,
            "misspecification": self.misspecification,
            "checks": [{**one, "value": _plain(one["value"])} for one in record["checks"]],
        }

    def __str__(self):
        lines = [f"{check.verdict:4}  {check.name} = {check.value:.4g}" for check in self.checks]
        remedies = [f"      {check.name}: {check.remedy}" for check in self.checks if check.verdict != "pass"]
        return "\n".join([*lines, *remedies, *filter(None, [self.misspecification])])


def check(problem: Problem, tree: xr.DataTree) -> Report:
    """Judge the fit `tree` of `problem`: convergence, solver failures, what the prior says, and misfit.

    R̂ ≤ 1.01 and effective sizes ≥ 400 pass (Vehtari et al. 2021); above 1.05, or below 100, they fail. The prior's say is
    judged by power-scaling, misfit by one-step-ahead errors, by rows left out, and by replications where the tree has them;
    they warn and never fail a run.
    """
    summary = az.summary(tree, var_names=problem.sampled, kind="diagnostics", round_to="none")
    statistics = tree["sample_stats"]
    divergences, draws = int(statistics["diverging"].sum()), statistics["diverging"].size
    failures = int(statistics["solver_failed"].sum())
    r_hat, bulk, tail = (float(summary[c].astype(float).agg(f)) for c, f in _WORST)
    checks = [
        Check(
            "r_hat",
            above(r_hat, 1.01, 1.05),
            r_hat,
            "chains disagree: draw longer, or raise target_accept"
            if tree["posterior"].sizes["chain"] > 1
            else "one chain has nothing to agree with: run two or more",
        ),
        Check("ess_bulk", below(bulk, 400, 100), bulk, "too few effective draws for the centre: draw longer"),
        Check("ess_tail", below(tail, 400, 100), tail, "too few effective draws for the intervals: draw longer"),
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
        Check(
            "solver_failures",
            above(failures, 0, 0),
            failures,
            "the market has no equilibrium at some draws: the posterior there is not to be trusted, narrow the priors",
        ),
        Check(
            "prior_solved",
            below(float(tree.attrs.get("prior_solved", 1.0)), 0.99, 0.5),
            float(tree.attrs.get("prior_solved", 1.0)),
            "the market has no equilibrium in much of the prior: narrow the priors",
        ),
        *prior_checks(problem, tree),
        *misfit(problem, tree),
    ]
    return Report(r_hat, bulk, divergences, failures, tuple(checks))


def _plain(value: float) -> float | None:
    """JSON has no number for what is not finite."""
    return value if np.isfinite(value) else None


_WORST = (("r_hat", "max"), ("ess_bulk", "min"), ("ess_tail", "min"))


def _e_bfmi(statistics) -> float:
    """The smallest over chains of E-BFMI: the share of energy's variance that one momentum draw explores."""
    energy = statistics["energy"].to_numpy()
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def _saturated(tree) -> float:
    """The share of draws whose trajectory reached the largest depth."""
    depth = tree["sample_stats"]["tree_depth"].to_numpy()
    return float(np.mean(depth >= json.loads(tree.attrs["sampler"]).get("max_tree_depth", 10)))
