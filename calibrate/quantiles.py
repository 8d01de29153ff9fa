"""The inverse distribution functions of priors and of draws."""

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.stats as stats
from jaxtyping import Array, Float

from walras.calibrate.prior import Prior

_TABULATED = 2**16  # draws that stand for the quantiles of a prior which has no formula for them

Quantile = Callable[[Float[np.ndarray, "points"]], Float[np.ndarray, "points"]]


def quantiles(prior: Prior, key: Array) -> list[Quantile]:
    """The quantile function of each element of a prior: SciPy's, or for other families that of many draws."""
    law = prior.distribution()
    if prior.family in _SCIPY:
        marginal = _SCIPY[prior.family](law.base_dist if law.event_shape else law)
        return [partial(_of_element, marginal, i) for i in range(int(np.prod(law.event_shape)))]
    return [empirical(column) for column in np.asarray(law.sample(key, (_TABULATED,))).reshape(_TABULATED, -1).T]


def empirical(draws: Float[np.ndarray, "draws"]) -> Quantile:
    """The quantile function of draws, linear between their middle ranks."""
    ordered = np.sort(draws)
    return partial(np.interp, xp=(np.arange(ordered.size) + 0.5) / ordered.size, fp=ordered)


def _of_element(marginal, element: int, u: np.ndarray) -> np.ndarray:
    return np.reshape(marginal.ppf(np.reshape(u, (-1, 1))), (np.size(u), -1))[:, element]


class _Kumaraswamy:
    def __init__(self, a, b):
        self.a, self.b = np.asarray(a), np.asarray(b)

    def ppf(self, u):
        return (1.0 - (1.0 - u) ** (1.0 / self.b)) ** (1.0 / self.a)


# NumPyro has quantiles of few families, and compiles each anew.
_SCIPY: dict[str, Callable] = {
    "Beta": lambda law: stats.beta(law.concentration1, law.concentration0),
    "Exponential": lambda law: stats.expon(scale=1.0 / law.rate),
    "Gamma": lambda law: stats.gamma(law.concentration, scale=1.0 / law.rate),
    "HalfNormal": lambda law: stats.halfnorm(scale=law.scale),
    "InverseGamma": lambda law: stats.invgamma(law.concentration, scale=law.rate),
    "Kumaraswamy": lambda law: _Kumaraswamy(law.concentration1, law.concentration0),
    "LogNormal": lambda law: stats.lognorm(law.scale, scale=np.exp(law.loc)),
    "Normal": lambda law: stats.norm(law.loc, law.scale),
    "StudentT": lambda law: stats.t(law.df, law.loc, law.scale),
    "Uniform": lambda law: stats.uniform(law.low, law.high - law.low),
    "Weibull": lambda law: stats.weibull_min(law.concentration, scale=law.scale),
}
