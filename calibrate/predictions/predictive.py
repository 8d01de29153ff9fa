"""What follows from draws of the parameters: densities, replications, forecasts."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from walras.calibrate.compiling import quickly, remember
from walras.calibrate.errors import CalibrationError, require_whole
from walras.calibrate.law import Law, log_densities
from walras.calibrate.problem import Problem, solved
from walras.calibrate.tree import observed_columns, to_tree

_FARTHEST = 10  # times the rows of the data: what is farther is the law of the market, and takes minutes


def flat(values: dict) -> dict[str, np.ndarray]:
    """(chains, draws, …) → (chains · draws, …)."""
    return {name: np.asarray(array).reshape(-1, *array.shape[2:]) for name, array in values.items()}


def _mapped(function):
    """The program that takes draws (draws, …) to `function` of each in turn."""
    # Not vectorised: that would take longer to compile than it saves.
    return quickly(lambda *arguments: jax.lax.map(lambda draw: function(*draw), arguments))


def over_draws(function, *arguments):
    """`function` of each draw in turn; NumPy arrays (draws, …)."""
    return jax.tree.map(np.asarray, _mapped(function)(*arguments))


def world_at(problem: Problem, values: dict):
    """Parameters, equilibrium, law and the sites of the program at given values of its latent sites."""
    program = handlers.seed(handlers.substitute(lambda: problem.forward(problem.inputs), data=values), jax.random.key(0))
    with handlers.trace() as trace:
        forward: tuple = program()
    return *forward, trace


def _given(trace) -> jax.Array:
    """The log density of what the program takes as given beside its law, such as measurements of supply."""
    given = [site for site in trace.values() if site["type"] == "sample" and site["is_observed"]]
    return sum((jnp.sum(site["fn"].log_prob(site["value"])) for site in given), jnp.zeros(()))


def law_at(problem: Problem, values: dict) -> Law:
    """The law of the data at given values of the program's latent sites."""
    return world_at(problem, values)[2]


def pointwise(problem: Problem, values: dict, key) -> dict:
    """Per draw: one-step-ahead laws and leave-one-out densities, log priors, solver failures, and what was not observed.

    `values`: latent sites (chains, draws, …). Returns arrays (chains, draws, …).
    """
    chains, draws = next(iter(values.values())).shape[:2]
    result = _scores(problem)(flat(values), jax.random.split(key, chains * draws))
    return jax.tree.map(lambda array: np.asarray(array).reshape(chains, draws, *array.shape[1:]), result)


@remember(8)
def _scores(problem: Problem):
    """The program of `pointwise`, kept for further fits of the same problem."""
    observed = problem.observed
    target = observed[:, 0]

    def one(values, key):
        _, equilibrium, law, trace = world_at(problem, values)
        sampled = {name: trace[name] for name in problem.sampled}
        ahead = law.one_step_ahead(observed)
        simulate_key, key = jax.random.split(key)
        return {
            "log_density": log_densities(ahead, target),
            "probability": ahead.cdf(target),
            "simulated": ahead.sample(simulate_key),
            "leave_one_out": law.leave_one_out(observed),
            "left_out_probability": law.leave_one_out_probability(observed),
            "log_likelihood": law.log_prob(observed) + _given(trace),
            "log_prior": {name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in sampled.items()},
            "solver_failed": ~solved(equilibrium),
            "reconstructed": law.reconstruct(key, observed),
        }

    return _mapped(one)


def latent_values(problem: Problem, tree: xr.DataTree) -> dict[str, np.ndarray]:
    """The draws of the program's latent sites in a tree, each (chains, draws, …)."""
    missing = [name for name in problem.latent if name not in tree["posterior"]]
    if missing:
        raise CalibrationError(f"the run has no draws of {missing[0]!r}: it was fitted to another problem")
    return {name: tree["posterior"][name].to_numpy() for name in problem.latent}


def _require_count(**counts):
    """Raise unless each is a whole number, of Python or NumPy, of at least 1."""
    require_whole(**{name: (count.item() if isinstance(count, np.integer) else count, 1) for name, count in counts.items()})


