"""Equilibrium bids by other routes than the solvers': closed forms, adaptive quadrature of definitions, and distributions."""

from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad, solve_ivp

_RELATIVE = 1e-11


def _integral(function, low, high, size):
    """To a small part of `size`, which is that of the result it is a part of."""
    return quad(function, low, high, epsabs=_RELATIVE * size, epsrel=_RELATIVE, limit=400)[0]


def bid_by_quadrature(distribution, bidders, risk, value, reserve=None):
    """v − ∫ F^k / F(v)^k over values below v and above the reserve: the definition, for a frozen SciPy distribution.

    The integrand is cut where F^k has fallen by powers of ten, so that the quadrature sees where it lives.
    """
    k = (bidders - 1) / risk
    log_top = distribution.logcdf(value)
    low = distribution.support()[0] if reserve is None else reserve
    cuts = [distribution.ppf(np.exp(log_top - drop * np.log(10) / k)) for drop in (30, 12, 6, 3, 1.5, 0.5)]
    edges = [low, *[cut for cut in cuts if low < cut < value], value]
    parts = [_integral(lambda v: np.exp(k * (distribution.logcdf(v) - log_top)), *edge, value) for edge in pairwise(edges)]
    return value - sum(parts)


def crra_bid_by_ode(distribution, bidders, risk, start, bid, value):
    """β′ = k (v − β) f/F from a known bid at `start` to `value`."""
    k = (bidders - 1) / risk

    def slope(v, b):
        return k * (v - b) * distribution.pdf(v) / distribution.cdf(v)

    return solve_ivp(slope, (start, value), [bid], rtol=1e-12, atol=1e-14, method="DOP853").y[0, -1]


def procurement_bid_by_quadrature(distribution, bidders, cost, reserve=None):
    """c + ∫ (1 − F)^{n−1} / (1 − F(c))^{n−1} over costs above c and below the reserve."""
    high = distribution.support()[1] if reserve is None else reserve
    k = bidders - 1

    def kept(c):
        return np.exp(k * (distribution.logsf(c) - distribution.logsf(cost)))

    middle = min(high, cost + 4.0 * distribution.std())
    rest = _integral(kept, middle, high, cost) if high > middle else 0.0
    return cost + _integral(kept, cost, middle, cost) + rest


def second_price_revenue(distribution, bidders, reserve=0.0):
    """r P(someone bids) + ∫ P(the second highest value is above v) over v above the reserve."""

    def above(v):
        f = distribution.cdf(v)
        return 1.0 - f**bidders - bidders * f ** (bidders - 1) * (1.0 - f)

    high = min(distribution.support()[1], distribution.isf(1e-14))
    edges = np.linspace(reserve, high, 20)
    tail = sum(_integral(above, *edge, distribution.mean()) for edge in pairwise(edges))
    return reserve * (1.0 - distribution.cdf(reserve) ** bidders) + tail


def two_uniform_groups(own, other, bid):
    """φ(b) of a bidder with values uniform on [0, own] against one on [0, other]."""
    return 2.0 * bid / (1.0 + (1.0 / own**2 - 1.0 / other**2) * bid**2)


def rival_with_common_shock(y, x):
    """P(S₂ + T ≤ y | S₁ + T = x) for S₁, S₂, T uniform on [0, 1]: T is uniform on [max(0, x−1), min(1, x)]."""
    low, high = jnp.maximum(0.0, x - 1.0), jnp.minimum(1.0, x)

    def area(z):
        return jnp.where(z < 0, 0.0, jnp.where(z > 1, z - 0.5, 0.5 * z**2))

    return (area(y - low) - area(y - high)) / (high - low)


class Bounded(eqx.Module):
    """Values on [0, top] with F = G(K(v/top)), K(x) = 1 − (1 − x^a)^b (Kumaraswamy), G a truncated exponential of rate c ≠ 0.

    a = b = 1 gives the truncated exponential, c → 0 the Kumaraswamy distribution, both together the uniform.
    """

    a: jnp.ndarray
    b: jnp.ndarray
    c: jnp.ndarray
    top: jnp.ndarray

    def cdf(self, v):
        x = jnp.clip(v / self.top, 0.0, 1.0)
        inner = -jnp.expm1(self.b * jnp.log1p(-jnp.minimum(x**self.a, 1.0 - 2.0**-53)))
        return jnp.expm1(-self.c * inner) / jnp.expm1(-self.c)

    def icdf(self, u):
        inner = jnp.minimum(-jnp.log1p(u * jnp.expm1(-self.c)) / self.c, 1.0 - 2.0**-53)  # which rounding may take to 1
        return self.top * (-jnp.expm1(jnp.log1p(-inner) / self.b)) ** (1.0 / self.a)


def bounded(a=1.0, b=1.0, c=1e-8, top=1.0):
    return Bounded(*(jnp.asarray(part, float) for part in (a, b, c, top)))
