"""Quadratic costs: the equilibrium by a backward recursion, for any number of agents and assets.

Agents trade at the start of each of n steps of length D = T/n. With ψⁿ = φⁿ − φⁿ₀ (of all agents but the last, whose trades
clear the market), what trading faster costs at the margin is linear in the state, λφ̇_k = −(F_k ψ_k + H_k W_k). From F = H = 0,

    σ_k = α + Σₙ wₙ H_{k+1,n} − γ̄ A_{k+1} Ξ,   A_k = A_{k+1} + D σ_k,
    M = F_{k+1} + D G ⊗ σ_kσ_kᵀ,   K = (1 + D M Λ⁻¹)⁻¹,   F_k = K M,   H_k = K (H_{k+1} + D σ_k h),

with Ξ = Σξⁿ, G_nj = γₙδ_nj − (γ_j − γ_N)/N, hₙ = γₙξₙ − (1/N) Σγ_jξ_j and wₙ = γ̄(1/γₙ − 1/γ_N). The price follows from agents'
first-order conditions, weighted by 1/γₙ:

    S_k = βT + αW_k − γ̄ D Σ_{j≥k} σ_jσ_jᵀ s − γ̄ A_k Ξ W_k − Σₙ wₙ λφ̇ₙ.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.model.equilibrium import Status
from walras.model.trading_costs.equilibrium import Figures, Simulation, TradingEquilibrium, continuous_limit, status_of
from walras.model.trading_costs.parameters import Parameters

_LEVELS = 4  # of extrapolation: steps, 2 steps, 4 steps, 8 steps


class _Arrays(NamedTuple):
    """A market's parameters with an axis for assets (d), also where there is one; m = N − 1."""

    risk_aversion: Float[Array, " N"]
    aggregate: Float[Array, ""]
    endowment: Float[Array, "N d d"]
    cost: Float[Array, "d d"]
    supply: Float[Array, " d"]
    drift: Float[Array, " d"]
    volatility: Float[Array, "d d"]

    @classmethod
    def of(cls, market: Parameters):
        endowment = jnp.asarray(market.endowment, float)
        assets = endowment.shape[1] if endowment.ndim == 3 else 1
        return cls(
            jnp.asarray(market.risk_aversion, float),
            market.aggregate,
            endowment.reshape(-1, assets, assets),
            jnp.asarray(market.trading_cost, float).reshape(assets, assets),
            jnp.broadcast_to(jnp.asarray(market.supply, float), (assets,)),
            jnp.broadcast_to(jnp.asarray(market.payoff_drift, float), (assets,)),
            jnp.asarray(market.payoff_volatility, float).reshape(assets, assets),
        )

    @property
    def initial(self) -> Float[Array, "N d"]:
        return jnp.outer(self.aggregate / self.risk_aversion, self.supply)

    @property
    def price_weights(self) -> Float[Array, " m"]:
        """w, by which marginal costs of trading enter the price."""
        return self.aggregate * (1.0 / self.risk_aversion[:-1] - 1.0 / self.risk_aversion[-1])

    @property
    def couplings(self) -> Float[Array, "m m"]:
        """G, how agents' deviations move each agent's wish to trade."""
        gamma, agents = self.risk_aversion, self.risk_aversion.size
        return jnp.diag(gamma[:-1]) - ((gamma[:-1] - gamma[-1]) / agents)[None]

    @property
    def per_cost(self) -> Float[Array, "md md"]:
        """Λ⁻¹ for each agent, which takes marginal costs to rates."""
        return jnp.kron(jnp.eye(self.price_weights.size), jnp.linalg.inv(self.cost))

    @property
    def hedges(self) -> Float[Array, "m d d"]:
        """h, how the shock moves each agent's wish to trade."""
        weighted = self.risk_aversion[:, None, None] * self.endowment
        return (weighted - jnp.mean(weighted, axis=0, keepdims=True))[:-1]


