"""Market equilibrium of mean–variance agents who pay to trade, as one system of equations on a tree of histories.

In n steps of length D = T/n, W gains ±√D at every step, each component by its own fair coin. The price S is adapted and
ends at βT + αW_T. Over step k, agent i trades at rate r_k, holds φ_{k+1} = φ_k + D r_k from φ₀ = γ̄ s/γᵢ on, where
1/γ̄ = Σ 1/γᵢ, and maximises

    E Σ_k D [φ_{k+1}·μ_k − ½γᵢ |σ_kᵀφ_{k+1} + ξᵢW_k|² − cost(r_k)],  μ_k = E_k[S_{k+1} − S_k]/D,  σ_k = E_k[S_{k+1} ΔWᵀ]/D,

at given μ and σ, where cost(r) = ½ r·Λr, or (λ/q)|r|^q with 1 < q < 2 for one asset. The rates of all agents sum to zero
at every node. Newton's method finds prices and marginal costs p = cost′(r) of all agents at all nodes together: in p
instead of r nothing is singular where nobody trades. It may fail, and says so, at exponents below 1.25.

A list has one array per date; its nodes are the histories in order of their first coins, all equally likely.
"""

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import root


class Market(NamedTuple):
    aversion: np.ndarray  # γ (N,)
    risk: np.ndarray  # ξ (N, d, d)
    cost: np.ndarray  # Λ (d, d), symmetric; λ where d = 1
    supply: np.ndarray  # s (d,)
    level: np.ndarray  # β (d,)
    noise: np.ndarray  # α (d, d)
    duration: float  # D
    steps: int  # n
    exponent: float = 2.0  # q

    @property
    def coins(self) -> np.ndarray:  # (2^d, d) of ±1, the branches at a node
        return np.array(list(product([1.0, -1.0], repeat=len(self.supply))))

    @property
    def start(self) -> np.ndarray:  # positions (N, d) before the first trade
        return np.outer(1 / self.aversion, self.supply) / np.sum(1 / self.aversion)

    @property
    def dates(self) -> np.ndarray:  # numbers (n,) of nodes at the dates before the last
        return len(self.coins) ** np.arange(self.steps)

    def split(self, stacked) -> list:
        """One array per date from an array (…, nodes, d) over all nodes before the last date."""
        return np.split(stacked, np.cumsum(self.dates)[:-1], axis=-2)


class Equilibrium(NamedTuple):
    price: list  # S: n + 1 dates of (nodes, d)
    drift: list  # μ: n dates of (nodes, d), as in the lists below
    volatility: list  # σ: (nodes, d, d)
    rates: list  # r: (N, nodes, d)
    positions: list  # held over the step, after the trade: (N, nodes, d)
    marginal_costs: list  # p: (N, nodes, d)
    welfare: np.ndarray  # (N,)


def market(aversion, risk, cost, horizon, steps, supply=1.0, level=0.0, noise=1.0, exponent=2.0) -> Market:
    """A market from numbers (one asset) or arrays (several assets, at quadratic costs)."""
    agents, d = len(aversion), np.size(supply)
    given = (aversion, (agents,)), (risk, (agents, d, d)), (cost, (d, d)), (supply, d), (level, d), (noise, (d, d))
    return Market(*(np.reshape(np.asarray(value, float), shape) for value, shape in given), horizon / steps, steps, exponent)


def walk(market: Market) -> list:
    """W at the n + 1 dates."""
    values, moves = [np.zeros((1, len(market.supply)))], np.sqrt(market.duration) * market.coins
    for _ in range(market.steps):
        values.append((values[-1][:, None] + moves).reshape(-1, len(market.supply)))
    return values


def dynamics(market: Market, price) -> tuple[list, list]:
    """μ and σ at the n dates before the last."""
    after = [later.reshape(len(now), -1, len(market.supply)) for now, later in pairwise(price)]
    drift = [(later.mean(axis=1) - now) / market.duration for now, later in zip(price[:-1], after, strict=True)]
    scale = len(market.coins) * np.sqrt(market.duration)
    return drift, [np.einsum("kbi,bj->kij", later, market.coins) / scale for later in after]


def rate(market: Market, marginal_cost) -> tuple[np.ndarray, np.ndarray]:
    """Rates (…, d) at which trading costs `marginal_cost` (…, d) at the margin, and their derivative (…, d, d)."""
    if market.exponent == 2:
        inverse = np.linalg.inv(market.cost)
        return marginal_cost @ inverse, np.broadcast_to(inverse, (*marginal_cost.shape, len(inverse)))
    scaled, power = np.abs(marginal_cost) / market.cost[0], 1 / (market.exponent - 1)
    return np.sign(marginal_cost) * scaled**power, (power / market.cost[0] * scaled ** (power - 1))[..., None]


def clearing_shift(market: Market, marginal_costs) -> tuple[np.ndarray, np.ndarray]:
    """c (nodes, d) such that marginal costs p + c, p (N, nodes, d), clear, 0 if p does, and −∂c/∂p (N, nodes, 1)."""
    agents, nodes, _ = marginal_costs.shape
    if market.exponent == 2:
        return -marginal_costs.mean(axis=0), np.full((agents, nodes, 1), 1 / agents)
    low, high = -marginal_costs.max(axis=0), -marginal_costs.min(axis=0)
    for _ in range(80):
        middle = (low + high) / 2
        short = rate(market, marginal_costs + middle)[0].sum(axis=0) < 0
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    slope = rate(market, marginal_costs + middle)[1][..., 0] + 1e-300  # equal shares where nobody trades
    return middle, slope / slope.sum(axis=0)


