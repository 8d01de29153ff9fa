"""Counterfactuals against closed forms that share nothing with them, and what they have in common over all families."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from calibrate.refusals import assert_refused
from calibrate.simulated import series
from calibrate.test_bids import auctions
from calibrate.test_price_and_volume import frame as price_and_volume
from calibrate.test_trading_days import panel
from numpy.testing import assert_allclose

from walras.calibrate import (
    Bids,
    Change,
    ForeseenPrices,
    PriceAndVolume,
    Prior,
    Problem,
    Scenario,
    StochasticPrices,
    TradingDays,
    posterior_predictive,
    revenue,
    scenario,
)
from walras.calibrate.predictions.intervention import Intervention
from walras.calibrate.predictions.predictive import prior_draws
from walras.calibrate.predictions.scenarios import _bands, _structure
from walras.data import standard
from walras.model import Status

KEY = jax.random.key(0)
# Sums of the same terms in another order, of numbers of order one.
EXACT = 1e-9
# A path of supply is imposed by a filter without measurement errors, in units of supply of order one.
STEERED = 1e-6


def with_draws(problem, draws=8):
    """A problem with draws of its prior in place of a fit: what a scenario is of does not depend on where draws are from."""
    values, failed = prior_draws(problem, jax.random.key(5), 4 * draws)
    kept = np.flatnonzero(~failed[0])[:draws]
    posterior = {n: (("chain", "draw", *(f"{n}_{i}" for i in range(a.ndim - 2))), a[:, kept]) for n, a in values.items()}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(posterior)})
    tree.attrs["digest"] = problem.digest
    return problem, tree


STATIONARY = {"errors": "ar1", "correlated": True, "demand": ("holiday",), "instruments": ("storm",)}
GAPS = {"times": [0, 1, 2, 5, 6, 7, 9, 10, 11, 14, 15, 16], "missing": [("price", 4), ("supply", 7)]}
FAMILIES = {
    "stationary": ("stationary", series(**GAPS), StochasticPrices(**STATIONARY), "trading_cost"),
    "stationary, measured": ("stationary", series(), StochasticPrices(supply="measured"), "demand_slope"),
    "stationary, latent": ("stationary", series(), StochasticPrices(supply="latent"), "holding_cost"),
    "random_supply": ("random_supply", series(), StochasticPrices(errors="ar1"), "terminal_cost"),
    "price_formation": ("price_formation", series(**GAPS), ForeseenPrices(errors="ar1"), "holding_cost"),
    "price_formation, measured": ("price_formation", series(), ForeseenPrices(supply="measured"), "trading_cost"),
    "price_formation, student": ("price_formation", series(), ForeseenPrices(noise="student_t"), "trading_cost"),
    "trading_days": ("trading_days", panel(days=3), TradingDays(by_day=("price_level", "trading_cost")), "trading_cost"),
    "trading_costs": ("trading_costs", standard(price_and_volume()), PriceAndVolume(trend=60), "trading_cost"),
    "first_price_auction": ("first_price_auction", auctions([2, 3] * 4), Bids(shifters=("volume",)), "value_spread"),
}


BRIEF = ("stationary", "price_formation", "trading_costs")


@pytest.mark.parametrize("family", [f if f in BRIEF else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_what_changes_nothing_makes_no_difference(family):
    """To the bit, in every figure and row. The baseline is the data, where they are seen."""
    market, data, observation, parameter = FAMILIES[family]
    problem, tree = with_draws(Problem(market, data, observation), draws=3)
    found = scenario(problem, tree, {parameter: "1x"}, key=KEY)
    assert found.unsolved == 0 and "nothing changes" in found.text
    for table in (found.figures, found.series):
        # the first row has no return
        assert len(table) == 0 or np.all(table["difference"].dropna() == 0.0)
        assert len(table) == 0 or table["difference"].isna().sum() <= (family == "trading_costs")
    for column, name in enumerate(observation.targets if len(found.series) else ()):
        observed = np.asarray(problem.observed)[:, column]
        seen = np.isfinite(observed)
        assert_allclose(found.series.loc[name, "baseline"].to_numpy()[seen], observed[seen], rtol=0, atol=1e-7)


# --- one finite game: prices in closed form


LINEAR = {
    "price_level": Prior("Normal", 1.3, 0.2),
    "price_trend": Prior("Normal", 0.0, 0.02),
    "trading_cost": Prior("LogNormal", -2.0, 0.3),
    "holding_cost": Prior("LogNormal", -4.0, 0.3),
}


def foreseen_price(values, net):
    """ϖ = final + trend (T − t) − cQ − η∫ₜᵀ X̄: step means, the integral by Simpson's rule on each step."""
    rows = net.size
    nodes = np.append(0.0, np.cumsum(net))
    whole = nodes[:-1] + net / 2
    later = np.append(np.cumsum(whole[::-1])[::-1][1:], 0.0)
    own = nodes[:-1] / 2 + net / 3
    final = values["price_level"] - values["price_trend"] * rows / 2
    linear = final + values["price_trend"] * (rows - np.arange(rows) - 0.5)
    return linear - values["trading_cost"] * net - values["holding_cost"] * (later + own)


