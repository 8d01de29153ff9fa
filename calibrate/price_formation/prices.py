"""What every observation of prices shares: columns, noise, covariates."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd

from walras.calibrate.errors import CalibrationError
from walras.calibrate.observation import Observation
from walras.calibrate.predictions.intervention import Change, Intervention
from walras.calibrate.price_formation.errors_law import SeriesErrors
from walras.calibrate.price_formation.statistics import price_statistics
from walras.calibrate.prior import Parameter, Prior
from walras.data import elapsed, standard


@dataclass(frozen=True, kw_only=True)
class Prices(Observation):
    """A price series, seen as the equilibrium's price plus shifts of demand plus an error.

    `supply`: "known" (the column is the supply), "measured" (with error) or "latent" (inferred from prices alone).
    `noise`: "normal" or "student_t"; `errors`: "independent" or "ar1" (decaying by elapsed time across gaps).
    `demand`, `instruments`: columns that shift the price at a given supply, and supply itself. They are centred, and
    their effects are in units per unit of the column.
    """

    supply: Literal["known", "measured", "latent"] = "known"
    noise: Literal["normal", "student_t"] = "normal"
    errors: Literal["independent", "ar1"] = "independent"
    demand: tuple[str, ...] = ()
    price_column: str = "price"
    supply_column: str = "supply"

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def __post_init__(self):
        object.__setattr__(self, "demand", names(self.demand))
        for option, allowed in (
            ("supply", ("known", "measured", "latent")),
            ("noise", ("normal", "student_t")),
            ("errors", ("independent", "ar1")),
        ):
            value = getattr(self, option)
            if value not in allowed:
                raise CalibrationError(f"observation {option} is {value!r}: choose one of {', '.join(allowed)}")

    def standardised(self, frame: pd.DataFrame) -> pd.DataFrame:
        # A frame that says it is standard may have been edited since: it is validated too.
        form = frame.attrs.get("form", "series")
        if form != "series":
            raise CalibrationError(f"data are a {form}: prices are observed as a series, give the rows of one market")
        return standard(frame, form="series")

    def series(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame in standard form, with the columns that this observation needs."""
        frame = frame if "form" in frame.attrs else self.standardised(frame)
        needed = [self.price_column, *self.covariates]
        if self.supply != "latent":
            needed.append(self.supply_column)
        for column in needed:
            if column not in frame:
                raise CalibrationError(
                    f"column {column!r} is missing from the data: name one of {', '.join(map(str, frame.columns))}"
                )
        return frame

    @property
    def covariates(self) -> tuple[str, ...]:
        return self.demand

    @property
    def levers(self) -> tuple[str, ...]:
        return (*self.covariates, self.supply_column)

    def supply_change(self, intervention: Intervention) -> Change | None:
        """What becomes of supply, if anything. Raises `CalibrationError` for a multiple of a supply that has no level."""
        change = intervention.changes.get(self.supply_column)
        if change is not None and self.supply == "latent" and np.any(np.asarray(change.factor) != 1.0):
            raise CalibrationError(
                f"{self.supply_column} is set to a multiple or to values: prices alone cannot tell the level of a latent "
                "supply, give a difference such as +0.5, in its standard deviations"
            )
        return change

    def period(self, frame: pd.DataFrame) -> float:
        """The length of one observation period: the smallest spacing of the rows."""
        return float(np.diff(elapsed(self.series(frame))).min())

    def price(self, frame: pd.DataFrame) -> np.ndarray:
        return self.series(frame)[self.price_column].to_numpy(float)

    def quantity(self, frame: pd.DataFrame) -> np.ndarray:
        """The supply column, all missing when supply is latent."""
        frame = self.series(frame)
        if self.supply == "latent":
            return np.full(len(frame), np.nan)
        quantity = frame[self.supply_column].to_numpy(float)
        if not np.isfinite(quantity).any():
            raise CalibrationError(f"column {self.supply_column!r} has no value: use supply='latent' for prices alone")
        if np.nanstd(quantity) == 0:
            raise CalibrationError(
                f"column {self.supply_column!r} is always {np.nanmean(quantity):g}: a constant supply says nothing about "
                "the price, use supply='latent'"
            )
        return quantity

    def scales(self, frame: pd.DataFrame) -> dict[str, float]:
        """Means, standard deviations and the period of the data, from which default priors take their units.

        With latent supply the unit of supply is its own standard deviation, because prices alone cannot tell it.
        """
        price, quantity = self.price(frame), self.quantity(frame)
        latent = self.supply == "latent"
        return {
            "price_mean": float(np.nanmean(price)),
            "price_sd": float(np.nanstd(price)),
            "price_moves": float(np.sqrt(np.mean(np.diff(price[np.isfinite(price)]) ** 2))),
            "supply_mean": 0.0 if latent else float(np.nanmean(quantity)),
            "supply_sd": 1.0 if latent else float(np.nanstd(quantity)),
            "period": self.period(frame),
        }

    def parameters(self, frame: pd.DataFrame) -> dict[str, Parameter]:
        frame, scale = self.series(frame), self.scales(frame)
        unit = frame.attrs["units"].get(self.price_column, "")
        found = {}
        if self.errors == "ar1":
            found["error_persistence"] = Parameter(
                Prior("Uniform", 0.0, 1.0, why="correlation of the error from one period to the next; it does not alternate"),
                lower=0.0,
                upper=1.0,
            )
        if self.noise == "student_t":
            found["degrees_of_freedom"] = Parameter(
                Prior("Gamma", 2.0, 0.1, why="from heavy tails to nearly normal (Juárez and Steel 2010)"), lower=0.0
            )
        if self.demand:
            found["demand_effect"] = Parameter(effects(frame, self.demand, scale["price_sd"], f"{unit} per unit", "the price"))
        found["price_noise"] = Parameter(
            Prior(
                "HalfNormal",
                scale["price_sd"],
                unit=unit,
                why="what the market leaves unexplained is no larger than the price's own spread",
            ),
            lower=0.0,
        )
        return found

    @property
    def remedies(self):
        memory = "give errors='ar1', or a covariate" if self.errors == "independent" else "add a covariate"
        tails = "fit logs of prices" + (", or heavier-tailed noise" if self.noise == "normal" else "")
        return {
            "calibration": tails,
            "correlation": f"{memory}, such as one that moves demand",
            "volatility": "fit logs of prices, or a period in which volatility is one",
            "statistic": f"{memory}; or fit logs of prices",
        }

    def statistics(self, tables, inputs):
        return price_statistics(tables[..., 0], self.segments(tables.shape[-2], inputs))

    def segments(self, rows: int, inputs) -> np.ndarray:
        """Which rows follow each other, as numbers (rows,) that they share: all of them in one series."""
        return np.zeros(rows, int)

    def errors_around(self, mean, params, since) -> SeriesErrors:
        """The law of prices (rows,) around their means, observed at times `since` the start (rows,) in periods."""
        return SeriesErrors(
            mean,
            params["price_noise"],
            since,
            persistence=params.get("error_persistence"),
            degrees_of_freedom=params.get("degrees_of_freedom"),
        )

    def ridge(self, name, params, inputs):
        # The data identify the error's innovations, of spread noise · √(1 − persistence²); noise is sampled as its log.
        if name != "price_noise" or "error_persistence" not in params:
            return None
        return -0.5 * jnp.log1p(-(params["error_persistence"] ** 2))

    def outputs(self, equilibrium, params, inputs):
        """The market's price, before shifts of demand: its mean, and in a finite game its path, ends and spread.

        On the rows of the data where these are steps of the game; over several days, that of their average.
        """
        found = {**self.quantities(equilibrium, params, inputs), "mean_price": jnp.mean(equilibrium.price)}
        if jnp.ndim(equilibrium.price) == 0:
            return found
        path = equilibrium.price.reshape(-1, equilibrium.price.shape[-1]).mean(axis=0)
        path = path[inputs["step"]] if "step" in inputs else path
        return {**found, "first_price": path[0], "last_price": path[-1], "price_spread": jnp.std(path), "price": path}

    def coordinates(self, frame: pd.DataFrame) -> dict[str, list]:
        times = self.series(frame).index
        found = {"time": list(times)}
        return {**found, "demand_shifter": list(self.demand)} if self.demand else found

    def dimensions(self) -> dict[str, list[str]]:
        return {"demand_effect": ["demand_shifter"], **{target: ["time"] for target in self.targets}}

    @property
    def missing_supply(self) -> str:
        """What becomes of a missing supply, in words."""
        return "the likelihood leaves them out"

    def notes(self, frame: pd.DataFrame) -> list[str]:
        found = [_missing("price", self.price(frame), "the likelihood leaves them out")]
        if self.supply != "latent":
            found.append(_missing("supply", self.quantity(frame), self.missing_supply))
        found = [note for note in found if note]
        if self.supply == "latent":
            found.append(
                "Prices alone cannot tell the scale of supply: its unit here is its own standard deviation, unless a "
                "prior on supply_sd says otherwise. Costs are in that unit."
            )
        return found


