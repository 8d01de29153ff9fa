"""A calibration problem: a market, its data, how it is observed, and priors."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from numpyro import handlers

from walras.calibrate import registry
from walras.calibrate.errors import CalibrationError, require_double_precision
from walras.calibrate.law import Law
from walras.calibrate.observation import Observation
from walras.calibrate.prior import Parameter, Prior
from walras.model import Status

_PRIOR_DRAWS = 16  # from which a solver is chosen
OBSERVED = "observed"  # the NumPyro site of the data
PRIORS = "priors"  # of the inputs: parameters of priors, where they are data


class Identified:
    """What has a market, data, an observation and priors, and is known by them."""

    market: str | Callable
    data: pd.DataFrame
    observation: Observation
    priors: Mapping[str, Prior | float] | Callable

    @cached_property
    def digest(self) -> str:
        """A hash of the problem's canonical JSON, of the source of its functions, and of the data's bytes and clock."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        for function in (self.market, self.priors):
            if callable(function):
                digest.update(_source(function))
        self._add_data(digest)
        return digest.hexdigest()

    @property
    def data_digest(self) -> str:
        """A hash of the data's bytes and clock alone."""
        digest = hashlib.sha256()
        self._add_data(digest)
        return digest.hexdigest()

    def _add_data(self, digest):
        digest.update(str(self.data.attrs.get("time_unit")).encode())
        for name in [*self.data.index.names, *self.data.columns]:
            digest.update(str(name).encode())
        digest.update(pd.util.hash_pandas_object(self.data).to_numpy().tobytes())

    def to_json(self) -> dict:
        """The problem without its data, as plain data; functions by their import path."""
        priors = (
            _path(self.priors)
            if callable(self.priors)
            else {n: p.to_json() if isinstance(p, Prior) else p for n, p in self.priors.items()}
        )
        return {
            "market": self.market if isinstance(self.market, str) else _path(self.market),
            "observation": {"kind": type(self.observation).__name__, **asdict(self.observation)},
            "priors": priors,
        }


