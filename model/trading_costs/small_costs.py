"""The shape of optimal trading when costs (λ/q)|φ̇|^q are small (Gonon–Muhle-Karbe–Shi, arXiv 1905.05027).

In units of the deviation ℓ = [(λ/q) c^{2q} / (2^{q−1} c₂ α²)]^{1/(q+2)}, c = ξ/α, an agent at x trades at the rate
(c²/2ℓ) sgn(g) |g/q|^{1/(q−1)}, where g solves

    g″ + sgn(g) g′ |g/q|^{1/(q−1)} = 2x,   g(0) = 0,   g growing no faster than x^{2(q−1)/q},

and x has the stationary density ∝ exp(∫ sgn(g) |g/q|^{1/(q−1)} dx). For q = 2, g = −2x.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_simpson, simpson, solve_bvp

_END, _NODES = 8.0, 2001  # beyond it there is less than 1e-14 of the density
_TOLERANCE = 1e-8  # relative, of the boundary value problem


class Shape(NamedTuple):
    """g and its derivative at `deviation` x (nodes,) from 0, the rate |g/q|^{1/(q−1)}, and the density of x over both sides."""

    deviation: np.ndarray
    g: np.ndarray
    slope: np.ndarray
    rate: np.ndarray
    density: np.ndarray

    def mean(self, values: np.ndarray) -> float:
        """The stationary mean of a function that is even in x, given at `deviation`."""
        return 2.0 * float(simpson(values * self.density, x=self.deviation))


def scale(trading_cost, power: float, exposure, mean_aversion, volatility):
    """ℓ, in units, where c = `exposure` |ξ|/σ; of numbers or JAX arrays."""
    risk = 2 ** (power - 1) * mean_aversion * volatility**2
    return (trading_cost / power * exposure ** (2 * power) / risk) ** (1 / (power + 2))


@lru_cache
def shape(power: float) -> Shape:
    """The solution for one power 1 < q ≤ 2."""
    x = np.linspace(0.0, _END, _NODES)
    if power == 2.0:
        g, slope = -2.0 * x, np.full_like(x, -2.0)
    else:
        g, slope = _boundary_value_problem(power, x)
    rate = np.abs(g / power) ** (1.0 / (power - 1.0))
    unscaled = np.exp(-cumulative_simpson(rate, x=x, initial=0.0))
    return Shape(x, g, slope, rate, unscaled / (2.0 * simpson(unscaled, x=x)))


def _boundary_value_problem(power, x):
    exponent = 1.0 / (power - 1.0)

    def slopes(at, y):
        return np.vstack([y[1], 2.0 * at + y[1] * np.abs(y[0] / power) ** exponent])

    def ends(first, last):
        # g″ is negligible far out.
        return np.array([first[0], last[1] * np.abs(last[0] / power) ** exponent + 2.0 * _END])

    grows = (power - 1.0) / power
    far = (power**exponent * power / (power - 1.0) * x**2) ** grows
    guess = -np.minimum(2.0 * x, far)
    found = solve_bvp(slopes, ends, x, np.vstack([guess, np.gradient(guess, x)]), tol=_TOLERANCE, max_nodes=100_000)
    if not found.success:
        raise ArithmeticError(f"the shape of trading with power {power} was not found: {found.message}")
    return found.sol(x)