@pytest.fixture(scope="module")
def game():
    return with_draws(Problem("price_formation", series(rows=20), ForeseenPrices(errors="ar1"), LINEAR))


def mean_difference(game, change_values, net):
    """The mean over draws of the closed form's difference."""
    problem, tree = game
    draws = tree["posterior"].to_dataset().isel(chain=0)
    before = problem.data["supply"].to_numpy() - problem.data["supply"].mean()
    one = [{name: float(draws[name][i]) for name in LINEAR} for i in range(draws.sizes["draw"])]
    return np.mean([foreseen_price({**v, **change_values(v)}, net) - foreseen_price(v, before) for v in one], axis=0)


@pytest.mark.parametrize(
    ("changes", "values", "supplied"),
    [
        ({"trading_cost": "2x"}, lambda v: {"trading_cost": 2 * v["trading_cost"]}, lambda q: q),
        ({"supply": "-10%"}, lambda v: {}, lambda q: 0.9 * q),
        ({"supply": "+0.5", "trading_cost": "=0.1"}, lambda v: {"trading_cost": 0.1}, lambda q: q + 0.5),
        ({"supply": "path"}, lambda v: {}, lambda q: np.where(np.arange(q.size) == 7, 9.0, q)),
    ],
)
def test_one_finite_game_in_closed_form(game, changes, values, supplied):
    problem, tree = game
    supply = problem.data["supply"]
    path = pd.Series([9.0], index=supply.index[[7]])
    found = scenario(problem, tree, {n: path if c == "path" else c for n, c in changes.items()}, key=KEY)
    net = supplied(supply.to_numpy()) - supply.mean()
    assert_allclose(found.series.loc["price", "difference"], mean_difference(game, values, net), rtol=0, atol=EXACT)


def test_a_target_of_holding_is_kept_when_its_cost_changes(game):
    """With κ = trend / η fixed, the price's trend is as many times as large as the cost, and the final price is kept."""
    problem, tree = game
    found = scenario(problem, tree, {"holding_cost": "3x"}, key=KEY)

    def moved(v):
        trend, final = 3 * v["price_trend"], v["price_level"] - v["price_trend"] * 10
        return {"holding_cost": 3 * v["holding_cost"], "price_trend": trend, "price_level": final + trend * 10}

    net = problem.data["supply"].to_numpy() - problem.data["supply"].mean()
    assert_allclose(found.series.loc["price", "difference"], mean_difference(game, moved, net), rtol=0, atol=EXACT)


