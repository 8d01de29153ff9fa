"""Draws of a tractable approximation to the posterior, judged and mended by importance weights."""

import time

import jax
import numpy as np
from arviz_stats.base.array import array_stats
from scipy.special import logsumexp

from walras.calibrate.samplers.draws import Draws
from walras.calibrate.samplers.modes import Modes
from walras.calibrate.samplers.target import Target

FEWEST_DRAWS = 40  # from which the tail of the weights can be judged
_POOL = 10  # points for each draw that importance resampling returns
_RELIABLE = 0.7  # k̂ beyond which weights mend nothing: most would be that of one point
_NEGLIGIBLE = 700.0  # the log of a ratio to the largest weight that is zero in double precision


def drawn(target: Target, normal, modes: Modes, key, draws: int, importance: bool) -> Draws:
    """Draws (1, draws) of a NumPyro distribution of z, resampled by Pareto-smoothed importance weights where they are good.

    Facts: `pareto_k` judges how the distribution covers the posterior: below .7 the weights mend what is wrong with it
    (Vehtari et al. 2024). `log_evidence` is the mean weight's logarithm.
    """
    began = time.perf_counter()
    draw_key, choose_key = jax.random.split(key)
    with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks in both
        points = normal.sample(draw_key, (draws * _POOL if importance else draws,))
        log_q = np.asarray(normal.log_prob(points))
    values, log_p = target.values(points[None], target.data)
    log_ratio = np.where(np.isfinite(log_p[0]), log_p[0] - log_q, -np.inf)
    log_weights, pareto_k = array_stats.psislw(np.maximum(log_ratio, log_ratio.max() - _NEGLIGIBLE))
    kept = slice(draws)
    if importance and pareto_k <= _RELIABLE:
        kept = np.asarray(jax.random.choice(choose_key, log_ratio.size, (draws,), p=np.exp(log_weights)))
    facts = {"pareto_k": float(pareto_k), "log_evidence": float(logsumexp(log_ratio) - np.log(log_ratio.size))}
    values, statistics = jax.tree.map(lambda array: array[:, kept], (values, {"lp": log_p, "log_q": log_q[None]}))
    return Draws(values, statistics, 0.0, time.perf_counter() - began, {**modes.facts, **facts})
