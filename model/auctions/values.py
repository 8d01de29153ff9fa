"""What bidders' private values are drawn from, and the checks that auctions share.

`values` is a distribution with `cdf` and `icdf` (NumPyro's have both where JAX knows them), or a quantile function u ↦ v.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, is_traced

HIGHEST = 1.0 - 2.0**-53  # the quantile level nearest to 1: an unbounded quantile function is finite there
_HALVINGS = 60  # bisections, to the last digit of a number between 0 and 1
_REMEDY = "whose icdf is not implemented: give its quantile function, or a distribution with icdf"
_PROBES = (0.25, 0.5, 0.75)  # levels at which quantiles are looked at before use


def quantile(values: Any) -> Callable[[Array], Array]:
    """Q: u ↦ v, elementwise, for levels between 0 and 1; the level 1 itself is taken to be the highest number below it.

    Where an `icdf` is not implemented but the `support` is bounded, by bisection of the `cdf`.
    """
    if not hasattr(values, "icdf"):
        given = values
    elif implements("icdf", values):
        given = values.icdf
    else:
        low, high = ends(values)
        return lambda level: inverse(probability(values), level, low, high)
    return lambda level: given(jnp.minimum(level, HIGHEST))


def probability(values: Any) -> Callable[[Array], Array]:
    """F: v ↦ u, elementwise, also outside the support; where only quantiles are known, by bisection."""
    if implements("cdf", values):
        return lambda value: jnp.clip(values.cdf(value), 0.0, 1.0)
    return lambda value: inverse(quantile(values), value, 0.0, 1.0)


def density(values: Any) -> Callable[[Array], Array]:
    """f, elementwise, inside the support: the derivative of F."""
    if hasattr(values, "log_prob"):
        return lambda value: jnp.exp(values.log_prob(value))
    return lambda value: jax.jvp(probability(values), (value,), (jnp.ones_like(value),))[1]


def implements(name: str, values: Any) -> bool:
    """Whether a distribution has a method, `cdf` or `icdf`, that can be called; others inherit one that only raises."""
    if not hasattr(values, name):
        return False
    try:
        jax.eval_shape(getattr(values, name), jnp.asarray(0.5))
    # For quantiles NumPyro's gamma, beta and Student-t would need TensorFlow Probability, and say so by the second.
    except (NotImplementedError, ImportError):
        return False
    return True


def ends(values: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The lowest and the highest value: quantiles at 0 and 1 or, without quantiles, the ends of the `support`."""
    if not hasattr(values, "icdf") or implements("icdf", values):
        given = getattr(values, "icdf", values)
        return given(jnp.zeros(())), given(jnp.ones(()))
    support: Any = getattr(values, "support", None)
    if not (implements("cdf", values) and hasattr(support, "lower_bound") and hasattr(support, "upper_bound")):
        raise EquilibriumError(f"values are a {type(values).__name__}, {_REMEDY}")
    return jnp.asarray(support.lower_bound, float), jnp.asarray(support.upper_bound, float)


def inverse(function: Callable[[Array], Array], target: Array, low: Array | float, high: Array | float) -> Array:
    """Where an increasing elementwise function has the values `target`, between `low` and `high`; an end for targets beyond.

    Differentiable to any order in the target and in whatever the function closes over.
    """
    target = jnp.asarray(target, float)

    def bisect(excess, start):
        def halve(_, bracket):
            below, above = bracket
            middle = 0.5 * (below + above)
            short = excess(middle) < 0
            return jnp.where(short, middle, below), jnp.where(short, above, middle)

        below, above = jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.full_like(start, low), jnp.full_like(start, high)))
        return 0.5 * (below + above)

    def along(linear, right):
        slope = linear(jnp.ones_like(right))  # zero where the function is flat, which is outside a support
        return jnp.where(slope == 0, 0.0, right / jnp.where(slope == 0, 1.0, slope))

    return jax.lax.custom_root(lambda at: function(at) - target, jnp.zeros_like(target), bisect, along)


def require_quantiles(name: str, values: Any):
    """Raise unless the field is a distribution of one number with quantiles, or a quantile function."""
    if not hasattr(values, "icdf") and not callable(values):
        raise EquilibriumError(
            f"{name} is a {type(values).__name__}: give a distribution with cdf and icdf, or a quantile function"
        )
    if getattr(getattr(values, "support", None), "is_discrete", False):
        raise EquilibriumError(
            f"{name} is a {type(values).__name__}, which is discrete: bidders with equal values would have to draw lots for "
            "their bids, so give a continuous distribution"
        )
    try:
        found = [quantile(values)(jnp.asarray(level)) for level in _PROBES]
    except EquilibriumError:
        raise EquilibriumError(f"{name} is a {type(values).__name__}, {_REMEDY}") from None
    if jnp.shape(found[0]) != ():
        raise EquilibriumError(
            f"{name} has quantiles of shape {jnp.shape(found[0])} at one level: give the distribution of one number, or an "
            "elementwise quantile function"
        )
    if not is_traced(found):
        _require_increasing(name, np.asarray(found))


def _require_increasing(name: str, found: np.ndarray):
    if not (np.all(np.isfinite(found)) and np.all(np.diff(found) > 0)):
        raise EquilibriumError(
            f"{name} has quantiles {found.tolist()} at {list(_PROBES)}: give a distribution whose quantiles increase and are "
            "finite"
        )


def require_bidders(bidders: Any):
    """Raise unless there are at least two bidders."""
    if jnp.ndim(bidders) != 0 or (not is_traced(bidders) and not 2 <= bidders < np.inf):
        raise EquilibriumError(f"bidders is {bidders}: give one number, at least 2, as bids against nobody have no equilibrium")


def require_risk(risk: Any):
    """Raise unless the exponent of utility is in (0, 1]."""
    if jnp.ndim(risk) != 0 or (not is_traced(risk) and not 0 < risk <= 1):
        raise EquilibriumError(f"risk is {risk}: give the exponent of utility, above 0 and at most 1 (risk neutral)")


def require_reserve(reserve: Any):
    """Raise unless the reserve is left out or a number that is not negative."""
    if reserve is None:
        return
    if jnp.ndim(reserve) != 0 or (not is_traced(reserve) and not 0 <= reserve < np.inf):
        raise EquilibriumError(f"reserve is {reserve}: give one finite number that is not negative, or None for no reserve")
