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
# # Trading costs, from ten agents to the S&P 500
#
# A few agents bear risks of their own, and trade an asset to share them. Trading fast is costly, so they never quite get where
# they would like to be; what they do on the way is the volume of the market, and its price pays for what they have to bear.
#
# 1. the equilibrium with quadratic costs, and what costs do to the price;
# 2. other costs, and positions in the long run;
# 3. any number of agents with any costs, by networks;
# 4. the calibration of Gonon, Muhle-Karbe and Shi (arXiv 1905.05027), from its moments;
# 5. returns and volume of the S&P 500, with what the market does not explain.
#
# The last part needs the package `arch`, which `pip install "walras[datasets]"` brings.

# %%
# ruff: noqa: E402
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets are used here

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pandas as pd

from walras import data
from walras.calibrate import NUTS, PriceAndVolume, Problem, check, fit, posterior_predictive, predictive_statistics
from walras.calibrate.reporting.numbers import number
from walras.calibrate.reporting.style import ALERT, INK, POSTERIOR, PRIOR, STYLE
from walras.model import Status, TradingCosts, Training, solve_generative

jax.config.update("jax_enable_x64", True)  # equilibria need double precision, and nothing sets it for you
plt.rcParams.update({**STYLE, "figure.dpi": 90, "text.parse_math": True})
keys = iter(jax.random.split(jax.random.key(4), 20))

# %% [markdown]
# ## 1. Ten agents
#
# Risk aversions from 1 to 1.9, and endowments that offset each other, as in Kratsios, Shi, Sun and Zhang (arXiv 2504.04300).
# The price and its volatility are outcomes: agents with other risk aversions trade at other speeds, which moves the price.

# %%
ten = TradingCosts(
    risk_aversion=1.0 + 0.1 * jnp.arange(10),
    endowment=jnp.array([28.9, 14.9, 11.8, -14.0, -19.1, -27.0, 22.2, 31.5, -26.3, -22.9]),
    trading_cost=0.01,
    payoff_drift=2.0,
)
equilibrium = ten.solve(0.2, steps=64)
without = ten.frictionless(0.2)
pd.DataFrame(
    {
        "with costs": [float(x) for x in (equilibrium.price0, equilibrium.drift0, equilibrium.volatility0)],
        "without": [float(x) for x in (without.price0, without.drift0, without.volatility0)],
    },
    index=["price", "drift", "volatility"],
)

# %%
paths = equilibrium.simulate(next(keys), 1)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 2.8))
left.plot(paths.times, paths.price[0], color=INK)
left.set_title("price")
middle.plot(paths.times, paths.position[0])
middle.set_prop_cycle(None)  # the same colours again
middle.plot(paths.times, [without.position(t, w) for t, w in zip(paths.times, paths.shock[0], strict=True)], ":", linewidth=0.8)
middle.set_title("positions, and without costs (dotted)")
right.plot(paths.times[:-1], paths.volume[0], color=POSTERIOR)
right.set_title("units traded per time")
for panel in (left, middle, right):
    panel.set_xlabel("time")

# %% [markdown]
# As costs fall, the market without them is approached, and the price's extra volatility goes like the square root of the cost.

# %%
costs = jnp.geomspace(1e-4, 1.0, 13)
by_cost = [TradingCosts(ten.risk_aversion, ten.endowment, float(cost), payoff_drift=2.0).solve(0.2, 256) for cost in costs]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8))
left.loglog(costs, [float(found.volatility0) - 1.0 for found in by_cost], "o-", color=POSTERIOR, markersize=3)
left.set_title("volatility beyond the payoff's")
right.semilogx(costs, [float(found.liquidity_discount) for found in by_cost], "o-", color=POSTERIOR, markersize=3)
right.set_title("liquidity discount of the price")
for panel in (left, right):
    panel.set_xlabel("trading cost")

