"""Forecasts in tables, the sources of their variance, baselines beside them, and the commands of forecasts and scenarios."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from calibrate.refusals import assert_refused
from calibrate.simulated import series
from calibrate.test_scenarios import with_draws
from numpy.testing import assert_allclose
from scipy import stats

from walras.calibrate import Forecast, ForeseenPrices, Prior, Problem, StochasticPrices, forecast, forecast_bands
from walras.calibrate.comparisons import baselines
from walras.calibrate.run import build
from walras.calibrate.spec import Spec
from walras.calibrate.tree import save

KEY = jax.random.key(0)
EXACT = 1e-9
LEVELS = [0.05, 0.5, 0.95]
# Standard errors of a share estimated from pairs of 500 continuations are below 1.5/√500.
SHARE = 4 * 1.5 / np.sqrt(500)


def fixed():
    """A stationary market whose parameters are known but for one, which does not matter: continuations differ by shocks."""
    priors = {"price_level": 1.3, "price_impact": 0.3, "absorption": 0.4, "holding_cost": 0.1, "depreciation": 0.4}
    priors |= {"supply_reversion": 0.5, "supply_mean": 2.0, "supply_sd": 1.5, "price_noise": 0.3}
    return Problem("stationary", series(rows=20), StochasticPrices(demand=("storm",)), priors)


@pytest.fixture(scope="module")
def forecasted():
    problem, tree = with_draws(fixed(), draws=500)
    return problem, tree, forecast_bands(problem, tree, key=KEY, periods=3)


@pytest.mark.statistical
def test_what_supply_explains_is_its_squared_correlation(forecasted):
    """Price and supply are jointly normal given the past: 500 pairs, four standard errors."""
    problem, tree, found = forecasted
    drawn = forecast(problem, tree, key=jax.random.key(9), periods=3)
    effect = tree["posterior"]["demand_effect"].to_numpy().ravel()
    assert np.std(effect) > 0  # but the future's covariate is at its mean
    for row in range(3):
        price, supply = (drawn[name].to_numpy()[0, :, row] for name in ("price", "supply"))
        share = np.corrcoef(price, supply)[0, 1] ** 2
        shares = found.variance.iloc[row]
        assert abs(shares["supply"] - share) < 2 * SHARE and shares["supply"] > SHARE
    assert_allclose(found.variance.sum(axis=1), 1.0, rtol=EXACT)


@pytest.mark.statistical
def test_parameters_are_most_of_the_variance_where_they_are_not_known():
    """Negative control of the shares: a level known to within 10 times the shocks. Four standard errors."""
    problem = fixed()
    wide = Problem(
        "stationary", problem.data, problem.observation, {**problem.priors, "price_level": Prior("Normal", 1.3, 30.0)}
    )
    found = forecast_bands(*with_draws(wide, draws=500), key=KEY)
    # the filter takes prices to tell of the error and the state, not of the level
    assert found.variance["parameters"].iloc[0] > 0.9


def test_bands_are_quantiles_in_order(forecasted):
    _, _, found = forecasted
    assert list(found.bands.index.unique("series")) == ["price", "supply"]
    assert list(found.bands.loc["price"].index) == [20.0, 21.0, 22.0]
    assert np.all(np.diff(found.bands.drop(columns="mean").to_numpy(), axis=1) > 0)
    assert "Not given, and taken to be at their means: storm." in found.text
    assert "of the last price" in found.text


def test_periods_skip_days_that_the_data_do_not_have():
    """Working days are followed by working days, weeks by weeks; nothing else is given twice."""
    days = pd.bdate_range("2024-03-04", periods=15)
    problem, tree = with_draws(Problem("stationary", series(rows=15, times=days), StochasticPrices()), draws=2)
    ahead = forecast(problem, tree, key=KEY, periods=6)["time"].to_index()
    assert list(ahead) == list(pd.bdate_range("2024-03-25", periods=6))
    for periods in (0, -1, 1.5, True):
        assert_refused(lambda p=periods: forecast(problem, tree, key=KEY, periods=p), ["periods is", "at least 1"])
    rows = pd.DataFrame(index=ahead)
    assert_refused(lambda: forecast(problem, tree, rows, key=KEY, periods=6), ["periods is 6", "give one of them"])


def test_forecasts_of_finite_games_are_refused():
    problem, tree = with_draws(Problem("price_formation", series(), ForeseenPrices()), draws=2)
    assert_refused(lambda: forecast_bands(problem, tree, key=KEY), ["one finite game", "stationary market"])


@pytest.mark.statistical
def test_baselines_ahead_are_least_squares():
    """Quantiles of 2,000 paths within 4.5 standard errors of statsmodels': one key in 10,000 fails. The walk grows as √h."""
    frame = series(rows=40)[["price", "supply", "storm"]]
    ahead = pd.DataFrame({"storm": [0.3, -1.0, 2.0]}, index=[40.0, 41, 42])
    found = baselines.forecasts(frame, "price", ahead, LEVELS, np.random.default_rng(0))
    y, q, z = (frame[name].to_numpy() for name in ("price", "supply", "storm"))
    spread = np.sqrt(np.mean(np.diff(y) ** 2))
    for h in (1, 2, 3):
        assert_quantiles(found["last price"][h - 1], stats.t(39, y[-1], spread * np.sqrt(h)))
    fitted = sm.OLS(y[1:], np.column_stack([np.ones(39), y[:-1], q[:-1], z[1:]])).fit()
    predicted = fitted.get_prediction(np.array([[1.0, y[-1], q[-1], 0.3]]))
    assert_quantiles(found["lagged regression"][0], stats.t(fitted.df_resid, predicted.predicted_mean[0], predicted.se_obs[0]))


