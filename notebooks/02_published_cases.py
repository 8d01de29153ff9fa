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
# # Price formation: the published cases
#
# Many agents hold positions in an asset and trade it with each other. Trading fast is costly, holding a position is
# costly, and where one ends up matters. More of the asset flows in or out over time, and everybody sees that supply
# coming. What price path makes the crowd take in exactly what is supplied?
#
# Five instances of this question were solved by Wang, Wu Fung and Nurbekyan
# ([arXiv 2506.04169](https://arxiv.org/abs/2506.04169)). We solve the same five, check each answer by a method that
# shares nothing with the solver, and put the published method beside one of them. Then come costs of your own,
# gradients, a storage that can be full, and two assets.
#
# An agent at position $x$ who trades at rate $\alpha$, so that $dx = \alpha\,dt + \sigma\,dW$, minimises
#
# $$ E\int_0^T \Big[\tfrac{c}{2}\alpha^2 + V(x) + \varpi(t)\,\alpha\Big]\,dt + \Psi(x_T), $$
#
# and the price $\varpi$ clears the market: the mean of $\alpha$ over all agents is the supply $Q(t)$, at every time.
#
# | symbol | in the code | meaning |
# |---|---|---|
# | $\varpi$ | `equilibrium.price` | the price, as means over time steps |
# | $Q$ | `supply` | what has to be taken in, per agent and unit of time |
# | $c$ | `trading_cost` | how costly it is to trade fast |
# | $V$, $\Psi$ | `holding`, `terminal` | the cost of a position over time, and at the end |
# | $\sigma$ | `noise` | shocks to an agent's own position |
# | $\bar p = \varpi + cQ$ | `equilibrium.costate` | the price there would be if nothing were supplied at that moment |
#
# Supply acts on the price in two ways. At the moment it arrives, somebody has to trade to take it in, and the price must
# fall by exactly $cQ$ to pay for that. Beyond that moment it moves positions, which moves what they are worth; this is
# $\bar p$. However rough the supply, $\bar p$ is smooth.

# %%
# ruff: noqa: E402
import warnings
from typing import NamedTuple

warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets are used here

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from walras.calibrate.reporting.style import ALERT, INK, POSTERIOR, PRIOR, SOFT, STYLE
from walras.model import (
    Agents,
    Diffusion,
    DoubleWell,
    PriceFormation,
    Quadratic,
    VanishingNoise,
    density,
    expected_costs,
    plot_costs,
    plot_density,
    plot_paths,
    plot_price,
    verify,
)
from walras.model.price_formation.strategy import Paths

jax.config.update("jax_enable_x64", True)  # the solvers with noise need double precision
plt.rcParams.update({**STYLE, "figure.dpi": 80})

# %% [markdown]
# ## The cases
#
# All have $T = c = 1$ and agents who start evenly spread over $[0, 1]$. In cases 3 and 4 the cost is a double well:
# agents would like to be at 1/4 or at 3/4, and not in between.
#
# | case | $V$ | $\Psi$ | $Q$ |
# |---|---|---|---|
# | 1 | 0 | $5x^2$ | $\sin 10t$ |
# | 2 | $5x^2$ | 0 | a Wiener path |
# | 3 | 0 | $25(x-\frac14)^2(x-\frac34)^2$ | $\sin 10t$ |
# | 4a | $25(x-\frac14)^2(x-\frac34)^2$ | 0 | $\sin 10t$ |
# | 4b | $25(x-\frac14)^2(x-\frac34)^2$ | 0 | a Wiener path |
#
# A market is a value. It is built from its costs, and solved for a supply.

# %%
STEPS, AGENTS = 100, 400
start = (jnp.arange(AGENTS) + 0.5) / AGENTS  # the middles of 400 equal parts of [0, 1]
bowl, wells = Quadratic(10.0), DoubleWell(50.0, 0.25, 0.75)  # Quadratic(s) is s/2 x², DoubleWell(s, …) has s/2 too


def wave(t):
    return jnp.sin(10 * t)


increments = np.random.default_rng(0).normal(0.0, 1000**-0.5, 1000)
wiener = jnp.asarray(np.cumsum(increments).reshape(STEPS, -1).mean(axis=1))  # the mean rate over each of 100 steps

