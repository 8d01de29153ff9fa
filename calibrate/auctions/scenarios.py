"""What a seller would expect in another world, by the number of bidders in the data."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.calibrate.auctions.bids import BIDDERS, Bids
from walras.calibrate.auctions.counterfactuals import Sale, sale_of
from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictions.intervention import Intervention, World
from walras.model import Status


@dataclass(frozen=True)
class Sales:
    """Sales (numbers,) of auctions of average covariates, and whether all of them were solved."""

    by_number: Sale
    status: Status


def counterfactual(observation: Bids, params, inputs, intervention: Intervention) -> World:
    """The world in which an intervention holds; its law of bids is not needed.

    A reserve in the data binds: the new one is a multiple of it, of at least 1. Otherwise it is an amount of money.
    """
    if intervention.surprise:
        raise CalibrationError("surprise is True, but bidders know the rules of their auction: leave it out")
    params = {name: jnp.asarray(value, float) for name, value in intervention.parameters(params).items()}
    numbers, reserve = _numbers(inputs, intervention), _reserve(observation, intervention)
    binding = observation.reserve is not None
    location = params["value_level"] - float(np.mean(inputs.get("log_reserve", 0.0)))
    if "shifter_effect" in params:
        location = location + _log_shift(observation, intervention) @ params["shifter_effect"]
    place = {**params, "location": location}
    sales = jax.vmap(lambda number: sale_of(place, number, reserve, binding))(jnp.asarray(numbers))
    solved = jnp.all(sales.status == Status.solved)
    return World(params, inputs, Sales(sales, Status.where(solved, Status.solved, Status.not_finite)), None)


def outcomes(world: World) -> dict[str, Float[Array, ""]]:
    """Expected revenue, the probability of a sale and the mean winning bid; the first also by the data's numbers of bidders."""
    sales, inputs = world.equilibrium.by_number, world.inputs
    shares = np.bincount(inputs["kind"], minlength=len(inputs["numbers"])) / len(inputs["kind"])
    figures = {"expected revenue": shares @ sales.revenue, "probability of a sale": shares @ sales.sold}
    figures["mean winning bid"] = figures["expected revenue"] / figures["probability of a sale"]
    for place, number in enumerate(np.asarray(inputs["numbers"], int)):
        figures[f"expected revenue where there are {number} bidders"] = sales.revenue[place]
    return figures


def _numbers(inputs, intervention) -> np.ndarray:
    """What becomes of each number of bidders in the data."""
    before = np.asarray(inputs["numbers"], float)
    numbers = intervention.changes[BIDDERS](before) if BIDDERS in intervention.changes else before
    if not np.all((numbers == np.round(numbers)) & (numbers >= 2)):
        raise CalibrationError(
            f"{BIDDERS} would become {', '.join(f'{n:g}' for n in numbers)}: give a change by which "
            f"{', '.join(f'{n:g}' for n in before)} become whole numbers of at least 2, such as +1"
        )
    return numbers


def _reserve(observation: Bids, intervention) -> float:
    name, binding = observation.reserve or "reserve", observation.reserve is not None
    change = intervention.changes.get(name)
    if change is None:
        return 1.0 if binding else 0.0
    if binding and (change.offset != 0.0 or change.factor < 1.0):
        raise CalibrationError(
            f"{name} binds in the data, and what those with lower values would do is not seen: give a multiple of at least 1, "
            "such as 1.2x"
        )
    reserve = change(1.0 if binding else 0.0)
    if reserve < 0.0 or (not binding and change.factor not in (0.0, 1.0)):
        raise CalibrationError(f"{name} is none in the data: give an amount of money of at least 0, in the unit of bids")
    return float(reserve)


def _log_shift(observation: Bids, intervention) -> np.ndarray:
    """How far the mean logs of shifters move, (columns,)."""
    first = ~intervention.data.index.get_level_values("auction").duplicated()
    moved = []
    for column in observation.shifters:
        values = intervention.changed(column)[first]
        if not np.all(values > 0):
            raise CalibrationError(f"{column} would become {values.min():g} in an auction: its log is used, keep it positive")
        moved.append(np.mean(np.log(values) - np.log(intervention.data[column].to_numpy(float)[first])))
    return np.array(moved)
