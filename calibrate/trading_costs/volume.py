"""Observing prices and volume of the stationary market with trading costs."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import scipy.optimize

from walras.calibrate.errors import CalibrationError
from walras.calibrate.observation import Observation
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.trading_costs.law import ReturnsAndVolume
from walras.data import standard

_FEWEST = 30  # rows that have a volume less its trend
# A split divides a price by one of these, give or take a day's move of 6 %; the smallest changes a price by a third.
_SPLITS, _NEAR, _OUTLYING = np.array([1.5, *range(2, 31), 40.0, 50.0, 100.0]), 0.06, 12.0
_STILL = 1e-10  # the spread of relative changes that is rounding
_SHOWN = 3  # rows that a message names


@dataclass(frozen=True, kw_only=True)
class PriceAndVolume(Observation):
    """Relative price changes, and log volume less its trend, of one asset; each row is one trading day (or period).

    The trend of log volume is its mean over the `trend` rows before: it uses the past alone, and its rows at the start serve to
    find out how far agents' positions deviate, their own volume having no trend. `splits`: "refuse" prices that look as if
    they had been split, or "keep" them.
    """

    trend: int = 252
    splits: str = "refuse"
    price_column: str = "price"
    volume_column: str = "volume"

    targets: ClassVar[tuple[str, ...]] = ("log_volume", "return")

    def __post_init__(self):
        if isinstance(self.trend, bool) or not isinstance(self.trend, int) or self.trend < 2:
            raise CalibrationError(f"observation trend is {self.trend!r}: give a number of rows of at least 2, such as 252")
        if self.splits not in ("refuse", "keep"):
            raise CalibrationError(f"observation splits is {self.splits!r}: choose one of refuse, keep")

    def standardised(self, frame):
        form = frame.attrs.get("form", "series")
        if form != "series":
            raise CalibrationError(f"data are a {form}: price and volume are observed as a series, give the rows of one asset")
        frame = standard(frame, form="series")
        for column in (self.price_column, self.volume_column):
            if column not in frame:
                raise CalibrationError(
                    f"column {column!r} is missing from the data: name one of {', '.join(map(str, frame.columns))} with "
                    "price_column and volume_column"
                )
        return frame

    def inputs(self, frame):
        return {"rows": np.arange(len(frame))}

    def observed(self, frame):
        volume, returns = self.log_volume(frame), self.returns(frame)
        alone = np.isfinite(volume) & np.isnan(returns)
        if alone.any():
            raise CalibrationError(
                f"column {self.price_column!r} has no price at {_places(frame, alone)}, where there is a volume: drop such "
                "rows, or set their volume missing"
            )
        return np.column_stack([volume, returns])

    def returns(self, frame: pd.DataFrame) -> np.ndarray:
        """Each row's price change relative to the price before; missing in the first row, and in rows to be forecast."""
        price = frame[self.price_column].to_numpy(float)
        known = np.isfinite(price)
        if known.sum() < 2:
            raise CalibrationError(f"column {self.price_column!r} has {known.sum()} prices: give at least two")
        if not known[: known.sum()].all():
            raise CalibrationError(
                f"column {self.price_column!r} has no price at {_places(frame, ~known)}: drop such rows, a return then "
                "reaches over them"
            )
        if (price[known] <= 0).any():
            raise CalibrationError(
                f"column {self.price_column!r} is not positive at {_places(frame, price <= 0)}: relative changes need "
                "positive prices"
            )
        ratio = np.append(np.nan, price[1:] / price[:-1])
        if np.nanstd(ratio) < _STILL:
            raise CalibrationError(
                f"column {self.price_column!r} changes by the factor {np.nanmean(ratio):.6g} in every row: a constant price, "
                "or one that grows steadily, has no volatility to fit"
            )
        if self.splits == "refuse":
            self._refuse_splits(frame, ratio)
        return ratio - 1.0

    def _refuse_splits(self, frame, ratio):
        move = np.abs(np.log(ratio))
        usual = np.nanmedian(move) / 0.6745  # the standard deviation, were moves normal
        to_split = np.abs(move[:, None] - np.log(_SPLITS)[None]).min(axis=1)
        found = (to_split < _NEAR) & (move > _OUTLYING * usual)
        if found.any():
            raise CalibrationError(
                f"column {self.price_column!r} is multiplied by {ratio[found][0]:.4g} at {_places(frame, found)}, as by a "
                "split: give prices and volumes adjusted for splits, or splits='keep' if the market moved so"
            )

    def log_volume(self, frame: pd.DataFrame) -> np.ndarray:
        """Log volume less its mean over the `trend` rows before, missing in those at the start."""
        volume = frame[self.volume_column].astype(float)
        empty = (volume <= 0).to_numpy()
        if empty.any():
            raise CalibrationError(
                f"column {self.volume_column!r} is {volume[empty].iloc[0]:g} at {_places(frame, empty)}: a day without "
                "trade has no log volume, drop such rows or set their volume missing"
            )
        logs = np.log(volume)
        # Half of the rows suffice where some volumes are missing.
        trend = logs.shift(1).rolling(self.trend, min_periods=-(-self.trend // 2)).mean()
        trend.iloc[: self.trend] = np.nan
        found = (logs - trend).to_numpy()
        if np.isfinite(found).sum() < _FEWEST:
            raise CalibrationError(
                f"column {self.volume_column!r} has {np.isfinite(found).sum()} values after the {self.trend} rows of its "
                f"trend: give more rows (at least {self.trend + _FEWEST}), or a smaller trend"
            )
        if np.nanstd(found) == 0:
            raise CalibrationError(f"column {self.volume_column!r} is constant: it says nothing about trading")
        return found

    def moments(self, frame: pd.DataFrame) -> dict[str, float]:
        """The volatility, mean drift and reversion (1 / row) of the stationary market that has the data's moments.

        The standard deviation and mean of returns, and the reversion at which |x| has, from one row to the next, the
        correlation of volume relative to its trend. With a turnover, for `TradingCosts.matching`. The trend moves with
        volume and takes some of that correlation away: with 252 rows a reversion of .08 is found as .086.
        """
        frame = self.standardised(frame)
        returns, volume = self.returns(frame), np.exp(self.log_volume(frame))
        seen = float(_correlation(volume[1:], volume[:-1]))

        def excess(kept):
            # E|x||x′| = (2/π)(√(1 − ρ²) + ρ arcsin ρ) of normals with correlation ρ
            return (np.sqrt(1.0 - kept**2) + kept * np.arcsin(kept) - 1.0) / (np.pi / 2.0 - 1.0) - seen

        if not 0.0 < seen < 1.0:
            raise CalibrationError(
                f"column {self.volume_column!r} less its trend has the correlation {seen:.3g} from row to row: no reversion of "
                "positions gives that, fit the whole law instead"
            )
        reversion = -np.log(scipy.optimize.brentq(excess, 0.0, 1.0))
        return {"volatility": float(np.nanstd(returns)), "drift": float(np.nanmean(returns)), "reversion": float(reversion)}

    def parameters(self, frame):
        spread = float(np.nanstd(self.log_volume(frame)))
        share = Prior("Uniform", 0.0, 1.0, why="the rest of volume does not depend on hedging")
        noise = Prior("LogNormal", float(np.log(spread)), 0.5, why="about the spread of log volume less its trend")
        level = Prior("Normal", 0.0, 0.5, why="the trend is a mean of logs, of the past")
        return {
            "hedging_share": Parameter(share, lower=0.0, upper=1.0, attains=(0.0, 1.0)),
            "volume_level": Parameter(level),
            "volume_noise": Parameter(noise, lower=0.0),
        }

    def latents(self, params, inputs):
        """With the deviation of positions in the first row, which has its stationary law."""
        return {**inputs, "first": numpyro.sample("first_deviation", dist.Normal(0.0, 1.0))}

    def law(self, equilibrium, params, inputs):
        drift, per_unit = equilibrium.drift
        return ReturnsAndVolume(
            inputs["rows"].size,
            reversion=equilibrium.reversion,
            volatility=equilibrium.volatility,
            drift=drift,
            feedback=-per_unit * equilibrium.position_sd,
            first=inputs["first"],
            level=params["volume_level"],
            share=params["hedging_share"],
            noise=params["volume_noise"],
        )

    def counterfactual(self, params, inputs, intervention, solve):
        """Hedgers' volume is as large as their turnover becomes; the rest of volume, and the trend taken off, stay."""
        more = solve(intervention.parameters(params), inputs).turnover / solve(params, inputs).turnover
        share = params["hedging_share"]
        total = 1.0 - share + share * more
        moved = {**params, "hedging_share": share * more / total, "volume_level": params["volume_level"] + jnp.log(total)}
        return super().counterfactual(moved, inputs, intervention, solve)

    def outcomes(self, world, table):
        series, figures = super().outcomes(world, table)
        found = world.equilibrium
        moments = {name: getattr(found, name) for name in ("turnover", "volatility", "reversion")}
        first = {**moments, "drift": found.drift[0], "volume over its trend": jnp.nanmean(jnp.exp(table[:, 0]))}
        # A share of a log's mean says nothing.
        return series, {**first, **{name: value for name, value in figures.items() if not name.endswith("log_volume")}}

    def quantities(self, equilibrium, params, inputs):
        """The market's own parameters, in units of the whole supply and of its value."""
        market = equilibrium.market
        return {
            "trading_cost": market.trading_cost,
            "risk_aversion_low": market.risk_aversion[0],
            "risk_aversion_high": market.risk_aversion[1],
            "endowment": market.endowment[0],
            "payoff_volatility": market.payoff_volatility,
            "position_sd": equilibrium.position_sd,
        }

    def outputs(self, equilibrium, params, inputs):
        """With the standard deviation of the drift, and what each agent pays for trading: a part of the supply's value a row.

        Volatility, mean drift and turnover are parameters themselves.
        """
        return {
            **self.quantities(equilibrium, params, inputs),
            "drift_sd": jnp.abs(equilibrium.drift[1]) * equilibrium.position_sd,
            "cost_of_trading": equilibrium.cost,
        }

    def notes(self, frame):
        return [
            f"Each row counts as one period of trading. Log volume is less its mean over the {self.trend} rows before: its "
            "level then says nothing about turnover, which is as its prior has it, and endowment with it.",
            "The asymmetry of risk aversions moves only the drift, by far less than that is known: along it trading_cost and "
            "both risk aversions vary together, a ridge that price and volume do not tell apart. A high asymmetry with a slow "
            "reversion may fit as well as a low one with a fast one.",
            "Volume says most of what is known of the drift: a shock that agents hedge is the return less its drift.",
        ]

    @property
    def remedies(self):
        return {
            "calibration": "shorten the trend of volume, or leave out days of a special kind",
            "correlation": "volume has a memory that one reversion of positions does not give: shorten its trend",
            "volatility": "choose a period in which volatility is one",
            "statistic": "one volatility and one reversion cannot change it",
        }

    def statistics(self, tables, inputs):
        volume, returns = tables[..., 0], tables[..., 1]
        size = np.abs(returns)
        return {
            "autocorrelation of log volume, 1 row": _correlation(volume[..., 1:], volume[..., :-1]),
            "autocorrelation of log volume, 5 rows": _correlation(volume[..., 5:], volume[..., :-5]),
            "autocorrelation of log volume, 21 rows": _correlation(volume[..., 21:], volume[..., :-21]),
            "correlation of volume and size of return": _correlation(volume, size),
            "correlation of volume and size of return before": _correlation(volume[..., 1:], size[..., :-1]),
            "correlation of volume and return": _correlation(volume, returns),
            "autocorrelation of size of return, 1 row": _correlation(size[..., 1:], size[..., :-1]),
        }

    def dimensions(self):
        return {"deviation": ["time"]}


def _correlation(one, other):
    """Over rows where both are known, (…); NaN where there are none, or one is constant."""
    known = np.isfinite(one) & np.isfinite(other)
    count = np.maximum(known.sum(-1), 1)

    def centred(values):
        values = np.where(known, values, 0.0)
        return np.where(known, values - (values.sum(-1) / count)[..., None], 0.0)

    one, other = centred(one), centred(other)
    size = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    return np.where(size > 0, (one * other).sum(-1) / np.where(size > 0, size, 1.0), np.nan)


def _places(frame, which) -> str:
    """The first of these rows, by their times."""

    def text(time):
        return str(time.date() if isinstance(time, pd.Timestamp) and time == time.normalize() else time)

    times = [text(time) for time in frame.index[which]]
    more = f" and {len(times) - _SHOWN} more" if len(times) > _SHOWN else ""
    return ", ".join(times[:_SHOWN]) + more
