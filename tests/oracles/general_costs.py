"""Price formation with any costs by routes of its own: closed forms where V = 0, and whole games as one system of equations.

Everything is NumPy and SciPy. Costs are NumPy functions, given with their derivatives where these are needed.
"""

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq, root


def sine_supply(steps):
    """The exact means over the steps of sin(10 t) on [0, 1], the supply of the published cases."""
    return -np.diff(np.cos(10 * np.linspace(0, 1, steps + 1))) * steps / 10


def costate_without_holding(terminal, end, first, trading_cost, noise, horizon=1.0, weights=None):
    """p̄, constant where V = 0, of a population of distances `first` from its mean, which ends at `end`.

    Facing p̄, an agent at y ends at z with density ∝ exp(−(Ψ(end + z) + p̄ z)/cσ²) times the normal law N(y, σ²T); markets
    clear where the mean of z is zero.
    """
    weights = np.full(len(first), 1 / len(first)) if weights is None else weights
    spread = noise * np.sqrt(horizon)
    reach = 9 * spread + np.ptp(first) + 3
    z = np.linspace(-reach, reach, int(200 * reach / spread))  # smooth and zero at the ends: spectrally accurate

    def mean(costate):
        exponent = -(terminal(end + z) + costate * z)[None] / (trading_cost * noise**2)
        exponent = exponent - (z[None] - first[:, None]) ** 2 / (2 * spread**2)
        law = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return weights @ ((law @ z) / law.sum(axis=1))

    return brentq(mean, -1e6, 1e6, xtol=1e-12)


def split_by_a_well(strength, left, right, end, trading_cost=1.0, horizon=1.0):
    """p̄ and the start of the indifferent agent: no noise, V = 0, Ψ a double well, first positions uniform on [0, 1].

    An agent at y goes straight to the z of least c (z − y)²/2T + Ψ(end + z) + p̄ z; those who start below the indifferent one
    end near the left well, the others near the right one.
    """
    stiff = trading_cost / horizon

    def cost(z, y, costate):
        x = end + z
        return 0.5 * stiff * (z - y) ** 2 + 0.5 * strength * ((x - left) * (x - right)) ** 2 + costate * z

    def ends(y, costate):
        """The real stationary points that are minima, from the cubic's roots: (left one or None, right one or None)."""
        a, b = left - end, right - end
        wells = np.polymul(np.poly([a, b]), np.polyder(np.poly([a, b])))
        slope = np.polyadd(strength * wells, [stiff, costate - stiff * y])
        found = np.roots(slope)
        found = np.sort(found[np.abs(found.imag) < 1e-9].real)
        found = found[np.polyval(np.polyder(slope), found) > 0]
        middle = 0.5 * (a + b)
        below, above = found[found < middle], found[found >= middle]
        return (below[0] if below.size else None), (above[-1] if above.size else None)

    def preference(y, costate):
        low, high = ends(y, costate)
        if low is None or high is None:
            return -1.0 if high is None else 1.0
        return cost(low, y, costate) - cost(high, y, costate)

    def split(costate):
        return brentq(preference, -2.0, 2.0, args=(costate,), xtol=1e-13)

    def mean(costate):
        at = np.clip(split(costate), -0.5, 0.5)
        below = quad(lambda y: ends(y, costate)[0], -0.5, at, epsabs=1e-11)[0]
        return below + quad(lambda y: ends(y, costate)[1], at, 0.5, epsabs=1e-11)[0]

    costate = brentq(mean, -1.0, 1.0, xtol=1e-11)
    return costate, split(costate) + 0.5


def clearing_of_trajectories(holding_slope, terminal_slope, trading_cost, supply, horizon, first, weights, guess=None):
    """Prices (steps, assets) and positions (steps + 1, agents, assets) of agents on straight moves, as one system.

    Unknown are all positions and prices at once: each agent's optimality condition at each node, with V weighted by the
    trapezoidal rule, and clearing in each step. Slopes take (…, assets) to (…, assets).
    """
    supply, first = np.asarray(supply, float), np.asarray(first, float)
    steps, assets = supply.shape
    agents, h = len(first), horizon / steps
    matrix = np.asarray(trading_cost, float).reshape(assets, assets)
    ends = np.concatenate([np.ones(steps - 1), [0.5]])[:, None, None] * h

    def unpack(unknown):
        positions = unknown[: steps * agents * assets].reshape(steps, agents, assets)
        return np.concatenate([first[None], positions]), unknown[steps * agents * assets :].reshape(steps, assets)

    def equations(unknown):
        positions, price = unpack(unknown)
        rate = np.diff(positions, axis=0) / h
        paid = rate @ matrix + price[:, None]
        slope = paid - np.concatenate([paid[1:], np.zeros_like(paid[:1])]) + ends * holding_slope(positions[1:])
        slope[-1] += terminal_slope(positions[-1])
        clearing = np.einsum("kia,i->ka", rate, weights) - supply
        return np.concatenate([slope.ravel(), clearing.ravel()])

    mean = np.concatenate([np.zeros((1, assets)), h * np.cumsum(supply, axis=0)])[1:, None]
    start = np.concatenate([(first[None] + mean).ravel(), -(supply @ matrix).ravel()])
    found = root(equations, start if guess is None else guess, method="hybr", tol=1e-13)
    if np.abs(found.fun).max() > 1e-9:
        raise ArithmeticError(found.message)
    positions, price = unpack(found.x)
    return price, positions
