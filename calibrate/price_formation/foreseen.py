"""Observing one finite game whose agents foresee supply."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictions.intervention import World
from walras.calibrate.price_formation.integrated_path import IntegratedPath
from walras.calibrate.price_formation.prices import Prices, centred, reliability
from walras.calibrate.price_formation.supply_paths import PROCESSES, path_root
from walras.calibrate.prior import Parameter, Prior
from walras.data import elapsed


@dataclass(frozen=True, kw_only=True)
class ForeseenPrices(Prices):
    """Prices of a market whose agents know the whole path of supply in advance: a benchmark, not a forecast.

    The game's grid has one step per period from the first row to the last. Steps without a row (closed days), and rows
    without a supply, have net supply zero: neither arrivals nor consumption. With supply measured or latent its path is
    integrated out where that is exact (quadratic costs by name, normal errors), and else sampled beside the parameters.

    `supply_process` is the prior of a latent path: "independent" steps, "wiener", "ornstein_uhlenbeck" or "smooth".
    """

    supply_process: Literal["independent", "wiener", "ornstein_uhlenbeck", "smooth"] = "independent"

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def __post_init__(self):
        super().__post_init__()
        if self.supply_process not in PROCESSES:
            raise CalibrationError(
                f"observation supply_process is {self.supply_process!r}: choose one of {', '.join(PROCESSES)}"
            )
        if self.supply != "latent" and self.supply_process != "independent":
            raise CalibrationError(
                f"observation supply_process is {self.supply_process!r} but supply {self.supply!r}: only latent supply has one"
            )

    def observed(self, frame):
        return self.price(frame)[:, None]

    def inputs(self, frame):
        frame, quantity = self.series(frame), self.quantity(frame)
        since = elapsed(frame) / self.period(frame)
        step = np.floor(since + 1e-6).astype(int)
        if np.unique(step).size < step.size:
            raise CalibrationError(
                "time is irregular (two rows fall into one period of the smallest spacing): use the stationary market"
            )
        net = np.zeros(step[-1] + 1)
        net[step] = np.where(np.isnan(quantity), 0.0, quantity - np.nanmean(quantity)) if self.supply != "latent" else 0
        return {
            "supply": net,
            "measured": quantity,
            "step": step,
            "elapsed": since,
            "horizon": np.asarray(self.period(frame) * net.size),
            "demand": centred(frame, self.demand, self.price_column),
        }

    def parameters(self, frame):
        found = super().parameters(frame)
        scale = self.scales(frame)
        unit = self.series(frame).attrs["units"].get(self.supply_column, "")
        if self.supply != "known":
            found["supply_sd"] = Parameter(
                1.0
                if self.supply == "latent"
                else Prior("LogNormal", float(np.log(scale["supply_sd"])), 0.5, unit=unit, why="the spread of the column"),
                lower=0.0,
            )
        if self.supply == "measured":
            found["supply_reliability"] = reliability()
        length, time = scale["period"], self.series(frame).attrs["time_unit"]
        if self.supply_process == "ornstein_uhlenbeck":
            why = "supply forgets half of a shock within two to eight periods"
            found["supply_reversion"] = Parameter(
                Prior("LogNormal", float(np.log(0.17 / length)), 0.5, unit=f"1/{time}", why=why), lower=0.0
            )
        if self.supply_process == "smooth":
            why = "supply bends a few times in the sample, not at every row"
            horizon = length * self.inputs(frame)["supply"].size
            found["supply_lengthscale"] = Parameter(
                Prior("LogNormal", float(np.log(horizon / 6)), 0.4, unit=time, why=why), lower=0.0
            )
        return found

    def latents(self, params, inputs):
        if self.supply == "known":
            return inputs
        mean, root = self._path(params, inputs)
        standard = numpyro.sample("supply_standard", dist.Normal(jnp.zeros(root.shape[1]), 1.0).to_event(1))
        path = numpyro.deterministic("supply_path", mean + root @ standard)
        return {**inputs, "supply": path}

    def integrated(self, params, inputs, solve):
        if self.supply == "known" or self.noise == "student_t":
            return self.latents(params, inputs)
        mean, root = self._path(params, inputs)
        response = jax.jacfwd(lambda supply: solve({**inputs, "supply": supply}).price)(mean)
        return {**inputs, "supply": mean, "supply_root": root, "response": response}

    def counterfactual(self, params, inputs, intervention, solve):
        """Agents foresee the whole path that an intervention makes of supply; steps without a row stay as they are."""
        if intervention.surprise:
            raise CalibrationError("surprise is True, but agents of this market foresee supply: use a stationary market")
        params, change = intervention.parameters(params), self.supply_change(intervention)
        inputs = {**inputs, "demand": inputs["demand"] + intervention.shift(self.demand)}
        if change is not None:
            inputs = self._supplied(inputs, change, intervention)
        if "response" in inputs:
            response = jax.jacfwd(lambda supply: solve(params, {**inputs, "supply": supply}).price)(inputs["supply"])
            inputs = {**inputs, "response": response}
        equilibrium = solve(params, inputs)
        return World(params, inputs, equilibrium, self.law(equilibrium, params, inputs))

    def _supplied(self, inputs, change, intervention):
        """Inputs in which supply has changed; what is consumed, the mean of the column, has not."""
        rows = inputs["step"]
        mean = 0.0 if self.supply == "latent" else float(np.nanmean(self.quantity(intervention.data)))
        factor = jnp.ones(inputs["supply"].shape).at[rows].set(change.factor)
        offset = jnp.zeros_like(factor).at[rows].set((jnp.asarray(change.factor) - 1.0) * mean + change.offset)
        found = {**inputs, "supply": factor * inputs["supply"] + offset}
        if "supply_root" in inputs:
            found["supply_root"] = factor[:, None] * inputs["supply_root"]
        return found

    def _path(self, params, inputs):
        """The mean (steps,) of supply in each step and the root (steps, variables) of its covariance, given measurements."""
        shape = inputs["supply"].shape
        reliable = params.get("supply_reliability", 1.0)
        spread = params["supply_sd"] * jnp.sqrt(reliable)
        if self.supply == "latent":
            period = inputs["horizon"] / shape[0]
            return jnp.zeros(shape), spread * path_root(self.supply_process, shape[0], period, params)
        # The path given its measurements (conjugate), and the measurements by their marginal law: the same joint law
        # as measuring a sampled path, without its funnel.
        measured, seen = inputs["measured"], ~jnp.isnan(inputs["measured"])
        deviation = jnp.where(seen, measured - jnp.nanmean(measured), 0.0)
        gain = jnp.where(seen, reliable, 0.0)
        mean = jnp.zeros(shape).at[inputs["step"]].set(gain * deviation)
        scale = jnp.full(shape, spread).at[inputs["step"]].set(spread * jnp.sqrt(1.0 - gain))
        density = dist.Normal(0.0, params["supply_sd"]).log_prob(deviation)
        numpyro.factor("measured", jnp.sum(jnp.where(seen, density, 0.0)))
        return mean, jnp.diag(scale)

    def law(self, equilibrium, params, inputs):
        mean = equilibrium.price[inputs["step"]]
        if self.demand:
            mean = mean + inputs["demand"] @ params["demand_effect"]
        if "response" in inputs:
            response = inputs["response"][inputs["step"]]
            return IntegratedPath(mean, response, inputs["supply"], inputs["supply_root"], self._noise(params, inputs))
        return self.errors_around(mean, params, inputs["elapsed"])

    def _noise(self, params, inputs):
        """The covariance (rows, rows) of the price's errors."""
        if self.errors == "independent":
            return params["price_noise"] ** 2 * jnp.eye(inputs["elapsed"].size)
        apart = jnp.abs(inputs["elapsed"][:, None] - inputs["elapsed"][None, :])
        return params["price_noise"] ** 2 * params["error_persistence"] ** apart

    def outputs(self, equilibrium, params, inputs):
        """With the standard deviation of prices that a hidden path of supply makes, where that is integrated out."""
        found = super().outputs(equilibrium, params, inputs)
        if "response" in inputs:
            moved = inputs["response"][inputs["step"]] @ inputs["supply_root"]
            found["price_sd_of_supply"] = jnp.sqrt(jnp.mean(jnp.sum(moved**2, axis=1)))
        return found

    def coordinates(self, frame):
        found = super().coordinates(frame)
        steps = np.arange(self.inputs(frame)["supply"].size) * self.period(frame)
        return {**found, "grid": list(steps)}

    def dimensions(self):
        variables = "basis" if self.supply_process == "smooth" else "grid"
        return {**super().dimensions(), "supply_standard": [variables], "supply_path": ["grid"]}

    @property
    def foresees(self):
        return self.supply != "latent"

    @property
    def missing_supply(self):
        return "they count as an average day's" if self.supply == "known" else super().missing_supply

    def notes(self, frame):
        found = [
            *super().notes(frame),
            "Agents of this benchmark foresee the whole supply path, so its one-step scores use the future.",
            "Consumption is taken to be the sample mean of supply: what moves the price is supply less that mean.",
        ]
        if self.supply == "known":
            found.append("On days without a row the market is closed: nothing arrives, and nothing is eaten.")
        return found
