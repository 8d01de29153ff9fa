"""An independent certificate of an equilibrium in one asset: every agent's global best response to its price.

Nothing here is shared with the solvers, which transform the value exponentially and use Gaussian kernels. With noise the
dynamic programme is solved as it stands, by finite differences: with p = ϖ + cQ and v = u + p̄ y in the frame y = x − X̄(t),

    v_t + (σ²/2) v_yy − v_y²/2c + V(X̄ + y) − p̄′ y = 0,   v(T) = Ψ + p̄(T) y,   rate = Q − v_y/c,

which contains neither the supply nor its roughness. Crank–Nicolson in time; the law of the population is carried forward
by the exact adjoint of the linearised scheme, and two resolutions are extrapolated. Limits on positions are walls: there
the optimal rate diverges like σ² over the distance, so that v is what is left of u + ϖx after −cσ² log φ₀, φ₀ = sin(π (x −
low)/(high − low)) or the distance to the only wall, and (σ²/2) v_xx becomes (σ²/2) (φ₀² v_x)_x / φ₀² (+ a constant).

Without noise, a (min, +) dynamic programme on a grid finds each agent's basin and Newton's method polishes its path.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.linalg import get_lapack_funcs
from scipy.optimize import linprog
from scipy.sparse import csr_array

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.strategy import Feedback, Paths

_CHUNK = 2**15  # positions per call of a compiled cost
_LEAK = 1e-9  # the part of the population that may reach an open end of the grid
_GROWTHS = 14  # enlargements of the domain before giving up
_COARSE, _FEWEST, _MOST = 12.0, 600, 1500  # nodes of the coarsest grid: per σ, fewest and most
_COARSE_TIMES = 128  # time steps of the coarsest run
_FINER = 4  # doublings of the coarsest resolution where it is too coarse for the scheme
_LEVELS = 4  # resolutions tried, each twice as fine in position and time
_LARGEST = 2**24  # nodes × substeps: 128 MB
_HERMITE = 64  # Gauss–Hermite points for the costs of an open-loop path
_LONG_STEPS = 40  # steps of the grid dynamic programme without noise
_GRID = 1201  # its positions
_ZOOMS = 5  # grids of positions, each closing in on the one before
_PROBES = (0.005, 0.02, 0.08)  # where else basins are looked for around an agent, as parts of the grid's width
_NEWTON = 200  # iterations of the polish
(_TRIDIAGONAL,) = get_lapack_funcs(("gtsv",), dtype=np.float64)


@dataclass(frozen=True)
class Verification:
    """What agents would best do at an equilibrium's price, recomputed globally and independently of the solver.

    `clearing_error` max |E[α*_k] − Q_k| (units / time) of the best responses' mean rates over each step. Without noise,
    agents who are indifferent between responses share themselves among these so that it is smallest;
    `pure_clearing_error` is without sharing. `exploitability` ≥ 0 up to the numerics: mean cost of the equilibrium's own
    strategy minus `cost`, the mean cost of best responses (money). `accuracy`: estimated error of `rate` (units / time):
    with noise from two resolutions; without noise that of each path as the optimum of the game in `steps` steps.

    `rate` (steps,) the best responses' mean rates and `strategy_rate` (steps,) those of the equilibrium's own strategy,
    `supply` (steps,), all units / time; `mean_position` (steps + 1,) of the best responses, units.
    """

    clearing_error: float
    pure_clearing_error: float
    exploitability: float
    accuracy: float
    cost: float
    rate: Float[np.ndarray, " steps"]
    strategy_rate: Float[np.ndarray, " steps"]
    supply: Float[np.ndarray, " steps"]
    mean_position: Float[np.ndarray, " nodes"]


def verify(market: Any, equilibrium: Any, *, indifference: float = 1e-4, tolerance: float = 2e-5) -> Verification:
    """Recompute all agents' global best responses to the price of an equilibrium along a foreseen supply path.

    `equilibrium` has `horizon`, `supply`, `price` (the means over equal steps), `initial`, `weights` and `strategy()`. Supply
    is constant within steps and p̄ = ϖ + cQ is smooth: the spline with the given step means. Without noise the game is that
    of `steps` straight moves, V weighted by the trapezoidal rule.

    `indifference`: without noise, agents accept responses whose cost is within this part of c L²/T of their best, L being
    the range of y = x − X̄(t) among the best responses. `tolerance`: with noise, resolutions are added until `accuracy` is
    below this part of max |Q| + σ/√T + (the range of the initial positions)/T.

    Raises `EquilibriumError` for several assets, for arrays that do not fit or are not finite, and if the best responses
    leave every bounded set.
    """
    with jax.enable_x64(True):  # costs only: the rest is NumPy
        game = _game(market, equilibrium)
        strategy = equilibrium.strategy()
        if isinstance(strategy, Feedback):
            strategy = _Rule(np.asarray(strategy.position, float), np.asarray(strategy.rate, float))
            _require_shape("strategy().position", strategy.position, (game.steps + 1, None))
            _require_shape("strategy().rate", strategy.rate, strategy.position.shape)
        elif isinstance(strategy, Paths):
            strategy = np.asarray(strategy.positions, float)
            _require_shape("strategy().positions", strategy, (game.steps + 1, game.start.size))
        else:
            raise EquilibriumError(f"strategy() is a {type(strategy).__name__}: verify knows Feedback and Paths")
        # An overflow shows as a result that is not finite, which is reported.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if game.noise > 0:
                return _verify_noisy(game, strategy, tolerance)
            return _verify_noiseless(game, strategy, indifference)


class _Cost:
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
class _Rule:
    """A feedback rule: rates in excess of supply (nodes, points) at increasing positions (nodes, points)."""

    position: np.ndarray
    rate: np.ndarray


@dataclass(frozen=True)
class _Game:
    trading_cost: float
    noise: float
    holding: _Cost
    terminal: _Cost
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

    @property
    def costate(self):
        """The mean of p̄ over each step (steps,)."""
        return self.price + self.trading_cost * self.supply

    @property
    def rate_scale(self):
        return float(np.abs(self.supply).max() + self.noise / np.sqrt(self.horizon) + np.ptp(self.start) / self.horizon)


def _require_shape(name, array, shape):
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise EquilibriumError(f"{name} has shape {array.shape}: verify needs ({wanted})")
    if not np.all(np.isfinite(array)):
        raise EquilibriumError(f"{name} is not finite: verify needs an equilibrium that was solved")


def _game(market, equilibrium) -> _Game:
    for name in ("horizon", "supply", "price", "initial", "weights", "strategy"):
        if not hasattr(equilibrium, name):
            raise EquilibriumError(
                f"a {type(equilibrium).__name__} has no {name}: verify needs the equilibrium along a foreseen supply path"
            )
    price = np.asarray(equilibrium.price, float)
    supply = np.asarray(equilibrium.supply, float)
    if price.ndim != 1 or np.ndim(market.trading_cost) != 0:
        raise EquilibriumError(f"price has shape {price.shape}: verify supports one asset, whose price is (steps,)")
    _require_shape("price", price, (None,))
    _require_shape("supply", supply, price.shape)
    start = np.asarray(equilibrium.initial, float)
    weights = np.asarray(equilibrium.weights, float)
    _require_shape("initial", start, (None,))
    _require_shape("weights", weights, start.shape)
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
    return _Game(
        trading_cost=trading_cost,
        noise=noise,
        holding=_Cost(market.holding),
        terminal=_Cost(market.terminal),
        limits=limits,
        horizon=horizon,
        supply=supply,
        price=price,
        start=start,
        weights=weights / weights.sum(),
    )


# With noise: finite differences


@dataclass(frozen=True)
class _Clock:
    """Substeps in order of time: duration, how implicit each is (1 or ½), its step, and the times of its two ends."""

    duration: np.ndarray
    implicit: np.ndarray
    step: np.ndarray
    times: np.ndarray  # (substeps + 1,)

    @classmethod
    def of(cls, game: _Game, pieces: int, grid: "_Grid"):
        durations, implicit, step = [], [], []
        # What starts at the walls spreads like the square root of time: halve the last substep down to one node's time.
        walls = any(grid.walls)
        spread = game.noise**2 * game.step / pieces / grid.dx**2
        halvings = int(np.clip(np.ceil(np.log2(spread)) + 1, 5, 40)) if walls else 5
        for k in range(game.steps):
            parts = [(1.0 / pieces, 0.5)] * pieces
            if k == game.steps - 1:  # the value starts with slopes that relax at once, and with a logarithm at each wall
                last = parts.pop()[0]
                parts += [(last * 0.5**power, 1.0) for power in (*range(1, halvings + 1), halvings)]
            elif walls:  # the slope at a wall jumps with supply
                last = parts.pop()[0]
                parts += [(0.5 * last, 1.0)] * 2
            if k == 0:  # the law starts with atoms
                first = parts.pop(0)[0]
                parts = [(0.25 * first, 1.0)] * 4 + parts
            durations += [game.step * part for part, _ in parts]
            implicit += [weight for _, weight in parts]
            step += [k] * len(parts)
        return cls(np.array(durations), np.array(implicit), np.array(step), np.append(0.0, np.cumsum(durations)))


class _Grid:
    """Nodes between two ends, each a wall or open, and the difference operators on them (tridiagonal, rows summing to 0)."""

    def __init__(self, low, high, walls, nodes, noise):
        self.low, self.high, self.walls = low, high, walls
        self.dx = (high - low) / (nodes - 1 + 0.5 * sum(walls))
        self.x = low + self.dx * (np.arange(nodes) + 0.5 * walls[0])
        faces = np.append(self.x - 0.5 * self.dx, self.x[-1] + 0.5 * self.dx)
        mass = np.diff(self._integral(faces)) / self.dx
        density = np.exp(2 * self.log_ground(faces))
        self.lower = 0.5 * noise**2 * density[:-1] / (mass * self.dx**2)
        self.upper = 0.5 * noise**2 * density[1:] / (mass * self.dx**2)
        self.slope_lower = np.full(nodes, -0.5 / self.dx)
        self.slope_upper = np.full(nodes, 0.5 / self.dx)
        self.slope_lower[0] = self.slope_upper[-1] = 0.0
        # At an open end: no curvature, and a one-sided slope for the drift inwards. At a wall: no flux, the density being 0.
        if walls[0]:
            self.lower[0] = 0.0
        else:
            self.lower[0] = self.upper[0] = 0.0
            self.slope_upper[0] = 1 / self.dx
        if walls[1]:
            self.upper[-1] = 0.0
        else:
            self.lower[-1] = self.upper[-1] = 0.0
            self.slope_lower[-1] = -1 / self.dx

    def log_ground(self, x):
        """log φ₀."""
        if all(self.walls):
            return np.log(np.maximum(np.sin(np.pi * (x - self.low) / (self.high - self.low)), 0.0))
        if any(self.walls):
            return np.log(np.maximum(x - self.low if self.walls[0] else self.high - x, 0.0))
        return np.zeros_like(x)

    def ground_slope(self, x):
        """(log φ₀)′."""
        if all(self.walls):
            width = self.high - self.low
            return (np.pi / width) / np.tan(np.pi * (x - self.low) / width)
        if any(self.walls):
            return 1 / (x - self.low) if self.walls[0] else -1 / (self.high - x)
        return np.zeros_like(x)

    def _integral(self, x):
        """An antiderivative of φ₀²."""
        if all(self.walls):
            turn = 2 * np.pi / (self.high - self.low)
            return 0.5 * (x - self.low) - np.sin(turn * (x - self.low)) / (2 * turn)
        if any(self.walls):
            return (x - self.low) ** 3 / 3 if self.walls[0] else -((self.high - x) ** 3) / 3
        return x

    def slope(self, v):
        out = -(self.slope_lower + self.slope_upper) * v
        out[1:] += self.slope_lower[1:] * v[:-1]
        out[:-1] += self.slope_upper[:-1] * v[1:]
        return out

    def inward(self, drift):
        """The drift (changed in place) without what would leave through an open end."""
        if not self.walls[0]:
            drift[0] = max(drift[0], 0.0)
        if not self.walls[1]:
            drift[-1] = min(drift[-1], 0.0)
        return drift

    def generator(self, drift):
        """Diagonals (lower, main, upper) of (σ²/2) φ₀⁻² (φ₀² ·′)′ + drift ·′."""
        lower = self.lower + drift * self.slope_lower
        upper = self.upper + drift * self.slope_upper
        return lower, -(lower + upper), upper

    def spread(self, start, weights):
        """The law of atoms on the nodes: each shared by two neighbours, so that the mean is exact."""
        left = np.clip(((start - self.x[0]) / self.dx).astype(int), 0, self.x.size - 2)
        part = (start - self.x[left]) / self.dx
        law = np.zeros(self.x.size)
        np.add.at(law, left, weights * (1 - part))
        np.add.at(law, left + 1, weights * part)
        return law


def _apply(matrix, v):
    lower, main, upper = matrix
    out = main * v
    out[1:] += lower[1:] * v[:-1]
    out[:-1] += upper[:-1] * v[1:]
    return out


def _transposed(matrix):
    lower, main, upper = matrix
    return np.append(0.0, upper[:-1]), main, np.append(lower[1:], 0.0)


def _solve(matrix, scale, right):
    """(1 − scale · matrix)⁻¹ right."""
    lower, main, upper = matrix
    *_, solution, info = _TRIDIAGONAL(
        -scale * lower[1:], 1 - scale * main, -scale * upper[:-1], right, overwrite_dl=1, overwrite_d=1, overwrite_du=1
    )
    if info != 0 or not np.isfinite(solution[0]):
        raise _TooCoarse(_UNRESOLVED)
    return solution


class _TooCoarse(EquilibriumError):
    """The scheme found no solution at one resolution."""


_UNRESOLVED = (
    "verify cannot resolve how best responses change with position on the finest of its grids: give a larger noise, or "
    "none, or costs that are less steep where agents go"
)
_DIVERGED = (
    "the best responses leave every bounded set: give costs that grow away from some position, or a price that is nearer "
    "to clearing"
)


@dataclass(frozen=True)
class _Outcome:
    """Mean positions (steps + 1,) in the grid's frame, the mean cost, and the largest law seen at each node."""

    position: np.ndarray
    cost: float
    envelope: np.ndarray


