"""The concave dual of price formation: its maximiser is the equilibrium.

On N steps of length h, with multipliers λ_k on the agents' distance y_k from the mean position (k = 1 … N), the costate over
step k is Σ_{j≥k} λ_j and

    D(λ) = Σᵢ wᵢ · (the optimal cost of an agent who starts at yᵢ, with Σ_k λ_k y_k added),   ∂D/∂λ_k = E[y_k],

so that markets clear, E[y_k] = 0, where D is largest. Newton's method: each step solves −D″ δ = D′ by conjugate
gradients, preconditioned by the operator that −D″ inverts exactly where costs are quadratic,

    H = (c/h) tridiag(−1, 2, −1; last diagonal 1) + diag(h E[V″]⁺),   the last entry (h/2) E[V″]⁺ + E[Ψ″]⁺.

The derivative of the maximiser is implicit, by one more linear solve: −D″ dλ = d(D′), in both modes and to any order.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from walras.model.costs import times

_NEWTON_STEPS, _CG_STEPS, _HALVINGS = 40, 40, 20
_GUESSES = 4
_LOOSEST_CG, _TIGHTEST_CG = 0.3, 1e-4
_TANGENT_TOLERANCE = 1e-11  # of the linear solve behind derivatives, relative


class Evaluation(NamedTuple):
    """The dual at some multipliers: `value` D, `mean` (steps, …) E[y], the `curvature` h E[V″]⁺ of H.

    `state` is whatever helps the next evaluation nearby.
    """

    value: Float[Array, ""]
    mean: Float[Array, "steps ..."]
    curvature: Float[Array, "steps ..."]
    state: Any


class Dual(eqx.Module):
    """What the maximiser asks of an evaluation of agents' optimal costs. Multipliers are (steps,) or (steps, assets)."""

    trading_cost: eqx.AbstractVar[Array]
    step: eqx.AbstractVar[Array]

    @abstractmethod
    def mean(self, multipliers, state) -> Float[Array, "steps ..."]:
        """E[y_k], differentiable in the multipliers and in the fields; constant in the state."""

    @abstractmethod
    def evaluate(self, multipliers, state) -> Evaluation:
        """The value, its derivative, and the curvature of costs, from a state that an earlier evaluation left."""

    def first_state(self) -> Any:
        """A state to start from."""
        return ()

    @abstractmethod
    def linearised(self, multipliers, state) -> tuple[Evaluation, Callable]:
        """The same, and v ↦ D″v."""

    def precondition(self, curvature, vector):
        """H applied to a vector."""
        differences = jnp.diff(vector, axis=0, prepend=0.0) / self.step
        stiff = differences - jnp.concatenate([differences[1:], jnp.zeros_like(differences[:1])])
        bent = curvature * vector if vector.ndim == 1 else jnp.einsum("kij,kj->ki", curvature, vector)
        return times(self.trading_cost, stiff) + bent


class Maximum(NamedTuple):
    """Where the search ended: the multipliers, the clearing error there (units / time), Newton steps taken, the state."""

    multipliers: Float[Array, "steps ..."]
    residual: Float[Array, ""]
    iterations: Array
    state: Any


