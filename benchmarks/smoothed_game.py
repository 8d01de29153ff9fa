"""Learns to bid in smoothed auctions, and measures what smoothing changes and how gradients vary; writes SMOOTHED_GAME.md.

    uv run python benchmarks/smoothed_game.py           about ten minutes; leave the machine to it
    uv run python benchmarks/smoothed_game.py --quick   a minute or two, printed only: few iterations, few samples

Times are of the processor, of all cores together, and include compilation: whatever was compiled before is dropped.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from run import machine, said, table

from walras.model import (
    Evolution,
    FirstOrder,
    Learned,
    Reinforce,
    SmoothedAuction,
    gradient_variance,
    learn,
    sampled_smoothing_error,
    smallest_slope,
    smoothing_error,
    smoothing_error_bound,
    smoothing_error_estimate,
)
from walras.model.auctions.game.policies import Policies

BATCH, SMOOTHING = 8192, 0.005  # of what is learned
SEEDS = range(5)
SMOOTHINGS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
ESTIMATORS = (
    FirstOrder(),
    Reinforce(noise=0.02),
    Reinforce(noise=0.05),
    Reinforce(noise=0.2),
    Evolution(noise=0.01),
    Evolution(noise=0.02),
    Evolution(noise=0.05),
    Evolution(noise=0.2),
)


@dataclass(frozen=True)
class Effort:
    """How much is done: iterations of learning, sampled games, and repeated estimates of a gradient."""

    iterations: int = 4000
    games: int = 2**22
    repeats: int = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to bid in smoothed auctions.")
    parser.add_argument("--quick", action="store_true", help="a fast check that everything runs; writes no file")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    effort = Effort(iterations=50, games=2**14, repeats=8) if quick else Effort()
    two, first = two_bidders(effort)
    sections = [machine(), two, others(effort, first), signed_errors(effort), errors(effort), variances(effort, first)]
    if not quick:
        text = "\n\n".join(["# Results of `benchmarks/smoothed_game.py`", *sections])
        Path(__file__).with_name("SMOOTHED_GAME.md").write_text(text + "\n")


def first_price(bidders: int) -> Callable:
    """The equilibrium bids of uniform values."""
    return lambda value: value * (bidders - 1) / bidders


def truthful(value):
    return value


def two_bidders(effort: Effort) -> tuple[str, Learned]:
    """A section, and the policies that were learned last."""
    rows, found = [], None
    for seed in SEEDS:
        found, seconds = learned(SmoothedAuction(2, smoothing=SMOOTHING), first_price(2), effort, seed)
        rows.append((f"key {seed}", *accuracy(found), f"{seconds:.1f}"))
    assert found is not None
    text = said(
        "## First price, two bidders with uniform values",
        "",
        f"λ = {SMOOTHING}, published prices, {effort.iterations} iterations on {BATCH} games each. The distance is the root "
        "mean square of learned less equilibrium bids; the utility loss is what a best response would earn more, exactly.",
        "",
        *table(("", "distance", "utility loss", "CPU-seconds"), rows),
    )
    return text, found


def learned(game, equilibrium, effort: Effort, seed: int = 0, **options) -> tuple[Learned, float]:
    jax.clear_caches()
    began = time.process_time()
    options = {"iterations": effort.iterations, "batch": BATCH, **options}
    found = learn(game, key=jax.random.key(seed), equilibrium=equilibrium, **options)
    return found, time.process_time() - began


def accuracy(found: Learned) -> tuple[str, str]:
    curves = found.curves
    return f"{np.max(curves.distance[-1]):.4f}", f"{np.max(curves.utility_loss[-1]):.1e}"


def others(effort: Effort, first: Learned) -> str:
    games = [
        ("first, own price", SmoothedAuction(2, payment="own", smoothing=SMOOTHING), first_price(2), {}),
        ("first, a policy for each", SmoothedAuction(2, smoothing=SMOOTHING), first_price(2), {"shared": False}),
        ("first, values √u", SmoothedAuction(2, jnp.sqrt, smoothing=SMOOTHING), lambda v: 2 * v / 3, {}),
        ("first, values up to 1 and 2", SmoothedAuction(2, [_up_to(1.0), _up_to(2.0)], smoothing=SMOOTHING), _asymmetric, {}),
        ("first, 3 items", SmoothedAuction(2, items=3, smoothing=SMOOTHING), first_price(2), {}),
        *(
            (
                f"first, {n} bidders, {allocation}",
                SmoothedAuction(n, allocation=allocation, smoothing=SMOOTHING),
                first_price(n),
                {},
            )
            for n in (3, 5)
            for allocation in ("softmax", "sigmoid")
        ),
        ("second", SmoothedAuction(2, pricing="second", smoothing=SMOOTHING), truthful, {"start": first}),
        (
            "second, own price",
            SmoothedAuction(2, pricing="second", payment="own", smoothing=SMOOTHING),
            truthful,
            {"start": first},
        ),
        *(
            (f"first, by {type(one).__name__}", SmoothedAuction(2, smoothing=SMOOTHING), first_price(2), {"estimator": one})
            for one in (Reinforce(), Evolution())
        ),
    ]
    rows = []
    for name, game, equilibrium, options in games:
        found, seconds = learned(game, equilibrium, effort, **options)
        rows.append((name, *accuracy(found), f"{seconds:.1f}"))
        print(rows[-1], flush=True)
    return said(
        "## Other auctions",
        "",
        "As above, key 0, the largest over bidders; two bidders where nothing else is said. Second-price auctions start from "
        "the policies that were learned for the first price, 0.29 from truthful ones.",
        "",
        *table(("", "distance", "utility loss", "CPU-seconds"), rows),
    )


def _up_to(top: float) -> Callable:
    return lambda level: top * level


def _asymmetric(values):
    """Bids that invert 2b/(1 + kb²), k = ±(1 − 1/4)."""
    k = jnp.array([[0.75], [-0.75]])
    return values / (1 + jnp.sqrt(1 - jnp.broadcast_to(k, values.shape) * values**2))


def signed_errors(effort: Effort) -> str:
    rows = []
    for payment in ("published", "own"):
        game, bid = SmoothedAuction(2, payment=payment), first_price(2)
        sampled = sampled_smoothing_error(game, bid, key=jax.random.key(0), batch=effort.games)
        found = smoothing_error(game, bid), smoothing_error_estimate(game, bid)
        bound = smoothing_error_bound(game, smallest_slope(game, bid))
        rows.append(
            (payment, *(f"{x:.3e}" for x in found), f"{sampled.mean:.3e} ± {sampled.standard_error:.0e}", f"{bound:.3f}")
        )
    return said(
        "## What smoothing takes from utility at the true equilibrium",
        "",
        f"Exact less smoothed utility, first price, two bidders with uniform values, λ = 0.01; {effort.games} sampled games.",
        "",
        *table(("price", "quadrature", "leading order", "sampled", "bound"), rows),
    )


def errors(effort: Effort) -> str:
    rows = []
    for bidders in (2, 3, 4, 5):
        bid = first_price(bidders)
        for smoothing in SMOOTHINGS:
            sigmoid, softmax = (
                SmoothedAuction(bidders, smoothing=smoothing, allocation=allocation) for allocation in ("sigmoid", "softmax")
            )
            sampled = sampled_smoothing_error(softmax, bid, key=jax.random.key(0), batch=effort.games)
            numbers = (
                smoothing_error(sigmoid, bid),
                smoothing_error_estimate(sigmoid, bid),
                smoothing_error_estimate(softmax, bid),
                smoothing_error_bound(softmax, smallest_slope(softmax, bid)),
                smoothing * (np.log(2) + 1) * bidders / (bidders - 1),
            )
            one, two, three, four, five = (f"{float(number):.2e}" for number in numbers)
            drawn = f"{sampled.mean:.2e} ± {sampled.standard_error:.0e}"
            rows.append((f"{bidders}, {smoothing}", one, two, drawn, three, four, five))
    return said(
        "## Smoothing errors at the equilibrium against λ",
        "",
        "First price, published, uniform values: exact less smoothed utility of a bidder. The bound is that of "
        "`smoothing_error_bound` for the softmax; the last column is λ(log 2 + 1) over the least slope of the bid function.",
        "",
        *table(
            (
                "n, λ",
                "sigmoid, quadrature",
                "leading order",
                "softmax, sampled",
                "leading order",
                "bound",
                "λ(log 2 + 1)/min β′",
            ),
            rows,
        ),
    )


def variances(effort: Effort, first: Learned) -> str:
    game = SmoothedAuction(2)
    lines = []
    for title, policies in (
        ("Truthful policies, from which learning starts", Policies.truthful(game, jax.random.key(0))),
        ("Policies near the equilibrium", first.policies),
    ):
        rows, base = [], None
        for estimator in ESTIMATORS:
            row, base = _variance_row(game, policies, estimator, effort, base)
            rows.append(row)
            print(row, flush=True)
        head = ("", "variance", "relative", "CPU-ms", "relative at equal time", "variance, a batch for each policy", "relative")
        lines += [f"{title}:", "", *table(head, rows), ""]
    return said(
        "## Variance of gradients",
        "",
        "The sum over parameters, first price, two bidders, λ = 0.01, 4096 games evaluated for each estimate. Evolution "
        "divides them among 32 perturbed policies; the last columns are for 4096 games for each of these, 32 times the work. "
        "Noise of REINFORCE is relative to the values' interquartile range, 0.5, that of evolution is of parameters.",
        "",
        *lines[:-1],
    )


def _variance_row(game, policies, estimator, effort: Effort, base):
    """A table's row, and the variance and time that others are relative to, which are the first row's."""
    games = 4096

    def measured(batch, repeats):
        def call():
            return gradient_variance(game, policies, estimator, key=jax.random.key(1), batch=batch, repeats=repeats)

        jax.block_until_ready(call())
        began = time.process_time()
        variance = float(call().variance)
        return variance, (time.process_time() - began) / repeats

    variance, seconds = measured(games, effort.repeats)
    base = (variance, seconds) if base is None else base
    population = getattr(estimator, "population", 1)
    whole = variance if population == 1 else measured(games * population, max(effort.repeats // 8, 4))[0]
    noise = f", noise {estimator.noise}" if hasattr(estimator, "noise") else ""
    return (
        f"{type(estimator).__name__}{noise}",
        f"{variance:.1e}",
        f"{variance / base[0]:,.1f}",
        f"{1e3 * seconds:.2f}",
        f"{variance * seconds / (base[0] * base[1]):,.1f}",
        f"{whole:.1e}",
        f"{whole / base[0]:,.1f}",
    ), base


if __name__ == "__main__":
    main()
