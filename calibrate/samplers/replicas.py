"""Chains of many tables side by side: one program, compiled once, for every batch of one size."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from walras.calibrate.compiling import quickly, remember
from walras.calibrate.problem import Problem
from walras.calibrate.samplers.draws import Draws
from walras.calibrate.samplers.nuts import NUTS, Chains


class Replicas:
    """The compiled chains of one problem given many tables. Reused on as many others, they do not compile again."""

    def __init__(self, problem: Problem, sampler: NUTS):
        self.sampler, self.chains = sampler, Chains(problem, sampler)
        self.target = self.chains.target
        self._size, self._programs = 0, None

    def run(self, keys, tables) -> Draws:
        """Warm up and draw from `keys` (replications,) given `tables` (replications, rows, targets).

        Returns arrays (replications, chains, draws, …); values are NaN where a chain starts at a density of zero.
        """
        began = time.perf_counter()
        tables, sampler = jnp.asarray(tables), self.sampler
        keys = jax.vmap(partial(jax.random.split, num=sampler.chains))(keys)
        first = self.target.first_points(keys.reshape(-1)).reshape(*keys.shape, -1)
        begin, step = self._compiled(keys, first, tables)
        compiled = time.perf_counter()
        state = begin(keys, first, tables)
        started = np.isfinite(np.asarray(state.potential_energy)).all(axis=1)
        parts = []
        for number in range(self.chains.iterations // sampler.chunk):
            state, part = step(state, tables)
            if number >= sampler.warmup // sampler.chunk:
                parts.append(jax.tree.map(np.asarray, part))
        kept = slice(sampler.warmup % sampler.chunk, sampler.warmup % sampler.chunk + sampler.draws)
        values, statistics = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=2)[:, :, kept], *parts)
        values = {name: _where(started, array) for name, array in self.target.public(values).items()}
        return Draws(values, statistics, compiled - began, time.perf_counter() - compiled)

    def _compiled(self, keys, first, tables) -> Any:
        """The start and the chunk, compiled side by side for this number of tables."""
        if self._size == len(tables):
            return self._programs
        over = self.target.mapping(first[0, 0], self.target.data)

        def begin(keys, first, tables):
            return over(lambda one: self.chains.begin(over, *one[:2], self._given(one[2])))((keys, first, tables))

        def step(state, tables):
            return over(lambda one: self.chains.step(over, one[0], self._given(one[1])))((state, tables))

        lowered_begin = quickly(begin).lower(keys, first, tables)
        lowered_step = quickly(step).lower(jax.eval_shape(begin, keys, first, tables), tables)
        with ThreadPoolExecutor(2) as pool:
            self._programs = tuple(pool.map(lambda lowered: lowered.compile(), (lowered_begin, lowered_step)))
        self._size = len(tables)
        return self._programs

    def _given(self, table):
        return {**self.target.data, "observed": table}


def _where(started, array):
    """Floating-point values (replications, …) where a replication has started, NaN elsewhere."""
    return np.where(started.reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)


@remember(4)
def replicas(problem: Problem, sampler: NUTS) -> Replicas:
    """The replicas of a problem, kept so that batch after batch is run by one program."""
    return Replicas(problem, sampler)
