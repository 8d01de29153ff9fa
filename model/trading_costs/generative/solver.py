"""What a training gives: the equilibrium of a market, or a surrogate for a family of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from walras.model.equilibrium import EquilibriumError, Status, all_finite, checked, first_failure, require_double_precision
from walras.model.trading_costs.equilibrium import Figures, Simulation, TradingEquilibrium, require_horizon, require_steps
from walras.model.trading_costs.generative.family import Family
from walras.model.trading_costs.generative.game import Game
from walras.model.trading_costs.generative.link import Step, along, gathered, link, walk
from walras.model.trading_costs.generative.networks import Networks
from walras.model.trading_costs.generative.residuals import Residuals, residuals
from walras.model.trading_costs.generative.training import Training, TrainingProgress, train
from walras.model.trading_costs.parameters import Parameters
from walras.progress import Bar, shown

# Beyond these networks are not trained: the estimated error of figures at time 0, and the root mean square of what agents'
# first-order conditions miss, relative to the usual size of marginal costs.
_LARGEST_ERROR, _LARGEST_GAP = 0.02, 0.05
_HELD_OUT = 16  # markets of a family on which its training is judged
_JUDGES = 4096  # paths from which errors are estimated
_MOST_TRADED = 1.0  # steps longer than agents take to trade say little about continuous trading

type Report = bool | Callable[[TrainingProgress], None]


def solve_generative(
    market: Parameters,
    horizon: float,
    steps: int,
    *,
    key: Array,
    training: Training | None = None,
    checkpoint: str | Path | None = None,
    progress: Report = False,
    throw: bool = True,
) -> "GenerativeEquilibrium":
    """The equilibrium of any number of agents with costs of any power, one asset, in which they trade at `steps` equal steps.

    By networks that are trained for it (see `Training`), which takes minutes. `checkpoint`: a file that the training is
    written to and goes on from. `progress`: True for a bar, or a function of `TrainingProgress`. Raises `EquilibriumError`
    for arguments that are not solved, and, unless `throw=False`, when the networks' errors are still large; `status` tells.
    """
    surrogate = _trained(market, market, horizon, steps, key, training, checkpoint, progress)
    return checked(surrogate.equilibrium(market, key=jax.random.fold_in(key, 1)), throw)


def train_surrogate(
    low: Parameters,
    high: Parameters,
    horizon: float,
    steps: int,
    *,
    key: Array,
    training: Training | None = None,
    checkpoint: str | Path | None = None,
    progress: Report = False,
) -> "Surrogate":
    """One training for all markets between `low` and `high`, as `solve_generative`.

    Each field that differs between the two moves along the segment between its values, all its entries together, and
    geometrically where no entry changes its sign. A surrogate whose errors, as estimated for markets drawn anew, are large
    says so in the `status` of all its figures.
    """
    surrogate = _trained(low, high, horizon, steps, key, training, checkpoint, progress)
    held_out = surrogate.held_out(jax.random.fold_in(key, 1), _HELD_OUT if surrogate.family.varying else 1)
    trained = jnp.all(_small(held_out.error, held_out.gap))
    return eqx.tree_at(lambda tree: tree.trained, surrogate, trained)


def _small(error, gap):
    """Whether networks with such errors are trained; those that are not numbers are not small."""
    return (error <= _LARGEST_ERROR) & (gap <= _LARGEST_GAP)


def _trained(low, high, horizon, steps, key, training, checkpoint, progress) -> "Surrogate":
    require_double_precision()
    if isinstance(horizon, Tracer):
        raise EquilibriumError("horizon is known only to a JAX transformation: train outside it, on a plain number")
    require_horizon(horizon)
    require_steps(steps)
    if not (training is None or isinstance(training, Training)):
        raise EquilibriumError(f"training is {training!r}: give a Training")
    if not isinstance(progress, bool | Callable):
        raise EquilibriumError(f"progress is {progress!r}: give True, False, or a function of TrainingProgress")
    family, training = Family.between(low, high), Training() if training is None else training
    run = partial(train, family, float(horizon), int(steps), training, key, checkpoint)
    with shown(progress, lambda: Bar("training", _note)) as report:
        networks = run(report)
    return Surrogate(family, networks, jnp.asarray(horizon, float), jnp.asarray(False), int(steps))


def _note(report: TrainingProgress) -> str:
    return f"losses {report.generator:.1e}, {report.discriminator:.1e}"


class SurrogateFigures(NamedTuple):
    """Price, drift and volatility at time 0, as of any equilibrium."""

    price0: Float[Array, ""]
    drift0: Float[Array, ""]
    volatility0: Float[Array, ""]
    status: Status


class HeldOut(NamedTuple):
    """Of markets that were drawn anew from the family: estimated relative errors of figures at time 0, what first-order
    conditions miss relative to marginal costs, both (markets,), and those markets.
    """

    error: Float[Array, " markets"]
    gap: Float[Array, " markets"]
    markets: Parameters


class Surrogate(eqx.Module):
    """Networks for all markets of a family: call it with one to have its figures.

    They are differentiable in the parameters that differ within the family, along its segments; of other directions networks
    know nothing, and derivatives there mean nothing. `trained`: whether errors in the family were found small. A market outside
    the family, or one whose fields are not all on their segments, has a `status` that says so.
    """

    family: Family
    networks: Networks
    horizon: Float[Array, ""]
    trained: Bool[Array, ""]
    steps: int = eqx.field(static=True)

    def __call__(self, market: Parameters) -> SurrogateFigures:
        game, place = self._placed(market)
        price, drift, volatility = _figures(market, link(self.networks, game, place, 0, *_start(game)), self.horizon)
        status = first_failure(
            (~self.family.contains(market), Status.outside_family),
            (~all_finite((price, drift, volatility)), Status.not_finite),
            (~self.trained, Status.not_trained),
        )
        return SurrogateFigures(price, drift, volatility, status)

    def equilibrium(self, market: Parameters, *, key: Array) -> "GenerativeEquilibrium":
        """All of the equilibrium of one market; its errors and welfare are estimated on random paths."""
        game, place = self._placed(market)
        limit, error, gap, residual = _judged(self.networks, market, game, place, self.horizon, key)
        status = first_failure(
            (~self.family.contains(market), Status.outside_family),
            (~all_finite(limit), Status.not_finite),
            (~(limit.traded <= _MOST_TRADED), Status.steps_too_coarse),
            (~_small(error, gap), Status.not_trained),
        )
        times = jnp.linspace(0.0, 1.0, self.steps + 1) * self.horizon
        return GenerativeEquilibrium(market, times, limit, error, residual, status, self.networks, game, place)

    def held_out(self, key: Array, markets: int = 32) -> HeldOut:
        """How large errors are, as estimated, in markets that training did not see."""
        if markets < 1:
            raise EquilibriumError(f"markets is {markets}: give a number of at least 1")
        place_key, path_key = jax.random.split(key)
        places = jax.random.uniform(place_key, (markets, len(self.family.varying)), minval=-1.0, maxval=1.0)

        def one(row):
            place, key = row
            market = self.family.at(place)
            return _judged(self.networks, market, *self._placed(market), self.horizon, key)[1:3]

        errors, gaps = jax.lax.map(one, (places, jax.random.split(path_key, markets)))
        return HeldOut(errors, gaps, jax.vmap(self.family.at)(places))

    def _placed(self, market):
        self._require_agents(market)
        place = self.family.place(market).astype(jnp.float32)
        return Game.of(market, self.horizon, self.steps), place

    def _require_agents(self, market):
        if not isinstance(market, Parameters):
            raise EquilibriumError(f"the market is {market!r}: give a TradingCosts")
        shape, wanted = jnp.shape(market.endowment), jnp.shape(self.family.low.endowment)
        if shape != wanted or market.power != self.family.low.power:
            raise EquilibriumError(
                f"the market has endowments of shape {shape} and power {market.power}: the networks were trained for "
                f"{wanted} and {self.family.low.power}"
            )


class GenerativeEquilibrium(TradingEquilibrium):
    """An equilibrium as its networks have it. Price, its drift and volatility, and positions are random.

    Unlike that of other solvers, its figures at time 0 are those of trading at these steps. `error` is how much the gaps of
    the price on random paths would have price and volatility otherwise, relative (that of the volatility twice, since drift
    has its square); `residual` the root mean square, over those paths, of how much a step's first-order conditions miss
    (money / unit). `residuals` is an account by simulation onwards.
    """

    market: Parameters
    times: Float[Array, " nodes"]
    limit: Figures
    error: Float[Array, ""]
    residual: Float[Array, ""]
    status: Status
    networks: Networks
    game: Game
    place: Float[Array, " places"]

    def simulate(self, key, paths):
        """Random paths on the lattice: W moves by ±√D in each step."""
        return self._along(jax.random.rademacher(key, (paths, self.game.steps), jnp.float32))

    def along(self, increments):
        """Paths along increments of W that are ±√D each (paths, steps)."""
        increments = self._require_lattice_moves(increments)
        return self._along(jnp.sign(increments).astype(jnp.float32))

    def residuals(self, key: Array, states: int = 64, paths: int = 1024) -> Residuals:
        """Clearing, the price's end and agents' first-order conditions, by `paths` simulations from each of fresh `states`."""
        if states < 1 or paths < 4 or paths % 2:
            raise EquilibriumError(
                f"states is {states} and paths {paths}: give at least one state, and an even number from 4 on"
            )
        return residuals(self.networks, self.game, self.place, key, states, paths)

    def _along(self, moves) -> Simulation:
        return _simulation(self.networks, self.market, self.game, self.place, self.times, moves)


def _start(game: Game):
    return jnp.zeros((), jnp.float32), jnp.zeros_like(game.initial)


def _figures(market, first: Step, horizon):
    price = jnp.asarray(market.payoff_drift, float) * horizon + first.excess
    return price, first.drift.astype(float), first.volatility.astype(float)


@eqx.filter_jit
def _judged(networks, market, game: Game, place, horizon, key):
    """From random paths: figures, their relative error, and the root mean square of what first-order conditions miss, gathered
    and relative to marginal costs, and of single steps.
    """
    moves = jax.random.rademacher(key, (_JUDGES, game.steps), jnp.float32)

    def one(moves):
        shock, moved = walk(networks, game, place, moves)
        found = along(networks, game, place, (shock, moved))
        held = game.initial[None] + found.moved
        exposed = jax.vmap(game.exposure)(found.volatility, found.moved, shock)
        paid = game.cost / game.power * jnp.abs(found.rate) ** game.power
        earned = found.drift[:, None] * held - 0.5 * game.risk_aversion[None] * exposed**2 - paid
        marginal, price = gathered(game, found)
        missed = jnp.stack([jnp.mean(jnp.square(marginal)), jnp.mean(jnp.square(found.marginal_gap))])
        now = shock / jnp.sqrt(game.horizon)
        controls = jnp.stack([jnp.mean(now), now[-1], jnp.mean(now**2), now[-1] ** 2])
        return jnp.sum(earned, axis=0) * game.step, controls, price[0], price[min(1, game.steps - 1)], missed

    worth, controls, start, second, missed = jax.lax.map(one, moves, batch_size=256)
    price, drift, volatility = _figures(market, link(networks, game, place, 0, *_start(game)), horizon)
    # What is gathered from the second date on, less at down than at up, is missing from the volatility.
    slope = jnp.mean(moves[:, 0] * second) / game.move
    scale = jnp.maximum(jnp.abs(drift) * horizon, 0.01 * volatility * jnp.sqrt(horizon))
    error = jnp.maximum(jnp.abs(jnp.mean(start)) / scale, 2.0 * jnp.abs(slope) / volatility)
    before = (game.steps - 1) / game.steps
    welfare = _controlled(worth, controls, jnp.array([0.0, 0.0, 0.5 * before, before], jnp.float32))
    figures = Figures(price, drift, volatility, welfare.astype(float), game.step / game.trading_time)
    gap, residual = jnp.sqrt(jnp.mean(missed, axis=0)).astype(float)
    return figures, error.astype(float), gap / game.marginal, residual


def _controlled(values, controls, expected):
    """The mean of `values` (paths, columns), with `controls` (paths, controls), of known means, as control variates."""
    known = jnp.concatenate([jnp.ones_like(controls[:, :1]), controls - expected[None]], axis=1)
    return jnp.linalg.lstsq(known, values)[0][0]


@eqx.filter_jit
def _simulation(networks, market, game: Game, place, times, moves) -> Simulation:
    def one(moves):
        shock, moved = walk(networks, game, place, moves)
        found = along(networks, game, place, (shock, moved))
        excess = jnp.append(found.excess, jnp.zeros((), jnp.float32))
        moved = jnp.concatenate([moved, found.moved[-1:]]).astype(float)
        return excess.astype(float), moved, found.rate.astype(float)

    excess, moved, rate = jax.vmap(one)(moves)
    shock = jnp.sqrt(times[1] - times[0]) * jnp.cumsum(jnp.pad(moves, ((0, 0), (1, 0))).astype(float), axis=1)
    payoff = jnp.asarray(market.payoff_drift, float) * times[-1]
    price = payoff + jnp.asarray(market.payoff_volatility, float) * shock + excess
    return Simulation(times, shock, price, market.initial[None, None] + moved, rate)
