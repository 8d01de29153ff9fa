"""The parameters of a problem as numbers in a row: their names, their distribution, and draws of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from numpyro.distributions import constraints
from scipy import stats
from scipy.special import ndtr, ndtri

from walras.calibrate.predictions.predictive import latent_values, prior_draws
from walras.calibrate.problem import Problem
from walras.calibrate.quantiles import empirical, quantiles

_PRIOR_DRAWS = 1000  # of joint priors, and to start from
_ROUNDING = 1e-9
_MIDDLE = ndtr(np.array([-1.0, 1.0]))  # half of what is between is the standard deviation of a normal law


@dataclass(frozen=True)
class Space:
    """Scalar parameters, elements of vectors one by one.

    `names` (columns,); `shapes` of the sampled parameters; `draws` (draws, columns) of the distribution, and `noise`, what is
    sampled beside the parameters, at each; `quantiles`, the inverse distribution functions; `correlation` that of normal
    scores, None where the parameters are independent. `positive`: whether only positive values are allowed; `prior_sd` half of
    the middle 68 % of the prior.
    """

    names: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    draws: Float[np.ndarray, "draws columns"]
    noise: dict[str, np.ndarray]
    quantiles: dict
    correlation: Float[np.ndarray, "columns columns"] | None
    positive: Bool[np.ndarray, " columns"]
    prior_sd: Float[np.ndarray, " columns"]

    def only(self, columns: list[int]) -> tuple[dict, np.ndarray | None]:
        """The quantile functions and the correlation of some columns."""
        kept = {self.names[i]: self.quantiles[self.names[i]] for i in columns}
        return kept, None if self.correlation is None else self.correlation[np.ix_(columns, columns)]

    @property
    def typical(self) -> Float[np.ndarray, " columns"]:
        return np.median(self.draws, axis=0)

    @property
    def units(self) -> Float[np.ndarray, " columns"]:
        """One standard deviation over the draws: of the log of positive parameters, else in prior standard deviations."""
        return np.where(
            self.positive, middle(np.log(np.where(self.positive, self.draws, 1.0))), middle(self.draws) / self.prior_sd
        )


def middle(values: np.ndarray) -> np.ndarray:
    """Half of the middle 68 % along the first axis: the standard deviation of normal values, and finite for all others."""
    return 0.5 * np.ptp(np.nanquantile(values, _MIDDLE, axis=0), axis=0)


def split(shapes: Mapping[str, tuple[int, ...]], row) -> dict:
    """A row (columns,) as parameters by name."""
    found, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        found[name] = row[start : start + size].reshape(shape)
        start += size
    return found


def space_of(problem: Problem, tree: xr.DataTree | None, key: jax.Array) -> Space:
    """The space of the posterior in a tree, or of the prior without one."""
    drawn, _ = prior_draws(problem, key, _PRIOR_DRAWS)
    values = drawn if tree is None else latent_values(problem, tree)
    shapes = {name: values[name].shape[2:] for name in problem.sampled}
    names = _names(problem, shapes)
    draws, prior = _table(values, shapes), _table(drawn, shapes)
    by_prior = _prior_quantiles(problem, names, shapes, prior, key)
    independent = tree is None and not callable(problem.priors)
    return Space(
        names=names,
        shapes=shapes,
        draws=draws,
        noise={n: np.reshape(v, (-1, *v.shape[2:])) for n, v in values.items() if n in problem.latent and n not in shapes},
        quantiles=by_prior if independent else {name: empirical(draws[:, i]) for i, name in enumerate(names)},
        correlation=None if independent else _score_correlation(draws),
        positive=_positive(problem, shapes),
        prior_sd=np.array([0.5 * float(np.ptp(by_prior[name](_MIDDLE))) for name in names]),
    )


def _table(values: Mapping[str, np.ndarray], shapes) -> np.ndarray:
    """(chains, draws, …) by name → (chains · draws, columns)."""
    columns = [np.reshape(values[name], (values[name].shape[0] * values[name].shape[1], -1)) for name in shapes]
    return np.concatenate(columns, axis=1)


def _names(problem: Problem, shapes) -> tuple[str, ...]:
    """Elements of vectors by their coordinate, or their number: `demand_effect[mon]`."""
    coordinates, dimensions = problem.observation.coordinates(problem.data), problem.observation.dimensions()
    names = []
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        known = [label for along in dimensions.get(name, []) for label in coordinates.get(along, [])]
        labels = known if len(known) == size else range(size)
        names += [name] if not shape else [f"{name}[{label}]" for label in labels]
    return tuple(names)


def _prior_quantiles(problem: Problem, names, shapes, prior, key) -> dict:
    if callable(problem.priors):
        return {name: empirical(prior[:, i]) for i, name in enumerate(names)}
    functions = []
    for name in shapes:
        functions += quantiles(problem.priors[name], key)
    return dict(zip(names, functions, strict=True))


def _score_correlation(draws: np.ndarray) -> np.ndarray:
    scores = ndtri((stats.rankdata(draws, axis=0) - 0.5) / len(draws))
    found = np.atleast_2d(np.corrcoef(scores, rowvar=False))
    return (1.0 - _ROUNDING) * found + _ROUNDING * np.eye(len(found))


def _positive(problem: Problem, shapes) -> np.ndarray:
    sites = problem.sites(lambda: problem.parameters(problem.inputs))
    found = []
    for name, shape in shapes.items():
        support = sites[name]["fn"].support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        low = np.broadcast_to(np.asarray(_bound(support)), shape).ravel()
        found += list(low >= 0.0)
    return np.array(found, bool)


def _bound(support) -> float:
    """The lower bound of a support; −∞ where it depends on other parameters."""
    low = getattr(support, "lower_bound", -np.inf)
    return -np.inf if isinstance(low, jax.core.Tracer) else low
