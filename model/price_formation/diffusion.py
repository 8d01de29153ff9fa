"""The solver for agents hit by noise: any costs, one asset, optional hard limits on positions."""

import math
from bisect import bisect_left, bisect_right
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError, Status, is_traced, require_double_precision
from walras.model.price_formation.diffusion_equilibrium import EDGE, LOST, DiffusionEquilibrium, Discretisation, ends, solve
from walras.model.price_formation.domain import length_scale
from walras.model.price_formation.dual_equilibrium import on_chosen_substeps, require_positive
from walras.model.price_formation.game import Game

_POINTS = 128  # of a grid that cannot be chosen from values, under a JAX transformation
# Chosen grids come in few sizes, so that a market's next grid, and similar markets, share a compilation, which takes seconds.
_SIZES = tuple(sorted(size for power in range(14) for size in (2**power, 3 * 2**power)))
_FEWEST_POINTS, _MOST_POINTS = 256, 8192
_FIRST_BAND = 32
_SAMPLING_POINTS_STEP = 32  # grids for sampling run thousands of times, and are as small as they can be
_MOST_ENTRIES = 20_000_000  # of kernels, 160 MB: more would not fit next to what derivatives keep
_MOST_WORK, _LOGARITHMS = 300_000_000, 10  # products of an evaluation, a third of a second's; how many a logarithm takes
# Spacings in widths s of the narrowest kernel: the quadrature's error is e^(−2π²(s/Δ)²), 3e-9 on a chosen grid, and 1e-5 on
# one for sampling.
_SPACING, _SAMPLING_SPACING = 1.0, 1.3
_ROUNDS = 6  # of choosing a grid
_MOST_STEPS = 1024  # that are chosen
_ROOM = 0.3  # around where agents of sampled markets went, as a share of that
_NO_GRID_HELPS = (Status.not_convex, Status.no_noise, Status.starts_outside_limits, Status.supply_beyond_limits)
_WIDEST = 1e3  # of a domain, in units of the game's length


