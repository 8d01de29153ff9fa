"""Local sensitivity: elasticities at draws, by automatic differentiation."""

import numpy as np
import pandas as pd

from walras.calibrate.sensitivities.evaluation import Values
from walras.calibrate.sensitivities.indices import nothing, scaled
from walras.calibrate.sensitivities.space import Space, middle

_BAND = [0.05, 0.5, 0.95]
_ROWS = 100  # of an output along rows that are kept

SPREADS, PRIOR_SDS = "change in spreads", "per prior sd"  # how the measures of signed outputs begin, of signed parameters end
ELASTICITY, PER_PRIOR_SD = "elasticity", f"change of the log, {PRIOR_SDS}"
# Whether the output enters by its log, and the parameter.
_MEASURES = {
    (True, True): ELASTICITY,
    (True, False): PER_PRIOR_SD,
    (False, True): f"{SPREADS}, per log",
    (False, False): f"{SPREADS}, {PRIOR_SDS}",
}


def elasticities(values: Values, points: np.ndarray, space: Space, moves: dict[str, np.ndarray]) -> pd.DataFrame:
    """Medians and 90 % bands over draws of how each number responds to each parameter that moves it.

    A table by (output, parameter): `median`, `low`, `high`, `measure` and `per_sd`. The measure is the elasticity
    d log |output| / d log parameter where the parameter's prior allows only positive values and the output has one sign at all
    draws. Other parameters are measured in standard deviations of their prior, and other outputs in spreads, half of the middle
    68 % of their own values over the draws. `per_sd` is the median for one standard deviation of the parameter over the draws,
    which makes parameters comparable.
    """
    tables = {
        name: _responses(_unit(output), values.derivatives[name], points, space)[moves[name]]
        for name, output in values.outputs.items()
        if output.ndim == 1
    }
    kept = {name: table for name, table in tables.items() if len(table)}
    return pd.concat(kept, names=["output", "parameter"]) if kept else nothing("output", "parameter")


def paths(values: Values, points: np.ndarray, space: Space, moves: dict[str, np.ndarray], rows: list) -> pd.DataFrame | None:
    """The same at each row of outputs along rows, of at most 100 of them, in one measure; None if there are none.

    A table by (output, row, parameter); `rows` are the labels of the data's, which are those of outputs of that length.
    """
    tables = {}
    for name in (name for name, output in values.outputs.items() if output.ndim == 2 and moves[name].any()):
        size = values.outputs[name].shape[1]
        unit = _unit(values.outputs[name])
        labels = rows if len(rows) == size else range(size)
        for place in map(int, np.unique(np.linspace(0, size - 1, min(size, _ROWS)).astype(int))):
            found = _responses(unit[:, place] if np.ndim(unit) else unit, values.derivatives[name][:, place], points, space)
            tables[name, labels[place]] = found[moves[name]]
    return pd.concat(tables, names=["output", "row", "parameter"]) if tables else None


def _unit(output: np.ndarray) -> np.ndarray | float:
    """The unit of an output's changes: itself where it has one sign, or its spread."""
    if scaled(output)[1] == "log":
        return output
    return float(middle(output.ravel())) or 1.0


def _responses(unit, slopes, points, space: Space) -> pd.DataFrame:
    """The responses of one number, in a unit (draws,) or the same for all, from its derivatives (draws, columns)."""
    of_log = np.ndim(unit) > 0
    unit = unit[:, None] if of_log else unit
    relative = slopes * np.where(space.positive, points, space.prior_sd) / unit
    low, median, high = np.nanquantile(relative, _BAND, axis=0)
    measures = [_MEASURES[bool(of_log), bool(positive)] for positive in space.positive]
    columns = {"median": median, "low": low, "high": high, "per_sd": median * space.units, "measure": measures}
    return pd.DataFrame(columns, index=list(space.names))


def wide(table: pd.DataFrame, column: str, across: str = "output") -> pd.DataFrame:
    """A column of a table by `across` and parameter, parameters × what is across, in the order in which they come."""
    parameters, others = (table.index.unique(level) for level in ("parameter", across))
    found = table.pivot_table(column, "parameter", across, aggfunc="first", dropna=False)
    return found.reindex(index=parameters, columns=others)
