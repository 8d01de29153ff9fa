"""Observing many trading days at once: one game for each, with parameters that they share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

from walras.calibrate.errors import CalibrationError
from walras.calibrate.price_formation.prices import Prices, names
from walras.calibrate.prior import Parameter, Prior
from walras.data import standard

# Between the last row of a day and the first of the next, in periods: the errors of different days are independent.
_APART = 1e6


@dataclass(frozen=True, kw_only=True)
class TradingDays(Prices):
    """Prices of a panel of days (`walras.data.days`), each a game whose agents foresee the day's supply.

    Days share all parameters but those named in `by_day`, of which each day has its own: with `pooling` "partial" they are
    drawn around the shared one with a spread that is inferred (`NAME_spread`: in the parameter's units, or of its logarithm
    where it is positive); with "none" that spread is fixed at a wide value, so that days say nothing of each other. An empty
    `by_day` pools everything. A day's net supply is its supply less the day's mean, which what consumes or backs it up meets.
    Errors are independent between days; within a day they are independent or AR(1).
    """

    by_day: tuple[str, ...] = ("price_level",)
    pooling: Literal["partial", "none"] = "partial"

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "by_day", names(self.by_day))
        if self.supply != "known":
            raise CalibrationError(f"observation supply is {self.supply!r}: trading days need a known supply")
        if self.demand:
            raise CalibrationError(f"observation demand is {self.demand}: trading days have no demand shifters")
        if self.pooling not in ("partial", "none"):
            raise CalibrationError(f"observation pooling is {self.pooling!r}: choose one of partial, none")

    def standardised(self, frame):
        form = frame.attrs.get("form", "panel" if frame.index.nlevels == 2 else "series")
        if form != "panel":
            raise CalibrationError(f"data are a {form}: trading days are a panel, make it with walras.data.days")
        frame = standard(frame, form="panel")
        sizes = frame.groupby(level="market", sort=False).size()
        if not pd.api.types.is_numeric_dtype(frame.index.get_level_values("time")):
            raise CalibrationError("the panel's times are dates: trading days have hours, as walras.data.days makes them")
        hours = frame.index.get_level_values("time").to_numpy(float)
        first = hours[: sizes.iloc[0]]
        regular = np.allclose(first, np.linspace(first[0], first[-1], first.size))
        if not (regular and np.array_equal(hours, np.tile(first, len(sizes)))):
            raise CalibrationError(
                "the markets of the panel have different or irregular times: each day needs the same equal steps, "
                "as walras.data.days makes them"
            )
        if self.supply_column in frame and frame[self.supply_column].isna().any():
            raise CalibrationError(f"column {self.supply_column!r} has missing values: leave those days out")
        return frame

    def period(self, frame):
        hours = self._days(frame).columns.to_numpy(float)
        return float(hours[1] - hours[0]) if hours.size > 1 else 1.0

    def _days(self, frame) -> pd.DataFrame:
        """Supply as a table (days, steps)."""
        return self.series(frame).pivot_table(self.supply_column, "market", "time", sort=False)

    def observed(self, frame):
        return self.price(frame)[:, None]

    def inputs(self, frame):
        supply = self._days(frame).to_numpy(float)
        days, steps = supply.shape
        if steps < 2:
            raise CalibrationError("days have a single row: give at least two steps a day")
        since = np.arange(steps)[None, :] + _APART * np.arange(days)[:, None]
        return {
            "supply": supply - supply.mean(axis=1, keepdims=True),
            "horizon": np.asarray(self.period(frame) * steps),
            "elapsed": since.ravel(),
        }

    def parameters(self, frame):
        found = super().parameters(frame)
        spread = self.scales(frame)["price_sd"]
        for name in self.by_day:
            wide = spread if _additive(name) else 1.0
            why = "days differ by as much as prices do" if _additive(name) else "days differ by a factor of up to seven"
            unit = self.series(frame).attrs["units"].get(self.price_column, "") if _additive(name) else ""
            prior = Prior("HalfNormal", spread if _additive(name) else 0.5, unit=unit, why=why)
            found[f"{name}_spread"] = Parameter(prior if self.pooling == "partial" else 2.0 * wide, lower=0.0)
        return found

    def latents(self, params, inputs):
        own = {}
        for name in self.by_day:
            if name not in params:
                raise CalibrationError(f"by_day names {name!r}: this market has {', '.join(sorted(params))}")
            days = jnp.zeros(inputs["supply"].shape[0])
            spread = params[f"{name}_spread"]
            if _additive(name):
                # A day's many prices fix its level far better than the other days do: sampled as it is.
                law = dist.Normal(params[name] + days, spread).to_event(1)
                own[name] = numpyro.sample(f"{name}_by_day", law, infer={"centred": True})
            else:
                standard = numpyro.sample(f"{name}_standard", dist.Normal(days, 1.0).to_event(1))
                own[name] = numpyro.deterministic(f"{name}_by_day", params[name] * jnp.exp(spread * standard))
        return {**inputs, "by_day": own}

    def counterfactual(self, params, inputs, intervention, solve):
        """Agents foresee what an intervention makes of each day's supply; what meets the day's mean stays as it is."""
        if intervention.surprise:
            raise CalibrationError("surprise is True, but agents of this market foresee each day's supply: leave it out")
        moved = intervention.shift((self.supply_column,)).reshape(inputs["supply"].shape)
        return super().counterfactual(params, {**inputs, "supply": inputs["supply"] + moved}, intervention, solve)

    def law(self, equilibrium, params, inputs):
        return self.errors_around(equilibrium.price.reshape(-1), params, inputs["elapsed"])

    def segments(self, rows, inputs):
        days = np.shape(inputs["supply"])[0]
        return np.repeat(np.arange(days), rows // days)

    def coordinates(self, frame):
        return {"day": list(self._days(frame).index)}

    def dimensions(self):
        per_day = {f"{name}_{kind}": ["day"] for name in self.by_day for kind in ("by_day", "standard")}
        return {**per_day, "price": ["row"]}

    def notes(self, frame):
        return [
            *super().notes(frame),
            "Agents foresee each day's supply, so one-step scores use the day's future.",
            "A day's net supply is its supply less that day's mean; what meets the mean is not part of the market.",
        ]


def _additive(name: str) -> bool:
    """Whether days differ in a parameter by a sum; in costs, which are positive, they differ by a factor."""
    return name in ("price_level", "price_trend", "well_centre")