markets = {
    "1": PriceFormation(1.0, terminal=bowl),
    "2": PriceFormation(1.0, holding=bowl),
    "3": PriceFormation(1.0, terminal=wells),
    "4a": PriceFormation(1.0, holding=wells),
    "4b": PriceFormation(1.0, holding=wells),
}
supplies = {"1": wave, "2": wiener, "3": wave, "4a": wave, "4b": wiener}
keys = iter(jax.random.split(jax.random.key(2506), 20))

# %% [markdown]
# ## Cases 1 and 2: one bowl
#
# With quadratic costs the equilibrium is a formula. It takes microseconds, and it holds for any starting positions and any
# noise.

# %%
found = {case: markets[case].solve(supplies[case], steps=STEPS, initial=start) for case in ("1", "2")}
figure, panels = plt.subplots(2, 2, figsize=(10, 5.6))
for row, (case, equilibrium) in zip(panels, found.items(), strict=True):
    plot_price(equilibrium, row[0])
    plot_paths(equilibrium, next(keys), row[1], agents=40)
    row[0].set_title(f"case {case}: the price", pad=18)
    row[1].set_title(f"case {case}: positions of 40 agents", pad=18)
plt.show()

# %% [markdown]
# Case 1: nothing depends on a position before the end, so $\bar p$ is constant and the price is $\bar p - cQ$. The agents
# approach each other because the bowl at the end is the steeper the farther out one is, and all of them take in the
# wave equally. Case 2: the price carries the whole roughness of the Wiener path, while $\bar p$ is smooth and ends at
# zero, since nothing is left to come.
#
# ## Is it an equilibrium?
#
# `verify` takes a price path and computes every agent's best response to it afresh, over all trajectories and not just
# near the solver's, by a method that shares no code with the solvers. Two figures come out. The *clearing error* is the
# largest difference between the mean of the best responses and the supply. The *exploitability* is what an agent would
# gain on average by leaving the equilibrium's own strategy.

# %%
checks = {case: verify(markets[case], equilibrium) for case, equilibrium in found.items()}


def show(checks):
    rows = {case: (check.clearing_error, check.exploitability) for case, check in checks.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["clearing error", "exploitability"])
    print(table.rename_axis("case").to_string(float_format="{:.1e}".format))


show(checks)

# %% [markdown]
# Agents here trade at rates of about one, so these errors are small. What remains in case 2 is the time grid: `verify` lets
# agents move along straight lines in each of the 100 steps, while the formula is for agents who trade continuously.
#
# ## Case 3: two wells, and a crowd that splits
#
# Now agents want to end at 1/4 or at 3/4. Without noise each agent goes to one or the other, so two neighbours may part
# for ever, and which ones do depends on the price. Such a game has one equilibrium of the whole crowd but many local
# ones, in which some agents are in the wrong well and none of them gains by a *small* change.
#
# With noise in agents' positions this difficulty is gone: every agent's optimum is found globally and the equilibrium is
# unique. So we solve with noise, and let it become small. Here $\bar p$ is again constant. The figures it should
# be compared with were computed independently, for a continuum of agents.

# %%
# The grid of positions is chosen by the solver if one says nothing. Giving it here saves compiling a program for each grid.
grid = Diffusion(points=1440, band=180, domain=(-2.0, 2.0), substeps=1)
independent = {0.3: -0.36301, 0.2: -0.20947, 0.1: -0.16619, 0.07: -0.16376}
noisy, rows = {}, {}


def lower_share(equilibrium):
    """The share of the agents who end in the lower well."""
    law = density(equilibrium)
    return float(jnp.trapezoid(jnp.where(law.positions[-1] < 0.5, law.density[-1], 0.0), law.positions[-1]))


for noise, expected in independent.items():
    market = PriceFormation(1.0, terminal=wells, noise=noise)
    noisy[noise] = market.solve(wave, steps=STEPS, initial=start, solver=grid)
    rows[f"{noise}"] = (float(noisy[noise].costate.mean()), expected, lower_share(noisy[noise]))

