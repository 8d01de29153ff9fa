"""What follows from values for the seller and the winner, in an auction of average covariates."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from walras.calibrate.auctions.market import values_of
from walras.model import FirstPriceAuction
from walras.model.auctions.bidding import mean_of_highest
from walras.model.auctions.values import inverse

_LEVELS, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LEVELS, _WEIGHTS = 0.5 * (_LEVELS + 1.0), 0.5 * _WEIGHTS
_FARTHEST = 8.0  # normal score of a value that nobody exceeds


def seller_and_winner(params, inputs) -> dict:
    """With the commonest number of bidders: revenue, the winner's rent, and how far bids are below values.

    `expected_revenue` is that of a sale, in the unit of bids and over auctions of all scales; where a reserve binds, in
    multiples of it and at the average scale. `winner_rent` is the part of the highest value that its bidder keeps;
    `bid_to_value` the mean ratio over bidders.
    """
    bidders = float(np.argmax(np.bincount(np.asarray(inputs["bidders"], int))))
    binding = "log_reserve" in inputs
    values, unit = _bidders_values(params, inputs) if binding else (_values(params), _unit(params))
    found = FirstPriceAuction(values, bidders, params["risk"], 1.0 if binding else None).solve(throw=False)
    levels = jnp.asarray(_LEVELS)
    revenue = found.expected_revenue()
    return {
        "expected_revenue": unit * revenue,
        "winner_rent": 1.0 - revenue / mean_of_highest(values, bidders),
        "bid_to_value": jnp.sum(jnp.asarray(_WEIGHTS) * found.bid_at(levels) / values(levels)),
    }


def _values(params):
    """The quantile function of values with median 1."""
    quantile = jnp.vectorize(values_of(params))
    return lambda u: jnp.exp(quantile(ndtri(u)))


def _unit(params):
    """The mean scale of values over auctions."""
    return jnp.exp(params["value_level"] + 0.5 * params["auction_spread"] ** 2)


def _bidders_values(params, inputs):
    """The quantile function of values above the reserve, relative to it, at the average scale; and 1."""
    quantile = jnp.vectorize(values_of(params))
    level = params["value_level"] - jnp.mean(inputs["log_reserve"])
    above = ndtr(-inverse(quantile, -level, -_FARTHEST, _FARTHEST))
    # 1 − above + above u would round to 1, of which no value is finite
    return (lambda u: jnp.exp(level + quantile(-ndtri(above * (1.0 - u))))), 1.0
