"""What is observed of prices and volume, the statistics of whole tables, and bad input."""

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from refusals import assert_refused
from volume_oracle import (
    EXACT,
    SPEC,
    STANDARD_ERRORS,
    TREND,
    VALUES,
    observation_of,
    prices_and_volumes,
    problem_of,
    simulated,
    specification,
)

from walras import WalrasError
from walras.calibrate import (
    PriceAndVolume,
    Prior,
    Problem,
    run,
)
from walras.data import standard


def test_the_table_of_prices_and_volumes_is_the_one_they_were_made_of():
    table = simulated(200, VALUES)
    problem = Problem("trading_costs", prices_and_volumes(table), PriceAndVolume(trend=TREND))
    expected = table.copy()
    expected[:TREND, 0] = np.nan
    assert_allclose(problem.observed, expected, atol=EXACT)


def test_returns_and_trend_by_hand():
    """Also where a volume is missing: half of the trend's rows suffice, and nothing after a row may change it."""
    rng = np.random.default_rng(0)
    price, volume = 10 + rng.uniform(size=50), 100 * np.exp(rng.normal(size=50))
    volume[[10, 11, 20, 21, 22]] = np.nan
    frame = standard(pd.DataFrame({"time": range(50), "price": price, "volume": volume}))
    observation = PriceAndVolume(trend=4)
    assert_allclose(observation.returns(frame), [np.nan, *(b / a - 1 for a, b in itertools.pairwise(price))])
    found = observation.log_volume(frame)
    for row in range(50):
        past = np.log(volume[row - 4 : row]) if row >= 4 else np.array([])
        past = past[np.isfinite(past)]
        expected = np.log(volume[row]) - past.mean() if past.size >= 2 else np.nan
        assert_allclose(found[row], expected, rtol=EXACT, atol=EXACT, err_msg=str(row))
    assert np.isnan(found[[3, 10, 24]]).all() and np.isfinite(found[[4, 12, 25]]).all()
    later = frame.assign(volume=np.where(np.arange(50) < 40, volume, 7.0))
    assert_allclose(observation.log_volume(later)[:40], found[:40], rtol=EXACT)


@pytest.mark.statistical
def test_moments_of_a_long_series():
    """Volatility within 1.5 % and reversion within 8 %: four of their standard errors, 0.3 % and 2 %. 1e-4 of seeds fail.

    All volume hedged, with little error, and a trend of so many rows that its own error does not matter. With a tenth of
    volume hedged the reversion is not found.
    """
    for share, found in ((1.0, True), (0.1, False)):
        v = {**VALUES, "share": share, "noise": 0.1, "feedback": 0.0}
        table = simulated(50_000, v)
        price = np.cumprod(1.0 + np.nan_to_num(table[:, 1]))
        frame = pd.DataFrame({"time": range(len(table)), "price": price, "volume": np.exp(table[:, 0])})
        moments = PriceAndVolume(trend=5000).moments(frame)
        assert_allclose(moments["volatility"], v["volatility"], rtol=0.015)
        assert_allclose(moments["drift"], v["drift"], atol=STANDARD_ERRORS * v["volatility"] / np.sqrt(len(table)))
        assert (abs(moments["reversion"] / v["reversion"] - 1) < 0.08) == found, moments


ROWS = 130


def frame(**columns):
    """A frame as a user has it, its trend of 60 rows."""
    return prices_and_volumes(simulated(ROWS, VALUES)).reset_index().assign(**columns)


def with_entry(column, row, value):
    edited = frame()
    edited.loc[row, column] = value
    return edited


def split():
    """Two shares for one from the row 100 on."""
    return frame(price=lambda table: np.where(table.index < 100, table["price"], table["price"] / 2))


def fall():
    """A day on which the market falls by 20 %."""
    return frame(price=lambda table: np.where(table.index < 100, table["price"], 0.8 * table["price"]))


def of_other_columns():
    return frame(close=100.0, shares=lambda table: table["volume"])


