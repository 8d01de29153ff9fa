"""Bad input ends in one sentence that names the field, the value and the remedy."""

import numpy as np
import pandas as pd
import pytest
from refusals import assert_refused
from simulated import series

from walras.calibrate import NUTS, CalibrationError, ForeseenPrices, Prior, Problem, StochasticPrices, load
from walras.calibrate.predictions.predictive import extended_by
from walras.data import standard


def raw(rows=12):
    """A standard frame that its user goes on to edit."""
    return series(rows).reset_index()


def stationary(frame, **options):
    return Problem("stationary", frame, StochasticPrices(**options))


def edited(column, row, value):
    frame = raw()
    frame.loc[row, column] = value
    return frame


CASES = {
    "a missing column": (
        lambda: stationary(raw().drop(columns="supply")),
        ["'supply'", "missing", "name one of price, storm, holiday"],
    ),
    "a missing price column": (
        lambda: stationary(raw().rename(columns={"price": "p"})),
        ["'price'", "not in the data", "columns={'price': …}"],
    ),
    "a missing covariate": (
        lambda: stationary(series(), demand=("rain",)),
        ["'rain'", "missing", "name one of"],
    ),
    "an infinite price": (
        lambda: stationary(edited("price", 3, np.inf)),
        ["price is inf in row 4", "correct it or leave it empty"],
    ),
    "duplicate times": (
        lambda: stationary(edited("time", 5, 4)),
        ["time is 4 in both row 5 and row 6", "keep one row for each time"],
    ),
    "unsorted times": (
        lambda: stationary(raw().iloc[[0, 2, 1, *range(3, 12)]]),
        ["time falls from 2 in row 2 to 1 in row 3", "sort the rows by time"],
    ),
    "one row": (lambda: stationary(raw().iloc[:1]), ["1 row", "give at least 2"]),
    "a constant price": (
        lambda: stationary(raw().assign(price=2.5)),
        ["price is 2.5 wherever it is given", "check which column"],
    ),
    "a missing value of a covariate": (
        lambda: stationary(edited("storm", 3, np.nan), instruments=("storm",)),
        ["covariate 'storm' is missing in 1 rows", "leave the rows or the column out"],
    ),
    "a constant covariate": (
        lambda: stationary(raw().assign(storm=7.0), demand=("storm",)),
        ["covariate 'storm' is always 7", "leave it out"],
    ),
    "a constant supply": (
        lambda: stationary(raw().assign(supply=3.0)),
        ["'supply' is always 3", "use supply='latent'"],
    ),
    "a supply without values": (
        lambda: stationary(raw().assign(supply=np.nan)),
        ["'supply' has no value", "use supply='latent'"],
    ),
    "a panel for a series": (
        lambda: stationary(standard(pd.concat([raw().assign(market=m) for m in "AB"]), form="panel")),
        ["panel", "one market"],
    ),
    "an unknown role of supply": (
        lambda: StochasticPrices(supply="hidden"),
        ["supply is 'hidden'", "choose one of known, measured, latent"],
    ),
    "heavy tails with a filter": (
        lambda: StochasticPrices(noise="student_t"),
        ["noise is 'student_t'", "use noise='normal'"],
    ),
    "persistent errors beside latent supply": (
        lambda: StochasticPrices(supply="latent", errors="ar1"),
        ["supply='latent'", "errors='ar1'", "use errors='independent' or give a supply column"],
    ),
    "correlated shocks without a process": (
        lambda: StochasticPrices(correlated=True),
        ["correlated=True", "errors='ar1'"],
    ),
    "correlated shocks without a supply": (
        lambda: StochasticPrices(supply="latent", correlated=True),
        ["correlated=True", "errors='ar1'"],
    ),
    "a prior with the wrong support": (
        lambda: Problem("stationary", series(), StochasticPrices(), {"depreciation": Prior("Normal", 0.0, 1.0)}),
        ["'depreciation'", "Normal(0, 1)", "[0, inf)", "LogNormal"],
    ),
    "an unknown parameter": (
        lambda: Problem("stationary", series(), StochasticPrices(), {"depretiation": 0.1}),
        ["'depretiation'", "depreciation"],
    ),
    "no chains": (lambda: NUTS(chains=0), ["chains is 0", "at least 1"]),
    "half a draw": (lambda: NUTS(draws=100.5), ["draws is 100.5", "whole number"]),
    "too few draws": (lambda: NUTS(draws=3), ["draws is 3", "at least 4"]),
    "certain acceptance": (lambda: NUTS(target_accept=1.0), ["target_accept is 1.0", "between 0 and 1"]),
    "an unknown start": (lambda: NUTS(init="mean"), ["init is 'mean'", "median, prior, uniform"]),
    "idle processes": (lambda: NUTS(chains=2, processes=3), ["processes is 3", "at most one for each of 2 chains"]),
}


@pytest.mark.parametrize("what", CASES)
def test_refused(what):
    """A traceback from the depths, or a silent fit of nonsense, would leave the user without a remedy."""
    assert_refused(*CASES[what])


@pytest.mark.usefixtures("single_precision")
def test_single_precision():
    """float32 loses the posterior's curvature: the message must hold the line to add."""
    with pytest.raises(CalibrationError, match=r'jax\.config\.update\("jax_enable_x64", True\)'):
        stationary(series())


def test_a_missing_run(tmp_path):
    with pytest.raises(CalibrationError, match=r"posterior\.nc does not exist: give the posterior\.nc of a run"):
        load(tmp_path / "posterior.nc")


def test_the_future_of_a_target_is_missing_whatever_its_column_is_called():
    """A quantity that is not called supply must not be forecast from its own mean."""
    problem = stationary(standard(raw().rename(columns={"supply": "q"})), supply_column="q")
    extended, rows = extended_by(problem, None)
    assert rows == 1
    assert np.isnan(np.asarray(extended.observed)[-1]).all()


def test_a_word_for_a_switch():
    with pytest.raises(CalibrationError, match="correlated is 'yes'"):
        StochasticPrices(errors="ar1", correlated="yes")


def test_one_column_name_is_one_column():
    assert ForeseenPrices(demand="rain").demand == ("rain",)


def test_an_observation_of_another_market():
    with pytest.raises(CalibrationError, match="StochasticPrices"):
        Problem("stationary", series(), ForeseenPrices())
