"""The market whose agents trade risks of their own at a cost."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from walras.model.equilibrium import EquilibriumError, checked, is_traced, require_double_precision
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
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise EquilibriumError(f"steps is {steps}: give a whole number of at least 1, such as 32")
        self._require_horizon(horizon)
        if self.power == 2.0:
            return checked(solve_quadratic(self, horizon, int(steps)), throw)
        self._require_two_balanced_agents(f"power is {self.power}")
        return checked(solve_lattice(self, horizon, int(steps)), throw)

    def frictionless(self, horizon: float) -> Frictionless:
        """The benchmark without trading costs, in closed form."""
        self._require_horizon(horizon)
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

    def _require_horizon(self, horizon):
        if not isinstance(horizon, Tracer) and not (jnp.ndim(horizon) == 0 and 0 < float(horizon) < np.inf):
            raise EquilibriumError(f"horizon is {horizon}: give one positive number")

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
