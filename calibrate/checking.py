"""Whether a fit can be trusted: convergence, failures, and misfit, each with a verdict and a remedy."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

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
        return {"verdict": self.verdict, **record, "checks": list(record["checks"])}

    def __str__(self):
        lines = [f"{check.verdict:4}  {check.name} = {check.value:.4g}" for check in self.checks]
        remedies = [f"      {check.name}: {check.remedy}" for check in self.checks if check.verdict != "pass"]
        return "\n".join([*lines, *remedies])


def check(problem: Problem, tree: xr.DataTree) -> Report:
    """Judge the fit `tree` of `problem`: R̂, effective sizes, divergences, E-BFMI, tree depth, solver failures, misfit.

    R̂ ≤ 1.01 and effective sizes ≥ 400 pass (Vehtari et al. 2021); above 1.05, or below 100, they fail.
    """
    summary = az.summary(tree, var_names=problem.sampled, kind="diagnostics", round_to="none")
    worst = Worst(*(float(summary[c].astype(float).agg(f)) for c, f in _WORST))
    statistics = tree["sample_stats"].to_dataset()
    solved = float(tree.attrs.get("prior_solved", 1.0))
    return judged(
        worst,
        statistics,
        [
            *sampling(worst, statistics, json.loads(tree.attrs["sampler"]).get("max_tree_depth", 10)),
            Check(
                "prior_solved",
                _below(solved, 0.99, 0.5),
                solved,
                "the market has no equilibrium in much of the prior: narrow the priors",
            ),
            *misfit(forecast_transforms(tree)),
            *unlike(problem, tree),
        ],
    )


class Worst(NamedTuple):
    """The largest R̂ and the smallest effective sizes over parameters."""

    r_hat: float
    ess_bulk: float
    ess_tail: float


def judged(worst: Worst, statistics: xr.Dataset, checks: list[Check]) -> Report:
    """The report of checks that have been made."""
    divergences, failures = int(statistics["diverging"].sum()), int(statistics["solver_failed"].sum())
    return Report(worst.r_hat, worst.ess_bulk, divergences, failures, tuple(checks))


def sampling(worst: Worst, statistics: xr.Dataset, max_tree_depth: int) -> list[Check]:
    """Checks of how a posterior was drawn from, given the statistics (chain, draw) of its draws."""
    r_hat, bulk, tail = worst
    divergences, draws = int(statistics["diverging"].sum()), statistics["diverging"].size
    failures = int(statistics["solver_failed"].sum())
    saturated = float(np.mean(statistics["tree_depth"].to_numpy() >= max_tree_depth))
    return [
        Check(
            "r_hat",
            _above(r_hat, 1.01, 1.05),
            r_hat,
            "chains disagree: draw longer, or raise target_accept"
            if statistics.sizes["chain"] > 1
            else "one chain has nothing to agree with: run two or more",
        ),
        Check("ess_bulk", _below(bulk, 400, 100), bulk, "too few effective draws for the centre: draw longer"),
        Check("ess_tail", _below(tail, 400, 100), tail, "too few effective draws for the intervals: draw longer"),
        Check(
            "divergences",
            _above(divergences, 0, 0.01 * draws),
            divergences,
            "the sampler missed parts of the posterior: raise target_accept, or give narrower priors",
        ),
        Check("e_bfmi", _below(_e_bfmi(statistics), 0.3, 0.1), _e_bfmi(statistics), "heavy tails: give narrower priors"),
        Check(
            "tree_depth",
            _above(saturated, 0.0, 0.5),
            saturated,
            "trajectories were cut short: raise max_tree_depth, or give narrower priors",
        ),
        Check(
            "solver_failures",
            _above(failures, 0, 0),
            failures,
            "the market has no equilibrium at some draws: the posterior there is not to be trusted, narrow the priors",
        ),
    ]


_WORST = (("r_hat", "max"), ("ess_bulk", "min"), ("ess_tail", "min"))


def _above(value, warn, fail) -> Verdict:
    """Pass up to `warn`, fail beyond `fail`; a value that is not a number fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def _below(value, warn, fail) -> Verdict:
    return "pass" if value >= warn else "warn" if value >= fail else "fail"


def _e_bfmi(statistics) -> float:
    """The smallest over chains of E-BFMI: the share of energy's variance that one momentum draw explores."""
    energy = statistics["energy"].to_numpy()
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def forecast_transforms(tree: xr.DataTree) -> np.ndarray:
    """Where each observed value fell in its one-step-ahead distribution, as normal scores (rows,); NaN where missing.

    Standard normal and independent if the model is right.
    """
    return normal_scores(tree["one_step_ahead"]["probability"].mean(("chain", "draw")).to_numpy())


def normal_scores(probability: np.ndarray) -> np.ndarray:
    """The standard normal quantiles of probabilities, all finite but for NaN."""
    # Values farther than 8 standard deviations out have a probability that rounds to 0 or 1.
    smallest = np.finfo(float).eps / 2
    return scipy.stats.norm.ppf(np.clip(probability, smallest, 1.0 - smallest))


def misfit(scores: np.ndarray) -> list[Check]:
    """Checks of the one-step-ahead errors (rows,) as normal scores: their normality, correlation, and changing variance."""
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
