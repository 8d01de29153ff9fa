"""The registered stationary market with trading costs, in coordinates that price and volume can identify."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.registry import Market, Structure
from walras.calibrate.trading_costs.volume import PriceAndVolume
from walras.model import Status, TradingCosts

_MOMENTS = ("volatility", "drift", "turnover", "reversion", "asymmetry")


def structure(params, inputs):
    """The parameters of agents whose stationary market has the moments that are sampled."""
    market = TradingCosts.matching(**{name: params[name] for name in _MOMENTS})
    return {
        **{name: value for name, value in params.items() if name not in _MOMENTS},
        "trading_cost": market.trading_cost,
        "risk_aversion_low": market.risk_aversion[0],
        "risk_aversion_high": market.risk_aversion[1],
        "endowment": market.endowment[0],
        "payoff_volatility": market.payoff_volatility,
    }


def solve(structure, inputs):
    """Two agents who hedge against each other, in the long run; the supply is one, and its price before a change is one."""
    market = TradingCosts(
        jnp.stack([structure["risk_aversion_low"], structure["risk_aversion_high"]]),
        structure["endowment"] * jnp.array([1.0, -1.0]),
        structure["trading_cost"],
        payoff_volatility=structure["payoff_volatility"],
    )
    found = market.stationary(throw=False)
    # Without a positive volatility of the payoff no market has these moments, and returns would not reveal what agents trade.
    return replace(found, status=Status.where(market.payoff_volatility > 0, found.status, Status.volatility_not_positive))


def trading_costs(params, inputs):
    """Two agents who hedge against each other, in the long run, by the moments of their market."""
    return solve(structure(params, inputs), inputs)


def _parameters(observation: PriceAndVolume, frame):
    spread = float(np.nanstd(observation.returns(frame)))
    volatility = Prior("LogNormal", float(np.log(spread)), 0.3, unit="1/√row", why="the spread of relative price changes")
    drift = Prior(
        "LogNormal",
        float(np.log(0.03 * spread)),
        0.7,
        unit="1/row",
        why="a row earns 3 % of its volatility (half of it in a year of days), within a factor of 4",
    )
    reversion = Prior("LogNormal", float(np.log(0.2)), 1.0, unit="1/row", why="positions settle within one row to forty")
    asymmetry = Prior("Beta", 2.0, 2.0, why="risk aversions differ by a factor of 3 or so")
    turnover = Prior(
        "LogNormal",
        float(np.log(0.0075)),
        0.25,
        unit="1/row",
        why="0.75 % of shares a day, the figure of Gonon, Muhle-Karbe and Shi for US equities; the data cannot tell",
    )
    return {
        "volatility": Parameter(volatility, lower=0.0),
        "drift": Parameter(drift, lower=0.0),
        "reversion": Parameter(reversion, lower=0.0),
        "asymmetry": Parameter(asymmetry, lower=0.0, upper=1.0, attains=(0.0,)),
        "turnover": Parameter(turnover, lower=0.0),
    }


TRADING_COSTS = Market(
    "trading_costs",
    trading_costs,
    _parameters,
    PriceAndVolume,
    summary="two agents who hedge risks of their own at a quadratic cost, in the long run; their trading makes the volume",
    structure=Structure(structure, solve),
)
