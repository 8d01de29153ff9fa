"""An independent certificate of an equilibrium in one asset: every agent's global best response to its price.

Nothing here is shared with the solvers, which transform the value exponentially and use Gaussian kernels. With noise the
dynamic programme is solved as it stands, by finite differences: with p = ϖ + cQ and v = u + p̄ y in the frame y = x − X̄(t),

    v_t + (σ²/2) v_yy − v_y²/2c + V(X̄ + y) − p̄′ y = 0,   v(T) = Ψ + p̄(T) y,   rate = Q − v_y/c,

which contains neither the supply nor its roughness. Crank–Nicolson in time; the law of the population is carried forward
by the exact adjoint of the linearised scheme, and two resolutions are extrapolated. Limits on positions are walls: there
the optimal rate diverges like σ² over the distance, so that v is what is left of u + ϖx after −cσ² log φ₀, φ₀ = sin(π (x −
low)/(high − low)) or the distance to the only wall, and (σ²/2) v_xx becomes (σ²/2) (φ₀² v_x)_x / φ₀² (+ a constant).

Without noise, a (min, +) dynamic programme on a grid finds each agent's basin and Newton's method polishes its path.
"""

from typing import Any

import jax
import numpy as np

from walras.model.equilibrium import EquilibriumError
from walras.model.price_formation.game import PathEquilibrium
from walras.model.price_formation.strategy import Feedback, Paths
from walras.model.price_formation.verification.game import Rule, posed, require_shape, require_times
from walras.model.price_formation.verification.noisy import verify_noisy
from walras.model.price_formation.verification.quiet import verify_quiet
from walras.model.price_formation.verification.result import Verification

__all__ = ["Verification", "verify"]


def verify(market: Any, equilibrium: Any, *, indifference: float = 1e-4, tolerance: float = 2e-5) -> Verification:
    """Recompute all agents' global best responses to the price of an equilibrium along a foreseen supply path.

    `equilibrium`: of `PriceFormation.solve`, judged on the `substeps` of its solve; or anything with `horizon`, `supply`,
    `price` (the means over equal steps), `initial`, `weights` and `strategy()`. Supply is constant within steps and p̄ = ϖ + cQ
    is smooth: the spline with the given step means. Without noise the game is that of as many straight moves as there are
    (sub)steps, V weighted by the trapezoidal rule.

    `indifference`: without noise, agents accept responses whose cost is within this part of c L²/T of their best, L being
    the range of y = x − X̄(t) among the best responses. `tolerance`: with noise, resolutions are added until `accuracy` is
    below this part of max |Q| + σ/√T + (the range of the initial positions)/T.

    Raises `EquilibriumError` for several assets, for arrays that do not fit or are not finite, and if the best responses
    leave every bounded set.
    """
    if isinstance(equilibrium, PathEquilibrium):
        equilibrium = equilibrium.refined(equilibrium.substeps)
    with jax.enable_x64(True):  # costs only: the rest is NumPy
        game = posed(market, equilibrium)
        strategy = equilibrium.strategy()
        if isinstance(strategy, Feedback):
            strategy = Rule(*(np.asarray(part, float) for part in (strategy.time, strategy.position, strategy.rate)))
            require_times("strategy().time", strategy.time, game.horizon)
            require_shape("strategy().position", strategy.position, (strategy.time.size, None))
            require_shape("strategy().rate", strategy.rate, strategy.position.shape)
        elif isinstance(strategy, Paths):
            strategy = np.asarray(strategy.positions, float)
            require_shape("strategy().positions", strategy, (game.steps + 1, game.start.size))
        else:
            raise EquilibriumError(f"strategy() is a {type(strategy).__name__}: verify knows Feedback and Paths")
        # An overflow shows as a result that is not finite, which is reported.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if game.noise > 0:
                return verify_noisy(game, strategy, tolerance)
            return verify_quiet(game, strategy, indifference)
