"""`read`: files of a user's own, good and bad."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from walras import WalrasError
from walras.data import DataError, elapsed, load, read


def test_standard_names_need_no_columns(csv):
    frame = read(csv("time,price", "1,2.5", "2,3.5"))
    assert frame.index.name == "time"
    assert frame["price"].tolist() == [2.5, 3.5]


def test_own_names_missing_values_gaps_and_text(csv):
    path = csv("day,p,q,rain,who", "2024-01-01,1.5,10,0,ann", "2024-01-02,,11,1,bob", "2024-01-05,1.75,NA,0,eve")
    columns = {"time": "day", "price": "p", "supply": "q"}
    frame = read(path, columns, units={"price": "USD/lb", "supply": "lb/day"}, licence="CC0")
    expected = pd.DataFrame(
        {"price": [1.5, np.nan, 1.75], "supply": [10.0, 11.0, np.nan], "rain": [0.0, 1.0, 0.0]},
        index=pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-05"], name="time"),
    )
    assert_frame_equal(frame, expected, check_index_type=False)
    assert frame.attrs == {
        "name": "market",
        "form": "series",
        "units": {"price": "USD/lb", "supply": "lb/day", "rain": ""},
        "source": "market.csv",
        "licence": "CC0",
        "notes": "",
        "time_unit": "day",
        "period": 1.0,
        "missing": {"price": 1, "supply": 1, "rain": 0},
        "rows": 3,
        "left_out": ["who"],
    }
    assert json.loads(json.dumps(frame.attrs)) == frame.attrs
    np.testing.assert_array_equal(elapsed(frame), [0.0, 1.0, 4.0])


def test_semicolons_and_decimal_commas(csv):
    frame = read(csv("time;price", "1;2,5", "2;3,5"), separator=";", decimal=",")
    assert frame["price"].tolist() == [2.5, 3.5]


def test_header_with_mark_and_spaces(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbftime , price\r\n1, 2\r\n2, 3\r\n")
    assert read(path)["price"].tolist() == [2.0, 3.0]


def test_column_without_header_is_left_out(csv):
    frame = read(csv(",time,price", "0,1,2", "1,2,3"))
    assert list(frame) == ["price"]
    assert frame.attrs["left_out"] == ["Unnamed: 0"]


def test_parquet_keeps_provenance(tmp_path):
    frame = load("fulton_fish")
    path = tmp_path / "copy.parquet"
    frame.to_parquet(path)
    again = read(path)
    assert_frame_equal(again, frame)
    assert again.attrs == frame.attrs


def test_parquet_of_dates(tmp_path):
    path = tmp_path / "dates.parquet"
    days = pd.date_range("2024-01-01", periods=3).date
    pd.DataFrame({"day": days, "price": pd.array([1, None, 3], dtype="Int64")}).to_parquet(path)
    frame = read(path, {"time": "day"})
    np.testing.assert_array_equal(frame["price"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(elapsed(frame), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([""], {}, "market.csv is empty: give it a header"),
        (["time,price"], {}, "the data have 0 rows: give at least 2"),
        (["time,price", "1,2"], {}, "the data have 1 row: give at least 2"),
        (["time,cost", "1,2", "2,3"], {}, "column 'price' is not in the data, whose columns are time, cost: say which"),
        (["time,p"], {"columns": {"price": "q"}}, "column 'q' (for 'price') is not in the data, whose columns are"),
        (["time;price", "1;2"], {}, "has the header 'time;price', without ',': pass separator=';'"),
        (["time,price", "0,2,9", "1,3,9"], {}, "not a regular table (Length of header"),
        (["time,price", "1,2", "2,3,9"], {}, "line 3, saw 3): give no row more fields than the header"),
        (["time,price", "1,2", "2,inf"], {}, "price is inf in row 2: it must be finite"),
        (["time,price", "1,2", "2,cheap"], {}, "price is 'cheap' in row 2, which is not a number: write a plain"),
        (["time,price,supply", "1,2,few", "2,3,4"], {}, "supply is 'few' in row 1, which is not a number"),
        (["time,price,rain", "1,2,0", "2,3,-inf"], {}, "rain is -inf in row 2"),
        (["time,price,volume", "1,2,0", "2,3,-5"], {}, "volume is -5.0 in row 2: it cannot be negative"),
        (["time,price", "1,", "2,"], {}, "price is missing in every row: check which column"),
        (["time,price", "1,2", "2,", "3,2"], {}, "price is 2.0 wherever it is given, and a constant carries no"),
        (["time,price", "1,2", "1,3"], {}, "time is 1 in both row 1 and row 2: keep one row"),
        (["time,price", "1,2", "3,3", "2,4"], {}, "time falls from 3 in row 2 to 2 in row 3: sort the rows"),
        (["time,price", "2024-01-02,2", "2024-01-01,3"], {}, "time falls from 2024-01-02 in row 1 to 2024-01-01 in"),
        (["time,price", "1,2", ",3"], {}, "time is missing in row 2: give every row a time"),
        (["time,price", "01/02/2024,2", "01/03/2024,3"], {}, "time is '01/02/2024' in row 1, which is not an ISO"),
        (["time,price", "20240101,2", "20240102,3"], {}, "a date written as a number, whose differences are not days"),
        (["time,price,p", "1,2,3", "2,3,4"], {"columns": {"price": "p"}}, "the data have another column 'price'"),
        (["time,p", "1,2"], {"columns": {"price": "p", "supply": "p"}}, "columns gives 'p' 2 names: give it one"),
        (["time,price", "1,2", "2,3"], {"units": {"prise": "USD"}}, "units names 'prise', but the value columns are"),
        (
            ["time,price", "1,2", "2,3"],
            {"form": "serie"},
            "form is 'serie': choose one of series, panel, bids, perhaps",
        ),
        (["time,price", "2024-01-01,2", "2024-01-02,3"], {"time_unit": "month"}, "time_unit is 'month': for dates"),
    ],
)
def test_refusal_names_field_value_and_remedy(csv, lines, options, message):
    with pytest.raises(DataError, match=re.escape(message)) as refusal:
        read(csv(*lines), **options)
    assert "\n" not in str(refusal.value)


def test_message_gives_the_users_own_column(csv):
    with pytest.raises(DataError, match=re.escape("price (column 'p') is -inf in row 1")):
        read(csv("time,p", "1,-inf", "2,3"), {"price": "p"})


def test_unreadable_files(tmp_path, csv):
    with pytest.raises(DataError, match="is not a file: check its spelling"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(DataError, match=re.escape("ends in '.xlsx': save the table as .csv or .parquet")):
        read(csv("time,price", name="market.xlsx"))
    with pytest.raises(DataError, match="is not a Parquet file"):
        read(csv("time,price", name="market.parquet"))
    latin = tmp_path / "latin.csv"
    latin.write_bytes("time,price,é\n1,2,3\n2,3,4\n".encode("latin-1"))
    with pytest.raises(DataError, match=re.escape("is not UTF-8 text (byte 11)")):
        read(latin)


def test_data_error_is_a_walras_error():
    assert issubclass(DataError, WalrasError)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(prices=st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=2, max_size=8), dated=st.booleans())
def test_csv_round_trip(tmp_path_factory, prices, dated):
    prices = [0.0, 1.0, *prices]
    time = pd.date_range("2024-02-27", periods=len(prices)) if dated else np.arange(len(prices)) * 0.5
    path: Path = tmp_path_factory.mktemp("trip") / "trip.csv"
    pd.DataFrame({"time": time, "price": prices}).to_csv(path, index=False)
    first = read(path, units={"price": "USD"})
    np.testing.assert_array_equal(first["price"], prices)
    first.to_csv(path)
    again = read(path, units={"price": "USD"})
    assert_frame_equal(again, first)
    assert again.attrs == first.attrs
