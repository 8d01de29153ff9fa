"""Bids of groups in an asymmetric first-price auction, as piecewise polynomials.

With uⱼ(b) the probability that a bidder of group j bids less than b, Lⱼ = log uⱼ and values φⱼ = Qⱼ(uⱼ), bidders' first-order
conditions Σⱼ (nⱼ − δᵢⱼ) Lⱼ′ = 1/(φᵢ − b), over the groups that bid there, become, solved for the derivatives,

    Lᵢ′ = S − 1/(φᵢ − b),   S = Σⱼ nⱼ/(φⱼ − b) / (N − 1).

Bids start at the common lowest value lo. Where Fᵢ grows like (v − lo)^aᵢ, Lᵢ is aᵢ log (b − lo) plus a smooth function: the
equation times b − lo has no singular term for it, and needs no boundary condition. Bids of group i end where Lᵢ = 0. If its
highest value is too low to bid as high as the others do, that is where Lᵢ′ falls to 0; otherwise where its successor's
bids end. Groups end in the order of their highest values: this cuts bids into as many segments as there are groups, in
each of which all is smooth, and all but the first of which may have no length. In each, the polynomials are in τ, where
1 − (1 − τ)² is the part t of the segment: with densities that vanish at the highest value, values are not smooth in b there,
and less rough in τ.

The unknowns are the polynomials' Chebyshev coefficients and the lengths of segments. There are more equations than unknowns,
since the conditions that make solutions smooth at lo and at the ends of segments are among them, and they are satisfied in
the sense of least squares, by Levenberg and Marquardt's method. Where a group's bids end, an error of L is a jump of the
probability to win, from which others gain in proportion, while gains from errors elsewhere are of their square: conditions at
ends weigh more. The implicit derivative is that of the same least-squares problem.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float
from numpy.polynomial import chebyshev

from walras.model.auctions.backward import ENDED, integrate
from walras.model.auctions.values import density, ends, probability, quantile

_STEPS = 100
_FIRST_DAMPING, _SOFTER, _HARDER, _LEAST_DAMPING = 1e-2, 0.1, 4.0, 1e-12
_SLIGHT = 1e-10  # of the sum of squares: what the last step might still take from it
_ROUNDING = 1e-24  # sum of squares that holds rounding errors alone
_FIRM = 100.0  # weight of conditions at the ends of bids: an error there is one of first order in what bidders gain
_LEAST_MARGIN = 1e-3  # of the bid: with a = 1 for all, it is one over the number of rivals at the lowest bids
_NEAR_LOWEST = 1e-6  # of the range of values: where the growth of F at its lower end is read off
_LAST_TAU = 1.0 - 1e-7  # where polynomials in τ end when a bid is given: dτ/dt is infinite at 1


class Bids(NamedTuple):
    """The unknowns: coefficients of Lᵢ − aᵢ log t in the first segment and of Lᵢ in the others, and lengths of all segments.

    Lengths are over the range of all values.
    """

    first: Float[Array, "groups modes"]
    others: Float[Array, "segments groups modes"]
    lengths: Float[Array, " groups"]


class Groups(eqx.Module):
    """Bidders' values by group, with the sizes of groups."""

    values: tuple
    sizes: tuple

    @property
    def counts(self) -> Float[Array, " groups"]:
        return jnp.stack([jnp.asarray(size, float) for size in self.sizes])

    @property
    def lowest(self) -> Float[Array, ""]:
        return jnp.asarray(ends(self.values[0])[0], float)

    @property
    def highest(self) -> Float[Array, " groups"]:
        return jnp.stack([jnp.asarray(ends(values)[1], float) for values in self.values])

    @property
    def span(self) -> Float[Array, ""]:
        return jnp.max(self.highest) - self.lowest

    @property
    def present(self) -> Bool[Array, "segments groups"]:
        """Which groups still bid in each segment."""
        ranks = jnp.argsort(jnp.argsort(self.highest))
        return ranks[None] >= jnp.arange(len(self.values))[:, None]

    @property
    def growth(self) -> Float[Array, " groups"]:
        """aᵢ, from values that are near lo."""
        near = self.lowest + _NEAR_LOWEST * self.span
        return jnp.stack([(near - self.lowest) * density(values)(near) / probability(values)(near) for values in self.values])

    def probabilities(self, at: Float[Array, "groups points"]) -> Float[Array, "groups points"]:
        return jnp.stack([probability(values)(row) for values, row in zip(self.values, at, strict=True)])

    def margins(self, log_level, bid) -> Float[Array, "groups points"]:
        """φ − b from L (groups, points) and b − lo (points,), all over the range of values.

        For L > 0, which the search may try, values go on beyond the highest one, mirrored, so that they depend on L there too.
        """
        level = jnp.exp(-jnp.abs(log_level))
        inside = jnp.stack([quantile(values)(row) for values, row in zip(self.values, level, strict=True)])
        value = jnp.where(log_level > 0, 2.0 * self.highest[:, None] - inside, inside)
        return (value - self.lowest) / self.span - bid[None]

    def wishes(self, log_level, bid, present):
        """Lᵢ′ and S of the groups that are present."""
        counts = jnp.where(present, self.counts, 0.0)
        rivals = jnp.sum(counts) - 1.0
        margin = self.margins(log_level, bid)
        # For margins that are too small or negative, which the search may try, 1/margin goes on as a straight line.
        least = _LEAST_MARGIN * bid[None]
        pull = jnp.where(margin > least, 1.0 / jnp.maximum(margin, least), (2.0 - margin / least) / least)
        pull = jnp.where(present[:, None], pull, 0.0)
        total = jnp.where(rivals > 0, counts @ pull / jnp.where(rivals > 0, rivals, 1.0), 0.0)
        return jnp.where(present[:, None], total[None] - pull, 0.0), total


