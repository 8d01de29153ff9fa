"""The law of a panel: that of each market, independent of the others given the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from walras.calibrate.law import Law


class PanelLaw(Law):
    """The tables of several markets, one below the other, (rows, targets).

    `laws`: for each group of markets of equal shape their laws, stacked along a leading dimension. `places`: for each group the
    row of the whole table in which each row of each market is, (markets, rows of a market); `rows` for one that is not there.
    """

    pytree_data_fields = ("laws", "places")

    def __init__(self, laws: tuple[Any, ...], places: tuple[Int[Array, "markets own_rows"], ...], rows: int, targets: int):
        self.laws, self.places = laws, places
        super().__init__(rows, targets)

    @property
    def _rows(self) -> int:
        return self.event_shape[0]

    def _of_markets(self, table, places):
        """The rows of each market, missing where they are not there, (markets, rows of a market, …)."""
        return jnp.concatenate([table, jnp.full((1, *table.shape[1:]), jnp.nan)])[places]

    def _over_markets(self, function: Callable, *tables) -> list:
        """`function(law, *tables of the market)` of each market, stacked for each group."""
        return [
            jax.vmap(function)(laws, *(self._of_markets(table, places) for table in tables))
            for laws, places in zip(self.laws, self.places, strict=True)
        ]

    def _table(self, parts) -> Array:
        """What markets have in each row (markets, rows of a market, …) as rows of the whole table."""
        whole = jnp.full((self._rows + 1, *parts[0].shape[2:]), jnp.nan)
        for part, places in zip(parts, self.places, strict=True):
            whole = whole.at[places].set(part)
        return whole[:-1]

    def _random(self, function: Callable, key, *tables) -> list:
        """`function(law, key, *tables)` of each market, with a key of its own."""
        found = []
        for number, (laws, places) in enumerate(zip(self.laws, self.places, strict=True)):
            keys = jax.random.split(jax.random.fold_in(key, number), len(places))
            found.append(jax.vmap(function)(laws, keys, *(self._of_markets(table, places) for table in tables)))
        return found

    def log_prob(self, value):
        return sum(jnp.sum(part) for part in self._over_markets(lambda law, own: law.log_prob(own), value))

    def sample(self, key, sample_shape=()):
        def one(key):
            return self._table(self._random(lambda law, key: law.sample(key), key))

        if not sample_shape:
            return one(key)
        keys = jax.random.split(key, sample_shape)
        for _ in sample_shape:
            one = jax.vmap(one)
        return one(keys)

    def complete(self, key, value):
        return self._table(self._random(lambda law, key, own: law.complete(key, own), key, value))

    def leave_one_out(self, value):
        return self._table(self._over_markets(lambda law, own: law.leave_one_out(own), value))

    def reconstruct(self, key, value):
        """What laws draw for each of their rows."""
        drawn = self._random(lambda law, key, own: law.reconstruct(key, own), key, value)
        sizes = [places.shape for places in self.places]
        return {
            name: self._table([part[name] for part in drawn])
            for name in drawn[0]
            if all(part[name].shape[:2] == size for part, size in zip(drawn, sizes, strict=True))
        }

    def one_step_ahead(self, value):
        return _Ahead(self, value)


class _Ahead(dist.Distribution):
    """The law of the first target in each row given the rows of the same market before it."""

    support = dist.constraints.real

    def __init__(self, panel: PanelLaw, value: Float[Array, "rows targets"]):
        self.panel, self.value = panel, value
        super().__init__(batch_shape=value.shape[:1], event_shape=())

    def _at(self, function: Callable, points):
        def one(law, own, points):
            # A row that is not there has no value; its answer is dropped.
            return function(law.one_step_ahead(own), jnp.nan_to_num(points))

        return self.panel._table(self.panel._over_markets(one, self.value, points))

    def log_prob(self, value):
        return self._at(lambda ahead, points: ahead.log_prob(points), value)

    def cdf(self, value):
        missing = jnp.isnan(value)
        return jnp.where(missing, jnp.nan, self._at(lambda ahead, points: ahead.cdf(points), value))

    def sample(self, key, sample_shape=()):
        def one(law, key, own):
            return law.one_step_ahead(own).sample(key, sample_shape)

        parts = self.panel._random(one, key, self.value)
        # Rows lead in a table, samples in a draw.
        along = [jnp.moveaxis(part, -1, 1) for part in parts]
        return jnp.moveaxis(self.panel._table(along), 0, -1)
