"""How tests compile what they run a few times only."""

from functools import partial

import jax

# Compiling takes longer than running: with few optimisations it takes half as long.
lightly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
