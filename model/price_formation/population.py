"""What the agents of one finite game do in its equilibrium: sampled paths, their density over time, their expected costs.

With y = x − X̄(t) the distance from the mean position, an equilibrium is one of three laws of paths:

* with noise, the Markov chain y_{k−1} → y_k of density K(y_{k−1}, ·) φ_k / (K φ_k)(y_{k−1}), K being the heat kernel and
  u_k = −ε log φ_k the value at node k. What agents spend on trading beyond the supply rate follows without a derivative,

      E ∫ (c/2) β² = E[ũ_{k−1}(y_{k−1})] − E[u_k(y_k)],   ũ_{k−1} = −ε log K φ_k,

  and since markets clear, E β = 0, trading costs are that and (c/2) Q²;
* with quadratic costs, dy = −g(t) y dt + σ dW, whose transitions are, with ω² = η/c and S(h) = sinh(ωh)/ω,

      y(t + h) = a y(t) + N(0, σ² a S(h)),   a = 1 / (cosh(ωh) + g(t + h) S(h));

* without noise, a path for each agent.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from walras.model.costs import expected, values
from walras.model.equilibrium import EquilibriumError, is_traced
from walras.model.price_formation.agents import TrajectoryEquilibrium
from walras.model.price_formation.diffusion_equilibrium import DiffusionEquilibrium
from walras.model.price_formation.foreseen import ClosedFormEquilibrium, pull_rate
from walras.model.price_formation.game import Game, PathEquilibrium
from walras.model.price_formation.hopf_cole import Grid, Heat, HopfCole
from walras.model.price_formation.strategy import Paths
from walras.model.price_formation.vanishing_noise import NoiseLimit

_FINER = 8  # cells to one of the equilibrium's grid, in which densities are taken to be log-linear: right to 0.3 %
_LEVEL = 1e-5  # a fall of the log density over a cell below which it is uniform there
_WALL = 100.0  # a fall over a cell that only a wall makes: there the density vanishes like the square of the distance
_GAUSS_POINTS = 8  # in a step, for the costs of a linear rule: exact to rounding
_DENSITY_POINTS, _DEVIATIONS = 513, 6.0  # of tabulated mixtures of normal laws, and how far beyond the outermost they go


class Density(NamedTuple):
    """At `times` (steps,), the ends of the steps, the `density` (steps, points) per unit of the population at `positions`."""

    times: Float[Array, " steps"]
    positions: Float[Array, "steps points"]
    density: Float[Array, "steps points"]


class ExpectedCosts(NamedTuple):
    """The population's mean costs (money): in each step `trading` ∫(c/2)α², `holding` ∫V and `payments` ∫ϖα; `terminal` Ψ."""

    trading: Float[Array, " steps"]
    holding: Float[Array, " steps"]
    payments: Float[Array, " steps"]
    terminal: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        return jnp.sum(self.trading + self.holding + self.payments) + self.terminal


def sample_paths(equilibrium: PathEquilibrium, key: Array, agents: int) -> Float[Array, "nodes agents ..."]:
    """Positions (steps + 1, agents) at the nodes of agents drawn at random from the population; several assets: (…, assets).

    First positions are drawn from `equilibrium.initial` by weight, independently. With noise paths are sampled from the law
    that was solved, at every step of the solve; there is no step that converges to it. Limits on positions hold. Without
    noise agents' own paths are drawn. The limit of vanishing noise is sampled at its least noise.

    Raises `EquilibriumError` for several assets with noise.

    >>> from walras.model import PriceFormation, Quadratic
    >>> market = PriceFormation(1.0, terminal=Quadratic(2.0), noise=0.3)
    >>> sample_paths(market.solve(jnp.zeros(4)), jax.random.key(0), 100).shape
    (5, 100)
    """
    return _sample(_law(equilibrium), key, agents)


