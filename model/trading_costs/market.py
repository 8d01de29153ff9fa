"""The market whose agents trade risks of their own at a cost."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from walras.model.equilibrium import EquilibriumError, checked, is_traced, require_double_precision
from walras.model.trading_costs.equilibrium import require_horizon, require_steps
from walras.model.trading_costs.frictionless import Frictionless
from walras.model.trading_costs.lattice import LatticeEquilibrium, solve_lattice
from walras.model.trading_costs.parameters import BALANCED, Parameters
from walras.model.trading_costs.quadratic import QuadraticEquilibrium, solve_quadratic
from walras.model.trading_costs.stationary import StationaryTrading, stationary


class TradingCosts(Parameters):
    """N agents who trade an asset, or several, to hedge risks of their own, at a cost (λ/q)|rate|^q.

    `risk_aversion` (agents,) and `endowment` (agents,); `trading_cost` λ > 0; `power` 1 < q ≤ 2; `supply`, `payoff_drift` and
    `payoff_volatility` are numbers. For several assets, with quadratic costs, `endowment` is (agents, assets, assets),
    `trading_cost` and `payoff_volatility` (assets, assets), `supply` and `payoff_drift` a number or (assets,). Units are in the
    package's table of notation. Everything but `power` can be differentiated.

    >>> market = TradingCosts(jnp.array([1.0, 2.0]), jnp.array([3.0, -3.0]), 0.01, payoff_drift=2.0)
    >>> equilibrium = market.solve(0.4, steps=32)
    >>> [round(float(x), 6) for x in (equilibrium.price0, equilibrium.drift0, equilibrium.volatility0)]
    [0.473172, 0.840108, 1.122569]
    """

    @classmethod
    def matching(
        cls, *, volatility, drift, turnover, reversion, supply=1.0, asymmetry=1 / 3, leading_order: bool = False
    ) -> "TradingCosts":
        """Two agents with quadratic costs whose stationary market has these moments, all numbers.

        `volatility` σ of the price; its mean `drift` γ̄sσ² (money / (unit · time)); `turnover` E|φ̇| (units / time); `reversion`
        k of positions (1 / time); `supply` s; `asymmetry` ε = (γ² − γ¹)/(γ¹ + γ²), which moments hardly tell. To be read as
        `stationary` with the same `leading_order`. Differentiable; not valid where the `payoff_volatility` is not positive.
        """
        positive = {"volatility": volatility, "drift": drift, "turnover": turnover, "reversion": reversion, "supply": supply}
        for name, value in positive.items():
            if not isinstance(value, Tracer) and not np.all(np.asarray(value) > 0):
                raise EquilibriumError(f"{name} is {value}: give a positive number")
        if not isinstance(asymmetry, Tracer) and not 0 <= asymmetry < 1:
            raise EquilibriumError(f"asymmetry is {asymmetry}: give a number from 0 to below 1")
        aggregate = drift / (supply * volatility**2)
        mean_aversion = 2.0 * aggregate / (1.0 - asymmetry**2)
        trading_cost = mean_aversion * (volatility / reversion) ** 2
        exposure = turnover * volatility * jnp.sqrt(jnp.pi / reversion)
        shift = 0.0 if leading_order else asymmetry * exposure * mean_aversion * volatility / reversion
        return cls(
            risk_aversion=mean_aversion * jnp.stack([1.0 - jnp.asarray(asymmetry), 1.0 + jnp.asarray(asymmetry)]),
            endowment=exposure * jnp.array([1.0, -1.0]),
            trading_cost=trading_cost,
            supply=supply,
            payoff_volatility=volatility - shift,
        )

    def solve(self, horizon: float, steps: int, *, throw: bool = True) -> QuadraticEquilibrium | LatticeEquilibrium:
        """The equilibrium over [0, horizon], in which agents trade at `steps` equal steps.

        Its `price0`, `drift0`, `volatility0` and `welfare` are of continuous trading, extrapolated from that many steps and
        multiples of it, with their `error`; everything else is of the equilibrium with `steps` steps itself.

        Quadratic costs have a backward recursion, for any number of agents and assets. Other powers are solved for two agents
        whose risks offset each other, on a lattice.

        Raises `EquilibriumError` for arguments that are not solved and, unless `throw=False` or under a JAX transformation,
        when steps are too coarse; then `status` tells.
        """
        require_double_precision()
        require_steps(steps)
        require_horizon(horizon)
        if self.power == 2.0:
            return checked(solve_quadratic(self, horizon, int(steps)), throw)
        self._require_two_balanced_agents(f"power is {self.power}")
        return checked(solve_lattice(self, horizon, int(steps)), throw)

    def frictionless(self, horizon: float) -> Frictionless:
        """The benchmark without trading costs, in closed form."""
        require_horizon(horizon)
        return Frictionless(self, jnp.asarray(horizon, float))

    def stationary(self, *, leading_order: bool = False, throw: bool = True) -> StationaryTrading:
        """Two agents far from the horizon, whose positions have settled into their stationary law.

        With quadratic costs exact; for other powers, and with `leading_order=True`, to leading order in small costs, in which
        the price's volatility is that of the payoff. Raises `EquilibriumError` for more agents, several assets, or risks
        that do not offset each other.
        """
        require_double_precision()
        self._require_two_balanced_agents("the stationary market")
        if self.power != 2.0 and not leading_order:
            raise EquilibriumError(f"power is {self.power}: the stationary market is then known with leading_order=True only")
        return checked(stationary(self, leading_order), throw)

    def _require_two_balanced_agents(self, what):
        shape = jnp.shape(self.endowment)
        if shape != (2,):
            raise EquilibriumError(
                f"endowment has shape {shape}: {what}, which is solved for two agents and one asset; give those"
            )
        if not is_traced(self.endowment) and self.unshared > BALANCED:
            raise EquilibriumError(
                f"endowment is {self.endowment}: {what}, which is solved for risks that offset each other; give a sum of zero"
            )
