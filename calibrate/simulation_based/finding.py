"""What simulation-based calibration finds of a sampler."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.stats import binom

from walras.calibrate.errors import CalibrationError
from walras.calibrate.finding import Finding
from walras.calibrate.simulation_based.uniformity import p_value

PROBABILITIES = (0.5, 0.8, 0.9, 0.95)
_FEW = 0.05  # the share of replications with too few effective draws beyond which there is advice
_CLEAR = 3.0  # standard errors beyond which a deviation has a name


@dataclass(frozen=True)
class SBC(Finding):
    """Ranks of true values among posterior draws, and whether they are uniform.

    `table`, a row for each quantity: `p` (of the exact test of its ranks, times the number of quantities: below `level` it is
    rejected), `verdict` in words, and how often central posterior intervals hold the truth ("50 %", …). `expected` (nominal,
    low and high by interval): the share of a right sampler, and where it is found in 99 % of such runs. `ranks`
    (replications, quantities): from 0, the truth being below all draws, to `draws`. `states`, a row for each replication:
    `ess` the effective number of draws of the quantity that has the fewest, and `divergences`. `failed` replications could
    not start and are not ranked; `unsolved` draws of the prior had no equilibrium and were replaced.
    """

    table: pd.DataFrame
    expected: pd.DataFrame
    ranks: pd.DataFrame
    states: pd.DataFrame
    draws: int
    level: float
    failed: int
    unsolved: int

    name: ClassVar[str] = "sbc"

    @property
    def rejected(self) -> list[str]:
        """The quantities whose ranks are not uniform."""
        return list(self.table.index[self.table["p"] < self.level])

    @property
    def unmixed(self) -> int:
        """Replications whose draws are worth fewer than the ranks suppose."""
        return int((self.states["ess"] < self.draws).sum())

    @property
    def text(self):
        return " ".join([self._decision(), *self._warnings()])

    def _decision(self) -> str:
        count, quantities = len(self.ranks), len(self.table)
        if not self.rejected:
            return (
                f"{count} replications: the ranks of all {quantities} quantities are uniform (a sampler that is right is "
                f"rejected with probability {self.level:g} at most)."
            )
        found = "; ".join(f"{name}: {self.table.loc[name, 'verdict']}" for name in self.rejected)
        return (
            f"{count} replications: the ranks of {len(self.rejected)} of {quantities} quantities are not uniform, which a "
            f"sampler that is right would show with probability {self.level:g} at most. {found}."
        )

    def _warnings(self) -> list[str]:
        count, diverged = len(self.states), int((self.states["divergences"] > 0).sum())
        found = []
        if self.failed:
            found.append(f"{self.failed} replications could not start, and have no ranks.")
        if self.unmixed:
            advice = " That alone may spoil their ranks: draw longer chains." if self.unmixed > _FEW * count else ""
            found.append(
                f"In {self.unmixed} of {count} the posterior draws are worth fewer than {self.draws} independent ones.{advice}"
            )
        if diverged:
            found.append(f"{diverged} of {count} have draws that diverged.")
        if self.unsolved:
            found.append(f"{self.unsolved} draws of the prior had no equilibrium and were replaced, as the posterior does.")
        return found

    def story(self):
        from walras.calibrate.simulation_based.pictures import plot_ecdf_differences, plot_ranks

        how = (
            "Each replication draws parameters from the prior and data from the model, and samples from the posterior given "
            f"these data. The rank of the true value among {self.draws} of its draws, evenly spaced, must be uniform if the "
            "sampler, the likelihood and the prior agree."
        )
        curves = (
            "The share of ranks up to each, less that of uniform ranks. A curve of a right sampler stays inside its band; the "
            f"probability that any leaves it is {self.level:g}. A curve above zero means that true values are too often below "
            "their posterior draws."
        )
        bars = "Each bar and each grey band is of a group of ranks: where a bar of a right sampler is with probability 99 %."
        intervals = "How often central posterior intervals hold the truth. In 99 of 100 runs, shares of a right sampler are:"
        return [
            ("Calibration", [self.text, how, self.table]),
            ("Ranks", curves, plot_ecdf_differences(self)),
            ("Histograms of ranks", bars, plot_ranks(self)),
            ("Coverage", [intervals, self.expected]),
        ]


def judge(names: list[str], found: Mapping[str, np.ndarray], *, unsolved: int, draws: int, level: float) -> SBC:
    """The finding of what `rank_batch` found of all replications."""
    ranked = (found["ranks"] >= 0).all(axis=1)
    if not ranked.any():
        raise CalibrationError("no replication could start: give narrower priors, or sampler init values by name")
    ranks = pd.DataFrame(found["ranks"][ranked], columns=names)
    rows = {name: _row(ranks[name].to_numpy(), draws, len(names), level) for name in names}
    states = pd.DataFrame({"ess": found["ess"][ranked], "divergences": found["divergences"][ranked].astype(int)})
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")
    return SBC(table, _expected(len(ranks), draws), ranks, states, draws, float(level), int(np.sum(~ranked)), unsolved)


def _row(ranks: np.ndarray, draws: int, quantities: int, level: float) -> dict[str, float | str]:
    p = min(p_value(ranks, draws) * quantities, 1.0)
    verdict = "uniform" if p >= level else _in_words((ranks + 0.5) / (draws + 1))
    return {"p": p, "verdict": verdict, **{_percent(share): _inside(ranks, draws, share) for share in PROBABILITIES}}


def _in_words(shares: np.ndarray) -> str:
    """How shares of draws below the truth deviate from uniform ones: their mean is 1/2, and |share − 1/2| has mean 1/4."""
    place = (shares.mean() - 0.5) * np.sqrt(12.0 * shares.size)
    width = (np.abs(shares - 0.5).mean() - 0.25) * np.sqrt(48.0 * shares.size)
    found = []
    if abs(place) > _CLEAR:
        found.append("draws are too high" if place < 0 else "draws are too low")
    if abs(width) > _CLEAR:
        found.append("posteriors are too narrow" if width > 0 else "posteriors are too wide")
    return " and ".join(found) or "posteriors have another shape"


def _tail(draws: int, share: float) -> int:
    """The number of ranks beyond each end of a central interval."""
    return round((1.0 - share) / 2.0 * (draws + 1))


def _inside(ranks: np.ndarray, draws: int, share: float) -> float:
    tail = _tail(draws, share)
    return float(np.mean((ranks >= tail) & (ranks <= draws - tail)))


def _expected(replications: int, draws: int) -> pd.DataFrame:
    nominal = {_percent(share): 1.0 - 2.0 * _tail(draws, share) / (draws + 1) for share in PROBABILITIES}
    bands = {name: np.asarray(binom.interval(0.99, replications, p)) / replications for name, p in nominal.items()}
    rows = {name: {"nominal": nominal[name], "low": bands[name][0], "high": bands[name][1]} for name in nominal}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("interval")


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
