"""How often posterior intervals cover truths that were drawn from the prior."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from walras.calibrate import NUTS, Problem, prior_predictive
from walras.calibrate.samplers import Chains, Draws

LEVEL = 0.9
OVERSAMPLED = 100


def coverage(problem: Problem, sampler: NUTS, *, key, replications: int, fitted: Problem | None = None) -> dict[str, float]:
    """Share of `replications` in which each quantity lies in its central 90 % posterior interval.

    A vector's share is over its entries too. Data are simulated by `problem` and refitted by `fitted` (the same unless
    said), whose program is compiled once. `supply_path` is the simulated supply, where `problem` samples it or has prices
    alone.
    """
    fitted = fitted or problem
    truth_key, fit_key, path_key = jax.random.split(key, 3)
    simulated = truths_of(problem, truth_key, replications)
    tables = np.stack([simulated["prior_predictive"][name][0] for name in problem.observation.targets], -1)
    shown = np.where(np.isnan(problem.observed)[None], np.nan, tables)
    truths = {name: simulated["prior"][name].to_numpy()[0] for name in fitted.latent}
    if "supply_path" in simulated["prior"]:
        truths["supply_path"] = simulated["prior"]["supply_path"].to_numpy()[0]
    elif problem.observation.supply == "latent":
        truths["supply_path"] = tables[..., 1]
    reconstruct = jax.jit(jax.vmap(lambda values, key, table: supply_of(fitted, values, key, table), in_axes=(0, 0, None)))
    inside = {name: [] for name in truths}
    for number, (table, found) in enumerate(zip(shown, refits(fitted, sampler, fit_key, shown), strict=True)):
        draws = {name: array.reshape(-1, *array.shape[2:]) for name, array in found.values.items()}
        if "supply_path" in truths and "supply_path" not in draws:
            latent = {name: draws[name] for name in fitted.latent}
            keys = jax.random.split(jax.random.fold_in(path_key, number), len(next(iter(latent.values()))))
            draws["supply_path"] = np.asarray(reconstruct(latent, keys, table))
        for name, truth in truths.items():
            low, high = np.quantile(draws[name], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
            inside[name].append(np.mean((low <= truth[number]) & (truth[number] <= high)))
    return {name: float(np.mean(shares)) for name, shares in inside.items()}


def refits(fitted: Problem, sampler: NUTS, key, tables) -> Iterator[Draws]:
    """The draws of the problem given each of these tables in place of its own, by one compiled program."""
    chains = Chains(fitted, sampler)
    for one, table in zip(jax.random.split(key, len(tables)), tables, strict=True):
        yield chains.run(jax.random.split(one, sampler.chains), observed=jnp.asarray(table))


def truths_of(problem: Problem, key, replications: int):
    """A prior predictive tree whose parameters agree with what the program takes as given, such as measured supply.

    The program holds the density of measured supply as a factor. Draws of the prior are resampled by it.
    """

    def log_factor(values):
        with handlers.trace() as trace, handlers.substitute(data=values), handlers.seed(rng_seed=0):
            problem.forward(problem.inputs)
        return trace["measured"]["fn"].log_factor

    if "measured" not in problem.sites(lambda: problem.forward(problem.inputs)):
        return prior_predictive(problem, key=key, draws=replications)
    drawn = prior_predictive(problem, key=key, draws=OVERSAMPLED * replications)
    values = {name: jnp.asarray(drawn["prior"][name].to_numpy()[0]) for name in problem.latent}
    log_weights = np.asarray(jax.lax.map(log_factor, values))
    weights = np.exp(log_weights - log_weights.max())
    chosen = np.random.default_rng(0).choice(weights.size, replications, p=weights / weights.sum())
    assert np.unique(chosen).size > 0.9 * replications
    return drawn.isel(draw=chosen)


def supply_of(problem, values, key, table):
    """A draw of the supply path given one draw of the parameters and the observations."""
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        law = problem.forward(problem.inputs)[2]
    return law.reconstruct(key, table)["supply_path"]
