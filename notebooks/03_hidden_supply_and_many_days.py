# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inference through an equilibrium
#
# Four markets, each seen through its prices:
#
# 1. agents who prefer either of two positions, whose costs, wells and noise are inferred from 32 prices;
# 2. the same agents, when nobody recorded the supply: a whole path is inferred as well;
# 3. electricity with storage, twenty days from an hourly file, each day a game of its own, with shared costs;
# 4. avocados in California, 169 weeks.
#
# The first three are simulated, so that what was inferred can be compared with what is true.

# %%
# ruff: noqa: E402
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets are used here

import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from walras import data
from walras.calibrate import (
    NUTS,
    ForeseenPrices,
    Prior,
    Problem,
    StochasticPrices,
    TradingDays,
    check,
    fit,
    posterior_predictive,
    prior_predictive,
)
from walras.calibrate.reporting.numbers import number
from walras.calibrate.reporting.style import ALERT, INK, POSTERIOR, STYLE

jax.config.update("jax_enable_x64", True)  # the likelihood needs double precision, and nothing sets it for you
plt.rcParams.update({**STYLE, "figure.dpi": 90})
keys = iter(jax.random.split(jax.random.key(3), 20))


def with_prices(frame, price):
    """The frame with simulated prices."""
    changed = frame.assign(price=np.asarray(price))
    changed.attrs = frame.attrs
    return changed


def against_truth(tree, truth):
    """Posterior intervals of single numbers beside what they should be."""
    rows = {}
    for name, true in truth.items():
        low, middle, high = np.quantile(tree["posterior"][name], [0.05, 0.5, 0.95])
        rows[name] = (true, low, middle, high)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["truth", "5 %", "median", "95 %"])
    print(table.to_string(float_format=lambda value: number(value, 2)))


def plot_band(panel, x, values, label):
    """The 90 % band and the median of draws (chain, draw, x)."""
    low, middle, high = np.quantile(np.asarray(values), [0.05, 0.5, 0.95], axis=(0, 1))
    panel.fill_between(x, low, high, color=POSTERIOR, alpha=0.25, linewidth=0)
    panel.plot(x, middle, color=POSTERIOR, label=label)


# %% [markdown]
# ## Two wells
#
# The registered market `double_well` is one finite game: agents pay for trading fast, for being away from both of two
# wells, and at the end for being away from a target; each is hit by noise of its own. Nothing in its price is a formula.
# Every parameter has a default prior in the units of the data. Here we give those that we want to infer, and simulate
# from them: one draw of the prior is the truth. Runs in this notebook are short, so that it takes minutes; where a check
# warns, it says what to do.

# %%
hours = np.arange(32)
wave = np.diff(-np.cos(10 * np.linspace(0, 1, 33))) * 3.2  # GW, the means over each hour
recorded = data.standard(
    pd.DataFrame({"time": hours, "price": np.cos(hours), "supply": wave}),  # prices are simulated below
    form="series",
    units={"price": "EUR/MWh", "supply": "GW"},
    time_unit="hour",
)
priors = {
    "price_level": Prior("Normal", 0.0, 1.0),
    "trading_cost": Prior("LogNormal", 0.0, 0.5),
    "terminal_cost": Prior("LogNormal", float(np.log(0.15)), 0.5),
    "well_strength": Prior("LogNormal", float(np.log(5e-5)), 0.5),
    "well_distance": Prior("LogNormal", float(np.log(16.0)), 0.2),
    "agent_noise": Prior("LogNormal", float(np.log(1.7)), 0.1),
    "population_spread": 16.0,  # agents start anywhere within 16 GWh of the mean
    "price_noise": Prior("HalfNormal", 0.1),
}
problem = Problem(market="double_well", data=recorded, observation=ForeseenPrices(), priors=priors)
before = prior_predictive(problem, key=next(keys), draws=20)
chosen = 3
simulated = with_prices(recorded, before["prior_predictive"]["price"][0, chosen])
truth = {name: float(before["prior"][name][0, chosen]) for name in problem.sampled}

wells = problem.with_data(simulated)  # the priors stay as they are
tree = fit(wells, NUTS(warmup=300, draws=300, target_accept=0.95), key=next(keys))
print(check(wells, tree), "\n")
against_truth(tree, truth)

# %%
replicated = posterior_predictive(wells, tree, key=next(keys), draws=200)["posterior_predictive"]
figure, panel = plt.subplots(figsize=(8, 3.0))
plot_band(panel, hours, replicated["price"], "median, and 90 % of replications")
panel.plot(hours, simulated["price"], ".", color=INK, label="prices")
panel.set_xlabel("hour")
panel.set_ylabel("EUR/MWh")
panel.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
plt.show()

# %% [markdown]
# The level and the cost of trading are read off the price nearly as they are. How strong the wells are, how far apart,
# and how noisy the agents are bends the price in similar ways, so that the data narrow these less.
#
# ## A supply that nobody recorded
#
# With `supply="latent"` a path of supply is inferred together with the parameters, in units of its own standard
# deviation, since prices cannot tell its scale. Through a market with quadratic costs it is integrated out exactly;
# through this one it is sampled, hour by hour or, as here, as a smooth process made of 32 functions.

