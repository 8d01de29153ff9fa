"""What data can tell, against closed forms; planted directions that nothing can tell, and markets that have none."""

import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from refusals import assert_refused
from simulated import series

from walras.calibrate import (
    ForeseenPrices,
    Identification,
    IndependentRows,
    Observation,
    Parameter,
    Prior,
    Problem,
    StochasticPrices,
    identify,
)
from walras.data import load
from walras.model import PriceFormation, Quadratic, Status, TradingCosts

KEY = jax.random.key(0)
ROWS = 30
X = np.linspace(-1.0, 1.5, ROWS)
NORMAL, LOG = Prior("Normal", 0.5, 2.0, unit="USD"), Prior("LogNormal", 0.3, 0.8)
# An information matrix from 2048 tables has relative errors of √(2/2048); variances on average over draws less.
MANY, ESTIMATED = 2048, 0.04
EXACT = 1e-5  # of directions: they are as good as derivatives are


@dataclass(frozen=True)
class Normals(Observation):
    """Rows with the equilibrium's means and a spread, of which one may be missing."""

    spread: float = 0.5
    hidden: float = 0.0  # the spread of an effect of each row's own, sampled beside the parameters
    recorded: float = 0.0  # a record of the parameter `scale`, as a factor

    targets: ClassVar[tuple[str, ...]] = ("y",)

    def inputs(self, frame):
        return {"x": frame.index.to_numpy(float)}

    def observed(self, frame):
        return frame[["y"]].to_numpy()

    def latents(self, params, inputs):
        effect = jnp.zeros(inputs["x"].size)
        if self.hidden:
            effect = numpyro.sample("effect", dist.Normal(effect + params["a"], self.hidden).to_event(1)) - params["a"]
        if self.recorded:
            numpyro.factor("record", ROWS * (-jnp.log(params["scale"]) - 0.5 * (self.recorded / params["scale"]) ** 2))
        return {**inputs, "effect": effect}

    def law(self, equilibrium, params, inputs):
        spread = params.get("spread", self.spread)
        return IndependentRows(dist.Normal(equilibrium.mean + inputs["effect"], spread))


def normal_problem(mean, priors, failing=lambda params: False, y=None, **options):
    def build(params, inputs):
        status = Status.where(jnp.asarray(failing(params)), Status.not_converged, Status.solved)
        return SimpleNamespace(mean=mean(params, inputs["x"]) + 0.0 * inputs["x"], status=status)

    frame = pd.DataFrame({"y": np.zeros(ROWS) if y is None else y}, index=pd.Index(X, name="x"))
    return Problem(build, frame, Normals(**options), priors)


def null_loadings(found: Identification) -> np.ndarray:
    return found.loadings.loc[found.of("null")].to_numpy()


def test_information_and_contraction_of_a_regression_are_the_closed_forms():
    missing = np.where(np.arange(ROWS) % 7 == 0, np.nan, 0.0)
    problem = normal_problem(
        lambda p, x: p["a"] + p["b"] * x,
        {"a": NORMAL, "b": Prior("Normal", 0.0, 0.3), "spread": Prior("LogNormal", 0.3, 0.2)},
        y=missing,
    )
    found = identify(problem, key=KEY, tables=MANY, draws=32)
    # Information in (a, b, log spread) at spreads of the prior; posterior variances averaged over the same law by quadrature.
    seen = X[~np.isnan(missing)]
    design = np.column_stack([np.ones(seen.size), seen])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    left = 0.0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        precision = np.diag(1.0 / np.array([2.0, 0.3]) ** 2) + design.T @ design / np.exp(0.3 + 0.2 * node) ** 2
        left = left + weight * np.diag(np.linalg.inv(precision)) / np.array([2.0, 0.3]) ** 2
    of_spread = 1.0 / (1.0 + 2.0 * seen.size * 0.2**2)
    # Averages over 32 Sobol points in place of the whole prior are good to a few per cent here.
    assert_allclose(1.0 - found.contraction["expected"], [*left, of_spread], rtol=0.1)
    assert_allclose(1.0 - found.contraction.loc["spread", ["5 %", "95 %"]].astype(float), of_spread, rtol=0.15)
    assert found.identified and found.solves == 1.0 and found.failures == ""
    assert "The data can tell all parameters apart in principle: a, b and spread." in found.text


