"""1000 markets fitted one by one, on two workers against one: `python benchmarks/panels.py [markets] [repeats]`.

Runs alternate between one worker and two, whose processes are warm: each has fitted a batch, and compiled. Reported are
seconds on the wall and of the workers' processors, and the load of the machine, since others may be using it.
"""

import os
import sys
import tempfile
import time

import jax
import numpy as np
import pandas as pd

from walras.calibrate import NUTS, ForeseenPrices, Panel, fit_each
from walras.calibrate.distributing import scheduler

ROWS, BATCH = 30, 50
SAMPLER = NUTS(chains=2, warmup=200, draws=100)


def panel(markets: int) -> Panel:
    """Simulated prices that fall with supply; every market has a level and a response of its own."""
    rng = np.random.default_rng(1)
    supply = rng.normal(size=(markets, ROWS))
    level, response = 10 + rng.normal(size=(markets, 1)), np.exp(0.3 * rng.normal(size=(markets, 1)))
    price = level - response * supply + 0.5 * rng.normal(size=(markets, ROWS))
    names = np.repeat([f"market {number:04d}" for number in range(markets)], ROWS)
    times = np.tile(np.arange(ROWS), markets)
    frame = pd.DataFrame({"market": names, "time": times, "price": price.ravel(), "supply": supply.ravel()})
    return Panel("price_formation", frame, ForeseenPrices())


def run(workers: int, whole: Panel, few: Panel):
    """The tree, seconds on the wall, seconds of the workers' processors, and the load while it ran."""
    with scheduler(workers=workers) as executor:
        fit_each(few, SAMPLER, key=jax.random.key(0), executor=executor, batch=BATCH)
        before = _processor_seconds(executor)
        began = time.perf_counter()
        tree = fit_each(whole, SAMPLER, key=jax.random.key(0), executor=executor, batch=BATCH)
        wall = time.perf_counter() - began
        return tree, wall, _processor_seconds(executor) - before, os.getloadavg()[0]


def _processor_seconds(executor) -> float:
    return sum(executor._client.run(time.process_time).values())


def main():
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    markets, repeats = map(int, (sys.argv[1:] + ["1000", "5"][len(sys.argv) - 1 :])[:2])
    whole = panel(markets)
    # Of the same first market, so that what workers compile for these serves the whole.
    few = Panel(whole.market, whole.data.iloc[: 2 * BATCH * ROWS], whole.observation)
    walls = {1: [], 2: []}
    first = None
    print("| workers | wall, s | processors, s | load |\n|---|---|---|---|", flush=True)
    for _ in range(repeats):
        for workers in walls:
            tree, wall, processors, load = run(workers, whole, few)
            walls[workers].append(wall)
            first = tree if first is None else first
            assert tree.identical(first)
            print(f"| {workers} | {wall:.1f} | {processors:.1f} | {load:.1f} |", flush=True)
    ratios = np.array(walls[1]) / np.array(walls[2])
    print(f"\nratio of neighbouring runs: median {np.median(ratios):.2f}, from {ratios.min():.2f} to {ratios.max():.2f}")


if __name__ == "__main__":
    main()