def test_a_change_and_its_opposite_cancel(game):
    """Prices of this market are affine in supply."""
    more, less = (scenario(*game, {"supply": change}, key=KEY).series for change in ("+10%", "-10%"))
    assert_allclose(more["difference"], -less["difference"], rtol=0, atol=EXACT)


@pytest.mark.slow
def test_measured_supply_moves_as_known_supply_does():
    """With a reliability of nearly one, what is reconstructed is what is measured."""
    priors = {**LINEAR, "supply_reliability": 1.0 - 1e-9, "price_noise": 0.2, "supply_sd": 1.5}
    known = {name: prior for name, prior in priors.items() if not name.startswith("supply")}
    data, moved = series(rows=20), []
    for observation, given in ((ForeseenPrices(supply="measured"), priors), (ForeseenPrices(), known)):
        problem = Problem("price_formation", data, observation, given)
        values = {name: jnp.asarray(0.1 + 0.0 * np.zeros((1, 2))) for name in LINEAR}
        tree = xr.DataTree.from_dict({"posterior": xr.Dataset({n: (("chain", "draw"), v) for n, v in values.items()})})
        tree.attrs["digest"] = problem.digest
        moved.append(scenario(problem, tree, {"supply": "-20%"}, key=KEY).series.loc["price", "difference"])
    assert_allclose(*moved, rtol=0, atol=1e-3)


# --- the stationary market


@pytest.fixture(scope="module")
def stationary():
    observation = StochasticPrices(errors="ar1", correlated=True, instruments=("storm",))
    return with_draws(Problem("stationary", series(rows=30), observation))


def balance(p, supply):
    """The stationary mean price from three balances: of the stock, of holding it, and of trading it."""
    c, eta, kappa, r, delta = (p[n] for n in ("trading_cost", "holding_cost", "holding_target", "discount", "depreciation"))
    d0, d1 = p["demand_intercept"], p["demand_slope"]
    # unknown: price, stock, costate
    balances = [[d1, -delta, 0.0], [0.0, eta, r + delta], [1.0 + c * d1, 0.0, -1.0]]
    return np.linalg.solve(np.array(balances), [d0 - supply, eta * kappa, -c * (supply - d0)])[0]


def structures(problem, tree):
    draws = tree["posterior"].to_dataset().isel(chain=0)
    for i in range(draws.sizes["draw"]):
        params, inputs = _structure(problem, {n: jnp.asarray(draws[n][i].to_numpy()) for n in problem.latent})
        yield {name: np.asarray(value) for name, value in params.items()}, params, inputs


def test_coordinates_and_structure_are_one_market(stationary):
    """The structure has the sampled mean price, by balances; with twice the trading cost it has another, by them too."""
    problem, tree = stationary
    levels = tree["posterior"]["price_level"].to_numpy()[0]
    for level, (plain, params, inputs) in zip(levels, structures(problem, tree), strict=True):
        assert_allclose(balance(plain, plain["supply_mean"]), level, rtol=1e-8)
        change = Intervention({"trading_cost": Change(2.0)}, problem.data)
        world = problem.observation.counterfactual(params, inputs, change, problem.solve)
        expected = balance({**plain, "trading_cost": 2 * plain["trading_cost"]}, plain["supply_mean"])
        assert_allclose(world.equilibrium.price, expected, rtol=1e-8)
        assert abs(expected - level) > 1e-6
        assert world.equilibrium.market.demand.slope == params["demand_slope"]


@pytest.mark.slow
def test_a_known_shift_of_supply_moves_all_prices_alike(stationary):
    """Agents then are in another stationary mean, around which the same shocks do the same."""
    problem, tree = stationary
    found = scenario(problem, tree, {"supply": "+0.3"}, key=KEY)
    moved = [balance(p, p["supply_mean"] + 0.3) - balance(p, p["supply_mean"]) for p, _, _ in structures(problem, tree)]
    assert_allclose(found.series.loc["price", "difference"], np.mean(moved), rtol=0, atol=EXACT)
    assert_allclose(found.series.loc["supply", "difference"], 0.3, rtol=0, atol=EXACT)


