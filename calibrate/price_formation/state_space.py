"""The exact likelihood of prices and quantities when supply is a hidden random process.

The state between periods is (Q, X̄, u): the supply rate, the mean position and the error of the price, as deviations from
their means,

    dQ = −ϑQ dt + s dB,   dX̄ = (m Q − k X̄) dt,   du = −φu dt + s_u dB_u,   corr(dB, dB_u) = ρ,

and a period's observations are the average of Q and the average price, a combination of the averages of Q and X̄ and of
u at the period's end. Everything is linear and Gaussian, so a Kalman filter gives the likelihood, one-step-ahead
densities, and (through its derivative) the posterior of the path. Gaps in the calendar move the state by elapsed time.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from walras.calibrate.law import Law, left_out, left_out_probability, repeated

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_CROWDING = 3
_ROUNDING = 1e-13  # of a variance: what is left of it after what others explain, if less, is rounding


class Dynamics(NamedTuple):
    """The constants of the state's law, all scalars; rates per unit of time."""

    reversion: Float[Array, ""]  # ϑ > 0
    settling: Float[Array, ""]  # k ≥ 0
    inflow: Float[Array, ""]  # m
    volatility: Float[Array, ""]  # s
    error_rate: Float[Array, ""]  # φ > 0
    error_scale: Float[Array, ""]  # stationary standard deviation of u
    correlation: Float[Array, ""]  # ρ

    @property
    def error_volatility(self):
        return self.error_scale * jnp.sqrt(2.0 * self.error_rate)


def decayed(rate, time):
    """∫₀ᵗ e^{−rate·s} ds = (1 − e^{−rate·t}) / rate, also at rate 0."""
    safe = jnp.where(rate == 0, 1.0, rate)
    return jnp.where(rate == 0, time, -jnp.expm1(-safe * time) / safe)


def _responses(dynamics, time):
    """What a unit of Q, X̄ and u becomes after `time`: the entries of the transition, and their integrals."""
    theta, k, m = dynamics.reversion, dynamics.settling, dynamics.inflow
    supply_integral, kept_integral = decayed(theta, time), decayed(k, time)
    supply, kept = 1.0 - theta * supply_integral, 1.0 - k * kept_integral
    # ∫₀ᵗ e^{−ϑ(t−s)} e^{−ks} ds, by its limit where the two rates nearly meet
    half = 0.5 * (k - theta) * time
    meet = jnp.abs(half) < 1e-4
    apart = jnp.where(meet, 1.0, k - theta)
    geometric = jnp.sqrt(jnp.where(meet, supply * kept, 1.0))
    passed = jnp.where(meet, time * geometric * (1.0 + half**2 / 6.0), (supply - kept) / apart)
    return {
        "supply": supply,
        "position": m * passed,
        "kept": kept,
        "error": jnp.exp(-dynamics.error_rate * time),
        "supply_integral": supply_integral,
        # f = `passed` solves f′ = e^{−kt} − ϑf: integrating that needs no division by k, which may be 0
        "position_integral": m * (kept_integral - passed) / theta,
        "kept_integral": kept_integral,
    }


def transitions(dynamics: Dynamics, times: Float[Array, " times"]):
    """What happens to (Q, X̄, u) over each of `times`: maps (times, 5, 3) and covariances (times, 5, 5).

    A map gives (Q, X̄, u) at the end and the averages of Q and X̄ on the way, from the state at the start. Its covariance is
    what shocks add, ∫ (response to a shock s ago)(…)ᵀ ds by Gauss–Legendre; the substitution s = time·v³ crowds the nodes
    where fast modes live, so that one rule serves short and long times.
    """
    v = 0.5 * (1.0 + _NODES)
    ago = times[:, None] * jnp.append(v**_CROWDING, 1.0)[None, :]  # the last column is the whole time: the map
    weights = times[:, None] * (0.5 * _CROWDING * _WEIGHTS * v ** (_CROWDING - 1))[None, :]
    r = _responses(dynamics, ago)
    # the averages over no time at all are never used; dividing by one keeps them finite
    length = jnp.where(times > 0, times, 1.0)[:, None]
    zero = jnp.zeros_like(ago)
    supply = jnp.stack([r["supply"], r["position"], zero, r["supply_integral"] / length, r["position_integral"] / length], 1)
    position = jnp.stack([zero, r["kept"], zero, zero, r["kept_integral"] / length], 1)
    error = jnp.stack([zero, zero, r["error"], zero, zero], 1)
    maps = jnp.stack([supply[..., -1], position[..., -1], error[..., -1]], -1)
    by_supply = dynamics.volatility * supply[..., :-1]
    by_error = dynamics.error_volatility * error[..., :-1]
    weighted = by_supply * weights[:, None]
    cross = dynamics.correlation * (weighted @ by_error.mT)
    own = weighted @ by_supply.mT + (by_error * weights[:, None]) @ by_error.mT
    return maps, own + cross + cross.mT


