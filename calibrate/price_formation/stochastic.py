"""Observing a market whose agents do not foresee supply."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictions.intervention import World
from walras.calibrate.price_formation.prices import Prices, centred, effects, names, reliability
from walras.calibrate.price_formation.state_space import (
    Dynamics,
    StateSpace,
    Steered,
    decayed,
    stationary_covariance,
    transitions,
)
from walras.calibrate.prior import Parameter, Prior
from walras.data import elapsed


@dataclass(frozen=True, kw_only=True)
class StochasticPrices(Prices):
    """Prices, and quantities where there are any, of a market with random supply; the likelihood is exact.

    Supply is an Ornstein–Uhlenbeck process plus `instruments` (columns that shift supply in their row's period, such as
    the weather; agents know them on the day and expect them to fade as any other supply does). `correlated` lets the
    shocks of supply and of the price's error be correlated: sales are then not exogenous, and the instruments identify
    the response of the price to supply.
    """

    instruments: tuple[str, ...] = ()
    correlated: bool = False

    targets: ClassVar[tuple[str, ...]] = ("price", "supply")

    def __post_init__(self):
        object.__setattr__(self, "instruments", names(self.instruments))
        super().__post_init__()
        if not isinstance(self.correlated, bool):
            raise CalibrationError(f"observation correlated is {self.correlated!r}: choose true or false")
        if self.noise == "student_t":
            raise CalibrationError(
                "observation noise is 'student_t': the exact filter needs normal errors, use noise='normal' (or the "
                "foreseen market, whose errors may be Student-t)"
            )
        if self.supply == "latent" and self.errors == "ar1":
            raise CalibrationError(
                "supply='latent' with errors='ar1': from prices alone a persistent error and a persistent supply cannot be "
                "told apart, use errors='independent' or give a supply column"
            )
        if self.correlated and self.errors != "ar1":
            raise CalibrationError("correlated=True needs errors='ar1': the shocks of an independent error are not a process")
        if self.correlated and self.supply == "latent":
            raise CalibrationError("correlated=True needs a supply column: use supply='known' or 'measured'")

    @property
    def covariates(self):
        return (*self.demand, *self.instruments)

    def observed(self, frame):
        return np.column_stack([self.price(frame), self.quantity(frame)])

    def inputs(self, frame):
        frame = self.series(frame)
        since, length = elapsed(frame), self.period(frame)
        # Time between the end of one row's period and the start of the next; rounding merges equal gaps.
        gaps = np.round(np.append(0.0, np.maximum(np.diff(since) - length, 0.0)), 9)
        values, index = np.unique(gaps, return_inverse=True)
        return {
            "gaps": values,
            "gap": index,
            "since": since,
            "period": np.asarray(length),
            "horizon": np.asarray(since[-1] + length),
            "price_moves": np.asarray(self.scales(frame)["price_moves"]),
            "demand": centred(frame, self.demand, self.price_column),
            "instruments": centred(frame, self.instruments, self.price_column),
        }

    def padded(self, several):
        """Rows at the end in which nothing is observed leave the filter's likelihood as it is."""
        rows = max(len(observed) for _, observed in several)
        sizes = {name: max(len(inputs[name]) for inputs, _ in several) for name in _BY_ROW}

        def lengthened(inputs, observed):
            missing = np.full((rows - len(observed), observed.shape[1]), np.nan)
            long = {name: _lengthened(inputs[name], size) for name, size in sizes.items()}
            return {**inputs, **long}, np.concatenate([observed, missing])

        return [lengthened(*one) for one in several]

    def parameters(self, frame):
        found = super().parameters(frame)
        noise = found.pop("price_noise")  # last: see `ridge`
        scale = self.scales(frame)
        unit = self.series(frame).attrs["units"].get(self.supply_column, "")
        latent = self.supply == "latent"
        reversion = Prior(
            "LogNormal",
            float(np.log(5.0 / scale["period"])),
            1.5,
            unit=f"1/{self.series(frame).attrs['time_unit']}",
            why="supply shocks last from a hundredth of a period to several periods",
        )
        found["supply_reversion"] = Parameter(reversion, lower=0.0)
        spread = Prior("LogNormal", float(np.log(scale["supply_sd"])), 0.5, unit=unit, why="the spread of the column")
        found["supply_sd"] = Parameter(1.0 if latent else spread, lower=0.0)
        mean = Prior("Normal", scale["supply_mean"], scale["supply_sd"], unit=unit, why="the mean of the column")
        found["supply_mean"] = Parameter(0.0 if latent else mean)
        if self.supply == "measured":
            found["supply_reliability"] = reliability()
        if self.instruments:
            found["supply_effect"] = Parameter(
                effects(self.series(frame), self.instruments, scale["supply_sd"], f"{unit} per unit", "supply")
            )
        if self.correlated:
            found["shock_correlation"] = Parameter(
                Prior("Uniform", -1.0, 1.0, why="sellers may bring more on days of high demand, or less"), -1.0, 1.0
            )
        return {**found, "price_noise": noise}

    def ridge(self, name, params, inputs):
        # The data identify how prices move with sales, −impact + correlation · (spread of the error's innovations) / (spread
        # of sales), and the spread of what is left, noise · √(1 − correlation²): a larger impact wants a larger correlation,
        # and that a larger noise.
        correlation, impact = params.get("shock_correlation"), params.get("price_impact", params.get("trading_cost"))
        if name == "shock_correlation" and impact is not None:
            return 2.0 * impact * params["supply_sd"] / inputs["price_moves"]
        ridge = super().ridge(name, params, inputs)
        if ridge is not None and correlation is not None:
            ridge = ridge - 0.5 * jnp.log1p(-(correlation**2))
        return ridge

    def law(self, equilibrium, params, inputs):
        length, rows = inputs["period"], inputs["gap"].size
        supply = equilibrium.supply
        _, inflow, drift = equilibrium.position_drift
        ar1 = self.errors == "ar1"
        dynamics = Dynamics(
            reversion=supply.reversion,
            settling=-jnp.asarray(drift, float),
            inflow=jnp.asarray(inflow, float),
            volatility=supply.volatility,
            error_rate=-jnp.log(params["error_persistence"]) / length if ar1 else jnp.ones(()),
            error_scale=params["price_noise"] if ar1 else jnp.zeros(()),
            correlation=params["shock_correlation"] if self.correlated else jnp.zeros(()),
        )
        maps, covariances = _over_gaps(dynamics, inputs["gaps"], length)
        shift = inputs["instruments"] @ params["supply_effect"] if self.instruments else jnp.zeros(rows)
        at_row = _coefficients(equilibrium, inputs)
        one, zero = jnp.ones_like(at_row["supply_response"]), jnp.zeros_like(at_row["supply_response"])
        price_loading = [zero, zero, one, at_row["supply_response"], at_row["position_response"]]
        loadings = jnp.stack([jnp.stack(price_loading, -1), jnp.stack([zero, zero, zero, one, zero], -1)], 1)
        price = at_row["price"] + (inputs["demand"] @ params["demand_effect"] if self.demand else jnp.zeros(rows))
        price_noise = jnp.zeros(()) if ar1 else params["price_noise"] ** 2
        unreliable = 1.0 - params["supply_reliability"] if self.supply == "measured" else jnp.zeros(())
        supply_noise = unreliable * params["supply_sd"] ** 2
        settled = equilibrium.price.ndim == 0
        return StateSpace(
            maps,
            covariances,
            inputs["gap"],
            shift=shift[:, None] * _shift_response(dynamics, length)[None, :],
            loadings=loadings,
            means=jnp.stack([price, jnp.broadcast_to(params["supply_mean"], rows)], -1),
            noise=jnp.stack([price_noise, supply_noise]),
            initial=stationary_covariance(dynamics) if settled else _known_position(dynamics),
        )

    def counterfactual(self, params, inputs, intervention, solve):
        """Agents know the supply process that an intervention makes, as if it had always been so.

        A multiple or a difference is one of the process: of its mean, spread and shifters. With `surprise`, and where supply
        takes a path of its own, they expect what they did, and learn each period's supply as it comes; the stock of the first
        row is then as it was.
        """
        params, change = intervention.parameters(params), self.supply_change(intervention)
        unforeseen = change is not None and (intervention.surprise or change.path)
        if intervention.surprise and change is None:
            raise CalibrationError(f"surprise is True, but {self.supply_column} is not set: only supply can surprise agents")
        if change is not None and not unforeseen:
            params = {**params, "supply_mean": change(params["supply_mean"])}
            scaled = [name for name in ("supply_sd", "supply_effect") if name in params]
            params |= {name: change.factor * params[name] for name in scaled}
        inputs = {
            **inputs,
            "demand": inputs["demand"] + intervention.shift(self.demand),
            "instruments": inputs["instruments"] + intervention.shift(self.instruments),
        }
        equilibrium = solve(params, inputs)
        law = self.law(equilibrium, params, inputs)
        return World(params, inputs, equilibrium, Steered(law, change) if unforeseen else law)

    def quantities(self, equilibrium, params, inputs):
        """The price's response to a surprise in supply; in a stationary market also costs, demand, and elasticities.

        `elasticity` is that of quantity in price, P̄ / (Q̄ ∂ϖ/∂Q), for a surprise today; `elasticity_sustained` for a change
        of supply that lasts until the stock has settled, ∂ϖ/∂Q then being a_Q + a_X m/k.
        """
        response = equilibrium.supply_response
        if response.ndim > 0:
            return {"price_response": response.mean()}
        found = {
            "price_response": response,
            "trading_cost": equilibrium.market.trading_cost,
            "demand_slope": equilibrium.market.demand.slope,
        }
        if self.supply != "latent":
            _, inflow, drift = equilibrium.position_drift
            ratio = equilibrium.price / params["supply_mean"]
            found["elasticity"] = ratio / response
            found["elasticity_sustained"] = ratio / (response - equilibrium.position_response * inflow / drift)
        return found

    def coordinates(self, frame):
        found = super().coordinates(frame)
        return {**found, "supply_shifter": list(self.instruments)} if self.instruments else found

    def dimensions(self):
        return {**super().dimensions(), "supply_effect": ["supply_shifter"], "supply_path": ["time"]}