def density(equilibrium: PathEquilibrium) -> Density:
    """The density of the population at the end of each step, of a market with noise and one asset.

    At the start it is `equilibrium.initial`, which has none. The limit of vanishing noise is shown at its least noise.

    Raises `EquilibriumError` for several assets and without noise, where agents are points: `sample_paths` has them.
    """
    noise = equilibrium.game.noise if isinstance(equilibrium, ClosedFormEquilibrium) else 1.0
    if not is_traced(noise) and not bool(jnp.all(noise > 0)):
        raise EquilibriumError(_NO_DENSITY)
    return _density(_law(equilibrium))


def expected_costs(equilibrium: PathEquilibrium) -> ExpectedCosts:
    """What agents pay on average, in each step and at the end: differentiable, and exact for the law that was solved.

    Holding costs of a general V are in time the trapezium's, as in the solve. Of the limit of vanishing noise they are those
    at its least noise.

    Raises `EquilibriumError` for several assets with noise.

    >>> from walras.model import PriceFormation, Quadratic
    >>> costs = expected_costs(PriceFormation(1.0, terminal=Quadratic(2.0)).solve(jnp.ones(2)))
    >>> [round(float(cost), 3) for cost in (*costs.trading, *costs.payments, costs.terminal)]
    [0.25, 0.25, -1.5, -1.5, 1.0]
    """
    return _costs(_law(equilibrium))


class _Law(eqx.Module):
    """A law of paths."""

    @abstractmethod
    def sample(self, key, agents) -> Array: ...

    @abstractmethod
    def density(self) -> Density: ...

    @abstractmethod
    def costs(self) -> ExpectedCosts: ...


def _law(equilibrium) -> _Law:
    if isinstance(equilibrium, NoiseLimit):
        return _law(equilibrium.levels[-1])
    if isinstance(equilibrium, DiffusionEquilibrium):
        return _Chain(equilibrium)
    if isinstance(equilibrium, ClosedFormEquilibrium) and equilibrium.price.ndim == 1:
        return _Linear(equilibrium)
    if not isinstance(equilibrium, PathEquilibrium):
        raise EquilibriumError(
            f"equilibrium is a {type(equilibrium).__name__}: paths, densities and costs are of a game with foreseen supply"
        )
    noise = equilibrium.game.noise
    if not is_traced(noise) and bool(jnp.any(noise > 0)):
        raise EquilibriumError(f"noise is {noise}: with noise, paths and costs are known for one asset only")
    paths = equilibrium.strategy()
    if isinstance(paths, Paths):
        return _Atoms(equilibrium)
    raise EquilibriumError(f"equilibrium is a {type(equilibrium).__name__} whose strategy is a rule: its law is not known")


@eqx.filter_jit
def _sample(law, key, agents):
    return law.sample(key, agents)


@eqx.filter_jit
def _density(law):
    return law.density()


@eqx.filter_jit
def _costs(law):
    return law.costs()


def _drawn(game: Game, key, agents):
    """The indices (agents,) of first positions drawn by weight."""
    return jax.random.choice(key, game.weights.size, (agents,), p=game.weights)


def _payments(equilibrium):
    game = equilibrium.game
    return game.step * (equilibrium.price * equilibrium.supply).reshape(game.steps, -1).sum(axis=1)


def _by_step(fine, steps):
    """Sums over the substeps of each step."""
    return jnp.sum(fine.reshape(steps, -1), axis=1)