@pytest.mark.slow
def test_a_known_multiple_scales_all_of_supply(stationary):
    """Mean, shocks and shifters: every row has nine tenths of what it had."""
    problem, tree = stationary
    found = scenario(problem, tree, {"supply": "-10%"}, key=KEY).series.loc["supply"]
    assert_allclose(found["counterfactual"], 0.9 * found["baseline"], rtol=0, atol=EXACT)
    assert_allclose(found["baseline"], problem.data["supply"], rtol=0, atol=STEERED)


def worlds(stationary, change, surprise):
    """The laws of both worlds and the shocks of the first draw."""
    problem, tree = stationary
    _, params, inputs = next(structures(problem, tree))
    changes = [Intervention({}, problem.data), Intervention({"supply": change}, problem.data, surprise)]
    law, other = (problem.observation.counterfactual(params, inputs, w, problem.solve).law for w in changes)
    return problem, law, other, law.shocks(KEY, problem.observed), params, inputs


def test_a_surprise_moves_supply_and_what_follows_from_it(stationary):
    """Q̄ is as wanted; u and the first stock stay; the stock keeps its balance X̄′ = mQ − kX̄ exactly, period by period."""
    problem, law, other, shocks, params, inputs = worlds(stationary, Change(0.5), True)
    paths = law.paths(shocks)
    wanted = -0.5 * (paths[:, 3] + law.means[:, 1])
    moved = np.asarray(other.law.steered(wanted))
    assert_allclose(moved[:, 3], wanted, rtol=0, atol=STEERED)
    assert_allclose(moved[:, 2], 0.0, rtol=0, atol=EXACT)
    _, inflow, drift = problem.solve(params, inputs).position_drift
    before = np.append(0.0, moved[:-1, 1])
    assert_allclose(moved[:, 1], before + inflow * moved[:, 3] + drift * moved[:, 4], rtol=0, atol=STEERED)
    difference = np.asarray(other.replay(shocks) - law.replay(shocks))
    assert_allclose(difference[:, 0], moved @ np.asarray(law.loadings[0, 0]), rtol=0, atol=STEERED)


def test_intervening_on_supply_is_not_observing_it(stationary):
    """Negative control: where shocks are correlated, the law of the price given another supply has another error."""
    _, law, _, shocks, *_ = worlds(stationary, Change(0.5), True)
    wanted = -0.5 * (law.paths(shocks)[:, 3] + law.means[:, 1])
    told = jnp.stack([jnp.full_like(wanted, jnp.nan), wanted + law.means[:, 1]], axis=1)
    shift = law._path(jnp.zeros(3), jnp.zeros((law.gap.size, 5)))
    observed = law.smooth(told + law._observe(shift) * jnp.array([[0.0, 1.0]])) - shift
    assert_allclose(observed[:, 3], wanted, rtol=0, atol=STEERED)
    assert np.max(np.abs(observed[:, 2])) > 100 * STEERED


def test_a_path_reaches_its_rows_and_no_others(stationary):
    problem, tree = stationary
    path = pd.Series([0.0, 5.0], index=problem.data.index[[3, 11]])
    found = scenario(problem, tree, {"supply": path}, key=KEY)
    after = found.series.loc["supply", "counterfactual"].to_numpy()
    expected = problem.data["supply"].to_numpy().copy()
    expected[[3, 11]] = 0.0, 5.0
    assert_allclose(after, expected, rtol=0, atol=STEERED)
    assert "learn the path row by row" in found.text


@pytest.mark.slow
def test_covariates_are_not_centred_anew():
    """A column that is larger by one in every row moves prices by its effect, not by nothing."""
    problem, tree = with_draws(Problem("stationary", series(), StochasticPrices(demand=("holiday",))))
    found = scenario(problem, tree, {"holiday": "+1"}, key=KEY)
    effect = float(tree["posterior"]["demand_effect"].mean())
    assert_allclose(found.series.loc["price", "difference"], effect, rtol=0, atol=EXACT)
    assert "extrapolates: " in found.text


