"""Whether a fit can be trusted: convergence, failures, and misfit, each with a verdict and a remedy."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

import arviz as az
import numpy as np
import scipy.stats
import xarray as xr

from walras.calibrate.predictive import predictive_statistics
from walras.calibrate.problem import Problem

type Verdict = Literal["pass", "warn", "fail"]

_ORDER = ("pass", "warn", "fail")
_MISFIT_LEVEL = 0.01  # false-alarm rate of each misfit check; misfit warns, it never fails a run


@dataclass(frozen=True)
class Check:
    """One check: its verdict, the value it judged, and what to do if it did not pass."""

    name: str
    verdict: Verdict
    value: float
    remedy: str


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

    def to_json(self) -> dict:
        record = asdict(self)
        # JSON has no NaN, which is the R̂ of a single point.
        plain = {name: None if value != value else value for name, value in record.items()}
        return {"verdict": self.verdict, **plain, "checks": list(record["checks"])}

    def __str__(self):
        lines = [f"{check.verdict:4}  {check.name} = {check.value:.4g}" for check in self.checks]
        remedies = [f"      {check.name}: {check.remedy}" for check in self.checks if check.verdict != "pass"]
        return "\n".join([*lines, *remedies])


def check(problem: Problem, tree: xr.DataTree) -> Report:
    """Judge the fit `tree` of `problem`: convergence of its sampler, solver failures, misfit.

    R̂ ≤ 1.01 and effective sizes ≥ 400 pass (Vehtari et al. 2021); above 1.05, or below 100, they fail. Approximations are
    judged by k̂ ≤ .7 in their place (Vehtari et al. 2024), a single point by its slope.
    """
    r_hat, bulk, tail = _mixing(problem, tree)
    statistics = tree["sample_stats"]
    divergences = int(statistics["diverging"].sum()) if "diverging" in statistics else 0
    failures = int(statistics["solver_failed"].sum())
    checks = [
        *_convergence(tree, r_hat, bulk, tail),
        Check(
            "solver_failures",
            _above(failures, 0, 0),
            failures,
            "the market has no equilibrium at some draws: the posterior there is not to be trusted, narrow the priors",
        ),
        Check(
            "prior_solved",
            _below(float(tree.attrs.get("prior_solved", 1.0)), 0.99, 0.5),
            float(tree.attrs.get("prior_solved", 1.0)),
            "the market has no equilibrium in much of the prior: narrow the priors",
        ),
        *misfit(tree),
        *unlike(problem, tree),
    ]
    return Report(r_hat, bulk, divergences, failures, tuple(checks))


_WORST = (("r_hat", "max"), ("ess_bulk", "min"), ("ess_tail", "min"))


def _mixing(problem: Problem, tree: xr.DataTree) -> tuple[float, ...]:
    """The largest R̂ and the smallest effective sizes, in bulk and tail, over the parameters; NaN of a single point."""
    if tree["posterior"].sizes["draw"] == 1:
        return (np.nan,) * 3
    summary = az.summary(tree, var_names=problem.sampled, kind="diagnostics", round_to="none")
    return tuple(float(summary[column].astype(float).agg(worst)) for column, worst in _WORST)


def _convergence(tree: xr.DataTree, r_hat: float, bulk: float, tail: float) -> list[Check]:
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
            _above(r_hat, 1.01, 1.05),
            r_hat,
            disagree if tree["posterior"].sizes["chain"] > 1 else "one chain has nothing to agree with: run two or more",
        ),
        Check("ess_bulk", _below(bulk, 400, 100), bulk, f"too few effective draws for the centre: {longer}"),
        Check("ess_tail", _below(tail, 400, 100), tail, f"too few effective draws for the intervals: {longer}"),
    ]
    return [*found, *(_tempering(tree) if tempered else _trajectories(tree))]


def _trajectories(tree: xr.DataTree) -> list[Check]:
    """Checks of Hamiltonian trajectories."""
    statistics = tree["sample_stats"]
    divergences, draws = int(statistics["diverging"].sum()), statistics["diverging"].size
    return [
        Check(
            "divergences",
            _above(divergences, 0, 0.01 * draws),
            divergences,
            "the sampler missed parts of the posterior: raise target_accept, or give narrower priors",
        ),
        Check("e_bfmi", _below(_e_bfmi(statistics), 0.3, 0.1), _e_bfmi(statistics), "heavy tails: give narrower priors"),
        Check(
            "tree_depth",
            _above(_saturated(tree), 0.0, 0.5),
            _saturated(tree),
            "trajectories were cut short: raise max_tree_depth, or give narrower priors",
        ),
    ]


def _climbing(tree: xr.DataTree) -> list[Check]:
    """Checks of a mode: that it is one, and how many starts found it."""
    slope, starts, agreeing = (float(tree.attrs[name]) for name in ("gradient", "starts", "starts_agreeing"))
    return [
        Check("gradient", _above(slope, 1e-3, 0.1), slope, "the mode was not reached: raise iterations"),
        Check(
            "starts_agreeing",
            _below(agreeing, min(starts, 2.0), 1.0),
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
        found += [Check("pareto_k", _above(k, 0.7, 1.0), k, remedy)]
    if "elbo_change" in tree.attrs:
        change = float(tree.attrs["elbo_change"])
        found += [Check("elbo_change", _above(change, 0.1, 1.0), change, "the bound was still rising: take more steps")]
    return found


def _tempering(tree: xr.DataTree) -> list[Check]:
    """Checks of sequential Monte Carlo: that particles moved, and that runs agree on the evidence."""
    acceptance, spread = (json.loads(tree.attrs[name]) for name in ("smallest_acceptance", "log_evidence_runs"))
    return [
        Check(
            "acceptance",
            _below(acceptance, 0.4, 0.1),
            acceptance,
            "particles hardly moved at one temperature: raise moves, or particles",
        ),
        Check(
            "log_evidence_spread",
            _above(float(np.std(spread)), 0.5, 2.0),
            float(np.std(spread)),
            "runs disagree on the evidence: raise particles, or moves",
        ),
    ]


def _above(value, warn, fail) -> Verdict:
    """Pass up to `warn`, fail beyond `fail`; a value that is not a number fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def _below(value, warn, fail) -> Verdict:
    return "pass" if value >= warn else "warn" if value >= fail else "fail"


