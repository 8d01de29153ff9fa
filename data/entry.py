"""What the catalogue knows of a data set without loading it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from walras.data.forms import standard


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set. A new one is a file that defines an `Entry`, and its place in the registry.

    Args:
        name: the name `load` knows it by.
        form: series, panel or bids.
        rows: number of rows.
        units: column → unit, all columns in order.
        source: publication and package.
        licence: of the package, and what is known of the data's own.
        summary: one sentence.
        description: the whole story: provenance, columns, results in the literature.
        table: returns the frame under standard names; called by `load` only.
        time_unit: see `standard`.
        notes: what a user of the frame must know about it.
    """

    name: str
    form: str
    rows: int
    units: Mapping[str, str]
    source: str
    licence: str
    summary: str
    description: str
    table: Callable[[], pd.DataFrame] = field(repr=False)
    time_unit: str | None = None
    notes: str = ""

    def load(self) -> pd.DataFrame:
        """The standard frame (rows, columns), its columns in the order of `units`."""
        return standard(
            self.table(),
            form=self.form,
            units=self.units,
            time_unit=self.time_unit,
            name=self.name,
            source=self.source,
            licence=self.licence,
            notes=self.notes,
        )
