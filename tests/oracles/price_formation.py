"""Price formation with finitely many agents as one linear KKT system on a scenario tree.

Agents choose one trading rate per node of a tree of supply scenarios; a path of foreseen supply is a tree without
branches. Positions are piecewise linear. Every agent's cost is assembled as a quadratic form by Gauss quadrature
along the segments, the market clears at every node, and the price is the multiplier of clearing.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

# Two Gauss points on [0, 1]: exact for the quadratic costs of a linear segment.
GAUSS = ((0.5 - np.sqrt(1 / 12), 0.5), (0.5 + np.sqrt(1 / 12), 0.5))


class Tree(NamedTuple):
    """Scenario tree: each node is one time step, listed after its parent (−1 at the root)."""

    parent: np.ndarray
    probability: np.ndarray
    supply: np.ndarray
    leaf: np.ndarray
    duration: float  # of one step


class Game(NamedTuple):
    """Linear–quadratic costs; `holding` and `terminal` are (strength, centre) or None."""

    trading_cost: float
    holding: tuple[float, float] | None = None
    terminal: tuple[float, float] | None = None


def chain(supply, horizon) -> Tree:
    """Foreseen supply: one scenario, one node a step."""
    steps = len(supply)
    leaf = np.arange(steps) == steps - 1
    return Tree(np.arange(steps) - 1, np.ones(steps), np.asarray(supply, float), leaf, horizon / steps)


def binomial_tree(start, mean, reversion, volatility, horizon, steps) -> Tree:
    """Supply that moves up or down by equal amounts around its conditional mean, which reverts exponentially."""
    h = horizon / steps
    count = 2**steps - 1
    parent = (np.arange(count) - 1) // 2
    depth = np.floor(np.log2(np.arange(count) + 1)).astype(int)
    shock = volatility * np.sqrt(h) * np.where(np.arange(count) % 2, 1.0, -1.0)
    supply = np.full(count, float(start))
    for node in range(1, count):
        supply[node] = mean + np.exp(-reversion * h) * (supply[parent[node]] - mean) + shock[node]
    parent[0] = -1
    return Tree(parent, 0.5**depth, supply, depth == steps - 1, h)


def end_positions(tree: Tree) -> np.ndarray:
    """(nodes, nodes) matrix that takes trading rates to the change of position at the end of each node's step."""
    change = np.zeros((len(tree.parent),) * 2)
    for node, parent in enumerate(tree.parent):
        if parent >= 0:
            change[node] = change[parent]
        change[node, node] = tree.duration
    return change


def cost_terms(game: Game, tree: Tree) -> list:
    """Expected cost of one agent as a list of ½ w (x₀·start + rates·row − centre)², each (w, start, row, centre)."""
    ends, h, rows = end_positions(tree), tree.duration, np.eye(len(tree.parent))
    terms = []
    for node, p in enumerate(tree.probability):
        terms.append((p * h * game.trading_cost, 0.0, rows[node], 0.0))
        if game.holding is not None:
            strength, centre = game.holding
            points = [(ends[node] - (1 - s) * h * rows[node], weight) for s, weight in GAUSS]
            terms += [(p * h * weight * strength, 1.0, row, centre) for row, weight in points]
        if game.terminal is not None and tree.leaf[node]:
            strength, centre = game.terminal
            terms.append((p * strength, 1.0, ends[node], centre))
    return terms


def quadratic_form(game: Game, tree: Tree, position) -> tuple[np.ndarray, np.ndarray]:
    """Hessian, and gradient at zero trading, of the expected cost of an agent who starts at `position`."""
    weight, start, row, centre = (np.array(column) for column in zip(*cost_terms(game, tree), strict=True))
    return (row.T * weight) @ row, row.T @ (weight * (start * position - centre))


def clearing(game: Game, tree: Tree, positions, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """Prices (nodes,) and trading rates (nodes, agents) from the KKT system of all agents and all clearing constraints.

    Minimise Σᵢ wᵢ costᵢ(αᵢ) subject to p h (Σᵢ wᵢ αᵢ − Q) = 0 at every node, p its probability and h its duration.
    """
    positions = np.atleast_1d(np.asarray(positions, float))
    weights = np.full(len(positions), 1 / len(positions)) if weights is None else np.asarray(weights, float)
    forms = [quadratic_form(game, tree, position) for position in positions]
    measure = tree.probability * tree.duration
    hessian = block_diag(*[w * form[0] for w, form in zip(weights, forms, strict=True)])
    constraint = np.hstack([w * np.diag(measure) for w in weights])
    nodes = len(measure)
    system = np.block([[hessian, constraint.T], [constraint, np.zeros((nodes, nodes))]])
    gradient = np.concatenate([w * form[1] for w, form in zip(weights, forms, strict=True)])
    solution = np.linalg.solve(system, np.concatenate([-gradient, measure * tree.supply]))
    return solution[-nodes:], solution[:-nodes].reshape(len(positions), nodes).T


def best_response(game: Game, tree: Tree, price, position) -> np.ndarray:
    """Rates of one agent at the minimum of its own cost, facing `price` at every node."""
    hessian, gradient = quadratic_form(game, tree, position)
    return np.linalg.solve(hessian, -gradient - tree.probability * tree.duration * price)


def foreseen(game: Game, supply, horizon, positions, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """Prices (steps,) and positions at the nodes (steps + 1, agents) for supply that is known in advance."""
    tree = chain(supply, horizon)
    price, rates = clearing(game, tree, positions, weights)
    start = np.broadcast_to(np.asarray(positions, float), (1, rates.shape[1]))
    return price, np.vstack([start, start + end_positions(tree) @ rates])


def path_cost(game: Game, nodes, price, horizon) -> float:
    """Cost of one piecewise-linear path through `nodes`, payments included, by Simpson's rule on each step."""
    h = horizon / len(price)
    rates = np.diff(nodes) / h
    cost = h * np.sum(0.5 * game.trading_cost * rates**2 + price * rates)
    if game.holding is not None:
        strength, centre = game.holding
        values = 0.5 * strength * (np.stack([nodes[:-1], (nodes[:-1] + nodes[1:]) / 2, nodes[1:]]) - centre) ** 2
        cost += h / 6 * np.sum(values.T @ np.array([1.0, 4.0, 1.0]))
    if game.terminal is not None:
        strength, centre = game.terminal
        cost += 0.5 * strength * (nodes[-1] - centre) ** 2
    return float(cost)


def root_coefficients(game: Game, mean, reversion, horizon, steps, volatility=1.0) -> np.ndarray:
    """(level, supply, position) coefficients of the price at the root of a binomial tree, whose price is affine."""

    def price(supply, position):
        tree = binomial_tree(supply, mean, reversion, volatility, horizon, steps)
        return clearing(game, tree, [position - 1.0, position + 3.0], [0.75, 0.25])[0][0]

    level = price(0.0, 0.0)
    return np.array([level, price(1.0, 0.0) - level, price(0.0, 1.0) - level])


def extrapolate(step, values) -> np.ndarray:
    """Limit as step → 0 of values (n, …) by the polynomial of degree n − 1 through them (Richardson)."""
    step = np.asarray(step, float)
    weights = [np.prod([s / (s - own) for s in np.delete(step, i)]) for i, own in enumerate(step)]
    return np.tensordot(weights, np.asarray(values), axes=1)
