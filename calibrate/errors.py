"""Errors of calibration, and the check for double precision."""

import jax

from walras import WalrasError


class CalibrationError(WalrasError):
    """A problem, a prior, a sampler or a run that cannot be used as given."""


def require_double_precision():
    """Raise unless JAX computes in double precision: posteriors of equilibrium prices need more than seven digits."""
    if not jax.config.jax_enable_x64:
        raise CalibrationError(
            "JAX is in single precision (jax_enable_x64 is False), which loses the posterior's curvature: add "
            'jax.config.update("jax_enable_x64", True) before the first computation'
        )
