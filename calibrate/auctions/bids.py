"""Observing the bids of many auctions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd

from walras.calibrate.auctions.law import BidLaw, Ordered
from walras.calibrate.auctions.values import FAMILIES, SPLINE_KNOTS
from walras.calibrate.errors import CalibrationError
from walras.calibrate.observation import Observation
from walras.calibrate.prior import Parameter, Prior
from walras.data import standard

BIDDERS = "bidders"


@dataclass(frozen=True, kw_only=True)
class Bids(Observation):
    """Log bids of auctions in which one good is sold to the highest of two or more bidders, at its bid.

    `bids`: "all" of an auction, or the "winning" one alone. `values`: the family of values, "lognormal", "weibull" or
    "spline" (log values a smooth increasing function of their normal score, straight in the tails). `shifters`: columns,
    constant in an auction, whose logs shift the log of values; "bidders" is the number of bidders. That is the number of
    rows that an auction has, unless the data have a column `bidders`. `reserve`: a column with the lowest bid that the seller
    takes. Only those whose values are above it then bid, and they know how many they are.
    """

    bids: Literal["all", "winning"] = "all"
    values: Literal["lognormal", "weibull", "spline"] = "lognormal"
    shifters: tuple[str, ...] = ()
    reserve: str | None = None

    targets: ClassVar[tuple[str, ...]] = ("log_bid",)

    def __post_init__(self):
        shifters = (self.shifters,) if isinstance(self.shifters, str) else self.shifters
        if not isinstance(shifters, Iterable) or not all(isinstance(name, str) for name in shifters):
            raise CalibrationError(f"observation shifters are {self.shifters!r}: give the names of columns")
        object.__setattr__(self, "shifters", tuple(shifters))
        for option, allowed in (("bids", ("all", "winning")), ("values", tuple(FAMILIES))):
            if getattr(self, option) not in allowed:
                raise CalibrationError(f"observation {option} is {getattr(self, option)!r}: choose one of {', '.join(allowed)}")

    def standardised(self, frame):
        """Rows of each auction by falling bid, with a column `bidders`; the first alone if winning bids are observed."""
        form = frame.attrs.get("form", "bids")
        if form != "bids":
            raise CalibrationError(f"data are a {form}: auctions are observed by their bids, one row for each bidder")
        frame = standard(frame, form="bids")
        attrs, bids = frame.attrs, frame["bid"]
        for wrong, what in ((bids.isna(), "missing"), (bids <= 0, "not positive")):
            if wrong.any():
                auction, bidder = wrong.index[wrong.to_numpy()].tolist()[0]
                raise CalibrationError(
                    f"bid of bidder {bidder!r} in auction {auction!r} is {what}: bids have logs, correct it or drop the row"
                )
        rows = frame.groupby(level="auction", sort=False)["bid"].transform("size")
        frame = frame.assign(**{BIDDERS: frame[BIDDERS] if BIDDERS in frame else rows.astype(float)})
        _check_bidders(frame, rows)
        order = np.lexsort((-frame["bid"].to_numpy(), pd.factorize(frame.index.get_level_values("auction"))[0]))
        frame = frame.iloc[order]
        if self.bids == "winning":
            frame = frame.groupby(level="auction", sort=False).head(1)
        for column in self.shifters:
            _check_positive(frame, column, "shifter")
        _check_number(frame, self.shifters)
        if self.reserve is not None:
            _check_reserve(frame, self.reserve)
        frame.attrs = attrs
        return frame

    @property
    def covariates(self):
        return tuple(column for column in self.shifters if column != BIDDERS)

    def observed(self, frame):
        return np.log(frame[["bid"]].to_numpy(float))

    def inputs(self, frame):
        auction = pd.factorize(frame.index.get_level_values("auction"))[0]
        rank = frame.groupby(level="auction", sort=False).cumcount().to_numpy() + 1
        first = np.flatnonzero(rank == 1)
        numbers, kind = np.unique(frame[BIDDERS].to_numpy(float)[first], return_inverse=True)
        return {
            "first": first,
            "others": np.flatnonzero(rank > 1),
            "auction": auction,
            "rank": rank,
            "kind": kind,
            "bidders": numbers[kind],
            "numbers": numbers,
            "shifters": self._shifters(frame),
            **self._reserves(frame),
        }

    def _reserves(self, frame) -> dict[str, np.ndarray]:
        """Log reserves (auctions,), and the highest log bid relative to one; nothing without reserves."""
        if self.reserve is None:
            return {}
        logs = np.log(frame[self.reserve].to_numpy(float))
        first = ~frame.index.get_level_values("auction").duplicated()
        return {"log_reserve": logs[first], "highest": np.max(np.log(frame["bid"].to_numpy(float)) - logs)}

    def _shifters(self, frame) -> np.ndarray:
        """Log shifters (auctions, columns) less their means."""
        first = ~frame.index.get_level_values("auction").duplicated()
        logs = np.log(frame.loc[first, list(self.shifters)].to_numpy(float))
        return logs - logs.mean(axis=0)

    def parameters(self, frame):
        if not self.shifters:
            return {}
        spread = self._shifters(frame).std(axis=0)
        effects = Prior(
            "Normal",
            [0.0] * len(self.shifters),
            list(1.0 / np.maximum(spread, 1e-3)),
            unit="1",
            why="an elasticity; one standard deviation of the log column moves values by a factor of e, either way",
        )
        return {"shifter_effect": Parameter(effects)}

    def law(self, equilibrium, params, inputs):
        ordered = Ordered(**{name: jnp.asarray(inputs[name]) for name in Ordered._fields})
        unit = equilibrium.unit[ordered.auction]
        return BidLaw(equilibrium.table, equilibrium.location, params["auction_spread"], unit, ordered)

    def quantities(self, equilibrium, params, inputs):
        """`median_value` in the unit of bids: of all values, at average shifters, in an auction of the average scale."""
        return {"median_value": jnp.exp(params["value_level"])}

    def outputs(self, equilibrium, params, inputs):
        from walras.calibrate.auctions.outputs import seller_and_winner  # which imports this module through the market

        return {**self.quantities(equilibrium, params, inputs), **seller_and_winner(params, inputs)}

    @property
    def levers(self):
        return tuple(dict.fromkeys((*self.covariates, BIDDERS, self.reserve or "reserve")))

    def counterfactual(self, params, inputs, intervention, solve):
        from walras.calibrate.auctions.scenarios import counterfactual  # which knows this class

        return counterfactual(self, params, inputs, intervention)

    def outcomes(self, world, table):
        from walras.calibrate.auctions.scenarios import outcomes

        return {}, outcomes(world)

    @property
    def remedies(self):
        return {
            "calibration": "choose another family of values (values='spline' bends most), or add shifters",
            "correlation": "bids of an auction do not move together by one scale alone: add shifters, or look at the reserve",
            "volatility": "auctions differ in the spread of their bids: add shifters, or fit kinds of auctions apart",
            "statistic": "another family of values, shifters, or a reserve are what changes it",
        }

    def statistics(self, tables, inputs):
        logs = tables[..., 0]
        rank, auction = np.asarray(inputs["rank"]), np.asarray(inputs["auction"])
        found = {f"{100 * p:g} % quantile of log bids": np.quantile(logs, p, axis=-1) for p in (0.05, 0.25, 0.5, 0.75, 0.95)}
        starts = np.flatnonzero(rank == 1)
        means = np.add.reduceat(logs, starts, axis=-1) / np.diff(np.append(starts, rank.size))
        found["standard deviation of auctions' mean log bids"] = means.std(axis=-1)
        if self.bids == "all":
            second = np.flatnonzero(rank == 2)
            left = logs[..., second - 1] - logs[..., second]
            found["median log distance of the highest two bids"] = np.median(left, axis=-1)
            found["mean log distance of the highest two bids"] = left.mean(axis=-1)
            within = logs - means[..., auction]
            found["standard deviation of log bids within auctions"] = np.sqrt((within**2).mean(axis=-1))
            found["skewness of log bids within auctions"] = (within**3).mean(axis=-1) / (within**2).mean(axis=-1) ** 1.5
        return found

    def notes(self, frame):
        numbers = np.unique(frame[BIDDERS].to_numpy(float)).astype(int)
        auctions = frame.index.get_level_values("auction").nunique()
        found = [
            f"{len(frame)} bids of {auctions} auctions with {', '.join(map(str, numbers))} bidders. Bidders know how many "
            "they are and what their own auction is worth beside its shifters, which moves all of its bids.",
        ]
        if numbers.size > 1 and BIDDERS not in self.shifters:
            found.append("Values are taken to be the same for every number of bidders.")
        if numbers.size == 1 or BIDDERS in self.shifters:
            found.append("Risk aversion is not told from values here: that takes values that do not depend on the bidders.")
        if self.reserve is None:
            found.append("No reserve binds: whoever has a value bids.")
        else:
            found.append(
                f"The column {self.reserve} is the lowest bid that is taken: values below it do not bid, and those of bidders "
                "are the others. median_value is that of all."
            )
        if self.bids == "winning":
            found.append("Winning bids alone tell the spread of values from that of auctions by the shape of bids only.")
        return found

    def story(self, problem, tree):
        from walras.calibrate.auctions.pictures import story  # matplotlib is loaded only when a page is made

        return story(problem, tree)

    def coordinates(self, frame):
        found = {"shifter": list(self.shifters)} if self.shifters else {}
        if self.values == "spline":
            found["normal_score"] = list(SPLINE_KNOTS)
        return found

    def dimensions(self):
        return {"shifter_effect": ["shifter"], "value_slopes": ["normal_score"]}


def _check_reserve(frame, column):
    _check_positive(frame, column, "reserve")
    below = (frame["bid"] < frame[column]).to_numpy()
    if below.any():
        (auction, bidder), row = frame.index[below].tolist()[0], frame[below].iloc[0]
        raise CalibrationError(
            f"bid of bidder {bidder!r} in auction {auction!r} is {row['bid']:g}, below its {column} of {row[column]:g} "
            f"({int(below.sum())} bids are): with reserve={column!r} no value makes such a bid, so drop their auctions or "
            "leave the reserve out"
        )


def _check_bidders(frame, rows):
    numbers = frame[BIDDERS].to_numpy(float)
    wrong = ~(numbers >= 2) | (numbers != np.round(numbers)) | (numbers < rows.to_numpy())
    changes = frame.groupby(level="auction", sort=False)[BIDDERS].transform("nunique").to_numpy() > 1
    if (wrong | changes).any():
        row = np.flatnonzero(wrong | changes)[0]
        auction = frame.index.get_level_values("auction").tolist()[row]
        raise CalibrationError(
            f"auction {auction!r} has {numbers[row]:g} bidders and {rows.iloc[row]} bids: a bidder bids against others, so "
            "drop auctions of one, and give a column bidders one whole number in each auction, at least 2 and its bids"
        )


def _check_positive(frame, column, what):
    if column not in frame:
        raise CalibrationError(
            f"{what} {column!r} is missing from the data: name one of {', '.join(map(str, frame.columns.drop('bid')))}"
        )
    values = frame[column].to_numpy(float)
    if not np.all(values > 0):
        raise CalibrationError(
            f"{what} {column!r} is {values[~(values > 0)][0]:g} in an auction: its log is used, give positive numbers"
        )
    if frame.groupby(level="auction", sort=False)[column].nunique().max() > 1:
        raise CalibrationError(f"{what} {column!r} differs between bids of one auction: give one value for each auction")


def _check_number(frame, shifters):
    """That auctions are more than what describes them, and that no shifter follows from the others."""
    first = frame[~frame.index.get_level_values("auction").duplicated()]
    if len(first) < len(shifters) + 2:
        raise CalibrationError(
            f"data have {len(first)} auctions: with {len(shifters)} shifters the scale of auctions is only told from at least "
            f"{len(shifters) + 2}"
        )
    logs = np.log(first[list(shifters)].to_numpy(float))
    for number, column in enumerate(shifters):
        if np.ptp(logs[:, number]) == 0:
            raise CalibrationError(f"shifter {column!r} is always {first[column].iloc[0]:g}: leave it out")
        if np.linalg.matrix_rank(logs[:, : number + 1] - logs[:, : number + 1].mean(axis=0)) <= number:
            raise CalibrationError(f"shifter {column!r} follows from {', '.join(shifters[:number])}: leave it out")