def test_what_is_known_does_not_vary_over_the_prior_of_a_linear_market():
    problem = normal_problem(lambda p, x: p["a"] + p["b"] * x, {"b": Prior("Normal", 0.0, 0.3), "a": NORMAL})
    found = identify(problem, key=KEY, tables=MANY, draws=8)
    design = np.column_stack([X, np.ones(ROWS)])
    posterior = np.linalg.inv(design.T @ design / 0.5**2 + np.diag([0.3**-2, 2.0**-2]))
    expected = np.diag(posterior) / np.array([0.3, 2.0]) ** 2
    for column in ("expected", "5 %", "95 %"):
        assert_allclose(1.0 - found.contraction[column], expected, rtol=2.5 * ESTIMATED)


def test_priors_that_depend_on_each_other():
    def priors():
        a = numpyro.sample("a", dist.Normal(1.0, 2.0))
        return {"a": a, "b": numpyro.sample("b", dist.Normal(0.6 * a, 1.0))}

    found = identify(normal_problem(lambda p, x: p["a"], priors), key=KEY, points=2048, tables=MANY, draws=8)
    of_a = 1.0 - 1.0 / (1.0 + ROWS * 4.0 / 0.25)
    correlation = 0.6 * 2.0 / np.sqrt(0.36 * 4.0 + 1.0)
    # Moments of the prior are those of 2048 random draws here.
    assert_allclose(found.contraction["expected"], [of_a, correlation**2 * of_a], rtol=0.06)
    assert_allclose(null_loadings(found), [[0.0, 1.0]], atol=EXACT)
    assert found.sentence == "The data can tell a, but not b, which changes nothing that is observed."


PLANTED = {
    "a": NORMAL,
    "b": Prior("Normal", 0.0, 0.5, unit="USD"),
    "p": LOG,
    "q": Prior("LogNormal", -0.5, 0.4),
    "spread": Prior("LogNormal", 0.0, 0.3),
}


def planted(names=tuple(PLANTED)):
    return normal_problem(lambda p, x: p["a"] + p["b"] + p["p"] * p["q"] ** 2 * x, {name: PLANTED[name] for name in names})


