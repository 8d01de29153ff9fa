"""Equilibrium under unforeseen supply from the control problem of one agent among many.

The state of an agent is z = (1, x, Q, X̄): its own position, supply and the mean position. It faces the price
ϖ = a·(1, Q, X̄) and chooses its trading rate α. The price is an equilibrium when the optimal rate of the agent who
stands at x = X̄ clears the market: α = Q − d₀ + d₁ϖ.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_are, solve_continuous_lyapunov
from scipy.optimize import root

ONE, OWN, SUPPLY, MEAN = np.eye(4)
AT_MEAN = np.stack([ONE, SUPPLY, OWN + MEAN], axis=1)  # (1, Q, X̄) ↦ z with x = X̄


class Market(NamedTuple):
    trading_cost: float
    strength: float  # of the holding cost
    centre: float
    discount: float = 0.0
    depreciation: float = 0.0
    intercept: float = 0.0  # of demand
    slope: float = 0.0
    mean: float = 0.0  # of supply
    reversion: float = 1.0
    volatility: float = 1.0


def price_row(price) -> np.ndarray:
    """Price coefficients (level, supply, position) as a row on z."""
    level, supply, position = price
    return level * ONE + supply * SUPPLY + position * MEAN


def clearing_row(market: Market, price) -> np.ndarray:
    """Rate that clears the market, Q − d₀ + d₁ϖ, as a row on z."""
    return SUPPLY - market.intercept * ONE + market.slope * price_row(price)


def drift(market: Market, price) -> np.ndarray:
    """Drift matrix of z for an agent who does not trade."""
    return np.stack(
        [
            np.zeros(4),
            -market.depreciation * OWN,
            market.reversion * (market.mean * ONE - SUPPLY),
            clearing_row(market, price) - market.depreciation * MEAN,
        ]
    )


def running_cost(market: Market, price, rate) -> np.ndarray:
    """Matrix W with ½ z'Wz = (c/2)α² + (η/2)(x − κ)² + ϖα for the rate α = rate·z."""
    target, row = OWN - market.centre * ONE, price_row(price)
    trading = market.trading_cost * np.outer(rate, rate) + np.outer(row, rate) + np.outer(rate, row)
    return market.strength * np.outer(target, target) + trading


def clearing_price(market: Market, value) -> np.ndarray:
    """Price coefficients at which the agent with value function ½ z'·value·z who stands at the mean clears the market.

    Its rate is affine in the price, so the price is found by solving excess(price) = 0 through differences.
    """

    def excess(price):
        rate = -(price_row(price) + value[1]) / market.trading_cost
        return (rate - clearing_row(market, price)) @ AT_MEAN

    constant = excess(np.zeros(3))
    slope = np.stack([excess(unit) - constant for unit in np.eye(3)], axis=1)
    return np.linalg.solve(slope, -constant)


def finite_horizon(market: Market, times, horizon, terminal=None) -> np.ndarray:
    """Price coefficients (times, 3) from the Hamilton–Jacobi equation of one agent, integrated back from the horizon.

    The value function is ½ z'Pz; at every time the price is the one that clears the market given P.
    """
    strength, centre = (0.0, 0.0) if terminal is None else terminal
    target = OWN - centre * ONE

    def backward(_, flat):
        value = flat.reshape(4, 4)
        price = clearing_price(market, value)
        rate = -(price_row(price) + value[1]) / market.trading_cost
        closed = drift(market, price) + np.outer(OWN, rate)
        change = value @ closed + closed.T @ value - market.discount * value + running_cost(market, price, rate)
        return change.ravel()

    start = (strength * np.outer(target, target)).ravel()
    remaining = horizon - np.asarray(times, float)
    order = np.argsort(remaining)
    solution = solve_ivp(
        backward, (0.0, remaining.max()), start, method="DOP853", t_eval=remaining[order], rtol=1e-12, atol=1e-13
    )
    prices = np.stack([clearing_price(market, flat.reshape(4, 4)) for flat in solution.y.T])
    return prices[np.argsort(order)]


def best_response(market: Market, price) -> np.ndarray:
    """Optimal rate (a row on z) of one agent facing the price, by the algebraic Riccati equation; discount > 0."""
    discounted = drift(market, price) - 0.5 * market.discount * np.eye(4)
    holding = running_cost(market, price, np.zeros(4))
    row = price_row(price)[:, None]
    value = solve_continuous_are(discounted, OWN[:, None], holding, [[market.trading_cost]], s=row)
    return -(value[1] + row[:, 0]) / market.trading_cost


def excess_rate(market: Market, price) -> np.ndarray:
    """(constant, Q, X̄) coefficients of the mean optimal rate less the rate that clears the market."""
    return (best_response(market, price) - clearing_row(market, price)) @ AT_MEAN


def equilibrium(market: Market) -> np.ndarray:
    """Price coefficients at which best responses clear the market, by a root finder from a price of zero."""
    solution = root(lambda price: excess_rate(market, price), np.zeros(3), tol=1e-13)
    error = np.max(np.abs(solution.fun))
    if error > 1e-9:
        raise ArithmeticError(f"best responses miss clearing by {error:.1e}")
    return solution.x


def linear_value(drift_matrix, cost_matrix, discount) -> np.ndarray:
    """Matrix P with E ∫ e^{−rt} ½ z'Wz dt = ½ z₀'Pz₀ + constant, from the Lyapunov equation of the discounted drift."""
    discounted = drift_matrix - 0.5 * discount * np.eye(len(drift_matrix))
    if np.linalg.eigvals(discounted).real.max() >= 0:
        raise ArithmeticError("the discounted cost is infinite")
    return solve_continuous_lyapunov(discounted.T, -cost_matrix)


def linear_cost(drift_matrix, cost_matrix, discount, diffusion_cov, start) -> float:
    """E ∫ e^{−rt} ½ z'Wz dt for dz = Fz dt + noise, from z = start."""
    value = linear_value(drift_matrix, cost_matrix, discount)
    return float(0.5 * start @ value @ start + 0.5 * np.trace(value @ diffusion_cov) / discount)


def rule_cost(market: Market, price, rate, start) -> float:
    """Expected discounted cost of an agent who trades at the rate rate·z for ever, from z = start."""
    closed = drift(market, price) + np.outer(OWN, rate)
    noise = market.volatility**2 * np.outer(SUPPLY, SUPPLY)
    return linear_cost(closed, running_cost(market, price, rate), market.discount, noise, start)


def smoothed_rule_cost(market: Market, price, rate, start, lag) -> float:
    """Cost of the rule that sees, in place of supply, its exponentially smoothed past (mean age `lag`)."""
    seen = np.append(rate, 0.0)
    seen[[2, 4]] = 0.0, rate[2]
    embed = np.eye(5)[:, :4]
    own, supply, smoothed = np.eye(5)[[1, 2, 4]]
    closed = embed @ drift(market, price) @ embed.T + np.outer(own, seen) + np.outer(smoothed, supply - smoothed) / lag
    target, row = embed @ (OWN - market.centre * ONE), embed @ price_row(price)
    cost = market.strength * np.outer(target, target) + market.trading_cost * np.outer(seen, seen)
    cost += np.outer(row, seen) + np.outer(seen, row)
    noise = market.volatility**2 * np.outer(supply, supply)
    return linear_cost(closed, cost, market.discount, noise, np.append(start, start[2]))