# %%
prices_alone = recorded.drop(columns="supply")
prices_alone.attrs = recorded.attrs
observation = ForeseenPrices(supply="latent", supply_process="smooth")
priors = {
    "price_level": Prior("Normal", 0.0, 0.3),
    "trading_cost": Prior("LogNormal", 0.0, 0.2),
    "terminal_cost": Prior("LogNormal", float(np.log(0.02)), 0.3),
    "well_strength": Prior("LogNormal", float(np.log(2e-5)), 0.3),
    "price_noise": Prior("LogNormal", float(np.log(0.3)), 0.3),
    "supply_lengthscale": 4.0,  # hours
}
problem = Problem(market="double_well", data=prices_alone, observation=observation, priors=priors)
before = prior_predictive(problem, key=next(keys), draws=20)
hidden = problem.with_data(with_prices(prices_alone, before["prior_predictive"]["price"][0, chosen]))
tree = fit(hidden, NUTS(chains=2, warmup=300, draws=200, target_accept=0.95, dense_mass=False), key=next(keys))
print(check(hidden, tree), "\n")
against_truth(tree, {name: float(before["prior"][name][0, chosen]) for name in problem.sampled})

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.0))
panels[0].plot(hours, hidden.data["price"], ".-", color=INK)
panels[0].set_title("what is seen: prices", pad=18)
plot_band(panels[1], hours, tree["posterior"]["supply_path"], "inferred, 90 % band")
panels[1].plot(hours, before["prior"]["supply_path"][0, chosen], color=ALERT, label="true")
panels[1].set_title("what is not: supply", pad=18)
panels[1].legend()
for panel in panels:
    panel.set_xlabel("hour")
plt.show()

# %% [markdown]
# ## Many days
#
# Electricity with storage: load less renewables has to come from somewhere at every hour, storages shift it within
# the day, and prices follow. A user has an hourly file. Here is one of twenty days, with a sun that is stronger on some
# days than on others and a wind that comes and goes.

# %%
rng = np.random.default_rng(5)
stamps = pd.date_range("2024-06-03", periods=24 * 20, freq="h", tz="Europe/Berlin")
hour, day = np.asarray(stamps.hour), np.repeat(np.arange(20), 24)
sun = np.clip(np.sin((hour - 5) * np.pi / 14), 0, None) * (8 + 14 * rng.uniform(size=20)[day])
wind = 8 + 3 * rng.normal(size=20)[day] + 2 * np.convolve(rng.normal(size=hour.size), np.ones(6) / 6, "same")
load = 48 + 8 * np.sin((hour - 9) * np.pi / 12) + rng.normal(size=hour.size)
table = pd.DataFrame({"t": stamps, "p": 50 + 5 * rng.normal(size=hour.size), "l": load, "r": sun + wind})

with tempfile.TemporaryDirectory() as folder:
    table.to_csv(Path(folder) / "hourly.csv", index=False)
    hourly = data.read(
        Path(folder) / "hourly.csv",
        columns={"time": "t", "price": "p", "load": "l", "renewables": "r"},
        units={"price": "EUR/MWh", "load": "GW", "renewables": "GW"},
    )
days = data.days(hourly, zone="Europe/Berlin")  # supply = renewables − load; days that are not whole are left out
print(days.head(3).to_string(), "\n")

# %% [markdown]
# Days share the cost of trading, which is what an hour's surprise does to the price, and the cost of holding, which ties the
# hours of a day to each other. Each day has its own level of the price; how much levels differ is inferred too, and
# pulls a day of few or noisy prices towards the others. The prices of the file are replaced by ones simulated from
# a draw of the prior.

# %%
problem = Problem(market="trading_days", data=days, observation=TradingDays(by_day="price_level", errors="ar1"))
before = prior_predictive(problem, key=next(keys), draws=20)
panel_of_days = problem.with_data(with_prices(days, before["prior_predictive"]["price"][0, chosen]))
tree = fit(panel_of_days, NUTS(warmup=500, draws=500), key=next(keys))
print(check(panel_of_days, tree), "\n")
against_truth(tree, {name: float(before["prior"][name][0, chosen]) for name in problem.sampled})

# %%
levels = before["prior"]["price_level_by_day"][0, chosen]
low, middle, high = np.quantile(tree["posterior"]["price_level_by_day"], [0.05, 0.5, 0.95], axis=(0, 1))
figure, panel = plt.subplots(figsize=(8, 3.0))
panel.vlines(range(20), low, high, color=POSTERIOR, linewidth=3, alpha=0.4)
panel.plot(range(20), middle, "_", color=POSTERIOR, label="inferred, 90 % interval")
panel.plot(range(20), levels, ".", color=ALERT, label="true")
panel.set_xlabel("day")
panel.set_ylabel("level of the price (EUR/MWh)")
panel.set_xticks(range(0, 20, 5))
panel.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
plt.show()
print(f"{np.mean((low <= levels) & (levels <= high)):.0%} of the levels are in their intervals")

# %% [markdown]
# ## Avocados
#
# Three years of weekly prices and quantities of avocados in California, and the stationary market: stocks that ripen
# and spoil, consumers who buy less when they are dear, a supply that fluctuates. It is the market that notebook 1 fits to
# fish, with the priors that the data's units suggest.

# %%
avocado = data.load("avocado")
print(avocado.attrs["source"])
print(avocado.attrs["notes"], "\n")
problem = Problem(market="stationary", data=avocado, observation=StochasticPrices(supply="known", errors="ar1"))
tree = fit(problem, NUTS(warmup=500, draws=500, target_accept=0.95), key=next(keys))
print(check(problem, tree), "\n")
for name in ("depreciation", "absorption", "error_persistence", "elasticity", "elasticity_sustained"):
    low, middle, high = np.quantile(tree["posterior"][name], [0.05, 0.5, 0.95])
    print(f"{name}: {number(middle, 2)} (90 % interval {number(low, 2)} to {number(high, 2)})")

# %% [markdown]
# Least squares on weekly changes of the logs finds an elasticity of −1.32 (standard error 0.07), and an equilibrium of
# a different form one that is near it for a change of supply that lasts. A surprise of one week moves the price less, since
# stocks take up a part of it, and less movement of the price is a larger elasticity of quantity in price. What is sold at
# the till answers to the price, and there is no instrument in these data: neither figure is freed of that.
