"""Values from bids without a parametric family: the two-step estimate of Guerre, Perrigne and Vuong (Econometrica 68, 2000).

In a symmetric first-price auction of independent private values with n bidders and utility x^ρ, a bidder who bids b has
the value

    v = b + ρ G(b) / ((n − 1) g(b)),

G and g being the distribution and the density of bids. The first step estimates them, by ranks and by a kernel; the second
reads the distribution of v off the bids' own. Since v rises with b in equilibrium, the quantile of values at a level is v at
the bids' quantile (Marmer and Shneyerov, Journal of Econometrics 167, 2012). The paper drops bids near the lowest and the
highest; here the density is by default corrected there, as Hickman and Hubbard (Journal of Applied Econometrics 30, 2015)
propose.

| symbol | code           | meaning                                                     | unit          |
|--------|----------------|-------------------------------------------------------------|---------------|
| b      | `bids`         | bids, of auctions that differ only in values                | money         |
| v      | `value`        | values of those who bid, so above a reserve that binds      | money         |
| n      | `bidders`      | bidders in each auction, who know their number              | 1             |
| ρ      | `risk`         | 1 is risk neutral, less is averse                           | 1             |

Whatever moves all the bids of an auction and is not among the covariates counts here as a difference of private values, and
makes the estimated markups too large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Key

from walras.calibrate.auctions.bid_density import Kernel
from walras.calibrate.auctions.homogenised import FEWEST_AUCTIONS, auctions_of, homogenised, log_covariates
from walras.calibrate.errors import CalibrationError
from walras.data import standard

LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
CORRECTED = Kernel()


@dataclass(frozen=True, kw_only=True)
class EstimatedValues:
    """The values behind the bids of auctions with one number of bidders.

    Args:
        bidders, auctions, risk: number of bidders in each auction, number of auctions, the utility's exponent.
        quantiles: (levels,) indexed by ``level``; ``value`` is that quantile of the values in the unit of the bids,
            ``lower`` and ``upper`` its band; NaN where trimmed, a band already if one resample is.
        values: (bids,) indexed by auction and bidder; the ``bid`` as it would be at the covariates of `reference`, and the
            ``value`` behind it; NaN where trimmed.
        bandwidth: of the density of those bids, in their unit, or of their logs.
        elasticities: of bids with respect to each covariate.
        reference: geometric mean of each covariate over auctions. At other covariates x, values and their quantiles are
            multiplied by Π (x / reference)^elasticity.
    """

    bidders: int
    auctions: int
    risk: float
    quantiles: pd.DataFrame
    values: pd.DataFrame
    bandwidth: float
    elasticities: Mapping[str, float]
    reference: Mapping[str, float]


def pseudo_values(
    bids: Float[np.ndarray, "..."], bidders: int, *, risk: float = 1.0, kernel: Kernel = CORRECTED
) -> Float[np.ndarray, "..."]:
    """The value behind each bid.

    Args:
        bids: of auctions that differ only in values, all with the same number of bidders; in any shape.
        bidders: that number.
        risk: exponent of the utility, 1 if risk neutral.
        kernel: how the density of bids is estimated.

    Returns:
        Values, in the shape and the unit of `bids`; NaN where trimmed. Where they fall as bids rise, the bids are not those
        of an equilibrium, or the bandwidth is too small.

    Raises:
        CalibrationError: fewer than two bidders, or bids that are too few, not positive or all equal.
    """
    bids = _checked(bids, bidders, risk)
    order = np.argsort(bids, axis=None)
    ranked = bids.ravel()[order]
    shares = np.searchsorted(ranked, ranked, side="right") / ranked.size
    values = np.empty(bids.size)
    values[order] = _inverse_bid(ranked, shares, ranked, bidders, risk, kernel)
    return values.reshape(bids.shape)


def value_distribution(
    bids: Float[np.ndarray, "..."],
    bidders: int,
    *,
    levels: Sequence[float] = LEVELS,
    risk: float = 1.0,
    kernel: Kernel = CORRECTED,
) -> Float[np.ndarray, " levels"]:
    """Quantiles of the values behind bids at `levels`, rearranged to rise; NaN where trimmed.

    The other arguments and the errors are those of `pseudo_values`; an error also if a level is not between 0 and 1.
    """
    return _quantiles(_checked(bids, bidders, risk).ravel(), bidders, _checked_levels(levels), risk, kernel)


def guerre_perrigne_vuong(
    frame: pd.DataFrame,
    *,
    bidders: int,
    key: Key[Array, ""],
    covariates: Sequence[str] = (),
    levels: Sequence[float] = LEVELS,
    risk: float = 1.0,
    kernel: Kernel = CORRECTED,
    replications: int = 200,
    probability: float = 0.9,
) -> EstimatedValues:
    """The values behind the bids of those auctions of a frame that have a given number of bidders.

    Log bids are first regressed on logs of the covariates, and all auctions brought to the same covariates (see `homogenised`).

    Args:
        frame: in the standard form "bids", with all bids of each auction.
        bidders: only auctions with this many bids are used.
        key: random key of the resampling.
        covariates: columns, positive and constant in each auction.
        levels, risk, kernel: see `value_distribution`.
        replications: how often auctions are resampled for the bands, with the regression and the bandwidth done anew.
        probability: of the bands, at each level by itself. They do not contain the bias of smoothing.

    Raises:
        CalibrationError: auctions of one bid each, or too few of so many; bids that are missing, zero or all equal; covariates
            that are missing, not positive, different within an auction or collinear.
    """
    levels = _checked_levels(levels)
    _check_market(bidders, risk)
    _check_bands(replications, probability)
    chosen = auctions_of(standard(frame, form="bids"), bidders)
    bids, logs = chosen["bid"].to_numpy().reshape(-1, bidders), log_covariates(chosen, covariates, bidders)
    centred = logs - logs.mean(axis=0)
    alike, elasticities = homogenised(bids, centred)

    def resampled(auctions):
        bids_alike, _ = homogenised(bids[auctions], centred[auctions])
        return value_distribution(bids_alike, bidders, levels=levels, risk=risk, kernel=kernel)

    draws = np.asarray(jax.random.randint(key, (replications, len(bids)), 0, len(bids)))
    tails = [(1 - probability) / 2, (1 + probability) / 2]
    lower, upper = np.quantile([resampled(auctions) for auctions in draws], tails, axis=0)
    value = value_distribution(alike, bidders, levels=levels, risk=risk, kernel=kernel)
    behind = pseudo_values(alike, bidders, risk=risk, kernel=kernel)
    return EstimatedValues(
        bidders=bidders,
        auctions=len(bids),
        risk=risk,
        quantiles=pd.DataFrame({"value": value, "lower": lower, "upper": upper}, pd.Index(levels, name="level")),
        values=pd.DataFrame({"bid": alike.ravel(), "value": behind.ravel()}, chosen.index),
        bandwidth=kernel.width(alike),
        elasticities=dict(zip(covariates, elasticities.tolist(), strict=True)),
        reference=dict(zip(covariates, np.exp(logs.mean(axis=0)).tolist(), strict=True)),
    )


def _inverse_bid(points, shares, bids, bidders, risk, kernel):
    """v at sorted `points`, where the distribution of bids is `shares`."""
    return points + risk * shares / ((bidders - 1) * kernel.density(points, bids))


def _quantiles(bids, bidders, levels, risk, kernel):
    order = np.argsort(levels)
    values = _inverse_bid(np.quantile(bids, levels[order]), levels[order], bids, bidders, risk, kernel)
    kept = ~np.isnan(values)
    values[kept] = np.sort(values[kept])
    return values[np.argsort(order)]


def _check_market(bidders, risk):
    if bidders < 2:
        raise CalibrationError(f"bidders is {bidders}: a bid tells of a value only against another, so give 2 or more")
    if not risk > 0:
        raise CalibrationError(f"risk is {risk}: the utility's exponent must be positive, 1 being risk neutral")


def _check_bands(replications, probability):
    if replications < 2:
        raise CalibrationError(f"replications is {replications}: a band needs at least 2, and some hundred to be stable")
    if not 0 < probability < 1:
        raise CalibrationError(f"probability is {probability}: give one between 0 and 1, such as 0.9")


def _checked(bids, bidders, risk):
    _check_market(bidders, risk)
    bids = np.asarray(bids, float)
    fewest = FEWEST_AUCTIONS * bidders
    if bids.size < fewest:
        raise CalibrationError(f"there are {bids.size} bids: give at least {fewest}, of {FEWEST_AUCTIONS} auctions")
    if not (np.isfinite(bids) & (bids > 0)).all():
        bad = bids[~(np.isfinite(bids) & (bids > 0))][0]
        raise CalibrationError(f"a bid is {bad}: bids must be positive and finite, so correct it or leave its auction out")
    if np.ptp(bids) == 0:
        raise CalibrationError(f"every bid is {bids.flat[0]}: bids that do not vary tell nothing of values")
    return bids


def _checked_levels(levels):
    levels = np.asarray(levels, float)
    if levels.ndim != 1 or not levels.size or not ((levels > 0) & (levels < 1)).all():
        raise CalibrationError(f"levels are {levels.tolist()}: give one or more between 0 and 1, ends excluded")
    return levels
