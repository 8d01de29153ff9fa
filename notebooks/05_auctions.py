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
# # Auctions, from values to bids and back
#
# Bidders know what a good is worth to themselves, and bid less: how much less depends on their rivals, who reason in the same
# way. That is a Bayes–Nash equilibrium. Given what values are drawn from, it says what is bid; the other way round, bids say
# what values must have been.
#
# 1. equilibrium bids, and a certificate that nobody can do better;
# 2. bidders whose values differ in distribution;
# 3. bidders who learn, in the smoothed game of Kohring, Pieroth and Bichler (ICML 2023);
# 4. the values behind bids for timber, with the nonparametric estimate of Guerre, Perrigne and Vuong beside them;
# 5. what another reserve would have earned.
#
# The timber data need the package `simple-fpa`, which `pip install "walras[datasets]"` brings.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $v$ | `value` | what the good is worth to a bidder, private | money |
# | $F, Q$ | `values` | distribution of values and its quantiles | |
# | $b = \beta(v)$ | `bid` | what is bid | money |
# | $n$ | `bidders` | how many bid | 1 |
# | $\rho$ | `risk` | exponent of utility $(v - b)^\rho$; 1 is risk neutral | 1 |
# | $r$ | `reserve` | the lowest bid that the seller takes | money |
# | $\lambda$ | `smoothing` | how softly the smoothed game tells the highest bid from others | money |

# %%
# ruff: noqa: E402
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets are used here

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpyro import distributions as dist

from walras import data
from walras.calibrate import (
    NUTS,
    Bids,
    Problem,
    check,
    fit,
    guerre_perrigne_vuong,
    posterior_predictive,
    revenue,
)
from walras.calibrate.auctions.pictures import plot_bid_quantiles, plot_revenue, plot_values
from walras.calibrate.reporting.style import ALERT, COLOURS, INK, POSTERIOR, STYLE
from walras.model import (
    AllPayAuction,
    AsymmetricFirstPriceAuction,
    FirstPriceAuction,
    SecondPriceAuction,
    SmoothedAuction,
    learn,
    plot_learning,
    smallest_slope,
    smoothing_error,
    smoothing_error_bound,
    verify,
)

jax.config.update("jax_enable_x64", True)  # equilibria need double precision, and nothing sets it for you
plt.rcParams.update({**STYLE, "figure.dpi": 90, "text.parse_math": True})
keys = iter(jax.random.split(jax.random.key(5), 20))

# %% [markdown]
# ## 1. Equilibrium bids
#
# Log-normal values, which have no upper end. More bidders and more risk aversion raise bids; a reserve lifts all of them.

# %%
values = dist.LogNormal(0.0, 0.5)
worth = jnp.linspace(0.2, 3.0, 141)
figure, axis = plt.subplots(figsize=(5.5, 3.4))
axis.plot(worth, worth, ":", color=INK, linewidth=0.8, label="value")
for (label, auction), colour in zip(
    {
        "2 bidders": FirstPriceAuction(values, 2),
        "5 bidders": FirstPriceAuction(values, 5),
        "2, risk averse (0.5)": FirstPriceAuction(values, 2, risk=0.5),
        "2, reserve of 0.8": FirstPriceAuction(values, 2, reserve=0.8),
    }.items(),
    COLOURS,
    strict=False,
):
    axis.plot(worth, auction.solve().bid(worth), color=colour, label=label)
axis.set_xlabel("value")
axis.set_ylabel("bid")
axis.legend()

# %% [markdown]
# Whoever wins pays differently in other auctions, and bidders know: the seller earns the same on average (revenue equivalence).
# `verify` searches each bidder's best response anew, on other bids than those that the solver looked at.

# %%
auctions = {kind.__name__: kind(values, 3) for kind in (FirstPriceAuction, SecondPriceAuction, AllPayAuction)}
found = {name: auction.solve() for name, auction in auctions.items()}
pd.DataFrame(
    {
        "bid at value 1": {name: float(one.bid(1.0)) for name, one in found.items()},
        "expected revenue": {name: float(one.expected_revenue()) for name, one in found.items()},
        "largest gain from deviating": {name: verify(auctions[name], one).exploitability for name, one in found.items()},
    }
)

# %% [markdown]
# Everything has derivatives. What revenue does as the reserve rises, and as values spread further:

# %%
slopes = jax.grad(
    lambda reserve, spread: FirstPriceAuction(dist.LogNormal(0.0, spread), 3, reserve=reserve).solve().expected_revenue(),
    argnums=(0, 1),
)(0.6, 0.5)
pd.Series(np.array(slopes), index=["reserve", "spread of log values"], name="change of expected revenue").round(4)

# %% [markdown]
# ## 2. Bidders of two kinds
#
# Two weak bidders, with values up to 1, against a strong one, with values up to 1.5. Weak bidders come closer to their values,
# so that the good does not always go to who values it most.

# %%
unequal = AsymmetricFirstPriceAuction([dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 1.5)], bidders=[2, 1])
bidding = unequal.solve()
certificate = verify(unequal, bidding)
figure, axis = plt.subplots(figsize=(5.5, 3.2))
for group, (name, top) in enumerate((("weak", 1.0), ("strong", 1.5))):
    worth = jnp.linspace(0.0, top, 101)
    axis.plot(worth, bidding.bid(group, worth), color=(POSTERIOR, ALERT)[group], label=name)
