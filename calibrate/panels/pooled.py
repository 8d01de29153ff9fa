"""Observing many markets at once, whose parameters are shared, drawn around a population, or each market's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro import handlers
from numpyro.distributions import biject_to

from walras.calibrate.errors import CalibrationError
from walras.calibrate.observation import Observation
from walras.calibrate.panels.defaults import combined, spread_of
from walras.calibrate.panels.law import PanelLaw
from walras.calibrate.panels.panel import frames_of
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.registry import Market
from walras.data import standard


class Equilibria(NamedTuple):
    """The equilibria of all markets, stacked for each group of equal shape."""

    groups: tuple[Any, ...]

    @property
    def status(self):
        return jax.tree.map(lambda *of: jnp.concatenate(of), *(group.status for group in self.groups))


@dataclass(frozen=True, kw_only=True)
class Markets(Observation):
    """A panel of markets, each seen as `observation` sees one of them, under one joint posterior.

    Every parameter is in one of three roles. Those in `by_market` are each market's own, drawn around a population: NAME is
    the value of the median market and NAME_spread how far markets lie from it, in the parameter's units where it may be any
    number, of its logarithm where it is positive, and of its logit in an interval; NAME_by_market has the values. Those in
    `own` are each market's own and say nothing of each other; their prior is a vector, with a number for each market. All
    others are shared: with neither, the panel is pooled completely.

    A population is sampled by standardised deviations (NAME_standard), good where a market's data say little of it;
    those in `centred` by the values themselves, good where they say much.
    """

    observation: Observation
    by_market: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    centred: tuple[str, ...] = ()
    kind: str = field(init=False, default="")

    def __post_init__(self):
        for option in ("by_market", "own", "centred"):
            value = getattr(self, option)
            object.__setattr__(self, option, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "kind", f"Markets of {type(self.observation).__name__}")
        if both := sorted(set(self.by_market) & set(self.own)):
            raise CalibrationError(f"own and by_market both name {both[0]!r}: a parameter is pooled or it is not")
        if unknown := sorted(set(self.centred) - set(self.by_market)):
            raise CalibrationError(f"centred names {unknown[0]!r}, which is not in by_market: name it there, or leave it out")

    @property
    def targets(self):
        return self.observation.targets

    @property
    def covariates(self):
        return self.observation.covariates

    def standardised(self, frame):
        if "market" not in (*frame.index.names, *frame.columns):
            raise CalibrationError(
                f"data are a {frame.attrs.get('form', 'table')}: many markets are a panel, with a column that names the market"
            )
        return standard(frame, form="panel")

    def observed(self, frame):
        return np.concatenate([self.observation.observed(rows) for rows in frames_of(frame).values()])

    def inputs(self, frame):
        """Those of each market, stacked for each group of equal shape: "0/NAME", "1/NAME" and so on.

        Among them "market", the markets of the group by number, and "row", the row of the frame of each of their rows; "rows"
        counts those of the frame.
        """
        frames = list(frames_of(frame).values())
        long = self.observation.padded([(self.observation.inputs(rows), self.observation.observed(rows)) for rows in frames])
        places, first = [], 0
        for rows, (_, observed) in zip(frames, long, strict=True):
            there = np.arange(first, first + len(rows))
            places.append(np.append(there, np.full(len(observed) - len(rows), len(frame))))
            first += len(rows)
        groups: dict[str, list[int]] = {}
        for number, (inputs, observed) in enumerate(long):
            groups.setdefault(str(jax.tree.map(np.shape, (inputs, observed))), []).append(number)
        found = {"rows": np.arange(len(frame))}
        for group, members in enumerate(groups.values()):
            stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *(dict(long[number][0]) for number in members))
            stacked |= {"market": np.asarray(members), "row": np.stack([places[number] for number in members])}
            found |= {f"{group}/{name}": array for name, array in stacked.items()}
        return found

    def parameters(self, frame):
        frames = frames_of(frame).values()
        return self._with_spreads(combined([self.observation.parameters(rows) for rows in frames], self.own))

    def adapted(self, market):
        if not isinstance(market, Market):
            return self._build(market)
        if not isinstance(self.observation, market.observation):
            raise CalibrationError(
                f"observation is of {type(self.observation).__name__}: markets of {market.name!r} are observed by "
                f"{market.observation.__name__}"
            )
        if market.solver is not None:
            raise CalibrationError(
                f"market {market.name!r} has a solver that is chosen for each market's own prior: fit its markets one by one"
            )
        # What is hidden in an affine market is integrated for one market at a time only.
        return replace(
            market, build=self._build(market.build), parameters=_parameters(market), observation=Markets, affine=False
        )

    def _build(self, build: Callable) -> Callable:
        return lambda params, inputs: Equilibria(tuple(self._over_markets(build, params, inputs)))

    def _with_spreads(self, found: dict[str, Parameter]) -> dict[str, Parameter]:
        return {**found, **{f"{name}_spread": spread_of(name, found[name]) for name in self.by_market if name in found}}

    def _over_markets(self, function: Callable, params: Mapping, inputs: Mapping, *groups) -> list:
        """`function(params, inputs, …)` of each market, stacked for each group; `groups` has further arguments of each."""
        split = {name for name in (*self.by_market, *self.own) if name in params}
        shared = {name: value for name, value in params.items() if name not in split}
        found = []

        def one(own, inputs, *rest):
            return function({**shared, **own}, inputs, *rest)

        for number, own_inputs in enumerate(_groups(inputs)):
            own = {name: params[name][own_inputs["market"]] for name in split}
            rest = [argument[number] for argument in groups]
            found.append(jax.vmap(one)(own, own_inputs, *rest))
        return found

    def drawn_around(self, params, priors, inputs):
        markets = sum(group["market"].size for group in _groups(inputs))
        found = dict(params)
        for name in self.by_market:
            prior = priors.get(name)
            if not isinstance(prior, Prior) or f"{name}_spread" not in params:
                raise CalibrationError(
                    f"by_market names {name!r}, which has no prior: give it one, and one of {name}_spread, or choose from "
                    f"{', '.join(sorted(params))}"
                )
            found[name] = self._drawn(name, biject_to(prior.distribution().support), params, markets)
        return found

    def _drawn(self, name, transform, params, markets):
        """The values of every market (markets,) around the population's."""
        centre, spread = transform.inv(params[name]), params[f"{name}_spread"]
        if name in self.centred:
            law = dist.TransformedDistribution(dist.Normal(jnp.full(markets, centre), spread), transform)
            return numpyro.sample(f"{name}_by_market", law.to_event(1), infer={"centred": True})
        deviation = numpyro.sample(f"{name}_standard", dist.Normal(jnp.zeros(markets), 1.0).to_event(1))
        return numpyro.deterministic(f"{name}_by_market", transform(centre + spread * deviation))

    def latents(self, params, inputs):
        completed = self._over_markets(self._latents, params, inputs)
        found = {f"{number}/{name}": value for number, group in enumerate(completed) for name, value in group.items()}
        return {**inputs, **found}

    def _latents(self, params, inputs):
        with handlers.block(), handlers.trace() as sites, handlers.seed(rng_seed=0):
            completed = self.observation.latents(params, inputs)
        if sites:
            raise CalibrationError(
                f"{next(iter(sites))!r} would be sampled for every market beside its parameters: a panel in one posterior "
                "cannot, fit its markets one by one"
            )
        return completed

    def law(self, equilibrium, params, inputs):
        laws = self._over_markets(lambda p, i, market: self.observation.law(market, p, i), params, inputs, equilibrium.groups)
        places = tuple(group["row"] for group in _groups(inputs))
        return PanelLaw(tuple(laws), places, inputs["rows"].size, len(self.targets))

    def quantities(self, equilibrium, params, inputs):
        def of_one(params, inputs, market):
            return dict(self.observation.quantities(market, params, inputs))

        parts = self._over_markets(of_one, params, inputs, equilibrium.groups)
        order = jnp.argsort(jnp.concatenate([group["market"] for group in _groups(inputs)]))
        return {f"{name}_by_market": jnp.concatenate([part[name] for part in parts])[order] for name in parts[0]}

    def ridge(self, name, params, inputs):
        if name in self.own or any(other in self.own for other in params):
            return None
        first = jax.tree.map(lambda array: array[0], next(iter(_groups(inputs))))
        return self.observation.ridge(name, params, first)

    def coordinates(self, frame):
        frames = frames_of(frame)
        of_one = self.observation.coordinates(next(iter(frames.values())))
        return {**{name: labels for name, labels in of_one.items() if name != "time"}, "market": list(frames)}

    def dimensions(self):
        of_one = {
            name: ["row" if dim == "time" else dim for dim in dims] for name, dims in self.observation.dimensions().items()
        }
        drawn = {f"{name}_{kind}": ["market"] for name in self.by_market for kind in ("by_market", "standard")}
        return {**of_one, **drawn, **{name: ["market"] for name in self.own}, **{target: ["row"] for target in self.targets}}

    def notes(self, frame):
        notes = [self.observation.notes(rows) for rows in frames_of(frame).values()]
        return [note for note in notes[0] if all(note in others for others in notes)]


def _parameters(market: Market) -> Callable:
    """The parameters of the median market, and the spreads of those that differ."""

    def parameters(observation: Markets, frame: pd.DataFrame):
        frames = list(frames_of(frame).values())
        found = combined([market.parameters(observation.observation, rows) for rows in frames], observation.own)
        known = {**found, **observation.observation.parameters(frames[0])}
        for option in ("by_market", "own"):
            if unknown := [name for name in getattr(observation, option) if name not in known]:
                raise CalibrationError(f"{option} names {unknown[0]!r}: this market has {', '.join(sorted(known))}")
        return observation._with_spreads(found)

    return parameters


def _groups(inputs: Mapping) -> list[dict]:
    """The inputs of each group of markets."""
    found: dict[str, dict] = {}
    for path, value in inputs.items():
        group, _, name = path.partition("/")
        if name:
            found.setdefault(group, {})[name] = value
    return list(found.values())
