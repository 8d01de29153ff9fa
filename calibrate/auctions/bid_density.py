"""The density of bids by a triweight kernel, with its bias at the lowest and the highest bid corrected or trimmed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.polynomial import Polynomial

from walras.calibrate.errors import CalibrationError

_TRIWEIGHT = 35 / 32 * Polynomial([1, 0, -1]) ** 3
_MOMENTS = [(_TRIWEIGHT * Polynomial([0, 1]) ** power).integ() for power in range(3)]
_BLOCK = 256  # points at which the density is computed at a time, which bounds the memory


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How the density of bids is estimated.

    Within a bandwidth of the lowest and the highest bid a kernel density is biased. It is corrected there by the non-negative
    linear correction of Jones and Foster (Statistica Sinica 6, 1996), or trimmed.

    Args:
        bandwidth: half the kernel's width; by default 2.978 · 1.06 standard deviations over the fifth root of the number of
            bids, the rule of Guerre, Perrigne and Vuong.
        logs: estimate the density of log bids, for bids over orders of magnitude; the bandwidth is then of logs.
        trim: leave out what is within a bandwidth of the lowest or the highest bid, as that paper does.
    """

    bandwidth: float | None = None
    logs: bool = False
    trim: bool = False

    def __post_init__(self):
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise CalibrationError(f"bandwidth is {self.bandwidth}: make it positive, or leave it out for the rule of thumb")

    def width(self, bids: Float[np.ndarray, "..."]) -> float:
        """The bandwidth for these bids, in money or in logs."""
        if self.bandwidth is not None:
            return self.bandwidth
        return float(2.978 * 1.06 * np.std(self._coordinate(bids)) * bids.size**-0.2)

    def density(self, points: Float[np.ndarray, " points"], bids: Float[np.ndarray, " bids"]) -> Float[np.ndarray, " points"]:
        """The density of `bids` at sorted `points` among them, per unit of money; NaN where trimmed.

        Raises:
            CalibrationError: no bid is within a bandwidth of a point.
        """
        x, sample, h = self._coordinate(points), np.sort(self._coordinate(bids)), self.width(bids)
        density = _corrected(x, sample, h) / (points if self.logs else 1.0)
        near = np.minimum(x - sample[0], sample[-1] - x) < h
        return np.where(near, np.nan, density) if self.trim else density

    def _coordinate(self, bids):
        return np.log(bids) if self.logs else bids


def _corrected(points, sample, h):
    """The density of a sorted `sample` at sorted `points`, in one coordinate."""
    blocks = np.array_split(points, -(-points.size // _BLOCK))
    s0, s1 = np.concatenate([_kernel_sums(block, sample, h) for block in blocks], axis=1)
    if not s0.all():
        raise CalibrationError(f"bandwidth is {h:.3g}, within which there is not one bid in places: make it larger")
    left, right = -np.minimum((points - sample[0]) / h, 1.0), np.minimum((sample[-1] - points) / h, 1.0)
    a0, a1, a2 = (moment(right) - moment(left) for moment in _MOMENTS)
    scaled, linear = s0 / a0, (a2 * s0 - a1 * s1) / (a0 * a2 - a1**2)
    return scaled * np.exp(linear / scaled - 1.0)  # as good as the linear correction, and never negative


def _kernel_sums(points, sample, h):
    """Means of K(u)/h and u K(u)/h over the sample, u being its distance from a point in bandwidths: (2, points)."""
    first, last = np.searchsorted(sample, [points[0] - h, points[-1] + h])
    u = (sample[first:last] - points[:, None]) / h
    weights = 35 / 32 * np.maximum(1.0 - u * u, 0.0) ** 3
    return np.stack([weights.sum(axis=1), np.sum(weights * u, axis=1)]) / (sample.size * h)
