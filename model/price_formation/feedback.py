"""The rule that agents hit by noise follow in an equilibrium, from their value function, at and between its nodes.

At each node k lies R_k(y) = hV(X̄_k + y) + λ_k y, half of which belongs to the step before the node and half to the one after.
With u = −ε log φ_k − R_k/2 what is left of the value at the node without the former half, an agent at y, a time s = θh
before the node, has the value

    −ε log K_s exp(−(u + θ R_k/2)/ε)(y) + θ R(y)/2,

K_s being the heat kernel over s: the trapezium's rule once more, and at θ = 1 that of the solve. At the two ends of the
horizon, where half a step is missing, λ is −hE V′: then the mean rate there is the supply's. The value's slope is −c times the
rate beyond the supply rate. The rule changes fast where costs are stiff, at the end of the horizon above all: hence the
times in between, a geometric sequence towards each node.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras.model.costs import expected, slope, values
from walras.model.equilibrium import is_traced
from walras.model.price_formation.hopf_cole import Heat, HopfCole, bounded, walls
from walras.model.price_formation.strategy import Feedback

_PER_OCTAVE = 4  # times: a rate like 1/(T − t) is then interpolated to 1 %
_MOST_ROWS = 512


def feedback(equilibrium) -> Feedback:
    """The rule of a `DiffusionEquilibrium`; under a JAX transformation at the nodes of its solve alone."""
    if is_traced(equilibrium):
        return _rule(equilibrium, np.ones(1))
    fine = equilibrium.fine
    # Kernels over less time than this are narrower than the grid's spacing.
    least = float(equilibrium.grid.spacing**2 / (fine.noise**2 * fine.step))
    count = min(1 + int(_PER_OCTAVE * max(-np.log2(least), 0.0)), max(_MOST_ROWS // fine.steps, 1))
    return _rule(equilibrium, np.geomspace(1.0, least, count) if count > 1 else np.ones(1))


@eqx.filter_jit
def _rule(equilibrium, fractions) -> Feedback:
    dual: HopfCole = equilibrium.dual()
    game, grid, multipliers = equilibrium.fine, equilibrium.grid, equilibrium.multipliers
    nodes, mean, h, epsilon = grid.nodes(), game.mean_position, game.step, dual.epsilon
    flow = dual.flow(multipliers)
    last = dual.distance[-1] + mean[-1]
    first_pull = jnp.sum(game.weights * slope(game.holding, game.initial))
    last_pull = expected(flow.mass[-1], slope(game.holding, last))
    # What the multipliers are at the two ends, where half a step is missing.
    tilts = jnp.concatenate([-h * first_pull[None], multipliers[:-1], -h * last_pull[None]])

    def running(position, distance, tilt):
        return bounded(h * values(game.holding, position), epsilon) + tilt * distance

    at_nodes = running(dual.distance + mean[1:, None], dual.distance, tilts[1:, None])

    def before(row):
        """The rule a part of a step before a node."""
        node, fraction = row
        now = mean[node] - fraction * h * game.supply[node - 1]
        position = nodes if game.limits else nodes + now
        # The half step before the node is of the length `fraction` now.
        log_value = flow.log_value[node - 1] + 0.5 * (1 - fraction) * at_nodes[node - 1] / epsilon
        heat = Heat(game.noise**2 * h * fraction, grid, game.limits)
        _, entry, near = heat.entering(position, jnp.stack([now, mean[node]]))
        log_value = jax.nn.logsumexp(entry + log_value[near], axis=1)
        log_value = log_value - 0.5 * fraction * running(position, position - now, tilts[node - 1]) / epsilon
        return position, game.noise**2 * _slopes(log_value, position, equilibrium)

    ends, parts = jnp.meshgrid(jnp.arange(1, game.steps + 1), fractions, indexing="ij")
    positions, rates = jax.lax.map(before, (ends.ravel(), parts.ravel()))
    # At the end, agents trade against Ψ′ alone.
    end = -(slope(game.terminal, last) + multipliers[-1] + 0.5 * h * last_pull) / game.trading_cost
    return Feedback(
        time=jnp.append(h * (ends - parts).ravel(), game.horizon),
        position=jnp.concatenate([positions, last[None]]),
        rate=jnp.concatenate([rates, end[None]]),
    )


def _slopes(log_value, position, equilibrium):
    """∂ log φ/∂y (points,). At a wall φ vanishes like the distance from it, of which the logarithm is kept apart."""
    spacing, wall_slope = equilibrium.grid.spacing, jnp.zeros_like(log_value)
    for wall in walls(equilibrium.game.limits):
        inwards = jnp.sign(jnp.mean(position) - wall)
        distance = jnp.where(jnp.abs(position - wall) > 0.5 * spacing, position - wall, 0.25 * spacing * inwards)
        log_value = log_value - jnp.log(jnp.abs(distance))
        wall_slope = wall_slope + 1.0 / distance
    if equilibrium.game.limits:
        # On the wall itself there is nothing left to take the logarithm of: the smooth rest goes on in a straight line.
        low, high = equilibrium.game.limits
        if low is not None:
            log_value = log_value.at[0].set(2 * log_value[1] - log_value[2])
        if high is not None:
            log_value = log_value.at[-1].set(2 * log_value[-2] - log_value[-3])
    return jnp.asarray(jnp.gradient(log_value, spacing)) + wall_slope
