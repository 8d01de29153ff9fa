"""What sensitivity analyses say of markets whose answers are known, and how they are kept and told."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from refusals import assert_refused
from simulated import series
from test_bids import FRAME as AUCTIONS
from test_double_well import problem as double_well
from typer.testing import CliRunner

from walras import data
from walras.calibrate import (
    Bids,
    ForeseenPrices,
    IndependentRows,
    Observation,
    PriceAndVolume,
    Prior,
    Problem,
    Sensitivity,
    StochasticPrices,
    TradingDays,
    fit,
    run,
    sensitivity,
)
from walras.calibrate.reporting import report_findings
from walras.calibrate.sensitivities.evaluation import Forward
from walras.calibrate.sensitivities.space import space_of
from walras.calibrate.spec import Spec
from walras.calibrate.tree import to_tree
from walras.cli import app
from walras.data import standard
from walras.model import Status

KEY = jax.random.key(0)
# Rounding of sums over a dozen steps, and of what follows from them.
ROUNDING = 1e-9
SERIES = series(rows=12)


def foreseen(**priors):
    return Problem("price_formation", SERIES, ForeseenPrices(), priors)


# --- elasticities against formulas


def closed_form(problem, row):
    """The linear–quadratic price, ϖ = level + trend (T/2 − t) − cQ − η ∫ₜᵀ (X̄ − x̄₀), as step means; by plain sums."""
    names = ("price_level", "price_trend", "trading_cost", "holding_cost")
    level, trend, c, eta = (row[name] for name in names)
    supply = np.asarray(problem.inputs["supply"])
    step = float(problem.inputs["horizon"]) / supply.size
    middle = (np.arange(supply.size) + 0.5) * step
    ends = np.append(0.0, np.cumsum(supply) * step)
    area = step * (ends[:-1] + ends[1:]) / 2.0  # of X̄ over each step
    after = np.append(np.cumsum(area[::-1])[::-1][1:], 0.0)
    # The mean over a step of what is left of its own area: X̄ = X₀ + q s, so ∫₀ʰ (∫ₛʰ X̄) ds / h = X₀ h/2 + q h²/3.
    own = ends[:-1] * step / 2.0 + supply * step**2 / 3.0
    stock = after + own
    return level + trend * (supply.size * step / 2.0 - middle) - c * supply - eta * stock, (supply, stock, middle)


def test_elasticities_of_the_closed_form_price():
    """The paths of elasticities at every draw's row, against derivatives written by hand."""
    problem = foreseen(price_level=Prior("LogNormal", 1.0, 0.1), price_trend=Prior("Normal", 0.0, 0.01))
    space = space_of(problem, None, KEY)
    forward = Forward(problem, tuple(space.shapes.items()))
    points = space.draws[:20]
    found = forward(points, {}, derivatives=True)
    for point, path, slopes in zip(points, found.outputs["price"], found.derivatives["price"], strict=True):
        row = dict(zip(space.names, point, strict=True))
        price, (supply, stock, middle) = closed_form(problem, row)
        assert_allclose(path, price, rtol=ROUNDING, atol=ROUNDING)
        horizon = float(problem.inputs["horizon"])
        exact = {
            "price_level": np.ones(12),
            "price_trend": horizon / 2 - middle,
            "trading_cost": -supply,
            "holding_cost": -stock,
            "price_noise": np.zeros(12),
        }
        for name, slope in exact.items():
            assert_allclose(slopes[:, space.names.index(name)], slope, atol=ROUNDING * 100, err_msg=name)


def test_the_tables_are_medians_of_relative_derivatives():
    problem = foreseen(price_level=Prior("LogNormal", 1.0, 0.1), holding_cost=1e-3, price_trend=0.0, trading_cost=0.05)
    found = sensitivity(problem, key=KEY, methods=["local"], draws=50)
    assert found.local.loc[("mean_price", "price_level"), "measure"] == "elasticity"
    row = found.paths.loc["price"].xs("price_level", level="parameter")
    assert len(row) == 12 and (row["measure"] == "elasticity").all()
    problem = foreseen(price_level=Prior("Normal", 100.0, 3.0), holding_cost=1e-3, price_trend=0.0, trading_cost=0.05)
    moved = sensitivity(problem, key=KEY, methods=["local"], draws=50).local.loc[("mean_price", "price_level")]
    assert moved["measure"] == "change of the log, per prior sd"
    assert_allclose(moved["median"], 0.03, rtol=0.02)  # three of a hundred; the median of 50 draws is known to half a per cent


