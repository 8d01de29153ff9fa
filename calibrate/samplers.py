"""Samplers: frozen options, and the loop that runs them in chunks."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer import init_to_median, init_to_sample, init_to_uniform
from numpyro.infer.hmc import hmc
from numpyro.infer.reparam import ExplicitReparam
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import OBSERVED, Problem

_INITIAL = {"median": init_to_median, "prior": init_to_sample, "uniform": init_to_uniform}
_BASE = "_base"  # NumPyro's suffix for a site in other coordinates
_DATA_SITES = (OBSERVED, "solved")
_TIMED_GRADIENTS, _USUAL_STEPS = 20, 15
# Before the mass matrix is known, long trajectories of tiny steps cost more than all the draws after them.
_WARMUP_TREE_DEPTH = 5


class Progress(NamedTuple):
    """Where a run is: `done` of `total` iterations, and how many draws diverged after warm-up.

    The first report, with `done` = 0, comes after compilation and has an estimate of the `seconds` that sampling takes.
    """

    done: int
    total: int
    divergences: int
    seconds: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class NUTS:
    """The No-U-Turn sampler of NumPyro, with windowed adaptation.

    `warmup` and `draws` per chain; `target_accept` nearer 1 takes smaller steps; `dense_mass` adapts a full mass matrix;
    `init` where chains start: "median", "prior", "uniform" (unconstrained, within ±2), or values by name. Chains run in one
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
        for name, lowest in (
            ("chains", 1),
            ("warmup", 1),
            ("draws", 4),
            ("max_tree_depth", 1),
            ("processes", 1),
            ("chunk", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise CalibrationError(f"sampler {name} is {value!r}: give a whole number of at least {lowest}")
        if not isinstance(self.target_accept, int | float) or not 0.0 < self.target_accept < 1.0:
            raise CalibrationError(f"sampler target_accept is {self.target_accept!r}: give a number between 0 and 1")
        if not isinstance(self.dense_mass, bool):
            raise CalibrationError(f"sampler dense_mass is {self.dense_mass!r}: choose true or false")
        if isinstance(self.init, str) and self.init not in _INITIAL:
            raise CalibrationError(f"sampler init is {self.init!r}: choose one of {', '.join(_INITIAL)}, or give values")
        if self.processes > self.chains:
            raise CalibrationError(f"sampler processes is {self.processes}: at most one for each of {self.chains} chains")


class Draws(NamedTuple):
    """What a sampler returns: `values` of every site and `statistics`, each (chains, draws, …), and seconds spent."""

    values: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    compile_seconds: float
    sample_seconds: float


def chains(problem: Problem, sampler: NUTS) -> "Chains":
    """The chains of a problem, kept so that refits of the same problem (rolling origins) do not compile again."""
    # A digest knows functions by their source, not by what they close over.
    return _kept_chains(problem, sampler, id(problem.market), id(problem.priors) if callable(problem.priors) else 0)


@lru_cache(maxsize=8)
def _kept_chains(problem: Problem, sampler: NUTS, *_functions: int) -> "Chains":
    return Chains(problem, sampler)


def run(problem: Problem, sampler: NUTS, key, progress: Callable[[Progress], None] | None = None) -> Draws:
    """Draw from the problem's posterior. The draws are those of `key`, whatever the number of processes."""
    keys = jax.random.split(key, sampler.chains)
    if sampler.processes == 1:
        return chains(problem, sampler).run(keys, progress)
    parts = np.array_split(np.asarray(jax.random.key_data(keys)), sampler.processes)
    if getattr(problem.build, "__module__", "") == "__main__":
        raise CalibrationError(
            "market is a function of the main script, which worker processes cannot import: put it in a module, or use "
            "processes=1"
        )
    alone = replace(sampler, processes=1)
    with ProcessPoolExecutor(sampler.processes, mp_context=get_context("spawn"), initializer=_double_precision) as pool:
        results = list(pool.map(partial(_run_part, problem, alone), parts))
    return Draws(
        *jax.tree.map(lambda *parts: np.concatenate(parts), *((r.values, r.statistics) for r in results)),
        max(r.compile_seconds for r in results),
        max(r.sample_seconds for r in results),
    )


def _double_precision():
    jax.config.update("jax_enable_x64", True)


def _run_part(problem, sampler, key_data):
    keys = jax.random.wrap_key_data(jnp.asarray(key_data)) if key_data.ndim > 1 else jnp.asarray(key_data)
    return Chains(problem, replace(sampler, chains=len(key_data))).run(keys, None)


class Chains:
    """The compiled chains of one problem. Reused on other data of the same shape, they do not compile again."""

    def __init__(self, problem: Problem, sampler: NUTS):
        self.problem, self.sampler = problem, sampler
        self._model = handlers.reparam(problem.model, config=_coordinate)
        self._initial = _initial(sampler, problem)
        # One jitted potential: its trace is shared by every place where the kernel evaluates it. Of one vector, not of many
        # sites: the kernel's own steps are then few, and the compiled chunk is half the size.
        self._potential = jax.jit(lambda z, data: potential_energy(self._model, (), data, self._by_site(z)))
        self._init_kernel, self._sample_kernel = hmc(
            potential_fn_gen=lambda **data: lambda z: self._potential(z, data), algo="NUTS"
        )
        self._programs: Any = None  # the compiled start and chunk
        self._last: Any = None  # the kernel's state at the end of the last run

    def run(self, keys, progress: Callable[[Progress], None] | None = None, observed=None) -> Draws:
        """Warm up and draw from `keys` (chains,), given the problem's observations or others of the same shape."""
        began = time.perf_counter()
        data = self._data() if observed is None else {**self._data(), "observed": observed}
        first = self._first_points(keys)
        self._compile(keys, first, data)
        state = self._start(keys, first, data)
        if progress is not None:
            progress(Progress(0, self.iterations, 0, self._estimate(keys, first, data)))
        compiled = time.perf_counter()
        chunks = list(self._chunks(state, data, progress))
        self._last = chunks[-1][0]
        values, statistics = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *(c[1:] for c in chunks))
        # The first chunk with draws may begin in warm-up, and the last may go on beyond the draws asked for.
        begin = self.sampler.warmup % self.sampler.chunk
        kept = slice(begin, begin + self.sampler.draws)
        values, statistics = jax.tree.map(lambda array: array[:, kept], (values, statistics))
        return Draws(values, statistics, compiled - began, time.perf_counter() - compiled)

    def rerun(self, observed, chunks: int) -> dict[str, np.ndarray]:
        """Draws (chains, chunks · chunk, …) given other observations, from where the last run ended and as it adapted.

        The first half of the chunks lets the chains move to the new posterior and is dropped.
        """
        data = {**self._data(), "observed": observed}
        state = self._start(self._last.rng_key, self._last.z, data)
        state = state._replace(i=self._last.i, adapt_state=self._last.adapt_state)
        parts = []
        for number in range(2 * chunks):
            state, (values, _) = self._advance(state, data)
            if number >= chunks:
                parts.append(jax.tree.map(np.asarray, _public(values, self.problem)))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *parts)

    @property
    def ready(self) -> bool:
        """Whether the chains have run, so that `rerun` can start from where they are."""
        return self._last is not None

    @property
    def iterations(self) -> int:
        """Warm-up and draws, rounded up to whole chunks."""
        return -(-(self.sampler.warmup + self.sampler.draws) // self.sampler.chunk) * self.sampler.chunk

    def _estimate(self, keys, first, data):
        """Seconds of sampling, from the time of one gradient and the leapfrog steps that well-behaved posteriors take."""
        began = time.perf_counter()
        for _ in range(_TIMED_GRADIENTS):
            jax.block_until_ready(self._programs[0](keys, first, data))
        return (time.perf_counter() - began) / _TIMED_GRADIENTS * self.iterations * _USUAL_STEPS

    def _data(self):
        return {"observed": self.problem.observed, "inputs": self.problem.inputs}

    def _first_point(self, key):
        """Unconstrained starting values by site."""
        seeded = handlers.substitute(handlers.seed(self._model, key), substitute_fn=self._initial)
        trace = handlers.trace(seeded).get_trace(observed=None)
        sites = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"] and n != OBSERVED}
        transforms = {name: biject_to(site["fn"].support) for name, site in sites.items()}
        return transform_fn(transforms, {name: site["value"] for name, site in sites.items()}, invert=True)

    def _first_points(self, keys):
        """Unconstrained starting vectors (chains, dimension) from keys (chains,)."""
        with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks when it draws vectors to start from
            return self._draw_first_points(keys)

    @cached_property
    def _draw_first_points(self):
        return quickly(lambda keys: jax.lax.map(lambda key: ravel_pytree(self._first_point(key))[0], keys))

    @cached_property
    def _by_site(self):
        """The function from an unconstrained vector to unconstrained values by site."""
        with jax.numpy_rank_promotion("allow"):
            shapes = jax.eval_shape(self._first_point, jax.random.key(0))
        return ravel_pytree(jax.tree.map(lambda site: np.zeros(site.shape, site.dtype), shapes))[1]

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
        return self._programs[1](state, data)

    def _compile(self, keys, first, data):
        """Compile the start and the chunk side by side: both wait on the compiler, not on Python."""
        if self._programs is not None:
            return
        sampler = self.sampler
        # Side by side, the chains of a market that is solved by iteration would all wait for the one that takes longest.
        iterates = "while[" in str(jax.make_jaxpr(self._potential)(first[0], data))

        def over(function):
            return partial(jax.lax.map, function) if iterates else jax.vmap(function)

        def start(keys, z, data):
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

        def advance(state, data):
            def step(state, _):
                state = self._sample_kernel(state, (), data)
                return state, (state.z, _statistics(state))

            def constrain(z):
                return constrain_fn(self._model, (), data, self._by_site(z), return_deterministic=True)

            def one(state):
                state, (draws, statistics) = jax.lax.scan(step, state, length=sampler.chunk)
                return state, (over(constrain)(draws), statistics)

            return over(one)(state)

        lowered_start = quickly(start).lower(keys, first, data)
        lowered_advance = quickly(advance).lower(jax.eval_shape(start, keys, first, data), data)
        with ThreadPoolExecutor(2) as pool:
            self._programs = tuple(pool.map(lambda lowered: lowered.compile(), (lowered_start, lowered_advance)))

    def _chunks(self, state, data, progress):
        """Yield the state, values and statistics after each chunk that has draws after warm-up."""
        sampler = self.sampler
        divergences = 0
        for done in range(sampler.chunk, self.iterations + 1, sampler.chunk):
            state, (values, statistics) = self._advance(state, data)
            if done > sampler.warmup:
                values, statistics = jax.tree.map(np.asarray, (_public(values, self.problem), statistics))
                divergences += int(statistics["diverging"].sum())
                yield state, values, statistics
            if progress is not None:
                jax.block_until_ready(state.z)
                progress(Progress(done, self.iterations, divergences))


def _statistics(state):
    return {
        "potential_energy": state.potential_energy,
        "energy": state.energy,
        "num_steps": state.num_steps,
        "accept_prob": state.accept_prob,
        "diverging": state.diverging,
        "step_size": state.adapt_state.step_size,
    }


def _public(values, problem):
    hidden = {name + _BASE for name in problem.latent} - set(problem.latent)
    return {name: value for name, value in values.items() if name not in hidden and name not in _DATA_SITES}


def _coordinate(site) -> ExplicitReparam | None:
    """Where the sampler moves in place of a site's own values, if elsewhere.

    Along the ridge that the program says the likelihood has; and standardised, so that a prior's units do not matter.
    """
    if site["is_observed"] or "centred" in site["infer"]:
        return None
    if "ridge" in site["infer"]:
        return ExplicitReparam([biject_to(site["fn"].support).inv, AffineTransform(-site["infer"]["ridge"], 1.0)])
    base = site["fn"]
    while isinstance(base, dist.Independent | dist.ExpandedDistribution):
        base = base.base_dist
    if isinstance(base, dist.Normal | dist.Cauchy | dist.Laplace | dist.StudentT):
        return ExplicitReparam(AffineTransform(-base.loc / base.scale, 1.0 / base.scale))
    return None


def _initial(sampler, problem):
    if isinstance(sampler.init, str):
        return _INITIAL[sampler.init]()
    unknown = sorted(set(sampler.init) - set(problem.sampled))
    if unknown:
        raise CalibrationError(
            f"sampler init names the unknown parameter {unknown[0]!r}: sampled are {', '.join(problem.sampled)}"
        )
    given = {name: jnp.asarray(value, float) for name, value in sampler.init.items()}

    moved = {name + _BASE: name for name in given if name + _BASE not in problem.latent}

    def strategy(site):
        name = site["name"]
        if site["type"] == "sample" and not site["is_observed"]:
            if name in given:
                return given[name]
            if name in moved:
                return site["fn"].transforms[-1](given[moved[name]])  # the last one is that of `_coordinate`
        return init_to_uniform(site)

    return strategy