@dataclass(frozen=True, eq=False)
class Problem(Identified):
    """What is calibrated. Frozen; hashed and compared by `digest`.

    `market`: a registered name (its parameters then have default priors), or a plain function
    `build(params, inputs) → equilibrium`. `data`: a standard frame (`walras.data`). `observation`: how the data are seen.
    `priors`: for each parameter a `Prior`, or a number that fixes it; or a callable that samples the parameters with
    NumPyro and returns them by name (for joint, ordered or hierarchical priors).

    Raises `CalibrationError` for a parameter without a prior, an unknown one, a prior with the wrong support, unusable
    data, or single precision.
    """

    market: str | Callable
    data: pd.DataFrame
    observation: Observation
    priors: Mapping[str, Prior | float] | Callable = field(default_factory=dict)

    def __post_init__(self):
        require_double_precision()
        object.__setattr__(self, "data", self.observation.standardised(self.data))
        _ = self.inputs, self.observed  # before the priors, whose defaults need usable data
        if not callable(self.priors):
            object.__setattr__(self, "priors", MappingProxyType(self._complete(self.priors)))

    def _complete(self, given: Mapping) -> dict[str, Prior | float]:
        """The given priors, checked, with the defaults of the market and of the observation for the rest."""
        declared = dict(self.observation.parameters(self.data))
        if self.registered:
            if not isinstance(self.observation, self.registered.observation):
                raise CalibrationError(
                    f"observation is a {type(self.observation).__name__}: market {self.market!r} is observed by "
                    f"{self.registered.observation.__name__}"
                )
            declared = {**self.registered.parameters(self.observation, self.data), **declared}
            unknown = sorted(set(given) - set(declared))
            if unknown:
                raise CalibrationError(
                    f"priors name the unknown parameter {unknown[0]!r}: this problem has {', '.join(sorted(declared))}"
                )
        for name, prior in given.items():
            _check_prior(name, prior, declared.get(name))
        return {**{name: parameter.default for name, parameter in declared.items()}, **given}

    @property
    def registered(self) -> registry.Market | None:
        """The registered market, or None when the market is a function."""
        return self.observation.adapted(registry.market(self.market)) if isinstance(self.market, str) else None

    @cached_property
    def build(self) -> Callable:
        """`build(params, inputs) → equilibrium`, with a solver chosen from draws of the prior if the market wants one."""
        if self.registered is None:
            return self.observation.adapted(self.market)
        build, choose = self.registered.build, self.registered.solver
        if choose is None:
            return build
        # A choice from values, also where the first to ask is a program that is being traced.
        with jax.ensure_compile_time_eval():
            return partial(build, solver=choose(partial(self._solve_prior_draws, build)))

    def _solve_prior_draws(self, build, solver):
        """The equilibria of a few draws of the prior, always the same ones: they choose a grid, and no result."""

        def draw(key):
            with handlers.block(), handlers.seed(rng_seed=key):
                params = self.parameters(self.inputs)
                inputs = self.observation.latents(params, self.inputs)
            return build(params, inputs, solver=solver)

        # One after the other: a hard market would hold up all the others.
        return jax.jit(partial(jax.lax.map, draw))(jax.random.split(jax.random.key(0), _PRIOR_DRAWS))

    @cached_property
    def inputs(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(array) for name, array in self.observation.inputs(self.data).items()}

    @cached_property
    def observed(self) -> jax.Array:
        """The observations (rows, targets), NaN where missing."""
        return jnp.asarray(self.observation.observed(self.data), float)

    @property
    def sampled(self) -> list[str]:
        """The names of the parameters that have a prior."""
        if callable(self.priors):
            return [name for name, site in self.sites(self.priors).items() if site["type"] == "sample"]
        return [name for name, prior in self.priors.items() if isinstance(prior, Prior)]

    @cached_property
    def latent(self) -> list[str]:
        """The names of everything the program samples beside the data: parameters, and latents such as a path."""
        sites = self.sites(lambda: self.forward(self.inputs))
        return [name for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]]

    @staticmethod
    def sites(program: Callable) -> dict:
        """The sites of a NumPyro program, traced without computing anything."""
        found = {}

        def trace(key):
            found.update(handlers.trace(handlers.seed(program, key)).get_trace())
            return 0

        jax.eval_shape(trace, jax.random.key(0))
        return found

    def forward(self, inputs) -> tuple[dict, object, Law]:
        """Parameters, equilibrium and law of one draw: the part of the NumPyro program before the data."""
        params, inputs, equilibrium = self.equilibrium(inputs)
        for name, value in self.observation.quantities(equilibrium, params, inputs).items():
            numpyro.deterministic(name, value)
        return params, equilibrium, self.observation.law(equilibrium, params, inputs)

    def equilibrium(self, inputs) -> tuple[dict, Mapping, object]:
        """Parameters, completed inputs and equilibrium of one draw: the part of the NumPyro program before the law."""
        params, inputs = self.completed(inputs)
        return params, inputs, self.build(params, inputs)

    def completed(self, inputs) -> tuple[dict, Mapping]:
        """Parameters, and inputs with what is sampled or integrated beside them: what the market is built from."""
        params = self.parameters(inputs)
        if self.registered and self.registered.affine:
            return params, self.observation.integrated(params, inputs, partial(self.build, params))
        return params, self.observation.latents(params, inputs)

    def structure(self, params, inputs) -> dict:
        """The economic parameters that `params` stand for; see `Structure`."""
        found = self.registered and self.registered.structure
        return dict(params) if found is None else found.of(params, inputs)

    def solve(self, structure, inputs):
        """The equilibrium of economic parameters."""
        found = self.registered and self.registered.structure
        if found is None:
            return self.build(structure, inputs)
        chosen = getattr(self.build, "keywords", {})  # the solver, if the market wants one
        return found.solve(structure, inputs, **chosen)

    def parameters(self, inputs) -> dict:
        """The parameters by name, a NumPyro program: sampled from their priors, or held fixed."""
        if callable(self.priors):
            return self.priors()
        params, given = {}, inputs.get(PRIORS, {})
        for name, prior in self.priors.items():
            if isinstance(prior, Prior):
                ridge = self.observation.ridge(name, params, inputs)
                law = prior.like(given[name]) if name in given else prior.distribution()
                params[name] = numpyro.sample(name, law, infer={} if ridge is None else {"ridge": ridge})
            else:
                params[name] = jnp.asarray(given.get(name, prior), float)
        return self.observation.drawn_around(params, self.priors, inputs)

    def model(self, observed="data", inputs=None):
        """The NumPyro program. Conditioned on the problem's data; `observed=None` leaves them to be simulated.

        A draw whose market has no equilibrium has log density −∞. Returns the table of observations.
        """
        observed = self.observed if isinstance(observed, str) else observed
        inputs = self.inputs if inputs is None else inputs
        _, equilibrium, law = self.forward(inputs)
        found = solved(equilibrium)
        numpyro.factor("solved", jnp.where(found, 0.0, -jnp.inf))
        with handlers.mask(mask=found):
            table = numpyro.sample(OBSERVED, law, obs=observed)
        if observed is None:
            for column, name in enumerate(self.observation.targets):
                numpyro.deterministic(name, table[:, column])
        return table

    def with_data(self, data: pd.DataFrame) -> "Problem":
        """The same problem, its priors included, on other data."""
        return Problem(self.market, data, self.observation, self.priors)

    def observing(self, table) -> "Problem":
        """The same problem with other observations, a table (rows, targets), whatever its data say."""
        other, observed = object.__new__(Problem), jnp.asarray(table, float)
        digest = hashlib.sha256(self.digest.encode() + np.asarray(observed).tobytes()).hexdigest()
        vars(other).update({**vars(self), "observed": observed, "digest": digest})
        return other

    def __reduce__(self):
        priors = self.priors if callable(self.priors) else dict(self.priors)
        kept = {"observed": self.observed, "digest": self.digest}  # which may be others than those of its data
        return Problem, (self.market, self.data, self.observation, priors), kept

    def __hash__(self):
        return hash(self.digest)

    def __eq__(self, other):
        return isinstance(other, Problem) and self.digest == other.digest