def promising(dual: Dual, guess: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
    """The best of a few multiples of a guess: where costs are not convex, a guess made for convex ones goes too far."""
    shares = jnp.linspace(0.0, 1.0, _GUESSES).reshape(-1, *[1] * guess.ndim)
    guesses = shares * guess[None]
    return guesses[jnp.nanargmax(jax.vmap(lambda at: dual.evaluate(at, dual.first_state()).value)(guesses))]


def costate_of(multipliers: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
    """p̄ over each step, Σ_{j≥k} λ_j."""
    return jnp.cumsum(multipliers[::-1], axis=0)[::-1]


def clearing_error(dual: Dual, mean) -> Float[Array, ""]:
    """The largest error max |E[α_k] − Q_k| of rates, from the mean distances at the nodes."""
    return jnp.max(jnp.abs(jnp.diff(mean, axis=0, prepend=0.0))) / dual.step


def maximise(dual: Dual, guess: Float[Array, "steps ..."], scale: Float[Array, ""], tolerance: float) -> Maximum:
    """The maximiser of D, to a clearing error of `tolerance` in units of `scale` (units / time); differentiable in `dual`."""
    return Maximum(*_maximise(dual, *jax.lax.stop_gradient((guess, scale)), tolerance))


@eqx.filter_custom_jvp
def _maximise(dual, guess, scale, tolerance):
    return _newton(dual, guess, scale, tolerance * scale)


@_maximise.def_jvp
def _maximise_jvp(primals, tangents):
    dual, tangent = primals[0], tangents[0]
    found, residual, iterations, state = _maximise(*primals)
    _, moved = eqx.filter_jvp(lambda d: d.mean(found, state), (dual,), (tangent,))
    evaluation, hessian = dual.linearised(found, state)
    curvature = jax.lax.stop_gradient(evaluation.curvature)

    def solve(operator, right):
        return cg(operator, right, M=lambda v: dual.precondition(curvature, v), tol=_TANGENT_TOLERANCE, maxiter=_CG_STEPS)[0]

    # JAX's own cg is not transposable by itself where its right side is traced together with other values.
    response = jax.lax.custom_linear_solve(lambda v: -hessian(v), moved, solve, symmetric=True)
    return (found, residual, iterations, state), (response, jnp.zeros_like(residual), None, jax.tree.map(jnp.zeros_like, state))


class _Search(NamedTuple):
    """The search for the maximum: the best multipliers so far, and where it looks next, `size` along `direction`.

    `slope` is that of D along the direction, `value` D and `residual` the clearing error, all at the best multipliers.
    """

    multipliers: Array
    direction: Array
    size: Array
    slope: Array
    value: Array
    residual: Array
    state: Any
    iterations: Array
    trials: Array


def _newton(dual, guess, scale, tolerance):
    """Newton's method with a line search, as one loop with one evaluation in its body (what is compiled once)."""

    def newton_direction(hessian, evaluation, residual):
        # The nearer the end, the more exact the direction.
        accuracy = jnp.clip(residual / scale, _TIGHTEST_CG, _LOOSEST_CG)
        direction, _ = cg(
            lambda v: -hessian(v),
            evaluation.mean,
            M=lambda v: dual.precondition(evaluation.curvature, v),
            tol=accuracy,  # pyright: ignore[reportArgumentType]  a traced number serves
            maxiter=_CG_STEPS,
        )
        return direction, jnp.sum(direction * evaluation.mean)

    def nowhere(evaluation, residual):
        return jnp.zeros_like(evaluation.mean), jnp.zeros(())

    def look(at: _Search):
        trial = at.multipliers + at.size * at.direction
        found, hessian = dual.linearised(trial, at.state)
        slope = jnp.sum(found.mean * at.direction)
        # Judged by slopes, which do not cancel where values do.
        ascends = (slope >= -0.1 * at.slope) | ((slope >= -0.5 * at.slope) & (found.value > at.value))
        return trial, found, hessian, slope, ascends & jnp.isfinite(found.value) & jnp.isfinite(slope)

    def advance(at: _Search):
        trial, found, hessian, slope, better = look(at)

        def accept():
            residual = clearing_error(dual, found.mean)
            direction, first = jax.lax.cond(
                residual > tolerance, lambda *at: newton_direction(hessian, *at), nowhere, found, residual
            )
            return _Search(
                trial, direction, jnp.ones(()), first, found.value, residual, found.state, at.iterations + 1, jnp.asarray(0)
            )

        def shrink():
            secant = at.slope / (at.slope - slope)
            size = at.size * jnp.where(jnp.isfinite(secant), jnp.clip(secant, 0.1, 0.5), 0.1)
            return at._replace(size=size, trials=at.trials + 1)

        return jax.lax.cond(better, accept, shrink)

    def unfinished(at: _Search):
        return (at.residual > tolerance) & (at.iterations <= _NEWTON_STEPS) & (at.trials < _HALVINGS) & ~(at.slope < 0)

    zero, count = jnp.zeros(()), jnp.asarray(0)
    infinite = jnp.full((), jnp.inf)
    start = _Search(guess, jnp.zeros_like(guess), zero, zero, -infinite, infinite, dual.first_state(), count, count)
    end = jax.lax.while_loop(unfinished, advance, start)
    return end.multipliers, end.residual, end.iterations - 1, end.state  # the first iteration was the guess


def refined_change(fine: Dual, costate: Float[Array, "steps ..."]) -> Float[Array, "steps ..."]:
    """How the costate (steps, …) of a solve would change on half its steps: one quasi-Newton step of the finer dual."""
    multipliers = halved_multipliers(costate)
    found = fine.evaluate(multipliers, fine.first_state())
    better = costate_of(multipliers + fine.precondition(found.curvature, found.mean))
    return jnp.mean(better.reshape(-1, 2, *costate.shape[1:]), axis=1) - costate


def halved_multipliers(costate: Float[Array, "steps ..."]) -> Float[Array, "twice_steps ..."]:
    """Multipliers on half the steps whose costate is that of a solve, interpolated."""
    between = _halved(costate)
    return between - jnp.concatenate([between[1:], jnp.zeros_like(between[:1])])


def _halved(path):
    """A path given at midpoints, at the midpoints of half the steps: linear between, and on along the outermost lines."""
    if path.shape[0] == 1:
        return jnp.repeat(path, 2, axis=0)
    slope = 0.25 * jnp.diff(path, axis=0)
    before = path - jnp.concatenate([slope[:1], slope])
    after = path + jnp.concatenate([slope, slope[-1:]])
    return jnp.stack([before, after], axis=1).reshape(-1, *path.shape[1:])
