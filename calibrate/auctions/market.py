"""The registered first-price auction: bids of many auctions, whose values differ by a scale."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.calibrate.auctions import bid_table, reserve_table
from walras.calibrate.auctions.bid_table import BidTable
from walras.calibrate.auctions.bids import Bids
from walras.calibrate.auctions.reserve_table import ReserveTable
from walras.calibrate.auctions.values import FAMILIES, LogQuantile, quantile_function
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.registry import Market
from walras.model.auctions.first_price import FirstPriceAuction
from walras.model.equilibrium import Status, all_finite, first_failure

_SPREADS = 7.0  # standard deviations of auctions' log scales that a table of them covers, on each side


class BidEquilibrium(eqx.Module):
    """Log bids by number of bidders, `location` (auctions,) the mean log scale of values; both less `unit`, log money."""

    table: BidTable | ReserveTable
    location: Float[Array, " auctions"]
    unit: Float[Array, " auctions"]
    status: Status


def first_price_auction(params, inputs) -> BidEquilibrium:
    """Bayes–Nash equilibria of all numbers of bidders in `inputs`, with values drawn from one distribution up to scale."""
    location = jnp.broadcast_to(params["value_level"], inputs["first"].shape)
    if "shifter_effect" in params:
        location = location + inputs["shifters"] @ params["shifter_effect"]
    if "log_reserve" in inputs:
        return _above_reserves(params, location, inputs)
    values, numbers, risk = values_of(params), jnp.asarray(inputs["numbers"], float), jnp.asarray(params["risk"], float)

    # Bids scale with values: those of values with median 1 are all.
    def solve(bidders, levels):
        found = FirstPriceAuction(quantile_function(values), bidders, risk).solve(throw=False)
        return found.bid_at(levels), found.status

    bids, status = jax.vmap(solve)(numbers, bid_table.quantiles(numbers))
    return BidEquilibrium(bid_table.tabulate(values, bids, numbers, risk), location, jnp.zeros_like(location), status)


def _above_reserves(params, location, inputs) -> BidEquilibrium:
    relative, unit = location - inputs["log_reserve"], inputs["log_reserve"]
    reach = _SPREADS * params["auction_spread"]
    lowest, highest = jnp.min(relative) - reach, jnp.maximum(jnp.max(relative) + reach, inputs["highest"])
    numbers = jnp.asarray(inputs["numbers"], float)
    table = reserve_table.tabulate(values_of(params), numbers, jnp.asarray(params["risk"], float), lowest, highest)
    return BidEquilibrium(table, relative, unit, first_failure((~all_finite(table), Status.not_finite)))


def values_of(params) -> LogQuantile:
    """The log quantile function of values with median 1 that parameters describe."""
    name = "spline" if "value_slopes" in params else "weibull" if "value_shape" in params else "lognormal"
    return FAMILIES[name].of(params)


def _parameters(observation: Bids, frame):
    first = ~frame.index.get_level_values("auction").duplicated()
    logs, unit = np.log(frame["bid"].to_numpy(float)), frame.attrs["units"].get("bid", "")
    level = Prior(
        "Normal",
        float(logs[first].mean()),
        1.0,
        unit=f"log {unit}" if unit else "",
        why="values are about what is bid, within a factor of e or so",
    )
    auctions = Prior(
        "LogNormal",
        float(np.log(_unexplained(frame[first], logs[first], observation.shifters))),
        0.7,
        why="auctions differ as their highest bids do, within a factor of 4",
    )
    return {
        "value_level": Parameter(level),
        **FAMILIES[observation.values].parameters(_within(frame, logs)),
        "auction_spread": Parameter(auctions, lower=0.0),
        "risk": Parameter(1.0, lower=0.0, upper=1.0, attains=(1.0,)),
    }


def _within(frame, logs: np.ndarray) -> float:
    """Twice the spread of log bids within auctions, about that of values; 0.5 where auctions have one bid each."""
    auction = frame.index.get_level_values("auction")
    if not auction.has_duplicates:
        return 0.5
    means = frame.assign(log=logs).groupby(level="auction", sort=False)["log"].transform("mean").to_numpy()
    return max(2.0 * float(np.std(logs - means)), 0.05)


def _unexplained(frame, logs: np.ndarray, shifters: tuple[str, ...]) -> float:
    """The spread of log bids around a straight line in log shifters."""
    design = np.column_stack([np.ones(logs.size), np.log(frame[list(shifters)].to_numpy(float))])
    return max(float(np.std(logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0])), 0.05)


FIRST_PRICE_AUCTION = Market(
    "first_price_auction",
    first_price_auction,
    _parameters,
    Bids,
    summary="bidders who bid below what the good is worth to them, as much as their rivals let them; the highest wins",
    finite=True,
)