def thinned(values: dict, draws: int | None) -> dict:
    if draws is None:
        return values
    _require_count(draws=draws)
    available = next(iter(values.values())).shape[1]
    if draws > available:
        raise CalibrationError(f"draws is {draws} but each chain of the run has {available}: ask for at most that many")
    kept = np.linspace(0, available - 1, draws).astype(int)
    return {name: array[:, kept] for name, array in values.items()}


def _replicate(problem: Problem, values: dict, key) -> dict[str, np.ndarray]:
    """A simulated table for each draw, its columns by name, each (chains, draws, rows)."""
    chains, draws = next(iter(values.values())).shape[:2]
    tables = over_draws(lambda v, k: world_at(problem, v)[2].sample(k), flat(values), jax.random.split(key, chains * draws))
    tables = tables.reshape(chains, draws, *tables.shape[1:])
    return {name: tables[..., column] for column, name in enumerate(problem.observation.targets)}


def posterior_predictive(problem: Problem, tree: xr.DataTree, *, key, draws: int | None = None) -> xr.DataTree:
    """The tree with a `posterior_predictive` group: whole series simulated anew at each draw (or at `draws` per chain)."""
    require_same(problem, tree)
    values = thinned(latent_values(problem, tree), draws)
    made = to_tree(problem, {"posterior_predictive": _replicate(problem, values, key)})
    joined = xr.DataTree.from_dict({**_datasets(tree), **_datasets(made)}, name=tree.name)
    joined.attrs = tree.attrs
    return joined


