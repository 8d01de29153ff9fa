"""What agents do in an equilibrium: a feedback rule where they are hit by noise, or a path each where they are not."""

import equinox as eqx
from jaxtyping import Array, Float


class Feedback(eqx.Module):
    """Agents at `position` at a node of time trade at the supply rate of the step plus `rate`.

    `position` (nodes, points), increasing along each row, in units; `rate` (nodes, points), units / time. The rule is
    interpolated between them, in position and, being continuous, in time.
    """

    position: Float[Array, "nodes points"]
    rate: Float[Array, "nodes points"]


class Paths(eqx.Module):
    """Agent i is at `positions[k, i]` (nodes, agents) at the k-th node of time, and moves in straight lines between."""

    positions: Float[Array, "nodes agents"]
