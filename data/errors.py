"""The error that every entry point of ``walras.data`` raises on bad input."""

from walras import WalrasError


class DataError(WalrasError):
    """A table that cannot be used as it is; the message names the field, the value, the row and the remedy.

    Rows are counted from 1, without the header.
    """
