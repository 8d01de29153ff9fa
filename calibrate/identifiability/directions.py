"""Directions in the space of parameters that data cannot tell, or hardly, and what moving along one does to parameters."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float

from walras.calibrate.reporting.numbers import listed, tick

# Information, in units of the prior's: so little is none, also where rounding errors of the largest are seen. Exact invariances
# are at 1e-22 of the largest and less, what is merely weak in the markets here above 1e-13 of it.
_NOTHING, _ROUNDING = 1e-8, 1e-16
_STRAIGHT = 1e-6  # by which a direction that is the same everywhere may turn, squared
_NO_PART = 1e-5  # of the largest part in a direction that is told exactly
# Of the largest part: what is left out of a direction that bends, and of one that is told roughly.
_SMALL_PART, _MINOR_PART = 0.02, 0.25
_BASES = 20_000  # that are searched for the sparsest


@dataclass(frozen=True)
class Direction:
    """`parts` (parameters,) in the coordinates' own units; `bends` where it is another at other points of the prior.

    `kind`: "null" where data say nothing, "weak" where they add less than the prior does. `left` is the share of the prior
    variance that is expected to be left along it.
    """

    kind: str
    parts: Float[np.ndarray, " parameters"]
    left: float
    bends: bool = False


@dataclass(frozen=True)
class Spectrum:
    """Information at points of the prior, in coordinates w in which the prior has unit covariance: u = spread @ w.

    `values` (points, parameters) falling, `vectors` (points, parameters, parameters) with directions in rows; `nullity` is
    the number of directions without information, at the median point.
    """

    spread: Float[np.ndarray, "parameters parameters"]
    values: Float[np.ndarray, "points parameters"]
    vectors: Float[np.ndarray, "points parameters parameters"]

    @classmethod
    def of(cls, roots: Float[np.ndarray, "points k k"], covariance: Float[np.ndarray, "k k"]) -> "Spectrum":
        spread = np.linalg.cholesky(covariance)
        _, roots_of_values, vectors = np.linalg.svd(roots @ spread)
        return cls(spread, roots_of_values**2, vectors)

    @property
    def nullity(self) -> int:
        nothing = np.maximum(_NOTHING, _ROUNDING * self.values[:, :1])
        return int(np.median((self.values < nothing).sum(axis=1)))

    @property
    def left(self) -> Float[np.ndarray, "points k k"]:
        """The posterior covariance of w that is expected at each point."""
        return np.einsum("pki,pk,pkj->pij", self.vectors, 1.0 / (1.0 + self.values), self.vectors)

    @property
    def contraction(self) -> Float[np.ndarray, "points k"]:
        """1 − posterior variance / prior variance of each parameter, expected at each point."""
        posterior = np.einsum("ia,pab,ib->pi", self.spread, self.left, self.spread)
        return 1.0 - posterior / np.diag(self.spread @ self.spread.T)

    def directions(self, middle: int) -> list[Direction]:
        """Null directions, those that bend (told at the point `middle`) after the others; then weak ones, the weakest first."""
        size, nullity = self.values.shape[1], self.nullity
        null = self.vectors[:, size - nullity :]
        projectors = np.einsum("pki,pkj->pij", null, null)
        share, vectors = np.linalg.eigh(projectors.mean(axis=0))
        straight = vectors.T[share > 1.0 - _STRAIGHT]
        bent = null[middle] - null[middle] @ straight.T @ straight
        bent = np.linalg.svd(bent)[2][: nullity - len(straight)] if nullity else bent
        found = [Direction("null", parts, 1.0) for parts in self._told(straight)]
        found += [Direction("null", parts, 1.0, bends=True) for parts in self._told(bent)]
        share, vectors = np.linalg.eigh((self.left - projectors).mean(axis=0))
        weak = [
            (value, self.spread @ vector) for value, vector in zip(share[::-1], vectors.T[::-1], strict=True) if value > 0.5
        ]
        return found + [Direction("weak", parts, float(value)) for value, parts in weak]

    def _told(self, basis):
        """Few parameters each: the sparsest basis of the same space, in the coordinates u over the prior's deviations."""
        deviations = np.sqrt(np.diag(self.spread @ self.spread.T))
        return sparsest(basis @ self.spread.T / deviations) * deviations


