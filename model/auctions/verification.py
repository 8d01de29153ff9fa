"""A certificate of an auction's equilibrium: what any bidder gains from bids of its own against rivals who keep to theirs.

Nothing here is shared with the solvers but the quantiles of values. Bid functions are tabulated and inverted by monotone
interpolation, which gives the law of rivals' bids; against it the best bid of bidders at many values is searched for among all
of the table's bids, and refined by golden sections.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.integrate import cumulative_simpson
from scipy.interpolate import PchipInterpolator

from walras.model.auctions.affiliated import AffiliatedFirstPriceAuction
from walras.model.auctions.all_pay import AllPayAuction
from walras.model.auctions.asymmetric import AsymmetricFirstPriceAuction
from walras.model.auctions.first_price import FirstPriceAuction
from walras.model.auctions.procurement import ProcurementAuction
from walras.model.auctions.second_price import SecondPriceAuction
from walras.model.auctions.values import quantile
from walras.model.equilibrium import EquilibriumError

_ROWS = 3000  # of a table of bids
_BIDS = 1500  # among which a best one is searched for
_BIDDERS = 99  # values at which bidders are looked at
_SECTIONS = 60
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
_OUTERMOST = 1e-9  # level of the lowest value of a table, and distance from 1 of that of the highest


@dataclass(frozen=True)
class DeviationGain:
    """What bidders gain from deviating, in the unit of values; with risk aversion, of certain payments.

    `deviation_gain` (groups,): the largest of each group, one group where bidders are symmetric; `exploitability` the largest
    of all. `value`, `bid` and `best_bid` (groups,): of the bidders with the largest gain, with what they bid and should have
    bid; NaN for no bid.
    """

    deviation_gain: Float[np.ndarray, " groups"]
    exploitability: float
    value: Float[np.ndarray, " groups"]
    bid: Float[np.ndarray, " groups"]
    best_bid: Float[np.ndarray, " groups"]


@dataclass(frozen=True)
class _Table:
    """Bids at increasing levels of values; NaN for no bid."""

    level: np.ndarray
    value: np.ndarray
    bid: np.ndarray

    @classmethod
    def of(cls, quantile: Callable, bid: Callable) -> "_Table":
        spread = np.log(1.0 / _OUTERMOST)
        even, crowded = np.linspace(0.0, 1.0, _ROWS // 2)[1:-1], 1.0 / (1.0 + np.exp(np.linspace(spread, -spread, _ROWS // 2)))
        level = np.unique(np.concatenate([even, crowded]))
        value = np.asarray(quantile(jax.numpy.asarray(level)), float)
        table = cls(level, value, np.asarray(bid(jax.numpy.asarray(value)), float))
        if not np.any(np.isfinite(table.bid)):
            raise EquilibriumError("equilibrium has no finite bid: verify a solved equilibrium")
        return table

    def law(self) -> Callable[[np.ndarray], np.ndarray]:
        """The probability that a bidder bids less than b, where not bidding is less than any bid."""
        bids = np.isfinite(self.bid)
        level, bid = self.level[bids], np.maximum.accumulate(self.bid[bids])
        bid, last = np.unique(bid[::-1], return_index=True)  # of equal bids, the highest level
        level = level[::-1][last]
        absent = 0.0 if bids[0] else level[0]
        if bid.size < 2:
            return lambda b: np.where(b < bid[0], absent, 1.0)
        inside = PchipInterpolator(bid, level)
        return lambda b: np.where(b < bid[0], absent, np.where(b > bid[-1], 1.0, inside(np.clip(b, bid[0], bid[-1]))))

    def bidders(self) -> "_Table":
        """Some of the rows, evenly spaced in levels."""
        rows = np.unique(np.searchsorted(self.level, np.linspace(0.0, 1.0, _BIDDERS + 2)[1:-1]))
        return _Table(self.level[rows], self.value[rows], self.bid[rows])

    @property
    def finite(self) -> np.ndarray:
        return self.bid[np.isfinite(self.bid)]


def verify_auction(auction: Any, equilibrium: Any) -> DeviationGain:
    """The largest gain of any bidder from deviating; see `verify`."""
    with jax.enable_x64(True):
        found = _CASES[type(auction)](auction, equilibrium)
    if not np.isfinite(found.exploitability):
        raise EquilibriumError("equilibrium has bids that are not finite where bidders bid: verify a solved equilibrium")
    return found


def _gains(table: _Table, candidates: np.ndarray, payoff: Callable):
    """Of the bidders of a table, who may also not bid: (gain, value, bid, best bid) where the gain is largest.

    `payoff(value, bid)` is elementwise, in money.
    """
    some = table.bidders()
    value = some.value[:, None]
    best = np.argmax(payoff(value, candidates[None]), axis=1)
    low, high = candidates[np.maximum(best - 1, 0)], candidates[np.minimum(best + 1, candidates.size - 1)]
    found = _golden(lambda bid: payoff(some.value, bid), low, high)
    found = np.where(payoff(some.value, found) >= payoff(some.value, candidates[best]), found, candidates[best])
    own = np.where(np.isfinite(some.bid), payoff(some.value, np.nan_to_num(some.bid)), 0.0)
    gain = np.maximum(payoff(some.value, found), 0.0) - own
    found = np.where(payoff(some.value, found) < 0, np.nan, found)
    largest = np.argmax(gain)
    return gain[largest], some.value[largest], some.bid[largest], found[largest]


def _golden(function: Callable, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The maximum of a function in brackets, elementwise."""
    for _ in range(_SECTIONS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        up = function(left) < function(right)
        low, high = np.where(up, left, low), np.where(up, high, right)
    return 0.5 * (low + high)


def _result(rows) -> DeviationGain:
    gain, value, bid, best = (np.array(column, float) for column in zip(*rows, strict=True))
    return DeviationGain(gain, float(np.max(gain)), value, bid, best)


def _candidates(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, _BIDS)


def _certain(profit, chance, risk):
    """The certain profit that is worth as much as one that is made by chance; a loss is one for everybody."""
    return np.where(profit > 0, np.maximum(profit, 0.0) * chance ** (1.0 / risk), profit * chance)


def _first_price(auction, equilibrium):
    table = _Table.of(quantile(auction.values), equilibrium.bid)
    law, rivals, risk = table.law(), float(auction.bidders) - 1.0, float(auction.risk)
    lowest = float(auction.reserve) if auction.reserve is not None else min(0.0, table.finite[0])

    def payoff(value, bid):
        return _certain(value - bid, law(bid) ** rivals, risk)

    return _result([_gains(table, _candidates(lowest, table.finite[-1]), payoff)])


def _procurement(auction, equilibrium):
    """As a first-price auction among minus the costs."""
    costs = quantile(auction.costs)
    table = _Table.of(lambda level: -costs(1.0 - level), lambda value: -equilibrium.bid(-value))
    law, rivals, risk = table.law(), float(auction.bidders) - 1.0, float(auction.risk)
    lowest = -float(auction.reserve) if auction.reserve is not None else table.finite[0]

    def payoff(value, bid):
        return _certain(value - bid, law(bid) ** rivals, risk)

    gain, value, bid, best = _gains(table, _candidates(lowest, table.finite[-1]), payoff)
    return _result([(gain, -value, -bid, -best)])


def _second_price(auction, equilibrium):
    """The winner with bid b gains (v − b) H(b) + ∫ H below b, H being the law of the highest rival bid."""
    table = _Table.of(quantile(auction.values), equilibrium.bid)
    law, rivals = table.law(), float(auction.bidders) - 1.0
    lowest = float(auction.reserve) if auction.reserve is not None else table.finite[0]
    bids = np.unique(np.concatenate([[lowest], table.finite]))
    paid_less = PchipInterpolator(bids, cumulative_simpson(law(bids) ** rivals, x=bids, initial=0.0))

    def payoff(value, bid):
        return (value - bid) * law(bid) ** rivals + paid_less(bid)

    return _result([_gains(table, _candidates(lowest, table.finite[-1]), payoff)])


def _all_pay(auction, equilibrium):
    table = _Table.of(quantile(auction.values), equilibrium.bid)
    law, rivals = table.law(), float(auction.bidders) - 1.0
    return _result([_gains(table, _candidates(0.0, table.finite[-1]), lambda value, bid: value * law(bid) ** rivals - bid)])


def _affiliated(auction, equilibrium):
    """A bidder with signal x who bids as one with signal y gains ∫ (v(x, t) − β(y)) dG(t|x) over t below y."""
    low, high = (float(end) for end in auction.signals)
    edges = np.linspace(low, high, _ROWS + 1)
    bids = np.asarray(equilibrium.bid(jax.numpy.asarray(edges)), float)
    middles = jax.numpy.asarray(0.5 * (edges[1:] + edges[:-1]))
    rows = []
    for own in np.linspace(0, _ROWS, _BIDDERS + 2).astype(int)[1:-1]:
        signal = jax.numpy.full_like(middles, edges[own])
        law = np.asarray(jax.vmap(auction.rival)(jax.numpy.asarray(edges), jax.numpy.full(edges.size, edges[own])), float)
        worth = np.asarray(jax.vmap(auction.value)(signal, middles), float)
        payoff = np.append(0.0, np.cumsum(worth * np.diff(law))) - bids * law
        best = np.argmax(payoff)
        rows.append((payoff[best] - payoff[own], edges[own], bids[own], bids[best]))
    return _result([max(rows)])


def _asymmetric(auction, equilibrium):
    groups = range(len(auction.values))
    tables = [
        _Table.of(quantile(auction.values[group]), lambda value, group=group: equilibrium.bid(group, value)) for group in groups
    ]
    laws, sizes = [table.law() for table in tables], [float(size) for size in auction.bidders]
    lowest, top = min(table.finite[0] for table in tables), max(table.finite[-1] for table in tables)

    def payoff(group):
        def of(value, bid):
            chances = [law(bid) ** (sizes[rival] - (rival == group)) for rival, law in enumerate(laws)]
            return (value - bid) * np.prod(np.broadcast_arrays(*chances), axis=0)

        return of

    return _result([_gains(tables[group], _candidates(lowest, top), payoff(group)) for group in groups])


_CASES = {
    FirstPriceAuction: _first_price,
    ProcurementAuction: _procurement,
    SecondPriceAuction: _second_price,
    AllPayAuction: _all_pay,
    AffiliatedFirstPriceAuction: _affiliated,
    AsymmetricFirstPriceAuction: _asymmetric,
}
