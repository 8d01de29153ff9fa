"""The game with noise by finite differences: the value backward in time, and the law of the population forward."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from walras.model.price_formation.verification.game import Game, Rule
from walras.model.price_formation.verification.grid import UNRESOLVED, Clock, Grid, TooCoarse, apply, solve, transposed

_ON_A_WALL = 1e-9  # of the distance between the grid's ends: a rule's positions may be off a wall by rounding


@dataclass(frozen=True)
class Outcome:
    """Mean positions (steps + 1,) in the grid's frame, the mean cost, and the largest law seen at each node."""

    position: np.ndarray
    cost: float
    envelope: np.ndarray


class FiniteDifferences:
    """The game with noise at one resolution: positions are y = x − X̄(t) without limits and x with them."""

    def __init__(self, game: Game, grid: Grid, pieces: int):
        self.game, self.grid, self.clock = game, grid, Clock.of(game, pieces, grid)
        steps, c = self.clock.step, game.trading_cost
        nodes = np.linspace(0.0, game.horizon, game.steps + 1)
        # The smooth p̄ with the given step means is the derivative of a spline through its integral.
        spline = CubicSpline(nodes, game.step * np.append(0.0, np.cumsum(game.costate)))
        self.costate = np.asarray(spline(self.clock.times, 1))
        self.base = game.supply if game.bounded else np.zeros(game.steps)  # of the frame
        self.middle = float(game.weights @ game.start) if game.bounded else 0.0
        self.offset = np.zeros(self.clock.times.size) if game.bounded else game.path_at(self.clock.times)
        self.jump = c * np.append(np.diff(self.base[steps]), 0.0)  # of the slope of v between steps
        self.tilt = np.diff(self.costate)
        self.first = np.append(np.searchsorted(steps, np.arange(game.steps)), steps.size)  # substep of each node
        self.marks = {int(level): k for k, level in enumerate(self.first)}

    def best_response(self) -> Outcome:
        drifts = np.empty((self.clock.times.size, self.grid.x.size))
        value = self._backward(drifts)
        bend = self.grid.slope(self.grid.x) / self.game.trading_cost
        return self._outcome(value, lambda n: (drifts[n], self.grid.inward(drifts[n + 1] - self.jump[n] * bend)))

    def follow(self, rule: Rule) -> Outcome:
        """The population follows the rule."""
        game, grid = self.game, self.grid
        rows = np.empty((rule.time.size, grid.x.size))
        for row, path, position, rate in zip(rows, game.path_at(rule.time), rule.position, rule.rate, strict=True):
            seen = position if game.bounded else position - path
            # What is left after the pull of the walls is smooth, and is what is interpolated; on a wall there is no telling.
            near = _ON_A_WALL * (grid.high - grid.low)
            inside = ((seen > grid.low + near) | (not grid.walls[0])) & ((seen < grid.high - near) | (not grid.walls[1]))
            regular = rate[inside] - game.noise**2 * grid.ground_slope(seen[inside])
            row[:] = np.interp(grid.x, seen[inside], regular)

        def drift(level, k):
            before, after, late = rule.around(self.clock.times[level])
            return grid.inward(self.base[k] + (1 - late) * rows[before] + late * rows[after])

        def ends(n):
            k = self.clock.step[n]
            return drift(n, k), drift(n + 1, k)

        return self._outcome(self._backward(ends), ends)

    def _holding(self):
        """The mean of V at the two ends of each substep, from the last substep to the first."""
        game, grid, block = self.game, self.grid, 32
        if game.bounded:
            once = game.holding(grid.x)
            for _ in range(self.clock.step.size):
                yield once
            return
        later = None
        for start in range(self.clock.times.size, 0, -block):
            levels = np.arange(max(start - block, 0), start)
            values = game.holding(self.offset[levels][:, None] + grid.x)
            for value in values[::-1]:
                if later is not None:
                    yield 0.5 * (value + later)
                later = value

    def _backward(self, drifts):
        """The value at time 0: of best responses, whose drifts it writes into an array, or of given drifts."""
        game, grid, clock = self.game, self.grid, self.clock
        c, z = game.trading_cost, grid.x - self.middle
        value = game.terminal(self.offset[-1] + grid.x) + (self.costate[-1] - c * self.base[-1]) * z
        value = value + c * game.noise**2 * grid.log_ground(grid.x)
        optimal = isinstance(drifts, np.ndarray)
        bend = grid.slope(grid.x) / c
        if optimal:
            drifts[-1] = grid.inward(-grid.slope(value) / c)
        for n, holding in zip(range(clock.step.size - 1, -1, -1), self._holding(), strict=True):
            dt, theta = clock.duration[n], clock.implicit[n]
            value = value + self.jump[n] * z
            if optimal:
                late = grid.inward(drifts[n + 1] - self.jump[n] * bend)
                # Extrapolate in time for a first guess, except over a jump or a change of the time step.
                smooth = n + 2 < len(drifts) and self.jump[n] == 0 and clock.duration[n] == clock.duration[n + 1]
                now = grid.inward(2 * late - drifts[n + 2]) if smooth and self.jump[n + 1] == 0 else late
            else:
                now, late = drifts(n)
            right = value + dt * holding - self.tilt[n] * z
            if theta < 1:
                right = right + (1 - theta) * dt * (apply(grid.generator(late), value) + 0.5 * c * late**2)
            for attempt in range(50):  # Howard's iteration, which is Newton's here
                value = solve(grid.generator(now), theta * dt, right + 0.5 * theta * dt * c * now**2)
                if not optimal:
                    break
                guess, now = now, grid.inward(-grid.slope(value) / c)
                if np.abs(now - guess).max() <= 3e-6 * max(np.abs(now).max(), game.rate_scale):  # its square is left
                    break
                if attempt >= 10:  # it may alternate
                    now = 0.5 * (now + guess)
            else:
                raise TooCoarse(UNRESOLVED)
            if optimal:
                drifts[n] = now
        if not np.all(np.isfinite(value)):
            raise TooCoarse(UNRESOLVED)
        return value

    def _outcome(self, value, ends) -> Outcome:
        game, grid, clock = self.game, self.grid, self.clock
        law = grid.spread(self._start, game.weights)
        envelope = np.abs(law)
        position = np.empty(game.steps + 1)
        position[0] = law @ grid.x
        for n in range(clock.step.size):
            now, late = ends(n)
            dt, theta = clock.duration[n], clock.implicit[n]
            law = solve(transposed(grid.generator(now)), theta * dt, law)
            if theta < 1:
                law = law + (1 - theta) * dt * apply(transposed(grid.generator(late)), law)
            np.maximum(envelope, np.abs(law), out=envelope)
            if n + 1 in self.marks:
                position[self.marks[n + 1]] = law @ grid.x
        return Outcome(position, self._cost(value), envelope)

    @property
    def _start(self):
        return self.game.start if self.game.bounded else self.game.start - self.offset[0]

    def _cost(self, value):
        """The mean of u at time 0."""
        game, grid = self.game, self.grid
        c, start = game.trading_cost, self._start
        price = self.costate[0] - c * self.base[0]
        u = np.asarray(CubicSpline(grid.x, value)(start)) - price * (start - self.middle)
        u = u - c * game.noise**2 * grid.log_ground(start)
        if all(grid.walls):
            u = u + game.horizon * 0.5 * c * game.noise**4 * (np.pi / (grid.high - grid.low)) ** 2
        if not game.bounded:
            u = u + game.step * np.sum(game.price * game.supply + 0.5 * c * game.supply**2)
        return float(game.weights @ u)