@pytest.mark.slow
def test_a_random_supply_that_falls_is_not_what_is_consumed():
    """The game of one supply: net supply has the mean −0.1 q̄, and the price rises; agents expected what they consume."""
    problem, tree = with_draws(Problem("random_supply", series(), StochasticPrices(errors="ar1")), draws=4)
    found = scenario(problem, tree, {"supply": "-10%"}, key=KEY)
    assert np.all(found.series.loc["price", "difference"] > 0)
    assert found.figures.loc["mean supply", "relative"] == pytest.approx(-0.1)


@pytest.mark.slow
def test_pairs_differ_by_less_than_series_simulated_anew(stationary):
    """Differences of the same draw under the same shocks have none of their noise."""
    problem, tree = stationary
    paired = scenario(problem, tree, {"trading_cost": "1.2x"}, key=KEY).figures.loc["mean price"]
    simulated = posterior_predictive(problem, tree, key=KEY)["posterior_predictive"]["price"].mean("time").to_numpy()[0]
    assert (paired["difference 95 %"] - paired["difference 5 %"]) < 0.2 * np.ptp(simulated)


# --- other families


def test_twice_the_trading_cost_by_the_formulas_of_two_agents():
    """k = σ√(c₂/λ), σ = α + εξ√(λc₂) and turnover (ξ/σ)√(k/π), in each draw."""
    problem, tree = with_draws(Problem("trading_costs", standard(price_and_volume()), PriceAndVolume(trend=60)), draws=5)
    found = scenario(problem, tree, {"trading_cost": "2x"}, key=KEY).figures["counterfactual"]
    expected = {"volatility": [], "reversion": [], "turnover": []}
    for p, *_ in structures(problem, tree):
        low, high, xi, lam = (p[n] for n in ("risk_aversion_low", "risk_aversion_high", "endowment", "trading_cost"))
        c2, lam = (low + high) / 2, 2 * lam
        sigma = p["payoff_volatility"] + (high - low) / (high + low) * xi * np.sqrt(lam * c2)
        k = sigma * np.sqrt(c2 / lam)
        for name, value in (("volatility", sigma), ("reversion", k), ("turnover", xi / sigma * np.sqrt(k / np.pi))):
            expected[name].append(value)
    for name, values in expected.items():
        assert_allclose(found[name], np.mean(values), rtol=1e-7)


def test_volume_falls_with_turnover_in_the_share_of_hedgers():
    """What is not hedging stays: volume is level · (1 − h + h · turnover ratio · √(π/2)|x|)."""
    problem, tree = with_draws(Problem("trading_costs", standard(price_and_volume()), PriceAndVolume(trend=60)), draws=3)
    change = Intervention({"trading_cost": Change(2.0)}, problem.data)
    for p, params, inputs in structures(problem, tree):
        law = problem.observation.counterfactual(params, inputs, change, problem.solve).law
        ratio = float(law.reversion**0.5 / law.volatility / (np.sqrt(p_reversion(p)) / p_volatility(p)))
        x = np.array([0.0, 0.7, 2.0])
        h = p["hedging_share"]
        expected = p["volume_level"] + np.log(1 - h + h * ratio * np.sqrt(np.pi / 2) * x)
        assert_allclose(law.mean_log_volume(x), expected, rtol=1e-7, atol=1e-9)


def p_volatility(p):
    low, high = p["risk_aversion_low"], p["risk_aversion_high"]
    spread = np.sqrt(p["trading_cost"] * (low + high) / 2)
    return p["payoff_volatility"] + (high - low) / (high + low) * p["endowment"] * spread


