"""Power costs, two agents whose risks offset each other: the equilibrium on a lattice.

W moves by ±√D in each of n steps of length D = T/n. Agents trade at the start of a step; with ψ the first agent's position less
its first one, Y its marginal cost of trading, R = E Σ σ²D of the steps ahead, c₂ = (γ¹+γ²)/2 and ε = (γ²−γ¹)/(γ¹+γ²),

    σ = α − γ̄ s ΔR/ΔW − ε ΔY/ΔW,   Y = E[Y′] − D c₂ σ (σψ′ + ξW),   R = E[R′] + Dσ²,
    φ̇ = sgn(Y) (|Y|/λ)^{1/(q−1)},   S = βT + αW − γ̄ s R − ε Y,

a prime marking the next step, and ΔR/ΔW half the difference between its two values over √D. All are known once the position
ψ′ that is held over the step is: so they are computed on a grid of ψ′, and belong to the position ψ = ψ′ − Dφ̇ before the trade.
There is no equation to solve, and no error but those of interpolating in ψ and of leaving out what lies beyond six standard
deviations. Y falls as ψ grows, so ψ grows with ψ′.

What matters is how far ψ is from −ξW/α, where there is no risk: each value of W has its grid around that.
"""

import math
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, Status, is_traced
from walras.model.trading_costs.equilibrium import Figures, Simulation, TradingEquilibrium, continuous_limit, status_of
from walras.model.trading_costs.parameters import BALANCED, Parameters
from walras.model.trading_costs.small_costs import scale

_LEVELS = 3  # of extrapolation: steps, 2 steps, 4 steps
_POINTS = 201  # of the grid of positions, for each value of W
_GRADING = 3.0  # they lie a third as far apart in the middle as they would evenly, and errors are a tenth
_REACH = 6.0  # of the lattice, in standard deviations of W, and of the grid in those of positions
_INNER = 0.5  # the part of the grid's width, around its middle, where agents are
_INTERPOLATED = 0.01  # relative to the marginal costs of usual deviations: a residual beyond which the grid does not do


class LatticeEquilibrium(TradingEquilibrium):
    """The equilibrium of two agents with power costs. Price, its drift and volatility, and positions are random."""

    market: Parameters
    times: Float[Array, " nodes"]
    limit: Figures
    error: Float[Array, ""]
    residual: Float[Array, ""]
    status: Status

    def simulate(self, key, paths):
        """Random paths on the lattice: W moves by ±√D in each step."""
        return _along(self.market, self.times, jax.random.bernoulli(key, shape=(paths, self.times.size - 1)))

    def along(self, increments):
        """Paths along increments of W that are ±√D each (paths, steps)."""
        increments = self._require_lattice_moves(increments)
        farthest = np.max(np.abs(np.cumsum(np.sign(increments), axis=1)), initial=0) if not is_traced(increments) else 0
        if farthest > reach(self.times.size - 1):
            raise EquilibriumError(
                f"increments take W {farthest:.0f} moves away, beyond {_REACH:.0f} standard deviations: give likelier ones"
            )
        return _along(self.market, self.times, increments > 0)


def reach(steps: int) -> int:
    """How many moves away from the start the lattice goes."""
    return min(steps, math.ceil(_REACH * math.sqrt(steps)))


class Table(NamedTuple):
    """What is known at one time for each value of W: positions ψ before the trade, and there Y, R and agents' welfare."""

    position: Float[Array, "levels points"]
    values: Float[Array, "levels points columns"]


