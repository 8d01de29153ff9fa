"""The No-U-Turn sampler, in chunks."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.compiling import quickly, remember
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import Problem
from walras.calibrate.samplers import pathfinder
from walras.calibrate.samplers.draws import (
    Draws,
    Progress,
    Sampler,
    require_between,
    require_true_or_false,
    require_whole,
)
from walras.calibrate.samplers.target import Target, require_initial

_TIMED_GRADIENTS, _USUAL_STEPS = 20, 15
# Before the mass matrix is known, long trajectories of tiny steps cost more than all the draws after them.
_WARMUP_TREE_DEPTH = 5
_PATHFINDER = "pathfinder"


@dataclass(frozen=True, kw_only=True)
class NUTS(Sampler):
    """The No-U-Turn sampler of NumPyro, with windowed adaptation.

    `warmup` and `draws` per chain; `target_accept` nearer 1 takes smaller steps; `dense_mass` adapts a full mass matrix;
    `init` where chains start: "median", "prior", "uniform" (unconstrained, within ±2), "pathfinder" (paths of an optimiser from
    draws of the prior), or values by name. Chains run in one
    process, vectorised unless the market is solved by iteration, or spread over `processes` spawned workers. Progress and
    memory move in steps of `chunk`.
    """

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    target_accept: float = 0.9
    dense_mass: bool = True
    max_tree_depth: int = 10
    init: str | Mapping[str, float] = field(default="median", hash=False)
    processes: int = 1
    chunk: int = 50

    def __post_init__(self):
        require_whole(
            chains=(self.chains, 1),
            warmup=(self.warmup, 1),
            draws=(self.draws, 4),
            max_tree_depth=(self.max_tree_depth, 1),
            processes=(self.processes, 1),
            chunk=(self.chunk, 1),
        )
        require_between(0.0, 1.0, target_accept=self.target_accept)
        require_true_or_false(dense_mass=self.dense_mass)
        require_initial(self.init, _PATHFINDER)
        if self.processes > self.chains:
            raise CalibrationError(f"sampler processes is {self.processes}: at most one for each of {self.chains} chains")

    def run(self, problem, key, progress=None, checkpoints=None):
        """Draw from the problem's posterior. The draws are those of `key` and of the number of `processes`.

        Chains that are vectorised round otherwise in programs of another number of chains, those solved by iteration do not.
        """
        keys = jax.random.split(key, self.chains)
        if self.processes == 1:
            return chains(problem, self).run(keys, progress, checkpoints=checkpoints)
        if getattr(problem.build, "__module__", "") == "__main__":
            raise CalibrationError(
                "market is a function of the main script, which worker processes cannot import: put it in a module, or use "
                "processes=1"
            )
        parts = np.array_split(np.asarray(jax.random.key_data(keys)), self.processes)
        held = [checkpoints and checkpoints.part(f"process-{number}") for number in range(self.processes)]
        with ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"), initializer=_double_precision) as pool:
            results = list(pool.map(partial(_run_part, problem, replace(self, processes=1)), parts, held))
        return Draws(
            *jax.tree.map(lambda *parts: np.concatenate(parts), *((r.values, r.statistics) for r in results)),
            max(r.compile_seconds for r in results),
            max(r.sample_seconds for r in results),
        )

    def run_each(self, problem, keys, tables):
        """Draw given each of many tables, side by side in one program; see `Sampler.run_each`."""
        from walras.calibrate.samplers.replicas import replicas  # which is made of what is here

        return replicas(problem, replace(self, processes=1)).run(keys, tables)


@remember(8)
def chains(problem: Problem, sampler: NUTS) -> "Chains":
    """The chains of a problem, kept so that refits of the same problem (rolling origins) do not compile again."""
    return Chains(problem, sampler)


def _double_precision():
    jax.config.update("jax_enable_x64", True)


def _run_part(problem, sampler, key_data, checkpoints):
    keys = jax.random.wrap_key_data(jnp.asarray(key_data)) if key_data.ndim > 1 else jnp.asarray(key_data)
    return Chains(problem, replace(sampler, chains=len(key_data))).run(keys, checkpoints=checkpoints)


class Chains:
    """The compiled chains of one problem. Reused on other data of the same shape, they do not compile again."""

    def __init__(self, problem: Problem, sampler: NUTS):
        self.sampler = sampler
        self.target = Target(problem, "prior" if sampler.init == _PATHFINDER else sampler.init)
        self._init_kernel, self._sample_kernel = hmc(
            potential_fn_gen=lambda **data: lambda z: self.target.potential(z, data), algo="NUTS"
        )
        self._programs: Any = None  # the compiled start and chunk
        self._last: Any = None  # the kernel's state at the end of the last run

    def run(
        self,
        keys,
        progress: Callable[[Progress], None] | None = None,
        *,
        observed=None,
        checkpoints: Checkpoints | None = None,
    ) -> Draws:
        """Warm up and draw from `keys` (chains,), given the problem's observations or others of the same shape.

        Goes on from `checkpoints`, with the draws of a run that was never interrupted.
        """
        began = time.perf_counter()
        data = self.target.data if observed is None else {**self.target.data, "observed": observed}
        starts = pathfinder.starts if self.sampler.init == _PATHFINDER else Target.first_points
        first = starts(self.target, keys)
        self._compile(keys, first, data)
        state = self._start(keys, first, data)
        restored = checkpoints and checkpoints.read(state)
        if progress is not None and not restored:
            progress(Progress(0, self.iterations, 0, self._estimate(keys, first, data)))
        compiled = time.perf_counter()
        parts = restored.arrays if restored else []
        state = restored.state if restored else state
        for number in range(len(parts), self.iterations // self.sampler.chunk):
            state, part = self._advance(state, data)
            parts.append(part)
            if checkpoints is not None:
                checkpoints.write(number, state, part)
            if progress is not None:
                progress(self._progress(parts))
        self._last = state
        values, statistics = self._drawn(parts)
        return Draws(values, statistics, compiled - began, time.perf_counter() - compiled)

    def rerun(self, observed, chunks: int) -> dict[str, np.ndarray]:
        """Draws (chains, chunks · chunk, …) given other observations, from where the last run ended and as it adapted.

        The first half of the chunks lets the chains move to the new posterior and is dropped.
        """
        data = {**self.target.data, "observed": observed}
        state = self._start(self._last.rng_key, self._last.z, data)
        state = state._replace(i=self._last.i, adapt_state=self._last.adapt_state)
        parts = []
        for _ in range(2 * chunks):
            state, part = self._advance(state, data)
            parts.append(part)
        return _split(parts[chunks:])[0]

    @property
    def ready(self) -> bool:
        """Whether the chains have run, so that `rerun` can start from where they are."""
        return self._last is not None

    @property
    def iterations(self) -> int:
        """Warm-up and draws, rounded up to whole chunks."""
        return -(-(self.sampler.warmup + self.sampler.draws) // self.sampler.chunk) * self.sampler.chunk

    def _drawn(self, parts) -> tuple[dict, dict]:
        """Values and statistics after warm-up."""
        warmup, chunk = self.sampler.warmup, self.sampler.chunk
        # The first chunk with draws may begin in warm-up, and the last may go on beyond the draws asked for.
        kept = slice(warmup % chunk, warmup % chunk + self.sampler.draws)
        return jax.tree.map(lambda array: array[:, kept], _split(parts[warmup // chunk :]))

    def _progress(self, parts) -> Progress:
        drawn = parts[self.sampler.warmup // self.sampler.chunk :]
        divergences = sum(int(part[_STATISTIC + "diverging"].sum()) for part in drawn)
        return Progress(len(parts) * self.sampler.chunk, self.iterations, divergences)

    def _estimate(self, keys, first, data):
        """Seconds of sampling, from the time of one gradient and the leapfrog steps that well-behaved posteriors take."""
        began = time.perf_counter()
        for _ in range(_TIMED_GRADIENTS):
            jax.block_until_ready(self._programs[0](keys, first, data))
        return (time.perf_counter() - began) / _TIMED_GRADIENTS * self.iterations * _USUAL_STEPS

    def _start(self, keys, z, data):
        """The kernel's state at unconstrained points; raises when none of a chain's density is finite there."""
        state = self._programs[0](keys, z, data)
        finite = np.isfinite(np.asarray(state.potential_energy))
        if not finite.all():
            raise CalibrationError(
                f"chain {int(np.argmin(finite))} starts where the posterior density is zero or not finite: check that the "
                "priors allow the data, or give init values by name"
            )
        return state

    def _advance(self, state, data):
        """The state after a chunk, and the chunk's draws: values and statistics by name, each (chains, chunk, …)."""
        state, (values, statistics) = self._programs[1](state, data)
        named = {**_prefixed(_VALUE, self.target.public(values)), **_prefixed(_STATISTIC, statistics)}
        return state, {name: np.asarray(array) for name, array in named.items()}

    def _compile(self, keys, first, data):
        """Compile the start and the chunk side by side: both wait on the compiler, not on Python."""
        if self._programs is not None:
            return
        over = self.target.mapping(first[0], data)
        start, advance = partial(self.begin, over), partial(self.step, over)
        lowered_start = quickly(start).lower(keys, first, data)
        lowered_advance = quickly(advance).lower(jax.eval_shape(start, keys, first, data), data)
        with ThreadPoolExecutor(2) as pool:
            self._programs = tuple(pool.map(lambda lowered: lowered.compile(), (lowered_start, lowered_advance)))

    def begin(self, over, keys, z, data):
        """The kernels' states of chains that start at z (chains, dimension); `over` maps a function over chains."""
        sampler = self.sampler

        def one(key_and_point):
            key, z = key_and_point
            return self._init_kernel(
                z,
                sampler.warmup,
                dense_mass=sampler.dense_mass,
                target_accept_prob=sampler.target_accept,
                max_tree_depth=(min(_WARMUP_TREE_DEPTH, sampler.max_tree_depth), sampler.max_tree_depth),
                model_kwargs=data,
                rng_key=key,
            )

        return over(one)((keys, z))

    def step(self, over, state, data):
        """The states after a chunk, with its draws by site and their statistics, each (chains, chunk, …)."""

        def transition(state, _):
            state = self._sample_kernel(state, (), data)
            return state, (state.z, _statistics(state))

        def one(state):
            state, (draws, statistics) = jax.lax.scan(transition, state, length=self.sampler.chunk)
            return state, (over(lambda z: self.target.constrained(z, data))(draws), statistics)

        return over(one)(state)


def _statistics(state):
    return {
        "lp": -state.potential_energy,
        "energy": state.energy,
        "n_steps": state.num_steps,
        "tree_depth": jnp.ceil(jnp.log2(state.num_steps + 1.0)).astype(int),
        "acceptance_rate": state.accept_prob,
        "diverging": state.diverging,
        "step_size": state.adapt_state.step_size,
    }


_VALUE, _STATISTIC = "value:", "statistic:"


def _prefixed(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def _split(parts) -> tuple[dict, dict]:
    """Values and statistics of chunks one after the other, each (chains, draws, …) by name."""

    def joined(prefix):
        names = [name for name in parts[0] if name.startswith(prefix)]
        return {name.removeprefix(prefix): np.concatenate([part[name] for part in parts], axis=1) for name in names}

    return joined(_VALUE), joined(_STATISTIC)
