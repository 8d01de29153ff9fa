"""What a check of a fit says."""

from dataclasses import dataclass
from typing import Literal

type Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One check: its verdict, the value it judged, and what to do if it did not pass."""

    name: str
    verdict: Verdict
    value: float
    remedy: str


def above(value, warn, fail) -> Verdict:
    """Pass up to `warn`, fail beyond `fail`; a value that is not a number fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def below(value, warn, fail) -> Verdict:
    """Pass from `warn` on, fail below `fail`; a value that is not a number fails."""
    return "pass" if value >= warn else "warn" if value >= fail else "fail"