def solve(residual, jacobian, x) -> np.ndarray:
    """Root of a system of equations, to rounding errors."""
    found = root(residual, x, jac=jacobian, tol=1e-15)
    if np.abs(found.fun).max() > 1e-10:
        raise RuntimeError(f"{found.message} Residual {np.abs(found.fun).max()}.")
    return found.x - np.linalg.solve(jacobian(found.x), found.fun)


def equilibrium(market: Market) -> Equilibrium:
    """Prices and rates at which every agent's own objective is stationary in its rates and all markets clear."""
    d, agents, noise, dates = len(market.supply), len(market.aversion), walk(market), market.dates
    nodes, size, measure = sum(dates), sum(dates) * d, np.repeat(market.duration / dates, dates * d)
    expected = [market.level * market.duration * market.steps + now @ market.noise.T for now in noise]
    # `held` takes rates at all nodes to changes of position: every trade lasts for all of its descendants.
    trades = [[np.kron(np.eye(b), np.ones((a // b, 1))) if b <= a else np.zeros((a, b)) for b in dates] for a in dates]
    held = market.duration * np.block(trades)

    def quadratic_form(i, stacked):
        """Hessian, and gradient at zero, of agent i's objective before trading costs, in its rates at all nodes."""
        drift, volatility = map(np.concatenate, dynamics(market, [*market.split(stacked), expected[-1]]))
        exposure = np.einsum("kaj,kl->kjla", volatility, held).reshape(size, size)
        first = (market.start[i] @ volatility + np.concatenate(noise[:-1]) @ market.risk[i].T).ravel()
        risk = market.aversion[i] * exposure.T * measure
        return -risk @ exposure, (held.T @ (measure.reshape(nodes, d) * drift)).ravel() - risk @ first

    def slopes(stacked, rates):
        forms = [quadratic_form(i, stacked) for i in range(agents)]
        return np.concatenate([(form[0] @ rates[i].ravel() + form[1]) / measure for i, form in enumerate(forms)])

    def unpack(x):
        return x[:size].reshape(nodes, d), x[size:].reshape(agents, nodes, d)

    def residual(x):
        stacked, marginal = unpack(x)
        optimality = marginal.ravel() - slopes(stacked, rate(market, marginal)[0])
        return np.concatenate([clearing_shift(market, marginal)[0].ravel(), optimality])

    def jacobian(x):
        (stacked, marginal), matrix = unpack(x), np.diag(np.where(np.arange(x.size) < size, 0.0, 1.0))
        (rates, derivative), shares = rate(market, marginal), clearing_shift(market, marginal)[1]
        for j, unit in enumerate(np.eye(size).reshape(size, nodes, d)):  # exact: slopes are quadratic in prices
            matrix[size:, j] = (slopes(stacked - unit, rates) - slopes(stacked + unit, rates)) / 2
        for i in range(agents):
            own = slice(size * (i + 1), size * (i + 2))
            matrix[:size, own] = -np.diag(np.repeat(shares[i, :, 0], d))
            matrix[own, own] -= quadratic_form(i, stacked)[0] @ block_diag(*derivative[i]) / measure[:, None]
        return matrix

    guess = np.concatenate([np.concatenate(expected[:-1]).ravel(), np.zeros(agents * size)])
    stacked, marginal = unpack(solve(residual, jacobian, guess))
    price, rates = [*market.split(stacked), expected[-1]], rate(market, marginal)[0]
    lists = [market.split(values) for values in (rates, market.start[:, None] + held @ rates, marginal)]
    welfare = [objective(market, i, price, market.split(rates[i])) for i in range(agents)]
    return Equilibrium(price, *dynamics(market, price), *lists, np.array(welfare))


def objective(market: Market, agent, price, rates, costs=True) -> np.ndarray:
    """Objective (…) of one agent with rates (…, nodes, d) at each date, date by date, with or without trading costs."""
    position, total, q = market.start[agent][None], 0.0, market.exponent
    for now, drift, volatility, noise in zip(rates, *dynamics(market, price), walk(market)[:-1], strict=True):
        position = np.repeat(position, now.shape[-2] // position.shape[-2], axis=-2) + market.duration * now
        exposure = np.einsum("kaj,...ka->...kj", volatility, position) + noise @ market.risk[agent].T
        paid = now @ market.cost * now / 2 if q == 2 else market.cost[0, 0] / q * np.abs(now) ** q
        flow = position * drift - market.aversion[agent] / 2 * exposure**2 - costs * paid
        total = total + market.duration * flow.sum(axis=-1).mean(axis=-1)
    return total


def gain(market: Market, agent, price, rates) -> float:
    """What one agent with rates (nodes, d) at each date would gain from its best response to the prices."""
    d, measure = len(market.supply), np.repeat(market.duration / market.dates, market.dates * len(market.supply))

    def value(flat, costs=False):
        return objective(market, agent, price, market.split(flat.reshape(*flat.shape[:-1], -1, d)), costs)

    def trade(marginal):
        return rate(market, marginal.reshape(-1, d))

    # Differences over units give exact derivatives of the objective before trading costs, as it is quadratic.
    units = np.eye(len(measure))
    up, down = value(units), value(-units)
    hessian = value(units[:, None] + units) - up[:, None] - up + value(0 * measure)

    def residual(marginal):
        return marginal - (hessian @ trade(marginal)[0].ravel() + (up - down) / 2) / measure

    def jacobian(marginal):
        return units - hessian @ block_diag(*trade(marginal)[1]) / measure[:, None]

    best = trade(solve(residual, jacobian, 0 * measure))[0]
    return float(value(best.ravel(), costs=True) - objective(market, agent, price, rates))
