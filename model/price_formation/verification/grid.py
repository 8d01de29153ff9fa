"""Grids of positions and of time for the finite differences, and tridiagonal matrices on them."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.verification.game import Game

(_TRIDIAGONAL,) = get_lapack_funcs(("gtsv",), dtype=np.float64)
UNRESOLVED = (
    "verify cannot resolve how best responses change with position on the finest of its grids: give a larger noise, or "
    "none, or costs that are less steep where agents go"
)


@dataclass(frozen=True)
class Clock:
    """Substeps in order of time: duration, how implicit each is (1 or ½), its step, and the times of its two ends."""

    duration: np.ndarray
    implicit: np.ndarray
    step: np.ndarray
    times: np.ndarray  # (substeps + 1,)

    @classmethod
    def of(cls, game: Game, pieces: int, grid: "Grid"):
        durations, implicit, step = [], [], []
        # What starts at the walls spreads like the square root of time: halve the last substep down to one node's time.
        walls = any(grid.walls)
        spread = game.noise**2 * game.step / pieces / grid.dx**2
        halvings = int(np.clip(np.ceil(np.log2(spread)) + 1, 5, 40)) if walls else 5
        for k in range(game.steps):
            parts = [(1.0 / pieces, 0.5)] * pieces
            if k == game.steps - 1:  # the value starts with slopes that relax at once, and with a logarithm at each wall
                last = parts.pop()[0]
                parts += [(last * 0.5**power, 1.0) for power in (*range(1, halvings + 1), halvings)]
            elif walls:  # the slope at a wall jumps with supply
                last = parts.pop()[0]
                parts += [(0.5 * last, 1.0)] * 2
            if k == 0:  # the law starts with atoms
                first = parts.pop(0)[0]
                parts = [(0.25 * first, 1.0)] * 4 + parts
            durations += [game.step * part for part, _ in parts]
            implicit += [weight for _, weight in parts]
            step += [k] * len(parts)
        return cls(np.array(durations), np.array(implicit), np.array(step), np.append(0.0, np.cumsum(durations)))


class Grid:
    """Nodes between two ends, each a wall or open, and the difference operators on them (tridiagonal, rows summing to 0)."""

    def __init__(self, low, high, walls, nodes, noise):
        self.low, self.high, self.walls = low, high, walls
        self.dx = (high - low) / (nodes - 1 + 0.5 * sum(walls))
        self.x = low + self.dx * (np.arange(nodes) + 0.5 * walls[0])
        faces = np.append(self.x - 0.5 * self.dx, self.x[-1] + 0.5 * self.dx)
        mass = np.diff(self._integral(faces)) / self.dx
        density = np.exp(2 * self.log_ground(faces))
        self.lower = 0.5 * noise**2 * density[:-1] / (mass * self.dx**2)
        self.upper = 0.5 * noise**2 * density[1:] / (mass * self.dx**2)
        self.slope_lower = np.full(nodes, -0.5 / self.dx)
        self.slope_upper = np.full(nodes, 0.5 / self.dx)
        self.slope_lower[0] = self.slope_upper[-1] = 0.0
        # At an open end: no curvature, and a one-sided slope for the drift inwards. At a wall: no flux, the density being 0.
        if walls[0]:
            self.lower[0] = 0.0
        else:
            self.lower[0] = self.upper[0] = 0.0
            self.slope_upper[0] = 1 / self.dx
        if walls[1]:
            self.upper[-1] = 0.0
        else:
            self.lower[-1] = self.upper[-1] = 0.0
            self.slope_lower[-1] = -1 / self.dx

    def log_ground(self, x):
        """log φ₀."""
        if all(self.walls):
            return np.log(np.maximum(np.sin(np.pi * (x - self.low) / (self.high - self.low)), 0.0))
        if any(self.walls):
            return np.log(np.maximum(x - self.low if self.walls[0] else self.high - x, 0.0))
        return np.zeros_like(x)

    def ground_slope(self, x):
        """(log φ₀)′."""
        if all(self.walls):
            width = self.high - self.low
            return (np.pi / width) / np.tan(np.pi * (x - self.low) / width)
        if any(self.walls):
            return 1 / (x - self.low) if self.walls[0] else -1 / (self.high - x)
        return np.zeros_like(x)

    def _integral(self, x):
        """An antiderivative of φ₀²."""
        if all(self.walls):
            turn = 2 * np.pi / (self.high - self.low)
            return 0.5 * (x - self.low) - np.sin(turn * (x - self.low)) / (2 * turn)
        if any(self.walls):
            return (x - self.low) ** 3 / 3 if self.walls[0] else -((self.high - x) ** 3) / 3
        return x

    def slope(self, v):
        out = -(self.slope_lower + self.slope_upper) * v
        out[1:] += self.slope_lower[1:] * v[:-1]
        out[:-1] += self.slope_upper[:-1] * v[1:]
        return out

    def inward(self, drift):
        """The drift (changed in place) without what would leave through an open end."""
        if not self.walls[0]:
            drift[0] = max(drift[0], 0.0)
        if not self.walls[1]:
            drift[-1] = min(drift[-1], 0.0)
        return drift

    def generator(self, drift):
        """Diagonals (lower, main, upper) of (σ²/2) φ₀⁻² (φ₀² ·′)′ + drift ·′."""
        lower = self.lower + drift * self.slope_lower
        upper = self.upper + drift * self.slope_upper
        return lower, -(lower + upper), upper

    def spread(self, start, weights):
        """The law of atoms on the nodes: each shared by two neighbours, so that the mean is exact."""
        left = np.clip(((start - self.x[0]) / self.dx).astype(int), 0, self.x.size - 2)
        part = (start - self.x[left]) / self.dx
        law = np.zeros(self.x.size)
        np.add.at(law, left, weights * (1 - part))
        np.add.at(law, left + 1, weights * part)
        return law


def apply(matrix, v):
    lower, main, upper = matrix
    out = main * v
    out[1:] += lower[1:] * v[:-1]
    out[:-1] += upper[:-1] * v[1:]
    return out


def transposed(matrix):
    lower, main, upper = matrix
    return np.append(0.0, upper[:-1]), main, np.append(lower[1:], 0.0)


def solve(matrix, scale, right):
    """(1 − scale · matrix)⁻¹ right."""
    lower, main, upper = matrix
    *_, solution, info = _TRIDIAGONAL(
        -scale * lower[1:], 1 - scale * main, -scale * upper[:-1], right, overwrite_dl=1, overwrite_d=1, overwrite_du=1
    )
    if info != 0 or not np.isfinite(solution[0]):
        raise TooCoarse(UNRESOLVED)
    return solution


class TooCoarse(EquilibriumError):
    """The scheme found no solution at one resolution."""
