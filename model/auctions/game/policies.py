"""Bidders' policies: networks from their values to their bids."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.equilibrium import EquilibriumError


class Policies(eqx.Module):
    """Bids max(0, v + g(v)), g a network of two hidden layers of ten SELU units: one for all bidders, or one for each.

    Untrained, g is nothing and bids are truthful: a network that starts elsewhere may never win, and then it has no gradient
    to learn from. Inputs are values less their median, relative to the interquartile range, and outputs are relative to that.
    `network` has a leading axis of one or `bidders`, as have `centre` and `spread`.
    """

    network: eqx.nn.MLP
    centre: tuple[float, ...] = eqx.field(static=True)
    spread: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def truthful(cls, game: SmoothedAuction, key: Array, *, shared: bool = True, width: int = 10, depth: int = 2) -> "Policies":
        """Untrained ones; those of bidders whose values have different distributions cannot be `shared`."""
        if shared and not game.symmetric:
            raise EquilibriumError("shared is True, and bidders' values have different distributions: give shared=False")
        groups = 1 if shared else game.bidders

        def network(key):
            layers = eqx.nn.MLP(game.items, game.items, width, depth, jax.nn.selu, dtype=jnp.float32, key=key)
            return eqx.tree_at(lambda net: (net.layers[-1].weight, net.layers[-1].bias), layers, replace_fn=jnp.zeros_like)

        functions = game.quantile_functions()
        quartiles = [[float(function(jnp.asarray(level))) for level in (0.25, 0.5, 0.75)] for function in functions]
        quartiles = quartiles if len(quartiles) == groups else quartiles * groups
        spread = tuple(high - low for low, _, high in quartiles)
        if not all(0.0 < width < float("inf") for width in spread):
            raise EquilibriumError(f"values has interquartile ranges {spread}: give distributions with positive, finite ones")
        networks = eqx.filter_vmap(network)(jax.random.split(key, groups))
        return cls(networks, tuple(middle for _, middle, _ in quartiles), spread)

    def __call__(self, values: Float[Array, "*batch bidders items"]) -> Float[Array, "*batch bidders items"]:
        groups = len(self.centre)
        first = values[None] if groups == 1 else jnp.moveaxis(values, -2, 0)
        bids = eqx.filter_vmap(_bid)(
            self.network, jnp.asarray(self.centre, values.dtype), jnp.asarray(self.spread, values.dtype), first
        )
        return bids[0] if groups == 1 else jnp.moveaxis(bids, 0, -2)

    def mean(self, utilities: Float[Array, "*batch bidders"]) -> Float[Array, " groups"]:
        """The mean utility of those who share a network."""
        over = utilities.reshape(-1, utilities.shape[-1])
        return jnp.mean(over, keepdims=True)[0] if len(self.centre) == 1 else jnp.mean(over, axis=0)

    def bid(self, values: Float[Array, "*batch items"], bidder: int = 0) -> Float[Array, "*batch items"]:
        """Of one bidder with these values."""
        group = 0 if len(self.centre) == 1 else bidder
        network = jax.tree.map(lambda leaf: leaf[group] if eqx.is_array(leaf) else leaf, self.network)
        values = jnp.asarray(values)
        return _bid(network, jnp.asarray(self.centre[group]), jnp.asarray(self.spread[group]), values)


def _bid(network, centre, spread, values):
    rows = values.reshape(-1, values.shape[-1])
    change = jax.vmap(network)((rows - centre) / spread).reshape(values.shape)
    return jax.nn.relu(values + spread * change)