_BY_ROW = ("gaps", "gap", "since", "demand", "instruments")


def _lengthened(array, size):
    """With the last entry repeated: a row in a gap and at a time that there are already."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _over_gaps(dynamics, gaps, length):
    """For each gap: the map from the state before it to the period after it, and the covariance gathered on the way."""
    maps, covariances = transitions(dynamics, jnp.append(gaps, length))
    over_period, gathered = maps[-1:], covariances[-1:]
    before = covariances[:-1, :3, :3]
    return over_period @ maps[:-1, :3], over_period @ before @ over_period.mT + gathered


def _shift_response(dynamics, length):
    """What a unit of extra supply, held over one period, adds to (Q, X̄, u, mean Q, mean X̄) of that period."""
    k, m = dynamics.settling, dynamics.inflow
    safe = jnp.where(k == 0, 1.0, k)
    position = decayed(k, length)
    mean = jnp.where(k * length < 1e-3, length / 2 - k * length**2 / 6, (length - position) / (safe * length))
    return jnp.stack([jnp.zeros(()), m * position, jnp.zeros(()), jnp.ones(()), m * mean])


def _coefficients(equilibrium, inputs):
    """The price's expected value and responses: (1,) in a stationary market, else (rows,) at each row's place in time."""
    if equilibrium.price.ndim > 0:
        equilibrium = equilibrium.at(inputs["since"] + 0.5 * inputs["period"])
    return {name: jnp.atleast_1d(getattr(equilibrium, name)) for name in ("price", "supply_response", "position_response")}


def _known_position(dynamics):
    """A finite game starts at a known mean position, with supply and error in their stationary law."""
    supply = dynamics.volatility**2 / (2.0 * dynamics.reversion)
    error = dynamics.error_scale**2
    shared = dynamics.correlation * dynamics.volatility * dynamics.error_volatility
    shared = shared / (dynamics.reversion + dynamics.error_rate)
    zero = jnp.zeros_like(supply)
    return jnp.stack([jnp.stack([supply, zero, shared]), jnp.stack([zero, zero, zero]), jnp.stack([shared, zero, error])])
