"""Families of values, each by its log quantile function of the normal score z = Φ⁻¹(u), with median 1."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from walras.calibrate.prior import Parameter, Prior

type LogQuantile = Callable[[Float[Array, ""]], Float[Array, ""]]

_LOG2 = float(np.log(2.0))
_WHY = "values of one auction spread somewhat more than bids do, within a factor of 4"
# Knots of the slope of log values in the normal score: half of values are between the inner two.
_SPLINE = np.array([-2.0, -1.0, -0.25, 0.25, 1.0, 2.0])


@dataclass(frozen=True)
class ValueFamily:
    """A family of distributions: the log quantile of a value at the normal score z, and its parameters' defaults.

    `log_quantile(params, z)` is increasing in z, and zero at z = 0.
    """

    log_quantile: Callable[[Mapping, Array], Array]
    parameters: Callable[[float], dict[str, Parameter]]

    def of(self, params: Mapping) -> LogQuantile:
        return partial(self.log_quantile, params)


def _lognormal(params, z):
    return params["value_spread"] * z


def _weibull(params, z):
    # u = 1 − exp(−(v / scale)^shape)
    return (jnp.log(-jss.norm.logsf(z)) - np.log(_LOG2)) / params["value_shape"]


def _spline(params, z):
    """The integral from 0 of slopes that are straight lines between the knots, and constant beyond the outer two."""
    slopes, knots = params["value_slopes"], jnp.asarray(_SPLINE)
    widths = jnp.diff(knots)
    areas = jnp.concatenate([jnp.zeros(1), jnp.cumsum(0.5 * widths * (slopes[1:] + slopes[:-1]))])

    def integral(place):
        cell = jnp.clip(jnp.searchsorted(knots, place) - 1, 0, widths.size - 1)
        into = jnp.clip(place - knots[cell], 0.0, widths[cell])
        steepening = (slopes[cell + 1] - slopes[cell]) / widths[cell]
        inside = areas[cell] + into * (slopes[cell] + 0.5 * steepening * into)
        return inside + slopes[0] * jnp.minimum(place - knots[0], 0.0) + slopes[-1] * jnp.maximum(place - knots[-1], 0.0)

    return integral(z) - integral(jnp.zeros(()))


def _spread(scale: float) -> dict[str, Parameter]:
    return {"value_spread": Parameter(Prior("LogNormal", float(np.log(scale)), 0.7, why=_WHY), lower=0.0)}


def _shape(scale: float) -> dict[str, Parameter]:
    # The shape at which log values have this slope in their normal score, at the median.
    shape = 2.0 / (np.sqrt(2.0 * np.pi) * _LOG2 * scale)
    return {"value_shape": Parameter(Prior("LogNormal", float(np.log(shape)), 0.7, why=_WHY), lower=0.0)}


def _slopes(scale: float) -> dict[str, Parameter]:
    prior = Prior(
        "LogNormal",
        [float(np.log(scale))] * _SPLINE.size,
        [0.7] * _SPLINE.size,
        why="about log-normal; " + _WHY,
    )
    return {"value_slopes": Parameter(prior, lower=0.0)}


FAMILIES = {
    "lognormal": ValueFamily(_lognormal, _spread),
    "weibull": ValueFamily(_weibull, _shape),
    "spline": ValueFamily(_spline, _slopes),
}
SPLINE_KNOTS = tuple(float(knot) for knot in _SPLINE)


def quantile_function(log_quantile: LogQuantile, level: float | Array = 0.0) -> Callable[[Array], Array]:
    """The quantile function u ↦ value of a log quantile function of the normal score; `level` is the log of the median."""
    vectorised = jnp.vectorize(log_quantile)
    return lambda u: jnp.exp(level + vectorised(ndtri(u)))
