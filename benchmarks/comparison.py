"""walras and the published iteration on the published cases, and what agents would best do at either's price."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import published
from cases import CASES, INITIAL, STEPS, Case
from scipy.interpolate import CubicSpline
from timing import Timed, once, timed

from walras.model import ClosedForm, Diffusion, PathEquilibrium, Status, verify
from walras.model.price_formation.strategy import Paths

NOISE = 0.05
KEY = 0  # of the published iteration's random start
_SHORT = 50  # iterations of a short run of it


@dataclass(frozen=True)
class Setting:
    """What walras solves a case with: steps of supply, and a solver with nothing left to choose.

    A grid is cut down from what `Diffusion().chosen(game)` takes: 1.5 widths of the narrowest kernel apart instead of 1.2, on a
    domain beyond which less than 1e-9 of the agents go.
    """

    steps: int
    solver: ClosedForm | Diffusion

    @property
    def text(self) -> str:
        if isinstance(self.solver, ClosedForm):
            return f"closed form, {self.steps} steps"
        chosen = self.solver
        substeps = f" × {chosen.substeps}" if chosen.substeps != 1 else ""
        return f"diffusion, {self.steps}{substeps} steps, {chosen.points} points, band {chosen.band}"


def grid(points: int, band: int, reach: float, substeps: int = 1) -> Diffusion:
    return Diffusion(points=points, band=band, domain=(-reach, reach), substeps=substeps, log_domain=False, tolerance=1e-5)


SETTINGS = {
    "1": Setting(1000, ClosedForm()),
    "2": Setting(1000, ClosedForm()),
    "3": Setting(16, grid(120, 120, 0.65)),
    "4a": Setting(40, grid(112, 16, 0.6)),
    "4b": Setting(100, grid(160, 16, 0.6)),
}


@eqx.filter_jit
def solve(market, supply, initial, solver) -> PathEquilibrium:
    return market.solve(supply, initial=initial, solver=solver)


@dataclass(frozen=True)
class Comparison:
    """One case: times of walras and of the published iteration, its gradients as published and fused, and certificates.

    `certificates`: (clearing error, exploitability) by solver and noise, each in the game with that solver's own steps; `fine`:
    the clearing error of walras' price in the game of 1000 steps.
    """

    case: Case
    setting: Setting
    walras: Timed
    published: Timed
    fused: Timed
    certificates: dict[tuple[str, float], tuple[float, float]]
    fine: float


def compare(iterations: int = published.ITERATIONS) -> Iterator[Comparison]:
    for case in CASES:
        setting = SETTINGS[case.name]
        market = case.market(NOISE)
        ours = timed(solve, market, jnp.asarray(case.mean_supply(setting.steps)), jnp.asarray(INITIAL), setting.solver)
        if not bool(ours.result.status == Status.solved):
            raise SystemExit(f"case {case.name}: {Status[ours.result.status]}")
        game = case.holding, case.terminal, jnp.asarray(case.supply), jnp.asarray(INITIAL)
        theirs, fused = (_published(method, game, iterations) for method in (published.solve, published.solve_fused))
        found = {"walras": ours.result, "published": fused.result}
        certificates = {(name, noise): _certificate(case, noise, end) for name, end in found.items() for noise in (NOISE, 0.0)}
        fine = verify(market, in_full(case, ours.result)).clearing_error
        yield Comparison(case, setting, ours, theirs, fused, certificates, fine)


def _published(method, game, iterations) -> Timed:
    """One whole run, and many short ones, which a busy machine delays no more than those of walras: the less is taken."""

    def run(count):
        return method(*game, key=jax.random.key(KEY), iterations=count)

    short = timed(run, jnp.asarray(_SHORT))
    result, seconds = once(run, (jnp.asarray(iterations),))
    return Timed(result, short.compilation, min(seconds, short.seconds * iterations / _SHORT))


def _certificate(case: Case, noise: float, found) -> tuple[float, float]:
    checked = verify(case.market(noise), found)
    return checked.clearing_error, checked.exploitability


def in_full(case: Case, found: PathEquilibrium):
    """The price of a solve with fewer steps, at all 1000: its smooth part p̄ by a spline, less cQ with the supply there."""
    nodes, every = np.linspace(0.0, 1.0, found.price.size + 1), np.linspace(0.0, 1.0, STEPS + 1)
    integral = np.append(0.0, np.cumsum(np.asarray(found.costate))) / found.price.size
    price = np.diff(CubicSpline(nodes, integral)(every)) * STEPS - case.supply
    moved = np.append(0.0, np.cumsum(case.supply)) / STEPS
    return SimpleNamespace(
        horizon=1.0,
        supply=case.supply,
        price=price,
        initial=INITIAL,
        weights=np.full(INITIAL.size, 1.0 / INITIAL.size),
        strategy=lambda: Paths(INITIAL + moved[:, None]),  # anything: only the price is judged
    )