# --- against central differences, for every family

DAYS = standard(
    pd.DataFrame(
        {
            "market": np.repeat(["a", "b", "c"], 6),
            "time": np.tile(np.arange(6.0), 3),
            "price": 30.0 + np.random.default_rng(0).normal(size=18),
            "supply": 10.0 + np.random.default_rng(1).normal(size=18),
        }
    ),
    form="panel",
    units={"price": "EUR", "supply": "MWh"},
)
FAMILIES = {
    "price_formation": lambda: Problem("price_formation", SERIES, ForeseenPrices(demand="storm", errors="ar1")),
    "hidden path": lambda: Problem("price_formation", SERIES, ForeseenPrices(supply="latent", supply_process="wiener")),
    "sampled path": lambda: Problem("price_formation", SERIES, ForeseenPrices(supply="latent", noise="student_t")),
    "random_supply": lambda: Problem("random_supply", SERIES, StochasticPrices()),
    "stationary": lambda: Problem("stationary", SERIES, StochasticPrices(errors="ar1", correlated=True, instruments="storm")),
    "trading_days": lambda: Problem("trading_days", DAYS, TradingDays(by_day=("price_level", "trading_cost"))),
    "trading_costs": lambda: Problem("trading_costs", data.load("sp500").iloc[:400], PriceAndVolume()),
    "first_price_auction": lambda: Problem("first_price_auction", AUCTIONS, Bids(shifters=("volume",))),
}
# Central differences of relative step 1e-5: truncation 1e-10 and rounding 1e-11 in relative terms, of curved functions more.
STEP, DIFFERENCES = 1e-5, 1e-5


SLOW = {"first_price_auction"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FAMILIES])
def test_derivatives_are_central_differences(name):
    problem = FAMILIES[name]()
    space = space_of(problem, None, KEY)
    forward = Forward(problem, tuple(space.shapes.items()))
    points = space.draws[:3]
    noise = {key: rows[:1] for key, rows in space.noise.items()}
    found = forward(points, noise, derivatives=True)
    assert found.solved.all()
    width = len(space.names)
    step = STEP * np.maximum(np.abs(points), 1e-2 * space.prior_sd)
    moved = points[None, None] + np.stack([1.0, -1.0])[:, None, None, None] * (step[None] * np.eye(width)[:, None])[None]
    ends = forward(moved.reshape(-1, width), noise).outputs
    for output, slopes in found.derivatives.items():
        up, down = ends[output].reshape(2, width, 3, -1)
        exact = slopes.reshape(3, -1, width)
        size = np.max(np.abs(found.outputs[output])) / step  # (draws, columns)
        for column in range(width):
            difference = (up[column] - down[column]) / (2.0 * step[:, column, None])
            atol = float(np.max(DIFFERENCES * 1e-5 * size[:, column]))
            assert_allclose(
                exact[..., column], difference, rtol=DIFFERENCES, atol=atol, err_msg=f"{output} {space.names[column]}"
            )


@pytest.mark.slow
def test_derivatives_through_the_solver_are_central_differences():
    """Prices of the double-well market are solved to 1e-6, so steps are a hundredth: errors of 1e-4 and more."""
    problem = double_well()
    space = space_of(problem, None, KEY)
    forward = Forward(problem, tuple(space.shapes.items()))
    for name in ("trading_cost", "well_strength", "price_level"):
        column = space.names.index(name)
        step = np.zeros(len(space.names))
        step[column] = 0.01 * abs(space.typical[column])
        points = np.stack([space.typical, space.typical + step, space.typical - step])
        found = forward(points, {}, derivatives=True)
        difference = (found.outputs["price"][1] - found.outputs["price"][2]) / (2.0 * step[column])
        exact = found.derivatives["price"][0, :, column]
        assert_allclose(exact, difference, atol=1e-2 * np.abs(difference).max(), err_msg=name)