limit = markets["3"].solve(wave, steps=STEPS, initial=start, solver=VanishingNoise(diffusion=grid))
least = limit.levels[-1]
rows[f"{float(least.game.noise):.3f}"] = (float(least.costate.mean()), float("nan"), lower_share(least))
rows["→ 0"] = (float(limit.costate.mean()), -0.161633, float("nan"))
table = pd.DataFrame.from_dict(rows, orient="index", columns=["p̄", "independently", "share in the lower well"])
print(table.rename_axis("noise").to_string(float_format="{:.5f}".format, na_rep=""))
print(f"\nestimated error of the limit: {float(limit.error):.0e}")

# %% [markdown]
# For a market without noise and with such costs, `solve` does this by itself: it solves for a few small noises,
# extrapolates the price to none, and estimates the error of that. In the limit those who start below 0.1545 go to the lower
# well and all others to the upper one, which the share in the lower well approaches.

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4))
for panel, noise in zip(panels, (0.3, 0.07), strict=True):
    plot_density(noisy[noise], panel)
    panel.set_title(f"noise {noise}: where the agents are", pad=18)
plt.show()

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.2))
plot_price(limit, panels[0])
panels[0].set_title("without noise: the price", pad=18)
plot_paths(limit, next(keys), panels[1], agents=80)
panels[1].axhline(0.154460, color=ALERT, linewidth=1.0, linestyle=(0, (5, 2)), xmax=0.06)
panels[1].set_title("80 agents, at the least noise that was solved", pad=18)
plt.show()

# %% [markdown]
# The mark on the left of the second picture is the point at which the crowd splits.
#
# ### The published method
#
# The published method takes 100 agents and follows, at the same time, the gradient of each agent's cost in its rates and the
# clearing error in the price, 10,000 times from random rates. In case 3 it takes a few lines.


# %%
class Published(NamedTuple):
    """What `verify` asks of an equilibrium."""

    price: jax.Array
    positions: jax.Array
    supply: jax.Array
    horizon: float = 1.0

    @property
    def initial(self):
        return self.positions[0]

    @property
    def weights(self):
        return jnp.full(self.initial.size, 1 / self.initial.size)

    def strategy(self):
        return Paths(self.positions)


@jax.jit
def published(key, supply, first, rate_step=1e-2, price_step=1e-1):
    h = 1.0 / supply.size
    final_slope = jax.vmap(jax.grad(wells))

    def iterate(_, state):
        rates, price = state
        new = rates - rate_step * (rates + price[:, None] + final_slope(first + h * jnp.sum(rates, axis=0)))
        return new, price + price_step * (jnp.mean(2 * new - rates, axis=1) - supply)

    rates = jax.random.normal(key, (supply.size, first.size))
    rates, price = jax.lax.fori_loop(0, 10_000, iterate, (rates, jnp.zeros_like(supply)))
    return price, jnp.concatenate([first[None], first + h * jnp.cumsum(rates, axis=0)])


hundred = jnp.linspace(0.0, 1.0, 100)
fine_wave = wave((jnp.arange(250) + 0.5) / 250)
iterates = [Published(*published(next(keys), fine_wave, hundred), fine_wave) for _ in range(2)]

rows = {}
for name, one in {"published, once": iterates[0], "published, again": iterates[1], "walras": limit}.items():
    check = verify(markets["3"], one)
    mean_price = float(jnp.mean(one.price + one.supply))
    rows[name] = (mean_price, abs(float(jnp.mean(one.supply))), check.pure_clearing_error, check.clearing_error)
table = pd.DataFrame.from_dict(rows, orient="index", columns=["p̄", "mean supply", "clearing error", "ties shared"])
print(table.to_string(float_format="{:.4f}".format))

# %%
figure, panel = plt.subplots(figsize=(7, 3.0))
for one, colour, label in ((iterates[0], ALERT, "published, once"), (iterates[1], PRIOR, "published, again")):
    panel.plot(one.positions[0], one.positions[-1], "o", color=colour, markersize=3, label=label)
panel.axvline(0.154460, color=INK, linewidth=0.8, label="where the whole crowd splits")
panel.set_xlabel("first position of an agent")
panel.set_ylabel("last position")
panel.legend(loc="center right")
plt.show()

