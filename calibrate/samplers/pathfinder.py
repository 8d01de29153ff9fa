"""Pathfinder: starting points that are already near the bulk of the posterior (Zhang et al. 2022)."""

import jax
import jax.numpy as jnp

from walras.calibrate.compiling import quickly
from walras.calibrate.samplers.target import Target

_PATHS = 4  # for each chain: one that ends in a poor place has no weight beside the others
_POINTS = 50  # of each path's approximation


def starts(target: Target, keys):
    """A starting vector for each chain (chains, dimension), from paths of its own that begin where `target` does."""
    from blackjax.diagnostics import psis_weights  # makes an array when it is imported
    from blackjax.vi import pathfinder

    data = target.data
    keys = jax.vmap(lambda key: jax.random.split(key, 2 * _PATHS + 1))(keys)  # of beginnings, paths, and a choice
    begin = target.first_points(keys[:, :_PATHS].ravel())
    over = target.mapping(begin[0], data)

    def path(key_and_point):
        key, z = key_and_point
        found, _ = pathfinder.approximate(key, lambda z: -target.potential(z, data), z, _POINTS)
        points, log_q = pathfinder.sample(jax.random.fold_in(key, 1), found, _POINTS)
        return points, jax.lax.map(lambda z: -target.potential(z, data), points) - log_q

    def one(keys_and_points):
        path_keys, choose_key, first = keys_and_points
        points, log_ratio = over(path)((path_keys, first))
        log_ratio = jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf).ravel()
        log_weights, _ = psis_weights(log_ratio)
        chosen = jax.random.categorical(choose_key, log_weights)
        return jnp.reshape(points, (-1, points.shape[-1]))[chosen]

    groups = jnp.reshape(begin, (len(keys), _PATHS, -1))
    with jax.numpy_rank_promotion("allow"):  # blackjax promotes ranks
        return quickly(lambda pieces: jax.lax.map(one, pieces))((keys[:, _PATHS:-1], keys[:, -1], groups))