class Diffusion(eqx.Module):
    """Solves markets whose agents are hit by noise, σ > 0; every agent's optimum is global.

    What is `None` is chosen from the market's values, to a price error of about `accuracy` times the price's own scale;
    under a JAX transformation, where values are not known, it is `points` = 128, `substeps` = 1, a domain from a bound on
    how far agents go, and neither band nor log domain, and `status` tells if that did not do. `chosen(game)` gives the options
    that were chosen for one market, for use in transformations of markets like it.

    `points`: of the grid of positions. `band`: how many of them an agent can move by in a step, of which `points` is a
    multiple. `domain`: the grid's ends (low, high) as distances from the mean position, or as positions where the market has
    limits. `substeps`: into which each step of the supply is cut. `log_domain`: carry logarithms (slower; for noise so small
    that the probabilities of agents' moves underflow). `tolerance`: of the clearing error, relative to the rates of the game.
    `start`: multipliers (steps · substeps,) of a similar market's equilibrium, from which solves with as many steps start.
    """

    points: int | None = eqx.field(default=None, static=True)
    band: int | None = eqx.field(default=None, static=True)
    domain: tuple[float, float] | None = eqx.field(default=None, static=True)
    substeps: int | None = eqx.field(default=None, static=True)
    log_domain: bool | None = eqx.field(default=None, static=True)
    tolerance: float = eqx.field(default=1e-9, static=True)
    accuracy: float = eqx.field(default=1e-4, static=True)
    start: Float[Array, " fine_steps"] | None = None

    def __check_init__(self):
        require_positive(self, "points", "band", "substeps", "tolerance", "accuracy")
        if self.points is not None and self.band is not None and self.points % self.band:
            raise EquilibriumError(f"points is {self.points} and band {self.band}: give points that are a multiple of band")

    def solve(self, game: Game) -> DiffusionEquilibrium:
        """The equilibrium; `PriceFormation.solve` calls this."""
        _refuse(game)
        if is_traced((game, self)):
            points = self.points or _POINTS
            fixed = Discretisation(
                points, self.band or points, self._domain(), self.substeps or 1, bool(self.log_domain), self.tolerance
            )
            return solve(fixed, game, self._start(game, fixed.substeps))
        return self._chosen(game)

    def chosen(self, game: Game) -> "Diffusion":
        """These options with nothing left to choose: what this game needs."""
        _refuse(game)
        equilibrium = self._chosen(game)
        found, grid = equilibrium.discretisation, equilibrium.grid
        return replace(
            self,
            points=found.points,
            band=found.band,
            domain=(float(grid.low), float(grid.high)),
            substeps=equilibrium.substeps,
            log_domain=found.log_domain,
        )

    def fitted_to(self, equilibria: DiffusionEquilibrium) -> "Diffusion":
        """These options with a grid for markets like these: solutions with a leading dimension, on a generous grid.

        The grid covers where agents of all that were solved went, and resolves their kernels. Raises
        `EquilibriumError` where fewer than half were solved.
        """
        # A grid too coarse for a market still shows where its agents go.
        solved = np.asarray((equilibria.status == Status.solved) | (equilibria.status == Status.grid_too_coarse)).ravel()
        if solved.mean() < 0.5:
            raise EquilibriumError(
                f"only {solved.sum()} of {solved.size} sampled markets were solved, so no grid can be chosen for them: narrow "
                "the ranges of their parameters, or give the solver points and a domain"
            )
        low, high = (np.asarray(end).ravel()[solved] for end in equilibria.occupied)
        pad = _ROOM * (high.max() - low.min())
        low, high = float(low.min() - pad), float(high.max() + pad)
        width = float(np.asarray(equilibria.kernel_width).ravel()[solved].min()) * _SAMPLING_SPACING
        wanted = min((high - low) / width, _MOST_POINTS)
        points = self.points or _SAMPLING_POINTS_STEP * math.ceil(wanted / _SAMPLING_POINTS_STEP)
        return replace(self, points=points, band=self.band or points, domain=(low, high), substeps=self.substeps or 1)

    def _start(self, game, substeps):
        """The multipliers to start from, if they are of a solve with as many steps."""
        return self.start if self.start is not None and self.start.size == game.steps * substeps else None

    def _domain(self):
        return None if self.domain is None else (jnp.asarray(self.domain[0]), jnp.asarray(self.domain[1]))

    def _chosen(self, game) -> DiffusionEquilibrium:
        def solve(substeps, found):
            log_domain = bool(self.log_domain) if found is None else found.discretisation.log_domain
            return self._with_grid(game, self._first_grid(game, substeps, log_domain))

        if self.substeps is not None:
            return solve(self.substeps, None)
        return on_chosen_substeps(solve, self.accuracy, max(_MOST_STEPS // game.steps, 1))

    def _first_grid(self, game, substeps, log_domain) -> Discretisation:
        low, high = self._domain() or ends(game, self._start(game, 1))
        first = Discretisation(1, self.band or _FIRST_BAND, (low, high), substeps, log_domain, self.tolerance)
        return self._resolving(game, first, float(game.noise * jnp.sqrt(game.step / substeps)))

    def _with_grid(self, game, first: Discretisation) -> DiffusionEquilibrium:
        """On a grid fitted to where agents were found to be, how far they move, and the width of their kernels."""
        chosen = first
        start = self._start(game, first.substeps)
        found = solve(chosen, game, start)
        for _ in range(_ROUNDS):
            better = self._fitted(game, chosen, found)
            if better is chosen or better == chosen or any(bool(found.status == reason) for reason in _NO_GRID_HELPS):
                break
            chosen = better
            found = solve(chosen, game, start)
        return found

    def _fitted(self, game, now: Discretisation, found: DiffusionEquilibrium) -> Discretisation:
        """The discretisation for another round, or the same one."""
        low, high = float(found.grid.low), float(found.grid.high)
        if self.log_domain is None and not now.log_domain and float(found.lost) > LOST:
            return replace(now, log_domain=True)
        if self.domain is None and float(found.at_edges) > EDGE and high - low < _WIDEST * float(length_scale(game)):
            pad = 0.5 * (high - low)
            wider = (jnp.asarray(low - pad), jnp.asarray(high + pad))  # or to the walls
            return self._resolving(game, replace(now, domain=wider), float(found.grid.spacing) / _SPACING)
        if self.band is None and now.band < now.points and float(found.drift) > 1.0:
            tiles = _size_below(now.points / (now.band * float(found.drift)))  # each as long as agents move
            band = _size_above(now.points / tiles)
            return self._resolving(game, replace(now, points=tiles * band, band=band), float(found.kernel_width))
        if self.points is None and float(found.grid.spacing) > _SPACING * float(found.kernel_width) * (1 + 1e-9):
            return self._resolving(game, now, float(found.kernel_width))
        return now

    def _resolving(self, game, now: Discretisation, width: float) -> Discretisation:
        """With enough points to resolve kernels of that width, and at least those there are, as far as memory allows."""
        if self.points is not None:
            return replace(now, points=self.points, band=self.band or self.points)
        assert now.domain is not None  # only a discretisation under a transformation has none
        low, high = (float(end) for end in now.domain)
        wanted = (high - low) / (_SPACING * width) if width > 0 else 0.0
        points = max(min(wanted, _MOST_POINTS), now.points)
        steps = game.steps * now.substeps
        entries = min(_MOST_ENTRIES, _MOST_WORK // (steps * (_LOGARITHMS if now.log_domain else 1)))
        if self.band is None and points <= max(_FEWEST_POINTS, 3 * now.band):
            points = min(max(_size_above(points), _FEWEST_POINTS), math.isqrt(entries))
            return replace(now, points=points, band=points)
        most = entries // (3 * now.band) // now.band
        return replace(now, points=now.band * max(1, min(_size_above(points / now.band), most)))


def _size_above(number: float) -> int:
    return _SIZES[bisect_left(_SIZES, number)]


def _size_below(number: float) -> int:
    return _SIZES[max(bisect_right(_SIZES, number) - 1, 0)]


def _refuse(game):
    if game.supply.ndim > 1:
        raise EquilibriumError("supply has several assets: markets with noise are solved for one asset only")
    require_double_precision()
