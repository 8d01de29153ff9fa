"""Learning to bid: all bidders at once climb the gradients of their own utilities."""

import time
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.model.auctions.game.auction import SmoothedAuction
from walras.model.auctions.game.estimators import Estimator, FirstOrder
from walras.model.auctions.game.evaluation import Bids, evaluate_bids
from walras.model.auctions.game.policies import Policies
from walras.model.equilibrium import EquilibriumError, require_double_precision
from walras.progress import Bar, shown

# Of Adam. With the usual 0.9 bidders overshoot each other's answers, and runs vary more.
_MOMENTUM = 0.5


class Curves(NamedTuple):
    """What was found along the way, after so many iterations (points,): see `Evaluation`.

    `objective` is the mean utility that the estimator saw since the point before, in the smoothed game if it climbs that.
    """

    iterations: Int[np.ndarray, " points"]
    utility_loss: Float[np.ndarray, "points bidders"]
    distance: Float[np.ndarray, "points bidders"]
    objective: Float[np.ndarray, "points groups"]


class LearningProgress(NamedTuple):
    """Where a run is: `done` of `total` iterations in `seconds`, and the largest of bidders' utility losses and distances."""

    done: int
    total: int
    utility_loss: float
    distance: float
    seconds: float


class Learned(NamedTuple):
    """Policies that were learned, and how; `learn` goes on from it as `start`."""

    game: SmoothedAuction
    policies: Policies
    curves: Curves
    optimiser: optax.OptState

    def bid(self, values: Float[Array, "*batch items"], bidder: int = 0) -> Float[Array, "*batch items"]:
        """What one bidder bids with these values."""
        return self.policies.bid(values, bidder)

    @property
    def done(self) -> int:
        """Iterations made."""
        return int(self.curves.iterations[-1]) if self.curves.iterations.size else 0


def learn(
    game: SmoothedAuction,
    *,
    key: Array,
    estimator: Estimator | None = None,
    iterations: int = 4000,
    batch: int = 8192,
    learning_rate: float | optax.Schedule = 0.003,
    shared: bool | None = None,
    equilibrium: Bids | None = None,
    start: Learned | None = None,
    chunk: int = 100,
    progress: bool | Callable[[LearningProgress], None] = False,
) -> Learned:
    """Bidders' policies after `iterations` steps of Adam on gradients from `batch` games each, with new values in every step.

    `estimator` is `FirstOrder()` unless another is given. A number as `learning_rate` falls to zero along a cosine within this
    call; a schedule of the step is followed across calls, so that a run in parts, with the same `key`, ends as one in a piece.
    Bidders share a policy (`shared`) unless their values have different distributions. Every `chunk` iterations policies are
    evaluated, against the known bids `equilibrium` (elementwise in values) if given, and reported to `progress`: True for a
    bar, or a function of `LearningProgress`. Raises `EquilibriumError` for bad arguments and for gradients that are not finite.
    """
    require_double_precision()
    for name, number in (("iterations", iterations), ("batch", batch), ("chunk", chunk)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise EquilibriumError(f"{name} is {number!r}: give a whole number of at least 1")
    if not callable(learning_rate) and not 0.0 < learning_rate < np.inf:
        raise EquilibriumError(f"learning_rate is {learning_rate!r}: give a positive number, such as 0.003, or a schedule")
    optimiser = optax.scale_by_adam(b1=_MOMENTUM)
    policy_key, value_key = jax.random.split(key)
    state = _fresh(game, policy_key, shared, optimiser) if start is None else _resumed(start, game, shared)
    first, total = state.done, state.done + iterations
    rate = learning_rate if callable(learning_rate) else _annealed(learning_rate, first, iterations)
    run = _compiled(game, FirstOrder() if estimator is None else estimator, optimiser, rate, batch)
    began = time.perf_counter()
    with shown(progress, lambda: Bar("learning", _note)) as report:
        while state.done < total:
            state = _further(state, run, value_key, min(chunk, total - state.done), equilibrium)
            if report is not None:
                loss, distance = (float(np.max(curve[-1])) for curve in (state.curves.utility_loss, state.curves.distance))
                report(LearningProgress(state.done, total, loss, distance, time.perf_counter() - began))
    return state


def _fresh(game, key, shared, optimiser) -> Learned:
    policies = Policies.truthful(game, key, shared=game.symmetric if shared is None else shared)
    nothing = np.zeros((0, game.bidders))
    curves = Curves(np.zeros(0, int), nothing, nothing, np.zeros((0, len(policies.centre))))
    return Learned(game, policies, curves, optimiser.init(eqx.filter(policies, eqx.is_inexact_array)))


def _resumed(start: Learned, game: SmoothedAuction, shared) -> Learned:
    given, wanted = ((one.bidders, one.items) for one in (start.game, game))
    groups = len(start.policies.centre)
    if given != wanted or (shared is not None and shared != (groups == 1)) or (groups == 1 and not game.symmetric):
        raise EquilibriumError(
            f"start has {groups} policies of {given[0]} bidders for {given[1]} items: give one that was learned in such a game"
        )
    return start._replace(game=game)


def _annealed(rate: float, first: int, iterations: int) -> optax.Schedule:
    cosine = optax.cosine_decay_schedule(rate, iterations)
    return lambda step: cosine(step - first)


def _compiled(game, estimator, optimiser, rate, batch):
    """A function of policies, the optimiser's state, the key of values, the first step's number, and how many to make."""

    @eqx.filter_jit
    def run(policies, moments, key, first, count: int):
        parameters, static = eqx.partition(policies, eqx.is_inexact_array)

        def step(carry, number):
            parameters, moments = carry
            now = eqx.combine(parameters, static)
            gradient, utility = estimator(game, now, jax.random.fold_in(key, number), batch)
            direction, moments = optimiser.update(gradient, moments, parameters)
            ascent = optax.tree.scale(jnp.asarray(rate(number), jnp.float32), direction)
            return (optax.apply_updates(parameters, ascent), moments), utility

        (parameters, moments), utilities = jax.lax.scan(step, (parameters, moments), first + jnp.arange(count))
        return eqx.combine(parameters, static), moments, jnp.mean(utilities, axis=0)

    return run


def _further(state: Learned, run, value_key, count: int, equilibrium) -> Learned:
    policies, moments, objective = run(state.policies, state.optimiser, value_key, jnp.asarray(state.done), count)
    found = evaluate_bids(state.game, policies, equilibrium)
    if not np.all(np.isfinite(found.utility_loss)):
        raise EquilibriumError(
            f"bids are not finite after {state.done} to {state.done + count} iterations: give a smaller learning_rate, or "
            "values whose mean is finite"
        )
    added = state.done + count, found.utility_loss, found.distance, objective
    curves = Curves(*(np.concatenate([old, np.asarray(new)[None]]) for old, new in zip(state.curves, added, strict=True)))
    return Learned(state.game, policies, curves, moments)


def _note(report: LearningProgress) -> str:
    distance = "" if np.isnan(report.distance) else f", distance {report.distance:.4f}"
    return f"utility loss {report.utility_loss:.1e}{distance}"
