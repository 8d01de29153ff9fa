"""Returns and volume by a plain loop over rows, and problems of the tables that it simulates.

By the formulas of `walras.calibrate.trading_costs.law`; no code is shared with it.
"""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.stats

from walras.calibrate import PriceAndVolume, Problem
from walras.calibrate.spec import Spec
from walras.calibrate.trading_costs.law import ReturnsAndVolume
from walras.model import TradingCosts

# The same numbers by another route: sums of forty terms.
EXACT = 1e-11
# The inverse is exact but for turnover's moment, which `stationary` takes from a table on a grid.
INVERSE = 1e-9
# By Gauss and Legendre's rule with 40 nodes, for shares of up to 0.9.
QUADRATURE = 1e-8
# Standard errors within which a mean over draws must lie: 7e-6 of normal variables are beyond.
STANDARD_ERRORS = 4.5
# p-values below this are no chance.
CHANCE = 1e-5

VALUES = {
    "reversion": 0.25,
    "volatility": 0.012,
    "drift": 0.0004,
    "feedback": 0.0015,
    "first": 0.7,
    "level": -0.1,
    "share": 0.45,
    "noise": 0.2,
}
LAWS = {
    "usual": {},
    "nothing hedged": {"share": 0.0},
    "all hedged": {"share": 1.0},
    "slow": {"reversion": 0.01},
    "fast": {"reversion": 6.0},
    "no feedback": {"feedback": 0.0},
    "agents begin where they want to be": {"first": 0.0},
}

TREND = 60
PARAMETERS = {"volatility": 0.011, "drift": 0.0004, "turnover": 0.0075, "reversion": 0.25, "asymmetry": 0.4}
OBSERVED = {"hedging_share": 0.45, "volume_level": 0.05, "volume_noise": 0.2}
SPEC = f"""
seed = 4
[data]
path = "market.csv"
columns = {{time = "day", price = "close", volume = "shares"}}
[market]
name = "trading_costs"
[observation]
trend = {TREND}
[sampler]
chains = 2
warmup = 250
draws = 300
target_accept = 0.98 # near an asymmetry of 0 or 1 the posterior bends: at 0.9 one key in six has a divergence
"""


def log_traded(deviation, v):
    return v["level"] + np.log(1 - v["share"] + v["share"] * np.sqrt(np.pi / 2) * np.abs(deviation))


def deviations(returns, v):
    """x in each row, (…, rows); a missing return has no shock."""
    x = [np.broadcast_to(v["first"], returns.shape[:-1])]
    for row in range(1, returns.shape[-1]):
        shock = np.nan_to_num((returns[..., row] - v["drift"] + v["feedback"] * x[-1]) / v["volatility"])
        x.append(np.exp(-v["reversion"]) * x[-1] + np.sqrt(1 - np.exp(-2 * v["reversion"])) * shock)
    return np.stack(x, axis=-1)


def log_density(table, v):
    total, x = 0.0, v["first"]
    for row, (volume, returned) in enumerate(table):
        if row:
            expected = v["drift"] - v["feedback"] * x
            total += scipy.stats.norm.logpdf(returned, expected, v["volatility"])
            shock = (returned - expected) / v["volatility"]
            x = np.exp(-v["reversion"]) * x + np.sqrt(1 - np.exp(-2 * v["reversion"])) * shock
        if not np.isnan(volume):
            total += scipy.stats.norm.logpdf(volume, log_traded(x, v), v["noise"])
    return total


def simulated(rows, v, seed=0, shocks=None, errors=None):
    """A table (rows, 2) of log volume and returns, the first return missing."""
    rng = np.random.default_rng(seed)
    shocks = rng.normal(size=rows) if shocks is None else shocks
    errors = rng.normal(size=rows) if errors is None else errors
    x, table = v["first"], np.empty((rows, 2))
    for row in range(rows):
        table[row, 1] = v["drift"] - v["feedback"] * x + v["volatility"] * shocks[row] if row else np.nan
        if row:
            x = np.exp(-v["reversion"]) * x + np.sqrt(1 - np.exp(-2 * v["reversion"])) * shocks[row]
        table[row, 0] = log_traded(x, v) + v["noise"] * errors[row]
    return table


def prices_and_volumes(table, trend=TREND, seed=1):
    """Prices and volumes of which a table is what is observed, after the rows of the trend."""
    logs = 18.0 + 0.3 * np.random.default_rng(seed).normal(size=len(table))
    for row in range(trend, len(table)):
        logs[row] = table[row, 0] + logs[row - trend : row].mean()
    price = 100.0 * np.cumprod(1.0 + np.nan_to_num(table[:, 1]))
    times = pd.bdate_range("2001-01-01", periods=len(table), name="time")
    return pd.DataFrame({"price": price, "volume": np.exp(logs)}, index=times)


def values(name="usual"):
    return {**VALUES, **LAWS[name]}


def law_of(v, rows):
    return ReturnsAndVolume(rows, **{name: jnp.asarray(value, float) for name, value in v.items()})


def gappy(v):
    """A table of 40 rows whose first volumes are missing, and some others."""
    table = simulated(40, v)
    table[[0, 1, 2, 3, 11, 12, 30], 0] = np.nan
    return table


def truth():
    market = TradingCosts.matching(**PARAMETERS, leading_order=False).stationary()
    low, high = market.market.risk_aversion
    return {
        "reversion": PARAMETERS["reversion"],
        "volatility": PARAMETERS["volatility"],
        "drift": PARAMETERS["drift"],
        "feedback": float(0.5 * (high - low) * market.volatility**2 * market.position_sd),
        "first": 0.7,
        "level": OBSERVED["volume_level"],
        "share": OBSERVED["hedging_share"],
        "noise": OBSERVED["volume_noise"],
    }


def specification(folder, text=SPEC, rows=1500):
    frame = prices_and_volumes(simulated(rows, truth(), seed=5))
    frame.rename(columns={"price": "close", "volume": "shares"}).rename_axis("day").to_csv(folder / "market.csv")
    (folder / "spec.toml").write_text(text)
    return Spec.from_toml(folder / "spec.toml")


def observation_of(**options):
    return PriceAndVolume(**{"trend": TREND, **options})


def problem_of(table, priors=None, **options):
    return Problem("trading_costs", table, observation_of(**options), priors or {})