# --- latents, dependent parameters


def test_days_follow_what_they_share():
    """Levels of days are sampled around the shared level: held in units of their own law, they move with it."""
    problem = FAMILIES["trading_days"]()
    found = sensitivity(problem, key=KEY, methods=["local"], draws=20)
    assert found.held == ["price_level_by_day", "trading_cost_standard"]
    assert "price_level" not in found.unmoved["mean_price"]
    assert "price_noise" in found.unmoved["mean_price"]


class Point(NamedTuple):
    price: jax.Array
    status: Status


def product(params, inputs):
    fails = params["a"] > LIMIT
    return Point(jnp.exp(params["a"] + params["b"]), Status.where(fails, Status.not_finite, Status.solved))


LIMIT = 5.0


@dataclass(frozen=True)
class OnePrice(Observation):
    """One price, always the same, seen with an error."""

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def inputs(self, frame):
        return {"rows": np.arange(len(frame))}

    def observed(self, frame):
        return frame[["price"]].to_numpy(float)

    def law(self, equilibrium, params, inputs):
        return IndependentRows(dist.Normal(equilibrium.price + jnp.zeros(inputs["rows"].size), params["noise"]))


WIDE = {"a": Prior("Normal", 0.0, 1.0), "b": Prior("Normal", 0.0, 2.0), "noise": Prior("HalfNormal", 1.0)}


def of_product(**priors):
    return Problem(product, SERIES, OnePrice(), {**WIDE, **priors})


def fitted(problem, covariance, draws=4000):
    """A tree whose posterior of a and b is normal."""
    values = np.random.default_rng(0).multivariate_normal([0.0, 0.0], covariance, size=(1, draws))
    posterior = {"a": values[..., 0], "b": values[..., 1], "noise": np.abs(values[..., 0])}
    return to_tree(problem, {"posterior": posterior}, {"digest": problem.digest})


@pytest.mark.statistical
def test_shapley_effects_over_a_posterior():
    """log(exp(a + b)) is linear: Owen and Prieur's closed form of two parameters; 3.5 standard errors, one key in 1000 fails.

    `noise` follows a exactly, and has no share: the output does not depend on it.
    """
    s1, s2, r = 0.25, 0.5, -0.3
    problem = of_product()
    found = sensitivity(problem, fitted(problem, [[s1, r], [r, s2]]), key=KEY, samples=4000)
    share = found.shapley.loc["mean_price"]
    rho2 = r**2 / (s1 * s2)
    exact = (s1 * (1 - rho2 / 2) + r + s2 * rho2 / 2) / (s1 + 2 * r + s2)
    error = (share["share_high"] - share["share"]) / scipy.stats.norm.ppf(0.95)
    # 4000 draws know the correlation to 0.005, the share to as much
    assert abs(share.loc["a", "share"] - exact) < 3.5 * np.hypot(error["a"], 0.005) and error["a"] < 0.02
    assert list(share.index) == ["a", "b"] and found.unmoved["mean_price"] == ["noise"]
    assert (share["scale"] == "log").all()
    assert 0.8 < found.copula["mean_price"] < 1.25
    assert_allclose(found.local.loc[("mean_price", "b"), "median"], 2.0, rtol=1e-3)  # the prior's standard deviation
    assert "No output depends on noise" in found.text


def test_sobol_and_morris_over_a_prior():
    problem = of_product()
    found = sensitivity(problem, key=KEY, methods=["sobol", "morris"], samples=1024)
    assert found.local is None and found.over == "prior"
    assert_allclose(found.sobol.loc["mean_price", "first"], [0.2, 0.8], atol=0.03)  # variances 1 and 4 of the log
    assert_allclose(found.pairs.loc["mean_price", "second"], [0.0], atol=0.06)
    across = 2.0 * scipy.stats.norm.ppf(0.95)  # from the 5 % to the 95 % quantile, of two steps of two thirds
    assert found.morris.loc[("mean_price", "b"), "mu_star"] == pytest.approx(2.0 * across, rel=0.35)
    assert "to b" in found.text


