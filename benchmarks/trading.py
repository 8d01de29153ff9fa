"""Times of markets with trading costs: the recursion, the lattice, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from timing import timed

from walras.model import TradingCosts

_HORIZON = 0.2


def market(agents: int, power: float = 2.0) -> TradingCosts:
    """Agents with risk aversions from 1 to 2 and endowments that offset each other."""
    endowment = jnp.asarray(np.random.default_rng(0).normal(size=agents))
    return TradingCosts(jnp.linspace(1.0, 2.0, agents), 5.0 * (endowment - endowment.mean()), 0.01, power=power)


def solves(quick: bool):
    """Rows (solver, agents, steps, compilation, seconds, seconds with the gradient of the price in all parameters).

    A solve includes its extrapolation: 8 times the steps for quadratic costs, 4 times for others.
    """
    sizes = [(2, 32), (2, 64), (2, 128), (10, 64), (20, 64), (40, 64)]
    for agents, steps in sizes[:2] if quick else sizes:
        yield "recursion", agents, steps, *_times(market(agents), steps)
    for steps in (16,) if quick else (16, 32, 64):
        yield "lattice, q = 3/2", 2, steps, *_times(market(2, 1.5), steps)


def _times(parameters, steps):
    def price(parameters):
        return parameters.solve(_HORIZON, steps).price0

    parameters = jax.tree.map(jnp.asarray, parameters)
    forward, both = jax.jit(price), jax.jit(jax.value_and_grad(price))
    solved, with_gradient = (timed(function, parameters, seconds=0.5, fewest=2) for function in (forward, both))
    return solved.compilation, solved.seconds, with_gradient.seconds
