"""Without noise: globally optimal paths on a grid, by a (min, +) dynamic programme."""

import numpy as np

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.verification.game import DIVERGED
from walras.model.price_formation.verification.trajectory import Trajectory

LONG_STEPS = 40  # steps of the grid dynamic programme without noise
_GRID = 1201  # its positions
_ZOOMS = 5  # grids of positions, each closing in on the one before


def _grid_paths(problem: Trajectory, starts, low, high):
    """Globally optimal paths (n + 1, starts) on a grid of positions."""
    game, count = problem.game, problem.duration.size
    grid = np.linspace(low, high, _GRID)
    limit_low, limit_high = game.limits
    slack = (high - low) / _GRID  # so that a path along a limit has a grid point

    def penalised(values, k):
        x = problem.path[k] + grid
        return np.where((x < limit_low - slack) | (x > limit_high + slack), np.inf, values)

    to_go = penalised(game.terminal(problem.path[-1] + grid), count)
    choice = np.empty((count, grid.size), int)
    apart = grid[None, :] - grid[:, None]
    for k in range(count - 1, 0, -1):
        move = (0.5 * game.trading_cost / problem.duration[k] * apart + problem.costate[k]) * apart
        to_go = to_go + problem.trapezoid[k + 1] * game.holding(problem.path[k + 1] + grid)
        move += to_go
        choice[k] = move.argmin(axis=1)
        to_go = penalised(move[np.arange(grid.size), choice[k]], k)
    to_go = to_go + problem.trapezoid[1] * game.holding(problem.path[1] + grid)
    apart = grid[None, :] - starts[:, None]
    index = ((0.5 * game.trading_cost / problem.duration[0] * apart + problem.costate[0]) * apart + to_go).argmin(axis=1)
    paths = np.empty((count + 1, starts.size))
    paths[0], paths[1] = starts, grid[index]
    for k in range(1, count):
        index = choice[k][index]
        paths[k + 1] = grid[index]
    return paths


def _reach(problem: Trajectory, start):
    """A bound on |y − start| along globally optimal paths, from what they can gain and what moving costs.

    To have been R away costs at least cR²/2T − PR − TP²/c, P = max |p̄|, so the gain over staying must be more: the bound is
    where, from there on, TV + Ψ never falls that far below the cost of staying.
    """
    game = problem.game
    c, horizon, most = game.trading_cost, game.horizon, np.abs(problem.costate).max()
    x = np.clip(problem.path[:, None] + start, *game.limits)
    staying = (problem.trapezoid @ game.holding(x) + game.terminal(x[-1])).max()
    base = max(np.ptp(x), horizon * most / c, 1e-3 * np.abs(x).max()) or 1.0
    bound = np.inf
    for distance in base * 2.0 ** np.arange(24, -1, -1):
        seen = np.clip(np.linspace(x.min() - distance, x.max() + distance, 4001), *game.limits)
        lowest = horizon * np.nanmin(game.holding(seen)) + np.nanmin(game.terminal(seen))
        moving = (0.5 * distance / horizon * c - most) * distance - horizon * most**2 / c
        if not moving > staying - lowest:
            return bound
        bound = distance
    return bound


def global_paths(problem: Trajectory, start, probes):
    """Optimal paths on a grid from y = `start` and from the probes' places around it, (n + 1, places · agents), and the
    grid's width. The first grid holds all paths that can be optimal; the next ones close in on those that are."""
    game = problem.game
    reach = _reach(problem, start)
    low = max(start.min() - reach, game.limits[0] - problem.path.max())
    high = min(start.max() + reach, game.limits[1] - problem.path.min())
    if not np.isfinite(high - low):
        raise EquilibriumError(DIVERGED)
    paths, width = np.empty((0, 0)), 0.0
    for _ in range(_ZOOMS):
        width = high - low
        shifts = np.array([0.0, *(sign * part * width for part in probes for sign in (-1, 1))])
        places = np.clip(start[None, :] + shifts[:, None], *(limit - game.path[0] for limit in game.limits))
        paths = _grid_paths(problem, places.ravel(), low, high)
        margin = 0.15 * np.ptp(paths) + 25 * width / _GRID
        inner = max(low, paths.min() - margin), min(high, paths.max() + margin)
        if inner[1] - inner[0] > 0.6 * width:
            break
        low, high = inner
    return paths, width
