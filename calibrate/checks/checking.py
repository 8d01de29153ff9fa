"""Whether a fit can be trusted: convergence, failures, and misfit, each with a verdict and a remedy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr

from walras.calibrate.checks.convergence import Worst, convergence, mixing, solver_check
from walras.calibrate.checks.misfit import forecast_transforms, in_words, misfit, unlike
from walras.calibrate.checks.power_scaling import prior_checks
from walras.calibrate.checks.verdicts import Check, Verdict, below
from walras.calibrate.problem import Problem

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
            "r_hat": _plain(self.r_hat),
            "ess_bulk": _plain(self.ess_bulk),
            "misspecification": self.misspecification,
            "checks": [{**one, "value": _plain(one["value"])} for one in record["checks"]],
        }

    def __str__(self):
        lines = [f"{check.verdict:4}  {check.name} = {check.value:.4g}" for check in self.checks]
        remedies = [f"      {check.name}: {check.remedy}" for check in self.checks if check.verdict != "pass"]
        return "\n".join([*lines, *remedies, *filter(None, [self.misspecification])])


def check(problem: Problem, tree: xr.DataTree) -> Report:
    """Judge the fit `tree` of `problem`: convergence of its sampler, solver failures, what the prior says, and misfit.

    R̂ ≤ 1.01 and effective sizes ≥ 400 pass (Vehtari et al. 2021); above 1.05, or below 100, they fail. Approximations are
    judged by k̂ ≤ .7 in their place (Vehtari et al. 2024), a single point by its slope. The prior's say is judged by
    power-scaling, misfit by one-step-ahead errors, by rows left out, and by replications where the tree has them; they warn
    and never fail a run.
    """
    worst, statistics = mixing(problem, tree), tree["sample_stats"].to_dataset()
    checks = [
        *convergence(tree, worst),
        solver_check(int(statistics["solver_failed"].sum())),
        Check(
            "prior_solved",
            below(float(tree.attrs.get("prior_solved", 1.0)), 0.99, 0.5),
            float(tree.attrs.get("prior_solved", 1.0)),
            "the market has no equilibrium in much of the prior: narrow the priors",
        ),
        *prior_checks(problem, tree),
        *misfit(problem, tree),
    ]
    return judged(worst, statistics, checks)


def judged(worst: Worst, statistics: xr.Dataset, checks: Sequence[Check]) -> Report:
    """The report of checks that have been made, of draws with these statistics."""
    divergences = int(statistics["diverging"].sum()) if "diverging" in statistics else 0
    return Report(worst.r_hat, worst.ess_bulk, divergences, int(statistics["solver_failed"].sum()), tuple(checks))


def _plain(value: float) -> float | None:
    """JSON has no number for what is not finite."""
    return value if np.isfinite(value) else None
