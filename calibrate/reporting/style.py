"""How the pictures look."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler

INK, SOFT, RULE = "#22303c", "#6b7785", "#d5dbe1"
POSTERIOR, PALE, MIDDLE = "#1f6f8b", "#cfe3ea", "#8fbfcf"
PRIOR, ALERT = "#9aa3ad", "#c4472f"
CHAINS = ("#1f6f8b", "#d08c2c", "#6a8d4e", "#8a5a83", "#4f5d75", "#b0563f")

STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # names come from users' columns: a dollar sign is a dollar sign
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=CHAINS),
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.2,
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
