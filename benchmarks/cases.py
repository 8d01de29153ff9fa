"""The published cases (Wang–Wu Fung–Nurbekyan, arXiv 2506.04169) as markets: T = 1, c = 1, 100 agents evenly over [0, 1].

====  ======================  ======================  ===================
case  V                       Ψ                       Q
====  ======================  ======================  ===================
1     0                       5 x²                    sin(10 t)
2     5 x²                    0                       a Wiener path
3     0                       25 (x − ¼)² (x − ¾)²    sin(10 t)
4a    25 (x − ¼)² (x − ¾)²    0                       sin(10 t)
4b    25 (x − ¼)² (x − ¾)²    0                       the Wiener path
====  ======================  ======================  ===================
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from walras.model import DoubleWell, PriceFormation, Quadratic

AGENTS, STEPS = 100, 1000
SEED = 0  # of the Wiener path
BOWL, WELLS = Quadratic(10.0), DoubleWell(50.0, 0.25, 0.75)
INITIAL = np.linspace(0.0, 1.0, AGENTS)


@dataclass(frozen=True)
class Case:
    """One of the published cases; `supply` (1000,) are the mean rates over its steps (units / time)."""

    name: str
    holding: Callable | None
    terminal: Callable | None
    supply: np.ndarray

    def market(self, noise: float) -> PriceFormation:
        return PriceFormation(jnp.asarray(1.0), self.holding, self.terminal, noise=jnp.asarray(noise))

    def mean_supply(self, steps: int) -> np.ndarray:
        """The mean rates over `steps` equal steps."""
        supplied = np.append(0.0, np.cumsum(self.supply)) / STEPS
        nodes = np.arange(STEPS + 1) / STEPS
        return np.diff(np.interp(np.arange(steps + 1) / steps, nodes, supplied)) * steps


def wave() -> np.ndarray:
    """Means of sin(10 t)."""
    return -np.diff(np.cos(10 * np.arange(STEPS + 1) / STEPS)) * STEPS / 10


def wiener(seed: int = SEED) -> np.ndarray:
    """A Wiener path at the ends of the steps."""
    return np.cumsum(np.random.default_rng(seed).normal(0.0, STEPS**-0.5, STEPS))


CASES = (
    Case("1", None, BOWL, wave()),
    Case("2", BOWL, None, wiener()),
    Case("3", None, WELLS, wave()),
    Case("4a", WELLS, None, wave()),
    Case("4b", WELLS, None, wiener()),
)