class _Chain(_Law):
    """Agents hit by noise, any costs."""

    equilibrium: DiffusionEquilibrium

    def sample(self, key, agents):
        equilibrium, game = self.equilibrium, self.equilibrium.fine
        grid, log_value = equilibrium.grid, self._finer()
        heat = Heat(game.noise**2 * game.step, grid, game.limits)
        first_key, key = jax.random.split(key)
        first = game.initial[_drawn(game, first_key, agents)]

        def move(position, row):
            uniform, mean, log_value = row
            _, entry, near = heat.entering(position, mean)
            cell, uniform = _cell(entry + log_value[::_FINER][near], uniform)
            places = _FINER * _at(near, cell)[:, None] + jnp.arange(_FINER + 1)[None]
            ends = grid.low + grid.spacing / _FINER * places
            start, moved = (position, mean[1] - mean[0]) if game.limits else (position - mean[0], 0.0)
            inside = heat.log_density(start[:, None], ends, moved) + log_value[places]
            cell, uniform = _cell(inside, uniform)
            left, right = _at(ends, cell), _at(ends, cell + 1)
            end = left + (right - left) * _within(_at(inside, cell), _at(inside, cell + 1), uniform)
            position = end if game.limits else end + mean[1]
            return position, position

        uniforms = jax.random.uniform(key, (game.steps, agents), first.dtype)
        _, later = jax.lax.scan(move, first, (uniforms, self._means(game), log_value))
        return jnp.concatenate([first[None], later])[:: equilibrium.substeps]

    def _means(self, game):
        """X̄ at both ends of each step (steps, 2)."""
        mean = game.mean_position
        return jnp.stack([mean[:-1], mean[1:]], axis=1)

    def _finer(self) -> Float[Array, "steps finer_points"]:
        """log φ at each node, also between the grid's points, by the quadrature that is exact at them."""
        equilibrium, game = self.equilibrium, self.equilibrium.fine
        coarse = equilibrium.grid
        points = _FINER * (coarse.points - 1) + 1
        finer = HopfCole.of(game, Grid(coarse.low, coarse.high, points, points), log_domain=True)  # for its costs
        log_value = equilibrium.dual().flow(equilibrium.multipliers).log_value
        heat = Heat(game.noise**2 * game.step, coarse, game.limits)

        def ahead(row):
            start, mean, next_value = row
            _, entry, near = heat.entering(start if game.limits else start + mean[0], mean)
            return jax.nn.logsumexp(entry + next_value[near], axis=1)

        nodes = jnp.broadcast_to(finer.grid.nodes(), (game.steps - 1, points))
        arriving = jax.lax.map(ahead, (nodes, self._means(game)[1:], log_value[1:]))
        exponents = -(finer.cost + equilibrium.multipliers[:, None] * finer.distance) / finer.epsilon
        return exponents.at[:-1].add(arriving)

    def density(self):
        equilibrium, game = self.equilibrium, self.equilibrium.game
        dual = equilibrium.dual()
        flow = dual.flow(equilibrium.multipliers)
        ends = slice(equilibrium.substeps - 1, None, equilibrium.substeps)
        positions = dual.distance[ends] + game.mean_position[1:, None]
        return Density(_ends(game), positions, flow.mass[ends] / equilibrium.grid.spacing)

    def costs(self):
        equilibrium, game, fine = self.equilibrium, self.equilibrium.game, self.equilibrium.fine
        dual = equilibrium.dual()
        flow = dual.flow(equilibrium.multipliers)
        here = -dual.epsilon * jnp.sum(flow.mass * flow.log_value, axis=1)
        first = dual.value(equilibrium.multipliers, dual.cost)
        before = jnp.append(first, -dual.epsilon * jnp.sum(flow.mass[:-1] * flow.log_ahead, axis=1))
        position = dual.distance + fine.mean_position[1:, None]
        held = expected(flow.mass, values(game.holding, position))
        held = jnp.append(jnp.sum(game.weights * values(game.holding, game.initial)), held)
        trading = 0.5 * game.step * game.trading_cost * game.supply**2
        return ExpectedCosts(
            trading=trading + _by_step(before - here, game.steps),
            holding=_by_step(0.5 * fine.step * (held[:-1] + held[1:]), game.steps),
            payments=_payments(equilibrium),
            terminal=expected(flow.mass[-1], values(game.terminal, position[-1])),
        )


# Drawing from a log-linear density between the points of a grid: over a normal law this is the right density times a factor
# with the grid's period, so that the probabilities of cells and all moments are right to the accuracy of sums over the grid,
# and only the law within a cell is not. Hence the draw of a cell of the equilibrium's grid, and then of a small one in it.