def test_joint_priors_are_dependent():
    def joint():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        return {"a": a, "b": numpyro.sample("b", dist.Normal(0.8 * a, 0.6)), "noise": 1.0}

    problem = Problem(product, SERIES, OnePrice(), joint)
    found = sensitivity(problem, key=KEY)
    assert found.shapley.loc["mean_price", "share"].sum() == pytest.approx(1.0)
    assert_allclose(found.shapley.loc["mean_price", "share"], 0.5, atol=0.1)  # a and b have the same law
    assert_refused(partial(sensitivity, problem, key=KEY, methods=["sobol"]), ["'sobol'", "a joint prior", "shapley"])


# --- any executor, failures, refusals


def in_units_of_noise(equilibrium, params, inputs):
    return equilibrium.price / params["noise"]


def same(one, other):
    for name in ("local", "sobol", "pairs", "morris", "shapley"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)


def test_results_do_not_depend_on_the_executor():
    analyse = partial(sensitivity, foreseen(), key=KEY, methods=["local", "sobol", "morris", "shapley"], samples=32, draws=300)
    with ThreadPoolExecutor(3) as pool:
        same(analyse(), analyse(executor=pool))


@pytest.mark.slow
def test_results_do_not_depend_on_the_process():
    options = {"methods": ["local", "sobol", "morris", "shapley"], "samples": 64, "outputs": {"relative": in_units_of_noise}}
    analyse = partial(sensitivity, of_product(), key=KEY, **options)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        same(analyse(), analyse(executor=pool))


def test_own_outputs_and_names():
    problem = of_product()
    found = sensitivity(problem, key=KEY, methods="local", outputs={"relative": in_units_of_noise})
    assert_allclose(found.local.loc[("relative", "noise"), "median"], -1.0, rtol=1e-12)
    assert list(found.unmoved) == ["relative"]
    named = sensitivity(foreseen(), key=KEY, methods="local", outputs=["last_price"])
    assert list(named.local.index.unique("output")) == ["last_price"] and named.paths is None


def test_points_without_equilibrium_are_counted_and_told(monkeypatch):
    monkeypatch.setattr("test_sensitivity.LIMIT", 2.5)  # above it are 0.6 % of the prior
    problem = of_product()
    found = sensitivity(problem, key=KEY, samples=256)
    tried, failed = found.points["sobol"]
    assert 0 < failed < 0.02 * tried
    assert f"no equilibrium at {failed} of the {tried} points of sobol" in found.text
    monkeypatch.setattr("test_sensitivity.LIMIT", 1.0)
    assert_refused(partial(sensitivity, of_product(b=Prior("Normal", 0.0, 3.0)), key=KEY), ["narrow the priors"])
    monkeypatch.setattr("test_sensitivity.LIMIT", -1.0)
    assert_refused(
        partial(sensitivity, of_product(b=Prior("Normal", 0.0, 4.0)), key=KEY), ["of 200 draws", "narrow the priors"]
    )


def test_refusals():
    problem = of_product()
    tree = fitted(problem, np.eye(2), draws=50)
    for options, told in (
        ({"methods": ["fourier"]}, ["'fourier'", "local, sobol"]),
        ({"outputs": ["profit"], "methods": "local"}, ["'profit'", "mean_price"]),
        ({"draws": 3, "methods": "local"}, ["draws is 3"]),
        ({"samples": 100}, ["samples is 100", "power of two"]),
    ):
        assert_refused(partial(sensitivity, problem, key=KEY, **options), told)
    assert_refused(partial(sensitivity, problem, tree, key=KEY, methods="sobol"), ["'sobol'", "a posterior", "shapley"])
    assert_refused(partial(sensitivity, of_product(a=0.5), tree, key=KEY), ["another problem"])
    fixed = of_product(a=0.0, b=0.0, noise=1.0)
    assert_refused(partial(sensitivity, fixed, key=KEY), ["no parameter has a prior"])


def test_an_output_that_nothing_moves():
    problem = of_product(a=0.0, b=0.0)
    found = sensitivity(problem, key=KEY, methods=["local", "shapley"])
    assert not len(found.local) and not len(found.shapley)
    assert "No output depends on noise" in found.text and found.story() == []
    assert_refused(partial(sensitivity, problem, key=KEY, methods=["sobol"]), ["no parameter"])


