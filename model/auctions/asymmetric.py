"""The first-price auction among groups of bidders whose values have different distributions."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.auctions.collocation import Bids, Groups, ends_missed, first_order, log_level, solve
from walras.model.auctions.values import ends, inverse, quantile, require_quantiles
from walras.model.equilibrium import EquilibriumError, Status, checked, first_failure, is_traced, require_double_precision

_FEWEST_MODES = 4
_SAME_END = 1e-9  # of the range of values: what lowest values may differ by through rounding
_SATISFIED = 3e-3  # a residual beyond which bids are not those of an equilibrium: gains from other bids are of its square
_MET = 1e-6  # of L: what conditions at the ends of bids may miss, beyond which the search ended elsewhere
_REVENUE_NODES = np.polynomial.legendre.leggauss(64)


class AsymmetricFirstPriceAuction(eqx.Module):
    """Groups of risk-neutral bidders with independent private values; the highest bid wins and is paid.

    `values`: for each group a distribution with `cdf` and `icdf` (or `cdf` and the ends of its `support`), or a quantile
    function. Values are bounded, with the same lowest value for all; the density may be zero or infinite there. `bidders`: the
    size of each group. Everything can be differentiated, parameters inside `values` too.

    >>> auction = AsymmetricFirstPriceAuction([lambda u: u, lambda u: 2.0 * u], bidders=[1, 1])
    >>> round(float(auction.solve().top_bid), 8)
    0.66666667
    """

    values: tuple = eqx.field(converter=tuple)
    bidders: tuple = eqx.field(converter=tuple)

    def __check_init__(self):
        if len(self.values) != len(self.bidders) or not self.values:
            raise EquilibriumError(
                f"values has {len(self.values)} groups and bidders {len(self.bidders)}: give a distribution and a size for each"
            )
        for group, size in enumerate(self.bidders):
            if jnp.ndim(size) != 0 or (not is_traced(size) and not 1 <= size < np.inf):
                raise EquilibriumError(f"bidders[{group}] is {size}: give each group at least one bidder, or leave it out")
        if not is_traced(self.bidders) and sum(self.bidders) < 2:
            raise EquilibriumError(
                "bidders has one bidder in all: give at least two, as bids against nobody have no equilibrium"
            )
        for group, values in enumerate(self.values):
            self._check_support(group, values)

    def _check_support(self, group: int, values: Any):
        name = f"values[{group}]"
        require_quantiles(name, values)
        found = ends(values), ends(self.values[0])[0]
        if is_traced(found):
            return
        (low, high), common = found
        if not (np.isfinite(low) and np.isfinite(high)):
            raise EquilibriumError(
                f"{name} lies between {low} and {high}: asymmetric auctions are solved for bounded values, so truncate it"
            )
        if not abs(low - common) <= _SAME_END * (high - low):
            raise EquilibriumError(
                f"{name} starts at {low} and values[0] at {common}: asymmetric auctions are solved for one lowest value, so "
                "give all the same"
            )

    def solve(self, modes: int = 24, *, throw: bool = True) -> "AsymmetricEquilibrium":
        """The equilibrium, with inverse bid functions of `modes` Chebyshev modes each.

        `residual` is the largest error of a first-order condition between the points where it is imposed, relative.
        Raises `EquilibriumError`, unless `throw=False` or under a JAX transformation, if it is large; then `status` tells. It
        is, and more modes mend it, with many bidders whose values have very different densities.
        """
        require_double_precision()
        if isinstance(modes, bool) or not isinstance(modes, int | np.integer) or modes < _FEWEST_MODES:
            raise EquilibriumError(f"modes is {modes}: give a whole number of at least {_FEWEST_MODES}")
        return checked(_solved(self, int(modes)), throw)


class AsymmetricEquilibrium(eqx.Module):
    """Bids of an `AsymmetricFirstPriceAuction`. Groups are counted from 0; arguments of methods may have any shape.

    `top_bid` is the highest of all bids, and `top_bids` (groups,) are those of each group, lower where a group's highest value
    is too low to bid against the others up to `top_bid`.
    """

    auction: AsymmetricFirstPriceAuction
    bids: Bids
    residual: Float[Array, ""]
    status: Status

    @property
    def _groups(self) -> Groups:
        return Groups(self.auction.values, self.auction.bidders)

    @property
    def lowest(self) -> Float[Array, ""]:
        """The lowest value and bid."""
        return self._groups.lowest

    @property
    def top_bid(self) -> Float[Array, ""]:
        """b̄ (money)."""
        return self.lowest + self._groups.span * jnp.sum(self.bids.lengths)

    @property
    def top_bids(self) -> Float[Array, " groups"]:
        """The highest bid (money) of each group."""
        groups = self._groups
        return self.lowest + groups.span * (self.bids.lengths @ groups.present)

    @eqx.filter_jit
    def inverse_bid(self, group: int, bid) -> Float[Array, "..."]:
        """The value (money) of a group's bidder who makes a bid; NaN outside the range of the group's bids."""
        bid = jnp.asarray(bid, float)
        inside = (bid >= self.lowest) & (bid <= self.top_bids[group])
        part = jnp.where(inside, (bid - self.lowest) / (self.top_bid - self.lowest), 0.5)
        return jnp.where(inside, self._value(group, part), jnp.nan)

    @eqx.filter_jit
    def bid(self, group: int, value) -> Float[Array, "..."]:
        """The bid (money) of a group's bidder; NaN for a value below the support, and for one above it the group's top bid."""
        value = jnp.asarray(value, float)
        part = inverse(lambda at: self._value(group, at), value, 0.0, 1.0)
        bid = jnp.minimum(self.lowest + part * (self.top_bid - self.lowest), self.top_bids[group])
        return jnp.where(value >= self.lowest, bid, jnp.nan)

    def expected_revenue(self) -> Float[Array, ""]:
        """What the seller expects (money): the mean of the highest bid."""
        points, weights = (jnp.asarray(part) for part in _REVENUE_NODES)
        counts = self._groups.counts
        log_below = sum(counts[group] * self._log_level(group, 0.5 * (points + 1.0)) for group in range(counts.size))
        return self.top_bid - (self.top_bid - self.lowest) * jnp.sum(0.5 * weights * jnp.exp(log_below))

    def _log_level(self, group, part):
        groups, total = self._groups, jnp.sum(self.bids.lengths)
        return jnp.vectorize(lambda one: log_level(groups, self.bids, group, one * total))(part)

    def _value(self, group, part):
        """φ at a part of the range of all bids."""
        return quantile(self.auction.values[group])(jnp.exp(self._log_level(group, part)))


@eqx.filter_jit
def _solved(auction: AsymmetricFirstPriceAuction, modes: int) -> AsymmetricEquilibrium:
    groups = Groups(auction.values, auction.bidders)
    found = solve(groups, modes)
    between = np.linspace(0.0, 1.0, 4 * modes + 1)[1:-1]
    residual = jnp.max(jnp.abs(jnp.stack(first_order(groups, found, between, between))))
    missed = jnp.max(jnp.abs(jnp.concatenate([part.ravel() for part in ends_missed(groups, found)])))
    status = first_failure(
        (~jnp.isfinite(residual), Status.bids_not_finite),
        ((residual > _SATISFIED) | (missed > _MET), Status.bids_not_found),
    )
    return AsymmetricEquilibrium(auction, found, residual, status)
