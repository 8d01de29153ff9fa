"""Laplace's approximation: a normal distribution at the mode."""

import time
from dataclasses import dataclass, field

import jax
import numpy as np
import numpyro.distributions as dist

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.samplers.approximation import FEWEST_DRAWS, drawn
from walras.calibrate.samplers.draws import Sampler, require_true_or_false, require_whole
from walras.calibrate.samplers.modes import MAP, climb
from walras.calibrate.samplers.target import Initial, Target

# Second derivatives through implicit solvers are as exact as the solution, 1e-6 of its scale.
_ASYMMETRY = 1e-4


@dataclass(frozen=True, kw_only=True)
class Laplace(Sampler):
    """Normal draws in unconstrained coordinates, centred at the `MAP`, whose precision is the Hessian there.

    `draws` in one chain, independent. `importance` resamples them from ten times as many by their Pareto-smoothed importance
    weights where k̂ is below .7: nearly exact then. The others are those of `MAP`.
    """

    draws: int = 1000
    importance: bool = False
    starts: int = 8
    iterations: int = 500
    init: Initial = field(default="prior", hash=False)

    def __post_init__(self):
        require_whole(draws=(self.draws, FEWEST_DRAWS))
        require_true_or_false(importance=self.importance)
        self._climber()

    def _climber(self) -> MAP:
        return MAP(starts=self.starts, iterations=self.iterations, init=self.init)

    def run(self, problem, key, progress=None, checkpoints=None):
        """Draws of the normal approximation. Raises `CalibrationError` where the posterior has no peak at its mode."""
        climb_key, key = jax.random.split(key)
        target = Target(problem, self.init)
        found, compile_seconds, began = climb(target, self._climber(), climb_key, progress, checkpoints)
        normal = dist.MultivariateNormal(found.points[0], precision_matrix=_precision(target, found.points[0]))
        draws = drawn(target, normal, found, key, self.draws, self.importance)
        return draws._replace(compile_seconds=compile_seconds, sample_seconds=time.perf_counter() - began)


def _precision(target: Target, mode):
    """The Hessian of −log density at the mode, which must be symmetric and positive."""
    hessian = np.asarray(quickly(jax.hessian(target.potential))(mode, target.data))
    if not np.isfinite(hessian).all():
        raise CalibrationError("second derivatives at the mode are not finite: the market's solver has none, use SVI or NUTS")
    asymmetry = np.abs(hessian - hessian.T).max() / np.abs(hessian).max()
    if asymmetry > _ASYMMETRY:
        raise CalibrationError(
            f"second derivatives at the mode differ by {asymmetry:.1g} of their size with the order of differentiation: the "
            "market is solved too loosely for Laplace, give a tighter solver, or use NUTS"
        )
    curvature, directions = np.linalg.eigh((hessian + hessian.T) / 2.0)
    if curvature[0] <= 0.0:
        flat = target.names[int(np.argmax(np.abs(directions[:, 0])))]
        raise CalibrationError(
            f"the posterior does not fall off from its highest point along {flat!r} (curvature {curvature[0]:.2g}), so no "
            "normal distribution approximates it: give more starts or a narrower prior, or use NUTS"
        )
    return (hessian + hessian.T) / 2.0
