"""How good policies are in the exact game, and how uncertain estimates of their gradients."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.auctions.game.estimators import Estimator
from walras.model.auctions.game.policies import Policies

# Values of each bidder that rivals' bids are known from, own values at which losses are, and bids among which the best is.
# Levels of values are midpoints, so that the error falls with the squares of all three; measured 5e-6 of the largest value.
_RIVAL_VALUES, _OWN_VALUES, _BIDS = 4096, 256, 1024
_GENERATOR = 2531  # of the lattice: odd, and near 4096 times the golden ratio

type Bids = Callable[[Array], Array]  # (…, bidders, items) of values to as many bids


class Evaluation(NamedTuple):
    """Of each bidder (bidders,), in the exact game.

    `utility_loss`: what the best response to rivals' policies would earn more on average; `utility`: what the bidder earns;
    `distance`: the root mean square over values (and items) of the difference from the known equilibrium, or not a number.
    """

    utility_loss: Float[Array, " bidders"]
    utility: Float[Array, " bidders"]
    distance: Float[Array, " bidders"]


@eqx.filter_jit
def evaluate_bids(game: SmoothedAuction, policies: Bids, equilibrium: Bids | None = None) -> Evaluation:
    """How far policies are from an equilibrium. `equilibrium`: the known bids, as a function of values, item by item.

    Without chance: values are a lattice of quantiles' midpoints. The best response is found on a grid of bids, item by item,
    as suits additive values that are independent over items.
    """
    values = _spread_out(game, _OWN_VALUES)
    bids = policies(values)
    ranked = jnp.sort(policies(_spread_out(game, _RIVAL_VALUES)), axis=0)
    rivals = jnp.stack([jnp.roll(ranked, -other, axis=1) for other in range(1, game.bidders)])
    over_items = jax.vmap(partial(_best_and_earned, game.pricing), in_axes=(1, 1, 2), out_axes=-1)
    best, earned = jax.vmap(over_items, in_axes=(1, 1, 2), out_axes=1)(values, bids, rivals)
    if equilibrium is None:
        distance = jnp.full(game.bidders, jnp.nan)
    else:
        distance = jnp.sqrt(jnp.mean((bids - equilibrium(values)) ** 2, axis=(0, 2)))
    loss = jnp.sum(jnp.mean(jnp.maximum(best - earned, 0.0), axis=0), axis=-1)
    return Evaluation(loss, jnp.sum(jnp.mean(earned, axis=0), axis=-1), distance)


def _spread_out(game: SmoothedAuction, count: int) -> Float[Array, "count bidders items"]:
    """Values of each bidder for each item at the midpoints of quantile levels, and spread evenly over combinations of items.

    A Korobov lattice; `count` must be a power of 2.
    """
    order = [np.arange(count) * pow(_GENERATOR, item, count) % count for item in range(game.items)]
    levels = (jnp.asarray(np.stack(order, axis=1), float) + 0.5) / count
    return game.values_at(jnp.broadcast_to(levels[:, None], (count, game.bidders, game.items))).astype(float)


def _best_and_earned(pricing: str, values, bids, rivals: Float[Array, "rivals ranks"]):
    """For one item: the mean utility of the best bid, and of the bids made, at each value, given rivals' bids in order."""
    tried = jnp.linspace(0.0, jnp.max(rivals), _BIDS)
    levels = (jnp.arange(rivals.shape[1]) + 0.5) / rivals.shape[1]
    wins = jnp.prod(jax.vmap(lambda ranked: jnp.interp(tried, ranked, levels, left=0.0, right=1.0))(rivals), axis=0)
    paid = tried * wins
    if pricing == "second":
        paid = paid - jnp.pad(jnp.cumsum(0.5 * (wins[1:] + wins[:-1])), (1, 0)) * tried[1]
    best = jnp.max(values[:, None] * wins[None] - paid[None], axis=1)
    won = jnp.interp(bids, tried, wins)
    return best, values * won - (bids * won if pricing == "first" else jnp.interp(bids, tried, paid))


class GradientVariance(NamedTuple):
    """Of estimates of a gradient: the sum over parameters of their variances, and the square of their mean's length."""

    variance: Float[Array, ""]
    squared_mean: Float[Array, ""]


@eqx.filter_jit
def gradient_variance(
    game: SmoothedAuction, policies: Policies, estimator: Estimator, *, key: Array, batch: int, repeats: int = 256
) -> GradientVariance:
    """How uncertain gradients are that are estimated from `batch` games each, found from `repeats` of them."""

    def one(key):
        gradient, _ = estimator(game, policies, key, batch)
        return ravel_pytree(gradient)[0].astype(float)

    gradients = jax.lax.map(one, jax.random.split(key, repeats))
    mean, variance = jnp.mean(gradients, axis=0), jnp.sum(jnp.var(gradients, axis=0, ddof=1))
    return GradientVariance(variance, jnp.maximum(jnp.sum(mean**2) - variance / repeats, 0.0))
