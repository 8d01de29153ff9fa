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
from walras.calibrate.registry import Market, Structure
from walras.model import LinearDemand, PriceFormation, Quadratic, RandomSupply, StationaryMarket


def finite_structure(params, inputs):
    """The target of holding κ, from the first mean position, and the price at the end, for the price's level and trend."""
    trend, rest = params["price_trend"], _without(params, "price_level", "price_trend")
    final_price = params["price_level"] - trend * inputs["horizon"] / 2
    return {**rest, "holding_target": trend / params["holding_cost"], "final_price": final_price}


def solve_foreseen(structure, inputs):
    """One finite game: ϖ = final price + ηκ (T − t) − cQ − η∫ₜᵀ(X̄ − x̄₀); γ only scales the target and is 1.

    What a unit left at the end is worth cannot be told from one game: the final price is as it is, whatever is supplied.
    """
    horizon, supply = inputs["horizon"], inputs["supply"]
    moved = jnp.sum(supply) * horizon / supply.size
    holding = Quadratic(structure["holding_cost"], structure["holding_target"])
    terminal = Quadratic(1.0, moved + structure["final_price"])
    return PriceFormation(structure["trading_cost"], holding=holding, terminal=terminal).solve(supply, horizon=horizon)


def foreseen(params, inputs):
    """One finite game: ϖ = level + trend (T/2 − t) − cQ − η∫ₜᵀ(X̄ − x̄₀)."""
    return solve_foreseen(finite_structure(params, inputs), inputs)


def days_structure(params, inputs):
    """As of one game; (days,) where days have their own. How far days differ is told by what they are."""
    rest = _without(params, *(f"{name}_spread" for name in inputs["by_day"]))
    return finite_structure({**rest, **inputs["by_day"]}, inputs)


def solve_days(structure, inputs):
    """One foreseen game for each day."""
    supply = inputs["supply"]
    names = ("trading_cost", "holding_cost", "holding_target", "final_price")
    own = {name: jnp.broadcast_to(structure[name], supply.shape[:1]) for name in names}
    return jax.vmap(lambda own, supply: solve_foreseen(own, {"supply": supply, "horizon": inputs["horizon"]}))(own, supply)


def trading_days(params, inputs):
    """One foreseen game for each day, with parameters of its own where `by_day` has them."""
    return solve_days(days_structure(params, inputs), inputs)


def random_structure(params, inputs):
    """As of a foreseen game, with the target ζ of the end; what is consumed is the mean of supply."""
    found = finite_structure(params, inputs)
    target = found["final_price"] / params["terminal_cost"]
    return {**_without(found, "final_price"), "terminal_target": target, "consumption": params["supply_mean"]}


def solve_random(structure, inputs):
    """One finite game whose supply agents do not foresee; what moves the price is supply less what is consumed."""
    holding = Quadratic(structure["holding_cost"], structure["holding_target"])
    terminal = Quadratic(structure["terminal_cost"], structure["terminal_target"])
    market = PriceFormation(structure["trading_cost"], holding=holding, terminal=terminal)
    supply = _supply(structure, inputs, structure["supply_mean"] - structure["consumption"])
    return market.solve(supply, horizon=inputs["horizon"], steps=inputs["gap"].size)


def random_supply(params, inputs):
    """One finite game whose supply agents do not foresee; net supply has mean zero, what is consumed being its mean."""
    return solve_random(random_structure(params, inputs), inputs)


def stationary_structure(params, inputs):
    """Costs, demand and the target of holding, for coordinates that prices can identify.

    `price_impact` c/(1 + c d₁) is what a unit of surprise supply does to the price before stocks respond, `absorption`
    c d₁/(1 + c d₁) the share of it that consumers take at once; c and d₁ follow. A mean stock, demand's intercept d₀ and
    the target κ matter to prices only through the mean price, so the mean stock is set to one period's supply and the
    other two follow from it and `price_level`.
    """
    impact, absorbed = params["price_impact"], params["absorption"]
    c, slope = impact / (1.0 - absorbed), absorbed / impact
    eta, delta, level, r = params["holding_cost"], params["depreciation"], params["price_level"], params["discount"]
    mean = params["supply_mean"]
    stock = mean * inputs["period"]
    costate = level + c * delta * stock
    return {
        **_without(params, "price_level", "price_impact", "absorption"),
        "trading_cost": c,
        "demand_slope": slope,
        "demand_intercept": mean + slope * level - delta * stock,
        "holding_target": stock + (r + delta) * costate / eta,
    }


def solve_stationary(structure, inputs):
    """Discounting agents, stocks that depreciate, elastic consumption."""
    market = StationaryMarket(
        structure["trading_cost"],
        Quadratic(structure["holding_cost"], structure["holding_target"]),
        discount=structure["discount"],
        depreciation=structure["depreciation"],
        demand=LinearDemand(structure["demand_intercept"], structure["demand_slope"]),
    )
    return market.solve(_supply(structure, inputs, structure["supply_mean"]))


def stationary(params, inputs):
    """Discounting agents, stocks that depreciate, elastic consumption, in coordinates that prices can identify."""
    return solve_stationary(stationary_structure(params, inputs), inputs)


def _without(params, *names):
    return {name: value for name, value in params.items() if name not in names}


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
    structure=Structure(finite_structure, solve_foreseen),
)
RANDOM_SUPPLY = Market(
    "random_supply",
    random_supply,
    _random_parameters,
    StochasticPrices,
    summary="one finite game with quadratic costs; supply is an unforeseen Ornstein–Uhlenbeck process",
    finite=True,
    structure=Structure(random_structure, solve_random),
)
STATIONARY = Market(
    "stationary",
    stationary,
    _stationary_parameters,
    StochasticPrices,
    summary="discounting agents, depreciating stocks, elastic consumers; supply is an Ornstein–Uhlenbeck process",
    structure=Structure(stationary_structure, solve_stationary),
)
TRADING_DAYS = Market(
    "trading_days",
    trading_days,
    _trading_days_parameters,
    TradingDays,
    summary="one foreseen game with quadratic costs for each day of a panel, such as electricity with storage",
    finite=True,
    structure=Structure(days_structure, solve_days),
)