def p_reversion(p):
    return p_volatility(p) * np.sqrt((p["risk_aversion_low"] + p["risk_aversion_high"]) / 2 / p["trading_cost"])


@pytest.fixture(scope="module")
def sale():
    priors = {"value_spread": Prior("LogNormal", -1.0, 0.2), "auction_spread": 0.3}
    return with_draws(Problem("first_price_auction", auctions([2, 3] * 4), Bids(shifters=("volume",)), priors), draws=4)


@pytest.mark.slow
def test_auctions_earn_what_revenue_says(sale):
    """By number of bidders, at a reserve, and with one bidder more."""
    curve = revenue(*sale, reserves=[0.0, 2.0], bidders=[2, 3, 4]).curve["revenue"]
    found = scenario(*sale, {"bidders": "+1", "reserve": "=2"}, key=KEY).figures
    for number in (2, 3):
        row = f"expected revenue where there are {number} bidders"
        assert_allclose(found.loc[row, "baseline"], curve[number, 0.0], rtol=1e-9)
        assert_allclose(found.loc[row, "counterfactual"], curve[number + 1, 2.0], rtol=1e-9)
    expected = (curve[2, 0.0] + curve[3, 0.0]) / 2
    assert_allclose(found.loc["expected revenue", "baseline"], expected, rtol=1e-9)


@pytest.mark.slow
def test_bids_scale_with_a_shifter_by_its_elasticity(sale):
    problem, tree = sale
    found = scenario(problem, tree, {"volume": "2x"}, key=KEY).figures.loc["expected revenue"]
    effect = tree["posterior"]["shifter_effect"].to_numpy().ravel()
    assert_allclose(found["relative"], np.mean(2.0**effect) - 1.0, rtol=1e-9)


# --- what is asked for, and what is refused


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("2x", Change(2.0, 0.0)),
        ("0.5x", Change(0.5, 0.0)),
        ("+10%", Change(1.1, 0.0)),
        ("-10%", Change(0.9, 0.0)),
        ("+0.5", Change(1.0, 0.5)),
        ("-2e3", Change(1.0, -2000.0)),
        ("0.3", Change(0.0, 0.3)),
        ("=-0.3", Change(0.0, -0.3)),
        (4, Change(0.0, 4.0)),
    ],
)
def test_changes_as_text(text, change):
    assert Change.parsed("supply", text) == change


@pytest.mark.parametrize("text", ["", "x", "10%", "-2x", "-110%", "twice", "1,5x", "=", "nan", float("nan"), True, None, "2x2"])
def test_what_is_no_change_is_refused(text):
    assert_refused(lambda: Change.parsed("supply", text), ["supply is set to", repr(text), "2x"])


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({}, {}, ["changes is empty"]),
        ({"price_level": "2x"}, {}, ["price_level cannot be set", "trading_cost", "demand_slope", "supply"]),
        ({"trading_cost": "2x"}, {"surprise": True}, ["only supply can surprise"]),
        ({"trading_cost": pd.Series([1.0], index=[3])}, {}, ["trading_cost is set to a path", "storm, supply"]),
        ({"supply": pd.Series([1.0], index=[99])}, {}, ["path of supply has 99", "no row of the data"]),
        ({"supply": pd.Series([np.nan], index=[3.0])}, {}, ["path of supply has missing values"]),
        ({"supply": "2x"}, {"draws": 100}, ["draws is 100"]),
    ],
)
def test_refusals(stationary, changes, options, told):
    assert_refused(lambda: scenario(*stationary, changes, key=KEY, **options), told)


def test_changes_without_a_market_are_refused(game):
    assert_refused(lambda: scenario(*game, {"price_noise": "-100"}, key=KEY), ["price_noise would become", "(0, inf)"])
    assert_refused(lambda: scenario(*game, {"trading_cost": "=-1"}, key=KEY), ["trading_cost would become -1", "(0, inf)"])