def stationary_covariance(dynamics: Dynamics) -> Float[Array, "3 3"]:
    """The stationary covariance of (Q, X̄, u); needs k > 0."""
    theta, k, m, phi = dynamics.reversion, dynamics.settling, dynamics.inflow, dynamics.error_rate
    supply = dynamics.volatility**2 / (2.0 * theta)
    supply_position = m * supply / (theta + k)
    position = m * supply_position / k
    supply_error = dynamics.correlation * dynamics.volatility * dynamics.error_volatility / (theta + phi)
    position_error = m * supply_error / (k + phi)
    return jnp.stack(
        [
            jnp.stack([supply, supply_position, supply_error]),
            jnp.stack([supply_position, position, position_error]),
            jnp.stack([supply_error, position_error, dynamics.error_scale**2]),
        ]
    )


class Shocks(NamedTuple):
    """Independent standard normals behind a path: of the first state, of each period's moves, and of its measurements."""

    start: Float[Array, "3"]
    moves: Float[Array, "rows 5"]
    errors: Float[Array, "rows 2"]


class StateSpace(Law):
    """The law of (price, quantity) per period. Fields, with z = (Q, X̄, u at the end, mean Q, mean X̄) of a period:

    `maps` (gaps, 5, 3) and `covariances` (gaps, 5, 5) give z from the state a gap earlier; `gap` (rows,) says which gap
    precedes each row; `shift` (rows, 5) is added to z; `loadings` (rows or 1, 2, 5) and `means` (rows, 2) give
    the observations; `noise` (2,) their measurement variances; `initial` (3, 3) the covariance of the first state.
    """

    pytree_data_fields = ("maps", "covariances", "gap", "shift", "loadings", "means", "noise", "initial")

    def __init__(self, maps, covariances, gap, shift, loadings, means, noise, initial):
        self.maps, self.covariances, self.gap, self.shift = maps, covariances, gap, shift
        self.loadings, self.means, self.noise, self.initial = loadings, means, noise, initial
        super().__init__(gap.shape[0], 2)

    def _filter(self, value, nudge=None, price_noise=None):
        """Predictive means (rows, 2), variances of the price (rows,) and log densities (rows,) of each row.

        `nudge` (rows, 5) is added to the period's innovations and `price_noise` (rows,) to the measurement variance of the
        price: the likelihood's derivatives in them are what smoothing and leaving out need.
        """
        seen = ~jnp.isnan(value)
        deviation = jnp.where(seen, value, 0.0) - self.means
        nudge = self.shift if nudge is None else self.shift + nudge
        # What a row's observations are of the previous state. With the same loadings in every row, products are made
        # once for each gap and then spread over the rows; otherwise row by row.
        same = self.loadings.shape[0] == 1
        maps, covariances = (self.maps, self.covariances) if same else (self.maps[self.gap], self.covariances[self.gap])
        by_gap = (
            maps[:, :3],
            covariances[:, :3, :3],
            self.loadings @ maps,
            self.loadings @ covariances @ self.loadings.mT + jnp.diag(self.noise)[None],
            covariances[:, :3] @ self.loadings.mT,
        )
        by_row = tuple(array[self.gap] for array in by_gap) if same else by_gap
        expected = (self.loadings @ nudge[..., None])[..., 0]
        price_noise = jnp.zeros(self.gap.size) if price_noise is None else price_noise
        rows = (*by_row, nudge[:, :3], expected, deviation, price_noise, seen)

        @jax.checkpoint
        def advance(state, row):
            mean, covariance = state
            move, grown, observe, spread, shared, moved, expected, deviation, price_noise, seen = row
            seen = seen.astype(deviation.dtype)
            predicted = observe @ mean + expected
            reach = observe @ covariance
            total = (reach @ observe.T + spread).at[0, 0].add(price_noise)
            # A missing entry is observed with an error of its own, uncorrelated with everything, and says nothing.
            masked = total * seen[:, None] * seen[None, :] + jnp.diag(1.0 - seen)
            error = (deviation - predicted) * seen
            gain = (move @ reach.T + shared) * seen[None, :]
            determinant = masked[0, 0] * masked[1, 1] - masked[0, 1] ** 2
            inverse = jnp.stack([jnp.stack([masked[1, 1], -masked[0, 1]]), jnp.stack([-masked[1, 0], masked[0, 0]])])
            weighted = gain @ inverse / determinant
            log_density = -0.5 * (error @ inverse @ error / determinant + jnp.log(determinant))
            log_density = log_density - 0.5 * jnp.log(2.0 * jnp.pi) * jnp.sum(seen)
            covariance = move @ covariance @ move.T + grown - weighted @ gain.T
            # Rounding that is not symmetric would grow from row to row until the covariance is none.
            covariance = 0.5 * (covariance + covariance.T)
            return (move @ mean + moved + weighted @ error, covariance), (predicted, total[0, 0], log_density)

        start = (jnp.zeros(3), self.initial)
        _, (predicted, variance, log_density) = jax.lax.scan(advance, start, rows)
        return predicted + self.means, variance, log_density

    def log_prob(self, value):
        return jnp.sum(self._filter(value)[2])

    def one_step_ahead(self, value):
        predicted, variance, _ = self._filter(value)
        return dist.Normal(predicted[:, 0], jnp.sqrt(variance))

    def leave_one_out(self, value):
        """log p(price_t | everything else)."""
        return left_out(*self._without_each(value))

    def leave_one_out_probability(self, value):
        return left_out_probability(*self._without_each(value))

    def _without_each(self, value):
        """Where prices are seen, Σ⁻¹e and diag Σ⁻¹ there, from one derivative of the likelihood.

        With Σ the covariance of all observations and e their deviations, ∂ℓ/∂y = −Σ⁻¹e =: −u and ∂ℓ/∂Σ_tt = ½(u_t² − M_t),
        M = diag Σ⁻¹.
        """

        def log_likelihood(price, price_noise):
            return jnp.sum(self._filter(value.at[:, 0].set(price), price_noise=price_noise)[2])

        slope, noise_slope = jax.grad(log_likelihood, argnums=(0, 1))(value[:, 0], jnp.zeros(self.gap.size))
        seen = ~jnp.isnan(value[:, 0])
        precision = jnp.where(seen, slope**2 - 2.0 * noise_slope, 1.0)
        return seen, -slope, precision

    def _path(self, start, innovations):
        """The z of every row (rows, 5) from the first state and the innovations (rows, 5), without means."""

        def advance(state, row):
            index, innovation = row
            z = self.maps[index] @ state + innovation
            return z[:3], z

        return jax.lax.scan(advance, start, (self.gap, innovations + self.shift))[1]

    def _simulate(self, key) -> Shocks:
        keys = jax.random.split(key, 3)
        shapes = (3,), (self.gap.size, 5), self.means.shape
        return Shocks(*(jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)))

    def paths(self, shocks: Shocks) -> Float[Array, "rows 5"]:
        """The z of every row, without means."""
        innovations = self._by_gap(jax.vmap(_root)(self.covariances), shocks.moves)
        return self._path(_root(self.initial) @ shocks.start, innovations)

    def table(self, z: Float[Array, "rows 5"], shocks: Shocks) -> Float[Array, "rows 2"]:
        """The observations of paths."""
        return self._observe(z) + self.means + jnp.sqrt(self.noise)[None] * shocks.errors

    def replay(self, shocks):
        return self.table(self.paths(shocks), shocks)

    def sample(self, key, sample_shape=()):
        return repeated(lambda k: self.replay(self._simulate(k)), key, sample_shape)

    def _scores(self, value):
        """The derivatives of the likelihood in the innovations (rows, 5) and in the first state (3,)."""

        def log_likelihood(nudge, start):
            return jnp.sum(self._filter(value, nudge.at[0].add(self.maps[self.gap[0]] @ start))[2])

        return jax.grad(log_likelihood, argnums=(0, 1))(jnp.zeros((self.gap.size, 5)), jnp.zeros(3))

    def smooth(self, value: Float[Array, "rows 2"]) -> Float[Array, "rows 5"]:
        """E[z | observations]: an innovation's posterior mean is its covariance times the score of the likelihood."""
        score, start_score = self._scores(value)
        return self._path(self.initial @ start_score, self._by_gap(self.covariances, score))

    def shocks(self, key, value) -> Shocks:
        """Simulated shocks, corrected by the posterior means of what they leave unexplained (Durbin–Koopman).

        Those of an entry that is not observed, or is observed without error, say nothing.
        """
        drawn = self._simulate(key)
        # The difference of two paths has neither means nor shifts: put them back for smoothing.
        shifts = self._path(jnp.zeros(3), jnp.zeros((self.gap.size, 5)))
        unexplained = value - self.replay(drawn) + self.means + self._observe(shifts)
        score, start_score = self._scores(unexplained)
        start = drawn.start + _root(self.initial).T @ start_score
        moves = drawn.moves + self._by_gap(jax.vmap(_root)(self.covariances).mT, score)
        found = drawn._replace(start=start, moves=moves)
        left = value - self._observe(self.paths(found)) - self.means
        told = ~jnp.isnan(value) & (self.noise > 0)[None]
        scale = jnp.sqrt(jnp.where(self.noise > 0, self.noise, 1.0))[None]
        return found._replace(errors=jnp.where(told, left / scale, drawn.errors))

    def reconstruct(self, key, value):
        """A draw of the supply rate (rows,) of each period given the observations."""
        return {"supply_path": self.paths(self.shocks(key, value))[:, 3] + self.means[:, 1]}

    def complete(self, key, value):
        return jnp.where(jnp.isnan(value), self.replay(self.shocks(key, value)), value)

    def steered(self, wanted: Float[Array, " rows"]) -> Float[Array, "rows 5"]:
        """The likeliest change of the paths by which the mean of Q changes as `wanted` in each period (NaN: as it may).

        An intervention on supply, of which its shocks tell nothing else: the price's error and the first position stay.
        """
        apart = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
        covariances = self.covariances * jnp.outer(apart, apart)[None]
        initial = jnp.zeros((3, 3)).at[0, 0].set(self.initial[0, 0])
        loadings = jnp.zeros((1, 2, 5)).at[0, 0, 2].set(1.0).at[0, 1, 3].set(1.0)
        none = jnp.zeros((self.gap.size, 5))
        law = StateSpace(self.maps, covariances, self.gap, none, loadings, jnp.zeros_like(self.means), jnp.zeros(2), initial)
        return law.smooth(jnp.stack([jnp.full_like(wanted, jnp.nan), wanted], axis=1))

    def _by_gap(self, matrices, vectors):
        """Each row's vector (rows, 5) times the matrix (gaps, 5, 5) of its gap."""
        return (matrices[self.gap] @ vectors[..., None])[..., 0]

    def _observe(self, z):
        return (self.loadings @ z[..., None])[..., 0]