class Recursion(NamedTuple):
    """Its solution at the n steps: F, H (with agent and asset as one axis), σ; A, Σ σσᵀD and welfare from step k on."""

    feedback: Float[Array, "steps md md"]
    exposure: Float[Array, "steps md d"]
    volatility: Float[Array, "steps d d"]
    ahead: Float[Array, "steps d d"]
    variance: Float[Array, "steps d d"]
    welfare: Float[Array, "steps N"]


class QuadraticEquilibrium(TradingEquilibrium):
    """The equilibrium with quadratic costs. Price, positions and drift are random; volatility is known in advance.

    `volatility` is (steps,) or (steps, assets, assets); `recursion` has the coefficients of all else.
    """

    market: Parameters
    times: Float[Array, " nodes"]
    limit: Figures
    error: Float[Array, ""]
    residual: Float[Array, ""]
    status: Status
    volatility: Float[Array, "steps ..."]
    recursion: Recursion

    def simulate(self, key, paths):
        step = self.times[1] - self.times[0]
        shape = (paths, self.times.size - 1, *jnp.shape(self.market.endowment)[1:2])
        return self.along(jnp.sqrt(step) * jax.random.normal(key, shape))

    def along(self, increments):
        return _along(self.market, self.recursion, self.times, self._require_increments(increments))


@partial(jax.jit, static_argnames="steps")
def solve_quadratic(market, horizon, steps) -> QuadraticEquilibrium:
    """The equilibrium with `steps` steps, and the limit of continuous trading."""
    arrays = _Arrays.of(market)
    found = _recursion(arrays, horizon, steps)
    finer = [_recursion(arrays, horizon, steps * 2**level) for level in range(1, _LEVELS)]
    limit, error = continuous_limit([_figures(market, arrays, level, horizon) for level in (found, *finer)], horizon)
    return QuadraticEquilibrium(
        market=market,
        times=jnp.linspace(0.0, 1.0, steps + 1) * horizon,
        limit=limit,
        error=error,
        residual=_residual(arrays, found, horizon),
        status=status_of(market, limit, error),
        volatility=found.volatility if jnp.ndim(market.endowment) == 3 else found.volatility[:, 0, 0],
        recursion=found,
    )


@partial(jax.jit, static_argnames="steps")
def figures(market, horizon, steps) -> Figures:
    """Those of trading at `steps` steps."""
    arrays = _Arrays.of(market)
    return _figures(market, arrays, _recursion(arrays, horizon, steps), horizon)


def _figures(market, arrays, found, horizon):
    sigma = found.volatility[0]
    price = arrays.drift * horizon - arrays.aggregate * found.variance[0] @ arrays.supply
    drift = arrays.aggregate * sigma @ sigma.T @ arrays.supply
    share = horizon / found.feedback.shape[0] * arrays.per_cost @ found.feedback[0]
    traded = jnp.linalg.norm(jax.lax.stop_gradient(share), ord=2)
    if jnp.ndim(market.endowment) == 1:
        price, drift, sigma = price[0], drift[0], sigma[0, 0]
    return Figures(price, drift, sigma, found.welfare[0], traded)


