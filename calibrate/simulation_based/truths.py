"""Parameters drawn from the prior, and tables simulated from them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.law import Law
from walras.calibrate.problem import Problem, solved

_POOL = 1024  # prior draws from which one is chosen, where the program weighs them
_FEWEST = 20  # the effective number of them below which the one chosen is not a draw of the weighed prior
_ROUNDS = 20


class Truths(NamedTuple):
    """`values` of every site of the program (replications, …) by name, and `tables` (replications, rows, targets).

    `unsolved` draws of the prior had no equilibrium and were replaced: the posterior has no mass there either.
    """

    values: dict[str, np.ndarray]
    tables: np.ndarray
    unsolved: int


def simulate(problem: Problem, key, replications: int) -> Truths:
    """Draw the truth of each replication and its table, which lacks what the data lack.

    The prior is that of the program. Where it holds factors beside its distributions, such as the density of a supply that
    was measured, a draw is chosen by these weights from many.
    """
    draw = quickly(lambda keys: jax.lax.map(_one(problem), keys))
    rounds, left, unsolved = [], replications, 0
    for number in range(_ROUNDS):
        keys = jax.random.split(jax.random.fold_in(key, number), replications)
        values, tables, found, effective = jax.tree.map(np.asarray, draw(keys))
        if np.median(effective) < _FEWEST:
            raise CalibrationError(
                f"the program weighs draws of its prior so unevenly that of {_POOL} only {np.median(effective):.0f} count: "
                "they cannot be simulated, give narrower priors of what is measured"
            )
        kept = np.flatnonzero(found)[:left]
        unsolved += int(np.sum(~found[: kept[-1] + 1 if kept.size == left else replications]))
        rounds.append(jax.tree.map(lambda array, kept=kept: array[kept], (values, tables)))
        left -= kept.size
        if left == 0:
            joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *rounds)
            return Truths(*joined, unsolved)
    raise CalibrationError(
        f"of {_ROUNDS * replications} draws of the prior, the market of {unsolved} has no equilibrium: give priors that are "
        "narrower"
    )


def at_draw(problem: Problem, latent: Mapping) -> tuple[object, Law, dict]:
    """Equilibrium, law and all sites of the program at values of its latent sites."""
    with handlers.trace() as trace, handlers.substitute(data=latent), handlers.seed(rng_seed=0):
        _, equilibrium, law = problem.forward(problem.inputs)
    return equilibrium, law, trace


def _one(problem: Problem) -> Callable:
    """The function from a key to values by site, a table, whether the market is solved, and how many prior draws count."""
    sites = problem.sites(lambda: problem.forward(problem.inputs))
    factors = [name for name, site in sites.items() if site["type"] == "sample" and site["is_observed"]]

    def from_prior(key):
        with handlers.trace() as trace, handlers.seed(rng_seed=key):
            problem.forward(problem.inputs)
        log_weight = sum((jnp.sum(trace[n]["fn"].log_prob(trace[n]["value"])) for n in factors), jnp.zeros(()))
        return {name: trace[name]["value"] for name in problem.latent}, log_weight

    def weighed(key):
        pool_key, choice_key = jax.random.split(key)
        pool, log_weights = jax.lax.map(from_prior, jax.random.split(pool_key, _POOL))
        chosen = jax.random.categorical(choice_key, log_weights)
        weights = jax.nn.softmax(log_weights)
        return jax.tree.map(lambda array: array[chosen], pool), 1.0 / jnp.sum(weights**2)

    def one(key):
        prior_key, table_key = jax.random.split(key)
        latent, effective = weighed(prior_key) if factors else (from_prior(prior_key)[0], jnp.inf)
        equilibrium, law, trace = at_draw(problem, latent)
        derived = {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}
        table, seen = law.sample(table_key), ~jnp.isnan(problem.observed)
        usable = solved(equilibrium) & jnp.all(jnp.isfinite(table) | ~seen)
        return {**latent, **derived}, jnp.where(seen, table, jnp.nan), usable, effective

    return one
