"""Fixtures of the tests of walras.data."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines to a CSV file and returns its path."""

    def write(*lines: str, name: str = "market.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return path

    return write
