"""Agents with noise between hard walls by finite differences in position and matrix exponentials in time.

With ε = cσ², φ = exp(−u/ε) of an agent's value u, who faces a price constant on each step, obeys a linear equation that
vanishes at the walls, φ_t + (σ²/2) φ_xx − (V/ε) φ = 0 between steps, and is tilted by exp(−ϖ_k (x_{k+1} − x_k)/ε) by paying
for the move in step k. The population follows φ's transform. Second order in the spacing.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import expm
from scipy.optimize import root


class Walls(NamedTuple):
    low: float
    high: float
    noise: float
    trading_cost: float
    horizon: float
    start: np.ndarray  # positions that are multiples of the spacing away from the lower wall
    weights: np.ndarray
    holding: object = None
    terminal: object = None


def mean_rates(game: Walls, price, nodes):
    """Mean rates (steps,) and the law (steps, nodes − 1) of agents who face `price`."""
    steps, dx = len(price), (game.high - game.low) / nodes
    epsilon = game.trading_cost * game.noise**2
    x = game.low + np.arange(1, nodes) * dx
    cost = np.zeros(x.size) if game.holding is None else game.holding(x)
    end = np.zeros(x.size) if game.terminal is None else game.terminal(x)
    second = (np.eye(x.size, k=1) + np.eye(x.size, k=-1) - 2 * np.eye(x.size)) / dx**2
    forth = expm((0.5 * game.noise**2 * second - np.diag(cost) / epsilon) * game.horizon / steps)
    tilts = np.exp(-np.outer(price, x - x.mean()) / epsilon)
    values = [np.exp(-(end - end.min()) / epsilon)]
    for tilt in tilts[::-1]:
        values.append(forth @ (values[-1] * tilt) / tilt)
    values = values[::-1]
    law = np.zeros(x.size)
    for position, weight in zip(game.start, game.weights, strict=True):
        law[round((position - game.low) / dx) - 1] += weight
    means, laws = [law @ x], []
    law = law / values[0]
    for k, tilt in enumerate(tilts):
        law = forth.T @ (law / tilt) * tilt
        laws.append(law * values[k + 1])
        means.append(laws[-1] @ x / laws[-1].sum())
    return np.diff(means) * steps / game.horizon, np.array(laws)


def clearing_price(game: Walls, supply, nodes):
    """The price (steps,) at which the mean rate is the supply, extrapolated from `nodes` and twice as many."""

    def solve(count, guess):
        found = root(lambda price: mean_rates(game, price, count)[0] - supply, guess, tol=1e-12)
        if np.abs(found.fun).max() > 1e-8:
            raise ArithmeticError(found.message)
        return found.x

    coarse = solve(nodes, -game.trading_cost * np.asarray(supply))
    return (4 * solve(2 * nodes, coarse) - coarse) / 3
