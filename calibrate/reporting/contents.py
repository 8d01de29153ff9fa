"""What a fit holds that a report shows: parameters, derived quantities, paths, bands and replications."""

import itertools
import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import xarray as xr
from numpyro.infer import Predictive

from walras.calibrate.prior import Prior
from walras.calibrate.problem import Problem

MANY = 20  # elements beyond which a vector is drawn as a whole rather than one by one
_DRAWS = ("chain", "draw")


def posterior(tree: xr.DataTree) -> xr.Dataset:
    return tree["posterior"].to_dataset()


def target(problem: Problem) -> str:
    return problem.observation.targets[0]


def size(variable: xr.DataArray) -> int:
    """The number of elements in one draw of a variable."""
    return int(np.prod([variable.sizes[d] for d in variable.dims if d not in _DRAWS], dtype=int))


def short(problem: Problem, tree: xr.DataTree) -> list[str]:
    """The sampled parameters whose elements can be drawn one by one."""
    return [name for name in problem.sampled if size(posterior(tree)[name]) <= MANY]


def unsampled(problem: Problem, tree: xr.DataTree) -> list[str]:
    return [str(name) for name in posterior(tree).data_vars if name not in problem.latent]


def several(tree: xr.DataTree) -> bool:
    """Whether there is more than a single point to draw a distribution of."""
    return posterior(tree).sizes["draw"] > 1


def paths(problem: Problem, tree: xr.DataTree) -> list[str]:
    """Reconstructed series: what was neither sampled nor observed, over the rows of the data or a long dimension."""
    rows = set(tree["observed_data"].dims)
    draws = posterior(tree)

    def is_path(variable):
        own = [d for d in variable.dims if d not in _DRAWS]
        return len(own) == 1 and (own[0] in rows or size(variable) > MANY) and _uncertain(variable)

    return [name for name in unsampled(problem, tree) if is_path(draws[name])]


def _uncertain(variable) -> bool:
    """Whether the draws differ by more than rounding: a path that was observed exactly tells nothing new."""
    return bool(variable.std(_DRAWS).max() > 1e-6 * np.abs(variable).max())


def derived(problem: Problem, tree: xr.DataTree) -> list[str]:
    """Quantities that follow from the parameters, such as an elasticity."""
    rows = set(tree["observed_data"].dims)
    draws = posterior(tree)
    return [n for n in unsampled(problem, tree) if not rows & set(draws[n].dims) and size(draws[n]) <= MANY]


def elements(variable: xr.DataArray) -> list[str]:
    """The names of a variable's elements, in the order of ArviZ's tables; one empty name for a scalar."""
    own = [d for d in variable.dims if d not in _DRAWS]
    return [", ".join(map(str, index)) for index in itertools.product(*(variable[d].to_numpy() for d in own))]


def summaries(tree: xr.DataTree, names: list[str]) -> dict[str, pd.DataFrame]:
    """For each variable a frame with a row for each element: mean, sd, low, high (90 %), ess_bulk, ess_tail, r_hat."""
    if not names:
        return {}
    table = az.summary(tree, var_names=names, ci_kind="eti", ci_prob=0.9, round_to="none").astype(float)
    table = table.rename(columns={"eti90_lb": "low", "eti90_ub": "high"})
    draws, found, first = posterior(tree), {}, 0
    for name in names:
        labels = elements(draws[name])
        found[name] = table.iloc[first : first + len(labels)].set_axis(labels)
        first += len(labels)
    return found


def prior_draws(problem: Problem, tree: xr.DataTree, draws: int = 2000) -> xr.Dataset:
    """Draws of the sampled parameters from their prior: the tree's own, or drawn here with the key of the run."""
    if "prior" in tree.children:
        return tree["prior"].to_dataset()[problem.sampled]
    key = jax.random.wrap_key_data(jnp.asarray(json.loads(tree.attrs["key"]), jnp.uint32))
    values = Predictive(_prior_program(problem), num_samples=draws, parallel=True)(key)
    fitted = posterior(tree)[problem.sampled]
    coords = {name: fitted[name] for name in fitted.coords if name not in _DRAWS}
    return xr.Dataset({n: (fitted[n].dims, np.asarray(values[n])[None]) for n in problem.sampled}, coords)


def _prior_program(problem: Problem):
    if callable(problem.priors):
        return problem.priors
    priors = {name: prior for name, prior in problem.priors.items() if isinstance(prior, Prior)}

    def program():
        for name, prior in priors.items():
            numpyro.sample(name, prior.distribution())

    return program


def prior_intervals(prior: xr.Dataset, names: list[str]) -> dict[str, np.ndarray]:
    """The central 90 % of each element's prior: (elements, 2) by name."""
    return {n: prior[n].quantile([0.05, 0.95], _DRAWS).to_numpy().reshape(2, -1).T for n in names}