def test_refusals_of_families(game, sale):
    assert_refused(lambda: scenario(*game, {"supply": "2x"}, key=KEY, surprise=True), ["foresee supply"])
    assert_refused(lambda: scenario(*sale, {"bidders": "0.5x"}, key=KEY), ["bidders would become 1, 1.5", "+1"])
    assert_refused(lambda: scenario(*sale, {"reserve": "2x"}, key=KEY), ["reserve is none in the data"])
    latent = with_draws(Problem("stationary", series(), StochasticPrices(supply="latent")), draws=2)
    assert_refused(lambda: scenario(*latent, {"supply": "-10%"}, key=KEY), ["cannot tell the level", "+0.5"])


def test_draws_without_an_equilibrium_are_counted():
    """A market that is solved in every other draw."""

    class Found:
        def __init__(self, cost):
            self.status = Status.where(cost > 1.0, Status.not_convex, Status.solved)
            self.price = jnp.full(12, cost)

    problem = Problem(
        lambda params, inputs: Found(params["cost"]), series(), ForeseenPrices(), {"cost": 1.0, "price_noise": 1.0}
    )
    problem = Problem(problem.market, series(), ForeseenPrices(), {"cost": Prior("Uniform", 0.0, 2.0), "price_noise": 1.0})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"cost": (("chain", "draw"), [[0.2, 0.9, 0.4, 0.7]])})})
    tree.attrs["digest"] = problem.digest
    found = scenario(problem, tree, {"cost": "2x"}, key=KEY)
    assert (found.unsolved, found.draws) == (2, 4)
    assert_allclose(found.series.loc["price", "difference"], 0.3, rtol=EXACT)
    assert "2 of 4 draws have no equilibrium" in found.text
    assert_refused(lambda: scenario(problem, tree, {"cost": "9x"}, key=KEY), ["no draw has an equilibrium with", "smaller"])


def test_scenarios_are_kept_apart(game, tmp_path):
    """Each in a file after its changes, read as it was written."""
    first = scenario(*game, {"supply": "-10%"}, key=KEY)
    other = scenario(*game, {"supply": "+10%"}, key=KEY, label="more / fish")
    assert first.save(tmp_path).name == "scenario-supply=-10%.json"
    assert other.save(tmp_path).name == "scenario-more-fish.json"
    loaded = Scenario.load(tmp_path, first.file)
    pd.testing.assert_frame_equal(loaded.series, first.series)
    assert loaded.text == first.text and json.loads((tmp_path / "scenario-more-fish.json").read_text())["label"] == "more-fish"
    heading, body, figure = loaded.story()[0]
    assert "supply=-10%" in heading and len(figure.axes) == 2 and len(body[1])


@pytest.mark.slow
@pytest.mark.statistical
def test_shocks_given_the_data_are_standard_normal_over_the_joint_law(stationary):
    """Simulated data, then their shocks: independent standard normals again. Kolmogorov–Smirnov at 1e-4 for each of two."""
    _, law, *_ = worlds(stationary, Change(1.0), True)
    keys = jax.random.split(jax.random.key(2), 200)
    shocks = jax.jit(jax.vmap(lambda key: law.shocks(jax.random.fold_in(key, 1), law.sample(key))))(keys)
    for values in (shocks.start, shocks.moves[:, :, 0]):
        assert scipy.stats.kstest(np.ravel(values), "norm").pvalue > 1e-4
    wrong = np.ravel(shocks.moves[:, :, 0]) * 1.2
    assert scipy.stats.kstest(wrong, "norm").pvalue < 1e-4


def test_rounding_is_no_difference():
    pairs = np.array([[[4130.0], [4130.0 + 9e-9]], [[4130.0], [4131.0]]])
    np.testing.assert_array_equal(_bands(pairs[:1], relative=False)["difference"], 0.0)
    assert _bands(pairs, relative=False)["difference"] == pytest.approx(0.5)
