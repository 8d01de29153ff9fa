"""What a seller would earn: revenue against the reserve and the number of bidders, for each draw of a fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float
from numpyro import handlers

from walras.calibrate.auctions.bids import Bids
from walras.calibrate.auctions.market import values_of
from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.problem import Problem
from walras.model import FirstPriceAuction
from walras.model.auctions.values import inverse
from walras.model.equilibrium import Status, first_failure

# Over the scale of an auction, which the seller does not know: exact for polynomials of the log scale up to the 29th.
_SCORES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_FARTHEST = 8.0  # normal score of a value that nobody exceeds
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True)
class Revenue:
    """Expected revenue of a seller who does not know an auction's own scale, over draws of a posterior.

    `curve`: for each number of bidders and reserve, the mean of `revenue` over draws, its 90 % interval (`low`, `high`) and the
    mean `sold`, the probability of a sale. `best`: for each number of bidders the reserve that earns most (of those given):
    its `reserve`, mean and 90 % interval over draws, and `gain`, what it earns over the lowest reserve given, in the same way.
    Money is in `unit`.
    """

    curve: pd.DataFrame
    best: pd.DataFrame
    unit: str


def revenue(
    problem: Problem,
    tree: xr.DataTree,
    *,
    reserves: Sequence[float] | None = None,
    bidders: Sequence[int] | None = None,
    seller_value: float = 0.0,
    draws: int = 200,
) -> Revenue:
    """Expected revenue against the reserve and the number of bidders, for an auction of average covariates.

    Where the data's reserve binds, `reserves` and `seller_value` are multiples of it, of at least 1 (what bidders with lower
    values would do is not observed), and bidders are those who would bid at it; else both are in the unit of bids, and a
    reserve of 0 is none. By default 25 reserves from the lowest, and the numbers of bidders in the data. `seller_value` is what
    the good is worth to a seller who keeps it. Bidders' values are those of the fit whatever their number: a fit of one
    number says nothing of others unless that holds.

    Raises `CalibrationError` for another observation than `Bids`, reserves below the lowest, fewer than two bidders.
    """
    observation = problem.observation
    if not isinstance(observation, Bids):
        raise CalibrationError(f"observation is a {type(observation).__name__}: revenue is that of auctions, observed by Bids")
    binding = observation.reserve is not None
    numbers = np.asarray(problem.inputs["numbers"] if bidders is None else bidders, float)
    whole = np.isfinite(numbers) & (numbers == np.round(numbers))
    if numbers.ndim != 1 or not numbers.size or not np.all(whole & (numbers >= 2)):
        raise CalibrationError(f"bidders is {bidders!r}: give whole numbers of at least 2")
    if not np.isfinite(seller_value):
        raise CalibrationError(f"seller_value is {seller_value}: give what the good is worth to a seller who keeps it")
    if draws < 1:
        raise CalibrationError(f"draws is {draws}: give a whole number of at least 1")
    values = drawn(problem, tree, draws)
    given = _reserves(values, problem, binding) if reserves is None else np.unique(np.asarray(reserves, float))
    lowest = 1.0 if binding else 0.0
    if given.size < 2 or not np.all((given >= lowest) & np.isfinite(given)):
        what = "multiples, of at least 1, of the reserve in the data" if binding else "amounts of money of at least 0"
        raise CalibrationError(f"reserves is {reserves!r}: give two or more {what}")
    one = partial(_curve, given, numbers, seller_value, binding)
    earned, sold = (np.asarray(found) for found in quickly(partial(jax.lax.map, one))(values))
    unit = f"times {observation.reserve}" if binding else problem.data.attrs["units"].get("bid", "")
    return Revenue(_table(earned, sold, given, numbers), _best(earned, given, numbers), unit)


def drawn(problem: Problem, tree: xr.DataTree, draws: int) -> dict[str, np.ndarray]:
    """Parameters at evenly spaced draws of all chains, (draws, …) by name, those held fixed included.

    With `location`, the mean log scale of values at average covariates, in the unit of bids or, if it binds, of the reserve.
    """
    posterior = tree["posterior"].to_dataset()
    total = posterior.sizes["chain"] * posterior.sizes["draw"]
    kept = np.linspace(0, total - 1, min(draws, total)).astype(int)
    sampled = {n: posterior[n].to_numpy().reshape(total, *posterior[n].shape[2:])[kept] for n in problem.sampled}

    def parameters(values):
        with handlers.seed(rng_seed=0), handlers.substitute(data=values):
            return {name: jnp.asarray(value, float) for name, value in problem.parameters(problem.inputs).items()}

    found = {name: np.asarray(values) for name, values in jax.vmap(parameters)(sampled).items()}
    return {**found, "location": found["value_level"] - float(np.mean(problem.inputs.get("log_reserve", 0.0)))}


def _reserves(values, problem: Problem, binding: bool) -> np.ndarray:
    """From the lowest reserve to one that few values reach."""
    if binding:
        return np.geomspace(1.0, 4.0, 25)
    return np.linspace(0.0, 3.0 * float(np.exp(np.median(values["location"]))), 25)


def _curve(reserves, numbers, seller_value, binding, params):
    """Revenue and the probability of a sale, each (numbers, reserves)."""
    sale = jax.vmap(lambda reserve, number: sale_of(params, number, reserve, binding, seller_value), (0, None))
    found = jax.vmap(sale, (None, 0))(jnp.asarray(reserves), jnp.asarray(numbers))
    return found.revenue, found.sold


class Sale(NamedTuple):
    """What a seller expects of an auction (money), the probability of a sale, and whether auctions of all scales are solved."""

    revenue: Float[Array, ""]
    sold: Float[Array, ""]
    status: Status


def sale_of(params, number, reserve, binding: bool, seller_value=0.0) -> Sale:
    """The sale to a number of bidders at a reserve, over the scale of the auction, which the seller does not know.

    `params` with `location`, as `drawn` gives them; where the data's reserve is `binding`, it is the unit of money.
    """
    quantile = jnp.vectorize(values_of(params))
    scales = jnp.exp(params["location"] + params["auction_spread"] * jnp.asarray(_SCORES))
    # With a binding reserve, 1, bidders' values are those above it: of all values this share.
    above = ndtr(-inverse(quantile, -jnp.log(scales), -_FARTHEST, _FARTHEST)) if binding else jnp.ones_like(scales)

    def at(scale, share):
        def values(u):
            # 1 − share + share u would round to 1, of which no value is finite
            score = -ndtri(share * (1.0 - u)) if binding else ndtri(u)
            return scale * jnp.exp(quantile(score))

        found = FirstPriceAuction(values, number, params["risk"], reserve).solve(throw=False)
        return found.expected_revenue(seller_value), found.sale_probability, found.status

    earned, sold, status = jax.vmap(at)(scales, above)
    weights, failed = jnp.asarray(_WEIGHTS), ~jnp.all(status == Status.solved)
    return Sale(earned @ weights, sold @ weights, first_failure((failed, Status.not_finite)))


def _table(earned, sold, reserves, numbers) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([numbers.astype(int), reserves], names=["bidders", "reserve"])
    low, high = np.quantile(earned, _INTERVAL, axis=0)
    columns = {"revenue": earned.mean(0), "low": low, "high": high, "sold": sold.mean(0)}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)


def _peak(earned, reserves) -> np.ndarray:
    """Where revenue is highest, between grid points by the parabola through the best and its neighbours."""
    best = earned.argmax(-1)
    if reserves.size < 3:
        return reserves[best]
    place = np.clip(best, 1, reserves.size - 2)
    around = np.take_along_axis(earned, place[..., None] + np.array([-1, 0, 1]), axis=-1)
    x = reserves[place[..., None] + np.array([-1, 0, 1])]
    left, right = np.moveaxis(np.diff(around, axis=-1) / np.diff(x, axis=-1), -1, 0)
    bend = (right - left) / (x[..., 2] - x[..., 0])
    peak = np.where(bend < 0, 0.5 * (x[..., 0] + x[..., 1]) - 0.5 * left / np.where(bend < 0, bend, -1.0), x[..., 1])
    return np.where(best == place, np.clip(peak, x[..., 0], x[..., 2]), reserves[best])


def _best(earned, reserves, numbers) -> pd.DataFrame:
    """Of each draw the best reserve."""
    best, gain = _peak(earned, reserves), earned.max(-1) - earned[..., 0]

    def told(values):
        low, high = np.quantile(values, _INTERVAL, axis=0)
        return {"mean": values.mean(0), "low": low, "high": high}

    index = pd.Index(numbers.astype(int), name="bidders")
    columns = {**{("reserve", k): v for k, v in told(best).items()}, **{("gain", k): v for k, v in told(gain).items()}}
    return pd.DataFrame(columns, index=index)
