"""The registered markets of price formation, in coordinates that prices can identify.

Samplers move in the price's own terms (its level, its response) rather than in targets such as κ and ζ, which shift only
the level. Net supply and stock are measured from where they leave the price alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from walras.calibrate.errors import CalibrationError
from walras.calibrate.price_formation.foreseen import ForeseenPrices
from walras.calibrate.price_formation.stochastic import StochasticPrices
from walras.calibrate.price_formation.trading_days import TradingDays
from walras.calibrate.prior import Parameter, Prior
from walras.calibrate.registry import Market
from walras.model import LinearDemand, PriceFormation, Quadratic, RandomSupply, StationaryMarket


def foreseen(params, inputs):
    """One finite game: ϖ = level + trend (T/2 − t) − cQ − η∫ₜᵀ(X̄ − x̄₀); γ only scales the target and is 1."""
    c, eta = params["trading_cost"], params["holding_cost"]
    horizon, supply = inputs["horizon"], inputs["supply"]
    moved = jnp.sum(supply) * horizon / supply.size
    final_price = params["price_level"] - params["price_trend"] * horizon / 2
    market = PriceFormation(
        c, holding=Quadratic(eta, params["price_trend"] / eta), terminal=Quadratic(1.0, moved + final_price)
    )
    return market.solve(supply, horizon=horizon)


def trading_days(params, inputs):
    """One foreseen game for each day, with parameters of its own where `by_day` has them."""

    def one(supply, own):
        return foreseen({**params, **own}, {"supply": supply, "horizon": inputs["horizon"]})

    return jax.vmap(one)(inputs["supply"], inputs["by_day"])


def random_supply(params, inputs):
    """One finite game whose supply agents do not foresee; net supply has mean zero, what is consumed being its mean."""
    c, eta, gamma = params["trading_cost"], params["holding_cost"], params["terminal_cost"]
    holding = Quadratic(eta, params["price_trend"] / eta)
    final_price = params["price_level"] - params["price_trend"] * inputs["horizon"] / 2
    market = PriceFormation(c, holding=holding, terminal=Quadratic(gamma, final_price / gamma))
    return market.solve(_supply(params, inputs, 0.0), horizon=inputs["horizon"], steps=inputs["gap"].size)


def stationary(params, inputs):
    """Discounting agents, stocks that depreciate, elastic consumption, in coordinates that prices can identify.

    `price_impact` c/(1 + c d₁) is what a unit of surprise supply does to the price before stocks respond, `absorption`
    c d₁/(1 + c d₁) the share of it that consumers take at once; c and d₁ follow. A mean stock, demand's intercept d₀ and
    the target κ matter to prices only through the mean price, so the mean stock is set to one period's supply and the
    other two follow from it and `price_level`.
    """
    impact, absorbed = params["price_impact"], params["absorption"]
    c, slope = impact / (1.0 - absorbed), absorbed / impact
    eta, delta, level, r = params["holding_cost"], params["depreciation"], params["price_level"], params["discount"]
    supply = _supply(params, inputs, params["supply_mean"])
    stock = supply.mean * inputs["period"]
    intercept = supply.mean + slope * level - delta * stock
    costate = level + c * delta * stock
    centre = stock + (r + delta) * costate / eta
    market = StationaryMarket(c, Quadratic(eta, centre), discount=r, depreciation=delta, demand=LinearDemand(intercept, slope))
    return market.solve(supply)


def _supply(params, inputs, mean):
    """The supply process whose measured average over a period has the standard deviation `supply_sd`."""
    theta, length = params["supply_reversion"], inputs["period"]
    z = theta * length
    # Var of the average of an Ornstein–Uhlenbeck process over a period, per unit of its stationary variance.
    averaging = 2.0 * (z + jnp.expm1(-z)) / z**2
    true_sd = params["supply_sd"] * jnp.sqrt(params.get("supply_reliability", 1.0))
    rate_sd = true_sd / jnp.sqrt(averaging)
    return RandomSupply(mean, theta, rate_sd * jnp.sqrt(2.0 * theta))


class Scales:
    """The units and sizes from which default priors are made."""

    def __init__(self, observation, frame):
        scale = observation.scales(frame)
        attrs = observation.series(frame).attrs
        units, self.time = attrs["units"], attrs["time_unit"]
        self.price, self.supply = units.get(observation.price_column, ""), units.get(observation.supply_column, "")
        self.mean, self.sd, self.length = scale["price_mean"], scale["price_sd"], scale["period"]
        self.response = 0.5 * scale["price_sd"] / scale["supply_sd"]

    @property
    def impact_unit(self):
        return f"({self.price})/({self.supply})" if self.price and self.supply else ""


def level_prior(scales):
    why = "the mean price is near the sample's: two of its standard deviations either way"
    return Parameter(Prior("Normal", scales.mean, 2.0 * scales.sd, unit=scales.price, why=why))


def impact_prior(scales):
    # Neither log-normal nor half-normal: where instruments are weak, both leave much of the posterior at no impact at all.
    why = "a surprise of one standard deviation of supply moves the price by up to two of its own, and not by nothing"
    return Parameter(Prior("Weibull", 2.0 * scales.response, 1.5, unit=scales.impact_unit, why=why), lower=0.0)


def _finite_parameters(observation, frame):
    scales = Scales(observation, frame)
    half = float(observation.inputs(frame)["horizon"]) / 2
    holding = Prior(
        "LogNormal",
        float(np.log(scales.response / (half * scales.length))),
        1.5,
        unit=scales.impact_unit and f"{scales.impact_unit}/{scales.time}²",
        why="a surprise of supply held for half the sample moves the price as much as the surprise itself, within a factor "
        "of 20",
    )
    trend = Prior(
        "Normal",
        0.0,
        scales.sd / half,
        unit=scales.price and f"{scales.price}/{scales.time}",
        why="over the sample the price drifts by no more than two of its standard deviations either way",
    )
    return {
        "price_level": level_prior(scales),
        "price_trend": Parameter(trend),
        "trading_cost": impact_prior(scales),
        "holding_cost": Parameter(holding, lower=0.0),
    }


def _trading_days_parameters(observation, frame):
    found = _finite_parameters(observation, frame)
    for name in observation.by_day:
        if name not in found:
            raise CalibrationError(f"by_day names {name!r}: this market has {', '.join(sorted(found))}")
    return found


def _random_parameters(observation, frame):
    scales = Scales(observation, frame)
    terminal = Prior(
        "LogNormal",
        float(np.log(scales.response / scales.length)),
        1.0,
        unit=scales.impact_unit and f"{scales.impact_unit}/{scales.time}",
        why="a period's surplus moves the final price by half of its spread, within a factor of 7",
    )
    return {**_finite_parameters(observation, frame), "terminal_cost": Parameter(terminal, lower=0.0)}


def _stationary_parameters(observation, frame):
    scales = Scales(observation, frame)
    holding = Prior(
        "LogNormal",
        float(np.log(0.5 * scales.response / scales.length**2)),
        1.0,
        unit=scales.impact_unit and f"{scales.impact_unit}/{scales.time}²",
        why="a stock of one period's surprise moves the price about as much as the surprise itself, within a factor of 7",
    )
    depreciation = Prior(
        "LogNormal", float(np.log(0.3 / scales.length)), 0.5, unit=f"1/{scales.time}", why="stocks last for two to six periods"
    )
    # Nearly Beta(2, 2), and faster to simulate. A uniform prior would let chains wander where the share is almost 0 or 1.
    absorption = Prior("Kumaraswamy", 2.0, 2.0, why="consumers take about half of a surprise at once, rarely all or nothing")
    return {
        "price_level": level_prior(scales),
        "price_impact": impact_prior(scales),
        "absorption": Parameter(absorption, lower=0.0, upper=1.0, attains=(0.0,)),
        "holding_cost": Parameter(holding, lower=0.0),
        "depreciation": Parameter(depreciation, lower=0.0, attains=(0.0,)),
        "discount": Parameter(2e-4, lower=0.0, attains=(0.0,)),
    }


FORESEEN = Market(
    "price_formation",
    foreseen,
    _finite_parameters,
    ForeseenPrices,
    summary="one finite game with quadratic costs; agents foresee supply",
    finite=True,
    affine=True,
)
RANDOM_SUPPLY = Market(
    "random_supply",
    random_supply,
    _random_parameters,
    StochasticPrices,
    summary="one finite game with quadratic costs; supply is an unforeseen Ornstein–Uhlenbeck process",
    finite=True,
)
STATIONARY = Market(
    "stationary",
    stationary,
    _stationary_parameters,
    StochasticPrices,
    summary="discounting agents, depreciating stocks, elastic consumers; supply is an Ornstein–Uhlenbeck process",
)
TRADING_DAYS = Market(
    "trading_days",
    trading_days,
    _trading_days_parameters,
    TradingDays,
    summary="one foreseen game with quadratic costs for each day of a panel, such as electricity with storage",
    finite=True,
)
