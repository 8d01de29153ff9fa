"""Without noise: the cost of a path, and the local optimum that it leads to, by Newton's method."""

from dataclasses import dataclass

import numpy as np

from walras.model.price_formation.verification.game import Game

_NEWTON = 200  # iterations of the polish


@dataclass(frozen=True)
class Trajectory:
    """The problem of one path y_0 … y_n in the frame of X̄, over steps of given durations (n,)."""

    game: Game
    duration: np.ndarray
    costate: np.ndarray  # (n,) mean of p̄
    path: np.ndarray  # (n + 1,) X̄

    @classmethod
    def of(cls, game: Game, most: int | None = None):
        nodes = np.arange(game.steps + 1)
        if most is not None and most < game.steps:
            nodes = np.unique(np.round(np.linspace(0, game.steps, most + 1)).astype(int))
        costate = np.diff(np.append(0.0, np.cumsum(game.costate))[nodes]) / np.diff(nodes)
        return cls(game, game.step * np.diff(nodes), costate, game.path[nodes])

    @property
    def trapezoid(self):
        return 0.5 * (np.append(self.duration, 0.0) + np.append(0.0, self.duration))

    @property
    def times(self):
        return np.append(0.0, np.cumsum(self.duration))

    def cost(self, y):
        """Costs of paths (n + 1, count), without the constant that supply itself costs."""
        moves = np.diff(y, axis=0)
        stiffness = 0.5 * self.game.trading_cost / self.duration
        total = (stiffness[:, None] * moves**2 + self.costate[:, None] * moves).sum(axis=0)
        x = self.path[:, None] + y
        return total + self.trapezoid @ self.game.holding(x) + self.game.terminal(x[-1])

    def derivatives(self, y):
        """Gradient and diagonal of the Hessian in y_1 … y_n (n, count)."""
        c, x = self.game.trading_cost, self.path[:, None] + y
        force = c * np.diff(y, axis=0) / self.duration[:, None] + self.costate[:, None]
        weight = self.trapezoid[1:, None]
        gradient = force + weight * self.game.holding(x[1:], 1)
        gradient[:-1] -= force[1:]
        gradient[-1] += self.game.terminal(x[-1], 1)
        stiffness = c / self.duration
        main = (stiffness + np.append(stiffness[1:], 0.0))[:, None] + weight * self.game.holding(x[1:], 2)
        main[-1] += self.game.terminal(x[-1], 2)
        return gradient, main

    def polish(self, y):
        """The local optima that paths (n + 1, count) lead to, and the size (count,) of the last change of their rates."""
        y = self._within(y)
        off = self.game.trading_cost / self.duration[1:]  # minus the off-diagonal
        shortest = self.duration.min()
        smallest = self.game.trading_cost / self.game.horizon**2
        low, high = (limit - self.path[1:, None] for limit in self.game.limits)
        cost, damping = self.cost(y), np.zeros(y.shape[1])
        change, active = np.full(y.shape[1], np.inf), np.arange(y.shape[1])
        for _ in range(_NEWTON):
            if active.size == 0:
                break
            here = y[:, active]
            gradient, main = self.derivatives(here)
            held = (here[1:] <= low) & (gradient > 0) | (here[1:] >= high) & (gradient < 0)
            step, convex = _newton_step(main + damping[active] * self.trapezoid[1:, None], off, gradient, held)
            there = here.copy()
            there[1:] += step
            there = self._within(there)
            size = np.abs(np.diff(there - here, axis=0)).max(axis=0) / shortest
            new = self.cost(there)
            # A change below rounding cannot be judged by the cost: it is taken, being a Newton step.
            rounding = 1e-13 * (1 + np.abs(cost[active]))
            better = convex & np.isfinite(new) & (new <= cost[active] + rounding)
            chosen = active[better]
            y[:, chosen], cost[chosen], change[chosen] = there[:, better], new[better], size[better]
            eased = np.where(damping[active] > smallest, 0.1 * damping[active], 0.0)
            damping[active] = np.where(better, eased, np.maximum(4 * damping[active], smallest))
            scale = 1e-10 * (self.game.rate_scale + np.abs(np.diff(here, axis=0)).max(axis=0) / shortest)
            active = active[~(better & (size < scale) & (damping[active] == 0.0)) & (damping[active] < 1e15 * smallest)]
        return y, change

    def _within(self, y):
        low, high = self.game.limits
        out = np.clip(y, low - self.path[:, None], high - self.path[:, None])
        out[0] = y[0]
        return out


def _newton_step(main, off, gradient, held):
    """Batched tridiagonal solves (n, count) in which held entries do not move; and which matrices are positive."""
    count = main.shape[0]
    pivots, right = np.empty_like(main), np.where(held, 0.0, -gradient)
    main = np.where(held, 1.0, main)
    convex = np.ones(main.shape[1], bool)
    free = ~held
    for k in range(count):
        pivots[k] = main[k]
        if k:
            link = off[k - 1] * (free[k] & free[k - 1]) / pivots[k - 1]
            pivots[k] -= link * off[k - 1]
            right[k] += link * right[k - 1]
        convex &= pivots[k] > 0
        pivots[k] = np.where(pivots[k] > 0, pivots[k], 1.0)
    right[-1] /= pivots[-1]
    for k in range(count - 2, -1, -1):
        right[k] = (right[k] + off[k] * (free[k] & free[k + 1]) * right[k + 1]) / pivots[k]
    return right, convex