def _first_segment(groups: Groups, bids: Bids, tau):
    """What is left of the first-order conditions at some τ of the first segment."""
    smooth, slope = _curves(bids.first, tau)
    growth, t = groups.growth[:, None], jnp.asarray(_part(tau))[None]
    bid = bids.lengths[0] * t[0]
    wish, total = groups.wishes(growth * jnp.log(t) + smooth, bid, groups.present[0])
    return (growth + t * slope - bid[None] * wish) / (1.0 + bid * total)[None]


def _other_segment(groups: Groups, curve, start, length, present, tau):
    """The same in another segment; where a group does not bid any more, L."""
    log_level, slope = _curves(curve, tau)
    wish, total = groups.wishes(log_level, start + length * jnp.asarray(_part(tau)), present)
    return jnp.where(present[:, None], (slope - length * wish) / (1.0 + length * total)[None], log_level)


def first_order(groups: Groups, bids: Bids, tau: np.ndarray, other_tau: np.ndarray) -> list:
    """What is left of the bidders' first-order conditions at some τ of each segment, relative to S."""
    starts = jnp.cumsum(bids.lengths)
    segments = zip(bids.others, starts[:-1], bids.lengths[1:], groups.present[1:], strict=True)
    return [_first_segment(groups, bids, tau), *(_other_segment(groups, *segment, other_tau) for segment in segments)]


def ends_missed(groups: Groups, bids: Bids):
    """For each group: L at the ends of segments joined to the next; and for each end but the last, whether it is one."""
    reached = jnp.concatenate([jnp.sum(bids.first, axis=1)[None], jnp.sum(bids.others, axis=2)])
    signs = (-1.0) ** jnp.arange(bids.others.shape[2])
    joined = jnp.concatenate([bids.others @ signs, jnp.zeros_like(reached[:1])])
    stops = []
    for segment, length in enumerate(bids.lengths[1:]):
        present = groups.present[segment]
        bid = jnp.cumsum(bids.lengths)[segment]
        wish, total = groups.wishes(reached[segment][:, None], bid[None], present)
        leaving = jnp.sum(jnp.where(present & ~groups.present[segment + 1], wish[:, 0], 0.0)) / total[0]
        remaining = jnp.sum(jnp.where(groups.present[segment + 1], groups.counts, 0.0))
        stops.append(jnp.where(remaining > 1.0, _either(length, leaving), length))
    return reached - joined, jnp.stack(stops) if stops else jnp.zeros(0)


