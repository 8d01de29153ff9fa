"""The highest point of the posterior, from several starts."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.samplers.draws import Draws, Progress, Sampler, in_chunks, require_whole
from walras.calibrate.samplers.target import Initial, Target, require_initial

# Largest slope of the log density per standard deviation of the prior: a thousandth of what `checking` lets pass.
_FLAT = 1e-6
# Two starts found one mode if their log densities differ by less, and their coordinates by less.
_SAME_DENSITY, _SAME_PLACE = 1e-3, 1e-2
# What the line search sees where the density is zero: it needs a number, and turns back from this one.
_WALL = 1e20


class Modes(NamedTuple):
    """Where each start ended, the best first: points (starts, dimension), −log density and its largest slope (starts,)."""

    points: np.ndarray
    potential: np.ndarray
    gradient: np.ndarray

    @property
    def agreeing(self) -> int:
        """How many starts found the best mode."""
        near = np.abs(self.points - self.points[:1]).max(axis=1) < _SAME_PLACE
        return int(np.sum(near & (self.potential - self.potential[0] < _SAME_DENSITY)))

    @property
    def facts(self) -> dict[str, Any]:
        return {"starts": len(self.potential), "starts_agreeing": self.agreeing, "gradient": float(self.gradient[0])}


@dataclass(frozen=True, kw_only=True)
class MAP(Sampler):
    """The one point of highest posterior density (maximum a posteriori), by BFGS from several starts.

    The density is that of the unconstrained values: of the logarithm of what is positive, the log odds of what lies between
    bounds. A mode moves with the coordinates; this one is where `Laplace` is centred, near the median of a skewed positive
    parameter, and cannot sit on a bound. Of `starts` (drawn as `init` says, see `NUTS`), each of which may take `iterations`,
    the best is kept. The tree has one chain of one draw. Checkpoints are of whole starts.
    """

    starts: int = 8
    iterations: int = 500
    init: Initial = field(default="prior", hash=False)

    def __post_init__(self):
        require_whole(starts=(self.starts, 1), iterations=(self.iterations, 1))
        require_initial(self.init)

    def run(self, problem, key, progress=None, checkpoints=None):
        """The point of highest density, as one chain of one draw."""
        target = Target(problem, self.init)
        found, compile_seconds, began = climb(target, self, key, progress, checkpoints)
        values, log_density = target.values(found.points[None, :1], target.data)
        return Draws(values, {"lp": log_density}, compile_seconds, time.perf_counter() - began, found.facts)


def climb(target: Target, options: MAP, key, progress=None, checkpoints=None) -> tuple[Modes, float, float]:
    """Where the starts of `options` end on a target, the seconds spent on compiling, and when they ended.

    Raises `CalibrationError` when no start has a finite density.
    """
    began = time.perf_counter()
    # SciPy's optimiser: the gradient is compiled once, where a line search in JAX has it four times over.
    density = quickly(lambda z, data: jax.value_and_grad(target.potential)(z, data))
    starts = np.asarray(target.first_points(jax.random.split(key, options.starts)))
    jax.block_until_ready(density(starts[0], target.data))
    compiled = time.perf_counter()

    def advance(number):
        return number + 1, _climbed(density, target.data, starts[int(number)], options.iterations)

    def report(number, _):
        if progress is not None:
            progress(Progress(int(number), options.starts))

    report(0, [])
    _, ends = in_chunks(advance, jnp.asarray(0), lambda number: int(number) >= options.starts, checkpoints, report)
    ends = sorted(ends, key=lambda end: float(end["potential"]))
    if not np.isfinite(ends[0]["potential"]):
        raise CalibrationError(
            f"the posterior density is zero or not finite at all {options.starts} starts: check that the priors allow the "
            "data, or give init values by name"
        )
    modes = Modes(*(np.stack([end[name] for end in ends]) for name in Modes._fields))
    return modes, compiled - began, compiled


def _climbed(density, data, start, iterations: int) -> dict[str, Any]:
    """Where one start ends; its potential is infinite if it cannot begin."""

    def walled(z):
        value, gradient = (np.asarray(array) for array in density(z, data))
        finite = np.isfinite(value) and np.isfinite(gradient).all()
        return (float(value), gradient) if finite else (_WALL, np.zeros_like(z))

    if walled(start)[0] == _WALL:
        return {"points": start, "potential": np.inf, "gradient": np.inf}
    found = scipy.optimize.minimize(walled, start, jac=True, method="BFGS", options={"gtol": _FLAT, "maxiter": iterations})
    return {"points": found.x, "potential": found.fun, "gradient": np.abs(found.jac).max()}