def assert_quantiles(found, law):
    exact, p = law.ppf(LEVELS), np.array(LEVELS)
    errors = np.sqrt(p * (1 - p) / 2000) / law.pdf(exact)
    assert np.all(np.abs(found - exact) < 4.5 * errors)


def test_a_forecast_is_read_as_it_was_written(forecasted, tmp_path):
    found = forecasted[2]
    found.save(tmp_path)
    loaded = Forecast.load(tmp_path)
    assert loaded.text == found.text
    pd.testing.assert_frame_equal(loaded.bands, found.bands)
    assert len(loaded.story()[0][2].axes) == 2


# --- commands


SPEC = {
    "data": {"path": "prices.csv", "columns": {"time": "day", "price": "p", "supply": "q"}},
    "market": {"name": "stationary", "fixed": {}},
    "observation": {"demand": ["storm"]},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory whose posterior is the prior's."""
    folder = tmp_path_factory.mktemp("commands")
    frame = series(rows=15).reset_index().rename(columns={"time": "day", "price": "p", "supply": "q"})
    frame[["day", "p", "q", "storm"]].to_csv(folder / "prices.csv", index=False)
    spec = Spec.model_validate(SPEC | {"data": SPEC["data"] | {"path": str(folder / "prices.csv")}})
    problem, tree = with_draws(build(spec)[0], draws=4)
    tree.attrs["problem"] = json.dumps(problem.to_json())
    record = {"spec": json.loads(spec.model_dump_json()), "digest": problem.digest}
    (folder / "spec.json").write_text(json.dumps(record))
    save(tree, folder / "posterior.nc")
    return folder


def test_commands(run, walras, tmp_path):
    pd.DataFrame({"day": [15, 17.5], "storm": [0.1, 1.0]}).to_csv(tmp_path / "future.csv", index=False)
    code, said = walras("forecast", run, "--future", tmp_path / "future.csv")
    assert code == 0 and "forecast of price" in said
    assert list(Forecast.load(run).bands.loc["price"].index) == [15.0, 17.5]
    pd.DataFrame({"day": [3], "q": [9.0]}).to_csv(tmp_path / "path.csv", index=False)
    code, said = walras("scenario", run, "--supply", tmp_path / "path.csv", "--set", "trading_cost=2x", "--label", "both")
    assert code == 0 and "trading_cost set to 2x and supply set to a path of its own" in said
    record = json.loads((run / "scenario-both.json").read_text())
    assert record["changes"] == {"trading_cost": "2x", "supply": "a path of its own"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["scenario", "--set", "supply"], "has no NAME=VALUE"),
        (["scenario", "--set", "supply=2x", "--set", "supply=3x"], "names supply twice"),
        (["scenario", "--set", "price_level=2x"], "price_level cannot be set"),
        (["scenario"], "changes is empty"),
        (["scenario", "--supply", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["forecast", "--periods", "0"], "periods is 0"),
        (["forecast", "--future", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_commands_refuse_in_one_sentence(run, walras, arguments, told):
    command, *options = arguments
    code, said = walras(command, run, *options)
    assert code == 2 and said.startswith("error: ") and told in said
