"""Measures walras against the published iteration, and how its cost grows; writes RESULTS.md beside this file.

    uv run python benchmarks/run.py           about ten minutes; leave the machine to it, and 16 GiB of memory
    uv run python benchmarks/run.py --quick   two minutes, printed only: few iterations, small sizes, no memory figure

Times are medians of repeated short runs in one process, after compilation; that of the published iteration is of 50 of its
iterations, times 200, or of a whole run if that took less. Figures to compare are ratios.
"""

import argparse
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import jax
import jaxlib
import published
from cases import AGENTS, SEED, STEPS
from comparison import KEY, NOISE, Comparison, compare
from growth import by_agents, by_points, by_steps, gradients, linear_quadratic, peak_memory

MACHINE = Path("/proc/cpuinfo")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure walras against the published iteration.")
    parser.add_argument("--quick", action="store_true", help="a fast check that everything runs; writes no file")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    sections = [machine(), cases(quick), growth(quick), derivatives(), closed_form()]
    if not quick:
        sections.append(memory())
        text = "\n\n".join(["# Results of `benchmarks/run.py`", *sections])
        Path(__file__).with_name("RESULTS.md").write_text(text + "\n")


def said(*lines: str) -> str:
    text = "\n".join(lines)
    print(text, end="\n\n", flush=True)
    return text


def table(head: tuple[str, ...], rows) -> list[str]:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def time_of(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def machine() -> str:
    models = [line.split(":")[1].strip() for line in MACHINE.read_text().splitlines() if line.startswith("model name")]
    return said(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {models[0] if models else platform.processor()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}; double precision."
    )


def cases(quick: bool) -> str:
    iterations = 500 if quick else published.ITERATIONS
    found = []
    for comparison in compare(iterations):
        print(_cells(comparison), flush=True)
        found.append(comparison)
    times = table(
        ("case", "walras", "compile", "time", "published", "time / walras", "fused", "time / walras"), map(_cells, found)
    )
    errors = table(
        (
            "case",
            f"walras, σ = {NOISE}",
            f"the same price in {STEPS} steps",
            "walras, σ = 0",
            f"published, σ = {NOISE}",
            "published, σ = 0",
        ),
        map(_errors, found),
    )
    return said(
        "## The published cases",
        "",
        f"{AGENTS} agents; the Wiener path has seed {SEED}. The published iteration: {iterations} iterations on {STEPS} Euler "
        f"steps, without noise, from the random rates of key {KEY}; *published* takes gradients by automatic differentiation, "
        "as its authors do, *fused* is the same map with gradients written by hand for speed. walras: noise "
        f"{NOISE}, the means of the same supply over its own steps.",
        "",
        *times,
        "",
        "Clearing error (units / time) and exploitability (money), by `walras.model.verify`, each in the game of the given "
        f"noise with its own steps; and the clearing error of walras' price in the game of all {STEPS} steps (its smooth part "
        "by a spline, less cQ). Those of the published iteration are of the fused run.",
        "",
        *errors,
    )


def _cells(found: Comparison) -> tuple[str, ...]:
    ours, theirs, fused = found.walras, found.published, found.fused
    return (
        found.case.name,
        found.setting.text,
        time_of(ours.compilation),
        time_of(ours.seconds),
        time_of(theirs.seconds),
        f"{theirs.seconds / ours.seconds:,.0f}",
        time_of(fused.seconds),
        f"{fused.seconds / ours.seconds:,.0f}",
    )


def _errors(found: Comparison) -> tuple[str, ...]:
    cells = {key: f"{clearing:.1e}, {gap:.1e}" for key, (clearing, gap) in found.certificates.items()}
    ours, theirs = ([cells[name, noise] for noise in (NOISE, 0.0)] for name in ("walras", "published"))
    return found.case.name, ours[0], f"{found.fine:.1e}", ours[1], *theirs


def growth(quick: bool) -> str:
    lines = ["## Growth", ""]
    for title, head, rows in (
        ("steps (100 agents)", "steps", by_steps(320 if quick else 10_000)),
        ("agents (100 steps)", "agents", by_agents(10_000 if quick else 10**6)),
        ("grid points of the diffusion (32 steps)", "points", by_points(384 if quick else 1536)),
    ):
        cells, last = [], {}
        for name, size, seconds in rows:
            growth = f"{seconds / last[name][1]:.2f} for {size / last[name][0]:.3g}" if name in last else ""
            cells.append((name, f"{size:,}", time_of(seconds), growth))
            last[name] = size, seconds
        lines += [f"By {title}:", "", *table(("solver", head, "time", "times the row before"), cells), ""]
    return said(*lines[:-1])


def derivatives() -> str:
    cells = [(name, time_of(forward), time_of(both), f"{both / forward:.2f}") for name, forward, both in gradients()]
    return said(
        "## Value and gradient",
        "",
        "A weighted mean of the price, and its gradient in all of the market's parameters, the supply and the positions.",
        "",
        *table(("solver", "value", "value and gradient", "ratio"), cells),
    )


def closed_form() -> str:
    seconds, error = linear_quadratic()
    return said(
        "## The linear–quadratic price",
        "",
        f"1000 steps, every parameter an argument: {time_of(seconds)}; largest error {error:.1e} against the formula summed "
        "step by step in extended precision.",
    )


def memory() -> str:
    sizes = (10**4, 10**5, 10**6)
    cells = [(f"{agents:,}", f"{peak_memory(agents):.2f} GiB") for agents in sizes]
    return said(
        "## Peak memory of the agents solver, 100 steps",
        "",
        *table(("agents", "peak of the process"), cells),
    )


if __name__ == "__main__":
    main()