def _cell(log_density, uniform):
    """The cells (agents,) drawn by inversion from densities (agents, points), and new uniform numbers (agents,)."""
    density = jnp.exp(log_density - jnp.max(log_density, axis=1, keepdims=True))
    slope = jnp.diff(log_density, axis=1)
    level = jnp.abs(slope) < _LEVEL
    mass = jnp.where(level, 0.5 * (density[:, :-1] + density[:, 1:]), jnp.diff(density, axis=1) / jnp.where(level, 1.0, slope))
    mass = jnp.where(jnp.abs(slope) > _WALL, jnp.maximum(density[:, :-1], density[:, 1:]) / 3.0, mass)
    below = jnp.cumsum(mass, axis=1)
    target = uniform * below[:, -1]
    cell = jnp.minimum(jnp.sum(below <= target[:, None], axis=1), mass.shape[1] - 1)
    left = (_at(below, cell) - target) / _at(mass, cell)
    return cell, jnp.clip(1.0 - left, 0.0, 1.0)


def _within(left, right, uniform):
    """Places in a cell (agents,), from 0 to 1, with log densities at its ends, by inversion."""
    fall = jnp.abs(right - left)
    share = jnp.where(right > left, 1.0 - uniform, uniform)  # of the mass, from the denser end
    safe = jnp.maximum(fall, _LEVEL)
    away = jnp.where(fall < _LEVEL, share, -jnp.log1p(share * jnp.expm1(-safe)) / safe)
    away = jnp.where(fall > _WALL, 1.0 - jnp.cbrt(1.0 - share), away)
    return jnp.where(right > left, 1.0 - away, away)


def _at(rows, column):
    """One entry of each row (agents, points)."""
    return jnp.take_along_axis(rows, column[:, None], axis=1)[:, 0]


class _Linear(_Law):
    """Quadratic costs and one asset: agents are pulled to the mean position at rate g, and hit by noise if there is any."""

    equilibrium: ClosedFormEquilibrium

    def sample(self, key, agents):
        game = self.equilibrium.game
        first_key, key = jax.random.split(key)
        first = game.initial[_drawn(game, first_key, agents)]
        kept, variance = self._transition(_ends(game), game.step)
        hits = jnp.sqrt(variance)[:, None] * jax.random.normal(key, (game.steps, agents), first.dtype)

        def move(distance, row):
            distance = row[0] * distance + row[1]
            return distance, distance

        _, later = jax.lax.scan(move, first - game.mean_position[0], (kept, hits))
        return jnp.concatenate([first[None], later + game.mean_position[1:, None]])

    def density(self):
        game = self.equilibrium.game

        def at_node(row):
            kept, variance, mean = row
            centres, width = kept * (game.initial - game.mean_position[0]), jnp.sqrt(variance)
            low, high = jnp.min(centres) - _DEVIATIONS * width, jnp.max(centres) + _DEVIATIONS * width
            distance = jnp.linspace(low, high, _DENSITY_POINTS)
            return distance + mean, norm.pdf(distance[:, None], centres[None], width) @ game.weights

        kept, variance = self._since_start()
        return Density(_ends(game), *jax.lax.map(at_node, (kept[1:], variance[1:], game.mean_position[1:])))

    def costs(self):
        game = self.equilibrium.game
        nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
        elapsed = game.step * jnp.asarray(0.5 * (1.0 + nodes))[None]
        times = (_ends(game) - game.step)[:, None] + elapsed
        kept, variance = self._transition(times, elapsed)
        squares = self._squares()
        square = kept**2 * squares[:-1, None] + variance
        mean = game.mean_position[:-1, None] + elapsed * game.supply[:, None]
        trading = game.supply[:, None] ** 2 + self._pull(times) ** 2 * square
        holding = (mean - game.holding.centre) ** 2 + square
        return ExpectedCosts(
            trading=0.25 * game.step * game.trading_cost * (trading @ weights),
            holding=0.25 * game.step * game.holding.strength * (holding @ weights),
            payments=_payments(self.equilibrium),
            terminal=0.5 * game.terminal.strength * ((game.mean_position[-1] - game.terminal.centre) ** 2 + squares[-1]),
        )

    def _pull(self, time):
        game = self.equilibrium.game
        ratio, end = game.holding.strength / game.trading_cost, game.terminal.strength / game.trading_cost
        return pull_rate(ratio, end, game.horizon - time)

    def _transition(self, time, elapsed):
        """What is kept at a time of the distance there was `elapsed` before, and the variance added since."""
        game = self.equilibrium.game
        root = jnp.sqrt(jnp.maximum(game.holding.strength / game.trading_cost, 1e-30))
        reach = jnp.sinh(root * elapsed) / root
        kept = 1.0 / (jnp.cosh(root * elapsed) + self._pull(time) * reach)
        return kept, game.noise**2 * kept * reach

    def _since_start(self):
        """What is kept at each node (nodes,) of the first distance, and the variance added."""

        def move(so_far, row):
            so_far = (row[0] * so_far[0], row[0] ** 2 * so_far[1] + row[1])
            return so_far, so_far

        transitions = self._transition(_ends(self.equilibrium.game), self.equilibrium.game.step)
        first = jnp.ones_like(transitions[0][0]), jnp.zeros_like(transitions[1][0])
        _, later = jax.lax.scan(move, first, transitions)
        return tuple(jnp.append(start, rest) for start, rest in zip(first, later, strict=True))

    def _squares(self):
        """E[y²] at the nodes (nodes,)."""
        game = self.equilibrium.game
        kept, variance = self._since_start()
        return kept**2 * jnp.sum(game.weights * (game.initial - game.mean_position[0]) ** 2) + variance


