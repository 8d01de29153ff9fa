"""`standard`: the three forms, from frames in memory."""

import datetime
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from walras.data import DataError, load, standard

PANEL = pd.DataFrame({"market": ["B", "A", "B", "A"], "time": [1, 1, 2, 3], "price": [2.0, 3.0, 4.0, 5.0]})
BIDS = pd.DataFrame(
    {"auction": [1, 2, 1, 2], "bidder": ["x", "x", "y", "y"], "bid": [2.0, 0.0, 3.0, np.nan], "reserve": [1, 1, 1, 1]}
)


def test_panel_puts_markets_together():
    frame = standard(PANEL, form="panel", time_unit="week")
    assert frame.index.names == ["market", "time"]
    assert frame.index.tolist() == [("A", 1), ("A", 3), ("B", 1), ("B", 2)]
    assert frame["price"].tolist() == [3.0, 5.0, 2.0, 4.0]
    assert (frame.attrs["time_unit"], frame.attrs["period"]) == ("week", 1.0)


def test_bids_may_be_zero_or_missing():
    frame = standard(BIDS, form="bids", units={"bid": "USD"})
    assert frame.index.names == ["auction", "bidder"]
    assert frame.index.tolist() == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    np.testing.assert_array_equal(frame["bid"], [2.0, 3.0, 0.0, np.nan])
    assert frame.attrs["missing"] == {"bid": 1, "reserve": 0}
    assert frame.attrs["time_unit"] is None
    assert frame.attrs["period"] is None


@pytest.mark.parametrize(
    ("frame", "form", "message"),
    [
        (PANEL.assign(time=[1, 1, 1, 3]), "panel", "time is 1 in both row 1 and row 3 of market 'B'"),
        (PANEL.assign(time=[2, 1, 1, 3]), "panel", "time falls from 2 in row 1 to 1 in row 3 of market 'B'"),
        (PANEL.assign(market=["B", "A", "B", None]), "panel", "market is missing in row 4: name it"),
        (PANEL.iloc[:3], "panel", "market 'A' has 1 row"),
        (PANEL.assign(price=[2.0, 3.0, 4.0, 3.0]), "panel", "price of market 'A' is 3.0 wherever it is given"),
        (PANEL.drop(columns="market"), "panel", "column 'market' is not in the data"),
        (BIDS.assign(auction=1), "bids", "bidder 'x' of auction 1 appears again in row 2"),
        (BIDS.assign(bid=[1.0, 2.0, -0.5, 1.0]), "bids", "bid is -0.5 in row 3: it cannot be negative"),
        (BIDS.assign(bid=[1.0, 2.0, np.inf, 1.0]), "bids", "bid is inf in row 3: it must be finite"),
        (BIDS.assign(bid=2.0), "bids", "bid is 2.0 wherever it is given"),
        (BIDS.drop(columns="bidder"), "bids", "column 'bidder' is not in the data"),
    ],
)
def test_refusals_of_panels_and_bids(frame, form, message):
    with pytest.raises(DataError, match=re.escape(message)):
        standard(frame, form=form)


@pytest.mark.parametrize(
    "prices",
    [
        pd.array([1, None, 3], dtype="Int64"),
        [Decimal(1), None, Decimal(3)],
        ["1", None, "3"],
        pd.Categorical(["1", None, "3"]),
    ],
)
def test_numbers_of_any_type_become_float64(prices):
    frame = standard(pd.DataFrame({"time": [0, 1, 2], "price": prices}))
    assert frame["price"].dtype == np.float64
    np.testing.assert_array_equal(frame["price"], [1.0, np.nan, 3.0])


@pytest.mark.parametrize("prices", [pd.date_range("2024-01-01", periods=2), [1j, 2j], [[1], [2]]])
def test_prices_that_are_not_real_numbers(prices):
    with pytest.raises(DataError, match=r"price is .* in row 1, which is not a number"):
        standard(pd.DataFrame({"time": [0, 1], "price": prices}))


def test_index_of_dates_without_a_name():
    frame = standard(pd.DataFrame({"price": [1.0, 2.0]}, index=pd.date_range("2024-01-01", periods=2)))
    assert frame.index.name == "time"


def test_repeated_column():
    with pytest.raises(DataError, match="column 'price' appears twice"):
        standard(pd.DataFrame([[0, 1, 2], [1, 2, 3]], columns=["time", "price", "price"]))


def test_the_users_frame_is_left_alone():
    frame = pd.DataFrame({"day": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)], "price": [1, 2]})
    before = frame.copy()
    standard(frame, {"time": "day"})
    assert_frame_equal(frame, before)
    assert frame.attrs == {}


def test_columns_left_out_stay_known():
    frame = standard(pd.DataFrame({"time": [0, 1], "price": [1, 2], "who": ["ann", "bob"]}))
    assert standard(frame).attrs["left_out"] == ["who"]
    assert standard(frame.assign(who=[3, 4])).attrs["left_out"] == []


def test_standard_frames_are_fixed_points():
    for frame in (load("fulton_fish"), standard(PANEL, form="panel"), standard(BIDS, form="bids")):
        again = standard(frame, form=frame.attrs["form"])
        assert_frame_equal(again, frame)
        assert again.attrs == frame.attrs


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)))
def test_only_the_right_order_of_rows_is_taken(order):
    frame = pd.DataFrame({"time": range(6), "price": np.linspace(1.0, 2.0, 6)}).iloc[list(order)]
    if order == sorted(order):
        assert standard(frame)["price"].is_monotonic_increasing
    else:
        with pytest.raises(DataError, match="sort the rows by time"):
            standard(frame)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)))
def test_order_of_bids_between_auctions_is_immaterial(order):
    shuffled = standard(BIDS.iloc[list(order)], form="bids").sort_index()
    assert_frame_equal(shuffled, standard(BIDS, form="bids").sort_index())
