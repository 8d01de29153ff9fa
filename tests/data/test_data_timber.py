"""The timber auctions: what the package holds, and the figures of the description recomputed to their digits."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from walras.data import DataError, describe, load
from walras.data.packages import packaged

DIGITS = 5e-3  # the figures are stated to two decimals
FINE_DIGITS = 5e-4  # slopes and their standard errors, to three
WHOLE = 0.5  # US dollars per thousand board feet
PERCENT = 5e-4  # shares, to a tenth of a percent

BIDDERS = range(2, 10)
AUCTIONS = [5164, 4159, 2778, 1894, 1095, 637, 336, 406]
MEDIAN = [1.16, 1.22, 1.28, 1.34, 1.39, 1.43, 1.51, 1.92]
MEDIAN_LOWEST = [1.08, 1.08, 1.09, 1.10, 1.11, 1.10, 1.11, 1.35]
INTRACLASS = [0.61, 0.65, 0.65, 0.65, 0.72, 0.72, 0.71, 0.83]


@pytest.fixture(scope="module")
def timber() -> pd.DataFrame:
    frame = load("timber")
    return frame.assign(ratio=frame["bid"] / frame["advertised"], bidders=frame.groupby("auction")["bid"].transform("size"))


@pytest.fixture(scope="module")
def auctions(timber) -> pd.DataFrame:
    return timber.groupby("auction").first()


@pytest.fixture(scope="module")
def kept(timber) -> pd.DataFrame:
    return timber[timber["ratio"].between(0.9, 20).groupby("auction").transform("all")]


def intraclass(values: pd.Series, size: int) -> float:
    """The correlation of two values of one group, from the mean squares of groups of one size."""
    table = values.to_numpy().reshape(-1, size)
    between = size * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    return (between - within) / (between + (size - 1) * within)


def test_rows_are_those_of_the_package(timber):
    raw = pd.read_csv(packaged("simple_fpa/data/haile_data.csv", name="timber"), index_col=0)
    raw = raw.sort_values("auctionid", kind="stable")
    own = ["actual_bid", "adv_value", "volume_total_1", "hhi", "year", "state", "forest"]
    np.testing.assert_array_equal(timber.drop(columns=["ratio", "bidders"]), raw[own])
    np.testing.assert_array_equal(timber.index.get_level_values("auction"), raw["auctionid"])
    assert raw.columns.drop([*own, "auctionid"]).empty


def test_columns_units_and_provenance():
    frame = load("timber")
    assert list(frame) == list(frame.attrs["units"])
    assert frame.attrs["units"]["bid"] == frame.attrs["units"]["advertised"] == "cent"
    assert (frame.attrs["rows"], sum(frame.attrs["missing"].values())) == (60_758, 0)
    assert frame.index.is_unique
    assert "Nine bidders means nine or more" in frame.attrs["notes"]


def test_covariates_are_of_auctions(timber, auctions):
    covariates = ["advertised", "volume", "concentration", "year", "state", "forest"]
    groups = timber.groupby("auction")[covariates]
    pd.testing.assert_frame_equal(groups.min(), groups.max())
    assert auctions.index.tolist() == list(range(16_469))
    assert (timber[["bid", "advertised", "volume"]] > 0).all(axis=None)
    assert (auctions["year"].min(), auctions["year"].max()) == (73, 93)
    assert auctions["state"].isin([3, 60]).sum() == 2


def test_bidders_are_numbered_in_each_auction_and_the_first_is_mostly_the_highest(timber):
    numbers = timber.groupby("auction").cumcount() + 1
    np.testing.assert_array_equal(timber.index.get_level_values("bidder"), numbers)
    bids = timber["bid"].groupby("auction")
    assert (bids.first() < bids.max()).sum() == 261


def test_inferred_units(timber, auctions):
    dollars = 0.01
    price = dollars * auctions["advertised"] / auctions["volume"]
    assert price.median() == pytest.approx(68, abs=WHOLE)
    highest = timber["bid"].groupby("auction").max()
    assert (dollars * highest / auctions["volume"]).median() == pytest.approx(108, abs=WHOLE)
    assert (auctions["concentration"] < 1 / auctions["bidders"]).sum() == 3045
    assert (auctions["concentration"] == 1).sum() == 1899


@pytest.mark.parametrize(
    ("bidders", "number", "median", "lowest", "correlation"),
    list(zip(BIDDERS, AUCTIONS, MEDIAN, MEDIAN_LOWEST, INTRACLASS, strict=True)),
)
def test_by_number_of_bidders(timber, kept, bidders, number, median, lowest, correlation):
    group, trimmed = timber[timber["bidders"] == bidders], kept[kept["bidders"] == bidders]
    assert len(group) == number * bidders
    assert group["ratio"].median() == pytest.approx(median, abs=DIGITS)
    assert group["ratio"].groupby("auction").min().median() == pytest.approx(lowest, abs=DIGITS)
    assert intraclass(np.log(trimmed["ratio"]), bidders) == pytest.approx(correlation, abs=DIGITS)
    assert trimmed["ratio"].median() == pytest.approx(group["ratio"].median(), abs=4 * DIGITS)


def test_the_advertised_value_truncates_bids(timber):
    ratio = timber["ratio"]
    assert ((ratio < 1).sum(), (ratio == 1).sum(), ((ratio > 1) & (ratio < 1.01)).sum()) == (404, 670, 2393)
    assert [(ratio < 1).mean(), (ratio == 1).mean()] == pytest.approx([0.007, 0.011], abs=PERCENT)
    assert ((ratio < 0.5).sum(), (ratio[ratio < 1] >= 0.9).sum()) == (150, 160)
    density, _ = np.histogram(ratio, np.linspace(0.8, 2.0, 25))  # steps of 0.05 on both sides of 1
    assert density.argmax() == 4
    assert (np.diff(density[4:]) < 0).mean() > 0.9


def test_absurd_rows(timber, kept):
    def counts(rows: pd.Series) -> tuple[int, int]:
        return int(rows.sum()), timber.index[rows].get_level_values("auction").nunique()

    assert counts(timber["ratio"] < 0.05) == (51, 20)
    assert timber["ratio"][timber["ratio"] < 0.05].between(0.008, 0.022).mean() > 0.5
    assert counts(timber["ratio"] > 100) == (27, 12)
    assert counts(timber["ratio"] > 1000)[1] == 10
    assert counts((timber["ratio"] > 1000) & (timber["state"] == 55) & (timber["year"] == 86))[1] == 8
    assert timber["bid"].idxmax()[0] == 7203
    assert timber["bid"].max() / 100 == pytest.approx(3e9, rel=1e-5)
    assert counts(timber["volume"] > 1e6) == (7, 1)
    assert timber["volume"].idxmax()[0] == 11_023
    lowest, highest = (getattr(timber["ratio"].groupby("auction"), extreme)() for extreme in ("min", "max"))
    assert ((lowest < 0.9).sum(), (highest > 20).sum()) == (133, 68)
    assert (len(timber) - len(kept), len(kept)) == (838, 59_920)
    assert kept.index.get_level_values("auction").nunique() == 16_268


def test_repeated_auctions(timber):
    whole = timber.drop(columns="ratio").groupby("auction").first()
    whole["bid"] = timber["bid"].sort_values().groupby("auction").agg(tuple)
    again = whole[whole.duplicated()]
    assert (len(again), again["bidders"].sum(), (again["state"] == 2).sum()) == (32, 84, 11)


def test_the_description_leaves_out_the_absurd(kept):
    frame = load("timber")
    lines = re.search(r"\n    (ratio, groups = .*)\n    (frame = .*)\n", describe("timber"))
    assert lines is not None
    names = {"frame": frame}
    exec("\n".join(lines.groups()), names)  # the two lines a reader copies
    pd.testing.assert_frame_equal(names["frame"], kept.loc[kept["bidders"] < 9, list(frame)], check_like=False)


def test_highest_against_second(kept):
    ranked = kept["bid"].sort_values().groupby("auction", sort=False)
    ratio = ranked.nth(-1).droplevel("bidder") / ranked.nth(-2).droplevel("bidder")
    assert ((ratio > 3).sum(), ratio.median()) == (100, pytest.approx(1.09, abs=DIGITS))


@pytest.mark.parametrize(
    ("trimmed", "slopes", "errors", "explained"),
    [
        (False, [0.770, 0.219, 0.281], [0.007, 0.008, 0.009], 0.92),
        (True, [0.805, 0.187, 0.271], [0.004, 0.005, 0.007], 0.94),
    ],
)
def test_regression(timber, kept, trimmed, slopes, errors, explained):
    frame = kept if trimmed else timber
    groups = {"groups": frame.index.get_level_values("auction")}
    fit = smf.ols("np.log(bid) ~ np.log(advertised) + np.log(volume) + np.log(bidders)", frame).fit(
        cov_type="cluster", cov_kwds=groups
    )
    assert fit.params.iloc[1:].tolist() == pytest.approx(slopes, abs=FINE_DIGITS)
    assert fit.bse.iloc[1:].tolist() == pytest.approx(errors, abs=FINE_DIGITS)
    assert fit.rsquared == pytest.approx(explained, abs=DIGITS)


def test_the_advertised_value_is_a_total(timber):
    slope, _ = np.polyfit(np.log(timber["advertised"]), np.log(timber["bid"]), 1)
    assert slope == pytest.approx(0.93, abs=DIGITS)


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "simple_fpa", None)
    message = "data set 'timber' needs the package simple_fpa, which is not installed: pip install 'walras[datasets]'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load("timber")
    assert "Source." in describe("timber")


def test_loading_imports_neither_the_package_nor_statsmodels():
    code = (
        "import sys, walras.data; walras.data.load('timber'); "
        "heavy = {'simple_fpa', 'statsmodels', 'jax', 'numpyro'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
