"""How the cost of a solve grows with steps, agents and grid points; gradients; the linear–quadratic price; memory."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from cases import BOWL, CASES, INITIAL
from comparison import NOISE, SETTINGS, grid, solve
from timing import timed

from walras.model import Agents, ClosedForm, PriceFormation, Quadratic, Status

_CASE = CASES[3]  # 4a


def quartic(position):
    """A convex cost that is not quadratic, so that agents' problems take several Newton steps."""
    return 5.0 * position**4


def _markets():
    yield "closed form", PriceFormation(jnp.asarray(1.0), holding=BOWL), ClosedForm()
    yield "agents", PriceFormation(jnp.asarray(1.0), holding=quartic), Agents(substeps=1, tolerance=1e-6)


def _seconds(market, supply, initial, solver) -> float:
    figure = timed(solve, market, jnp.asarray(supply), jnp.asarray(initial), solver, seconds=0.5, fewest=1)
    if not bool(figure.result.status == Status.solved):
        raise SystemExit(Status[figure.result.status])
    return figure.seconds


def by_steps(most: int):
    """Rows (solver, steps, seconds) with 100 agents; the diffusion with 384 points and a band of 48, up to 512 steps."""
    for name, market, solver in _markets():
        for steps in (32, 100, 320, 1000, 3200, 10_000):
            if steps <= most:
                yield name, steps, _seconds(market, _CASE.mean_supply(steps), INITIAL, solver)
    for steps in (32, 64, 128, 256, 512):
        if steps <= most:
            supply = _CASE.mean_supply(steps)
            yield "diffusion", steps, _seconds(_CASE.market(NOISE), supply, INITIAL, grid(384, 48, 0.6))


def by_agents(most: int):
    """Rows (solver, agents, seconds) with 100 steps."""
    for name, market, solver in _markets():
        for agents in 10 ** np.arange(2, 7):
            if agents <= most:
                yield name, agents, _seconds(market, _CASE.mean_supply(100), np.linspace(0.0, 1.0, agents), solver)


def by_points(most: int):
    """Rows (grid, points, seconds) of the diffusion with 32 steps: a wider grid with the same band, or a finer one.

    The band of a finer grid is as long, and so has more points: the cost of a step is points × band.
    """
    for points in (192, 384, 768, 1536):
        if points <= most:
            for name, solver in (
                ("wider, band 24", grid(points, 24, 0.75 * points / 192)),
                ("finer, band an eighth", grid(points, points // 8, 0.75)),
            ):
                yield name, points, _seconds(_CASE.market(NOISE), _CASE.mean_supply(32), INITIAL, solver)


def gradients():
    """Rows (solver, seconds of a solve, seconds of the value and gradient of a mean of its price) in all parameters."""
    wells = jax.tree.map(jnp.asarray, _CASE.market(NOISE))
    lines = jax.tree.map(jnp.asarray, PriceFormation(1.0, Quadratic(10.0, 0.1), Quadratic(2.0, 0.3)))
    for name, market, steps, solver in (
        ("closed form, 1000 steps", lines, 1000, ClosedForm()),
        ("agents, quadratic costs, 100 steps", lines, 100, Agents(substeps=1)),
        ("diffusion, case 4a", wells, SETTINGS["4a"].steps, SETTINGS["4a"].solver),
    ):

        def price(parameters, solver=solver, steps=steps):
            market, supply, initial = parameters
            return jnp.mean(market.solve(supply, initial=initial, solver=solver).price * jnp.arange(1.0, steps + 1))

        parameters = market, jnp.asarray(_CASE.mean_supply(steps)), jnp.asarray(INITIAL)
        forward, both = jax.jit(price), jax.jit(jax.value_and_grad(price))
        # By turns, so that both see the same machine.
        rounds = [
            (timed(forward, parameters, seconds=0.2).seconds, timed(both, parameters, seconds=0.2).seconds) for _ in range(9)
        ]
        yield name, *np.median(rounds, axis=0)


def linear_quadratic(steps: int = 1000):
    """Seconds of the price with array arguments, and its largest error against the formula by another route."""
    parameters = [jnp.asarray(value) for value in (0.7, 1.3, 0.4, 2.1, -0.3)]
    supply = jnp.asarray(CASES[1].mean_supply(steps))

    @jax.jit
    def price(c, eta, kappa, gamma, zeta, supply, initial):
        market = PriceFormation(c, Quadratic(eta, kappa), Quadratic(gamma, zeta))
        return market.solve(supply, initial=initial).price

    figure = timed(price, *parameters, supply, jnp.asarray(0.5), seconds=0.2)
    exact = _formula(*(np.longdouble(float(value)) for value in parameters), np.asarray(supply, np.longdouble))
    return figure.seconds, float(np.max(np.abs(np.asarray(figure.result) - exact)))


def _formula(c, eta, kappa, gamma, zeta, supply):
    """−cQ − γ (X̄(1) − ζ) − η ∫ₜ¹ (X̄ − κ), step by step back from the end, in extended precision.

    The integral is a quadratic in t within a step: Simpson's rule of its values there is its exact mean.
    """
    h = 1 / np.longdouble(supply.size)
    end = np.longdouble(0.5) + h * supply.sum()
    price, later, at = np.empty_like(supply), np.longdouble(0), end
    for k in range(supply.size - 1, -1, -1):
        middle, start = at - h / 2 * supply[k], at - h * supply[k]
        from_middle = later + h / 2 * ((middle + at) / 2 - kappa)
        from_start = later + h * (middle - kappa)
        price[k] = -c * supply[k] - gamma * (end - zeta) - eta * (from_start + 4 * from_middle + later) / 6
        later, at = from_start, start
    return price


def peak_memory(agents: int) -> float:
    """GiB at the peak of a process that solves for so many agents and 100 steps."""
    run = [sys.executable, str(Path(__file__)), str(agents)]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def _solve_and_measure(agents: int) -> None:
    jax.config.update("jax_enable_x64", True)
    _, market, solver = list(_markets())[1]
    found = solve(market, jnp.asarray(_CASE.mean_supply(100)), jnp.linspace(0.0, 1.0, agents), solver)
    jax.block_until_ready(found.price)
    # Not getrusage's maximum, which a process inherits from the one that started it.
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(int(peak) / 2**20)


if __name__ == "__main__":
    _solve_and_measure(int(sys.argv[1]))
