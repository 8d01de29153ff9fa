"""How the posterior answers to a stronger or weaker prior, and to stronger or weaker data."""

import logging

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.checks.verdicts import Check, above
from walras.calibrate.problem import Problem

THRESHOLD = 0.05  # of Kallioinen et al., Stat. Comput. 34 (2024)
_NAMED = 6  # parameters that a sentence names


def power_scaling(problem: Problem, tree: xr.DataTree) -> pd.DataFrame | None:
    """For each element of each sampled parameter, the sensitivity of its posterior to powers of `prior` and `likelihood`.

    The rate at which the posterior's distribution function moves (in Jensen–Shannon distance) as the density is raised to a
    power, per doubling of the power (Kallioinen et al. 2024). None for a run saved before log p(y | θ) was kept.
    """
    if "log_likelihood" not in tree["sample_stats"]:
        return None
    groups = {
        "posterior": tree["posterior"].to_dataset()[problem.sampled],
        "log_prior": tree["log_prior"].to_dataset(),
        "log_likelihood": tree["sample_stats"].to_dataset()[["log_likelihood"]],
    }
    logger = logging.getLogger("arviz_stats.psense")
    before = logger.level
    logger.setLevel(logging.ERROR)  # what it would remark upon is what the checks say
    try:
        return az.psense_summary(xr.DataTree.from_dict(groups), round_to=12)[["prior", "likelihood"]]
    finally:
        logger.setLevel(before)


def prior_checks(problem: Problem, tree: xr.DataTree) -> list[Check]:
    """Whether prior and data pull a parameter apart, or the prior alone speaks of one. Values: the highest sensitivity."""
    if tree["posterior"].sizes["draw"] == 1:
        return []
    found = power_scaling(problem, tree)
    if found is None:
        old = "the run was saved by an earlier version, without what this takes: fit again"
        return [Check("prior_sensitivity", "warn", float("nan"), old)]
    sensitive = found["prior"] >= THRESHOLD
    silent = found["likelihood"] < THRESHOLD
    return [
        _judged(
            "prior_data_conflict",
            found["prior"][sensitive & ~silent],
            "prior and data pull apart, or share in, {}: look at both, and justify the prior's width or widen it",
        ),
        _judged(
            "prior_sensitivity",
            found["prior"][sensitive & silent],
            "the prior alone says what is known of {}: report it as assumed, or fix it",
        ),
    ]


def _judged(name: str, sensitivity: pd.Series, remedy: str) -> Check:
    ordered = sensitivity.sort_values(ascending=False)
    names = ", ".join(map(str, ordered.index[:_NAMED]))
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    value = float(ordered.iloc[0]) if len(ordered) else 0.0
    return Check(name, above(value, np.nextafter(THRESHOLD, 0.0), np.inf), value, remedy.format(names + more or "no parameter"))
