"""Times markets with trading costs, the recursion, the lattice and their gradients; writes TRADING.md beside this file.

uv run python benchmarks/trading.py           two minutes; leave the machine to it
uv run python benchmarks/trading.py --quick   printed only: small sizes
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from run import machine, said, table, time_of
from timing import timed

from walras.model import TradingCosts

_HORIZON = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description="Time markets with trading costs.")
    parser.add_argument("--quick", action="store_true", help="a fast check that everything runs; writes no file")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    sections = [machine(), times(quick)]
    if not quick:
        text = "\n\n".join(["# Results of `benchmarks/trading.py`", *sections])
        Path(__file__).with_name("TRADING.md").write_text(text + "\n")


def times(quick: bool) -> str:
    cells = [
        (name, str(agents), str(steps), time_of(compilation), time_of(forward), time_of(both), f"{both / forward:.2f}")
        for name, agents, steps, compilation, forward, both in solves(quick)
    ]
    return said(
        "The price of continuous trading, extrapolated, and its gradient in all parameters. Trained networks are in "
        "[GENERATIVE.md](GENERATIVE.md).",
        "",
        *table(("solver", "agents", "steps", "compile", "price", "price and gradient", "ratio"), cells),
    )


def market(agents: int, power: float = 2.0) -> TradingCosts:
    """Agents with risk aversions from 1 to 2 and endowments that offset each other."""
    endowment = jnp.asarray(np.random.default_rng(0).normal(size=agents))
    return TradingCosts(jnp.linspace(1.0, 2.0, agents), 5.0 * (endowment - endowment.mean()), 0.01, power=power)


def solves(quick: bool):
    """Rows (solver, agents, steps, compilation, seconds, seconds with the gradient of the price in all parameters).

    A solve includes its extrapolation: 8 times the steps for quadratic costs, 4 times for others.
    """
    sizes = [(2, 32), (2, 64), (2, 128), (10, 64), (20, 64), (40, 64)]
    for agents, steps in sizes[:2] if quick else sizes:
        yield "recursion", agents, steps, *_times(market(agents), steps)
    for steps in (16,) if quick else (16, 32, 64):
        yield "lattice, q = 3/2", 2, steps, *_times(market(2, 1.5), steps)


def _times(parameters, steps):
    def price(parameters):
        return parameters.solve(_HORIZON, steps).price0

    parameters = jax.tree.map(jnp.asarray, parameters)
    forward, both = jax.jit(price), jax.jit(jax.value_and_grad(price))
    solved, with_gradient = (timed(function, parameters, seconds=0.5, fewest=2) for function in (forward, both))
    return solved.compilation, solved.seconds, with_gradient.seconds


if __name__ == "__main__":
    main()
