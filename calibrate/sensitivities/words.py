"""A sensitivity analysis in sentences."""

import pandas as pd

from walras.calibrate.reporting.numbers import listed, number, percent
from walras.calibrate.sensitivities.local import ELASTICITY, PER_PRIOR_SD

_NAMED = 3  # parameters of an output that the text names
_NEGLIGIBLE = 0.05  # the share of an output's variance, or of the strongest response, below which a parameter is not named
_TAILED = 0.5  # the share of variance in 1 % of the points from which indices tell of those points
_COPULA = (0.67, 1.5)  # how far the copula's variance may be from that of the draws


def text(found) -> str:
    """Which parameters matter for which outputs, and what to know of the analysis."""
    paragraphs = [_responses(found.local), _shares(found), _stray(found), _notes(found)]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _responses(table: pd.DataFrame | None) -> str:
    if table is None or not len(table):
        return ""
    return " ".join(_response(output, table.loc[output]) for output in table.index.unique("output"))


def _response(output: str, rows: pd.DataFrame) -> str:
    size = rows["per_sd"].abs().sort_values(ascending=False)
    strongest = rows.loc[size[size >= _NEGLIGIBLE * size.iloc[0]].index].iloc[:_NAMED]
    parts = [f"{_change(row)} for {_step(row, str(name))}" for name, row in strongest.iterrows()]
    return f"{output} changes by {listed(parts)}."


def _change(row) -> str:
    if row["measure"] in (ELASTICITY, PER_PRIOR_SD):
        # Of a small change: the first order of exp(s) − 1
        return _signed(row["median"] if row["measure"] == ELASTICITY else 100.0 * row["median"]) + " %"
    return _signed(row["median"] * (0.01 if row["measure"].endswith("log") else 1.0)) + " of its spread"


def _step(row, name: str) -> str:
    return f"1 % more {name}" if row["measure"] == ELASTICITY or row["measure"].endswith("log") else f"one prior sd more {name}"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 2)


def _shares(found) -> str:
    table, column, kind = (
        (found.shapley, "share", "Shapley shares")
        if found.shapley is not None
        else (found.sobol, "total", "total Sobol indices")
    )
    if table is None or not len(table):
        return ""
    tailed = _tails(found)
    told = [_share(output, table.loc[output, column]) for output in table.index.unique("output") if output not in tailed]
    if not told:
        return ""
    return f"What is uncertain of each output over the {found.over}, by {kind}: " + "; ".join(told) + "."


def _share(output: str, shares: pd.Series) -> str:
    named = shares.sort_values(ascending=False)
    named = named[named >= min(_NEGLIGIBLE, named.iloc[0])].iloc[:_NAMED]
    return f"{output} owes " + listed(f"{percent(share)} to {name}" for name, share in named.items())


def _stray(found) -> str:
    """Parameters that move no output at all."""
    moved = [set(names) for names in found.unmoved.values()]
    stray = [name for name in next(iter(found.unmoved.values()), []) if all(name in names for names in moved)]
    if not stray:
        return ""
    matter = "it matters" if len(stray) == 1 else "they matter"
    return f"No output depends on {listed(stray)}: {matter} for the law of the data alone."


def _notes(found) -> str:
    notes = []
    if found.held:
        notes.append(f"{listed(found.held)} {'is' if len(found.held) == 1 else 'are'} held fixed while parameters move.")
    for what, (tried, failed) in found.points.items():
        if failed:
            notes.append(f"The market has no equilibrium at {failed} of the {tried} points of {what}, which are left out.")
    for output, share in _tails(found).items():
        notes.append(
            f"1 % of the points make {percent(share)} of the variance of {output}: its indices tell of those points, "
            "rather believe its elasticities."
        )
    for output, ratio in found.copula.items():
        if not _COPULA[0] <= ratio <= _COPULA[1]:
            notes.append(
                f"Under the Gaussian copula of the parameters {output} has {number(ratio, 2)} times the variance that it has "
                "over their draws: they depend on each other in another way, and its shares are rough."
            )
    return " ".join(notes)


def _tails(found) -> dict[str, float]:
    shares: dict[str, float] = {}
    for table in (found.sobol, found.morris, found.shapley):
        if table is not None and len(table):
            for output, share in table.groupby(level="output", sort=False)["tail_share"].first().items():
                shares[str(output)] = max(share, shares.get(str(output), 0.0))
    return {output: share for output, share in shares.items() if share > _TAILED}
