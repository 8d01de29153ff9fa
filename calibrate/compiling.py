"""How programs are compiled."""

from collections.abc import Callable

import jax


def quickly(function: Callable):
    """`function` jitted for a few runs: hard optimisation would take longer than it saves."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
