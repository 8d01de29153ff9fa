"""What `verify` finds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Verification:
    """What agents would best do at an equilibrium's price, recomputed globally and independently of the solver.

    Steps are those on which the price is judged: where `solve` cut each step of the supply into `substeps`, there are so many
    for each, and 32 or more in all for a price in closed form.

    `clearing_error` max |E[α*_k] − Q_k| (units / time) of the best responses' mean rates over each step. Without noise, agents
    who are indifferent between responses share themselves among these so that it is smallest; `pure_clearing_error` is without
    sharing. `exploitability` ≥ 0 up to the numerics: mean cost of the equilibrium's own strategy minus `cost`, the mean cost of
    best responses (money). `accuracy`: estimated error of `rate` (units / time): with noise from two resolutions; without noise
    that of each path as the optimum of the game in `steps` steps.

    `rate` (steps,) the best responses' mean rates and `strategy_rate` (steps,) those of the equilibrium's own strategy,
    `supply` (steps,), all units / time; `mean_position` (steps + 1,) of the best responses, units.
    """

    clearing_error: float
    pure_clearing_error: float
    exploitability: float
    accuracy: float
    cost: float
    rate: Float[np.ndarray, " steps"]
    strategy_rate: Float[np.ndarray, " steps"]
    supply: Float[np.ndarray, " steps"]
    mean_position: Float[np.ndarray, " nodes"]