def test_two_planted_invariances_are_told_apart():
    """A sum of two levels, and a product of two factors."""
    found = identify(planted(), key=KEY, tables=32, draws=8)
    expected = np.array([[1 / 2.0, -1 / 0.5, 0, 0, 0], [0, 0, 2 / 0.8, -1 / 0.4, 0]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    got = null_loadings(found)
    got = got[np.argsort(np.abs(got[:, 2]))]
    assert_allclose(np.abs(np.sum(got * expected, axis=1)), 1.0, atol=EXACT)
    assert np.count_nonzero(got) == 4
    assert not found.directions["bends"].any()
    told = found.sentence
    assert told.startswith("The data can tell spread, but not ")
    assert "raising b by 0.5 USD while lowering a by 0.5 USD changes nothing that is observed" in told
    assert "doubling p while dividing q by 1.4 changes nothing that is observed" in told


def test_the_order_of_parameters_is_nothing():
    found, other = (identify(planted(names), key=KEY, tables=32, draws=8) for names in (PLANTED, sorted(PLANTED, reverse=True)))
    one, two = found.loadings.loc[found.of("null")], other.loadings.loc[other.of("null"), list(PLANTED)]
    alike = np.abs(one.to_numpy() @ two.to_numpy().T)
    assert_allclose(np.sort(alike.ravel()), [0.0, 0.0, 1.0, 1.0], atol=EXACT)
    assert set(other.contraction.index) == set(PLANTED)


def test_what_is_hardly_told_is_weak_and_not_null():
    """The negative control: the invariance of a sum, but for a trace of one of its terms."""
    problem = normal_problem(lambda p, x: p["a"] + p["b"] + 1e-3 * p["b"] * x, {"a": NORMAL, "b": Prior("Normal", 0.0, 1.0)})
    found = identify(problem, key=KEY, draws=8)
    assert found.identified and found.of("weak") == ["weak 1"]
    assert found.directions.loc["weak 1", "left"] == pytest.approx(1.0, abs=1e-3)
    assert "less than the prior does of raising b by 1 while lowering a by 1" in found.text


def test_a_terminal_cost_and_its_target_trade_off_along_a_curve():
    supply = np.sin(3.0 * np.arange(ROWS) / ROWS)

    def mean(p, x):
        market = PriceFormation(p["trading_cost"], terminal=Quadratic(p["terminal_cost"], p["target"]))
        return market.solve(jnp.asarray(supply), horizon=1.0).price

    priors = {"trading_cost": LOG, "terminal_cost": LOG, "target": Prior("Normal", 4.0, 0.5)}
    found = identify(normal_problem(mean, priors), key=KEY, points=64)
    assert found.of("null") == ["null 1"] and found.directions.loc["null 1", "bends"]
    loading = found.loadings.loc["null 1"]
    assert loading["trading_cost"] == 0.0
    # γ (ζ − X̄_T) stays the same: d log γ (ζ − X̄_T) = −dζ, where the point is near the prior's middle.
    distance = -loading["target"] * 0.5 / (loading["terminal_cost"] * 0.8)
    assert distance == pytest.approx(4.0 - supply.mean(), abs=1.0)
    assert "The data can tell trading_cost, but not terminal_cost and target apart: there is a curve" in found.sentence


def test_the_scale_of_a_latent_supply_cannot_be_told():
    scale = Prior("LogNormal", 0.0, 0.7)
    problem = Problem("price_formation", series(), ForeseenPrices(supply="latent"), {"supply_sd": scale})
    found = identify(problem, key=KEY, points=32, draws=16)
    assert found.of("null") == ["null 1"] and not found.directions.loc["null 1", "bends"]
    assert found.directions.loc["null 1", "moves"] == "doubling supply_sd while halving trading_cost and holding_cost"


def test_known_supply_leaves_no_direction_untold():
    found = identify(Problem("price_formation", series(), ForeseenPrices()), key=KEY, points=32, draws=16)
    assert found.identified
    assert set(found.contraction.index) == {"price_level", "price_trend", "trading_cost", "holding_cost", "price_noise"}


@pytest.mark.slow
def test_the_fish_market_has_one_direction_that_its_data_do_not_tell():
    """With ϑ, s and the noise known, prices tell a_Q, a_X m and the rate at which stocks settle: three of four parameters."""
    found = identify(Problem("stationary", load("fulton_fish"), StochasticPrices(errors="ar1")), key=KEY)
    assert found.of("null") == ["null 1"] and found.directions.loc["null 1", "bends"]
    four = ["price_impact", "absorption", "holding_cost", "depreciation"]
    assert not found.loadings.loc["null 1"].drop(four).any()
    loading = found.loadings.loc["null 1"]
    assert loading["absorption"] * loading["holding_cost"] > 0 > loading["absorption"] * loading["depreciation"]


def test_the_scale_invariance_of_trading_costs():
    """(s, γ, ξ, λ) → (a s, γ/a, a ξ, λ/a) leaves prices and relative volume as they are."""

    def mean(p, x):
        gamma, xi = p["risk_aversion"], p["endowment"]
        market = TradingCosts(gamma * jnp.array([1.0, 2.0]), xi * jnp.array([1.0, -1.0]), p["trading_cost"], supply=p["supply"])
        found = market.stationary(throw=False)
        seen = [
            found.volatility,
            found.drift[0],
            found.reversion,
            found.turnover / p["supply"],
            found.position_sd / p["supply"],
        ]
        return jnp.tile(jnp.stack(seen), ROWS // 5)

    names = ("supply", "risk_aversion", "endowment", "trading_cost")
    found = identify(normal_problem(mean, dict.fromkeys(names, Prior("LogNormal", -1.0, 0.3)), spread=0.01), key=KEY, points=64)
    expected = np.array([1.0, -1.0, 1.0, -1.0]) / 2.0
    assert_allclose(np.abs(null_loadings(found) @ expected), [1.0], atol=EXACT)
    assert not found.directions.loc["null 1", "bends"]
    said = found.directions.loc["null 1", "moves"]
    assert said.count("doubling") == said.count("halving") == 1 and all(name in said for name in names)


def test_what_is_sampled_beside_the_parameters_is_taken_out():
    """y = u + e with u ~ N(a, hidden²) for each row: exactly n / (hidden² + spread²) is known of a."""
    problem = normal_problem(lambda p, x: p["a"], {"a": NORMAL}, hidden=0.9)
    found = identify(problem, key=KEY, tables=MANY, draws=8)
    information = ROWS / (0.9**2 + 0.5**2)
    assert_allclose(1.0 - found.contraction["expected"], 1.0 / (1.0 + information * 2.0**2), rtol=2.5 * ESTIMATED)


def test_data_that_enter_as_a_factor_count():
    """A record of `scale` beside the table: the curvature of its log density in log scale is 2 n (recorded / scale)²."""
    problem = normal_problem(lambda p, x: p["a"], {"a": NORMAL, "scale": Prior("LogNormal", 0.0, 0.2)}, recorded=1.0)
    found = identify(problem, key=KEY)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    left = weights @ (1.0 / (1.0 + 2.0 * ROWS * np.exp(-0.4 * nodes) * 0.2**2)) / weights.sum()
    assert_allclose(1.0 - found.contraction.loc["scale", "expected"], left, rtol=0.05)
    assert found.identified


def test_the_share_that_solves_and_where_it_does_not():
    priors = {"a": NORMAL, "cost": Prior("Gamma", 2.0, 1.0, unit="USD")}
    problem = normal_problem(lambda p, x: p["a"] + p["cost"] * x, priors, failing=lambda p: p["cost"] < 1.0)
    found = identify(problem, key=KEY)
    share = float(np.exp(-1.0) * 2.0)  # of a Gamma(2, 1) above 1
    assert found.solves == pytest.approx(share, abs=0.02)  # quantiles of a Gamma are those of 4096 draws
    assert "Where it does not, cost is small (its median there is 0." in found.failures
    assert " USD, elsewhere 2." in found.failures and "did not clear the market" in found.failures
    assert found.text.startswith(f"The market solves at {100 * found.solves:.3g} % of 256 points of the prior. Where")


def test_failures_that_lie_nowhere_are_said_to():
    problem = normal_problem(lambda p, x: p["a"], {"a": NORMAL}, failing=lambda p: jnp.sin(1e4 * p["a"]) < -0.5)
    assert "the parameters look like elsewhere" in identify(problem, key=KEY, draws=4).failures


def test_a_fit_is_set_beside_what_was_expected():
    problem = normal_problem(lambda p, x: p["a"] + p["c"] * x, {"a": NORMAL, "c": LOG})
    rng = np.random.default_rng(1)
    posterior = {"a": rng.normal(0.0, 0.2, (2, 4000)), "c": np.exp(rng.normal(0.0, 0.4, (2, 4000)))}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({n: (("chain", "draw"), v) for n, v in posterior.items()})})
    tree.attrs["digest"] = problem.digest
    found = identify(problem, key=KEY, tree=tree, draws=8)
    assert_allclose(found.contraction["achieved"], [1.0 - 0.01, 1.0 - 0.25], rtol=0.03)
    assert "The fit took away 99 % at best (a)" in found.text and "furthest from what was expected for c" in found.text
    tree.attrs["digest"] = "another"
    assert_refused(lambda: identify(problem, key=KEY, tree=tree), ["fitted to another problem"])


class Elsewhere:
    """An executor whose work goes through pickle, as it does on the way to another process."""

    def map(self, function, pieces):
        return [pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(piece))))) for piece in pieces]