def _e_bfmi(statistics) -> float:
    """The smallest over chains of E-BFMI: the share of energy's variance that one momentum draw explores."""
    energy = statistics["energy"].to_numpy()
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def _saturated(tree) -> float:
    """The share of draws whose trajectory reached the largest depth."""
    depth = tree["sample_stats"]["tree_depth"].to_numpy()
    return float(np.mean(depth >= json.loads(tree.attrs["sampler"]).get("max_tree_depth", 10)))


def forecast_transforms(tree: xr.DataTree) -> np.ndarray:
    """Where each observed value fell in its one-step-ahead distribution, as normal scores (rows,); NaN where missing.

    Standard normal and independent if the model is right.
    """
    probability = tree["one_step_ahead"]["probability"].mean(("chain", "draw")).to_numpy()
    # Values farther than 8 standard deviations out have a probability that rounds to 0 or 1.
    smallest = np.finfo(float).eps / 2
    return scipy.stats.norm.ppf(np.clip(probability, smallest, 1.0 - smallest))


def misfit(tree: xr.DataTree) -> list[Check]:
    """Checks of the one-step-ahead errors: their normality, correlation, and changing variance."""
    scores = forecast_transforms(tree)
    scores = scores[np.isfinite(scores)]
    if scores.size < 20:
        return []
    shape = scipy.stats.kstest(scores, "norm").pvalue
    return [
        Check(
            "forecast_calibration",
            _below(shape, _MISFIT_LEVEL, 0.0),
            shape,
            "one-step-ahead errors are not spread as predicted: fit logs, or heavier-tailed noise",
        ),
        Check(
            "forecast_correlation",
            _below(_correlation_p(scores), _MISFIT_LEVEL, 0.0),
            _correlation_p(scores),
            "one-step-ahead errors are correlated: the model misses dynamics, such as a covariate or persistent errors",
        ),
        Check(
            "forecast_volatility",
            _below(_correlation_p(scores**2), _MISFIT_LEVEL, 0.0),
            _correlation_p(scores**2),
            "large errors follow large errors: the volatility is not constant, widen forecasts or model it",
        ),
    ]


def unlike(problem: Problem, tree: xr.DataTree) -> list[Check]:
    """Checks of the statistics that the observation names, where the tree has replications: two-sided p-values.

    The data count as one replication more, so that few replications do not raise false alarms; fewer than 200 raise none.
    """
    statistics = predictive_statistics(problem, tree)
    if statistics.empty:
        return []
    replications = tree["posterior_predictive"].sizes["chain"] * tree["posterior_predictive"].sizes["draw"]
    return [
        Check(
            f"replicated: {name}",
            _below(2.0 * (replications * min(row["p"], 1.0 - row["p"]) + 1.0) / (replications + 1.0), _MISFIT_LEVEL, 0.0),
            row["observed"],
            f"replications have {row['5 %']:.3g} to {row['95 %']:.3g}, so the market does not explain this of the data",
        )
        for name, row in statistics.iterrows()
    ]


def _correlation_p(series) -> float:
    """The p-value of no first-order autocorrelation."""
    return float(scipy.stats.pearsonr(series[1:], series[:-1]).pvalue)
