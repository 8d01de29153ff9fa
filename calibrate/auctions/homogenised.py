"""Bids of auctions that differ, brought to one auction: the regression of log bids on logs of the auctions' covariates.

Where values are a product of powers of the auction's covariates and of a private part, equilibrium bids are the same product
times the bid of the private part (Haile, Hong and Shum, NBER 10105, 2003).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from walras.calibrate.errors import CalibrationError

FEWEST_AUCTIONS = 20  # below, a density of bids is a guess


def homogenised(
    bids: Float[np.ndarray, "auctions bidders"], centred: Float[np.ndarray, "auctions covariates"]
) -> tuple[Float[np.ndarray, "auctions bidders"], Float[np.ndarray, " covariates"]]:
    """Bids as they would be at `centred` = 0, logs of the covariates, and the elasticities."""
    regressors = np.column_stack([np.ones(len(bids)), centred])
    elasticities = np.linalg.lstsq(regressors, np.log(bids).mean(axis=1))[0][1:]
    return bids * np.exp(-centred @ elasticities)[:, None], elasticities


def auctions_of(frame: pd.DataFrame, bidders: int) -> pd.DataFrame:
    """The rows of the auctions with so many bids, of a frame in standard form.

    Raises:
        CalibrationError: every auction has one bid, too few have so many, or a bid is missing or zero.
    """
    sizes = frame.groupby(level="auction")["bid"].transform("size")
    if sizes.max() < 2:
        raise CalibrationError("every auction has one bid: give all the bids of each, since values are read off how they vary")
    if "bidders" in frame and not (frame["bidders"] == sizes).all():
        auction = frame.index.get_level_values("auction")[(frame["bidders"] != sizes).to_numpy()].tolist()[0]
        raise CalibrationError(
            f"auction {auction!r} has {frame.loc[auction, 'bidders'].iloc[0]:g} bidders and {len(frame.loc[auction])} bids: "
            "give all the bids of each, since values are read off how they vary"
        )
    chosen = frame[sizes == bidders]
    number = len(chosen) // bidders
    if number < FEWEST_AUCTIONS:
        raise CalibrationError(
            f"{number} auctions have {bidders} bidders: give at least {FEWEST_AUCTIONS}, or choose a frequent number of "
            f"bidders, such as {sizes.mode()[0]}"
        )
    bad = chosen.loc[~(chosen["bid"] > 0), "bid"]
    if len(bad):
        auction, bidder = bad.index.tolist()[0]
        raise CalibrationError(
            f"bid is {bad.iloc[0]} for bidder {bidder!r} of auction {auction!r}: bids must be positive, so "
            "correct it or leave that auction out"
        )
    return chosen


def log_covariates(frame: pd.DataFrame, names: Sequence[str], bidders: int) -> Float[np.ndarray, "auctions covariates"]:
    """Logs of the covariates of each auction, all auctions having so many bidders.

    Raises:
        CalibrationError: a covariate is not a column, not positive or not the auction's own, or they are collinear.
    """
    for name in names:
        _check_covariate(frame, name, bidders)
    logs = np.log(frame[list(names)].to_numpy(float)[::bidders])
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(logs)), logs])) <= len(names):
        raise CalibrationError(f"covariates {', '.join(names)} are constant or collinear in logs: drop one")
    return logs


def _check_covariate(frame, name, bidders):
    if name not in frame or name == "bid":
        others = ", ".join(frame.columns.drop("bid")) or "none"
        raise CalibrationError(f"covariate {name!r} is not a column beside the bids, which are {others}: name one of them")
    column = frame[name]
    bad = column[~(column > 0)]
    if len(bad):
        auction, _ = bad.index.tolist()[0]
        raise CalibrationError(
            f"covariate {name} is {bad.iloc[0]} in auction {auction!r}: its log is taken, so leave that auction out, or "
            "the covariate"
        )
    differs = np.flatnonzero(np.ptp(column.to_numpy().reshape(-1, bidders), axis=1))
    if differs.size:
        auction, _ = column.index.tolist()[differs[0] * bidders]
        raise CalibrationError(
            f"covariate {name} differs between the bids of auction {auction!r}: give one that is the auction's own"
        )