# %% [markdown]
# ## 2. Other costs
#
# With a cost $(\lambda/q)|\dot\varphi|^q$ and $q < 2$, small trades are dear and large ones cheap, in comparison: agents let
# small deviations be. Two agents are solved on a lattice; the limit of continuous trading is extrapolated.

# %%
rows = {}
for power in (2.0, 1.75, 1.5, 1.25):
    two = TradingCosts(jnp.array([1.0, 2.0]), jnp.array([3.0, -3.0]), 0.01, power=power, payoff_drift=2.0)
    found = two.solve(0.4, 32)
    settled = two.stationary(leading_order=True)
    rows[power] = {
        "price": float(found.price0),
        "drift": float(found.drift0),
        "volatility": float(found.volatility0),
        "turnover in the long run": float(settled.turnover),
        "deviation (sd)": float(settled.position_sd),
        "cost of trading": float(settled.cost),
    }
pd.DataFrame.from_dict(rows, orient="index").rename_axis("power").round(4)

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.0))
deviations = jnp.linspace(-1.2, 1.2, 121)
for power, colour in ((2.0, INK), (1.5, POSTERIOR), (1.25, ALERT)):
    two = TradingCosts(jnp.array([1.0, 2.0]), jnp.array([3.0, -3.0]), 0.01, power=power)
    axis.plot(deviations, two.stationary(leading_order=True).rate(deviations), color=colour, label=f"power {power:g}")
axis.set_xlabel("deviation of the position")
axis.set_ylabel("rate of trading")
axis.legend()
# %% [markdown]
# ## 3. Any number of agents, any costs
#
# For more than two agents and other powers there is no formula and no lattice: the price depends on everybody's position.
# A generator proposes how agents trade, a discriminator the price, and both are trained until agents' first-order conditions
# agree with them. This is a short training; `benchmarks/GENERATIVE.md` has long ones, compared with exact solutions.

# %%
three = TradingCosts(jnp.array([1.0, 1.5, 2.5]), jnp.array([4.0, -1.0, -3.0]), 0.01, power=1.5, payoff_drift=2.0)
losses = []
trained = solve_generative(
    three, 0.2, 16, key=next(keys), training=Training(iterations=800, paths=128), progress=losses.append, throw=False
)
print(f"price {float(trained.price0):.4f}, drift {float(trained.drift0):.4f}, volatility {float(trained.volatility0):.4f}")
print(f"estimated relative error {float(trained.error):.4f}; {Status[trained.status] or 'solved'}")

# %% [markdown]
# Its account, by simulation onwards from fresh states: what trading costs each agent at the margin against what
# it earns, how far implied rates are from clearing, and how far the price ends from its payoff, all relative.

# %%
residuals = trained.residuals(next(keys), states=32, paths=512)
pd.Series(
    {
        **{f"first-order condition of agent {n}": float(x) for n, x in enumerate(residuals.first_order, 1)},
        "clearing": float(residuals.clearing),
        "final price": float(residuals.terminal),
        "(noise of the simulation)": float(residuals.noise),
    }
)

# %%
paths = trained.simulate(next(keys), 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8))
left.semilogy([report.done for report in losses], [report.generator for report in losses], color=POSTERIOR, label="generator")
left.semilogy(
    [report.done for report in losses], [report.discriminator for report in losses], color=ALERT, label="discriminator"
)
left.set_title("losses")
left.set_xlabel("iterations")
left.legend()
right.step(paths.times, paths.position[0], where="post")
right.set_title("positions of the three agents, one path")
right.set_xlabel("time")
# %% [markdown]
# ## 4. The published calibration, from its moments
#
# Aggregate US equities: 245.7 billion shares, a daily volatility of 1.88 dollars, a turnover of .7481 % of all shares a day,
# and positions that settle at .0781 a day. These moments and the assumption that one agent is twice as risk-averse as the
# other give the parameters: γ̄ = 8.31e-14, λ = 1.08e-10 and ξ = 2.19e10 in the paper.

