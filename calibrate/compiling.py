"""How programs are compiled."""

from collections.abc import Callable

import jax


def quickly(function: Callable):
    """`function` jitted without the backend's hardest passes, which take a quarter of the time and save 2 % of a run."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
