"""How the pictures look."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

from walras.model.price_formation import pictures
from walras.model.price_formation.pictures import COLOURS, INK, RULE, SOFT

__all__ = [
    "ALERT",
    "COLOURS",
    "INK",
    "MIDDLE",
    "PALE",
    "POSTERIOR",
    "PRIOR",
    "RULE",
    "SIGNS",
    "SOFT",
    "STYLE",
    "styled",
    "without_screen",
]

POSTERIOR, PALE, MIDDLE = "#1f6f8b", "#cfe3ea", "#8fbfcf"
PRIOR, ALERT = "#9aa3ad", "#c4472f"
SIGNS = LinearSegmentedColormap.from_list("signs", [ALERT, "#ffffff", POSTERIOR])  # as bars: below zero, zero, above

STYLE: dict[Any, Any] = {
    **pictures.STYLE,
    "savefig.facecolor": "white",
    "text.parse_math": False,  # names come from users' columns: a dollar sign is a dollar sign
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.prop_cycle": cycler(color=COLOURS),
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}


def styled[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Draw in the reports' style, leaving the user's own settings as they were."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with plt.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapped


@contextmanager
def without_screen() -> Iterator[None]:
    """Draw without opening windows, whatever the user's backend, which is put back afterwards."""
    before = mpl.get_backend()
    plt.switch_backend("agg")
    try:
        with plt.rc_context(STYLE), warnings.catch_warnings():
            # names in scripts that the font lacks are drawn as boxes; the page's own text has them right
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
            yield
    finally:
        plt.switch_backend(before)
