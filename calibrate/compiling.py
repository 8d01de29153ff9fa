"""How programs are compiled, and kept."""

from collections.abc import Callable
from functools import lru_cache, wraps

import jax


def quickly(function: Callable):
    """`function` jitted without the backend's hardest passes: they take a quarter of compilation and save 2 % of a run.

    Not inside another jitted function, whose own options hold.
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})


_REMEMBERED: list = []


def remember[T](size: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keep the last `size` things that a function made of a problem and of whatever else, because they take seconds to compile.

    Problems of one digest are alike, but a digest knows functions by their source and not by what they close over: these are
    told apart by identity. A registered market is a name, of which every process has its own copy. `forget` lets go of all.
    """

    def decorate(make):
        @lru_cache(size)
        def remembered(_functions, *arguments):
            return make(*arguments)

        @wraps(make)
        def found(problem, *others):
            functions = tuple(id(one) for one in (problem.market, problem.priors) if callable(one))
            return remembered(functions, problem, *others)

        _REMEMBERED.append(remembered)
        return found

    return decorate


def forget():
    """Let go of all that is kept here; what JAX keeps, `jax.clear_caches` lets go.

    Each program takes memory maps, of which Linux allows a process 65,530.
    """
    for remembered in _REMEMBERED:
        remembered.cache_clear()