# %%
shares = 245_714_618_646.0
published = TradingCosts.matching(
    volatility=1.8788381,
    drift=8.30864e-14 * shares * 1.8788381**2,
    turnover=0.007481 * shares,
    reversion=0.07813,
    supply=shares,
    asymmetry=1 / 3,
    leading_order=True,
)
print(f"risk aversion of both {float(published.aggregate):.5g}")
print(f"trading cost          {float(published.trading_cost):.5g}")
print(f"endowment             {float(published.endowment[0]):.5g}")
leading, exact = published.stationary(leading_order=True), published.stationary()
pd.DataFrame(
    {
        name: {
            "volatility": float(found.volatility),
            "reversion a day": float(found.reversion),
            "turnover a day, % of shares": 100 * float(found.turnover) / shares,
            "deviation (sd), share of all": float(found.position_sd) / shares,
        }
        for name, found in (("leading order", leading), ("with costs' own volatility", exact))
    }
)

# %% [markdown]
# ## 5. The S&P 500
#
# In this market the shocks that move the price are those that make agents trade. Returns therefore tell how far each agent is
# from where it would like to be, and volume is how fast it trades towards it: a sharp prediction. We fit 2012 to 2018, whose
# volumes have no known faults (`walras data show sp500`), with volume less its mean over the year before.

# %%
index = data.load("sp500").loc["2012":]
observation = PriceAndVolume(trend=252)
problem = Problem("trading_costs", index, observation)
for note in observation.notes(index):
    print("-", note)
print("by moments:", {name: round(value, 5) for name, value in observation.moments(index).items()})

# %%
tree = fit(problem, NUTS(chains=4, warmup=500, draws=1000), key=next(keys))
names = [*problem.sampled, "trading_cost", "risk_aversion_low", "risk_aversion_high", "endowment"]
az.summary(tree, var_names=names, round_to="none").map(lambda value: number(value, 3))

# %% [markdown]
# Units are the whole supply and its value. The price's volatility and how fast positions settle are well known; the asymmetry
# of the two risk aversions is as wide as its prior, and trading cost and risk aversions move with it, along a ridge.

# %%
posterior = tree["posterior"]
asymmetry, cost = (posterior[name].to_numpy().ravel() for name in ("asymmetry", "trading_cost"))
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8))
left.hist(asymmetry, bins=40, density=True, color=POSTERIOR, alpha=0.5, label="posterior")
left.hist(tree["prior"]["asymmetry"].to_numpy().ravel(), bins=40, density=True, color=PRIOR, alpha=0.5, label="prior")
left.set_xlabel("asymmetry")
left.legend()
right.semilogy(asymmetry, cost, ".", markersize=1.5, color=POSTERIOR)
right.set_xlabel("asymmetry")
right.set_title("trading cost")
# %% [markdown]
# What does the market not explain? Tables simulated from the fit should look like the data.

# %%
tree = posterior_predictive(problem, tree, key=next(keys), draws=100)
predictive_statistics(problem, tree).round(3)

# %% [markdown]
# Nearly everything about volume. It stays high for weeks, where the fit lets it follow the sizes of returns for a day or two;
# it is higher when prices fall, where the market treats both signs alike; and returns are large in clusters, where the market
# has a constant volatility. What it does have is the sign of the link: volume is larger on days of large returns.
#
# The fit's answer to that link is a reversion several times that of the moments, and a small share of volume that is hedging:
# the two ways of reading the same market differ, and the checks say why. The drift suffers as well: since volume rises when
# prices fall, the fit moves the centre of returns up to make falls look larger. Parameters of a model that is rejected in
# this way describe what it would need to be, and not the market. (On the whole sample from 1999, whose volatility changes
# more, chains do not even agree: there is a second mode with a reversion of .06 and one agent many times as risk-averse
# as the other, and `check` fails.)

# %%
judged = check(problem, tree)
print(judged)
