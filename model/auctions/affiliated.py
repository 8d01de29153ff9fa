"""The first-price auction among symmetric bidders with affiliated signals (Milgrom and Weber, Econometrica 50, 1982).

With v(x, y) a bidder's expected value when its own signal is x and the highest rival's is y, and G(y|x) that signal's law,

    β(x) = ∫ v(y, y) dL(y|x),   L(y|x) = exp(−∫_y^x m(t)/(t − lo) dt),   m(t) = (t − lo) g(t|t)/G(t|t).

m is smooth where g/G is not. With y = lo + (x − lo) q and q = s^{1/κ}, κ = m(lo), dL = L m(y)/(κ s) ds is smooth, and constant
where m is; the exponent of L is an integral over the log of the distance from lo, in which it is smooth too.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.auctions.bidding import nodes, status_of
from walras.model.auctions.compiled import compiled
from walras.model.equilibrium import EquilibriumError, Status, checked, is_traced, require_double_precision

_LEGENDRE = np.polynomial.legendre.leggauss(24)
_ENDS = 1e-3, 1e-9  # how near to the lowest signal m is looked at, and to both a bid: at the ends laws may be degenerate
_DIGITS = 1e-8  # of the lowest signal: distances from it have eight digits
_CHECKED = np.linspace(0.1, 0.9, 9)


class AffiliatedFirstPriceAuction(eqx.Module):
    """Bidders whose signals are affiliated and whose values may depend on all signals; the highest bid wins and is paid.

    `value(x, y)`: a bidder's expected value (money) if its signal is x and the highest rival's is y. `rival(y, x)`: the
    probability that the highest rival's signal is at most y, given x. Both are functions of two numbers that JAX can
    differentiate. `signals`: the lowest and the highest signal. Risk neutral, no reserve. That signals are affiliated is up to
    the caller; `verify` tells whether the bids are an equilibrium.

    >>> independent = AffiliatedFirstPriceAuction(lambda x, y: x, lambda y, x: y, (0.0, 1.0))
    >>> round(float(independent.solve().bid(0.8)), 6)
    0.4
    """

    functions: ClassVar = {"value": 2, "rival": 2}  # fields that are functions, and of how many numbers

    value: Callable[[Array, Array], Array]
    rival: Callable[[Array, Array], Array]
    signals: tuple[Float[Array, ""] | float, Float[Array, ""] | float]

    def __check_init__(self):
        if not (callable(self.value) and callable(self.rival)):
            raise EquilibriumError("value and rival are not both functions: give value(x, y) and rival(y, x)")
        if len(self.signals) != 2 or (not is_traced(self.signals) and not self.signals[0] < self.signals[1]):
            raise EquilibriumError(f"signals are {self.signals}: give the lowest and a higher highest signal")

    def hazard(self, signal) -> Float[Array, ""]:
        """m(t) = (t − lo) g(t|t)/G(t|t). Nearer to lo than t − lo has digits, m at the nearest t."""
        low, high = self.signals
        signal = jnp.maximum(signal, low + _ENDS[1] * (high - low) + _DIGITS * jnp.abs(low))
        law, slope = jax.jvp(lambda y: self.rival(y, signal), (signal,), (jnp.ones_like(signal),))
        return (signal - low) * slope / law

    def solve(self, *, throw: bool = True) -> "AffiliatedEquilibrium":
        """The symmetric equilibrium, by quadrature.

        `residual` is the largest error of β′(x) = (v(x, x) − β(x)) g(x|x)/G(x|x) in the interior, times the range of signals
        and relative to values. Raises `EquilibriumError`, unless `throw=False` or under a JAX transformation, if it is large.
        """
        require_double_precision()
        unjudged = AffiliatedEquilibrium(self, jnp.zeros(()), Status.solved)
        residual = unjudged._first_order_error()
        return checked(AffiliatedEquilibrium(self, residual, status_of(residual)), throw)


class AffiliatedEquilibrium(eqx.Module):
    """Bids of an `AffiliatedFirstPriceAuction`, which increase with signals."""

    auction: AffiliatedFirstPriceAuction
    residual: Float[Array, ""]
    status: Status

    @compiled
    def bid(self, signal) -> Float[Array, "..."]:
        """The bid (money) at signals of any shape; NaN outside the support."""
        signal = jnp.asarray(signal, float)
        low, high = self.auction.signals
        inside = low + (high - low) * jnp.clip((signal - low) / (high - low), _ENDS[1], 1.0 - _ENDS[1])
        return jnp.where((signal >= low) & (signal <= high), jnp.vectorize(self._bid)(inside), jnp.nan)

    def _bid(self, signal):
        auction, (low, high) = self.auction, self.auction.signals
        power = jax.lax.stop_gradient(auction.hazard(jnp.asarray(low + _ENDS[0] * (high - low))))
        q, weights = nodes(0.0, power)

        def summand(share):
            z, lengths = (jnp.asarray(part) for part in _LEGENDRE)
            depth = -jnp.log(share)
            along = low + (signal - low) * jnp.exp(-0.5 * depth * (z + 1.0))
            below = jnp.exp(-0.5 * depth * jnp.sum(lengths * (jax.vmap(auction.hazard)(along) - power)))
            rival = low + (signal - low) * share
            return auction.value(rival, rival) * below * auction.hazard(rival) / power

        return jnp.sum(weights * jax.vmap(summand)(q))

    @compiled
    def _first_order_error(self):
        auction = self.auction
        low, high = auction.signals

        def error(signal):
            bid, slope = jax.jvp(self._bid, (signal,), (jnp.ones_like(signal),))
            value = auction.value(signal, signal)
            gained = (value - bid) * auction.hazard(signal) / (signal - low)
            return jnp.abs(slope - gained) * (high - low), jnp.abs(value)

        errors, values = jax.vmap(error)(low + (high - low) * jnp.asarray(_CHECKED))
        return jnp.max(errors) / jnp.max(values)
