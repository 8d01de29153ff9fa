"""Estimates of how a bidder's mean utility moves with the parameters of its own policy, all rivals' policies held fixed.

Each is called with the game, policies, a key and how many games may be evaluated, and returns the gradient of each network's
mean utility, and that utility (groups,).
"""

from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.auctions.game.policies import Policies
from walras.model.equilibrium import EquilibriumError


class Estimator(Protocol):
    """What `learn` asks of an estimator."""

    def __call__(
        self, game: SmoothedAuction, policies: Policies, key: Array, batch: int
    ) -> tuple[Policies, Float[Array, " groups"]]: ...


class FirstOrder(eqx.Module):
    """The derivative of utilities in the smoothed game along each path."""

    def __call__(self, game, policies, key, batch):
        values = game.sample(key, batch)

        def utility(policies):
            bids = policies(values)
            found = policies.mean(game.utilities(values, bids, jax.lax.stop_gradient(bids)))
            return jnp.sum(found), found

        gradient, found = eqx.filter_grad(utility, has_aux=True)(policies)
        return gradient, found


class Reinforce(eqx.Module):
    """The score function in the exact game, all bidders adding normal noise to their bids; the mean utility is the baseline.

    `noise` is its standard deviation relative to values' interquartile range.
    """

    noise: float = 0.05

    def __check_init__(self):
        _require_positive(self.noise)

    def __call__(self, game, policies, key, batch):
        value_key, noise_key = jax.random.split(key)
        values = game.sample(value_key, batch)
        spread = jnp.broadcast_to(jnp.asarray(policies.spread, values.dtype)[:, None], (game.bidders, game.items))
        deviation = jnp.broadcast_to(self.noise * spread, values.shape)
        noise = jax.random.normal(noise_key, values.shape, values.dtype)
        bids = jax.lax.stop_gradient(policies(values) + deviation * noise)
        utilities = game.exact_utilities(values, jax.nn.relu(bids))
        mean = policies.mean(utilities)
        advantage = (utilities - jnp.broadcast_to(mean, utilities.shape))[..., None]

        def surrogate(policies):
            score = -0.5 * ((bids - policies(values)) / deviation) ** 2
            return jnp.sum(policies.mean(jnp.sum(advantage * score, axis=-1)))

        return eqx.filter_grad(surrogate)(policies), mean


class Evolution(eqx.Module):
    """Evolution strategies in the exact game: parameters are perturbed at random, forwards and backwards on the same values.

    The difference of the two, in which any baseline cancels, weighs the perturbation. `population` is how many perturbed
    policies there are, among whom the games of a batch are divided, and `noise` the standard deviation of parameters.
    """

    population: int = eqx.field(static=True, default=32)
    noise: float = 0.05

    def __check_init__(self):
        _require_positive(self.noise)
        if self.population < 2 or self.population % 2:
            raise EquilibriumError(f"population is {self.population}: give an even number from 2 on")

    def __call__(self, game, policies, key, batch):
        value_key, noise_key = jax.random.split(key)
        pairs, games = self.population // 2, batch // self.population
        if games < 1:
            raise EquilibriumError(f"batch is {batch}: give at least one game for each of a population of {self.population}")
        values = game.sample(value_key, pairs * games).reshape(pairs, games, game.bidders, game.items)
        parameters, static = eqx.partition(policies, eqx.is_inexact_array)
        flat, as_parameters = ravel_pytree(parameters)
        noise = jax.vmap(as_parameters)(jax.random.normal(noise_key, (pairs, flat.size), flat.dtype))

        def utility(values, rivals, noise, size):
            moved = jax.tree.map(lambda leaf, by: leaf + size * by, parameters, noise)
            bids = eqx.combine(moved, static)(values)
            return policies.mean(game.exact_utilities(values, bids, rivals))

        def one(values, noise):
            rivals = policies(values)
            forwards, backwards = (utility(values, rivals, noise, sign * self.noise) for sign in (1.0, -1.0))
            return (forwards - backwards) / (2.0 * self.noise), 0.5 * (forwards + backwards)

        slopes, found = jax.vmap(one)(values, noise)
        gradient = jax.tree.map(lambda by: jnp.mean(jax.vmap(jax.vmap(jnp.multiply))(slopes, by), axis=0), noise)
        return gradient, jnp.mean(found, axis=0)


def _require_positive(noise):
    if not 0.0 < noise < float("inf"):
        raise EquilibriumError(f"noise is {noise}: give a positive number, such as 0.05")