class _Diffusion:
    """The game with noise at one resolution: positions are y = x − X̄(t) without limits and x with them."""

    def __init__(self, game: _Game, grid: _Grid, pieces: int):
        self.game, self.grid, self.clock = game, grid, _Clock.of(game, pieces, grid)
        steps, c = self.clock.step, game.trading_cost
        nodes = np.linspace(0.0, game.horizon, game.steps + 1)
        # The smooth p̄ with the given step means is the derivative of a spline through its integral.
        spline = CubicSpline(nodes, game.step * np.append(0.0, np.cumsum(game.costate)))
        self.costate = np.asarray(spline(self.clock.times, 1))
        self.base = game.supply if game.bounded else np.zeros(game.steps)  # of the frame
        self.middle = float(game.weights @ game.start) if game.bounded else 0.0
        self.offset = np.zeros(self.clock.times.size) if game.bounded else np.interp(self.clock.times, nodes, game.path)
        self.jump = c * np.append(np.diff(self.base[steps]), 0.0)  # of the slope of v between steps
        self.tilt = np.diff(self.costate)
        self.first = np.append(np.searchsorted(steps, np.arange(game.steps)), steps.size)  # substep of each node
        self.marks = {int(level): k for k, level in enumerate(self.first)}

    def best_response(self) -> _Outcome:
        drifts = np.empty((self.clock.times.size, self.grid.x.size))
        value = self._backward(drifts)
        bend = self.grid.slope(self.grid.x) / self.game.trading_cost
        return self._outcome(value, lambda n: (drifts[n], self.grid.inward(drifts[n + 1] - self.jump[n] * bend)))

    def follow(self, rule: _Rule) -> _Outcome:
        """The population follows the rule."""
        game, grid = self.game, self.grid
        rows = np.empty((game.steps + 1, grid.x.size))
        for k, (position, rate) in enumerate(zip(rule.position, rule.rate, strict=True)):
            seen = position if game.bounded else position - game.path[k]
            # What is left after the pull of the walls is smooth, and is what is interpolated.
            inside = np.ones(seen.size, bool)
            inside &= (seen > grid.low) | (not grid.walls[0])
            inside &= (seen < grid.high) | (not grid.walls[1])
            regular = rate[inside] - game.noise**2 * grid.ground_slope(seen[inside])
            rows[k] = np.interp(grid.x, seen[inside], regular)

        def drift(level, k):
            late = self.clock.times[level] / game.step - k
            return grid.inward(self.base[k] + (1 - late) * rows[k] + late * rows[k + 1])

        def ends(n):
            k = self.clock.step[n]
            return drift(n, k), drift(n + 1, k)

        return self._outcome(self._backward(ends), ends)

    def _holding(self):
        """The mean of V at the two ends of each substep, from the last substep to the first."""
        game, grid, block = self.game, self.grid, 32
        if game.bounded:
            once = game.holding(grid.x)
            for _ in range(self.clock.step.size):
                yield once
            return
        later = None
        for start in range(self.clock.times.size, 0, -block):
            levels = np.arange(max(start - block, 0), start)
            values = game.holding(self.offset[levels][:, None] + grid.x)
            for value in values[::-1]:
                if later is not None:
                    yield 0.5 * (value + later)
                later = value

    def _backward(self, drifts):
        """The value at time 0: of best responses, whose drifts it writes into an array, or of given drifts."""
        game, grid, clock = self.game, self.grid, self.clock
        c, z = game.trading_cost, grid.x - self.middle
        value = game.terminal(self.offset[-1] + grid.x) + (self.costate[-1] - c * self.base[-1]) * z
        value = value + c * game.noise**2 * grid.log_ground(grid.x)
        optimal = isinstance(drifts, np.ndarray)
        bend = grid.slope(grid.x) / c
        if optimal:
            drifts[-1] = grid.inward(-grid.slope(value) / c)
        for n, holding in zip(range(clock.step.size - 1, -1, -1), self._holding(), strict=True):
            dt, theta = clock.duration[n], clock.implicit[n]
            value = value + self.jump[n] * z
            if optimal:
                late = grid.inward(drifts[n + 1] - self.jump[n] * bend)
                # Extrapolate in time for a first guess, except over a jump or a change of the time step.
                smooth = n + 2 < len(drifts) and self.jump[n] == 0 and clock.duration[n] == clock.duration[n + 1]
                now = grid.inward(2 * late - drifts[n + 2]) if smooth and self.jump[n + 1] == 0 else late
            else:
                now, late = drifts(n)
            right = value + dt * holding - self.tilt[n] * z
            if theta < 1:
                right = right + (1 - theta) * dt * (_apply(grid.generator(late), value) + 0.5 * c * late**2)
            for attempt in range(50):  # Howard's iteration, which is Newton's here
                value = _solve(grid.generator(now), theta * dt, right + 0.5 * theta * dt * c * now**2)
                if not optimal:
                    break
                guess, now = now, grid.inward(-grid.slope(value) / c)
                if np.abs(now - guess).max() <= 3e-6 * max(np.abs(now).max(), game.rate_scale):  # its square is left
                    break
                if attempt >= 10:  # it may alternate
                    now = 0.5 * (now + guess)
            else:
                raise _TooCoarse(_UNRESOLVED)
            if optimal:
                drifts[n] = now
        if not np.all(np.isfinite(value)):
            raise _TooCoarse(_UNRESOLVED)
        return value

    def _outcome(self, value, ends) -> _Outcome:
        game, grid, clock = self.game, self.grid, self.clock
        law = grid.spread(self._start, game.weights)
        envelope = np.abs(law)
        position = np.empty(game.steps + 1)
        position[0] = law @ grid.x
        for n in range(clock.step.size):
            now, late = ends(n)
            dt, theta = clock.duration[n], clock.implicit[n]
            law = _solve(_transposed(grid.generator(now)), theta * dt, law)
            if theta < 1:
                law = law + (1 - theta) * dt * _apply(_transposed(grid.generator(late)), law)
            np.maximum(envelope, np.abs(law), out=envelope)
            if n + 1 in self.marks:
                position[self.marks[n + 1]] = law @ grid.x
        return _Outcome(position, self._cost(value), envelope)

    @property
    def _start(self):
        return self.game.start if self.game.bounded else self.game.start - self.offset[0]

    def _cost(self, value):
        """The mean of u at time 0."""
        game, grid = self.game, self.grid
        c, start = game.trading_cost, self._start
        price = self.costate[0] - c * self.base[0]
        u = np.asarray(CubicSpline(grid.x, value)(start)) - price * (start - self.middle)
        u = u - c * game.noise**2 * grid.log_ground(start)
        if all(grid.walls):
            u = u + game.horizon * 0.5 * c * game.noise**4 * (np.pi / (grid.high - grid.low)) ** 2
        if not game.bounded:
            u = u + game.step * np.sum(game.price * game.supply + 0.5 * c * game.supply**2)
        return float(game.weights @ u)