CASES = {
    "a day without trade": (
        lambda: problem_of(with_entry("volume", 70, 0.0)),
        ["column 'volume' is 0 at 2001-04-09", "drop such rows or set their volume missing"],
    ),
    "a negative volume": (
        lambda: problem_of(with_entry("volume", 70, -3.0)),
        ["volume is -3.0 in row 71", "correct it or leave it empty"],
    ),
    "a missing price": (
        lambda: problem_of(with_entry("price", 70, np.nan)),
        ["column 'price' has no price at 2001-04-09", "drop such rows"],
    ),
    "many missing prices": (
        lambda: problem_of(with_entry("price", slice(70, 75), np.nan)),
        ["2001-04-09, 2001-04-10, 2001-04-11 and 3 more"],
    ),
    "a price of nothing": (
        lambda: problem_of(with_entry("price", 70, 0.0)),
        ["column 'price' is not positive at 2001-04-09", "positive prices"],
    ),
    "a constant price": (
        lambda: problem_of(frame(price=2.5)),
        ["price is 2.5 wherever it is given", "check which column"],
    ),
    "another column's constant price": (
        lambda: problem_of(of_other_columns(), price_column="close"),
        ["column 'close' changes by the factor 1 in every row", "no volatility to fit"],
    ),
    "a price that grows steadily": (
        lambda: problem_of(frame(price=100.0 * 1.001 ** np.arange(ROWS))),
        ["column 'price' changes by the factor 1.001 in every row"],
    ),
    "a volume without a price": (
        lambda: problem_of(with_entry("price", slice(ROWS - 1, ROWS), np.nan)),
        ["column 'price' has no price at", "where there is a volume"],
    ),
    "a constant volume": (
        lambda: problem_of(frame(volume=12345.0)),
        ["column 'volume' is constant", "says nothing about trading"],
    ),
    "a split": (
        lambda: problem_of(split()),
        ["column 'price' is multiplied by 0.5", "at 2001-05-21", "adjusted for splits, or splits='keep'"],
    ),
    "too few rows for the trend": (
        lambda: problem_of(frame(), trend=252),
        ["column 'volume' has 0 values after the 252 rows of its trend", "at least 282"],
    ),
    "almost too few rows for the trend": (
        lambda: problem_of(frame(), trend=ROWS - 29),
        ["column 'volume' has 29 values", "or a smaller trend"],
    ),
    "no such volume": (
        lambda: problem_of(frame(), volume_column="shares"),
        ["column 'shares' is missing from the data", "name one of price, volume"],
    ),
    "no such price": (
        lambda: problem_of(frame(), price_column="close"),
        ["column 'close' is missing from the data", "name one of price, volume"],
    ),
    "no volume": (
        lambda: problem_of(frame().drop(columns="volume")),
        ["column 'volume' is missing from the data", "name one of price with"],
    ),
    "a panel": (
        lambda: problem_of(standard(pd.concat([frame(market=m) for m in "AB"]), form="panel")),
        ["data are a panel", "give the rows of one asset"],
    ),
    "the same day twice": (
        lambda: problem_of(with_entry("time", 70, frame()["time"][69])),
        ["2001-04-06", "in both row 70 and row 71", "keep one row for each time"],
    ),
    "a trend of one row": (lambda: observation_of(trend=1), ["observation trend is 1", "at least 2"]),
    "a switch for a trend": (lambda: observation_of(trend=True), ["observation trend is True", "at least 2"]),
    "half a row of trend": (lambda: observation_of(trend=2.5), ["observation trend is 2.5", "number of rows"]),
    "a word for a trend": (lambda: observation_of(trend="long"), ["observation trend is 'long'", "number of rows"]),
    "an unknown treatment of splits": (
        lambda: observation_of(splits="drop"),
        ["observation splits is 'drop'", "choose one of refuse, keep"],
    ),
    "an asymmetry of any sign": (
        lambda: problem_of(frame(), {"asymmetry": Prior("Normal", 0.0, 0.3)}),
        ["prior of 'asymmetry' is Normal(0, 0.3)", "[0, 1)", "Uniform"],
    ),
    "an asymmetry without end": (
        lambda: problem_of(frame(), {"asymmetry": Prior("LogNormal", -1.0, 0.3)}),
        ["prior of 'asymmetry' is LogNormal(-1, 0.3)", "[0, 1)"],
    ),
    "an agent without risk aversion": (
        lambda: problem_of(frame(), {"asymmetry": 1.0}),
        ["asymmetry is fixed at 1.0", "[0, 1)"],
    ),
    "volume that does not persist": (
        lambda: observation_of().moments(frame(volume=np.tile([1.0, 3.0], ROWS // 2))),
        ["column 'volume' less its trend has the correlation -1", "fit the whole law instead"],
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_refused(what):
    """A traceback from the depths, or a silent fit of nonsense, would leave the user without a remedy."""
    assert_refused(*CASES[what])


@pytest.mark.parametrize(
    ("table", "options"),
    [(split, {"splits": "keep"}), (fall, {}), (of_other_columns, {"volume_column": "shares"})],
    ids=["a split that is kept", "a fall by 20 %", "another column"],
)
def test_accepted(table, options):
    assert np.isfinite(problem_of(table(), **options).observed[1:, 1]).all()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trend = 60.5", "observation.trend"),
        ("trend = true", "observation trend is True"),
        ("rows = 3", "unknown option 'rows'"),
    ],
)
def test_a_specification_has_whole_numbers(tmp_path, line, words):
    with pytest.raises(WalrasError, match=words):
        run.build(specification(tmp_path, SPEC.replace(f"trend = {TREND}", line), rows=ROWS))
