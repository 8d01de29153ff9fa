"""Findings on disk: what is read is what was written, to the bit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from walras.calibrate import CalibrationError
from walras.calibrate.finding import Finding
from walras.calibrate.reporting import report_findings


@dataclass(frozen=True)
class Example(Finding):
    table: pd.DataFrame
    array: np.ndarray
    words: dict
    share: float

    name: ClassVar[str] = "example"

    @property
    def text(self):
        return f"A share of {self.share}."

    def story(self):
        return [("An example", [self.text, self.table])]


INDEXES = {
    "numbers": pd.RangeIndex(3),
    "names": pd.Index(["a", "b", "c"], name="parameter"),
    "pairs": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["output", "step"]),
    "times": pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-04"], name="time"),
}


@pytest.fixture(params=INDEXES)
def example(request):
    table = pd.DataFrame({"x": [1 / 3, np.nan, -np.inf], "n": [1, 2, 3], "word": ["a", "b", "c"]}, index=INDEXES[request.param])
    return Example(table, np.array([[0.1, np.nan], [1.0, 2.0]]), {"a": [1, "b"], "c": None}, np.float64(0.1))


def test_what_is_read_is_what_was_written(example, tmp_path):
    example.save(tmp_path)
    found = Example.load(tmp_path)
    pd.testing.assert_frame_equal(found.table, example.table, check_exact=True, check_freq=False, check_index_type=False)
    np.testing.assert_array_equal(found.array, example.array)
    assert found.words == example.words and found.share == example.share
    assert [path.name for path in tmp_path.iterdir()] == ["example.json"]


def test_a_foreign_file_is_refused(tmp_path):
    for content in ("", "[1", '{"table": 1}'):
        (tmp_path / "example.json").write_text(content)
        with pytest.raises(CalibrationError, match=r"example\.json cannot be read .* run the step again"):
            Example.load(tmp_path)


def test_a_page_of_findings(example, tmp_path):
    page = report_findings([example], tmp_path / "page.html", title="A & B", lead="One example.").read_text()
    assert "A &amp; B" in page and "A share of 0.1." in page and "An example" in page