class Lattice(eqx.Module):
    """Two agents on a lattice with steps of a length."""

    risk_aversion: Float[Array, " agents"]
    aggregate: Float[Array, ""]
    endowment: Float[Array, " agents"]
    trading_cost: Float[Array, ""]
    supply: Float[Array, ""]
    payoff: tuple
    step: Float[Array, ""]
    steps: int = eqx.field(static=True)
    power: float = eqx.field(static=True)

    @classmethod
    def of(cls, market, horizon, steps) -> "Lattice":
        risk_aversion, endowment, cost, supply, drift, volatility = (
            jnp.asarray(getattr(market, name), float)
            for name in ("risk_aversion", "endowment", "trading_cost", "supply", "payoff_drift", "payoff_volatility")
        )
        payoff = (drift * horizon, volatility)
        return cls(risk_aversion, market.aggregate, endowment, cost, supply, payoff, horizon / steps, steps, market.power)

    @property
    def mean_aversion(self):
        """c₂."""
        return jnp.mean(self.risk_aversion)

    @property
    def asymmetry(self):
        """ε."""
        return (self.risk_aversion[1] - self.risk_aversion[0]) / jnp.sum(self.risk_aversion)

    @property
    def middle(self) -> int:
        """The index of W = 0 among the levels."""
        return reach(self.steps)

    @property
    def levels(self) -> Float[Array, " levels"]:
        """The values of W: as many as there are steps, but none beyond `_REACH` standard deviations of W."""
        return jnp.sqrt(self.step) * jnp.arange(-self.middle, self.middle + 1)

    def riskless(self, shock):
        """−ξW/α, the position at which the first agent bears no risk, less its first one."""
        return -self.endowment[0] * shock / self.payoff[1]

    def grid(self) -> Float[Array, "levels points"]:
        """Positions ψ′ around the riskless ones, as far as deviations from them go."""
        nodes = jnp.sinh(_GRADING * jnp.linspace(-1.0, 1.0, _POINTS)) / jnp.sinh(_GRADING)
        return self.riskless(self.levels)[:, None] + self._width() * nodes[None]

    def _width(self):
        """`_REACH` standard deviations of a deviation, and how far volatility, which differs from α, moves the middle.

        Deviations are about as large as in the stationary market with small costs, or as risk without any trade.
        """
        q, alpha, horizon = self.power, self.payoff[1], self.step * self.steps
        c = jnp.abs(self.endowment[0]) / alpha
        settled = scale(self.trading_cost, q, c, self.mean_aversion, alpha)
        settled = jnp.where(c > 0, settled, 1.0)  # without risks there is no trade, and any width serves
        untraded = jnp.where(c > 0, c * jnp.sqrt(horizon), 1.0)
        frictional = jnp.abs(self.asymmetry) * c * self.trading_cost * (c**2 / (2 * settled)) ** (q - 1) * 2 / (q * settled)
        moved = c * jnp.sqrt(horizon) * frictional / (alpha + frictional)
        return jax.lax.stop_gradient(_REACH * (jnp.minimum(settled, untraded) + moved))

    def rate(self, marginal):
        """The first agent's trading rate at its marginal cost."""
        scaled = marginal / self.trading_cost
        return scaled if self.power == 2.0 else jnp.sign(scaled) * jnp.abs(scaled) ** (1.0 / (self.power - 1.0))

    def last(self) -> Table:
        """At the horizon: nothing is left to trade for."""
        grid = self.grid()
        return Table(grid, jnp.zeros((*grid.shape, 4)))

    def back(self, later: Table, held: Float[Array, "levels points"]):
        """One step back, for the positions that are `held` over it: the table before the trade, and σ."""
        up, down = self._neighbours(later)
        above, below = jax.vmap(interpolate)(*up, held), jax.vmap(interpolate)(*down, held)
        mean, change = 0.5 * (above + below), (above - below) / (2.0 * jnp.sqrt(self.step))
        sigma = self.payoff[1] - self.aggregate * self.supply * change[..., 1] - self.asymmetry * change[..., 0]
        shock = self.levels[:, None]
        exposed = sigma * held + self.endowment[0] * shock
        marginal = mean[..., 0] - self.step * self.mean_aversion * sigma * exposed
        rate = self.rate(marginal)
        drift = self.aggregate * self.supply * sigma**2 - self.asymmetry * self.mean_aversion * sigma * exposed
        paid = self.trading_cost / self.power * jnp.abs(rate) ** self.power

        def gained(risk_aversion, endowment, moved):
            position = self.aggregate * self.supply / risk_aversion + moved
            return drift * position - 0.5 * risk_aversion * (sigma * position + endowment * shock) ** 2 - paid

        agents = zip(self.risk_aversion, self.endowment, (held, -held), strict=True)
        welfare = mean[..., 2:] + self.step * jnp.stack([gained(*agent) for agent in agents], axis=-1)
        known = jnp.stack([marginal, mean[..., 1] + self.step * sigma**2], axis=-1)
        return Table(held - self.step * rate, jnp.concatenate([known, welfare], axis=-1)), sigma

    def _neighbours(self, table: Table):
        """The tables a move of W above and below; beyond the ends of the lattice, the end's own, moved along."""
        move = self.riskless(jnp.sqrt(self.step))

        def shifted(by):
            first, last = table.position[:1] - move, table.position[-1:] + move
            padded = jnp.concatenate([first, table.position, last])
            values = jnp.concatenate([table.values[:1], table.values, table.values[-1:]])
            return padded[1 + by :][: table.position.shape[0]], values[1 + by :][: table.position.shape[0]]

        return shifted(1), shifted(-1)

    def price(self, shock, marginal, variance):
        """S from W, Y and R."""
        return self.payoff[0] + self.payoff[1] * shock - self.aggregate * self.supply * variance - self.asymmetry * marginal


def interpolate(nodes: Float[Array, " points"], values: Float[Array, "points columns"], at: Float[Array, " wanted"]):
    """Cubic Hermite interpolation with second-order slopes on uneven increasing nodes, linear beyond: (wanted, columns)."""
    gap = jnp.diff(nodes)[:, None]
    secant = jnp.diff(values, axis=0) / gap
    inner = (gap[1:] * secant[:-1] + gap[:-1] * secant[1:]) / (gap[1:] + gap[:-1])
    slope = jnp.concatenate([2 * secant[:1] - inner[:1], inner, 2 * secant[-1:] - inner[-1:]])
    left = jnp.clip(jnp.searchsorted(nodes, at) - 1, 0, nodes.size - 2)
    width = gap[left]
    t = ((at - nodes[left]) / width[:, 0])[:, None]
    s = jnp.clip(t, 0.0, 1.0)
    inside = (
        (1 + 2 * s) * (1 - s) ** 2 * values[left]
        + s * (1 - s) ** 2 * width * slope[left]
        + s**2 * (3 - 2 * s) * values[left + 1]
        + s**2 * (s - 1) * width * slope[left + 1]
    )
    return inside + (t - s) * width * jnp.where(t < 0, slope[left], slope[left + 1])


