"""Default priors of a panel, from those of its markets."""

from collections.abc import Sequence

import numpy as np
from numpyro.distributions import constraints

from walras.calibrate.errors import CalibrationError
from walras.calibrate.prior import Parameter, Prior

_LOCATED = ("Normal", "LogNormal")  # families whose parameters are a location and a scale, if of the logarithm


def combined(markets: Sequence[dict[str, Parameter]], own: Sequence[str] = ()) -> dict[str, Parameter]:
    """What markets say of each parameter, as one: the prior of the median market, or for those in `own` a vector of all.

    Where priors have a location, its spread over markets widens the prior. Raises `CalibrationError` when families differ.
    """
    return {name: _joint(name, [market[name] for market in markets], name in own) for name in markets[0]}


def _joint(name: str, several: Sequence[Parameter], own: bool) -> Parameter:
    first, defaults = several[0], [parameter.default for parameter in several]
    if not isinstance(first.default, Prior):
        if own:
            raise CalibrationError(f"own names {name!r}, which is fixed: give it a vector prior, or leave it out")
        return _with(first, float(np.median(defaults)))
    if len({prior.family for prior in defaults}) > 1:
        raise CalibrationError(f"markets have default priors of {name!r} of different families: give it a prior")
    arguments = [np.asarray(values, float) for values in zip(*(prior.args for prior in defaults), strict=True)]
    if own:
        if first.shape:
            raise CalibrationError(f"own names {name!r}, which is a vector in each market: leave it out")
        return _with(first, _prior(first.default, arguments, first.default.why))
    middle = [np.median(values, axis=0) for values in arguments]
    if first.default.family in _LOCATED:
        middle[1] = np.hypot(middle[1], np.std(arguments[0], axis=0))
    return _with(first, _prior(first.default, middle, f"the median market's: {first.default.why}"))


def spread_of(name: str, parameter: Parameter) -> Parameter:
    """The default of how far markets lie from the population's value."""
    prior = parameter.default
    if parameter.shape:
        raise CalibrationError(f"by_market names {name!r}, which is a vector in each market: leave it out")
    if not isinstance(prior, Prior):
        raise CalibrationError(f"by_market names {name!r}, which is fixed unless it is given a prior: leave it out")
    law = prior.distribution()
    if law.support is constraints.real:
        half = float(np.sqrt(law.variance)) / 2
        why = "markets differ by half of what is uncertain of them all"
        return Parameter(Prior("HalfNormal", half, unit=prior.unit, why=why), lower=0.0)
    return Parameter(Prior("HalfNormal", 0.5, why="markets differ by a factor of up to about three"), lower=0.0)


def _prior(like: Prior, arguments, why: str) -> Prior:
    return Prior(like.family, *(np.asarray(argument).tolist() for argument in arguments), unit=like.unit, why=why)


def _with(parameter: Parameter, default: Prior | float) -> Parameter:
    return Parameter(default, parameter.lower, parameter.upper, parameter.attains)
