"""Whether data look like what a fit predicts: forecast errors, rows left out, and replications."""

from collections.abc import Mapping

import numpy as np
import scipy.stats
import xarray as xr
from arviz_stats.base.array import array_stats

from walras.calibrate.checks.verdicts import Check, below
from walras.calibrate.comparisons.leaving_out import weights_without
from walras.calibrate.predictions.predictive import predictive_statistics
from walras.calibrate.problem import Problem

LEVEL = 0.01  # false-alarm rate of each check; misfit warns, it never fails a run
_FEWEST = 20  # rows
_LAGS = 10
_REPLICATED = "replicated: "

# What each check says in words where it does not pass, and which of a family's remedies helps.
_WORDS = {
    "forecast_calibration": ("one-step-ahead errors are not spread as predicted", "calibration"),
    "forecast_correlation": ("one-step-ahead errors are correlated from row to row", "correlation"),
    "forecast_autocorrelation": ("one-step-ahead errors are correlated over several rows", "correlation"),
    "forecast_volatility": ("large errors follow large errors", "volatility"),
    "loo_pit": ("rows are not spread as predicted from all other rows", "calibration"),
}
_GENERAL = {
    "calibration": "another law of the errors is needed",
    "correlation": "the model misses what moves neighbouring rows together",
    "volatility": "intervals are too wide in calm times and too narrow in others",
    "statistic": "the market does not explain this of the data",
}


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


def misfit(problem: Problem, tree: xr.DataTree) -> list[Check]:
    """All checks of misfit that the tree allows, each with a false-alarm rate of 1 %."""
    return [*of_forecasts(problem, tree), *of_rows_left_out(problem, tree), *unlike(problem, tree)]


def of_forecasts(problem: Problem, tree: xr.DataTree) -> list[Check]:
    """Checks of the one-step-ahead errors of a fit."""
    return of_errors(forecast_transforms(tree), problem.observation.remedies)


def of_errors(scores: np.ndarray, remedies: Mapping[str, str]) -> list[Check]:
    """Checks of one-step-ahead errors (rows,) as normal scores: their law, correlation, and changing variance; p-values.

    `remedies`: a family's own, as `Observation.remedies` has them.
    """
    scores = scores[np.isfinite(scores)]
    if scores.size < _FEWEST:
        return []
    return [
        _judged(remedies, "forecast_calibration", float(scipy.stats.kstest(scores, "norm").pvalue)),
        _judged(remedies, "forecast_correlation", _correlation_p(scores)),
        _judged(remedies, "forecast_autocorrelation", ljung_box(scores, min(_LAGS, scores.size // 5))),
        _judged(remedies, "forecast_volatility", _correlation_p(scores**2)),
    ]


def of_rows_left_out(problem: Problem, tree: xr.DataTree) -> list[Check]:
    """A check of where rows fall in their law given all other rows (LOO-PIT), by a test that allows them to depend.

    None where that law is not known, or where it is the one-step-ahead law, which `forecast_calibration` has judged.
    """
    found = left_out_transforms(tree)
    if found is None or found.size < _FEWEST:
        return []
    # The test of ArviZ that combines pointwise p-values, valid for values that depend on each other.
    return [_judged(problem.observation.remedies, "loo_pit", float(array_stats.uniformity_test(found)[0]))]


def left_out_transforms(tree: xr.DataTree) -> np.ndarray | None:
    """P(Y_t ≤ y_t | all other rows), of the rows observed: means over draws weighted as if they had not seen the row."""
    if "leave_one_out" not in tree.children or tree["posterior"].sizes["draw"] == 1:
        return None  # a run saved before this was kept, or a single point
    probability = tree["leave_one_out"]["probability"].to_numpy()
    rows = np.flatnonzero(np.isfinite(probability).all((0, 1)))
    ahead = tree["one_step_ahead"]["probability"].to_numpy()
    if rows.size == 0 or np.allclose(probability[..., rows], ahead[..., rows], atol=1e-9):
        return None
    weights, step = weights_without(tree, rows)
    return np.sum(weights * probability[..., rows].reshape(-1, rows.size)[::step], axis=0)


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
            _REPLICATED + str(name),
            below(2.0 * (replications * min(row["p"], 1.0 - row["p"]) + 1.0) / (replications + 1.0), LEVEL, 0.0),
            row["observed"],
            f"replications have {row['5 %']:.3g} to {row['95 %']:.3g}: {_advice(problem.observation.remedies, 'statistic')}",
        )
        for name, row in statistics.iterrows()
    ]


def in_words(checks: list[Check]) -> str:
    """What the checks of misfit that did not pass say together, in one sentence; empty where all passed."""
    judged = [check for check in checks if check.name in _WORDS or check.name.startswith(_REPLICATED)]
    failed = [check for check in judged if check.verdict != "pass"]
    if not failed:
        return ""
    said = [_WORDS[check.name][0] for check in failed if check.name in _WORDS]
    lacking = [f"{c.name.removeprefix(_REPLICATED)} ({c.value:.3g})" for c in failed if c.name.startswith(_REPLICATED)]
    if lacking:
        said.append("replications do not have the data's " + ", ".join(lacking))
    return (
        f"The model is misspecified as far as {len(failed)} of {len(judged)} checks of misfit can tell: {'; '.join(said)}. "
        "Intervals of parameters hold if the model does, and what it predicts of these features is not to be relied on "
        f"(of right models, at most {LEVEL * len(judged):.0%} would be told this by one check or more)."
    )


def ljung_box(series: np.ndarray, lags: int) -> float:
    """The p-value of no autocorrelation up to `lags` rows apart (Ljung and Box, Biometrika 65 (1978)).

    From χ² with `lags` degrees of freedom: none is taken off for the parameters fitted, which makes alarms rarer.
    """
    deviation = series - series.mean()
    among = [deviation[lag:] @ deviation[:-lag] for lag in range(1, lags + 1)] / (deviation @ deviation)
    count = series.size
    statistic = count * (count + 2.0) * np.sum(among**2 / (count - np.arange(1, lags + 1)))
    return float(scipy.stats.chi2.sf(statistic, lags))


def _judged(remedies: Mapping[str, str], name: str, p: float) -> Check:
    said, kind = _WORDS[name]
    return Check(name, below(p, LEVEL, 0.0), p, f"{said}: {_advice(remedies, kind)}")


def _advice(remedies: Mapping[str, str], kind: str) -> str:
    return remedies.get(kind, _GENERAL[kind])


def _correlation_p(series) -> float:
    """The p-value of no first-order autocorrelation; 1 where the series never changes."""
    if np.ptp(series[1:]) == 0.0 or np.ptp(series[:-1]) == 0.0:
        return 1.0
    return float(scipy.stats.pearsonr(series[1:], series[:-1]).pvalue)
