"""The generator and the discriminator."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.trading_costs.generative.clearing import clearing_level
from walras.model.trading_costs.generative.game import Game


class Network(eqx.Module):
    """a(t, θ) + B(t, θ) x + g(t, x, θ): affine in the state x with coefficients that vary, which quadratic costs need, plus the
    rest. It is nothing at first.
    """

    affine: eqx.nn.MLP
    rest: eqx.nn.MLP
    outputs: int = eqx.field(static=True)

    def __init__(self, states: int, places: int, outputs: int, width: int, depth: int, key):
        one, other = jax.random.split(key)
        options = {"width_size": width, "depth": depth, "activation": jnp.tanh, "dtype": jnp.float32}
        self.affine = _silent(eqx.nn.MLP(1 + places, outputs * (1 + states), key=one, **options))
        self.rest = _silent(eqx.nn.MLP(1 + places + states, outputs, key=other, **options))
        self.outputs = outputs

    def __call__(self, time: Float[Array, ""], place: Float[Array, " places"], state: Float[Array, " states"]):
        at = jnp.concatenate([time[None], place])
        coefficients = self.affine(at).reshape(self.outputs, -1)
        return coefficients[:, 0] + coefficients[:, 1:] @ state + self.rest(jnp.concatenate([at, state]))


def _silent(network: eqx.nn.MLP) -> eqx.nn.MLP:
    def last(network):
        return network.layers[-1].weight, network.layers[-1].bias

    return eqx.tree_at(last, network, replace_fn=jnp.zeros_like)


class Networks(eqx.Module):
    """Both, for all markets of a family; `place` (places,) between -1 and 1 says where a market is in it."""

    generator: Network
    discriminator: Network

    def __init__(self, agents: int, places: int, width: int, depth: int, key):
        one, other = jax.random.split(key)
        self.generator = Network(1 + agents, places, agents, width, depth, one)
        self.discriminator = Network(1 + agents, places, 1, width, depth, other)

    def marginal_cost(self, game: Game, place, date, shock, moved) -> Float[Array, " agents"]:
        """yⁿ at a date 0, …, steps, where W is `shock` and agents hold `moved` more than at first.

        Untrained, it is that of the leading order in small costs, by which agents trade their deviations away.
        """
        time, state = _seen(game, date, shock, moved)
        ramp = jnp.tanh((1.0 - time) * game.horizon / game.trading_time)
        values = game.marginal * ramp * (self.generator(time, place, state) - state[1:])
        return values - clearing_level(values, game.power)

    def excess_price(self, game: Game, place, date, shock, moved) -> Float[Array, ""]:
        """S − βT − αW."""
        time, state = _seen(game, date, shock, moved)
        return game.premium * (1.0 - time) * self.discriminator(time, place, state)[0]


def _seen(game: Game, date, shock, moved):
    """The time and the state (1 + agents,) as networks see them: W, and how far positions are from those without costs."""
    time = jnp.asarray(date, jnp.float32) / game.steps
    deviation = (moved - game.per_shock * shock) / game.deviation
    return time, jnp.concatenate([shock[None] / jnp.sqrt(game.horizon), deviation])
