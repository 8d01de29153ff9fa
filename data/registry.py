"""The data sets that come with walras: `catalogue`, `describe` and `load`."""

from difflib import get_close_matches

import pandas as pd

from walras.data import avocado, fulton_fish, sp500, timber
from walras.data.entry import Entry
from walras.data.errors import DataError

ENTRIES = {entry.name: entry for entry in (fulton_fish.ENTRY, avocado.ENTRY, sp500.ENTRY, timber.ENTRY)}


def catalogue() -> pd.DataFrame:
    """The data sets that `load` knows, without loading any.

    Returns:
        One row each, indexed by ``name``: form (series, panel or bids), rows, columns (their names), source, licence,
        summary.
    """
    facts = [
        {
            "name": entry.name,
            "form": entry.form,
            "rows": entry.rows,
            "columns": ", ".join(entry.units),
            "source": entry.source,
            "licence": entry.licence,
            "summary": entry.summary,
        }
        for entry in ENTRIES.values()
    ]
    return pd.DataFrame(facts).set_index("name")


def describe(name: str) -> str:
    """A data set's full description: provenance, columns and units, and what the literature found in it.

    Raises:
        DataError: unknown name; the message lists the known ones.
    """
    return _entry(name).description


def load(name: str) -> pd.DataFrame:
    """A data set as a validated standard frame.

    Args:
        name: one of ``catalogue().index``.

    Returns:
        (rows, columns) float64 frame in one of the forms of `standard`, with its ``attrs``.

    Raises:
        DataError: unknown name; the message lists the known ones. Or the set is in a package that is not installed; the
            message says how to install it.
    """
    return _entry(name).load()


def _entry(name: str) -> Entry:
    if name not in ENTRIES:
        close = "".join(f", did you mean {match!r}?" for match in get_close_matches(str(name), ENTRIES, n=1))
        raise DataError(f"there is no data set {name!r}: choose one of {', '.join(ENTRIES)}{close}")
    return ENTRIES[name]
