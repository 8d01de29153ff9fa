"""What every solve returns beside its solution: a status, and an error that states the remedy."""

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from walras import WalrasError


class Status(eqx.Enumeration):
    """How a solve ended. Each member's text says what went wrong and what to do about it; `Status[status]` reads it."""

    solved = ""
    not_convex = (
        "the market has no equilibrium because an agent's problem is not convex: give a positive trading_cost and "
        "non-negative cost strengths"
    )
    not_stationary = (
        "the market has no stationary equilibrium because its stock never settles: give a positive depreciation, or a "
        "positive demand slope together with a positive holding strength, and a positive supply reversion"
    )
    not_finite = (
        "the price is not finite: check that every parameter, the supply and the initial positions are finite, or "
        "rescale their units"
    )


class EquilibriumError(WalrasError):
    """A market could not be solved, or was asked for something that its closed form cannot give."""


def status_of(*solution, convex: bool | Array = True, stationary: bool | Array = True) -> Status:
    """The status of a solution (arrays) given which of its preconditions hold; the first failure is reported."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for part in solution]))
    status = Status.where(finite, Status.solved, Status.not_finite)
    status = Status.where(jnp.asarray(stationary), status, Status.not_stationary)
    return Status.where(jnp.asarray(convex), status, Status.not_convex)


def checked(equilibrium, throw):
    """Return the equilibrium; with `throw`, raise `EquilibriumError` for a failure that is known (not being traced)."""
    code = equilibrium.status._value
    if throw and not isinstance(code, Tracer) and not bool(jnp.all(equilibrium.status == Status.solved)):
        raise EquilibriumError(Status[equilibrium.status])
    return equilibrium
