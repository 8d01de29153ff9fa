"""The double-well market: costs that are not convex, calibrated to prices through the solver with noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from recovery import coverage
from simulated import series

from walras.calibrate import NUTS, ForeseenPrices, Prior, Problem, check, fit, prior_predictive
from walras.model import Diffusion, DoubleWell, PriceFormation, Quadratic, Status

STEPS = 32
# A price solved to 1e-6 of its scale, seen through a noise of a twentieth of it.
DENSITY = 1e-3
# Central differences of the same.
SLOPE = 1e-2
NOMINAL, BAND = 0.9, 0.15  # as in test_recovery.py: with 50 replications ±.15 is 3.5 standard errors of a share of .9


def problem(rows=STEPS):
    """Wells that move the price by about a tenth of what supply does, as in the published cases."""
    step = np.arange(rows)
    rng = np.random.default_rng(0)
    frame = series(rows=rows, supply=5 + 10 * np.sin(10 * (step + 0.5) / rows), price=1.0 + rng.normal(size=rows))
    stock = np.std(np.cumsum(frame["supply"] - frame["supply"].mean()))
    return Problem(
        "double_well",
        frame,
        ForeseenPrices(),
        {
            "price_level": Prior("Normal", 1.0, 0.5),
            "trading_cost": Prior("LogNormal", float(np.log(0.1)), 0.5),
            "well_strength": Prior("LogNormal", float(np.log(0.5 / (stock**3 * rows))), 0.5),
            "terminal_cost": Prior("LogNormal", float(np.log(0.5 / stock)), 0.5),
            "price_noise": Prior("HalfNormal", 0.1),
        },
    )


@pytest.fixture(scope="module")
def made():
    return problem()


def values_of(made):
    return {name: float(made.priors[name].args[0] if name == "price_level" else 0.1) for name in made.sampled} | {
        name: float(np.exp(made.priors[name].args[0])) for name in ("trading_cost", "well_strength", "terminal_cost")
    }


def test_solver_is_chosen_once_from_the_prior(made):
    (solver,) = made.build.keywords.values()
    assert isinstance(solver, Diffusion)
    assert solver.points is not None
    assert solver.domain is not None
    assert solver == problem().build.keywords["solver"]


@pytest.mark.slow
def test_density_is_that_of_a_market_solved_on_its_own(made):
    values = values_of(made)
    inputs = made.inputs
    centre, half = made.priors["well_centre"], made.priors["well_distance"] / 2
    moved = float(jnp.sum(inputs["supply"]) * inputs["horizon"] / STEPS)
    gamma = values["terminal_cost"]
    market = PriceFormation(
        values["trading_cost"],
        DoubleWell(values["well_strength"], centre - half, centre + half),
        Quadratic(gamma, moved + values["price_level"] / gamma),
        noise=made.priors["agent_noise"],
    )
    many = made.priors["population_spread"] * ((np.arange(400) + 0.5) / 200 - 1.0)
    found = market.solve(inputs["supply"], horizon=float(inputs["horizon"]), initial=many, solver=Diffusion(substeps=1))
    equilibrium = made.build({**{n: p for n, p in made.priors.items() if isinstance(p, float)}, **values}, inputs)
    assert equilibrium.status == Status.solved
    np.testing.assert_allclose(equilibrium.price, found.price, atol=DENSITY)


@pytest.mark.slow
def test_gradients_of_the_density(made):
    values = {name: jnp.asarray(value) for name, value in values_of(made).items()}
    density = jax.jit(lambda at: log_density(made.model, (), {}, at)[0])
    slopes = jax.jit(jax.grad(density))(values)
    for name, value in values.items():
        step = 1e-4 * jnp.abs(value)
        difference = density({**values, name: value + step}) - density({**values, name: value - step})
        np.testing.assert_allclose(
            slopes[name], difference / (2 * step), rtol=SLOPE, atol=1e-3 * abs(float(slopes[name])) + 1e-6
        )


@pytest.mark.slow
@pytest.mark.statistical
def test_posterior_is_found_in_two_minutes(made):
    """Five truths in 90 % intervals, one replication: no more than two outside; false-alarm rate .009."""
    simulated = prior_predictive(made, key=jax.random.key(4))
    price = np.asarray(simulated["prior_predictive"]["price"])[0, 0]
    frame = made.data.assign(price=price)
    frame.attrs = made.data.attrs
    fitted = made.with_data(frame)
    tree = fit(fitted, NUTS(chains=4, warmup=500, draws=500), key=jax.random.key(5))
    verdict = {item["name"]: item["value"] for item in check(fitted, tree).to_json()["checks"]}
    spent = float(tree.attrs["compile_seconds"]) + float(tree.attrs["sample_seconds"])
    print(f"{spent:.0f} s, {verdict}")
    assert int(np.sum(tree["sample_stats"]["diverging"])) == 0
    assert verdict["r_hat"] <= 1.01
    missed = 0
    for name in fitted.sampled:
        low, high = np.quantile(tree["posterior"][name], [0.05, 0.95])
        missed += not low <= float(simulated["prior"][name][0, 0]) <= high
    assert missed <= 2


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_cover_truths_from_the_prior(made):
    """50 replications. False-alarm rate of a band of ±.15 around .9, five parameters: about 3e-3."""
    shares = coverage(made, NUTS(chains=2, warmup=300, draws=300), key=jax.random.key(6), replications=50)
    print(shares)
    for name, share in shares.items():
        assert abs(share - NOMINAL) <= BAND, (name, share)
