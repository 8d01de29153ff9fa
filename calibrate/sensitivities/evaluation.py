"""A problem's outputs at tables of parameters: in batches of one shape, compiled once, here or by an executor's workers."""

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro import handlers

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.executing import each
from walras.calibrate.problem import Problem, solved
from walras.calibrate.sensitivities.space import split

# One shape whatever the number of workers: results do not depend on it.
_BATCH = 256

_TRACING = Lock()

type Output = Callable[[Any, Mapping, Mapping], Any]


@dataclass(frozen=True)
class Values:
    """Outputs at each point, (points, …) by name; their derivatives (points, …, columns), if asked for; what was solved."""

    outputs: dict[str, np.ndarray]
    derivatives: dict[str, np.ndarray]
    solved: Bool[np.ndarray, " points"]


@dataclass(frozen=True)
class Forward:
    """The outputs of a problem as functions of its parameters and of standardised latents.

    `own`: the user's outputs by name, functions of (equilibrium, parameters, inputs), in place of the observation's. `kept`:
    the names to compute; all if empty.
    """

    problem: Problem
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    own: tuple[tuple[str, Output], ...] = ()
    kept: tuple[str, ...] = ()
    executor: Executor | None = field(default=None, compare=False)

    def __reduce__(self):
        # As bytes: a problem can only be made in double precision, which a worker has not been told of yet.
        return _restored, (pickle.dumps((self.problem, self.shapes, self.own, self.kept)),)

    def __call__(
        self, points: Float[np.ndarray, "points columns"], noise: dict[str, np.ndarray], derivatives: bool = False
    ) -> Values:
        """Outputs at points, each with `noise` of its own or, where that has one row, the same; NaN where not solved."""
        number = len(points)
        noise = {name: np.broadcast_to(rows, (number, *rows.shape[1:])) for name, rows in noise.items()}
        pieces = [_piece(points, noise, start) for start in range(0, number, _BATCH)]
        found = list(each(partial(_evaluated, self, derivatives), pieces, self.executor))
        whole = jax.tree.map(lambda *parts: np.concatenate(parts)[:number], *found)
        return Values(*(_masked(part, whole[2]) for part in whole[:2]), whole[2])

    def at(self, row: Array, noise: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """The outputs at one point, and whether its market is solved. Traceable."""
        program = partial(self.problem.equilibrium, self.problem.inputs)
        value = partial(_value, split(dict(self.shapes), row), noise)
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(substitute_fn=value):
            params, inputs, equilibrium = program()
        if self.own:
            found = {name: function(equilibrium, params, inputs) for name, function in self.own}
        else:
            found = self.problem.observation.outputs(equilibrium, params, inputs)
        kept = self.kept or tuple(found)
        unknown = sorted(set(kept) - set(found))
        if unknown:
            raise CalibrationError(f"output {unknown[0]!r} is not known: this problem has {', '.join(found)}")
        return {name: jnp.asarray(found[name], float) for name in kept}, solved(equilibrium)


def _restored(pickled: bytes) -> Forward:
    jax.config.update("jax_enable_x64", True)
    return Forward(*pickle.loads(pickled))


def _piece(points, noise, start: int):
    """One batch; the last is filled with its own first point."""
    rows = np.minimum(np.arange(start, start + _BATCH), len(points) - 1)
    rows[start + np.arange(_BATCH) >= len(points)] = start
    return points[rows], {name: values[rows] for name, values in noise.items()}


def _evaluated(forward: Forward, derivatives: bool, piece):
    # NumPyro's handlers are not for several threads at a time.
    with _TRACING:
        compiled = _compiled(forward, derivatives, tuple((name, rows.shape) for name, rows in piece[1].items()))
    return jax.tree.map(np.asarray, compiled(piece))


@lru_cache(maxsize=8)
def _compiled(forward: Forward, derivatives: bool, latents: tuple[tuple[str, tuple[int, ...]], ...]):
    # Made before tracing: what a trace makes for the first time would not outlive it.
    _ = forward.problem.inputs, forward.problem.build

    def one(point):
        row, noise = point
        outputs, found = forward.at(row, noise)
        slopes = jax.jacfwd(lambda row: forward.at(row, noise)[0])(row) if derivatives else {}
        return outputs, slopes, found

    columns = sum(int(np.prod(shape)) for _, shape in forward.shapes)
    noise = {name: jax.ShapeDtypeStruct(shape, float) for name, shape in latents}
    return quickly(partial(jax.lax.map, one)).lower((jax.ShapeDtypeStruct((_BATCH, columns), float), noise)).compile()


def _masked(values: dict[str, np.ndarray], kept) -> dict[str, np.ndarray]:
    return {name: np.where(kept.reshape(-1, *(1 for _ in array.shape[1:])), array, np.nan) for name, array in values.items()}


def standardised(forward: Forward, points, latents: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Latents at draws in units of their own laws there: what `Forward` holds while parameters move."""
    if not latents:
        return {}

    def one(point):
        row, values = point
        given = {**split(dict(forward.shapes), row), **values}
        program = handlers.substitute(partial(forward.problem.equilibrium, forward.problem.inputs), data=given)
        with handlers.block(), handlers.seed(rng_seed=0), handlers.trace() as trace:
            program()
        return {name: _standard(trace[name]["fn"], value) for name, value in values.items()}

    return jax.tree.map(np.asarray, quickly(partial(jax.lax.map, one))((points, latents)))


def _value(params, noise, site):
    """What a site of the program is held at."""
    name = site["name"]
    if site["type"] != "sample" or site["is_observed"]:
        return None
    if name not in noise:
        return params.get(name)
    location, scale = _location_scale(site["fn"])
    return location + scale * noise[name]


def _standard(law, value):
    location, scale = _location_scale(law)
    return (value - location) / scale


def _location_scale(law) -> tuple:
    """Of a latent's law; 0 and 1 where it has none, so that the latent is held as it is."""
    while isinstance(law, dist.Independent):
        law = law.base_dist
    return getattr(law, "loc", 0.0), getattr(law, "scale", 1.0)
