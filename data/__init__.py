"""Market data as validated tables: the data sets of `catalogue`, and a user's own through `read` or `standard`.

Every frame is in one of three standard forms (series, panel, bids; see `standard`), float64, with units and
provenance in ``.attrs``. Nothing here knows of models.
"""

from walras.data.days import days
from walras.data.errors import DataError
from walras.data.files import read
from walras.data.forms import standard
from walras.data.registry import catalogue, describe, load
from walras.data.times import elapsed

__all__ = ["DataError", "catalogue", "days", "describe", "elapsed", "load", "read", "standard"]
