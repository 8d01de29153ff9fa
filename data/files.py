"""`read`: a user's own CSV or Parquet file."""

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import pandas as pd

from walras.data.errors import DataError
from walras.data.forms import inherited, standard


def read(
    path: str | PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    form: str = "series",
    units: Mapping[str, str] | None = None,
    time_unit: str | None = None,
    name: str | None = None,
    source: str | None = None,
    licence: str | None = None,
    separator: str = ",",
    decimal: str = ".",
) -> pd.DataFrame:
    """Read and validate a table of your own.

        read("whiting.csv", columns={"time": "day", "price": "p", "supply": "q"}, units={"price": "USD/lb"})

    Args:
        path: a CSV file (.csv, UTF-8, one header line) or a Parquet file (.parquet).
        columns: standard name → the file's name, where they differ; a file with columns ``time`` and ``price`` needs
            none.
        form, units, time_unit, licence: as in `standard`, which says what each form holds.
        name: default the file's name without its ending.
        source: default the file's name.
        separator, decimal: of a CSV file; ``separator=";", decimal=","`` in much of Europe.

    Returns:
        The standard frame, as `standard` returns it.

    Raises:
        DataError: the file cannot be read, or is refused by `standard`; one sentence with the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"path {str(path)!r} is not a file: check its spelling and the folder you are in")
    readers = {".csv": lambda: _csv(path, separator, decimal), ".parquet": lambda: _parquet(path)}
    ending = path.suffix.lower()
    if ending not in readers:
        raise DataError(f"path {path.name!r} ends in {ending!r}: save the table as {' or '.join(readers)}")
    frame = readers[ending]()
    known = inherited(frame)
    return standard(
        frame,
        columns,
        form=form,
        units=units,
        time_unit=time_unit,
        name=known.get("name", path.stem) if name is None else name,
        source=known.get("source", path.name) if source is None else source,
        licence=licence,
    )


def _csv(path: Path, separator: str, decimal: str) -> pd.DataFrame:
    try:
        _check_separator(path, separator)
        with warnings.catch_warnings():
            # pandas only warns of fields beyond the header, and without index_col=False shifts the columns
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, sep=separator, decimal=decimal, encoding="utf-8-sig", skipinitialspace=True, index_col=False
            )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path.name} is empty: give it a header line and rows") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path.name} is not a regular table ({str(error).strip()}): give no row more fields than the header, and "
            "close every quote"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    return frame.rename(columns=str.strip)


def _check_separator(path: Path, separator: str) -> None:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline().strip()
    other = [mark for mark in (";", "\t", "|", ",") if mark in header]
    if separator not in header and other:
        raise DataError(f"{path.name} has the header {header!r}, without {separator!r}: pass separator={other[0]!r}")


def _parquet(path: Path) -> pd.DataFrame:
    from pyarrow.lib import ArrowException

    try:
        return pd.read_parquet(path)
    except ArrowException as error:
        raise DataError(f"{path.name} is not a Parquet file ({error}): write it again, or as .csv") from error