class _Atoms(_Law):
    """Agents without noise, each on a path of its own, in one or several assets."""

    equilibrium: PathEquilibrium

    def sample(self, key, agents):
        game = self.equilibrium.game
        return self._paths()[0][:, _drawn(game, key, agents)]

    def density(self):
        raise EquilibriumError(_NO_DENSITY)

    def costs(self):
        equilibrium, game = self.equilibrium, self.equilibrium.game
        paths, simpson = self._paths(fine=True)
        step = game.horizon / (paths.shape[0] - 1)
        rate = jnp.diff(paths, axis=0) / step
        trading = 0.5 * step * (rate * game.traded(rate)).reshape(*rate.shape[:2], -1).sum(axis=2)
        held = _each(game.holding, paths, game)
        ends = 0.5 * (held[:-1] + held[1:])
        # A quadratic cost along a straight line is Simpson's, and the game of closed forms has it so.
        middle = _each(game.holding, 0.5 * (paths[:-1] + paths[1:]), game) if simpson else ends
        return ExpectedCosts(
            trading=_by_step(trading @ game.weights, game.steps),
            holding=_by_step(step * (ends + 2.0 * middle) / 3.0 @ game.weights, game.steps),
            payments=_payments(equilibrium),
            terminal=_each(game.terminal, paths[-1], game) @ game.weights,
        )

    def _paths(self, fine=False):
        """Positions at the nodes, or those of the solve, and whether holding costs count between them too."""
        if fine and isinstance(self.equilibrium, TrajectoryEquilibrium):
            return self.equilibrium.fine_positions, False
        strategy = self.equilibrium.strategy()
        assert isinstance(strategy, Paths)
        return strategy.positions, isinstance(self.equilibrium, ClosedFormEquilibrium)


def _each(cost, positions, game):
    """The cost of each of the positions (…) of one asset, or (…, assets)."""
    for _ in range(positions.ndim - game.supply.ndim + 1):
        cost = jax.vmap(cost)
    return cost(positions)


def _ends(game):
    return game.step * jnp.arange(1, game.steps + 1)


_NO_DENSITY = "the market has no noise, and its agents are points without a density: give it a positive noise, or sample_paths"
