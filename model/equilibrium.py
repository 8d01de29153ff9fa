"""What every solve returns beside its solution: a status, and an error that states the remedy."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool

from walras import WalrasError


class Status(eqx.Enumeration):
    """How a solve ended. Each member's text says what went wrong and what to do about it; `Status[status]` reads it."""

    solved = ""
    not_convex = (
        "agents' problems are not convex, and this market is then not solved: give a positive trading_cost, and Quadratic "
        "costs non-negative strengths (or write such a cost as a function)"
    )
    risks_not_offset = (
        "agents' risks do not offset each other, and this market is then solved for quadratic costs and a finite horizon only: "
        "give endowments whose sum is zero, or power=2"
    )
    volatility_not_positive = (
        "trading costs and asymmetric risk aversions leave the price no positive volatility: give a smaller trading_cost or "
        "endowment, or risk aversions that are nearer to each other"
    )
    not_stationary = (
        "the market has no stationary equilibrium because its stock never settles: give a positive depreciation, or a "
        "positive demand slope together with a positive holding strength, and a positive supply reversion"
    )
    no_noise = "the market has no noise, and this solver is for agents with noise: give a positive noise, or leave solver out"
    noise_not_seen = "the market has noise, and this solver is for agents without: set noise=0, or leave solver out"
    costs_not_convex = (
        "costs are not convex where agents go, so the solution may be a local optimum: with one asset give the market a "
        "positive noise, or leave solver out to solve for the limit of vanishing noise; with several give convex costs"
    )
    starts_outside_limits = "an agent starts at a limit or beyond it: move its initial position strictly inside the limits"
    supply_beyond_limits = (
        "supply takes the mean position beyond the limits, where no price can clear the market: supply less, or widen limits"
    )
    not_converged = (
        "the search for the price did not clear the market: check that costs are finite and smooth where agents go, or give "
        "the solver a larger tolerance"
    )
    grid_too_coarse = (
        "the grid of positions is too coarse for the noise of one step and the curvature of the costs: give the solver more "
        "points or a narrower domain, or use fewer steps"
    )
    noise_too_small = (
        "the noise is so small that probabilities underflow: give the solver log_domain=True, or set noise=0 for the limit"
    )
    band_too_narrow = (
        "agents move farther in a step than the solver's band of grid points reaches: give the solver a larger band, or more "
        "substeps"
    )
    steps_too_coarse = (
        "the price moves too much within a step of the solve to be told: give more steps (or the solver more substeps), or "
        "check that costs have the size that you mean"
    )
    domain_too_small = "agents reach the ends of the grid of positions: give the solver a wider domain"
    noise_limit_unreliable = (
        "the limit of vanishing noise could not be told from the noise levels that were solved: give the solver smaller "
        "noises, or the market a positive noise, or in place of limits a Barrier"
    )
    outside_family = (
        "the market is not among those that the networks were trained for: give one between the two of the training, or train "
        "for a wider family"
    )
    bids_not_found = (
        "the bids that were found do not satisfy bidders' first-order conditions: give values whose quantiles and density are "
        "smooth and, where the solver has modes, more of them"
    )
    bids_not_finite = "a bid is not finite: give values with a finite mean, and finite parameters"
    reserve_not_met = "no bidder's value or cost meets the reserve: give a reserve inside the support of values"
    not_trained = "the networks' figures are still uncertain: train with more iterations or paths, or a smaller learning_rate"
    not_finite = (
        "the price is not finite: check that every parameter, the supply and the initial positions are finite, or "
        "rescale their units"
    )


class EquilibriumError(WalrasError):
    """A market could not be solved, or was asked for something that its closed form cannot give."""


def first_failure(*failures: tuple[bool | Array, Status]) -> Status:
    """The status of a solve, given (whether it failed for a reason, that reason) with the gravest first."""
    status = Status.solved
    for failed, reason in reversed(failures):
        status = Status.where(jnp.asarray(failed), reason, status)
    return status


def all_finite(tree) -> Bool[Array, ""]:
    """Whether every number of a tree is finite."""
    numbers = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, float) or eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(number)) for number in numbers]))


def require_double_precision():
    """Raise with the line to add unless JAX computes in double precision."""
    if not jax.config.read("jax_enable_x64"):
        raise EquilibriumError(
            'this market needs double precision: add jax.config.update("jax_enable_x64", True) at the program\'s start'
        )


def is_traced(tree) -> bool:
    """Whether any array of a tree is known only to a JAX transformation, so that nothing can be chosen from its value."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def checked(equilibrium, throw):
    """Return the equilibrium; with `throw`, raise `EquilibriumError` for a failure that is known (not being traced)."""
    code = equilibrium.status._value
    if throw and not isinstance(code, Tracer) and not bool(jnp.all(equilibrium.status == Status.solved)):
        raise EquilibriumError(Status[equilibrium.status])
    return equilibrium
