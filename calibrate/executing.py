"""Work in independent pieces, in this process or elsewhere."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import lru_cache, partial

import jax


def each[T, R](function: Callable[[T], R], pieces: Iterable[T], executor: Executor | None = None) -> Iterator[R]:
    """`function` of each piece, in their order: here, or by an executor's workers (anything with `Executor.map`).

    What goes to workers, and what comes back, is pickled: `function` is one of a module, or a `partial` of such a one.
    """
    if executor is None:
        return map(function, pieces)
    return iter(executor.map(partial(_in_double_precision, pickle.dumps(function)), pieces))


def _in_double_precision(packed: bytes, piece):
    # A worker has not been told yet, and must be before it makes problems.
    jax.config.update("jax_enable_x64", True)
    return _unpacked(packed)(piece)


@lru_cache(maxsize=8)
def _unpacked(packed: bytes) -> Callable:
    return pickle.loads(packed)
