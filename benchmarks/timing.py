"""Times of jitted functions."""

import time
from dataclasses import dataclass

import jax
import numpy as np

_SECONDS, _FEWEST, _MOST = 1.0, 3, 100  # spent on one figure, and how many runs that may be


@dataclass(frozen=True)
class Timed:
    """`result` of a function, seconds of its first call beyond a later one (compilation), and of the median later one."""

    result: object
    compilation: float
    seconds: float


def timed(function, *arguments, seconds: float = _SECONDS, fewest: int = _FEWEST) -> Timed:
    """Call a function again and again for a while; what it returns is waited for."""
    result, first = once(function, arguments)
    _, later = once(function, arguments)
    runs = int(np.clip(seconds / later, fewest, _MOST)) - 1
    times = [later, *(once(function, arguments)[1] for _ in range(runs))]
    median = float(np.median(times))
    return Timed(result, max(first - median, 0.0), median)


def once(function, arguments):
    """What a function returns, once it is there, and the seconds that took."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return result, time.perf_counter() - start
