"""The avocado data: what the package holds, and every figure of the description recomputed to its digits."""

import re
import subprocess
import sys

import causaldata
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from walras.data import DataError, describe, elapsed, load

DIGITS = 5e-3  # the figures are stated to two decimals
SUPER_BOWLS = ["2015-02-01", "2016-02-07", "2017-02-05", "2018-02-04"]


@pytest.fixture(scope="module")
def avocado() -> pd.DataFrame:
    return load("avocado")


@pytest.fixture(scope="module")
def logs(avocado) -> pd.DataFrame:
    return np.log(avocado)


def test_rows_are_those_of_the_package(avocado):
    raw = causaldata.avocado.load_pandas().data.set_index("Date")
    np.testing.assert_array_equal(avocado[["price", "supply"]], raw.loc[avocado.index, ["AveragePrice", "TotalVolume"]])
    assert len(raw) == len(avocado)
    assert not raw.index.is_monotonic_increasing


def test_every_week_is_there_once(avocado):
    np.testing.assert_array_equal(elapsed(avocado), np.arange(169))
    assert (avocado.index.day_name() == "Sunday").all()
    assert [str(day.date()) for day in avocado.index[[0, -1]]] == ["2015-01-04", "2018-03-25"]
    assert (avocado.attrs["time_unit"], avocado.attrs["missing"]) == ("week", {"price": 0, "supply": 0})


def test_weeks_end_on_their_sunday(avocado):
    """The four largest quantities are dated on the Sundays of the Super Bowl, for which people shop before."""
    largest = avocado["supply"].nlargest(4).index.sort_values()
    assert largest.tolist() == [pd.Timestamp(day) for day in SUPER_BOWLS]


@pytest.mark.parametrize(("changes", "elasticity", "error"), [(False, -0.68, 0.05), (True, -1.32, 0.07)])
def test_least_squares_elasticity(logs, changes, elasticity, error):
    table = logs.diff().dropna() if changes else logs
    fit = sm.OLS(table["supply"], sm.add_constant(table["price"])).fit()
    assert fit.params["price"] == pytest.approx(elasticity, abs=DIGITS)
    assert fit.bse["price"] == pytest.approx(error, abs=DIGITS)


def test_changes_move_together(logs):
    changes = logs.diff().dropna()
    assert len(changes) == 168
    assert changes.corr().loc["price", "supply"] == pytest.approx(-0.84, abs=DIGITS)


@pytest.mark.parametrize(("column", "week", "year"), [("price", 0.89, 0.36), ("supply", 0.53, 0.55)])
def test_correlation_of_consecutive_weeks_and_years(avocado, column, week, year):
    assert avocado[column].autocorr(1) == pytest.approx(week, abs=DIGITS)
    assert avocado[column].autocorr(52) == pytest.approx(year, abs=DIGITS)


@pytest.mark.parametrize(("column", "scale", "mean", "spread"), [("price", 1.0, 1.11, 0.23), ("supply", 1e6, 5.94, 1.16)])
def test_scale(avocado, column, scale, mean, spread):
    assert avocado[column].mean() / scale == pytest.approx(mean, abs=DIGITS)
    assert avocado[column].std() / scale == pytest.approx(spread, abs=DIGITS)


@pytest.mark.parametrize(("column", "explained", "trend"), [("price", 0.54, 0.09), ("supply", 0.42, 0.01)])
def test_seasons_and_trend(logs, column, explained, trend):
    years = elapsed(logs) / (365.25 / 7)
    waves = [wave(2 * np.pi * k * years) for k in (1, 2) for wave in (np.sin, np.cos)]
    fit = sm.OLS(logs[column].to_numpy(), np.column_stack([np.ones(169), years, *waves])).fit()
    assert fit.rsquared == pytest.approx(explained, abs=DIGITS)
    assert fit.params[1] == pytest.approx(trend, abs=DIGITS)


def test_the_description_says_what_supply_is():
    assert "it is not exogenous" in describe("avocado")
    assert "sold at the till" in load("avocado").attrs["notes"]


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "causaldata", None)
    message = "data set 'avocado' needs the package causaldata, which is not installed: pip install 'walras[datasets]'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load("avocado")
    assert "Source." in describe("avocado")


def test_a_package_without_the_file(monkeypatch, tmp_path):
    (tmp_path / "causaldata").mkdir()
    (tmp_path / "causaldata" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "causaldata", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(DataError, match=re.escape("but the one installed has no file avocado/avocado.dta: pip install")):
        load("avocado")


def test_loading_imports_neither_the_package_nor_statsmodels():
    code = (
        "import sys, walras.data; walras.data.load('avocado'); "
        "heavy = {'causaldata', 'statsmodels', 'jax', 'numpyro'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
