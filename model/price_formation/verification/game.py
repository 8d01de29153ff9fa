"""A market and an equilibrium's price as `verify` sees them: checked, and in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from walras.model.equilibrium import EquilibriumError

_CHUNK = 2**15  # positions per call of a compiled cost
DIVERGED = (
    "the best responses leave every bounded set: give costs that grow away from some position, or a price that is nearer "
    "to clearing"
)


class Cost:
    """A cost and its derivatives on NumPy arrays of any shape; `None` costs nothing."""

    def __init__(self, cost: Callable | None):
        self._orders = () if cost is None else (cost, jax.grad(lambda x: cost(x)), jax.grad(jax.grad(lambda x: cost(x))))
        self._compiled: dict[int, Callable] = {}

    def __call__(self, x: np.ndarray, order: int = 0) -> np.ndarray:
        if not self._orders:
            return np.zeros_like(x)
        if order not in self._compiled:
            self._compiled[order] = jax.jit(jax.vmap(self._orders[order]))
        padded = np.zeros(-(-x.size // _CHUNK) * _CHUNK)
        padded[: x.size], padded[x.size :] = x.ravel(), x.flat[0]
        values = [np.asarray(self._compiled[order](chunk)) for chunk in padded.reshape(-1, _CHUNK)]
        return np.concatenate(values)[: x.size].reshape(x.shape).astype(float)


@dataclass(frozen=True)
class Rule:
    """A feedback rule: at times (times,), rates in excess of supply (times, points) at increasing positions (times, points)."""

    time: np.ndarray
    position: np.ndarray
    rate: np.ndarray

    def around(self, time):
        """The row before a time, that after it, and the weight of the latter."""
        after = int(np.clip(np.searchsorted(self.time, time), 1, self.time.size - 1))
        begin, end = self.time[after - 1 : after + 1]
        return after - 1, after, (time - begin) / (end - begin)


@dataclass(frozen=True)
class Game:
    trading_cost: float
    noise: float
    holding: Cost
    terminal: Cost
    limits: tuple[float, float]
    horizon: float
    supply: np.ndarray  # (steps,)
    price: np.ndarray  # (steps,)
    start: np.ndarray  # (agents,)
    weights: np.ndarray  # (agents,)

    @property
    def steps(self):
        return self.supply.size

    @property
    def step(self):
        return self.horizon / self.steps

    @property
    def bounded(self):
        return bool(np.isfinite(self.limits).any())

    @property
    def path(self):
        """X̄ at the nodes (steps + 1,)."""
        return self.weights @ self.start + self.step * np.append(0.0, np.cumsum(self.supply))

    def path_at(self, time):
        """X̄ at any times."""
        return np.interp(time, self.step * np.arange(self.steps + 1), self.path)

    @property
    def costate(self):
        """The mean of p̄ over each step (steps,)."""
        return self.price + self.trading_cost * self.supply

    @property
    def rate_scale(self):
        return float(np.abs(self.supply).max() + self.noise / np.sqrt(self.horizon) + np.ptp(self.start) / self.horizon)


def require_shape(name, array, shape):
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise EquilibriumError(f"{name} has shape {array.shape}: verify needs ({wanted})")
    if not np.all(np.isfinite(array)):
        raise EquilibriumError(f"{name} is not finite: verify needs an equilibrium that was solved")


def require_times(name, times, horizon):
    require_shape(name, times, (None,))
    if times.size < 2 or np.any(np.diff(times) <= 0) or times[0] != 0 or abs(times[-1] - horizon) > 1e-9 * horizon:
        raise EquilibriumError(f"{name} is {times}: verify needs times that increase from 0 to the horizon {horizon:.6g}")


def posed(market, equilibrium) -> Game:
    for name in ("horizon", "supply", "price", "initial", "weights", "strategy"):
        if not hasattr(equilibrium, name):
            raise EquilibriumError(
                f"a {type(equilibrium).__name__} has no {name}: verify needs the equilibrium along a foreseen supply path"
            )
    price = np.asarray(equilibrium.price, float)
    supply = np.asarray(equilibrium.supply, float)
    if price.ndim != 1 or np.ndim(market.trading_cost) != 0:
        raise EquilibriumError(f"price has shape {price.shape}: verify supports one asset, whose price is (steps,)")
    require_shape("price", price, (None,))
    require_shape("supply", supply, price.shape)
    start = np.asarray(equilibrium.initial, float)
    weights = np.asarray(equilibrium.weights, float)
    require_shape("initial", start, (None,))
    require_shape("weights", weights, start.shape)
    if np.any(weights < 0) or abs(weights.sum() - 1) > 1e-5:  # 1e-5: sums in single precision
        raise EquilibriumError(f"weights sum to {weights.sum():.6g}: give non-negative weights that sum to 1")
    trading_cost, noise, horizon = (float(x) for x in (market.trading_cost, market.noise, equilibrium.horizon))
    if not (0 < trading_cost < np.inf and 0 <= noise < np.inf and 0 < horizon < np.inf):
        raise EquilibriumError(
            f"trading_cost is {trading_cost}, noise {noise} and horizon {horizon}: give positive numbers (noise may be 0)"
        )
    low, high = getattr(market, "limits", None) or (None, None)
    limits = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
    closest = min(start.min() - limits[0], limits[1] - start.max())
    if closest < 0 or (noise > 0 and closest == 0):
        raise EquilibriumError(
            f"initial positions range from {start.min():.6g} to {start.max():.6g}: put them inside the limits {limits}"
        )
    return Game(
        trading_cost=trading_cost,
        noise=noise,
        holding=Cost(market.holding),
        terminal=Cost(market.terminal),
        limits=limits,
        horizon=horizon,
        supply=supply,
        price=price,
        start=start,
        weights=weights / weights.sum(),
    )
