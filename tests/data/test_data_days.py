"""`days`: whole days of an intraday series as a panel, and everything that is left out or refused."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from walras.data import DataError, days, elapsed, load, read, standard

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = "2024-03-31", "2024-10-27"  # when the clocks of Berlin change
UNITS = {"price": "EUR/MWh", "load": "MW", "renewables": "MW"}


def power(start: str, periods: int, freq: str = "h", tz: str | None = None) -> pd.DataFrame:
    """Regular rows of price, load and renewables, all different, some prices negative."""
    rows = np.arange(float(periods))
    table = {"price": 30.0 - 7.0 * (rows % 9) + 0.01 * rows, "load": 50.0 + rows, "renewables": 20.0 + 3.0 * (rows % 5)}
    return pd.DataFrame(table, index=pd.date_range(start, periods=periods, freq=freq, tz=tz, name="time"))


def whole(panel: pd.DataFrame) -> list[str]:
    return panel.index.unique("market").tolist()


def test_two_days_by_hand():
    frame = standard(power("2024-01-01", 48), units=UNITS, name="grid", source="a file", licence="CC0", notes="Mine.")
    panel = days(frame)
    assert panel.index.names == ["market", "time"]
    assert whole(panel) == ["2024-01-01", "2024-01-02"]
    assert list(panel) == ["price", "supply", "load", "renewables"]
    assert panel.index.get_level_values("time").tolist() == [*map(float, range(24))] * 2
    assert panel.loc[("2024-01-01", 0.0), "supply"] == 20 - 50
    assert panel.loc[("2024-01-02", 2.0), "supply"] == 20 + 3 * (26 % 5) - (50 + 26)
    assert (panel["price"] < 0).any()
    np.testing.assert_array_equal(panel[["price", "load", "renewables"]], frame)
    assert panel.attrs == {
        "name": "grid",
        "form": "panel",
        "units": {"price": "EUR/MWh", "supply": "MW", "load": "MW", "renewables": "MW"},
        "source": "a file",
        "licence": "CC0",
        "notes": "Mine.",
        "time_unit": "hour",
        "period": 1.0,
        "missing": dict.fromkeys(panel, 0),
        "rows": 48,
        "left_out": [],
        "days_left_out": {},
    }
    np.testing.assert_array_equal(elapsed(panel.loc["2024-01-02"]), np.arange(24.0))


@pytest.mark.parametrize(("freq", "steps"), [("8h", 3), ("h", 24), ("30min", 48), ("15min", 96), ("5min", 288)])
def test_steps_follow_from_the_spacing(freq, steps):
    panel = days(power("2024-01-01", 3 * steps, freq))
    assert panel.groupby("market").size().tolist() == [steps] * 3
    assert panel.attrs["period"] == pytest.approx(24 / steps)
    hours = panel.index.get_level_values("time").to_numpy().reshape(3, steps)
    np.testing.assert_array_equal(hours, np.broadcast_to(hours[0], hours.shape))
    np.testing.assert_allclose(hours[0], np.arange(steps) * 24 / steps, rtol=1e-15)


def test_times_may_be_the_middles_of_the_steps():
    panel = days(power("2024-01-01 00:30", 48))
    assert panel.loc["2024-01-02"].index.tolist() == [hour + 0.5 for hour in range(24)]


def test_a_file_keeps_its_columns_and_units(csv):
    rows = [f"2024-01-0{day} {hour:02d}:00,{hour - 5},{100 + hour},{40 + day},x" for day in (1, 2) for hour in range(24)]
    path = csv("when,eur,consumption,wind,note", *rows)
    columns = {"time": "when", "price": "eur", "load": "consumption", "renewables": "wind"}
    panel = days(read(path, columns, units=UNITS))
    np.testing.assert_array_equal(panel["supply"], panel["renewables"] - panel["load"])
    assert (panel.attrs["units"]["supply"], panel.attrs["source"]) == ("MW", "market.csv")
    assert panel.attrs["left_out"] == ["note"]


def test_supply_of_the_users_own_columns():
    frame = standard(power("2024-01-01", 24).assign(solar=1.5), units=UNITS)
    panel = days(frame, supply={"renewables": 4.0, "solar": 2, "load": -0.5}, unit="MW")
    np.testing.assert_array_equal(panel["supply"], 4 * frame["renewables"] + 3.0 - 0.5 * frame["load"])
    assert panel.attrs["units"]["supply"] == "MW"
    assert days(frame, supply={"load": -0.5}).attrs["units"]["supply"] == ""
    assert days(frame, supply={"renewables": 1, "solar": 1}).attrs["units"]["supply"] == ""


def test_a_supply_column_of_the_users_own_is_used():
    frame = standard(power("2024-01-01", 24).rename(columns={"load": "supply"}), units={"supply": "GW"})
    panel = days(frame)
    np.testing.assert_array_equal(panel["supply"], frame["supply"])
    assert panel.attrs["units"]["supply"] == "GW"


def test_days_that_are_not_whole_are_left_out_and_told():
    frame = power("2024-01-01", 24 * 8).drop(pd.Timestamp("2024-01-02 05:00"))
    frame.loc["2024-01-03 07:00", "load"] = np.nan
    frame.loc["2024-01-04", "price"] = np.nan
    frame.loc["2024-01-05", "price"] = 4.0
    frame.loc["2024-01-06 08:00":"2024-01-06 20:00", "price"] = np.nan
    frame.index = frame.index.where(frame.index != pd.Timestamp("2024-01-07 03:00"), pd.Timestamp("2024-01-07 03:20"))
    frame = standard(frame, notes="Mine.")
    panel = days(frame)
    assert whole(panel) == ["2024-01-01", "2024-01-06", "2024-01-08"]
    assert panel.attrs["days_left_out"] == {
        "2024-01-02": "23 of 24 rows",
        "2024-01-03": "supply missing",
        "2024-01-04": "price missing",
        "2024-01-05": "price constant",
        "2024-01-07": "rows at other times",
    }
    assert panel.attrs["notes"].startswith("Mine. 5 of 8 days are left out: 23 of 24 rows (1), supply missing (1),")
    assert panel.attrs["missing"]["price"] == 13
    assert panel.loc["2024-01-06", "price"].isna().sum() == 13
    assert (panel["load"] == frame["load"].reindex(panel["load"].index.map(instant)).to_numpy()).all()


def instant(key: tuple[str, float]) -> pd.Timestamp:
    return pd.Timestamp(key[0]) + pd.Timedelta(hours=key[1])


def test_rows_of_another_resolution_are_left_out():
    frame = pd.concat([power("2024-01-01", 72), power("2024-01-04", 96, "15min")])
    for rows, markets, reason in ((frame, 3, "96 of 24 rows"), (frame.iloc[48:], 1, "24 of 96 rows")):
        panel = days(rows)
        assert len(whole(panel)) == markets
        assert set(panel.attrs["days_left_out"].values()) == {reason}


@pytest.mark.parametrize(("changed", "before", "length"), [(SPRING, "2024-03-30", 23), (AUTUMN, "2024-10-26", 25)])
@pytest.mark.parametrize("as_read", [False, True])
def test_days_on_which_the_clocks_change(changed, before, length, as_read, csv):
    frame = power(before, 48 + length, tz=BERLIN)
    if as_read:
        table = frame.assign(time=[time.isoformat() for time in frame.index])
        path = csv("time,price,load,renewables", *(f"{r.time},{r.price},{r.load},{r.renewables}" for r in table.itertuples()))
        panel = days(read(path, units=UNITS), zone=BERLIN)
    else:
        panel = days(frame)
    after = str((pd.Timestamp(changed) + pd.Timedelta(days=1)).date())
    assert whole(panel) == [before, after]
    assert panel.attrs["days_left_out"] == {changed: f"{length} of 24 rows"}
    assert panel.attrs["notes"] == f"Days of {BERLIN}. 1 of 3 days are left out: {length} of 24 rows (1)."
    assert "zone" not in panel.attrs
    np.testing.assert_array_equal(panel["load"], frame["load"].to_numpy()[np.r_[:24, 24 + length : 48 + length]])


def test_a_long_day_does_not_pass_for_whole_without_its_second_hour():
    frame = power(AUTUMN, 25 + 24, tz=BERLIN)
    frame = frame.drop(frame.index[3])
    assert days(frame).attrs["days_left_out"] == {AUTUMN: "rows at other times"}


def test_the_zone_decides_which_rows_are_a_day():
    berlin = days(power("2024-01-01", 72, tz=BERLIN))
    assert len(whole(berlin)) == 3
    tokyo = days(power("2024-01-01", 72, tz=BERLIN), zone="Asia/Tokyo")
    assert whole(tokyo) == ["2024-01-02", "2024-01-03"]
    assert tokyo.attrs["days_left_out"] == {"2024-01-01": "16 of 24 rows", "2024-01-04": "8 of 24 rows"}
    assert tokyo.loc[("2024-01-02", 0.0), "load"] == 50 + 16
    again = days(standard(power("2024-01-01", 72, tz=BERLIN)).tz_localize("UTC").tz_convert(BERLIN))
    assert_frame_equal(again, berlin)


def test_times_with_a_zone_are_marked_as_utc(csv):
    frame = read(csv("time,price", "2024-01-01T00:00+01:00,1", "2024-01-01T01:00+01:00,2"))
    assert frame.attrs["zone"] == standard(frame).attrs["zone"] == "UTC"
    assert standard(frame, name="new").attrs["name"] == "new"
    for times in (["2024-01-01T00:00+01:00", "2024-01-02T00:00+01:00"], ["2024-01-01 00:00", "2024-01-01 01:00"]):
        assert "zone" not in standard(pd.DataFrame({"time": times, "price": [1, 2]})).attrs


def test_the_result_is_a_standard_frame():
    panel = days(standard(power("2024-01-01 12:00", 48), units=UNITS, time_unit="minute"))
    again = standard(panel, form="panel")
    assert_frame_equal(again, panel)
    assert again.attrs == panel.attrs


def test_the_users_frame_is_left_alone():
    frame = power("2024-01-01", 48, tz=BERLIN)
    before = frame.copy()
    days(frame)
    assert_frame_equal(frame, before)
    assert frame.attrs == {}


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (power("2024-01-01", 30, "D"), {}, "time is usually 24 h apart: give several rows a day"),
        (power("2024-01-01", 30, "7D"), {}, "time is usually 168 h apart: give several rows a day"),
        (power("2024-01-01", 30, "5h"), {}, "time is usually 5 h apart, which does not divide a day: give regular"),
        (power("2024-01-01", 23), {}, "none of 1 days is whole at the usual spacing of 1 h (2024-01-01: 23 of 24 rows): give"),
        (power("2024-01-01", 1), {}, "the data have 1 row: give at least 2"),
        (power("2024-01-01", 0), {}, "the data have 0 rows: give at least 2"),
        (power("2024-01-01", 24).iloc[[0, 1, 1, 2]], {}, "time is 2024-01-01 01:00:00 in both row 2 and row 3: keep one"),
        (power("2024-01-01", 24).iloc[::-1], {}, "sort the rows by time"),
        (power("2024-01-01", 24).reset_index(drop=True).rename_axis("time"), {}, "time is 0 in row 1, a number: give dates"),
        (power("2024-01-01", 24).reset_index(drop=True), {}, "column 'time' is not in the data"),
        (power("2024-01-01", 24).drop(columns="price"), {}, "column 'price' is not in the data"),
        (power("2024-01-01", 24).assign(price=np.nan), {}, "price is missing in every row"),
        (power("2024-01-01", 24).assign(load=np.inf), {}, "load is inf in row 1: it must be finite"),
        (
            power("2024-01-01", 24).assign(load=np.nan),
            {},
            "none of 1 days is whole at the usual spacing of 1 h (2024-01-01: su",
        ),
        (
            power("2024-01-01", 24).drop(columns="load"),
            {},
            "column 'load' of supply is not in the data, the columns being price, renewables: say what supply is made of",
        ),
        (power("2024-01-01", 24).assign(load="much"), {}, "column 'load' of supply is left out, not being numbers"),
        (power("2024-01-01", 24), {"supply": {"wind": 1.0}}, "column 'wind' of supply is not in the data"),
        (power("2024-01-01", 24), {"supply": {"load": 0.0}}, "the weight of column 'load' in supply is 0.0: give a number"),
        (power("2024-01-01", 24), {"supply": {"load": "-1"}}, "the weight of column 'load' in supply is '-1': give a number"),
        (power("2024-01-01", 24), {"supply": {"load": np.nan}}, "the weight of column 'load' in supply is nan"),
        (power("2024-01-01", 24), {"supply": {"load": True}}, "the weight of column 'load' in supply is True"),
        (power("2024-01-01", 24), {"supply": {}}, "supply is {}: give columns with weights, such as"),
        (power("2024-01-01", 24), {"supply": "load"}, "supply is 'load': give columns with weights"),
        (
            power("2024-01-01", 24).assign(supply=1.0),
            {"supply": {"renewables": 1.0}},
            "the data have a column 'supply', which the sum of 'renewables' would replace: rename it",
        ),
        (
            standard(power("2024-01-01", 24), units={"load": "GW", "renewables": "MW"}),
            {},
            "supply would add 'renewables' in 'MW', 'load' in 'GW': give weights that make them one unit",
        ),
        (power("2024-01-01", 24).assign(market=1.0), {}, "the data have a column 'market', which the panel needs"),
        (standard(power("2024-01-01", 24, tz=BERLIN)), {}, "time had a zone and is in UTC now, whose days need not be the"),
        (power("2024-01-01", 24), {"zone": BERLIN}, "zone is 'Europe/Berlin', but the times have no zone to turn into it"),
        (power("2024-01-01", 24, tz=BERLIN), {"zone": "Berlin"}, "zone is 'Berlin', which is not a known time zone: write"),
        (power("2024-01-01", 24, tz=BERLIN), {"zone": 1}, "zone is 1, which is not a known time zone"),
        (load("fulton_fish"), {}, "time is 0 in row 1, a number: give dates with a time of day"),
        (days(power("2024-01-01", 24)), {}, "the frame is in the form 'panel': days are made of a series, so give one"),
    ],
)
def test_refusal_names_field_value_and_remedy(frame, options, message):
    with pytest.raises(DataError, match=re.escape(message)) as refusal:
        days(frame, **options)
    assert "\n" not in str(refusal.value)


def test_irregular_times_make_no_whole_day():
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(np.tile([3600, 3600, 5400], 20)), unit="s")
    frame = power("2024-01-01", 60).set_axis(times.rename("time"))
    with pytest.raises(DataError, match=re.escape("none of 3 days is whole at the usual spacing of 1 h (2024-01-01:")):
        days(frame)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 24 * 5 - 1), max_size=6), st.sampled_from([None, "UTC", "Asia/Kolkata"]))
def test_rows_are_kept_by_whole_days_and_never_changed(dropped, tz):
    frame = power("2024-01-01", 24 * 5, tz=tz).drop(columns="renewables")
    touched = {row // 24 for row in dropped}
    given_rows = frame.drop(frame.index[sorted(dropped)])
    if len(touched) == 5:
        with pytest.raises(DataError, match="none of 5 days is whole"):
            days(given_rows, supply={"load": -1.0})
        return
    panel = days(given_rows, supply={"load": -1.0})
    untouched = [day for day in range(5) if day not in touched]
    assert whole(panel) == [f"2024-01-0{day + 1}" for day in untouched]
    assert list(panel.attrs["days_left_out"]) == [f"2024-01-0{day + 1}" for day in sorted(touched)]
    rows = np.concatenate([np.arange(24) + 24 * day for day in untouched])
    np.testing.assert_array_equal(panel["price"], frame["price"].to_numpy()[rows])
    np.testing.assert_array_equal(panel["supply"], -frame["load"].to_numpy()[rows])
