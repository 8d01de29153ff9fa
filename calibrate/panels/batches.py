"""Chains of many markets side by side: one program, compiled once, for every batch of the same shape."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from walras.calibrate.compiling import quickly, remember
from walras.calibrate.law import log_densities
from walras.calibrate.panels.panel import Name, Prepared
from walras.calibrate.problem import Problem, solved
from walras.calibrate.samplers import NUTS, Chains


@dataclass(frozen=True)
class Batch:
    """Markets to be fitted at once, as many as `size` at most, and the data of their random keys (markets, …)."""

    markets: tuple[Prepared, ...]
    keys: np.ndarray
    size: int

    @property
    def names(self) -> tuple[Name, ...]:
        return tuple(one.name for one in self.markets)

    def filled(self) -> tuple[jax.Array, dict]:
        """Keys (size,) and data (size, …), the first market repeated where there are too few: every batch has one shape."""
        filling = [*range(len(self.markets)), *[0] * (self.size - len(self.markets))]
        rows = [{"observed": self.markets[i].observed, "inputs": dict(self.markets[i].inputs)} for i in filling]
        keys = jax.random.wrap_key_data(jnp.asarray(self.keys[filling]))
        return keys, jax.tree.map(lambda *arrays: jnp.stack(arrays), *rows)


class Fitted(NamedTuple):
    """The draws of a batch (markets, chains, draws, …) by site, their statistics, and scores of rows (markets, rows).

    `started` (markets,): whether all chains of a market could start.
    """

    values: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    started: np.ndarray


class Markets:
    """The compiled chains of many markets; `template` is one of them, of the same kind and shapes as all."""

    def __init__(self, template: Problem, sampler: NUTS):
        self.sampler, self.chains = sampler, Chains(template, sampler)
        self.problem, self.target = template, self.chains.target

    def run(self, batch: Batch) -> Fitted:
        """Warm up and draw for each market of a batch."""
        keys, data = batch.filled()
        keys = jax.vmap(partial(jax.random.split, num=self.sampler.chains))(keys)
        state = self._begin(keys, data)
        started = np.isfinite(np.asarray(state.potential_energy)).all(axis=1)
        parts = []
        for _ in range(self.chains.iterations // self.sampler.chunk):
            state, part = self._step(state, data)
            parts.append(jax.tree.map(np.asarray, part))
        values, statistics = self._drawn(parts)
        latent = {name: values[name] for name in self.problem.latent}
        scores = {name: np.asarray(array) for name, array in self._score(latent, data).items()}
        statistics["solver_failed"] = scores.pop("solver_failed")
        fitted = Fitted(self.target.public(values), statistics, scores, started)
        return jax.tree.map(lambda array: array[: len(batch.markets)], fitted)

    def _drawn(self, parts):
        """Values and statistics after warm-up."""
        kept = slice(self.sampler.warmup, self.sampler.warmup + self.sampler.draws)
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=2)[:, :, kept], *parts)

    @cached_property
    def _over(self):
        """How functions go over a leading dimension: side by side, or in turn for a market that is solved by iteration."""
        with jax.numpy_rank_promotion("allow"):
            z = self.target.first_point(jax.random.key(0))
        return self.target.mapping(z, self.target.data)

    @cached_property
    def _begin(self):
        def one(keys_and_data):
            keys, data = keys_and_data
            first = jax.lax.map(lambda key: self.target.first_point(key, data["inputs"]), keys)
            return self.chains.begin(self._over, keys, first, data)

        def all_markets(keys, data):
            with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks when it draws vectors to start from
                return self._over(one)((keys, data))

        return quickly(all_markets)

    @cached_property
    def _step(self):
        def one(state_and_data):
            return self.chains.step(self._over, *state_and_data)

        return quickly(lambda state, data: self._over(one)((state, data)))

    @cached_property
    def _score(self):
        """Of each row, over draws: log mean one-step-ahead density and mean probability; of each draw, solver failure."""

        def at_draw(values, data):
            with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=values):
                _, equilibrium, law = self.problem.forward(data["inputs"])
            ahead, target = law.one_step_ahead(data["observed"]), data["observed"][:, 0]
            return log_densities(ahead, target), ahead.cdf(target), ~solved(equilibrium)

        def one(values_and_data):
            values, data = values_and_data
            over_chains = partial(jax.lax.map, lambda values: at_draw(values, data))
            density, probability, failed = jax.lax.map(over_chains, values)
            return {
                "log_density": jax.nn.logsumexp(density, axis=(0, 1)) - jnp.log(failed.size),
                "probability": probability.mean((0, 1)),
                "solver_failed": failed,
            }

        return quickly(lambda values, data: self._over(one)((values, data)))


def run_batch(template: Problem, sampler: NUTS, batch: Batch) -> Fitted:
    """Fit a batch; a process compiles once for all batches of one template."""
    return _markets(template, sampler).run(batch)


@remember(4)
def _markets(template: Problem, sampler: NUTS) -> Markets:
    return Markets(template, sampler)