def _missing(what: str, values: np.ndarray, consequence: str) -> str:
    count = int(np.isnan(values).sum())
    return f"{count} of {len(values)} values of {what} are missing; {consequence}." if count else ""


def names(columns: str | Iterable[str]) -> tuple[str, ...]:
    """Column names as a tuple; a string is one name."""
    return (columns,) if isinstance(columns, str) else tuple(columns)


def centred(frame: pd.DataFrame, columns: tuple[str, ...], price_column: str) -> np.ndarray:
    """Covariates (rows, columns) less their means over the rows that have a price. Raises for missing or constant ones."""
    for column in columns:
        values = frame[column].to_numpy(float)
        if np.isnan(values).any():
            raise CalibrationError(
                f"covariate {column!r} is missing in {int(np.isnan(values).sum())} rows: leave the rows or the column out"
            )
        if np.std(values) == 0:
            raise CalibrationError(f"covariate {column!r} is always {values[0]:g}: leave it out")
    table = frame[list(columns)].to_numpy(float)
    priced = frame[price_column].notna().to_numpy()
    return table - table[priced].mean(axis=0)


def reliability() -> Parameter:
    """The share of the supply column's variance that is supply; the rest is measurement error."""
    why = "records of quantity are mostly right: about four fifths of their variance is supply"
    return Parameter(Prior("Beta", 8.0, 2.0, why=why), lower=0.0, upper=1.0, attains=(1.0,))


def effects(frame: pd.DataFrame, columns: tuple[str, ...], spread: float, unit: str, what: str) -> Prior:
    """The default prior of covariates' effects: one standard deviation of the column moves `what` by about one."""
    scales = [spread / float(np.std(frame[column].to_numpy(float))) for column in columns]
    return Prior(
        "Normal",
        [0.0] * len(columns),
        scales,
        unit=unit,
        why=f"one standard deviation of the column moves {what} by one of its own, either way",
    )