def solved(equilibrium) -> jax.Array:
    """Whether a market was solved; of a panel, whether all were."""
    return jnp.all(equilibrium.status == Status.solved)


def _check_prior(name: str, prior, parameter: Parameter | None):
    if isinstance(prior, bool) or not isinstance(prior, Prior | int | float):
        raise CalibrationError(f"prior of {name!r} is {prior!r}: give a Prior, or a number that fixes the parameter")
    if not isinstance(prior, Prior) and not np.isfinite(prior):
        raise CalibrationError(f"{name} is fixed at {prior}: give a finite number")
    if parameter is None:
        return
    shape = prior.distribution().event_shape if isinstance(prior, Prior) else ()
    if shape != parameter.shape:
        wanted = f"sequences of {parameter.shape[0]} numbers, one for each column" if parameter.shape else "single numbers"
        raise CalibrationError(f"prior of {name!r} is {prior}, whose values have shape {shape}: give a Prior of {wanted}")
    if isinstance(prior, Prior) and not parameter.covers(prior):
        raise CalibrationError(
            f"prior of {name!r} is {prior}, which allows values outside {parameter.range}: choose a family with that "
            "support, such as " + ("LogNormal" if np.isinf(parameter.upper) else "Uniform")
        )
    if not isinstance(prior, Prior) and not parameter.allows(prior):
        raise CalibrationError(f"{name} is fixed at {prior}: give a number in {parameter.range}")


def _source(function) -> bytes:
    """The text of a function, so that an edited one is another. What it closes over, or cannot be read, is not told apart."""
    try:
        return inspect.getsource(function).encode()
    except (OSError, TypeError):
        return b""


def _path(function):
    return f"{function.__module__}:{function.__qualname__}"
