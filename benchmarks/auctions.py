"""Times equilibrium bids and the likelihood of bids, and what deviating from asymmetric bids gains; writes AUCTIONS.md.

uv run python benchmarks/auctions.py           four minutes; leave the machine to it
uv run python benchmarks/auctions.py --quick   a minute, printed only: two numbers of modes, few markets
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from jax.tree_util import Partial
from numpyro.infer.util import initialize_model
from run import machine, said, table, time_of
from timing import timed

from walras.calibrate import Bids, Problem
from walras.data import standard
from walras.model import AsymmetricFirstPriceAuction, FirstPriceAuction, Status, verify

BIDS = 500
MARKETS = 50
SEEDS = (11, 12, 13, 14)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time auctions, and verify random asymmetric ones.")
    parser.add_argument("--quick", action="store_true", help="a fast check that everything runs; writes no file")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    sections = [machine(), times(quick), gains(quick)]
    if not quick:
        text = "\n\n".join(["# Results of `benchmarks/auctions.py`", *sections])
        Path(__file__).with_name("AUCTIONS.md").write_text(text + "\n")


def times(quick: bool) -> str:
    cells = [
        (name, time_of(compilation), time_of(forward), time_of(both), f"{both / forward:.2f}")
        for name, compilation, forward, both in (*equilibria(quick), *likelihoods())
    ]
    return said(
        f"Equilibria, the symmetric ones with the bids of {BIDS} bidders, and the log density of {BIDS} observed bids; "
        "gradients are in all parameters.",
        "",
        *table(("what", "compile", "value", "value and gradient", "ratio"), cells),
    )


def equilibria(quick: bool):
    """Rows (name, compilation, seconds, seconds with the gradient) of the mean bid, and of asymmetric auctions' top bid."""
    scores = jnp.asarray(np.random.default_rng(0).normal(size=BIDS))

    def symmetric(theta, reserve=None):
        values = dist.LogNormal(theta[0], theta[1])
        return jnp.mean(
            FirstPriceAuction(values, 4, theta[2], reserve).solve().bid(jnp.exp(theta[0] + theta[1] * scores) + 0.5)
        )

    at = jnp.array([0.1, 0.5, 0.8])
    yield "symmetric, log-normal, risk averse", *_times(symmetric, at)
    yield "the same above a reserve", *_times(lambda theta: symmetric(theta, 0.5), at)

    for modes in (16, 24) if quick else (16, 24, 32):
        top = partial(_top, modes=modes)
        yield f"asymmetric, two uniform groups, {modes} modes", *_times(top, jnp.array([1.0, 2.0]))
    laws = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.3, 1.0, -0.5, 1.1], [0.8, 1.0, 0.5, 1.05]])
    yield "asymmetric, groups of 1, 2 and 3, 24 modes", *_times(_top_of_three, laws)


def _top(ends, modes):
    groups = [dist.Uniform(0.0, ends[0]), dist.Uniform(0.0, ends[1])]
    return AsymmetricFirstPriceAuction(groups, [1, 1]).solve(modes).top_bid


def _top_of_three(laws):
    return AsymmetricFirstPriceAuction([bounded(*law) for law in laws], [1, 2, 3]).solve().top_bid


def likelihoods():
    """Rows as above: the log density of a problem at a point of its prior."""
    for name, frame, options in (
        ("likelihood, all bids", _auctions(), {}),
        ("likelihood above a reserve that binds", _auctions(), {"reserve": "floor"}),
    ):
        problem = Problem("first_price_auction", frame, Bids(shifters=("volume",), **options))
        start = initialize_model(jax.random.key(0), problem.model, dynamic_args=False)
        yield name, *_times(start.potential_fn, start.param_info.z)


def _times(function, at):
    forward, both = (timed(jax.jit(part), at) for part in (function, jax.value_and_grad(function)))
    return both.compilation, forward.seconds, both.seconds


def _auctions() -> pd.DataFrame:
    """Auctions of 2, 3 and 5 bidders with log-normal bids, above a floor of half their lowest."""
    rng = np.random.default_rng(0)
    sizes = np.tile([2, 3, 5], BIDS // 10)
    rows = pd.DataFrame({"auction": np.repeat(np.arange(sizes.size), sizes)})
    rows["bidder"] = rows.groupby("auction").cumcount()
    volume = np.exp(rng.normal(size=sizes.size))
    rows["volume"] = volume[rows["auction"]]
    rows["bid"] = rows["volume"] * np.exp(0.4 * rng.normal(size=len(rows)) + 0.3 * rng.normal(size=sizes.size)[rows["auction"]])
    rows["floor"] = 0.5 * rows.groupby("auction")["bid"].transform("min")
    return standard(rows, form="bids", units={"bid": "USD"})


def _quantile(a, b, c, top, level):
    inner = jnp.minimum(-jnp.log1p(level * jnp.expm1(-c)) / c, 1.0 - 2.0**-53)
    return top * (-jnp.expm1(jnp.log1p(-inner) / b)) ** (1.0 / a)


def bounded(a, b, c, top):
    """Quantiles of values on [0, top] with F = G(1 − (1 − x^a)^b), x = v/top, and G a truncated exponential of rate c ≠ 0."""
    return Partial(_quantile, *(jnp.asarray(part, float) for part in (a, b, c, top)))


def gains(quick: bool) -> str:
    rows = [_verified(seed, modes, 5 if quick else MARKETS) for seed in SEEDS[: 1 if quick else None] for modes in (24, 32)]
    return said(
        f"## Asymmetric auctions drawn at random, {MARKETS} for each seed",
        "",
        "Two to four groups of one to four bidders, with uniform values, truncated exponential ones of rates from -2 to 2, or "
        "those with F = 1 − (1 − x^a)^b, a from 0.6 to 2.5 and b from 0.7 to 1.5; highest values differ by up to a fifth. "
        "The gain is the largest of any bidder from deviating, over the highest value, by `verify`.",
        "",
        *table(("seed", "modes", "solved", "largest gain where solved"), rows),
    )


def _verified(seed: int, modes: int, markets: int) -> tuple[str, ...]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(markets):
        groups = rng.integers(2, 5)
        laws = [_drawn(rng) for _ in range(groups)]
        sizes = [jnp.asarray(float(size)) for size in rng.integers(1, 5, groups)]
        auction = AsymmetricFirstPriceAuction([bounded(*law) for law in laws], sizes)
        equilibrium = auction.solve(modes, throw=False)
        if bool(equilibrium.status == Status.solved):
            found.append(verify(auction, equilibrium).exploitability / max(law[3] for law in laws))
    return str(seed), str(modes), f"{len(found)} of {markets}", f"{max(found):.1e}"


def _drawn(rng) -> tuple[float, ...]:
    a, b, rate, kind = rng.uniform(0.6, 2.5), rng.uniform(0.7, 1.5), rng.uniform(-2.0, 2.0), rng.integers(3)
    return (a if kind == 1 else 1.0, b if kind == 1 else 1.0, rate if kind == 2 else 1e-8, rng.uniform(1.0, 1.2))


if __name__ == "__main__":
    main()