# %% [markdown]
# Both runs end at a price that has cleared the market *of the trajectories that they found*: some agents sit in the wrong well,
# and which ones depends on the random start. When every agent takes a true best response to that price, a good part of the
# supply is not taken in. The last column shares out agents who are indifferent between the wells so as to clear the market
# as well as possible; it does not help. For the limit of vanishing noise the error is that of the extrapolation.
#
# ## Cases 4a and 4b: wells all along
#
# Now the wells act during the whole time, and agents first run to one of them and then sit there, while the wave or the
# Wiener path moves them all.

# %%
vanishing = VanishingNoise(noises=(0.28, 0.2, 0.14), diffusion=grid)
for case in ("4a", "4b"):
    found[case] = markets[case].solve(supplies[case], steps=STEPS, initial=start, solver=vanishing)
    noises = ", ".join(f"{float(level.game.noise):.3f}" for level in found[case].levels)
    print(f"case {case}: estimated error of the price {float(found[case].error):.0e}, extrapolated from noises {noises}")

figure, panels = plt.subplots(2, 2, figsize=(10, 5.8))
for row, case in zip(panels, ("4a", "4b"), strict=True):
    plot_price(found[case], row[0])
    row[0].set_title(f"case {case}: the price", pad=18)
    plot_density(found[case], row[1])
    row[1].set_title(f"case {case}: where the agents are, at the least noise", pad=18)
plt.show()

# %%
found["3"] = limit
for case in ("3", "4a", "4b"):
    checks[case] = verify(markets[case], found[case])
show(dict(sorted(checks.items())))

# %% [markdown]
# In cases 3 and 4 the exploitability is that of the strategy at the least noise when it is followed without any.
#
# What does the crowd pay for all this? `expected_costs` takes the bill apart. Payments are negative where agents are
# paid to take in supply; trading costs follow the square of the supply, plus what agents spend on running to the wells.

# %%
figure, panel = plt.subplots(figsize=(7, 3.2))
plot_costs(found["4a"], panel)
panel.set_title("case 4a: what agents pay on average", pad=18)
plt.show()
bill = expected_costs(found["4a"])
print(f"in all {float(bill.total):.3f}, of which payments {float(jnp.sum(bill.payments)):.3f}")

# %% [markdown]
# ## Costs of your own
#
# A cost is any function of one position written with `jax.numpy`. If it has parameters that matter, make it an
# `equinox.Module`: they are then parameters of the market. Below, a trader who holds less than `needed` pays for the
# shortage, and holding anything costs something.


# %%
class Shortage(eqx.Module):
    """Storage costs, and a penalty per unit that is missing, with the corner rounded over `width`."""

    penalty: jax.Array | float
    needed: jax.Array | float
    storage: jax.Array | float
    width: float = 0.1

    def __call__(self, x):
        missing = self.width * jax.nn.softplus((self.needed - x) / self.width)
        return self.penalty * missing + 0.5 * self.storage * x**2


traders = jnp.linspace(0.0, 1.0, 21)


def shortage_market(penalty):
    return PriceFormation(1.0, holding=Shortage(penalty, needed=0.4, storage=1.0))


own = {
    "lambda x: 2 x⁴": PriceFormation(1.0, holding=lambda x: 2 * x**4),
    "Shortage, penalty 2": shortage_market(2.0),
    "Shortage, penalty 4": shortage_market(4.0),
}
figure, panel = plt.subplots(figsize=(7, 3.0))
for (name, market), colour in zip(own.items(), (POSTERIOR, PRIOR, ALERT), strict=True):
    equilibrium = market.solve(wave, steps=50, initial=traders)
    check = verify(market, equilibrium)
    print(f"{name}: clearing error {check.clearing_error:.1e}, exploitability {check.exploitability:.1e}")
    panel.plot(equilibrium.times, equilibrium.price, color=colour, label=name)
panel.set_xlabel("time")
panel.set_ylabel("price")
panel.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
plt.show()

