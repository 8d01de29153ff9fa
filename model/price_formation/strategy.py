"""What agents do in an equilibrium: a feedback rule where they are hit by noise, or a path each where they are not."""

import equinox as eqx
from jaxtyping import Array, Float


class Feedback(eqx.Module):
    """Agents at `position` at a `time` trade at the supply rate of the step plus `rate`.

    `time` (times,), increasing from 0 to the horizon; `position` (times, points), increasing along each row, in units; `rate`
    (times, points), units / time. The rule is interpolated between them, in position and, being continuous, in time.
    """

    time: Float[Array, " times"]
    position: Float[Array, "times points"]
    rate: Float[Array, "times points"]


class Paths(eqx.Module):
    """Agent i is at `positions[k, i]` (nodes, agents) at the k-th node of time, and moves in straight lines between."""

    positions: Float[Array, "nodes agents"]
