"""Trains networks for markets with and without exact solutions; writes GENERATIVE.md beside this file.

    uv run python benchmarks/generative.py           about half an hour; leave the machine to it
    uv run python benchmarks/generative.py --quick   two minutes, printed only: few iterations, one key

Every training is in this process, and shows a progress bar. Times are of whole solves: compilation, training and judging.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from run import machine, said, table, time_of
from timing import once

from walras.model import Status, TradingCosts, Training, solve_generative
from walras.model.trading_costs import lattice, quadratic

STEPS, KEYS = 32, (0, 1, 2)
QUICK = 20  # iterations


@dataclass(frozen=True)
class Case:
    """A market, what solves it exactly at the same steps, if anything, and rows of published figures."""

    title: str
    market: TradingCosts
    horizon: float
    iterations: int
    exact: tuple[str, Callable] | None = None
    published: tuple[tuple[str, ...], ...] = ()


def market(risk_aversion, endowment, power: float) -> TradingCosts:
    return TradingCosts(jnp.array(risk_aversion), jnp.array(endowment), 0.01, power=power, payoff_drift=2.0)


TEN = [28.9, 14.9, 11.8, -14.0, -19.1, -27.0, 22.2, 31.5, -26.3, -22.9]
CASES = (
    Case(
        "Ten agents, q = 2",
        market([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9], TEN, 2.0),
        0.2,
        2000,
        ("recursion", quadratic.figures),
        (
            ("published, μ known", "", "", "", "S₀ off by 1", "", ""),
            ("published, μ learned", "", "0.136", "", "μ₀ off by 37", "", ""),
        ),
    ),
    Case(
        "Two agents, q = 3/2",
        market([1.0, 2.0], [3.0, -3.0], 1.5),
        0.4,
        5000,
        ("lattice", lattice.figures),
        (("published", "0.446 to 0.458", "", "", "S₀ off by 9 to 11", "", "two days"),),
    ),
    Case("Three agents, q = 3/2", market([1.0, 1.5, 2.5], [4.0, -1.0, -3.0], 1.5), 0.2, 5000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train networks for markets with and without exact solutions.")
    parser.add_argument("--quick", action="store_true", help="a fast check that everything runs; writes no file")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    sections = [machine(), introduction(), *(trained(case, quick) for case in CASES)]
    if not quick:
        text = "\n\n".join(["# Results of `benchmarks/generative.py`", *sections])
        Path(__file__).with_name("GENERATIVE.md").write_text(text + "\n")


def introduction() -> str:
    return said(
        f"`solve_generative` with {STEPS} steps. Differences are from the exact solution at the same steps. *Error* is the "
        "solver's own estimate, as `found.error`. *Residuals* are by simulation onwards from "
        "fresh states: by how much marginal costs miss what trading earns (of the agent for whom it is most, relative to the "
        "root mean square of marginal costs), what rates chosen for those earnings sum to (relative to the sum of their "
        "sizes), where the price ends (relative to the payoff's standard deviation), and the standard error of the first by "
        "simulation. Published figures are those of Kratsios, Shi, Sun and Zhang (arXiv 2504.04300).",
    )


def trained(case: Case, quick: bool) -> str:
    own = case.market
    training = Training(iterations=QUICK if quick else case.iterations)
    exact = None if case.exact is None else _first(case.exact[1](own, case.horizon, STEPS))
    rows, accounts = [], []
    for seed in KEYS[:1] if quick else KEYS:
        print(f"{case.title}, key {seed}", flush=True)
        found, seconds = once(_solve, (case, training, seed))
        rows.append(_row(f"key {seed}", _first(found.limit), exact, found, time_of(seconds)))
        accounts.append((f"key {seed}", *_account(found, seed)))
    return said(
        f"## {case.title}",
        "",
        f"γ = {_numbers(own.risk_aversion)}; ξ = {_numbers(own.endowment)}; λ = {own.trading_cost}, T = {case.horizon}, "
        f"β = {own.payoff_drift}, α = s = 1. {training.iterations} iterations on {training.paths} paths.",
        "",
        *table(("", "S₀", "μ₀", "σ₀", "differences, %", "error, %", "time"), [*_known(case, exact), *rows, *case.published]),
        "",
        *table(("residuals, %", "first-order", "clearing", "terminal", "standard error"), accounts),
    )


def _solve(case, training, seed):
    key = jax.random.key(seed)
    return solve_generative(case.market, case.horizon, STEPS, key=key, training=training, progress=True, throw=False)


def _known(case: Case, exact) -> list[tuple[str, ...]]:
    """Rows of exact figures: at the same steps, and of continuous trading."""
    if case.exact is None:
        return []
    name, _ = case.exact
    limit = case.market.solve(case.horizon, STEPS).limit
    return [_row(f"{name}, {STEPS} steps", exact), _row(f"{name}, continuous trading", _first(limit), exact)]


def _row(name, figures, exact=None, found=None, took="") -> tuple[str, ...]:
    pairs = [] if exact is None else zip(figures, exact, strict=True)
    differences = ", ".join(f"{100 * (one / other - 1):+.2f}" for one, other in pairs)
    error = "" if found is None else f"{100 * found.error:.2f}" + ("" if bool(found.status == Status.solved) else " (refused)")
    return name, *(f"{number:.4f}" for number in figures), differences, error, took


def _first(figures) -> list[float]:
    """S₀, μ₀ and σ₀."""
    return [float(number) for number in figures[:3]]


def _account(found, seed) -> list[str]:
    first_order, *others = found.residuals(jax.random.key(100 + seed))
    return [f"{100 * float(share):.2g}" for share in (jnp.max(first_order), *others)]


def _numbers(values) -> str:
    return ", ".join(f"{value:g}" for value in values.tolist())


if __name__ == "__main__":
    main()