# --- priors, and what is kept and told


@pytest.mark.parametrize(
    "prior",
    [
        Prior("LogNormal", 0.3, 0.5),
        Prior("HalfNormal", 2.0),
        Prior("Beta", 2.0, 3.0),
        Prior("Gamma", 2.0, 0.1),
        Prior("InverseGamma", 3.0, 2.0),
        Prior("Kumaraswamy", 2.0, 3.0),
        Prior("Weibull", 2.0, 1.5),
        Prior("Uniform", 1.0, 3.0),
        Prior("StudentT", 4.0, 1.0, 2.0),
        Prior("Exponential", 3.0),
        Prior("Laplace", 1.0, 2.0),
    ],
    ids=lambda prior: prior.family,
)
def test_quantiles_are_those_of_the_prior(prior):
    """NumPyro's distribution function at them is the level, or the share of 40,000 draws below: to .01, four errors."""
    level = np.array([0.05, 0.3, 0.5, 0.9])
    problem = foreseen(price_level=prior)
    space = space_of(problem, None, KEY)
    quantile = space.quantiles["price_level"](level)
    law = prior.distribution()
    if prior.family in ("Kumaraswamy", "Laplace"):
        below = np.mean(np.asarray(law.sample(jax.random.key(1), (40000, 1))) <= quantile, axis=0)
        assert_allclose(below, level, atol=0.01)
    else:
        assert_allclose(law.cdf(quantile), level, atol=1e-6)
    assert space.positive[space.names.index("price_level")] == (prior.family not in ("Laplace", "StudentT"))


def test_elements_of_vectors_have_names_and_quantiles():
    problem = Problem("price_formation", SERIES, ForeseenPrices(demand=("storm", "holiday")))
    space = space_of(problem, None, KEY)
    assert {"demand_effect[storm]", "demand_effect[holiday]"} < set(space.names)
    prior = problem.priors["demand_effect"]
    for element, name in enumerate(("storm", "holiday")):
        assert space.quantiles[f"demand_effect[{name}]"](np.array([ONE_SD]))[0] == pytest.approx(prior.args[1][element])


ONE_SD = float(scipy.stats.norm.cdf(1.0))


@pytest.mark.slow
def test_the_command_writes_a_finding_into_the_run(tmp_path):
    path = tmp_path / "prices.csv"
    SERIES.reset_index()[["time", "price", "supply"]].to_csv(path, index=False)
    columns = {"time": "time", "price": "price", "supply": "supply"}
    sampler = {"chains": 1, "warmup": 200, "draws": 100}
    record = {"data": {"path": str(path), "columns": columns}, "market": {"name": "price_formation"}, "sampler": sampler}
    spec = Spec.model_validate(record)
    problem, options = run.build(spec)
    folder = run.claim(tmp_path / "run")
    run.write(folder, spec, problem, fit(problem, options, key=KEY))
    result = CliRunner().invoke(app, ["sensitivity", str(folder), "--output", "mean_price", "--draws", "50"])
    assert result.exit_code == 0, result.output
    assert "mean_price changes by" in " ".join(result.output.split())
    assert Sensitivity.load(folder).over == "posterior"
    result = CliRunner().invoke(app, ["sensitivity", str(folder), "--over", "future"])
    assert "choose posterior or prior" in str(result.exception)


def test_a_finding_is_kept_and_told(tmp_path):
    found = sensitivity(foreseen(), key=KEY, methods=["local", "sobol", "morris", "shapley"], samples=32, draws=30)
    found.save(tmp_path)
    again = Sensitivity.load(tmp_path)
    same(again, found)
    assert again.text == found.text and again.points == found.points
    pd.testing.assert_frame_equal(again.paths, found.paths)
    headings = [section[0] for section in again.story()]
    assert len(headings) == 6 and "Elasticities" in headings and any("price along" in heading for heading in headings)
    page = report_findings([again], tmp_path / "page.html", title="Sensitivity").read_text()
    assert page.count("<img") + page.count("<svg") >= 6
    for told in ("holding_cost", "Sobol indices", "Shapley effects"):
        assert told in page
    plt.close("all")