axis.set_xlabel("value")
axis.set_ylabel("bid")
axis.legend()
print(f"top bid {float(bidding.top_bid):.4f}; gain from deviating at most {certificate.exploitability:.0e}")

# %% [markdown]
# ## 3. Bidders who learn
#
# In the exact auction a bid changes nothing until it overtakes another one, and a gradient over the players' policies does not
# see that. Smoothed, the good is shared softly, and all bidders can follow their own gradients at the same time. Two bidders
# with uniform values approach $\beta(v) = v/2$. Smoothing changes their utility by an error that falls with $\lambda^2$; the
# published bound, which needs less knowledge of the game, is far above it. This is a short run: `benchmarks/SMOOTHED_GAME.md`
# has long ones, and other estimators of the gradient.

# %%
game = SmoothedAuction(2, smoothing=0.01)
learned = learn(game, key=next(keys), iterations=1500, batch=4096, equilibrium=lambda v: 0.5 * v)
plot_learning(learned)
slope = smallest_slope(game, lambda v: 0.5 * v)
pd.DataFrame(
    {
        level: {
            "error of utility": float(smoothing_error(one, lambda v: 0.5 * v)),
            "published bound": float(smoothing_error_bound(one, slope)),
        }
        for level in (0.04, 0.02, 0.01, 0.005)
        for one in [SmoothedAuction(2, smoothing=level)]
    }
).T.rename_axis("smoothing")

# %% [markdown]
# ## 4. Values behind bids for timber
#
# The U.S. Forest Service sold tracts of timber by sealed bids (`help(walras.data.timber)` says where the records come from).
# Here are 250 auctions of three bidders, without the absurd ones. Nobody may bid below the advertised value: bids are densest
# right there, so it binds, and it is taken as the reserve. What is seen are then bidders whose values are above it.
#
# Bids of one auction move together, far more than the advertised value and volume explain. Part of that is known to all of its
# bidders and not private: it is a log-normal scale of each auction, `auction_spread`, that the likelihood integrates over. (The
# exact likelihood without it is not regular, as the highest possible bid depends on the parameters.)

# %%
frame = data.load("timber")
sane = (frame["bid"] / frame["advertised"]).between(1.0, 20.0).groupby(level="auction").transform("all")
three = frame[sane & (frame.groupby(level="auction")["bid"].transform("size") == 3)]
chosen = np.random.default_rng(0).permutation(three.index.get_level_values("auction").unique())[:250]
three = three[three.index.get_level_values("auction").isin(chosen)]
(three["bid"] / three["advertised"]).describe().round(2)

# %%
problem = Problem("first_price_auction", three, Bids(shifters=("advertised", "volume"), reserve="advertised"))
tree = fit(problem, NUTS(chains=2, warmup=250, draws=400), key=next(keys))
tree = posterior_predictive(problem, tree, key=next(keys))
print(check(problem, tree))

# %%
names = ["value_level", "value_spread", "auction_spread", "shifter_effect"]
az.summary(tree, var_names=names, kind="stats", ci_kind="eti", ci_prob=0.9)

# %% [markdown]
# Values follow the volume of timber, and the advertised value little beyond that. Bids follow it closely (regressions of their
# logs give 0.8) also because none may be below it, which the fit knows.
#
# What the market does not explain, the checks name: the highest two bids are closer together than in replications, and bids
# within auctions are skewed to the right. The quantiles of all bids together do agree:

# %%
plot_bid_quantiles(problem, tree)

# %% [markdown]
# The same bids without a family of distributions: Guerre, Perrigne and Vuong read the value off each bid, its rank and the
# density of bids around it, here after the covariates are taken out of the logs. What the bidders of an auction know in common
# counts as private there, so it is to be compared with the values of all auctions together. Nor does it know of the reserve:
# below it there are no values.

# %%
nonparametric = guerre_perrigne_vuong(three, bidders=3, covariates=("advertised", "volume"), key=next(keys))
typical = float(np.exp(np.log(three["advertised"].groupby(level="auction").first()).mean()))
plot_values(problem, tree, beside=nonparametric, unit=typical)

# %% [markdown]
# ## 5. Another reserve
#
# What is expected, in multiples of the advertised value, by a seller who sets one reserve for auctions of average covariates
# and does not know their scale. Nothing is known below the reserve of the data, as bidders with lower values did not bid. A
# higher reserve earns more from those who still bid, and sells less often. The best one depends on what an unsold tract is
# worth to the seller: here nothing, and then the advertised value.

# %%
given_away, kept = (revenue(problem, tree, bidders=[2, 3, 5], seller_value=value) for value in (0.0, 1.0))
figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.4))
for outcomes, panel, worth in ((given_away, left, "nothing"), (kept, right, "its advertised value")):
    plot_revenue(outcomes, ax=panel)
    panel.set_title(f"an unsold tract is worth {worth}")
pd.concat({"worth nothing": given_away.best, "its advertised value": kept.best}, names=["an unsold tract is"]).round(2)
