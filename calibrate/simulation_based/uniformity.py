"""Whether ranks are uniform: an exact test of their whole distribution function.

Of N ranks that are independent and uniform on 0 … L, the number R_k that are at most k is binomial, with probability
(k + 1)/(L + 1). The statistic of the test is the smallest of the tail probabilities of all R_k (Säilynoja, Bürkner and
Vehtari, Stat. Comput. 32, 2022). Its law is exact: R_0, R_1, … is a Markov chain, whose increments are binomial.
"""

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

_HALVINGS = 25


def p_value(ranks: np.ndarray, highest: int) -> float:
    """The probability that uniform ranks (replications,) on 0 … `highest` deviate as far as these."""
    counts = np.searchsorted(np.sort(ranks), np.arange(highest), side="right")
    law = _law(ranks.size, highest)
    tail = float(np.minimum(law.cdf(counts), law.sf(counts - 1)).min())
    return min(max(_leaving(ranks.size, highest, tail), tail), 1.0)


def band(replications: int, highest: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest of each R_k (highest,) that a test at this level accepts."""
    low, high = np.log(level) - 15.0, np.log(level)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _leaving(replications, highest, np.exp(middle)) <= level else (low, middle)
    return _bounds(replications, highest, np.exp(low))


def _law(replications: int, highest: int):
    return binom(replications, np.arange(1, highest + 1) / (highest + 1))


def _bounds(replications: int, highest: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """The range of each R_k whose tail probabilities are above `tail`, both ways."""
    counts, law = np.arange(replications + 1)[:, None], _law(replications, highest)
    lowest = np.argmax(law.cdf(counts) > tail, axis=0)
    return lowest, replications - np.argmax(law.sf(counts - 1)[::-1] > tail, axis=0)


def _leaving(replications: int, highest: int, tail: float) -> float:
    """The probability that any of the R_k has a tail probability of `tail` or less."""
    lowest, uppermost = _bounds(replications, highest, tail)
    before, inside = np.zeros(1, int), np.ones(1)
    for k in range(highest):
        after = np.arange(lowest[k], uppermost[k] + 1)
        inside = inside @ _increments(replications - before, after - before[:, None], 1.0 / (highest + 1 - k))
        before = after
    return float(max(1.0 - inside.sum(), 0.0))


def _increments(trials, successes, probability: float) -> np.ndarray:
    """The binomial probabilities of `successes` (before, after) in `trials` (before,)."""
    trials = np.broadcast_to(trials[:, None], successes.shape)
    possible = (successes >= 0) & (successes <= trials)
    hits = np.where(possible, successes, 0)
    logs = gammaln(trials + 1) - gammaln(hits + 1) - gammaln(trials - hits + 1)
    logs = logs + hits * np.log(probability) + (trials - hits) * np.log1p(-probability)
    return np.where(possible, np.exp(logs), 0.0)
