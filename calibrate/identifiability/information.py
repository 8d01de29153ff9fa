"""What tables of data are expected to say of the parameters: scores at points of the prior.

Coordinates u are unconstrained (NumPyro's `biject_to`: logs of what is positive). The information at a point is the mean of
s sᵀ over tables simulated there, s = ∇ᵤ log p(table | u) being the score: along a direction that no table can tell, every s is
zero, however few they are. What is not simulated (the law of what is sampled beside the parameters, and data that enter a
program as factors) adds its curvature where that is positive. What is sampled beside the parameters is then eliminated by a
Schur complement: exact where the law is normal, linear in it and its spread is known; near that elsewhere.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.reparam import LocScaleReparam

from walras.calibrate.compiling import quickly, remember
from walras.calibrate.executing import each
from walras.calibrate.problem import Problem, solved
from walras.calibrate.quantiles import quantiles
from walras.model import Status

_PIECES = {"start": 32, "score": 4}  # points that are one piece of work: always as many, so that workers change nothing


def prior_points(problem: Problem, key: Array, points: int) -> dict[str, np.ndarray]:
    """Values of the parameters, (points, …) by name: scrambled Sobol points, or random draws where priors are a callable.

    Elements of a vector that depend on each other are drawn at random.
    """
    if callable(problem.priors):
        return _random_values(problem, key, points)
    draw_key, sobol_key = jax.random.split(key)
    laws = {name: problem.priors[name].distribution() for name in problem.sampled}
    levels = _levels(points, sum(int(np.prod(law.event_shape)) for law in laws.values() if _elementwise(law)), sobol_key)
    values = {}
    with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks when it draws vectors
        for (name, law), own in zip(laws.items(), jax.random.split(draw_key, len(laws)), strict=True):
            if not _elementwise(law):
                values[name] = np.asarray(law.sample(own, (points,)))
                continue
            inverses = quantiles(problem.priors[name], own)
            columns = [inverse(u) for inverse, u in zip(inverses, levels, strict=False)]
            levels = levels[len(inverses) :]
            values[name] = np.stack(columns, axis=1).reshape(points, *law.event_shape)
    return values


def _elementwise(law: dist.Distribution) -> bool:
    base = law.base_dist if isinstance(law, dist.Independent) else law
    return base.event_shape == ()


def _levels(points: int, columns: int, key) -> Float[np.ndarray, "columns points"]:
    """Scrambled Sobol points, each moved to the middle of its stratum of every coordinate."""
    if columns == 0:
        return np.zeros((0, points))
    seed = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    sobol = scipy.stats.qmc.Sobol(columns, rng=seed).random_base2(int(np.ceil(np.log2(points))))[:points]
    return (np.argsort(np.argsort(sobol, axis=0), axis=0).T + 0.5) / points


def _random_values(problem, key, points):
    def draw(key):
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=key):
            problem.parameters(problem.inputs)
        return {name: trace[name]["value"] for name in problem.sampled}

    draws = quickly(partial(jax.lax.map, draw))(jax.random.split(key, points))
    return jax.tree.map(np.asarray, draws)


def unconstrained(problem: Problem, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates u of parameters, given by name (points, …), and how values move with them: both (points, coordinates).

    The latter, dθ/du, is NaN where a coordinate moves several elements of a vector.
    """

    def one(values):
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=0), handlers.substitute(data=values):
            problem.parameters(problem.inputs)
        sites = [trace[name] for name in problem.sampled]
        moved = [(site, transform_of(site["fn"])) for site in sites]
        coordinates = [transform.inv(site["value"]) for site, transform in moved]
        return ravel_pytree(coordinates)[0], ravel_pytree(
            [_slope(t, u, s["value"]) for (s, t), u in zip(moved, coordinates, strict=True)]
        )[0]

    return jax.tree.map(np.asarray, quickly(partial(jax.lax.map, one))(values))


def transform_of(law: dist.Distribution):
    """The map from a coordinate u to a value, of each element where elements have coordinates of their own."""
    support = law.support
    while isinstance(support, dist.constraints.independent):
        support = support.base_constraint
    return biject_to(support)


def _slope(transform, u, value):
    if transform.domain.event_dim > 0 or transform.codomain.event_dim > 0:
        return jnp.full(u.shape, jnp.nan)
    return jnp.broadcast_to(jnp.exp(transform.log_abs_det_jacobian(u, value)), u.shape)


def started(problem: Problem, values: dict[str, np.ndarray], key, executor=None):
    """At each point: coordinates (points, …) of all that the program samples, and the code of its status (points,)."""
    keys = np.asarray(jax.random.key_data(jax.random.split(key, len(next(iter(values.values()))))))
    return _spread("start", problem, 0, (values, keys), executor)


def information_roots(problem: Problem, coordinates, key, tables: int, executor=None) -> Float[np.ndarray, "points k k"]:
    """At each point a matrix R with RᵀR the information in the coordinates u of the parameters; NaN where it has none.

    Roots, since products would lose half of the digits that tell a direction without information from others. `coordinates`
    are those of `started`; at least twice as many tables are simulated as there are coordinates.
    """
    keys = np.asarray(jax.random.key_data(jax.random.split(key, len(coordinates))))
    tables = max(tables, 2 * coordinates.shape[1])
    scores, curvature = _spread("score", problem, tables, (coordinates, keys), executor)
    own = sum(int(np.prod(shape, dtype=int)) for shape in _Program(problem).shapes[-len(problem.sampled) :])
    return np.stack([_root(*point, own) for point in zip(scores, curvature, strict=True)])