@partial(jax.jit, static_argnames="steps")
def solve_lattice(market, horizon, steps) -> LatticeEquilibrium:
    """The equilibrium with `steps` steps, and the limit of continuous trading."""
    limit, error = continuous_limit([figures(market, horizon, steps * 2**level) for level in range(_LEVELS)], horizon)
    lattice = Lattice.of(market, horizon, steps)
    residual, usual = _residual(lattice)
    return LatticeEquilibrium(
        market=market,
        times=jnp.linspace(0.0, 1.0, steps + 1) * horizon,
        limit=limit,
        error=error,
        residual=residual,
        status=status_of(
            market,
            limit,
            error,
            (market.unshared > BALANCED, Status.risks_not_offset),
            (~(residual <= _INTERPOLATED * usual), Status.steps_too_coarse),
        ),
    )


@partial(jax.jit, static_argnames="steps")
def figures(market, horizon, steps) -> Figures:
    """Those of trading at `steps` steps."""
    lattice = Lattice.of(market, horizon, steps)
    grid = lattice.grid()
    start = lattice.last(), jnp.full_like(grid, lattice.payoff[1])
    (table, sigma), _ = jax.lax.scan(lambda later, _: (lattice.back(later[0], grid), None), start, None, length=steps)
    marginal, variance, *welfare = _at(table.position, table.values, lattice)
    (now,) = _at(table.position, sigma[..., None], lattice)
    drift = lattice.aggregate * lattice.supply * now**2
    # Where W = 0 there is no risk at the first position: what is traded of a deviation of the usual size from it.
    before, after = table.position[lattice.middle], grid[lattice.middle]
    usual = jnp.abs(after) <= jnp.max(after) / _REACH
    traded = jnp.max(jnp.where(usual & (after != 0), 1.0 - after / jnp.where(before == 0, 1.0, before), 0.0))
    return Figures(lattice.price(0.0, marginal, variance), drift, now, jnp.stack(welfare), traded)


def _at(positions, values, lattice):
    """The columns at W = 0 and the first position, from which the first agent has not moved."""
    return interpolate(positions[lattice.middle], values[lattice.middle], jnp.zeros(1))[0]


def _residual(lattice: Lattice):
    """The largest |Y − Y computed anew| half-way between the nodes, where agents are; and the largest |Y| there."""
    grid = lattice.grid()
    part = math.asinh(_INNER * math.sinh(_GRADING)) / _GRADING
    inner = slice(int(0.5 * (1 - part) * _POINTS), int(0.5 * (1 + part) * _POINTS))

    def back(later, _):
        table, _ = lattice.back(later, grid)
        between = 0.5 * (table.position[:, 1:] + table.position[:, :-1])[:, inner]
        found = jax.vmap(interpolate)(table.position, table.values, between)[..., 0]
        anew, _ = lattice.back(later, between + lattice.step * lattice.rate(found))
        return table, (jnp.max(jnp.abs(found - anew.values[..., 0])), jnp.max(jnp.abs(found)))

    off, sizes = jax.lax.scan(back, lattice.last(), None, length=lattice.steps)[1]
    return jnp.max(off), jnp.maximum(jnp.max(sizes), 1e-300)


@jax.jit
def _along(market, times, up) -> Simulation:
    """Along moves of W, `up` (paths, steps) or down."""
    paths, steps = up.shape
    lattice = Lattice.of(market, times[-1], steps)
    grid = lattice.grid()

    def back(later, _):
        table, _ = lattice.back(later, grid)
        return table, Table(table.position, table.values[..., :2])

    _, tables = jax.lax.scan(back, lattice.last(), None, length=steps, reverse=True)
    moves = 2 * up.T.astype(int) - 1

    def forward(state, row):
        level, deviation = state
        table, move = row

        def now(level, deviation):
            return interpolate(table.position[level], table.values[level], deviation[None])[0]

        marginal, variance = jax.vmap(now)(level, deviation).T
        rate = lattice.rate(marginal)
        shock = lattice.levels[level]
        after = jnp.clip(level + move, 0, 2 * lattice.middle), deviation + lattice.step * rate
        return after, (shock, lattice.price(shock, marginal, variance), deviation, rate)

    start = jnp.full(paths, lattice.middle), jnp.zeros(paths)
    (level, deviation), seen = jax.lax.scan(forward, start, (tables, moves))
    shock = lattice.levels[level]
    ends = shock, lattice.price(shock, 0.0, 0.0), deviation
    shocks, prices, deviations = (jnp.concatenate([path, end[None]]).T for path, end in zip(seen, ends, strict=False))
    both = jnp.stack([deviations, -deviations], axis=-1)
    rates = seen[3].T
    return Simulation(times, shocks, prices, market.initial[None, None] + both, jnp.stack([rates, -rates], axis=-1))
