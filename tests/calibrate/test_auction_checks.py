"""Checks of forecasts on auctions above a reserve that binds: the right law is rarely alarmed, a wrong one is."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from walras.calibrate import Bids, Problem
from walras.calibrate.checks.misfit import of_forecasts
from walras.calibrate.predictions.predictive import law_at
from walras.data import standard

# At a floor of 1 a value is below it with probability 0.27, and nearly as likely within reach of it.
TRUTH = {"value_level": 0.3, "value_spread": 0.4, "auction_spread": 0.3}
AUCTIONS, TABLES = 40, 200


def problem_of(reserve):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"auction": np.repeat(np.arange(AUCTIONS), 3), "bidder": np.tile(np.arange(3), AUCTIONS)})
    frame = standard(rows.assign(bid=1.0 + rng.uniform(size=len(rows)), floor=1.0), form="bids")
    return Problem("first_price_auction", frame, Bids(reserve=reserve), dict(TRUTH))


def alarms(fitted: Problem, tables) -> pd.DataFrame:
    """Which checks of forecasts warn, if each table is judged by the law of the problem."""

    def probability(table):
        return law_at(fitted, {}).one_step_ahead(table).cdf(table[:, 0])

    found = np.asarray(jax.jit(lambda tables: jax.lax.map(probability, tables))(tables))
    trees = [
        xr.DataTree.from_dict({"one_step_ahead": xr.Dataset({"probability": (("chain", "draw", "row"), one[None, None])})})
        for one in found
    ]
    return pd.DataFrame([{check.name: check.verdict != "pass" for check in of_forecasts(fitted, tree)} for tree in trees])


@pytest.mark.slow
@pytest.mark.statistical
def test_a_reserve_that_binds_raises_no_alarm():
    """Of 200 tables simulated at known parameters, each check at a level of 1 % warns of at most nine.

    False alarms: 3e-5 of keys for each check. Judged as if there were no reserve, nearly all of the same tables must be told.
    """
    right, wrong = problem_of("floor"), problem_of(None)
    tables = jax.jit(lambda keys: jax.lax.map(lambda key: law_at(right, {}).sample(key), keys))(
        jax.random.split(jax.random.key(0), TABLES)
    )
    assert jnp.min(tables) >= 0.0 and jnp.quantile(tables, 0.05) < 0.1
    found = alarms(right, tables)
    print(found.mean())
    assert set(found) == {"forecast_calibration", "forecast_correlation", "forecast_autocorrelation", "forecast_volatility"}
    assert (found.sum() <= 9).all()
    assert alarms(wrong, tables)["forecast_calibration"].mean() > 0.9