def _verify_noisy(game: _Game, strategy: Any, tolerance) -> Verification:
    if game.bounded and not isinstance(strategy, _Rule):
        raise EquilibriumError("strategy() is Paths, but paths hit by noise do not stay within limits: it must be Feedback")
    rule: _Rule | None = strategy if isinstance(strategy, _Rule) else None

    def nodes_and_pieces(low, high, level):
        nodes = int(np.clip(np.ceil((high - low) * _COARSE / game.noise), _FEWEST, _MOST))
        pieces = max(-(-_COARSE_TIMES // game.steps), 2 if game.bounded else 1)
        return nodes * 2**level, pieces * 2**level

    def size(low, high, level):
        nodes, pieces = nodes_and_pieces(low, high, level)
        return nodes * pieces * game.steps

    def run(low, high, level):
        walls = (low <= game.limits[0], high >= game.limits[1])
        nodes, pieces = nodes_and_pieces(low, high, level)
        diffusion = _Diffusion(game, _Grid(low, high, walls, nodes, game.noise), pieces)
        best = diffusion.best_response()
        return diffusion.grid, best, best if rule is None else diffusion.follow(rule)

    low, high, first, coarse = _find_domain(game, run)
    results = [_summary(game, *coarse)]
    accuracy = np.inf
    for level in range(first + 1, first + _LEVELS):
        if level > first + 1 and size(low, high, level) > _LARGEST:
            break
        results.append(_summary(game, *run(low, high, level)))
        fine, less = results[-1], results[-2]
        change = np.abs(fine.rate - less.rate).max() / 3
        # Once two extrapolations can be compared, their difference is the sharper estimate of error.
        if len(results) > 2:
            change = min(change, np.abs(_extrapolated(fine, less).rate - _extrapolated(less, results[-3]).rate).max())
        accuracy = float(change)
        if accuracy <= tolerance * game.rate_scale:
            break
    result = _extrapolated(results[-1], results[-2])
    exploitability, own_rate = result.exploitability, result.strategy_rate
    if not isinstance(strategy, _Rule):
        own_rate = game.weights @ np.diff(strategy, axis=0).T / game.step
        exploitability = _open_loop_cost(game, strategy) - result.cost
    error = float(np.abs(result.rate - game.supply).max())
    return replace(
        result,
        clearing_error=error,
        pure_clearing_error=error,
        exploitability=exploitability,
        strategy_rate=own_rate,
        accuracy=accuracy,
    )


def _summary(game, grid, best, own) -> Verification:
    frame = np.zeros(game.steps + 1) if game.bounded else game.path
    rate, own_rate = (np.diff(outcome.position + frame) / game.step for outcome in (best, own))
    return Verification(
        np.nan, np.nan, own.cost - best.cost, np.nan, best.cost, rate, own_rate, game.supply, best.position + frame
    )


def _extrapolated(fine: Verification, coarse: Verification) -> Verification:
    """Second-order errors of two resolutions cancelled."""
    names = ("exploitability", "cost", "rate", "strategy_rate", "mean_position")
    return replace(fine, **{name: (4 * getattr(fine, name) - getattr(coarse, name)) / 3 for name in names})


def _find_domain(game: _Game, run):
    """The ends of a grid that the population does not reach, or only as walls, the coarsest level, and its run there."""

    def clipped(low, high):
        # A wall that is nearly reached is taken in.
        near = 0.05 * (high - low)
        low = game.limits[0] if low - near < game.limits[0] else low
        high = game.limits[1] if high + near > game.limits[1] else high
        return float(low), float(high)

    def coarsest(low, high, level):
        for finer in range(level, _FINER):
            try:
                return finer, run(low, high, finer)
            except _TooCoarse:
                if finer == _FINER - 1:
                    raise
        raise AssertionError

    # A first guess: where agents would go without noise, and the noise.
    problem = _Trajectory.of(game, _LONG_STEPS)
    some = np.unique(np.quantile(game.start - game.path[0], np.linspace(0, 1, 65), method="nearest"))
    paths, _ = _global_paths(problem, some, ())
    if game.bounded:
        paths = paths + problem.path[:, None]
    reach = 5 * game.noise * np.sqrt(game.horizon)
    low, high = clipped(paths.min() - reach, paths.max() + reach)
    level = 0
    for _ in range(_GROWTHS):
        level, result = coarsest(low, high, level)
        grid, envelope = result[0], np.maximum(result[1].envelope, result[2].envelope)
        edge = max(3, envelope.size // 100)
        width = 0.5 * (high - low)
        left, right = envelope[:edge].sum() > _LEAK, envelope[-edge:].sum() > _LEAK
        left, right = bool(left and not grid.walls[0]), bool(right and not grid.walls[1])
        if not left and not right:
            break
        low, high = clipped(low - width * left, high + width * right)
    else:
        raise EquilibriumError(_DIVERGED)
    first = int(np.argmax(np.cumsum(envelope) > 0.1 * _LEAK))
    last = envelope.size - 1 - int(np.argmax(np.cumsum(envelope[::-1]) > 0.1 * _LEAK))
    margin = 0.04 * (grid.x[last] - grid.x[first])
    inner = clipped(max(low, grid.x[first] - margin), min(high, grid.x[last] + margin))
    if inner[1] - inner[0] < 0.8 * (high - low):
        return *inner, *coarsest(*inner, level)
    return low, high, level, result


def _open_loop_cost(game: _Game, positions):
    """The mean cost of paths (nodes, agents) that noise is added to."""
    points, masses = np.polynomial.hermite_e.hermegauss(_HERMITE)
    masses = masses / masses.sum()
    moves = np.diff(positions, axis=0)
    cost = (0.5 * game.trading_cost / game.step * moves**2 + game.price[:, None] * moves).sum(axis=0)
    gauss, shares = np.polynomial.legendre.leggauss(max(2, -(-32 // game.steps)))
    for k in range(game.steps):
        part = 0.5 * (1 + gauss)[:, None, None]
        place = positions[k][:, None] + part * moves[k][:, None]
        place = place + game.noise * np.sqrt(game.step * (k + part)) * points
        cost = cost + game.step * np.einsum("q,qah,h->a", 0.5 * shares, game.holding(place), masses)
    last = positions[-1][:, None] + game.noise * np.sqrt(game.horizon) * points
    return float(game.weights @ (cost + game.terminal(last) @ masses))


# Without noise: a grid dynamic programme for the basins, and Newton's method


@dataclass(frozen=True)
class _Trajectory:
    """The problem of one path y_0 … y_n in the frame of X̄, over steps of given durations (n,)."""

    game: _Game
    duration: np.ndarray
    costate: np.ndarray  # (n,) mean of p̄
    path: np.ndarray  # (n + 1,) X̄

    @classmethod
    def of(cls, game: _Game, most: int | None = None):
        nodes = np.arange(game.steps + 1)
        if most is not None and most < game.steps:
            nodes = np.unique(np.round(np.linspace(0, game.steps, most + 1)).astype(int))
        costate = np.diff(np.append(0.0, np.cumsum(game.costate))[nodes]) / np.diff(nodes)
        return cls(game, game.step * np.diff(nodes), costate, game.path[nodes])

    @property
    def trapezoid(self):
        return 0.5 * (np.append(self.duration, 0.0) + np.append(0.0, self.duration))

    @property
    def times(self):
        return np.append(0.0, np.cumsum(self.duration))

    def cost(self, y):
        """Costs of paths (n + 1, count), without the constant that supply itself costs."""
        moves = np.diff(y, axis=0)
        stiffness = 0.5 * self.game.trading_cost / self.duration
        total = (stiffness[:, None] * moves**2 + self.costate[:, None] * moves).sum(axis=0)
        x = self.path[:, None] + y
        return total + self.trapezoid @ self.game.holding(x) + self.game.terminal(x[-1])

    def derivatives(self, y):
        """Gradient and diagonal of the Hessian in y_1 … y_n (n, count)."""
        c, x = self.game.trading_cost, self.path[:, None] + y
        force = c * np.diff(y, axis=0) / self.duration[:, None] + self.costate[:, None]
        weight = self.trapezoid[1:, None]
        gradient = force + weight * self.game.holding(x[1:], 1)
        gradient[:-1] -= force[1:]
        gradient[-1] += self.game.terminal(x[-1], 1)
        stiffness = c / self.duration
        main = (stiffness + np.append(stiffness[1:], 0.0))[:, None] + weight * self.game.holding(x[1:], 2)
        main[-1] += self.game.terminal(x[-1], 2)
        return gradient, main

    def polish(self, y):
        """The local optima that paths (n + 1, count) lead to, and the size (count,) of the last change of their rates."""
        y = self._within(y)
        off = self.game.trading_cost / self.duration[1:]  # minus the off-diagonal
        shortest = self.duration.min()
        smallest = self.game.trading_cost / self.game.horizon**2
        low, high = (limit - self.path[1:, None] for limit in self.game.limits)
        cost, damping = self.cost(y), np.zeros(y.shape[1])
        change, active = np.full(y.shape[1], np.inf), np.arange(y.shape[1])
        for _ in range(_NEWTON):
            if active.size == 0:
                break
            here = y[:, active]
            gradient, main = self.derivatives(here)
            held = (here[1:] <= low) & (gradient > 0) | (here[1:] >= high) & (gradient < 0)
            step, convex = _newton_step(main + damping[active] * self.trapezoid[1:, None], off, gradient, held)
            there = here.copy()
            there[1:] += step
            there = self._within(there)
            size = np.abs(np.diff(there - here, axis=0)).max(axis=0) / shortest
            new = self.cost(there)
            # A change below rounding cannot be judged by the cost: it is taken, being a Newton step.
            rounding = 1e-13 * (1 + np.abs(cost[active]))
            better = convex & np.isfinite(new) & (new <= cost[active] + rounding)
            chosen = active[better]
            y[:, chosen], cost[chosen], change[chosen] = there[:, better], new[better], size[better]
            eased = np.where(damping[active] > smallest, 0.1 * damping[active], 0.0)
            damping[active] = np.where(better, eased, np.maximum(4 * damping[active], smallest))
            scale = 1e-10 * (self.game.rate_scale + np.abs(np.diff(here, axis=0)).max(axis=0) / shortest)
            active = active[~(better & (size < scale) & (damping[active] == 0.0)) & (damping[active] < 1e15 * smallest)]
        return y, change

    def _within(self, y):
        low, high = self.game.limits
        out = np.clip(y, low - self.path[:, None], high - self.path[:, None])
        out[0] = y[0]
        return out


def _newton_step(main, off, gradient, held):
    """Batched tridiagonal solves (n, count) in which held entries do not move; and which matrices are positive."""
    count = main.shape[0]
    pivots, right = np.empty_like(main), np.where(held, 0.0, -gradient)
    main = np.where(held, 1.0, main)
    convex = np.ones(main.shape[1], bool)
    free = ~held
    for k in range(count):
        pivots[k] = main[k]
        if k:
            link = off[k - 1] * (free[k] & free[k - 1]) / pivots[k - 1]
            pivots[k] -= link * off[k - 1]
            right[k] += link * right[k - 1]
        convex &= pivots[k] > 0
        pivots[k] = np.where(pivots[k] > 0, pivots[k], 1.0)
    right[-1] /= pivots[-1]
    for k in range(count - 2, -1, -1):
        right[k] = (right[k] + off[k] * (free[k] & free[k + 1]) * right[k + 1]) / pivots[k]
    return right, convex


def _grid_paths(problem: _Trajectory, starts, low, high):
    """Globally optimal paths (n + 1, starts) on a grid of positions."""
    game, count = problem.game, problem.duration.size
    grid = np.linspace(low, high, _GRID)
    limit_low, limit_high = game.limits
    slack = (high - low) / _GRID  # so that a path along a limit has a grid point

    def penalised(values, k):
        x = problem.path[k] + grid
        return np.where((x < limit_low - slack) | (x > limit_high + slack), np.inf, values)

    to_go = penalised(game.terminal(problem.path[-1] + grid), count)
    choice = np.empty((count, grid.size), int)
    apart = grid[None, :] - grid[:, None]
    for k in range(count - 1, 0, -1):
        move = (0.5 * game.trading_cost / problem.duration[k] * apart + problem.costate[k]) * apart
        to_go = to_go + problem.trapezoid[k + 1] * game.holding(problem.path[k + 1] + grid)
        move += to_go
        choice[k] = move.argmin(axis=1)
        to_go = penalised(move[np.arange(grid.size), choice[k]], k)
    to_go = to_go + problem.trapezoid[1] * game.holding(problem.path[1] + grid)
    apart = grid[None, :] - starts[:, None]
    index = ((0.5 * game.trading_cost / problem.duration[0] * apart + problem.costate[0]) * apart + to_go).argmin(axis=1)
    paths = np.empty((count + 1, starts.size))
    paths[0], paths[1] = starts, grid[index]
    for k in range(1, count):
        index = choice[k][index]
        paths[k + 1] = grid[index]
    return paths


def _reach(problem: _Trajectory, start):
    """A bound on |y − start| along globally optimal paths, from what they can gain and what moving costs.

    To have been R away costs at least cR²/2T − PR − TP²/c, P = max |p̄|, so the gain over staying must be more: the bound is
    where, from there on, TV + Ψ never falls that far below the cost of staying.
    """
    game = problem.game
    c, horizon, most = game.trading_cost, game.horizon, np.abs(problem.costate).max()
    x = np.clip(problem.path[:, None] + start, *game.limits)
    staying = (problem.trapezoid @ game.holding(x) + game.terminal(x[-1])).max()
    base = max(np.ptp(x), horizon * most / c, 1e-3 * np.abs(x).max()) or 1.0
    bound = np.inf
    for distance in base * 2.0 ** np.arange(24, -1, -1):
        seen = np.clip(np.linspace(x.min() - distance, x.max() + distance, 4001), *game.limits)
        lowest = horizon * np.nanmin(game.holding(seen)) + np.nanmin(game.terminal(seen))
        moving = (0.5 * distance / horizon * c - most) * distance - horizon * most**2 / c
        if not moving > staying - lowest:
            return bound
        bound = distance
    return bound


def _global_paths(problem: _Trajectory, start, probes):
    """Optimal paths on a grid from y = `start` and from the probes' places around it, (n + 1, places · agents), and the
    grid's width. The first grid holds all paths that can be optimal; the next ones close in on those that are."""
    game = problem.game
    reach = _reach(problem, start)
    low = max(start.min() - reach, game.limits[0] - problem.path.max())
    high = min(start.max() + reach, game.limits[1] - problem.path.min())
    if not np.isfinite(high - low):
        raise EquilibriumError(_DIVERGED)
    paths, width = np.empty((0, 0)), 0.0
    for _ in range(_ZOOMS):
        width = high - low
        shifts = np.array([0.0, *(sign * part * width for part in probes for sign in (-1, 1))])
        places = np.clip(start[None, :] + shifts[:, None], *(limit - game.path[0] for limit in game.limits))
        paths = _grid_paths(problem, places.ravel(), low, high)
        margin = 0.15 * np.ptp(paths) + 25 * width / _GRID
        inner = max(low, paths.min() - margin), min(high, paths.max() + margin)
        if inner[1] - inner[0] > 0.6 * width:
            break
        low, high = inner
    return paths, width


def _verify_noiseless(game: _Game, strategy, indifference) -> Verification:
    # Local optima in long steps: an agent's own, and those that the paths of places nearby lead it to.
    coarse = _Trajectory.of(game, _LONG_STEPS)
    start = game.start - game.path[0]
    paths, width = _global_paths(coarse, start, _PROBES)
    agent = np.arange(paths.shape[1]) % start.size
    paths[0] = start[agent]
    paths, _ = coarse.polish(paths)
    costs = coarse.cost(paths)
    best = np.full(game.start.size, np.inf)
    np.minimum.at(best, agent, costs)
    scale = game.trading_cost * np.ptp(paths) ** 2 / game.horizon
    worth = np.flatnonzero(costs <= best[agent] + (0.01 + 10 * indifference) * scale)
    kept = _distinct(paths, agent, costs, worth, 1e-6 * width)
    problem = _Trajectory.of(game)
    agent = agent[kept]
    guess = np.stack([np.interp(problem.times, coarse.times, paths[:, j]) for j in kept], axis=1)
    guess[0] = start[agent]
    paths, change = problem.polish(guess)
    costs = problem.cost(paths)
    best = np.full(game.start.size, np.inf)
    np.minimum.at(best, agent, costs)
    if not np.all(np.isfinite(best)):
        raise EquilibriumError(_DIVERGED)
    scale = game.trading_cost * np.ptp(paths) ** 2 / game.horizon
    allowed = np.flatnonzero(costs <= best[agent] + indifference * scale)
    allowed = _distinct(paths, agent, costs, allowed, 1e-6 * width)
    rates = np.diff(paths, axis=0) / game.step  # in excess of supply
    chosen = np.array(sorted({agent[j]: j for j in reversed(allowed)}.values(), key=lambda j: agent[j]))  # cheapest of each
    pure = rates[:, chosen] @ game.weights
    excess = _shared(game, rates, agent, allowed, pure)
    own = strategy - game.path[:, None] if isinstance(strategy, np.ndarray) else _integrate(game, strategy)
    constant = game.step * np.sum(game.price * game.supply + 0.5 * game.trading_cost * game.supply**2)
    return Verification(
        clearing_error=float(np.abs(excess).max()),
        pure_clearing_error=float(np.abs(pure).max()),
        exploitability=float(game.weights @ (problem.cost(own) - best)),
        accuracy=float(change[chosen].max()),
        cost=float(game.weights @ best + constant),
        rate=game.supply + excess,
        strategy_rate=game.supply + np.diff(own, axis=0) @ game.weights / game.step,
        supply=game.supply,
        mean_position=game.path + game.step * np.append(0.0, np.cumsum(excess)),
    )


def _distinct(paths, agent, costs, among, apart):
    """Of the paths `among`, one of each set of an agent's paths that nearly agree; by agent, the cheapest first."""
    kept: list[int] = []
    for j in among[np.lexsort((costs[among], agent[among]))]:
        for i in reversed(kept):
            if agent[i] != agent[j]:
                kept.append(j)
                break
            if np.abs(paths[:, i] - paths[:, j]).max() <= apart:
                break
        else:
            kept.append(j)
    return np.array(kept)


def _shared(game: _Game, rates, agent, allowed, pure):
    """The mean excess rates (steps,) of least size when indifferent agents share themselves among their responses."""
    several = np.bincount(agent[allowed], minlength=game.start.size) > 1
    if not several.any():
        return pure
    mixed = allowed[several[agent[allowed]]]
    single = allowed[~several[agent[allowed]]]
    fixed = rates[:, single] @ game.weights[agent[single]]
    effect = rates[:, mixed] * game.weights[agent[mixed]]
    unit = max(np.abs(pure).max(), 1e-300)  # so that the programme's own tolerances are relative
    ones = np.ones((game.steps, 1))
    sizes = np.vstack([np.hstack([effect / unit, -ones]), np.hstack([-effect / unit, -ones])])
    _, row = np.unique(agent[mixed], return_inverse=True)
    shares = csr_array((np.ones(mixed.size), (row, np.arange(mixed.size))), shape=(row.max() + 1, mixed.size + 1))
    answer = linprog(
        np.append(np.zeros(mixed.size), 1.0),
        A_ub=sizes,
        b_ub=np.append(-fixed, fixed) / unit,
        A_eq=shares,
        b_eq=np.ones(row.max() + 1),
        bounds=(0, None),
        method="highs",
    )
    if not answer.success:
        return pure
    return fixed + effect @ answer.x[:-1]


def _integrate(game: _Game, rule: _Rule):
    """Paths y (steps + 1, agents) of agents who follow the rule."""
    y = np.empty((game.steps + 1, game.start.size))
    y[0] = game.start - game.path[0]
    pieces = max(4, -(-256 // game.steps))
    dt = game.step / pieces

    for k in range(game.steps):
        before, after = (rule.position[j] - game.path[j] for j in (k, k + 1))

        def rate(late, y, k=k, before=before, after=after):
            return (1 - late) * np.interp(y, before, rule.rate[k]) + late * np.interp(y, after, rule.rate[k + 1])

        now = y[k]
        for piece in range(pieces):
            start, half, end = (piece + part for part in (0.0, 0.5, 1.0))
            first = rate(start / pieces, now)
            second = rate(half / pieces, now + 0.5 * dt * first)
            third = rate(half / pieces, now + 0.5 * dt * second)
            fourth = rate(end / pieces, now + dt * third)
            now = now + dt / 6 * (first + 2 * second + 2 * third + fourth)
        y[k + 1] = np.clip(now, game.limits[0] - game.path[k + 1], game.limits[1] - game.path[k + 1])
    return y
