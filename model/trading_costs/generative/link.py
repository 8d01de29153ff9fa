"""The reinforcement link: what agents' first-order conditions make of the generator's and the discriminator's proposals."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.trading_costs.generative.clearing import clearing_level, rate
from walras.model.trading_costs.generative.game import Game
from walras.model.trading_costs.generative.networks import Networks

# Positions of simulated paths are kept within so many usual deviations of W's, whatever an untrained generator proposes.
_FARTHEST = 6.0


class Step(NamedTuple):
    """What is proposed at a date and state, and by how much agents' first-order conditions would have it differ.

    The gaps are to be added to `marginal` and `excess` for agents to want the rates, and for them to clear at the price.
    """

    marginal: Float[Array, " agents"]
    rate: Float[Array, " agents"]
    moved: Float[Array, " agents"]
    excess: Float[Array, ""]
    volatility: Float[Array, ""]
    drift: Float[Array, ""]
    marginal_gap: Float[Array, " agents"]
    price_gap: Float[Array, ""]


def link(networks: Networks, game: Game, place, date, shock, moved) -> Step:
    """One step from a date 0, …, steps − 1 and state; `moved` (agents,) is held before the trade, `.moved` after it."""
    marginal = networks.marginal_cost(game, place, date, shock, moved)
    excess = networks.excess_price(game, place, date, shock, moved)
    trading = rate(marginal, game.cost, game.power)
    after = moved + game.step * trading

    def later(move):
        state = game, place, date + 1, shock + move * game.move, after
        return networks.marginal_cost(*state), networks.excess_price(*state)

    (marginal_up, marginal_down), (excess_up, excess_down) = jax.vmap(later)(jnp.array([1.0, -1.0], jnp.float32))
    volatility = game.volatility + (excess_up - excess_down) / (2.0 * game.move)
    risk = game.risk_aversion * volatility * game.exposure(volatility, after, shock)
    values = 0.5 * (marginal_up + marginal_down) - game.step * risk
    level = clearing_level(values, game.power)
    return Step(
        marginal=marginal,
        rate=trading,
        moved=after,
        excess=excess,
        volatility=volatility,
        drift=-level / game.step,
        marginal_gap=values - level - marginal,
        price_gap=0.5 * (excess_up + excess_down) + level - excess,
    )


def walk(networks: Networks, game: Game, place, moves: Float[Array, " steps"]):
    """The states W (steps,) and positions less the first (steps, agents) at the start of each step, W moving by ±√D."""
    reach = _FARTHEST * jnp.maximum(jnp.max(jnp.abs(game.per_shock)) * jnp.sqrt(game.horizon), game.deviation)

    def forward(state, row):
        shock, moved = state
        date, move = row
        trading = rate(networks.marginal_cost(game, place, date, shock, moved), game.cost, game.power)
        after = jnp.clip(moved + game.step * trading, -reach, reach)
        return (shock + move * game.move, after), (shock, moved)

    start = jnp.zeros((), jnp.float32), jnp.zeros_like(game.initial)
    _, states = jax.lax.scan(forward, start, (jnp.arange(game.steps), moves))
    return states


def along(networks: Networks, game: Game, place, states) -> Step:
    """The link at the states of one path, each entry with a first axis (steps,)."""
    return jax.vmap(partial(link, networks, game, place))(jnp.arange(game.steps), *states)


def gathered(game: Game, found: Step):
    """The gaps gathered from each date on, of marginal costs (steps, agents) and the price (steps,), one path.

    Trading does away with a gap within the time that agents take to trade, and so later ones count for less; the price's
    remain.
    """
    kept = jnp.exp(-game.step / game.trading_time)

    def back(later, gap):
        total = gap + kept * later
        return total, total

    _, marginal = jax.lax.scan(back, jnp.zeros_like(found.marginal_gap[0]), found.marginal_gap, reverse=True)
    return marginal, jnp.cumsum(found.price_gap[::-1])[::-1]
