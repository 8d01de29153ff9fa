"""The S&P 500 data: what the package holds, and the figures of the description recomputed to their digits."""

import re
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from pandas.tseries import holiday

from walras.data import DataError, describe, elapsed, load, standard
from walras.data.packages import packaged

DIGITS = 5e-3  # the figures are stated to two decimals
FINE_DIGITS = 5e-5  # the mean and the standard deviation of the return, to four
LARGEST_DIGITS = 5e-4  # the largest return, to three
MILLION_DIGITS = 5e-3  # the volumes of wrong days that are stated to a hundredth of a million shares
WHOLE_MILLIONS = 0.5  # the others, to a million
FACT_BOOK = 0.01  # the exchange's own figures of 2000 include corrections that the daily ones do not have
CONSOLIDATED = 0.06  # the two ways of counting trade elsewhere differ by 4 and 5 %
YEAR = 252  # rows

# beyond the holidays: the attacks of 2001, the funerals of Reagan, Ford and Bush, the storm of 2012
CLOSED = ["2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14", "2004-06-11", "2007-01-02", "2012-10-29", "2012-10-30"]
CLOSED += ["2018-12-05"]


class Holidays(holiday.AbstractHolidayCalendar):
    """Of the New York Stock Exchange, 1998 to 2021."""

    rules: ClassVar[list] = [
        holiday.Holiday("New Year", month=1, day=1, observance=holiday.sunday_to_monday),
        holiday.USMartinLutherKingJr,
        holiday.USPresidentsDay,
        holiday.GoodFriday,
        holiday.USMemorialDay,
        holiday.Holiday("Independence", month=7, day=4, observance=holiday.nearest_workday),
        holiday.USLaborDay,
        holiday.USThanksgivingDay,
        holiday.Holiday("Christmas", month=12, day=25, observance=holiday.nearest_workday),
    ]


@pytest.fixture(scope="module")
def sp500() -> pd.DataFrame:
    return load("sp500")


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    table = pd.read_csv(packaged("arch/data/sp500/sp500.csv.gz", name="sp500"))
    return table.set_index(pd.to_datetime(table.pop("Date"), format="%m/%d/%Y"))


@pytest.fixture(scope="module")
def size(sp500) -> pd.Series:
    return np.log(sp500["price"]).diff().abs()


@pytest.fixture(scope="module")
def millions(sp500) -> pd.Series:
    return sp500["volume"] / 1e6


def past(log_volume: pd.Series, rows: int) -> pd.Series:
    return log_volume - log_volume.rolling(rows).mean().shift(1)


def polynomial(log_volume: pd.Series, degree: int) -> pd.Series:
    rows = np.arange(len(log_volume))
    return log_volume - np.polynomial.Polynomial.fit(rows, log_volume, degree)(rows)


def test_rows_are_those_of_the_package(sp500, raw):
    np.testing.assert_array_equal(sp500, raw[["Close", "Volume"]])
    np.testing.assert_array_equal(raw["Close"], raw["Adj Close"])
    assert (sp500.index == raw.index).all()


def test_columns_units_and_provenance(sp500):
    assert sp500.attrs["units"] == {"price": "index point", "volume": "share/day"}
    assert (sp500.attrs["time_unit"], sp500.attrs["period"], sp500.attrs["rows"]) == ("day", 1.0, 5031)
    assert sp500.attrs["missing"] == {"price": 0, "volume": 0}
    assert sp500["volume"].min() > 0
    assert "not of the 500" in sp500.attrs["notes"]


def test_every_day_of_the_exchange_is_there_once(sp500):
    weekdays = pd.bdate_range("1999-01-04", "2018-12-31")
    expected = weekdays.difference(Holidays().holidays(weekdays[0], weekdays[-1])).difference(pd.DatetimeIndex(CLOSED))
    assert sp500.index.tolist() == expected.tolist()
    assert len(expected) == 5031


def test_days_are_counted_by_the_calendar_or_by_rows(sp500):
    assert elapsed(sp500)[-1] == (pd.Timestamp("2018-12-31") - pd.Timestamp("1999-01-04")).days
    by_rows = standard(sp500.set_axis(range(len(sp500))).rename_axis("time"), time_unit="day")
    np.testing.assert_array_equal(elapsed(by_rows), np.arange(5031))
    assert by_rows.attrs["source"] == sp500.attrs["source"]


def test_weekends_add_little_variance(sp500):
    returns, gap = np.log(sp500["price"]).diff(), pd.Series(elapsed(sp500), sp500.index).diff()
    assert returns[gap == 3].var() / returns[gap == 1].var() == pytest.approx(1.25, abs=DIGITS)


def test_open_is_the_close_before(raw):
    before_2006 = (raw["Open"] == raw["Close"].shift(1))[:"2005-12-31"]
    assert before_2006.mean() == pytest.approx(0.96, abs=DIGITS)


def test_returns(sp500):
    returns = np.log(sp500["price"]).diff().dropna()
    assert len(returns) == 5030
    assert returns.std() == pytest.approx(0.0120, abs=FINE_DIGITS)
    assert returns.mean() == pytest.approx(0.0001, abs=FINE_DIGITS)
    assert returns.kurt() == pytest.approx(8.2, abs=10 * DIGITS)
    assert returns.autocorr(1) == pytest.approx(-0.07, abs=DIGITS)
    assert returns.abs().max() == pytest.approx(0.110, abs=LARGEST_DIGITS)
    assert returns.abs().idxmax() == pd.Timestamp("2008-10-13")


