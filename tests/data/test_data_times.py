"""Times: parsing, units and `elapsed`."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.data import DataError, elapsed, standard


def series(times, **options) -> pd.DataFrame:
    return standard(pd.DataFrame({"time": times, "price": np.arange(len(times))}), **options)


@pytest.mark.parametrize(
    ("times", "unit", "period", "since"),
    [
        (["2024-01-05", "2024-01-08", "2024-01-09"], "day", 1.0, [0, 3, 4]),
        (["2024-01-01", "2024-02-01", "2024-03-01"], "day", 29.0, [0, 31, 60]),
        (["2024-01-01 00:00", "2024-01-01 06:00", "2024-01-02 12:00"], "hour", 6.0, [0, 6, 36]),
        (["2024-01-01T00:00Z", "2024-01-01T00:30Z"], "hour", 0.5, [0, 0.5]),
        ([3, 4, 9], "step", 1.0, [0, 1, 6]),
        ([0.5, 0.75, 2.0], "step", 0.25, [0, 0.25, 1.5]),
        (pd.period_range("2024-01", periods=2, freq="M"), "day", 31.0, [0, 31]),
        (pd.Categorical(["2024-01-01", "2024-01-03"]), "day", 2.0, [0, 2]),
    ],
)
def test_unit_period_and_elapsed(times, unit, period, since):
    frame = series(times)
    assert frame.attrs["time_unit"] == unit
    assert frame.attrs["period"] == period
    np.testing.assert_array_equal(elapsed(frame), since)
    assert elapsed(frame).dtype == np.float64
    frame.attrs.clear()
    np.testing.assert_array_equal(elapsed(frame), since)


def test_unit_of_the_users_choice():
    frame = series(["2024-01-01", "2024-01-15"], time_unit="week")
    assert frame.attrs["period"] == 2.0
    np.testing.assert_array_equal(elapsed(frame), [0.0, 2.0])
    assert series([1990, 1991], time_unit="year").attrs["time_unit"] == "year"


def test_local_days_stay_days_over_summer_time():
    times = pd.date_range("2024-03-30", periods=3, tz="Europe/Paris")
    np.testing.assert_array_equal(elapsed(series(times)), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(elapsed(series([time.isoformat() for time in times])), [0.0, 1.0, 2.0])


def test_local_hours_become_utc_over_summer_time():
    times = pd.date_range("2024-03-31 01:00", periods=3, freq="h", tz="Europe/Paris")
    np.testing.assert_array_equal(elapsed(series(times)), [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(elapsed(series([time.isoformat() for time in times])), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([False, True], "time is False in row 1: give dates or numbers"),
        ([0.0, np.inf], "time is inf in row 2: give finite times"),
        ([pd.Timestamp("2024-01-01"), None], "time is missing in row 2"),
        (["2024-01-31", "2024-02-30"], "time is '2024-02-30' in row 2, which is not an ISO date"),
        ([20231231, 20240101], "a date written as a number"),
    ],
)
def test_refusals(times, message):
    with pytest.raises(DataError, match=re.escape(message)):
        series(times)


def test_numbers_that_only_look_like_dates_are_numbers():
    np.testing.assert_array_equal(elapsed(series([20240000, 20240099])), [0.0, 99.0])


def test_elapsed_of_one_market_and_of_none():
    panel = standard(
        pd.DataFrame({"market": [1, 1, 2, 2], "time": ["2024-01-01", "2024-01-04"] * 2, "price": [1, 2, 3, 4]}),
        form="panel",
    )
    np.testing.assert_array_equal(elapsed(panel.loc[2]), [0.0, 3.0])
    with pytest.raises(DataError, match=re.escape("indexed by 'market', 'time': give rows indexed by 'time'")):
        elapsed(panel)
    with pytest.raises(DataError, match="the frame has 0 rows"):
        elapsed(panel.loc[2].iloc[:0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=10))
def test_elapsed_recovers_any_gaps(gaps):
    days = np.concatenate([[0], np.cumsum(gaps)])
    frame = series(pd.Timestamp("1999-12-31") + pd.to_timedelta(days, unit="D"))
    np.testing.assert_array_equal(elapsed(frame), days)
    assert frame.attrs["period"] == min(gaps)
