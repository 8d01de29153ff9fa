"""Panels from the command line: specifications, run directories, workers."""

import json

import pandas as pd
import pytest
from panels import panel_of, prices

from walras.calibrate import CalibrationError, Markets, Panel, load, run
from walras.calibrate.spec import Spec

SPEC = """
seed = 3
[data]
path = "prices.csv"
form = "panel"
[market]
name = "price_formation"
[sampler]
chains = 2
warmup = 60
draws = 40
chunk = 20
"""


def spec_of(folder, panel=""):
    panel_of(prices(3, rows=12)).to_csv(folder / "prices.csv", index=False)
    path = folder / "spec.toml"
    path.write_text(SPEC + panel)
    return path


def test_markets_one_by_one(tmp_path, walras):
    spec = spec_of(tmp_path, '[panel]\npooling = "none"\nbatch = 2\n')
    code, said = walras("fit", spec, "--out", tmp_path / "run")
    assert code == 1  # so few draws fail
    assert "3 of 3 markets were fitted" in said
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        *("spec.json", "posterior.nc", "summary.csv", "checks.csv", "check.json", "by_market.json", "report.html")
    }
    assert list(load(folder / "posterior.nc")["posterior"]["market"].to_numpy()) == ["m000", "m001", "m002"]
    assert len(pd.read_csv(folder / "summary.csv")) == 15
    assert json.loads((folder / "check.json").read_text())["verdict"] == "fail"
    assert walras("fit", spec, "--out", folder, "--resume")[1].endswith("there is nothing to resume")
    code, said = walras("check", folder)
    assert code == 2
    assert "fitted one by one" in said


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('[panel]\npooling = "none"', None),
        ('[panel]\npooling = "complete"', ()),
        ('[panel]\npooling = "partial"\nby_market = ["price_level"]', ("price_level",)),
    ],
)
def test_specifications_say_how_markets_are_pooled(tmp_path, table, kind):
    spec = Spec.from_toml(spec_of(tmp_path, table))
    if kind is None:
        assert isinstance(run.build_panel(spec)[0], Panel)
        with pytest.raises(CalibrationError, match="pooling is 'none'"):
            run.build(spec)
    else:
        problem, _ = run.build(spec)
        assert isinstance(problem.observation, Markets)
        assert problem.observation.by_market == kind
        assert {"kind": "Markets of ForeseenPrices"}.items() <= problem.to_json()["observation"].items()


@pytest.mark.parametrize("table", ['[panel]\npooling = "partial"', '[panel]\npooling = "complete"\nown = ["price_level"]'])
def test_roles_go_with_partial_pooling(tmp_path, table):
    with pytest.raises(CalibrationError, match="with pooling = 'partial', and only then"):
        Spec.from_toml(spec_of(tmp_path, table))


def test_workers_are_for_markets_one_by_one(tmp_path, walras):
    spec = spec_of(tmp_path, '[panel]\npooling = "complete"\n')
    code, said = walras("fit", spec, "--out", tmp_path / "run", "--scheduler", "local")
    assert code == 2
    assert "--scheduler is for panels whose markets are fitted one by one" in said


@pytest.mark.slow
def test_workers_draw_what_this_process_draws(tmp_path, walras):
    spec = spec_of(tmp_path, '[panel]\npooling = "none"\nbatch = 2\n')
    walras("fit", spec, "--out", tmp_path / "here")
    walras("fit", spec, "--out", tmp_path / "there", "--scheduler", "local", "--workers", "2")
    here, there = (load(tmp_path / name / "posterior.nc") for name in ("here", "there"))
    assert there.identical(here)