def _root(covariance):
    """A square root of the covariance of (Q, X̄, u) or z, which may be singular (a component without noise).

    Cholesky's, in the order Q, mean Q, u, X̄, mean X̄: laws with the same supply then make the same of the same shocks.
    """
    size = covariance.shape[0]
    order = jnp.array([0, 2, 1] if size == 3 else [0, 3, 2, 1, 4])
    ordered, root = covariance[order][:, order], jnp.zeros_like(covariance)
    for column in range(size):
        rest = ordered[:, column] - root @ root[column]
        told = rest[column] > _ROUNDING * ordered[column, column]
        root = root.at[:, column].set(jnp.where(told, rest / jnp.sqrt(jnp.where(told, rest[column], 1.0)), 0.0))
    return jnp.zeros_like(root).at[order].set(root)


class Steered:
    """A `StateSpace` in which supply Q̄ (mean of a period, gross) is made to be `change(Q̄)`; agents learn of it as it comes."""

    def __init__(self, law: StateSpace, change: Callable):
        self.law, self.change = law, change

    def replay(self, shocks: Shocks) -> Float[Array, "rows 2"]:
        paths = self.law.paths(shocks)
        supply = paths[:, 3] + self.law.means[:, 1]
        return self.law.table(paths + self.law.steered(self.change(supply) - supply), shocks)