def _root(scores, curvature, own: int):
    """Of the last `own` coordinates, what is known of the others being taken out: a corner of a triangular factor."""
    if not (np.isfinite(scores).all() and np.isfinite(curvature).all()):
        return np.full((own, own), np.nan)
    values, vectors = np.linalg.eigh(curvature)
    beside = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    factor = np.linalg.qr(np.concatenate([scores / np.sqrt(len(scores)), beside]), mode="r")
    return factor[-own:, -own:]


def _spread(work: str, problem: Problem, tables: int, points, executor):
    """Work at points (a tree of arrays with the points first) in pieces of one size, the last filled up with others."""
    size, number = _PIECES[work], len(points[1])
    rows = np.resize(np.arange(number), (-(-number // size), size))
    pieces = [jax.tree.map(lambda array, own=own: array[own], points) for own in rows]
    parts = list(each(partial(_worked, work, problem, tables), pieces, executor))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:number], *parts)


def _worked(work, problem, tables, piece):
    return jax.tree.map(np.asarray, _compiled(problem, work, tables)(piece))


@remember(8)
def _compiled(problem: Problem, work: str, tables: int):
    program = _Program(problem)
    one = program.start if work == "start" else partial(program.scores, tables)
    return quickly(partial(jax.lax.map, lambda point: one(*point)))


class _Program:
    """A problem's program in coordinates: those of what is sampled beside the parameters first, as standard as they can be."""

    def __init__(self, problem: Problem):
        self.problem, self._own = problem, problem.sampled
        self._run = handlers.reparam(lambda: problem.forward(problem.inputs), config=self._standard)
        found = {name: site for name, site in problem.sites(self._run).items() if site["type"] == "sample"}
        self._hidden = [n for n, site in found.items() if not site["is_observed"] and n not in self._own]
        self._names = [*self._hidden, *self._own]
        self._beside = bool(self._hidden) or any(site["is_observed"] for site in found.values())
        self.shapes = [jax.eval_shape(biject_to(found[n]["fn"].support).inv, found[n]["value"]).shape for n in self._names]
        self._unravel = ravel_pytree([np.zeros(shape) for shape in self.shapes])[1]

    def _standard(self, site):
        # A normal variable is measured in its own standard deviations: the information on it then hardly depends on them.
        base = site["fn"]
        while isinstance(base, dist.Independent | dist.ExpandedDistribution):
            base = base.base_dist
        own = site["name"] in self._own or site["name"].endswith("_decentered")
        return None if own or site["is_observed"] or not isinstance(base, dist.Normal) else LocScaleReparam(0.0)

    def start(self, values, key):
        """Coordinates and status where the parameters have these values and the rest is drawn."""
        with handlers.block(), handlers.trace() as trace:
            seeded = handlers.seed(self._run, jax.random.wrap_key_data(key))
            forward: tuple = handlers.substitute(seeded, data=values)()
        equilibrium = forward[1]
        parts = [biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in self._names]
        codes = jnp.ravel(equilibrium.status._value)
        code = codes[jnp.argmax(codes != Status.solved._value)]
        return ravel_pytree(parts)[0], jnp.where(solved(equilibrium), Status.solved._value, code)

    def scores(self, tables: int, u, key):
        """Scores (tables, coordinates) of simulated tables, with the data's own missing entries, and the curvature beside."""
        law, observed, kept = self._at(u)[0], self.problem.observed, []
        keys = jax.random.split(jax.random.wrap_key_data(key), tables)
        simulated = jax.lax.map(lambda key: jnp.where(jnp.isnan(observed), jnp.nan, law.sample(key)), keys)

        def fields(u):
            log_density, fields = jax.closure_convert(self._at(u)[0].log_prob, observed)
            kept.append(log_density)
            return fields

        # The market is solved once, not for every table: its derivative takes each table's gradient in the law's own terms.
        fields, pull = jax.vjp(fields, u)
        scores = jax.lax.map(lambda table: pull(jax.grad(lambda f: kept[0](table, *f))(fields))[0], simulated)
        curvature = -jax.hessian(lambda u: self._at(u)[1])(u) if self._beside else jnp.zeros((u.size, u.size))
        return scores, curvature

    def _at(self, u):
        """The law, and the log density of what is not simulated."""
        parts, jacobians = dict(zip(self._names, self._unravel(u), strict=True)), []

        def value(site):
            if site["type"] != "sample" or site["name"] not in parts:
                return None
            transform, part = biject_to(site["fn"].support), parts[site["name"]]
            if site["name"] in self._hidden:
                jacobians.append(jnp.sum(transform.log_abs_det_jacobian(part, transform(part))))
            return transform(part)

        with handlers.block(), handlers.trace() as trace:
            forward: tuple = handlers.substitute(self._run, substitute_fn=value)()
        sites = [site for site in trace.values() if site["type"] == "sample"]
        beside = [site for site in sites if site["is_observed"] or site["name"] in self._hidden]
        densities = [jnp.sum(site["fn"].log_prob(site["value"])) for site in beside]
        return forward[2], sum([*densities, *jacobians], start=jnp.zeros(()))
