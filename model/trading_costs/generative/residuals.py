"""An account of a trained market by simulation onwards from fresh states.

It takes from the link what drift and volatility a step has, and nothing of what was trained for: no gap, and no value of a
later state, but what is earned until the end.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.trading_costs.generative.clearing import rate
from walras.model.trading_costs.generative.game import Game
from walras.model.trading_costs.generative.link import Step, link, walk
from walras.model.trading_costs.generative.networks import Networks

_DATES = (0.0, 0.25, 0.5, 0.75)  # of the horizon, at which states are taken


class Residuals(NamedTuple):
    """Root mean squares over states, each relative to the size of what it is of.

    `first_order` (agents,): what trading faster costs each agent, less what it earns by simulation, over the root mean square
    of all agents' costs; `clearing`: the sum of the rates at which agents would trade for those earnings, over the sum of
    their sizes; `terminal`: where the price's drift and volatility take it from S₀, less βT + αW_T, over α√T. `noise` is the
    standard error by simulation, of `first_order`: residuals below it say no more.
    """

    first_order: Float[Array, " agents"]
    clearing: Float[Array, ""]
    terminal: Float[Array, ""]
    noise: Float[Array, ""]


@eqx.filter_jit
def residuals(networks: Networks, game: Game, place, key, states: int, paths: int) -> Residuals:
    """By `paths` antithetic continuations from each of `states` states at each of four dates."""
    reach_key, on_key, end_key = jax.random.split(key, 3)
    moves = jax.random.rademacher(reach_key, (states, game.steps), jnp.float32)
    shock, moved = jax.vmap(lambda row: walk(networks, game, place, row))(moves)
    found = [
        _at_date(networks, game, place, date, shock[:, date], moved[:, date], jax.random.fold_in(on_key, date), paths)
        for date in sorted({int(share * game.steps) for share in _DATES})
    ]
    costs, earned, spread = (jnp.concatenate(parts) for parts in zip(*found, strict=True))
    size = jnp.sqrt(jnp.mean(costs**2))
    implied = rate(earned, game.cost, game.power)
    total, gross = jnp.sum(implied, axis=-1), jnp.sum(jnp.abs(implied), axis=-1)
    first = jnp.zeros((), jnp.float32), jnp.zeros_like(game.initial)
    signs = jax.random.rademacher(end_key, (paths, game.steps), jnp.float32)
    start = link(networks, game, place, 0, *first).excess
    ends = jax.vmap(lambda row: _onwards(networks, game, place, 0, *first, row)[1])(signs)
    result = Residuals(
        first_order=jnp.sqrt(jnp.mean((costs - earned) ** 2, axis=0)) / size,
        clearing=jnp.sqrt(jnp.mean(total**2) / jnp.mean(gross**2)),
        terminal=jnp.sqrt(jnp.mean((start + ends) ** 2)) / (game.volatility * jnp.sqrt(game.horizon)),
        noise=jnp.sqrt(jnp.mean(spread**2)) / size,
    )
    return jax.tree.map(lambda number: number.astype(float), result)


def _at_date(networks, game, place, date, shock, moved, key, paths):
    """Marginal costs, what is earned by simulation, and its standard error, each (states, agents)."""
    half = jax.random.rademacher(key, (paths // 2, game.steps - date), jnp.float32)
    moves = jnp.concatenate([half, -half])

    def one(state):
        shock, moved = state
        cost = networks.marginal_cost(game, place, date, shock, moved)
        earned = jax.vmap(lambda row: _onwards(networks, game, place, date, shock, moved, row)[0])(moves)
        pairs = 0.5 * (earned[: paths // 2] + earned[paths // 2 :])
        return cost, jnp.mean(pairs, axis=0), jnp.std(pairs, axis=0) / jnp.sqrt(paths // 2)

    return jax.lax.map(one, (shock, moved))


def _onwards(networks, game: Game, place, date, shock, moved, moves):
    """Along moves from a date: each agent's Σ (μ − γσ(σφ + ξW))D, and what the price gains beyond α ΔW."""

    def forward(state, row):
        shock, moved, earned, gained = state
        at, move = row
        step: Step = link(networks, game, place, at, shock, moved)
        risk = game.risk_aversion * step.volatility * game.exposure(step.volatility, step.moved, shock)
        earned = earned + game.step * (step.drift - risk)
        gained = gained + game.step * step.drift + (step.volatility - game.volatility) * move * game.move
        return (shock + move * game.move, step.moved, earned, gained), None

    start = shock, moved, jnp.zeros_like(game.initial), jnp.zeros((), jnp.float32)
    (_, _, earned, gained), _ = jax.lax.scan(forward, start, (date + jnp.arange(moves.size), moves))
    return earned, gained