def sparsest(basis: Float[np.ndarray, "dimension n"]) -> Float[np.ndarray, "dimension n"]:
    """The basis of the same space whose vectors have the fewest parts: two separate directions come out as they are.

    Such vectors vanish at `dimension` − 1 coordinates, so that all of them can be tried; the best of them that are
    independent are a sparsest basis, by the exchange property of vector spaces. Where they are too many, the space is
    eliminated by its largest coordinates instead.
    """
    dimension, size = basis.shape
    if dimension < 2:
        return basis
    if comb(size, dimension - 1) > _BASES:
        pivots = _pivots(basis)
        return np.linalg.solve(basis[:, pivots], basis)
    found = []
    for zeros in combinations(range(size), dimension - 1):
        values, vectors = np.linalg.svd(basis[:, zeros].T)[1:]
        if values[-1] > _NO_PART:  # else these coordinates leave more than one direction
            vector = vectors[-1] @ basis
            found.append(np.where(np.abs(vector) < _NO_PART * np.abs(vector).max(), 0.0, vector))
    found.sort(key=lambda vector: np.count_nonzero(vector))
    chosen = found[:1]
    for vector in found[1:]:
        if len(chosen) < dimension and np.linalg.matrix_rank([*chosen, vector], tol=_NO_PART) > len(chosen):
            chosen.append(vector)
    return np.array(chosen)


def _pivots(basis) -> list[int]:
    rest, pivots = basis.copy(), []
    for _ in range(len(basis)):
        pivots.append(int(np.argmax((rest**2).sum(axis=0))))
        along = rest[:, pivots[-1]] / np.linalg.norm(rest[:, pivots[-1]])
        rest = rest - along[:, None] * (along @ rest)[None]
    return pivots


@dataclass(frozen=True)
class Coordinate:
    """One coordinate of the parameters: its `label`, whether it is a `log`, how its value moves with it (NaN: not alone)."""

    label: str
    log: bool
    slope: float
    unit: str
    deviation: float  # of the prior


def involved(direction: Direction, coordinates: list[Coordinate]) -> list[int]:
    """Which coordinates a direction moves, the most moved first; of weak ones those it moves most."""
    sizes = np.abs(direction.parts) / [coordinate.deviation for coordinate in coordinates]
    least = _MINOR_PART if direction.kind == "weak" else _SMALL_PART if direction.bends else _NO_PART
    return [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i] > least * sizes.max()]


def in_words(direction: Direction, coordinates: list[Coordinate]) -> str:
    """What moving along a direction does: "doubling supply_sd while halving trading_cost and holding_cost"."""
    which = involved(direction, coordinates)
    first = which[0]
    parts = direction.parts * np.sign(direction.parts[first])
    # Far enough that one of several logs doubles; else by a standard deviation of the prior.
    logs = all(coordinates[i].log for i in which)
    parts = parts * (np.log(2.0) / np.abs(parts[which]).max() if logs else coordinates[first].deviation / parts[first])
    moves = [(*_move(parts[i], coordinates[i]), coordinates[i].label) for i in which]
    sides = []
    for side in (True, False):
        verbs = dict.fromkeys(verb for up, verb, _, _ in moves if up == side)
        sides.append(listed(f"{verb} {listed(label + by for _, v, by, label in moves if v == verb)}" for verb in verbs))
    return " while ".join(side for side in sides if side != "none")


def _move(part: float, coordinate: Coordinate) -> tuple[bool, str, str]:
    """Whether a coordinate rises, a verb, and what follows its name."""
    up = bool(part > 0)
    if coordinate.log:
        factor = float(np.exp(abs(part)))
        if abs(factor - 2.0) < 0.01:
            return up, "doubling" if up else "halving", ""
        return up, "multiplying" if up else "dividing", f" by {_short(factor)}"
    moved = abs(part) * coordinate.slope
    size = "" if np.isnan(moved) else f" by {_short(moved)} {coordinate.unit}".rstrip()
    return up, "raising" if up else "lowering", size


def _short(value: float) -> str:
    return tick(float(f"{value:.2g}"))
