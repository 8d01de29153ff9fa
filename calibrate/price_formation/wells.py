"""The registered market of agents who prefer either of two positions: costs that are not convex, solved with noise.

Positions are measured from the population's first mean; the level of the price is that of its final mean value, whatever the
terminal strength is, since (strength, target) would be nearly exchangeable.
"""

import jax.numpy as jnp
import numpy as np

from walras.calibrate.price_formation.foreseen import ForeseenPrices
from walras.calibrate.price_formation.markets import Scales, impact_prior, level_prior
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.registry import Market, Structure
from walras.model import Diffusion, DoubleWell, PriceFormation, Quadratic

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
# Errors of the price at this tolerance are far below what is observed of it.
_SAMPLED = Diffusion(tolerance=1e-6, substeps=1)
_GENEROUS = Diffusion(tolerance=1e-3, substeps=1, points=320)


def wells_structure(params, inputs):
    """The target ζ of the end for the price's level there."""
    supply, rest = inputs["supply"], {name: value for name, value in params.items() if name != "price_level"}
    moved = jnp.sum(supply) * inputs["horizon"] / supply.size
    return {**rest, "terminal_target": moved + params["price_level"] / params["terminal_cost"]}


def solve_wells(structure, inputs, solver):
    """One finite game of agents between two wells, uniformly spread at first and hit by noise of their own."""
    centre, half = structure["well_centre"], structure["well_distance"] / 2
    market = PriceFormation(
        structure["trading_cost"],
        holding=DoubleWell(structure["well_strength"], centre - half, centre + half),
        terminal=Quadratic(structure["terminal_cost"], structure["terminal_target"]),
        noise=structure["agent_noise"],
    )
    first = structure["population_spread"] * jnp.asarray(_NODES)
    horizon, initial = inputs["horizon"], (first, _WEIGHTS / 2)
    return market.solve(inputs["supply"], horizon=horizon, initial=initial, solver=solver, throw=False)


def double_well(params, inputs, solver):
    """One finite game of agents between two wells, in coordinates that prices can identify."""
    return solve_wells(wells_structure(params, inputs), inputs, solver)


def _parameters(observation, frame):
    scales = Scales(observation, frame)
    inputs = observation.inputs(frame)
    horizon, steps = float(inputs["horizon"]), inputs["supply"].size
    stock = _stock(observation, inputs["supply"], horizon / steps)
    unit = f"{scales.supply}·{scales.time}" if scales.supply else ""
    strength = Prior(
        "LogNormal",
        float(np.log(2.0 * scales.sd / (stock**3 * horizon))),
        1.0,
        unit=scales.price and unit and f"{scales.price}/(({unit})³·{scales.time})",
        why="over the sample the wells move the price by about a fifth of its spread, within a factor of 7",
    )
    terminal = Prior(
        "LogNormal",
        float(np.log(0.5 * scales.sd / stock)),
        1.0,
        unit=scales.price and unit and f"{scales.price}/({unit})",
        why="holding the sample's usual surplus at the end moves the price by half of its spread, within a factor of 7",
    )
    return {
        "price_level": level_prior(scales),
        "trading_cost": impact_prior(scales),
        "well_strength": Parameter(strength, lower=0.0),
        "terminal_cost": Parameter(terminal, lower=0.0),
        "well_centre": Parameter(0.0),
        "well_distance": Parameter(2.0 * stock, lower=0.0),
        "agent_noise": Parameter(float(0.5 * stock / np.sqrt(horizon)), lower=0.0),
        "population_spread": Parameter(stock, lower=0.0, attains=(0.0,)),
    }


def _stock(observation, supply, step):
    """The usual size of the surplus that a population holds: the spread of the mean position over the game."""
    if observation.supply == "latent":
        return float(step * np.sqrt(supply.size / 6))  # that of a sum of independent supplies of unit variance
    return float(np.std(step * np.cumsum(supply)))


DOUBLE_WELL = Market(
    "double_well",
    double_well,
    _parameters,
    ForeseenPrices,
    summary="one finite game of agents who prefer either of two positions; agents foresee supply",
    finite=True,
    solver=lambda solve_draws: _SAMPLED.fitted_to(solve_draws(_GENEROUS)),
    structure=Structure(wells_structure, solve_wells),
)