def _recursion(arrays: _Arrays, horizon, steps) -> Recursion:
    agents, assets = arrays.price_weights.size, arrays.supply.size
    length = horizon / steps
    size = agents * assets
    total = jnp.sum(arrays.endowment, axis=0)
    per_cost = arrays.per_cost

    def back(later, _):
        feedback, exposure, ahead, variance, welfare, bend = later
        sigma = arrays.volatility - arrays.aggregate * ahead @ total
        sigma = sigma + jnp.tensordot(arrays.price_weights, exposure.reshape(agents, assets, assets), axes=1)
        squared = sigma @ sigma.T
        held = feedback + length * jnp.kron(arrays.couplings, squared)
        hedged = exposure + length * jnp.einsum("ij,njk->nik", sigma, arrays.hedges).reshape(size, assets)
        solved = jnp.linalg.solve(jnp.eye(size) + length * held @ per_cost, jnp.concatenate([held, hedged], axis=1))
        feedback, exposure = solved[:, :size], solved[:, size:]
        maps = _linear(arrays, length, feedback, exposure, sigma)
        earned, curved = _objective(arrays, sigma, maps)
        gathered = length * jnp.trace(bend[:, size:, size:], axis1=1, axis2=2)
        welfare = welfare + length * earned + gathered
        bend = length * curved + jnp.einsum("ki,nkl,lj->nij", maps.moved, bend, maps.moved)
        now = feedback, exposure, ahead + length * sigma, variance + length * squared, welfare
        return (*now, bend), Recursion(feedback, exposure, sigma, *now[2:])

    square = jnp.zeros((assets, assets))
    nothing = jnp.zeros(agents + 1), jnp.zeros((agents + 1, size + assets, size + assets))
    last = jnp.zeros((size, size)), jnp.zeros((size, assets)), square, square, *nothing
    return jax.lax.scan(back, last, None, length=steps, reverse=True)[1]


class _Maps(NamedTuple):
    """What happens in a step, as maps of the state (ψ, W), of size S = m d + d.

    `held` and `exposure` (σᵀφ + ξW) are less their first parts, `drift` less its mean; `moved` is the state's own map.
    """

    rate: Float[Array, "N d S"]
    held: Float[Array, "N d S"]
    exposure: Float[Array, "N d S"]
    drift: Float[Array, "d S"]
    moved: Float[Array, "S S"]


def _linear(arrays: _Arrays, length, feedback, exposure, sigma) -> _Maps:
    agents, assets = arrays.price_weights.size, arrays.supply.size
    size = agents * assets
    state = jnp.eye(size + assets)
    shock = state[size:]

    def of_all(own):
        """From the entries of all agents but the last: with those of the last, by clearing."""
        own = own.reshape(agents, assets, -1)
        return jnp.concatenate([own, -jnp.sum(own, axis=0, keepdims=True)])

    marginal = -jnp.concatenate([feedback, exposure], axis=1)
    rate = jnp.einsum("ij,njk->nik", jnp.linalg.inv(arrays.cost), of_all(marginal))
    held = of_all(state[:size]) + length * rate
    exposed = jnp.einsum("ji,njk->nik", sigma, held) + jnp.einsum("nij,jk->nik", arrays.endowment, shock)
    weighted = jnp.mean(arrays.risk_aversion[:, None, None] * exposed, axis=0)
    return _Maps(rate, held, exposed, sigma @ weighted, jnp.concatenate([held[:-1].reshape(size, -1), shock]))


def _objective(arrays: _Arrays, sigma, maps: _Maps):
    """μφ − (γ/2)|σᵀφ + ξW|² − ½ φ̇ᵀΛφ̇ of each agent: its part without the state (N,), and that quadratic in it (N, S, S).

    The part linear in the state has mean zero, as the state has.
    """
    gamma = arrays.risk_aversion
    expected = arrays.aggregate * sigma @ sigma.T @ arrays.supply
    fixed = arrays.initial @ expected - 0.5 * gamma * jnp.sum((arrays.initial @ sigma) ** 2, axis=1)
    earned = jnp.einsum("nik,il->nkl", maps.held, maps.drift)
    risk = jnp.einsum("nik,nil->nkl", maps.exposure, maps.exposure)
    paid = jnp.einsum("nik,ij,njl->nkl", maps.rate, arrays.cost, maps.rate)
    return fixed, earned - 0.5 * (gamma[:, None, None] * risk + paid)


