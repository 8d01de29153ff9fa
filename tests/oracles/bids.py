"""Laws of bids in auctions by quadrature of the textbook formulas, with log-normal values whose log has the spread `spread`.

Nothing is tabulated and nothing is shared with `walras.calibrate.auctions`.
"""

import functools
import itertools

import numpy as np
from scipy import integrate, special, stats
from scipy.interpolate import CubicSpline

_HIGHEST = 8.0  # normal score of a value that nobody exceeds


def log_bid(level, bidders, spread, risk=1.0, scale=0.0, reserve=False):
    """Log bids and log values at levels, with log values N(scale, spread²), above a log reserve of 0 if there is one."""
    k, above = (bidders - 1.0) / risk, special.ndtr(scale / spread) if reserve else 1.0

    def value(part, level, scale, above):  # at a part of the level
        score = -special.ndtri(above * (1.0 - level * part)) if reserve else special.ndtri(level * part)
        return np.exp(scale + spread * score)

    # with s = t^k the integrand has no pole
    places = np.broadcast_arrays(level, scale, above)
    found = integrate.tanhsinh(lambda s, *at: value(s ** (1.0 / k), *at), 0.0, 1.0, args=tuple(places), rtol=1e-11)
    return np.log(found.integral), np.log(value(1.0, *places))


@functools.cache
def _law(bidders, spread, risk, scale, reserve):
    """Log bids, log densities and levels from the lowest to the highest bid."""
    cut = -scale / spread if reserve else -_HIGHEST
    cut = max(cut, -_HIGHEST)
    scores = cut + (np.sqrt(max(cut, 0.0) ** 2 + _HIGHEST**2) - cut) * np.linspace(1e-4, 0.8, 160)
    whole = stats.norm.sf(cut) if reserve else 1.0
    levels = 1.0 - stats.norm.sf(scores) / whole if reserve else special.ndtr(scores)
    bids, values = log_bid(levels, bidders, spread, risk, scale, reserve)
    k = (bidders - 1.0) / risk
    return bids, np.log(levels) - np.log(k) - np.log(np.expm1(values - bids)), levels


def interpolated(bidders, spread, risk=1.0, scale=0.0, reserve=False):
    """log g and G as functions of the log bid, within the range of bids; and the highest bid."""
    bids, densities, levels = _law(bidders, spread, risk, scale, reserve)
    return CubicSpline(bids, densities), CubicSpline(bids, levels), bids[-1]


def joint_log_density(bids, bidders, spread, location, auction_spread, risk=1.0, named=False):
    """Of the highest bids of one auction, in order, the others being below them; or of as many `named` bidders, whatever the
    others bid. Without a reserve.
    """
    density, level, top = interpolated(bidders, spread, risk)
    bids = np.sort(np.asarray(bids, float))[::-1]
    missing = bidders - bids.size

    def integrand(scale):
        inside = bids - scale
        logs = stats.norm.logpdf(scale, location, auction_spread) + density(inside).sum()
        return np.exp(logs) * (np.clip(level(inside[-1]), 0.0, 1.0) ** missing if missing and not named else 1.0)

    first = bids[0] - top
    ends = first + np.concatenate([[0.0], np.geomspace(1e-3, 6.0 * auction_spread + 3.0, 12)])
    total = sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-8, limit=200)[0] for a, b in itertools.pairwise(ends))
    orders = 0.0 if named else sum(np.log(bidders - place) for place in range(bids.size))
    return np.log(total) + orders
