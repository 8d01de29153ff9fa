"""Without noise: each agent's basins by the grid, polished, and shared where agents are indifferent."""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.verification.game import Game, Rule
from walras.model.price_formation.verification.global_paths import LONG_STEPS, global_paths
from walras.model.price_formation.verification.result import Verification
from walras.model.price_formation.verification.trajectory import Trajectory

_NOT_FINITE = (
    "verify found no path of finite cost for some agent on these steps: where costs become infinite, as beyond a Barrier, and "
    "agents come near that, cut the supply into more steps"
)
_PROBES = (0.005, 0.02, 0.08)  # where else basins are looked for around an agent, as parts of the grid's width


def verify_quiet(game: Game, strategy, indifference) -> Verification:
    # Local optima in long steps: an agent's own, and those that the paths of places nearby lead it to.
    coarse = Trajectory.of(game, LONG_STEPS)
    start = game.start - game.path[0]
    paths, width = global_paths(coarse, start, _PROBES)
    agent = np.arange(paths.shape[1]) % start.size
    paths[0] = start[agent]
    paths, _ = coarse.polish(paths)
    costs = coarse.cost(paths)
    best = _lowest(costs, agent, game.start.size)
    scale = game.trading_cost * np.ptp(paths) ** 2 / game.horizon
    worth = np.flatnonzero(costs <= best[agent] + (0.01 + 10 * indifference) * scale)
    kept = _distinct(paths, agent, costs, worth, 1e-6 * width)
    problem = Trajectory.of(game)
    agent = agent[kept]
    guess = np.stack([np.interp(problem.times, coarse.times, paths[:, j]) for j in kept], axis=1)
    guess[0] = start[agent]
    paths, change = problem.polish(guess)
    costs = problem.cost(paths)
    best = _lowest(costs, agent, game.start.size)
    if not np.all(np.isfinite(best)):
        raise EquilibriumError(_NOT_FINITE)
    scale = game.trading_cost * np.ptp(paths) ** 2 / game.horizon
    allowed = np.flatnonzero(costs <= best[agent] + indifference * scale)
    allowed = _distinct(paths, agent, costs, allowed, 1e-6 * width)
    rates = np.diff(paths, axis=0) / game.step  # in excess of supply
    chosen = np.array(sorted({agent[j]: j for j in reversed(allowed)}.values(), key=lambda j: agent[j]))  # cheapest of each
    pure = rates[:, chosen] @ game.weights
    excess = _shared(game, rates, agent, allowed, pure)
    own = strategy - game.path[:, None] if isinstance(strategy, np.ndarray) else _integrate(game, strategy)
    constant = game.step * np.sum(game.price * game.supply + 0.5 * game.trading_cost * game.supply**2)
    return Verification(
        clearing_error=float(np.abs(excess).max()),
        pure_clearing_error=float(np.abs(pure).max()),
        exploitability=float(game.weights @ (problem.cost(own) - best)),
        accuracy=float(change[chosen].max()),
        cost=float(game.weights @ best + constant),
        rate=game.supply + excess,
        strategy_rate=game.supply + np.diff(own, axis=0) @ game.weights / game.step,
        supply=game.supply,
        mean_position=game.path + game.step * np.append(0.0, np.cumsum(excess)),
    )


def _lowest(costs, agent, agents):
    """Each agent's lowest cost (agents,)."""
    best = np.full(agents, np.inf)
    np.minimum.at(best, agent, costs)
    return best


def _distinct(paths, agent, costs, among, apart):
    """Of the paths `among`, one of each set of an agent's paths that nearly agree; by agent, the cheapest first."""
    kept: list[int] = []
    for j in among[np.lexsort((costs[among], agent[among]))]:
        for i in reversed(kept):
            if agent[i] != agent[j]:
                kept.append(j)
                break
            if np.abs(paths[:, i] - paths[:, j]).max() <= apart:
                break
        else:
            kept.append(j)
    return np.array(kept)


def _shared(game: Game, rates, agent, allowed, pure):
    """The mean excess rates (steps,) of least size when indifferent agents share themselves among their responses."""
    several = np.bincount(agent[allowed], minlength=game.start.size) > 1
    if not several.any():
        return pure
    mixed = allowed[several[agent[allowed]]]
    single = allowed[~several[agent[allowed]]]
    fixed = rates[:, single] @ game.weights[agent[single]]
    effect = rates[:, mixed] * game.weights[agent[mixed]]
    unit = max(np.abs(pure).max(), 1e-300)  # so that the programme's own tolerances are relative
    ones = np.ones((game.steps, 1))
    sizes = np.vstack([np.hstack([effect / unit, -ones]), np.hstack([-effect / unit, -ones])])
    _, row = np.unique(agent[mixed], return_inverse=True)
    shares = csr_array((np.ones(mixed.size), (row, np.arange(mixed.size))), shape=(row.max() + 1, mixed.size + 1))
    answer = linprog(
        np.append(np.zeros(mixed.size), 1.0),
        A_ub=sizes,
        b_ub=np.append(-fixed, fixed) / unit,
        A_eq=shares,
        b_eq=np.ones(row.max() + 1),
        bounds=(0, None),
        method="highs",
    )
    if not answer.success:
        return pure
    return fixed + effect @ answer.x[:-1]


def _integrate(game: Game, rule: Rule):
    """Paths y (steps + 1, agents) of agents who follow the rule."""
    y = np.empty((game.steps + 1, game.start.size))
    y[0] = game.start - game.path[0]
    pieces = max(4, -(-256 // game.steps))
    dt = game.step / pieces
    paths = game.path_at(rule.time)

    def rate(time, y):
        before, after, late = rule.around(time)
        earlier, later = (np.interp(y, rule.position[j] - paths[j], rule.rate[j]) for j in (before, after))
        return (1 - late) * earlier + late * later

    for k in range(game.steps):
        now = y[k]
        for piece in range(pieces):
            start, half, end = (k * game.step + dt * (piece + part) for part in (0.0, 0.5, 1.0))
            first = rate(start, now)
            second = rate(half, now + 0.5 * dt * first)
            third = rate(half, now + 0.5 * dt * second)
            fourth = rate(end, now + dt * third)
            now = now + dt / 6 * (first + 2 * second + 2 * third + fourth)
        y[k + 1] = np.clip(now, game.limits[0] - game.path[k + 1], game.limits[1] - game.path[k + 1])
    return y
