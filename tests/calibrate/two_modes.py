"""A market with two posteriors in one: prices tell that agents hold a well's position, and hardly which well's.

Agents stand in one of two wells of their holding cost, whose centre is unknown. Near either well the cost of straying is the
same to first order; the next order, and the prior, give the wells unequal weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from simulated import series

from walras.calibrate import ForeseenPrices, Prior, Problem
from walras.model import DoubleWell, PriceFormation, Quadratic, Status

ROWS, STRAYING, STRENGTH, NOISE = 40, 0.03, 0.25, 0.1
CENTRE = Prior("Normal", 0.2, 1.0)
SCALE = Prior("LogNormal", float(np.log(STRENGTH)), 0.5)


class Prices(NamedTuple):
    """What an observation asks of an equilibrium."""

    price: jnp.ndarray
    status: Status = Status.solved


def market_at(params) -> PriceFormation:
    """Wells one unit left and right of a centre."""
    centre = params["well_centre"]
    wells = DoubleWell(params["well_strength"], centre - 1.0, centre + 1.0)
    return PriceFormation(1.0, holding=wells, terminal=Quadratic(1.0))


def build(params, inputs) -> Prices:
    """Prices where all agents start at 0 and so hold the mean position ever after: ϖ = −cQ − Ψ′(X̄(T)) − ∫ V′(X̄), by Simpson."""
    market, supply = market_at(params), inputs["supply"]
    nodes = jnp.concatenate([jnp.zeros(1), jnp.cumsum(supply)])
    cost = jax.vmap(jax.grad(market.holding))
    first, middle, last = cost(nodes[:-1]), cost((nodes[:-1] + nodes[1:]) / 2.0), cost(nodes[1:])
    whole = (first + 4.0 * middle + last) / 6.0
    later = jnp.cumsum(whole[::-1])[::-1] - whole
    own = (2.0 * middle + last) / 6.0  # the mean over the step of ∫ from t to its end
    return Prices(-supply - nodes[-1] - later - own)


def simulated_prices() -> Problem:
    """The market with agents in the right well (centre −1)."""
    phase = 2.0 * np.pi * (np.arange(ROWS) + 0.5) / ROWS
    supply = STRAYING * 2.0 * np.pi / ROWS * np.cos(phase)
    truth = {"well_centre": jnp.asarray(-1.0), "well_strength": jnp.asarray(STRENGTH)}
    price = build(truth, {"supply": jnp.asarray(supply)}).price
    noise = NOISE * np.random.default_rng(0).normal(size=ROWS)
    frame = series(ROWS, supply=supply, price=np.asarray(price) + noise)
    priors = {"well_centre": CENTRE, "well_strength": SCALE, "price_noise": NOISE}
    return Problem(build, frame, ForeseenPrices(), priors)


def quadrature(log_density, centres: np.ndarray, strengths: np.ndarray) -> tuple[float, float]:
    """The log evidence and the weight of the wells with a positive centre, of a log density on a grid of both."""
    cell = np.log((centres[1] - centres[0]) * (strengths[1] - strengths[0]))
    total = scipy.special.logsumexp(log_density) + cell
    right = scipy.special.logsumexp(log_density[centres > 0.0]) + cell
    return float(total), float(np.exp(right - total))
