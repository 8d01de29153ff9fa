"""Derivatives of the price through the general solvers against central differences: both modes, vmap, Hessians, NUTS."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro.infer import MCMC, NUTS
from oracles.compiling import lightly

from walras.model import Agents, Diffusion, DoubleWell, PriceFormation, Quadratic, Status, VanishingNoise

# Central differences of fourth order with step 1e-3: 1e-12 of fifth derivatives of up to 1e5, and the clearing error of
# 1e-12 divided by 1e-3; derivatives themselves are solved to 1e-11.
DIFFERENCES = 1e-6
STEP = 1e-3
# Hessians by differences of derivatives: the same.
MODES = 1e-8  # two modes of one linear map, solved to 1e-11 relative with a condition of up to 1e2

NAMES = ("trading_cost", "noise", "holding", "holding_centre", "terminal", "left", "right", "supply", "initial", "weights")
SIZES = (1, 1, 1, 1, 1, 1, 1, 4, 3, 3)
TIGHT = 1e-12  # of the clearing error, so that differences can be taken


def theta():
    costs = [0.8, 0.35, 1.3, 0.2, 6.0, -0.3, 0.6]
    return jnp.array([*costs, 0.5, -0.8, 0.3, 0.2, -0.4, 0.1, 0.5, 0.3, 0.5, 0.2])


def parts(at):
    edges = np.cumsum((0, *SIZES))
    return {
        name: at[low] if size == 1 else at[low : low + size] for name, low, size in zip(NAMES, edges[:-1], SIZES, strict=True)
    }


def diffusion(at):
    p = parts(at)
    terminal = DoubleWell(p["terminal"], p["left"], p["right"])
    market = PriceFormation(p["trading_cost"], Quadratic(p["holding"], p["holding_centre"]), terminal, noise=p["noise"])
    solver = Diffusion(points=80, domain=(-3.0, 3.0), substeps=1, tolerance=TIGHT)
    return market.solve(p["supply"], initial=(p["initial"], p["weights"]), solver=solver).price


def walled(at):
    p = parts(at)
    market = PriceFormation(
        p["trading_cost"],
        Quadratic(p["holding"], p["holding_centre"]),
        DoubleWell(p["terminal"], p["left"], p["right"]),
        noise=p["noise"],
        limits=(-0.9, 1.1),
    )
    solver = Diffusion(points=80, substeps=1, tolerance=TIGHT)
    return market.solve(p["supply"], initial=(p["initial"], p["weights"]), solver=solver).price


def agents(at):
    """Plain functions that close over parameters."""
    p = parts(at)
    market = PriceFormation(
        p["trading_cost"],
        lambda x: p["holding"] * ((x - p["holding_centre"]) ** 2 + x**4),
        lambda x: p["terminal"] * jnp.cosh(x - p["left"]) + p["right"] * x**2,
    )
    solver = Agents(tolerance=TIGHT)
    return market.solve(p["supply"], initial=(p["initial"], p["weights"]), solver=solver).price


def vanishing(at):
    p = parts(at)
    terminal = DoubleWell(p["terminal"], p["left"], p["right"])
    market = PriceFormation(p["trading_cost"], Quadratic(p["holding"], p["holding_centre"]), terminal)
    solver = VanishingNoise((0.4, 0.3), Diffusion(points=80, domain=(-3.0, 3.0), substeps=1, tolerance=TIGHT))
    return market.solve(p["supply"], initial=(p["initial"], p["weights"]), solver=solver).price


def two_assets(at):
    """Two assets, whose trading cost, strengths and supply depend on all the parameters."""
    p = parts(at)
    cross = 0.2 * p["right"]
    trading = jnp.array([[1.0, 0.0], [0.0, 0.5]]) * p["trading_cost"] + cross * jnp.array([[0.0, 1.0], [1.0, 0.0]])

    def holding(x):
        return p["holding"] * jnp.sum((x - p["holding_centre"]) ** 4) + 0.5 * p["terminal"] * (x[0] - p["left"] * x[1]) ** 2

    first = jnp.stack([p["initial"], 0.5 * p["initial"] ** 2], axis=1)
    supply = jnp.stack([p["supply"], p["supply"][::-1]], axis=1)
    market = PriceFormation(trading, holding, Quadratic(p["terminal"] * jnp.eye(2), jnp.array([0.1, 0.2])))
    return market.solve(supply, initial=(first, p["weights"]), solver=Agents(tolerance=TIGHT)).price.ravel()


def central(f, at, step=STEP):
    """The Jacobian by differences of fourth order."""

    def along(direction):
        move = step * direction
        return (8 * (f(at + move) - f(at - move)) - (f(at + 2 * move) - f(at - 2 * move))) / (12 * step)

    return np.stack([along(direction) for direction in np.eye(at.size)], axis=-1)


SOLVERS = {"diffusion": diffusion, "walled": walled, "agents": agents, "two assets": two_assets, "vanishing": vanishing}


SELDOM = {"walled", "two assets", "vanishing"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in SOLVERS]
)
def derivatives(request):
    """The price, and its Jacobian in both modes: three programs."""
    f = SOLVERS[request.param]
    return request.param, lightly(f), lightly(jax.jacfwd(f)), lightly(jax.jacrev(f))


def test_both_modes_equal_differences(derivatives):
    name, price, forward, reverse = derivatives
    at = theta()
    expected = central(price, at)
    assert np.all(np.max(np.abs(expected), axis=0)[np.arange(at.size) != 1] > 1e-3)  # the price depends on everything
    assert_allclose(forward(at), expected, rtol=DIFFERENCES, atol=DIFFERENCES, err_msg=name)
    assert_allclose(reverse(at), forward(at), rtol=MODES, atol=MODES)
    if name in ("agents", "two assets", "vanishing"):
        assert np.max(np.abs(forward(at)[:, 1])) == 0.0  # there is no noise
    else:
        assert np.max(np.abs(expected[:, 1])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion", "agents"])
def test_hessians_and_vmap(name):
    """Second derivatives, of two markets at once, equal differences of first ones."""
    f = SOLVERS[name]

    def scalar(at):
        return jnp.sum(f(at) * jnp.array([1.0, -2.0, 0.5, 3.0]))

    at = theta()
    many = jnp.stack([at, 1.1 * at])
    hessians = lightly(jax.vmap(jax.hessian(scalar)))(many)
    gradient = lightly(jax.grad(scalar))
    for market, hessian in zip(many, hessians, strict=True):
        expected = central(gradient, market)
        assert_allclose(hessian, expected, rtol=DIFFERENCES, atol=DIFFERENCES * np.max(np.abs(expected)))
        assert_allclose(hessian, hessian.T, rtol=MODES, atol=MODES * np.max(np.abs(expected)))


class Quartic(eqx.Module):
    strength: jax.Array

    def __call__(self, x):
        return self.strength * x**4


COSTS = {
    "function": lambda strength: lambda x: strength * x**4,
    "partial": lambda strength: jax.tree_util.Partial(lambda s, x: s * x**4, strength),
    "module": Quartic,
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_parameters_within_any_callable(noise):
    solver = Diffusion(points=80, domain=(-3.0, 3.0), substeps=1, tolerance=TIGHT) if noise else Agents(tolerance=TIGHT)

    def price(kind):
        def of(strength):
            market = PriceFormation(0.8, COSTS[kind](strength), noise=noise)
            return market.solve(jnp.array([0.5, -0.8, 0.3, 0.2]), initial=jnp.array([-0.4, 0.1, 0.6]), solver=solver).price

        return of

    strength = jnp.array([1.5])
    expected = central(lightly(lambda s: price("module")(s[0])), strength)[:, 0]
    assert np.max(np.abs(expected)) > 0.05
    for kind in COSTS:
        assert_allclose(lightly(jax.jacrev(price(kind)))(1.5), expected, rtol=DIFFERENCES, atol=DIFFERENCES)


def in_a_worker(strength):
    """The gradient of a mean price, in a process of its own."""
    jax.config.update("jax_enable_x64", True)
    return float(jax.grad(_mean_price)(strength))


def _mean_price(strength):
    market = PriceFormation(0.8, Quartic(strength), noise=0.3)
    solver = Diffusion(points=80, domain=(-3.0, 3.0), substeps=1)
    return jnp.mean(market.solve(jnp.array([0.5, -0.8]), initial=jnp.array([0.1, 0.6]), solver=solver).price)


@pytest.mark.slow
def test_gradients_in_a_worker_process():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(in_a_worker, 1.5).result(timeout=300)
    assert found == pytest.approx(in_a_worker(1.5), rel=1e-12)  # the same program


@pytest.mark.slow
def test_nuts_moves_on_a_double_well():
    supply = jnp.array([0.5, -0.8, 0.3, 0.2])
    solver = Diffusion(points=80, domain=(-3.0, 3.0), substeps=1)

    def equilibrium(trading_cost, strength):
        market = PriceFormation(trading_cost, None, DoubleWell(strength, -0.3, 0.6), noise=0.35)
        return market.solve(supply, initial=jnp.array([-0.4, 0.1, 0.5]), solver=solver)

    price = equilibrium(0.8, 6.0).price

    def program(price):
        trading_cost = numpyro.sample("trading_cost", dist.LogNormal(0.0, 0.5))
        strength = numpyro.sample("strength", dist.LogNormal(1.5, 0.5))
        found = equilibrium(trading_cost, strength)
        numpyro.deterministic("solved", found.status == Status.solved)
        numpyro.sample("price", dist.Normal(found.price, 0.05), obs=price)

    sampler = MCMC(NUTS(program), num_warmup=20, num_samples=20, progress_bar=False)
    sampler.run(jax.random.key(1), price)
    draws = sampler.get_samples()
    assert np.all(draws["solved"])
    assert np.std(draws["trading_cost"]) > 1e-3
    # Four prices with errors of .05 say the trading cost, whose price is −cQ, to ± .05/|Q| = .05; six of these.
    assert abs(np.mean(draws["trading_cost"]) - 0.8) < 0.3
