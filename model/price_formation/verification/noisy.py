"""With noise: finite differences, extrapolated over resolutions, on a domain that the population does not leave."""

from dataclasses import replace
from typing import Any

import numpy as np

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.verification.finite_differences import FiniteDifferences
from walras.model.price_formation.verification.game import DIVERGED, Game, Rule
from walras.model.price_formation.verification.global_paths import LONG_STEPS, global_paths
from walras.model.price_formation.verification.grid import Grid, TooCoarse
from walras.model.price_formation.verification.result import Verification
from walras.model.price_formation.verification.trajectory import Trajectory

_LEAK = 1e-9  # the part of the population that may reach an open end of the grid
_GROWTHS = 14  # enlargements of the domain before giving up
_COARSE, _FEWEST, _MOST = 12.0, 600, 1500  # nodes of the coarsest grid: per σ, fewest and most
_COARSE_TIMES = 128  # time steps of the coarsest run
_FINER = 4  # doublings of the coarsest resolution where it is too coarse for the scheme
_LEVELS = 4  # resolutions tried, each twice as fine in position and time
_LARGEST = 2**24  # nodes × substeps: 128 MB
_HERMITE = 64  # Gauss–Hermite points for the costs of an open-loop path


def verify_noisy(game: Game, strategy: Any, tolerance) -> Verification:
    if game.bounded and not isinstance(strategy, Rule):
        raise EquilibriumError("strategy() is Paths, but paths hit by noise do not stay within limits: it must be Feedback")
    rule: Rule | None = strategy if isinstance(strategy, Rule) else None

    def nodes_and_pieces(low, high, level):
        nodes = int(np.clip(np.ceil((high - low) * _COARSE / game.noise), _FEWEST, _MOST))
        pieces = max(-(-_COARSE_TIMES // game.steps), 2 if game.bounded else 1)
        return nodes * 2**level, pieces * 2**level

    def size(low, high, level):
        nodes, pieces = nodes_and_pieces(low, high, level)
        return nodes * pieces * game.steps

    def run(low, high, level):
        walls = (low <= game.limits[0], high >= game.limits[1])
        nodes, pieces = nodes_and_pieces(low, high, level)
        diffusion = FiniteDifferences(game, Grid(low, high, walls, nodes, game.noise), pieces)
        best = diffusion.best_response()
        return diffusion.grid, best, best if rule is None else diffusion.follow(rule)

    low, high, first, coarse = _find_domain(game, run)
    results = [_summary(game, *coarse)]
    accuracy = np.inf
    for level in range(first + 1, first + _LEVELS):
        if level > first + 1 and size(low, high, level) > _LARGEST:
            break
        results.append(_summary(game, *run(low, high, level)))
        fine, less = results[-1], results[-2]
        change = np.abs(fine.rate - less.rate).max() / 3
        # Once two extrapolations can be compared, their difference is the sharper estimate of error.
        if len(results) > 2:
            change = min(change, np.abs(_extrapolated(fine, less).rate - _extrapolated(less, results[-3]).rate).max())
        accuracy = float(change)
        if accuracy <= tolerance * game.rate_scale:
            break
    result = _extrapolated(results[-1], results[-2])
    exploitability, own_rate = result.exploitability, result.strategy_rate
    if not isinstance(strategy, Rule):
        own_rate = game.weights @ np.diff(strategy, axis=0).T / game.step
        exploitability = _open_loop_cost(game, strategy) - result.cost
    error = float(np.abs(result.rate - game.supply).max())
    return replace(
        result,
        clearing_error=error,
        pure_clearing_error=error,
        exploitability=exploitability,
        strategy_rate=own_rate,
        accuracy=accuracy,
    )


def _summary(game, grid, best, own) -> Verification:
    frame = np.zeros(game.steps + 1) if game.bounded else game.path
    rate, own_rate = (np.diff(outcome.position + frame) / game.step for outcome in (best, own))
    return Verification(
        np.nan, np.nan, own.cost - best.cost, np.nan, best.cost, rate, own_rate, game.supply, best.position + frame
    )


def _extrapolated(fine: Verification, coarse: Verification) -> Verification:
    """Second-order errors of two resolutions cancelled."""
    names = ("exploitability", "cost", "rate", "strategy_rate", "mean_position")
    return replace(fine, **{name: (4 * getattr(fine, name) - getattr(coarse, name)) / 3 for name in names})


def _find_domain(game: Game, run):
    """The ends of a grid that the population does not reach, or only as walls, the coarsest level, and its run there."""

    def clipped(low, high):
        # A wall that is nearly reached is taken in.
        near = 0.05 * (high - low)
        low = game.limits[0] if low - near < game.limits[0] else low
        high = game.limits[1] if high + near > game.limits[1] else high
        return float(low), float(high)

    def coarsest(low, high, level):
        while True:
            try:
                return level, run(low, high, level)
            except TooCoarse:
                level += 1
                if level >= _FINER:
                    raise

    # A first guess: where agents would go without noise, and the noise.
    problem = Trajectory.of(game, LONG_STEPS)
    some = np.unique(np.quantile(game.start - game.path[0], np.linspace(0, 1, 65), method="nearest"))
    paths, _ = global_paths(problem, some, ())
    if game.bounded:
        paths = paths + problem.path[:, None]
    reach = 5 * game.noise * np.sqrt(game.horizon)
    low, high = clipped(paths.min() - reach, paths.max() + reach)
    level = 0
    for _ in range(_GROWTHS):
        level, result = coarsest(low, high, level)
        grid, envelope = result[0], np.maximum(result[1].envelope, result[2].envelope)
        edge = max(3, envelope.size // 100)
        width = 0.5 * (high - low)
        left, right = envelope[:edge].sum() > _LEAK, envelope[-edge:].sum() > _LEAK
        left, right = bool(left and not grid.walls[0]), bool(right and not grid.walls[1])
        if not left and not right:
            break
        low, high = clipped(low - width * left, high + width * right)
    else:
        raise EquilibriumError(DIVERGED)
    first = int(np.argmax(np.cumsum(envelope) > 0.1 * _LEAK))
    last = envelope.size - 1 - int(np.argmax(np.cumsum(envelope[::-1]) > 0.1 * _LEAK))
    margin = 0.04 * (grid.x[last] - grid.x[first])
    inner = clipped(max(low, grid.x[first] - margin), min(high, grid.x[last] + margin))
    if inner[1] - inner[0] < 0.8 * (high - low):
        return *inner, *coarsest(*inner, level)
    return low, high, level, result


def _open_loop_cost(game: Game, positions):
    """The mean cost of paths (nodes, agents) that noise is added to."""
    points, masses = np.polynomial.hermite_e.hermegauss(_HERMITE)
    masses = masses / masses.sum()
    moves = np.diff(positions, axis=0)
    cost = (0.5 * game.trading_cost / game.step * moves**2 + game.price[:, None] * moves).sum(axis=0)
    gauss, shares = np.polynomial.legendre.leggauss(max(2, -(-32 // game.steps)))
    for k in range(game.steps):
        part = 0.5 * (1 + gauss)[:, None, None]
        place = positions[k][:, None] + part * moves[k][:, None]
        place = place + game.noise * np.sqrt(game.step * (k + part)) * points
        cost = cost + game.step * np.einsum("q,qah,h->a", 0.5 * shares, game.holding(place), masses)
    last = positions[-1][:, None] + game.noise * np.sqrt(game.horizon) * points
    return float(game.weights @ (cost + game.terminal(last) @ masses))
