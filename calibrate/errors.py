"""Errors of calibration, and the checks that every part needs."""

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


def require_whole(**numbers: tuple[object, int]):
    """Raise unless each number, given with the lowest value it may have, is a whole number of at least that."""
    for name, (value, lowest) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise CalibrationError(f"{name} is {value!r}: give a whole number of at least {lowest}")