# %% [markdown]
# ## Gradients
#
# The price is a differentiable function of every parameter, of the supply and of the first positions. The derivative
# is that of the solution, by one more linear solve, not of the iterations that led to it. Here: how does the price at
# each time answer to the penalty? Finite differences cost two solves for each parameter, and agree.


# %%
def price_for(penalty):
    return shortage_market(penalty).solve(wave, steps=50, initial=traders, solver=Agents(substeps=4)).price


slope = jax.jit(jax.jacfwd(price_for))(2.0)
difference = (price_for(jnp.asarray(2.0 + 1e-4)) - price_for(jnp.asarray(2.0 - 1e-4))) / 2e-4
print(f"largest difference from finite differences: {float(jnp.max(jnp.abs(slope - difference))):.1e}")

figure, panel = plt.subplots(figsize=(7, 2.8))
panel.plot((jnp.arange(50) + 0.5) / 50, slope, color=POSTERIOR)
panel.axhline(0, color=SOFT, linewidth=0.6)
panel.set_xlabel("time")
panel.set_ylabel("change of the price")
panel.set_title("for a penalty higher by one")
plt.show()

# %% [markdown]
# Early on the whole rest of the period is still to be feared, so the price moves most.
#
# ## A storage that can be full
#
# Positions may have hard limits, such as the capacity of a storage. Nobody can cross them; with noise, agents who come
# close steer away in time. Here all storages together fill up until the middle of the period and are emptied after it.
# No position costs anything. Whatever the price does beyond $-cQ$ it does because of the limits.

# %%
season = 1.3 * jnp.sin(2 * jnp.pi * (jnp.arange(40) + 0.5) / 40)
around_half = (0.45 + 0.2 * jnp.linspace(-1, 1, 9), jnp.full(9, 1 / 9))
capacity = PriceFormation(0.3, noise=0.15, limits=(0.0, 1.0))
filled = capacity.solve(season, initial=around_half, solver=Diffusion(points=96, band=96, domain=(0.0, 1.0), substeps=2))
free = PriceFormation(0.3, noise=0.15).solve(season, initial=around_half)

figure, panels = plt.subplots(1, 2, figsize=(10, 3.2))
plot_price(filled, panels[0])
panels[0].plot(free.times, free.price, color=ALERT, label="without limits")
panels[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
plot_density(filled, panels[1])
plt.show()
check = verify(capacity, filled)
print(f"clearing error {check.clearing_error:.1e}")
print(f"what agents pay: {float(expected_costs(filled).total):.6f}; the least they could pay: {check.cost:.6f}")

# %% [markdown]
# From the start $\bar p$ is below zero: who holds a unit more will have it in the way once the storages are full, and has
# to be paid for that. It rises while they are full, and after that the limits hardly matter. So the supply of the first half is
# taken in at a lower price than without limits, well before any storage is full.
#
# ## Several assets
#
# For several assets positions are vectors and trading costs a matrix. Here trading one asset makes the other dearer
# to trade too, and the two are substitutes in what is held. Only the first one is supplied.

# %%
cross = jnp.array([[1.0, 0.4], [0.4, 1.0]])
pair = PriceFormation(cross, holding=Quadratic(jnp.array([[8.0, 6.0], [6.0, 8.0]]), jnp.array([0.2, 0.2])))
first_only = jnp.stack([wave((jnp.arange(STEPS) + 0.5) / STEPS), jnp.zeros(STEPS)], axis=1)
both = pair.solve(first_only, initial=jnp.array([0.2, 0.2]))
figure, panel = plt.subplots(figsize=(7, 3.0))
plot_price(both, panel)
plt.show()

# %% [markdown]
# The second asset's price follows the first one's although none of it arrives: at once through the cost of trading, and
# slowly because holding more of the first makes the second less worth having.
#
# ## What to keep in mind
#
# * All agents here foresee the supply. `RandomSupply` is for supply that they do not.
# * With noise the equilibrium is unique and found globally. Without noise, and with costs that are not convex, what `solve`
#   returns is a limit, with an estimate of its error; `verify` says how good it is as an equilibrium.
# * The published figures for these cases are of a method that stops at local optima. It may well be near the equilibrium,
#   but its own output does not tell.
