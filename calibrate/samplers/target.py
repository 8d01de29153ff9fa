"""The posterior density that samplers move on: of one unconstrained vector, in coordinates without units."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer import init_to_median, init_to_sample, init_to_uniform
from numpyro.infer.reparam import ExplicitReparam
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import OBSERVED, Problem

_INITIAL = {"median": init_to_median, "prior": init_to_sample, "uniform": init_to_uniform}
_BASE = "_base"  # NumPyro's suffix for a site in other coordinates
_DATA_SITES = (OBSERVED, "solved")

type Initial = str | Mapping[str, float]


def require_initial(init: Initial, *others: str):
    """Raise unless `init` names a way to start (one of `others` too), or has values by name."""
    known = (*_INITIAL, *others)
    if isinstance(init, str) and init not in known:
        raise CalibrationError(f"sampler init is {init!r}: choose one of {', '.join(known)}, or give values")


class Target:
    """The posterior of a problem as a density of one vector z (dimension,), given `data` of the problem's shapes.

    Coordinates are unconstrained, standardised by the prior where it has a location and a scale, and run along the ridges
    that the observation knows of. `init`: where `first_points` are, "median", "prior", "uniform" (within ±2), or values by
    name.
    """

    def __init__(self, problem: Problem, init: Initial = "median"):
        self.problem = problem
        self.model = handlers.reparam(problem.model, config=_coordinate)
        self._initial = _initial(init, problem)
        # One jitted potential: its trace is shared by every place where a kernel evaluates it. Of one vector, not of many
        # sites: a kernel's own steps are then few, and a compiled chunk is half the size.
        self.potential = jax.jit(lambda z, data: potential_energy(self.model, (), data, self.by_site(z)))
        prior = handlers.block(self.model, hide_fn=_is_data)
        self.prior_potential = jax.jit(lambda z, data: potential_energy(prior, (), data, self.by_site(z)))

    def log_likelihood(self, z, data) -> jax.Array:
        """The density without the prior: of the data, and of all that the program conditions on; −∞ without equilibrium."""
        return self.prior_potential(z, data) - self.potential(z, data)

    @property
    def data(self) -> dict:
        """What the density is given: the problem's observations and inputs."""
        return {"observed": self.problem.observed, "inputs": self.problem.inputs}

    def constrained(self, z, data) -> dict[str, jax.Array]:
        """Values of every site of the program, derived ones too, at z (dimension,)."""
        return constrain_fn(self.model, (), data, self.by_site(z), return_deterministic=True)

    def public(self, values: Mapping) -> dict:
        """The values that a user knows: without coordinates and data."""
        hidden = {name + _BASE for name in self.problem.latent} - set(self.problem.latent)
        return {name: value for name, value in values.items() if name not in hidden and name not in _DATA_SITES}

    def values(self, points, data) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """At points (chains, draws, dimension): what a user knows, by name (chains, draws, …), and the log density."""
        chains, draws, dimension = points.shape
        over = self.mapping(points[0, 0], data)
        told = quickly(over(lambda z: (self.public(self.constrained(z, data)), -self.potential(z, data))))
        flat = told(jnp.reshape(points, (-1, dimension)))
        return jax.tree.map(lambda array: np.asarray(array).reshape(chains, draws, *array.shape[1:]), flat)

    def mapping(self, z, data) -> Callable[[Callable], Callable]:
        """How functions of the density go over a leading dimension: in a vector, or in turn if it is solved by iteration."""
        # Side by side, all would wait for the one that takes longest.
        iterates = "while[" in str(jax.make_jaxpr(self.potential)(z, data))
        return partial(partial, jax.lax.map) if iterates else jax.vmap

    def first_points(self, keys):
        """Starting vectors (chains, dimension) from keys (chains,)."""
        with jax.numpy_rank_promotion("allow"):  # NumPyro promotes ranks when it draws vectors to start from
            return self._draw_first_points(keys)

    @cached_property
    def _draw_first_points(self):
        return quickly(lambda keys: jax.lax.map(self.first_point, keys))

    def first_point(self, key, inputs=None):
        """A starting vector (dimension,), given other inputs of the problem's shapes if there are any."""
        return ravel_pytree(self._first_point(key, inputs))[0]

    def _first_point(self, key, inputs=None):
        """Unconstrained starting values by site."""
        seeded = handlers.substitute(handlers.seed(self.model, key), substitute_fn=self._initial)
        trace = handlers.trace(seeded).get_trace(observed=None, inputs=inputs)
        sites = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"] and n != OBSERVED}
        transforms = {name: biject_to(site["fn"].support) for name, site in sites.items()}
        return transform_fn(transforms, {name: site["value"] for name, site in sites.items()}, invert=True)

    @property
    def names(self) -> list[str]:
        """The parameter or latent that each coordinate of a vector is of."""
        return [name.removesuffix(_BASE) for name, site in sorted(self._shapes.items()) for _ in range(site.size)]

    @cached_property
    def by_site(self):
        """The function from an unconstrained vector to unconstrained values by site."""
        return ravel_pytree(jax.tree.map(lambda site: np.zeros(site.shape, site.dtype), self._shapes))[1]

    @cached_property
    def _shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(self._first_point, jax.random.key(0))


def _is_data(site) -> bool:
    """Whether a site is data or a factor of the program's own, not the Jacobian that NumPyro adds for a coordinate."""
    return site["type"] == "sample" and site["is_observed"] and not site["name"].endswith("_log_det")


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


def _initial(init: Initial, problem: Problem):
    if isinstance(init, str):
        return _INITIAL[init]()
    unknown = sorted(set(init) - set(problem.sampled))
    if unknown:
        raise CalibrationError(
            f"sampler init names the unknown parameter {unknown[0]!r}: sampled are {', '.join(problem.sampled)}"
        )
    given = {name: jnp.asarray(value, float) for name, value in init.items()}
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