@pytest.mark.parametrize(
    ("apart", "of_size", "of_volume"),
    [(1, 0.24, 0.64), (5, 0.33, 0.40), (21, 0.24, 0.22), (63, 0.14, 0.23), (252, 0.05, 0.26)],
)
def test_clusters(sp500, size, apart, of_size, of_volume):
    volume = past(np.log(sp500["volume"]), YEAR)
    assert size.autocorr(apart) == pytest.approx(of_size, abs=DIGITS)
    assert volume.autocorr(apart) == pytest.approx(of_volume, abs=DIGITS)


@pytest.mark.parametrize(
    ("trend", "argument", "persistence", "with_size"),
    [
        (polynomial, 0, 0.95, 0.10),
        (past, 21, 0.52, 0.17),
        (past, 63, 0.56, 0.22),
        (past, YEAR, 0.64, 0.31),
        (past, 504, 0.74, 0.33),
        (polynomial, 1, 0.88, 0.32),
        (polynomial, 2, 0.78, 0.39),
    ],
)
def test_persistence_of_volume_depends_on_the_trend(sp500, size, trend, argument, persistence, with_size):
    volume = trend(np.log(sp500["volume"]), argument)
    assert volume.autocorr(1) == pytest.approx(persistence, abs=DIGITS)
    assert volume.corr(size) == pytest.approx(with_size, abs=DIGITS)


def test_short_sessions_and_wrong_volumes_lower_the_persistence(sp500, size):
    volume = past(np.log(sp500["volume"]), YEAR)
    assert (volume.count(), volume.std()) == (4779, pytest.approx(0.22, abs=DIGITS))
    low = sp500["volume"] < 0.6 * sp500["volume"].rolling(21, center=True, min_periods=5).median()
    assert low.sum() == 81
    assert volume[~low].reindex(volume.index).autocorr(1) == pytest.approx(0.69, abs=DIGITS)
    assert volume[~low].corr(size) == pytest.approx(0.35, abs=DIGITS)


@pytest.mark.parametrize(
    ("when", "published", "tolerance"),
    [
        ("2000", 262_477.7 / 252, FACT_BOOK),  # NYSE Fact Book 2000, page 9: the year
        ("2000-03", 26_182.8 / 23, FACT_BOOK),  # the same: the busiest month
        ("2000-12-15", 1_560.8, FACT_BOOK),  # the same: the busiest day
        ("2006-03", 53_648 / 23, CONSOLIDATED),  # NYSE Group, 7 April 2006: NYSE-listed consolidated volume
        ("2009-02", 6_300, CONSOLIDATED),  # NYSE Euronext, 9 March 2009: the same ("Tape A"), daily average
    ],
)
def test_volume_is_that_of_the_exchange(millions, when, published, tolerance):
    """Millions of shares a day."""
    assert np.mean(millions.loc[when]) == pytest.approx(published, rel=tolerance)


def test_the_wider_count_begins_in_march_2005(millions):
    rise = millions["2005-04-01":"2005-06-30"].mean() / millions["2005-01-01":"2005-03-17"].mean()
    assert rise == pytest.approx(1.23, abs=DIGITS)  # "a quarter"


def test_wrong_volumes(millions):
    beside = millions["2000-11-28":"2000-11-30"].tolist()
    assert beside == pytest.approx([1028, 402, 1187], abs=WHOLE_MILLIONS)
    spell = millions["2011-02-18":"2011-03-02"]
    low = pd.concat([millions[["2008-08-05", "2010-12-22"]], spell[spell.index != "2011-02-25"]])
    assert len(low) == 2 + 7
    assert [low.min(), low.max()] == pytest.approx([1025, 1330], abs=WHOLE_MILLIONS)
    usual = millions.rolling(21, center=True).median()
    assert (low / usual).dropna().between(0.25, 0.37).all()
    assert millions["2011-08-08":"2011-08-09"].tolist() == pytest.approx([2615, 2367], abs=WHOLE_MILLIONS)


@pytest.mark.parametrize(
    ("volume", "days", "first", "last"),
    [
        (4223.74, 12, "2011-03-04", "2011-05-10"),
        (3846.25, 8, "2011-05-02", "2011-06-16"),
        (4521.05, 6, "2010-02-23", "2010-09-14"),
    ],
)
def test_repeated_volumes(millions, volume, days, first, last):
    found = millions.index[(millions - volume).abs() < MILLION_DIGITS]
    assert (len(found), *(str(day.date()) for day in found[[0, -1]])) == (days, first, last)


def test_volume_is_low_after_thanksgiving(sp500):
    volume = sp500["volume"]
    thanksgivings = holiday.USThanksgivingDay.dates(pd.Timestamp("1999-01-01"), pd.Timestamp("2018-12-31"))
    after = volume.index.get_indexer(thanksgivings + pd.Timedelta(days=1))
    assert len(after) == 20
    assert (volume.to_numpy()[after] < volume.to_numpy()[[after - 1, after + 1]]).all()


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arch", None)
    message = "data set 'sp500' needs the package arch, which is not installed: pip install 'walras[datasets]'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load("sp500")
    assert "Source." in describe("sp500")


def test_loading_imports_neither_the_package_nor_statsmodels():
    code = (
        "import sys, walras.data; walras.data.load('sp500'); "
        "heavy = {'arch', 'statsmodels', 'jax', 'numpyro'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
