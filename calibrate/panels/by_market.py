"""What fitting every market by itself found, market by market."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from walras.calibrate.checks.verdicts import Verdict
from walras.calibrate.finding import Finding
from walras.calibrate.panels.fitting import failures
from walras.calibrate.panels.judging import report_of

_TAIL = 5.0  # percent on either side of the intervals in tables
_NAMED = 5  # markets that a sentence names
_TABLED = 50  # markets in a table of a page


@dataclass(frozen=True)
class ByMarket(Finding):
    """The fits of a panel's markets.

    `summary`: a row for each market and parameter (`market`, `parameter`) with mean, sd, 5 % and 95 % quantiles, R̂ and bulk
    effective size. `checks`: a row for each market: its verdict, the worst R̂ and effective size, divergences and solver
    failures, and which checks did not pass. `failed`: why each of the other markets could not be fitted.
    """

    name: ClassVar[str] = "by_market"
    summary: pd.DataFrame
    checks: pd.DataFrame
    failed: pd.DataFrame

    @property
    def verdict(self) -> Verdict:
        """The worst of all markets; a market that could not be fitted fails."""
        if len(self.failed) or (self.checks["verdict"] == "fail").any():
            return "fail"
        return "warn" if (self.checks["verdict"] == "warn").any() else "pass"

    def with_verdict(self, verdict: Verdict) -> list:
        """The names of the markets with this verdict."""
        return list(self.checks.index[self.checks["verdict"] == verdict])

    @property
    def text(self) -> str:
        fitted = len(self.checks)
        found = [
            f"{fitted} of {fitted + len(self.failed)} markets were fitted, each by itself; {len(self.with_verdict('pass'))} "
            "pass all checks."
        ]
        for verdict, say in (("warn", "have warnings"), ("fail", "fail")):
            names = self.with_verdict(verdict)
            if names:
                complaints = Counter(", ".join(self.checks.loc[names, "complaints"]).split(", "))
                found.append(f"{len(names)} {say} ({_some(names)}), most often of {complaints.most_common(1)[0][0]}.")
        if len(self.failed):
            name, why = next(iter(self.failed["why"].items()))
            found.append(f"{len(self.failed)} could not be fitted ({_some(list(self.failed.index))}). Market {name}: {why}")
        return " ".join(found)

    def story(self):
        from walras.calibrate.panels.pictures import plot_markets  # matplotlib is loaded only when a page is made

        told = [("Markets, each by itself", self.text, plot_markets(self.summary))]
        means = self.summary.pivot_table("mean", "market", "parameter", sort=False)
        which = f"the first {_TABLED} markets" if len(means) > _TABLED else "each market"
        told.append(("Posterior means", [f"Of {which}; summary.csv has intervals too.", means.head(_TABLED)]))
        doubtful = self.checks[self.checks["verdict"] == "fail"]
        if len(doubtful):
            told.append(("Markets whose fits fail", doubtful))
        if len(self.failed):
            told.append(("Markets that could not be fitted", self.failed))
        return told


def by_market(tree: xr.DataTree) -> ByMarket:
    """Summaries and checks of every market in a tree of `fit_each`."""
    failed = failures(tree)
    return ByMarket(
        _summary(tree),
        pd.DataFrame.from_dict({name: _row(tree, name) for name in _names(tree)}, orient="index").rename_axis("market"),
        pd.DataFrame({"why": list(failed.values())}, index=pd.Index(list(failed), name="market", dtype=object)),
    )


def _names(tree: xr.DataTree) -> list:
    return tree["posterior"]["market"].to_numpy().tolist()


def _row(tree: xr.DataTree, market) -> dict:
    report = report_of(tree, market)
    return {
        "verdict": report.verdict,
        "r_hat": report.r_hat,
        "ess_bulk": report.ess_bulk,
        "divergences": report.divergences,
        "solver_failures": report.solver_failures,
        "complaints": ", ".join(check.name for check in report.checks if check.verdict != "pass"),
    }


def _summary(tree: xr.DataTree) -> pd.DataFrame:
    """Of parameters and derived quantities that are not of rows; those of vectors are named NAME[0] and so on."""
    posterior, diagnostics = tree["posterior"], tree["diagnostics"]
    tables = {}
    for name, draws in posterior.data_vars.items():
        if {"row", "grid"} & set(draws.dims):
            continue
        values = draws.to_numpy().reshape(draws.sizes["market"], draws.sizes["chain"] * draws.sizes["draw"], -1)
        known = diagnostics[name].to_numpy().reshape(len(values), 3, -1) if name in diagnostics else None
        for entry in range(values.shape[2]):
            label = name if values.shape[2] == 1 else f"{name}[{entry}]"
            judged = np.full((len(values), 3), np.nan) if known is None else known[..., entry]
            tables[label] = _table(values[..., entry], judged)
    joined = pd.concat(tables, names=["parameter", "number"]).reset_index()
    joined.insert(0, "market", np.asarray(_names(tree), dtype=object)[joined.pop("number")])
    order = {label: place for place, label in enumerate(tables)}
    rows = joined.sort_values(
        ["market", "parameter"], key=lambda c: c.map(order) if c.name == "parameter" else c, kind="stable"
    )
    return rows.set_index(["market", "parameter"])


def _table(draws: np.ndarray, diagnostics: np.ndarray) -> pd.DataFrame:
    """A row for each market, of draws (markets, draws)."""
    low, high = np.percentile(draws, [_TAIL, 100.0 - _TAIL], axis=1)
    return pd.DataFrame(
        {
            "mean": draws.mean(1),
            "sd": draws.std(1, ddof=1),
            "5 %": low,
            "95 %": high,
            "r_hat": diagnostics[:, 0],
            "ess_bulk": diagnostics[:, 1],
        }
    )


def _some(names: list) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