def _price_maps(arrays: _Arrays, found: Recursion, horizon):
    """The price as a constant (steps + 1, d) and a map of the state (steps + 1, d, m d + d)."""
    agents, assets = arrays.price_weights.size, arrays.supply.size
    weights = jnp.kron(arrays.price_weights[None], jnp.eye(assets))[None]
    total = jnp.sum(arrays.endowment, axis=0)
    by_position = weights @ found.feedback
    by_shock = arrays.volatility[None] + weights @ found.exposure - arrays.aggregate * found.ahead @ total[None]
    payoff = (arrays.drift * horizon)[None]
    constant = payoff - arrays.aggregate * found.variance @ arrays.supply
    last = jnp.concatenate([jnp.zeros((assets, agents * assets)), arrays.volatility], axis=1)
    maps = jnp.concatenate([jnp.concatenate([by_position, by_shock], axis=2), last[None]])
    return jnp.concatenate([constant, payoff]), maps


def _residual(arrays: _Arrays, found: Recursion, horizon):
    """The largest violation, coefficient by coefficient, of dS = μ dt + σ dW and of each agent's first-order condition."""
    length = horizon / found.volatility.shape[0]
    assets = arrays.supply.size
    constant, price = _price_maps(arrays, found, horizon)

    def at(feedback, exposure, sigma, later_feedback, later_exposure, now, later, fixed_now, fixed_later):
        maps = _linear(arrays, length, feedback, exposure, sigma)
        later_rate = _linear(arrays, length, later_feedback, later_exposure, sigma).rate
        fixed_drift = arrays.aggregate * sigma @ sigma.T @ arrays.supply
        dynamics = later @ maps.moved - now - length * maps.drift
        drifted = fixed_later - fixed_now - length * fixed_drift
        diffused = later[:, -assets:] - sigma
        risk = arrays.risk_aversion[:, None, None] * jnp.einsum("ij,njk->nik", sigma, maps.exposure)
        ahead = jnp.einsum("nij,jk->nik", later_rate, maps.moved)
        order = jnp.einsum("ij,njk->nik", arrays.cost, maps.rate - ahead) - length * (maps.drift[None] - risk)
        return jnp.max(jnp.stack([jnp.max(jnp.abs(term)) for term in (dynamics, drifted, diffused, order)]))

    next_feedback, next_exposure = (
        jnp.concatenate([path[1:], jnp.zeros_like(path[:1])]) for path in (found.feedback, found.exposure)
    )
    own, prices = (found.feedback, found.exposure, found.volatility), (price[:-1], price[1:], constant[:-1], constant[1:])
    return jnp.max(jax.vmap(at)(*own, next_feedback, next_exposure, *prices))


@jax.jit
def _along(market, found: Recursion, times, increments) -> Simulation:
    arrays = _Arrays.of(market)
    assets = arrays.supply.size
    steps, size = found.feedback.shape[:2]
    constant, price = _price_maps(arrays, found, times[-1])
    paths = increments.shape[0]

    def forward(state, row):
        moves, feedback, exposure, sigma, mapped = row
        maps = _linear(arrays, times[-1] / steps, feedback, exposure, sigma)
        seen = state @ mapped.T, jnp.einsum("nik,pk->pni", maps.rate, state), state
        return (state @ maps.moved.T).at[:, -assets:].add(moves), seen

    moves = jnp.moveaxis(increments.reshape(paths, steps, assets), 1, 0)
    rows = (moves, found.feedback, found.exposure, found.volatility, price[:-1])
    last, (prices, rates, states) = jax.lax.scan(forward, jnp.zeros((paths, size + assets)), rows)
    prices = jnp.concatenate([prices, (last @ price[-1].T)[None]]) + constant[:, None]
    states = jnp.concatenate([states, last[None]])
    own = states[..., :size].reshape(steps + 1, paths, -1, assets)
    moved = jnp.concatenate([own, -jnp.sum(own, axis=2, keepdims=True)], axis=2)
    positions = arrays.initial[None, None] + moved
    seen = [jnp.moveaxis(path, 1, 0) for path in (states[..., size:], prices, positions, rates)]
    if jnp.ndim(market.endowment) == 1:
        seen = [path[..., 0] for path in seen]
    return Simulation(times, *seen)