def wide(*variables: xr.DataArray) -> bool:
    """Whether values are positive and so spread out that only a logarithmic axis shows them."""
    if any((variable <= 0).any() for variable in variables):
        return False
    low, high = np.quantile(np.concatenate([v.to_numpy().ravel() for v in variables]), [0.05, 0.95])
    return bool(high > 30.0 * low)


def unmoved(problem: Problem, tree: xr.DataTree, prior: xr.Dataset) -> list[str]:
    """Elements whose posterior 90 % interval is nearly as long as their prior's: the data say little about them.

    Of what is positive both as it is and in logarithms: either alone may be long where values near zero are likely.
    """
    found = []
    for name in problem.sampled:
        before, after = prior[name], posterior(tree)[name]
        ends = [_ends(v) for v in (before, after)]
        shares = _relative_length(*ends)
        if min(end.min() for end in ends) > 0:
            shares = np.minimum(shares, _relative_length(*map(np.log, ends)))
        labels = [f"{name}[{label}]" if label else name for label in elements(after)]
        found += [label for label, share in zip(labels, shares, strict=True) if share > 0.8]
    return found


def _relative_length(before, after) -> np.ndarray:
    """The lengths of intervals (2, …) after, as shares of those before."""
    lengths = [np.diff(ends, axis=0).ravel() for ends in (before, after)]
    return lengths[1] / np.where(lengths[0] > 0, lengths[0], np.inf)


def _ends(variable: xr.DataArray) -> np.ndarray:
    return variable.quantile([0.05, 0.95], _DRAWS).to_numpy()


def bands(tree: xr.DataTree, probabilities=(0.5, 0.9)) -> dict[float, np.ndarray]:
    """One-step-ahead intervals (2, rows) by probability."""
    simulated = tree["one_step_ahead"]["simulated"].to_numpy()
    ends = [end for p in probabilities for end in ((1 - p) / 2, (1 + p) / 2)]
    found = np.quantile(simulated, ends, axis=(0, 1))
    return dict(zip(probabilities, found.reshape(-1, 2, simulated.shape[-1]), strict=True))


def coverage(tree: xr.DataTree, name: str) -> dict[float, float]:
    """The share of observed values inside each band."""
    observed = tree["observed_data"][name].to_numpy()
    seen = np.isfinite(observed)
    inside = {p: (low <= observed) & (observed <= high) for p, (low, high) in bands(tree).items()}
    return {p: float(found[seen].mean()) for p, found in inside.items()}


def positions(index: pd.Index, rows: int) -> np.ndarray:
    """Where rows stand on a horizontal axis: their times or numbers, or their order when the index has no scale."""
    scaled = index.nlevels == 1 and (pd.api.types.is_numeric_dtype(index) or pd.api.types.is_datetime64_any_dtype(index))
    return index.to_numpy() if scaled and index.is_monotonic_increasing else np.arange(rows)


def replications(tree: xr.DataTree, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Simulated series (draws, rows) and the observed one (rows,), both where there is an observation."""
    observed = tree["observed_data"][name].to_numpy()
    seen = np.isfinite(observed)
    simulated = tree["posterior_predictive"][name].to_numpy()
    return simulated.reshape(-1, observed.size)[:, seen], observed[seen]


def statistics(series: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, standard deviation, first autocorrelation, smallest and largest of series (…, rows)."""
    deviation = series - series.mean(-1, keepdims=True)
    variance = np.mean(deviation**2, axis=-1)
    covariance = np.mean(deviation[..., 1:] * deviation[..., :-1], axis=-1)
    return {
        "mean": series.mean(-1),
        "standard deviation": np.sqrt(variance),
        "lag-1 autocorrelation": covariance / np.where(variance > 0, variance, np.nan),
        "minimum": series.min(-1),
        "maximum": series.max(-1),
    }


def replication_p(tree: xr.DataTree, name: str) -> dict[str, float]:
    """For each statistic the share of simulated series in which it is at least as large as in the data."""
    simulated, observed = replications(tree, name)
    ours, theirs = statistics(observed), statistics(simulated)
    return {label: float(np.mean(theirs[label] >= ours[label])) for label in ours}


def replicated(tree: xr.DataTree) -> list[str]:
    """The targets that have both observations and simulated series."""
    if "posterior_predictive" not in tree.children:
        return []
    return [str(name) for name in tree["observed_data"].data_vars if name in tree["posterior_predictive"]]


def column_of(problem: Problem, name: str) -> str | None:
    """The column of the data that the path `name` is named after ("x_path" after "x"), if there is one."""
    own = [str(c) for c in problem.data.columns if name == str(c) or name.startswith(f"{c}_")]
    return max(own, key=len) if own else None