def test_workers_and_padding_change_nothing():
    problem = Problem("price_formation", series(), ForeseenPrices())
    pickle.loads(pickle.dumps(problem))
    found, spread = (identify(problem, key=KEY, points=50, draws=6, tables=32, executor=e) for e in (None, Elsewhere()))
    pd.testing.assert_frame_equal(found.contraction, spread.contraction, check_exact=True)
    more = identify(problem, key=KEY, points=50, draws=6, tables=32)
    pd.testing.assert_frame_equal(found.loadings, more.loadings, check_exact=True)


def test_it_is_kept_and_told(tmp_path):
    found = identify(planted(), key=KEY, tables=32, draws=4, points=32)
    found.save(tmp_path)
    again = Identification.load(tmp_path)
    assert again.text == found.text
    pd.testing.assert_frame_equal(again.loadings, found.loadings, check_index_type=False, check_column_type=False)
    sections = found.story()
    assert [len(section) for section in sections] == [3, 3]
    assert {label.get_text() for label in sections[0][2].axes[0].get_yticklabels()} == set(PLANTED)
    identified = identify(normal_problem(lambda p, x: p["a"], {"a": NORMAL}), key=KEY, tables=32, draws=4)
    assert len(identified.story()) == 1


@pytest.mark.parametrize(
    ("priors", "options", "told"),
    [
        ({"a": 1.0}, {}, ["priors fix every parameter", "Prior"]),
        ({"a": NORMAL}, {"points": 3}, ["points is 3", "at least 16"]),
        ({"a": NORMAL}, {"draws": 0}, ["draws is 0", "at least 1"]),
        ({"a": NORMAL}, {"tables": 2.5}, ["tables is 2.5", "at least 32"]),
    ],
)
def test_bad_input_is_a_sentence(priors, options, told):
    assert_refused(lambda: identify(normal_problem(lambda p, x: p["a"], priors), key=KEY, **options), told)