def _either(one, other):
    """Zero where one of two numbers is zero and the other is not negative (Fischer and Burmeister)."""
    return one + other - jnp.sqrt(one**2 + other**2 + jnp.finfo(float).tiny)


def equations(groups: Groups, bids: Bids) -> Float[Array, " equations"]:
    order = first_order(groups, bids, _collocated(bids.first.shape[1]), _collocated(bids.others.shape[2] - 1))
    weights = jnp.where(groups.present, 1.0, _FIRM)[:, :, None]
    ends = (*ends_missed(groups, bids), *(_slope_at_the_end(curves) for curves in (bids.first, bids.others)))
    weighted = (*(weight * part for weight, part in zip(weights, order, strict=True)), *(_FIRM * part for part in ends))
    return jnp.concatenate([part.ravel() for part in weighted])


def _slope_at_the_end(coefficients):
    """The derivative by τ at τ = 1. It is zero, as L′ is finite."""
    return coefficients @ (2.0 * jnp.arange(coefficients.shape[-1]) ** 2)


def _collocated(modes: int) -> np.ndarray:
    return 0.5 * (1.0 + chebyshev.chebpts1(modes))


def _part(tau):
    """t at τ."""
    return tau * (2.0 - tau)


def _curves(coefficients, tau: np.ndarray):
    """Polynomials at some τ and their derivatives by t: (groups, points) each."""
    modes = coefficients.shape[1]
    argument = 2.0 * tau - 1.0
    slopes = chebyshev.chebvander(argument, modes - 2) @ chebyshev.chebder(np.eye(modes), scl=2.0)
    by_t = slopes / (2.0 * (1.0 - tau))[:, None]
    return coefficients @ jnp.asarray(chebyshev.chebvander(argument, modes - 1)).T, coefficients @ jnp.asarray(by_t).T


def log_level(groups: Groups, bids: Bids, group: int, bid: Float[Array, ""]) -> Float[Array, ""]:
    """L of a group at one bid, as (b − lo) over the range of values."""
    starts = jnp.cumsum(bids.lengths) - bids.lengths
    part = jnp.clip((bid - starts) / jnp.maximum(bids.lengths, jnp.finfo(float).tiny), jnp.finfo(float).tiny, 1.0)
    tau = jnp.minimum(1.0 - jnp.sqrt(jnp.maximum(1.0 - part, (1.0 - _LAST_TAU) ** 2)), _LAST_TAU)
    first = _polynomial(bids.first[group], tau[0]) + groups.growth[group] * jnp.log(part[0])
    others = [_polynomial(curve[group], at) for curve, at in zip(bids.others, tau[1:], strict=True)]
    found = jnp.where(groups.present[:, group], jnp.stack([first, *others]), 0.0)
    return jnp.minimum(found[jnp.sum(bid > starts[1:])], 0.0)


def _polynomial(coefficients, tau):
    """By Clenshaw's recurrence."""
    argument = 2.0 * tau - 1.0
    later, last = jnp.zeros_like(tau), jnp.zeros_like(tau)
    for coefficient in coefficients[:0:-1]:
        later, last = coefficient + 2.0 * argument * later - last, later
    return coefficients[0] + argument * later - last