def predictive_statistics(problem: Problem, tree: xr.DataTree) -> pd.DataFrame:
    """The statistics of whole tables that the observation names, in the data and in the tree's replicated tables.

    A row for each: `observed`, the `5 %` and `95 %` quantiles over replications, and `p`, the share of replications in which
    it is at least as large. Replications lack what the data lack; statistics that the data do not have are left out. Empty
    without replications or where nothing is named.
    """
    columns = ["observed", "5 %", "95 %", "p"]
    if "posterior_predictive" not in tree.children:
        return pd.DataFrame(columns=columns)
    require_same(problem, tree)
    observed = np.asarray(problem.observed)
    replicated = [tree["posterior_predictive"][name].to_numpy() for name in problem.observation.targets]
    tables = np.stack([values.reshape(-1, len(observed)) for values in replicated], axis=-1)
    ours = problem.observation.statistics(observed, problem.inputs)
    theirs = problem.observation.statistics(np.where(np.isnan(observed), np.nan, tables), problem.inputs)
    rows = {
        name: (float(value), *np.quantile(theirs[name], [0.05, 0.95]), float(np.mean(theirs[name] >= value)))
        for name, value in ours.items()
        if np.isfinite(value)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype(float)


def prior_draws(problem: Problem, key, draws: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws of the prior, (1, draws, …) by name, and for each (1, draws) whether its market has no equilibrium."""

    def one(key):
        with handlers.trace() as trace, handlers.seed(rng_seed=key):
            _, equilibrium, _ = problem.forward(problem.inputs)
        derived = {name for name, site in trace.items() if site["type"] == "deterministic"}
        values = {name: trace[name]["value"] for name in (*problem.latent, *sorted(derived))}
        return values, ~solved(equilibrium)

    return jax.tree.map(lambda array: array[None], over_draws(one, jax.random.split(key, draws)))


def prior_predictive(problem: Problem, *, key, draws: int = 500) -> xr.DataTree:
    """A tree with groups `prior`, `prior_predictive` and `observed_data`, from `draws` draws of the prior.

    `sample_stats_prior.solver_failed` marks draws whose market has no equilibrium.
    """
    _require_count(draws=draws)
    prior_key, tables_key = jax.random.split(key)
    values, failed = prior_draws(problem, prior_key, draws)
    groups = {
        "prior": values,
        "prior_predictive": _replicate(problem, {name: values[name] for name in problem.latent}, tables_key),
        "sample_stats_prior": {"solver_failed": failed},
        "observed_data": observed_columns(problem),
    }
    return to_tree(problem, groups, {"digest": problem.digest})


def forecast(
    problem: Problem, tree: xr.DataTree, future: pd.DataFrame | None = None, *, key, periods: int | None = None
) -> xr.Dataset:
    """The predictive law of the targets in the rows after the last: (chain, draw, time), for each target.

    `future`: rows to predict, with their times and covariates (targets are ignored); when absent, `periods` further ones (1),
    on days of the week that the data have, with every covariate at its mean. Each draw continues the observed series from
    its own filtered state.
    """
    require_same(problem, tree)
    extended, rows = extended_by(problem, future, periods)
    values = latent_values(problem, tree)
    chains, draws = next(iter(values.values())).shape[:2]

    def one(values, key):
        return world_at(extended, values)[2].complete(key, extended.observed)[-rows:]

    tables = over_draws(one, flat(values), jax.random.split(key, chains * draws))
    tables = tables.reshape(chains, draws, *tables.shape[1:])
    return xr.Dataset(
        {n: (("chain", "draw", "time"), tables[..., i]) for i, n in enumerate(problem.observation.targets)},
        coords={"time": np.asarray(extended.data.index[-rows:])},
    )


def unforecastable(problem: Problem) -> str | None:
    """Why nothing can be forecast from the problem's rows; None where they can be continued."""
    if problem.data.index.nlevels > 1:
        return "data are not one series: forecasting needs rows ordered in time"
    if problem.registered is not None and problem.registered.finite:
        return f"market {problem.market!r} is one finite game that ends with its data: forecast with the stationary market"
    return None


def extended_by(problem: Problem, future: pd.DataFrame | None, periods: int | None = None) -> tuple[Problem, int]:
    """The problem with rows to be forecast, and their number. Raises `CalibrationError` where nothing can be forecast."""
    data = problem.data
    if refusal := unforecastable(problem):
        raise CalibrationError(refusal)
    if future is not None and periods is not None:
        raise CalibrationError(f"periods is {periods}, and future has rows of its own: give one of them")
    future = pd.DataFrame(index=_next_times(data.index, 1 if periods is None else periods)) if future is None else future
    if len(future) == 0 or not (future.index > data.index[-1]).all() or not future.index.is_monotonic_increasing:
        raise CalibrationError(f"future must have rows after the last time {data.index[-1]}, in increasing order")
    # Only covariates are known in advance: every other column, whatever its name, is missing in the future.
    known = problem.observation.covariates
    values = {c: (future[c] if c in future else data[c].mean()) if c in known else np.nan for c in data.columns}
    rows = pd.DataFrame(values, index=future.index)
    joined = pd.concat([data, rows])
    joined.index.name = data.index.name
    joined.attrs = data.attrs
    return problem.with_data(joined), len(future)


def _next_times(index: pd.Index, periods: int) -> pd.Index:
    """Times after the last at the smallest spacing; where rows are days, on the days of the week that the index has."""
    _require_count(periods=periods)
    if periods > _FARTHEST * len(index):
        raise CalibrationError(
            f"periods is {periods}, more than {_FARTHEST} times the {len(index)} rows of the data: forecast fewer"
        )
    step = pd.Series(index).diff().min()
    daily = isinstance(index, pd.DatetimeIndex) and step == pd.Timedelta(days=1)
    # A week has at least one of them.
    ahead = pd.Index([index[-1] + step * number for number in range(1, (7 if daily else 1) * periods + 1)], name=index.name)
    return (ahead[ahead.day_of_week.isin(index.day_of_week.unique())] if daily else ahead)[:periods]


def require_same(problem: Problem, tree: xr.DataTree):
    if tree.attrs.get("digest") != problem.digest:
        raise CalibrationError(
            "the run was fitted to another problem (their digests differ): give the problem that it was fitted to"
        )


def _datasets(tree: xr.DataTree) -> dict:
    return {name: node.to_dataset() for name, node in tree.children.items()}