def test_a_market_that_solves_nowhere_is_a_sentence():
    problem = normal_problem(lambda p, x: p["a"], {"a": NORMAL}, failing=lambda p: True)
    assert_refused(lambda: identify(problem, key=KEY), ["solved at none of 256 points", "did not clear", "other priors"])


def test_a_law_without_finite_scores_is_a_sentence():
    problem = normal_problem(lambda p, x: p["a"] * jnp.nan, {"a": NORMAL})
    assert_refused(lambda: identify(problem, key=KEY, draws=4), ["not finite at any of 4 draws"])


@dataclass(frozen=True)
class Vectors(Normals):
    def parameters(self, frame):
        return {"effects": Parameter(Prior("Normal", [0.0, 0.0], [1.0, 2.0]))}

    def dimensions(self):
        return {"effects": ["column"]}

    def coordinates(self, frame):
        return {"column": ["waves", "wind"]}


def test_elements_of_vectors_have_names():
    frame = pd.DataFrame({"y": np.zeros(ROWS)}, index=pd.Index(X, name="x"))

    def build(params, inputs):
        return SimpleNamespace(mean=params["effects"][0] + 0.0 * inputs["x"], status=Status.solved)

    found = identify(Problem(build, frame, Vectors()), key=KEY, tables=32, draws=4)
    assert list(found.contraction.index) == ["effects[waves]", "effects[wind]"]
    assert found.sentence == "The data can tell effects[waves], but not effects[wind], which changes nothing that is observed."