def guess(groups: Groups, modes: int) -> Bids:
    """Polynomials through what integration from the top bid down gives."""
    path = integrate(groups)
    top = path.bid[-1]
    bids = jnp.max(jnp.where(path.log_levels[:-1] < ENDED, path.bid[1:, None], 0.0), axis=0)
    stops = jnp.sort(bids).at[-1].set(top)
    rivals = jnp.broadcast_to(groups.counts, (groups.counts.size,) * 2) - jnp.eye(groups.counts.size)
    slowest = (1.0 + 1.0 / (rivals @ groups.growth))[:, None]
    lengths = jnp.diff(stops, prepend=0.0)

    def known(at):
        return jnp.stack([jnp.interp(at, path.bid, level) for level in path.log_levels.T])

    def log_levels(at):
        """L at some b − lo; below the first one known, of values over b − lo that change linearly."""
        share = jnp.minimum(at / path.first, 1.0)[None]
        shape = slowest + share * (groups.margins(known(path.first[None]), path.first[None]) / path.first + 1.0 - slowest)
        values = groups.lowest + groups.span * jnp.minimum(at, path.first)[None] * shape
        return jnp.where(share < 1.0, jnp.log(groups.probabilities(values)), known(at))

    def fitted(values, tau, modes):
        return values @ jnp.asarray(np.linalg.inv(chebyshev.chebvander(2.0 * tau - 1.0, modes - 1))).T

    tau, few = _collocated(modes), modes // 2 + 1
    t = jnp.asarray(_part(tau))
    first = fitted(log_levels(stops[0] * t) - groups.growth[:, None] * jnp.log(t)[None], tau, modes)
    tau = _collocated(few)
    segments = [log_levels(start + length * jnp.asarray(_part(tau))) for start, length in zip(stops, lengths[1:], strict=False)]
    others = [fitted(segment, tau, few) for segment in segments]
    return Bids(first, jnp.stack(others) if others else jnp.zeros((0, 1, few)), lengths)


def solve(groups: Groups, modes: int) -> Bids:
    """The inverse bids, differentiable to any order in everything that `groups` holds."""
    return Bids(*_solve(groups, modes))


@eqx.filter_custom_jvp
def _solve(groups, modes):
    return tuple(_least_squares(lambda bids: equations(groups, bids), jax.lax.stop_gradient(guess(groups, modes))))


@_solve.def_jvp
def _solve_jvp(primals, tangents):
    groups, modes = primals
    found = solve(groups, modes)
    _, moved = eqx.filter_jvp(lambda g: equations(g, found), (groups,), (tangents[0],))
    flat, unravel = ravel_pytree(tuple(found))
    matrix = jax.jacfwd(lambda at: equations(groups, Bids(*unravel(at))))(flat)
    orthogonal, triangular = jnp.linalg.qr(matrix)
    return tuple(found), unravel(-jax.scipy.linalg.solve_triangular(triangular, orthogonal.T @ moved))


class _Search(NamedTuple):
    """The best unknowns so far, what they leave, its derivative, the next step, the damping, whether it ended, steps taken."""

    unknowns: Array
    left: Array
    matrix: Array
    step: Array
    damping: Array
    ended: Array
    steps: Array


def _least_squares(equations: Callable, start: Bids) -> Bids:
    """Levenberg's and Marquardt's method as one loop with one evaluation in its body (what is compiled once)."""
    unknowns, unravel = ravel_pytree(tuple(start))

    def both(at):
        left = equations(Bids(*unravel(at)))
        return left, left

    def advance(at: _Search):
        trial = at.unknowns + at.step
        matrix, left = jax.jacfwd(both, has_aux=True)(trial)
        better = jnp.all(jnp.isfinite(matrix)) & (jnp.sum(left**2) < jnp.sum(at.left**2))
        damping = jnp.maximum(jnp.where(better, _SOFTER, _HARDER) * at.damping, _LEAST_DAMPING)
        left, matrix = (jnp.where(better, new, old) for new, old in ((left, at.left), (matrix, at.matrix)))
        following = step(left, matrix, damping)
        gained = -jnp.sum(left * (matrix @ following))
        size = jnp.sum(left**2)
        at_lowest = (gained <= _SLIGHT * size) | (size <= _ROUNDING)
        return _Search(jnp.where(better, trial, at.unknowns), left, matrix, following, damping, at_lowest, at.steps + 1)

    def step(left, matrix, damping):
        curvature = matrix.T @ matrix + damping * jnp.eye(unknowns.size)  # Cholesky's is many times faster than a QR of both
        return -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(curvature), matrix.T @ left)

    count = jax.eval_shape(lambda at: both(at)[0], unknowns).shape[0]
    nothing = jnp.full(count, jnp.inf), jnp.zeros((count, unknowns.size)), jnp.zeros_like(unknowns)
    first = _Search(unknowns, *nothing, jnp.asarray(_FIRST_DAMPING), jnp.asarray(False), jnp.asarray(0))
    found = jax.lax.while_loop(lambda at: ~at.ended & (at.steps < _STEPS), advance, first)
    return Bids(*unravel(found.unknowns))
