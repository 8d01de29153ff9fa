"""The command line on a small fit, and every bad input it must answer in one sentence with exit code 2."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from walras import cli
from walras.calibrate import CalibrationError, load, save

SPEC = """
seed = 3
[data]
path = "prices.csv"
columns = {time = "day", price = "p", supply = "q"}
[market]
name = "price_formation"
[sampler]
chains = 2
warmup = 100
draws = 100
chunk = 50
"""


def prices_csv(folder, rows=40):
    lines = [f"{day},{2.0 + 0.3 * ((day * 7) % 5) - 0.1 * ((day * 3) % 4)},{10 + (day * 5) % 7}" for day in range(rows)]
    path = folder / "prices.csv"
    path.write_text("\n".join(["day,p,q", *lines]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    prices_csv(tmp_path)
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A finished run directory."""
    folder = tmp_path_factory.mktemp("cli")
    prices_csv(folder)
    (folder / "spec.toml").write_text(SPEC)
    argv, sys.argv = sys.argv, ["walras", "fit", str(folder / "spec.toml"), "--out", str(folder / "run")]
    try:
        cli.main()
    except SystemExit as stop:
        assert stop.code in (None, 0, 1)  # 1: so few draws may fail their checks
    finally:
        sys.argv = argv
    return folder / "run"


def test_a_run_directory_holds_everything(fitted):
    assert {path.name for path in fitted.iterdir()} == {"spec.json", "posterior.nc", "summary.csv", "check.json", "report.html"}
    judged = json.loads((fitted / "check.json").read_text())
    assert judged["verdict"] in ("pass", "warn", "fail")
    assert {"r_hat", "ess_bulk", "divergences", "solver_failures", "checks"} <= set(judged)
    assert {"name", "verdict", "value", "remedy"} == set(judged["checks"][0])
    recorded = json.loads((fitted / "spec.json").read_text())
    assert recorded["seed"] == 3 and {"digest", "versions", "problem", "spec"} <= set(recorded)


def test_a_run_can_be_checked_predicted_and_reported(fitted, walras):
    code, said = walras("check", fitted)
    assert code == (1 if json.loads((fitted / "check.json").read_text())["verdict"] == "fail" else 0)
    assert "checks:" in said
    code, said = walras("predict", fitted, "--draws", 5)
    assert code == 0 and (fitted / "predictions.csv").is_file()
    kept = (fitted / "posterior.nc").read_bytes()
    code, said = walras("predict", fitted, "--draws", 0)
    assert code == 2 and "draws is 0: give a whole number of at least 1" in said
    assert (fitted / "posterior.nc").read_bytes() == kept
    code, said = walras("report", fitted)
    assert code == 0 and "report.html" in said


@pytest.mark.parametrize("name", ["price[east]", "price[/east]"])
def test_square_brackets_in_names_are_no_markup(name, capsys):
    table = pd.DataFrame({name: [0.5]}, index=pd.Index([name], name=name))
    cli.Console(width=200).print(cli._frame_table(table, name))
    assert capsys.readouterr().out.count(name) == 4


def test_an_interrupted_fit_says_that_it_can_be_resumed(folder, walras, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("walras.calibrate.fitting.fit", interrupted)
    code, said = walras("fit", folder / "spec.toml", "--out", folder / "run")
    assert code == 130 and "--resume" in said


def test_runs_are_compared_with_baselines(fitted, walras):
    code, said = walras("compare", fitted, "--origins", 2)
    assert code == 0 and "last price" in said and "lagged regression" in said
    assert json.loads((fitted / "compare.json").read_text())["exact"] is False


def test_runs_are_not_compared_farther_ahead_than_rows_allow(fitted, walras):
    code, said = walras("compare", fitted, "--horizon", 20)
    assert code == 2 and "horizon is 20: of 16 scored rows give a whole number from 1 to 8" in said


def test_a_used_run_directory_is_refused_and_kept(fitted, walras):
    before = {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()}
    code, said = walras("fit", fitted.parent / "spec.toml", "--out", fitted)
    assert code == 2 and "holds a run: add --resume" in said
    assert before == {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()}


def test_a_complete_run_is_not_resumed(fitted, walras):
    before = {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()}
    code, said = walras("fit", fitted.parent / "spec.toml", "--out", fitted, "--resume")
    assert code == 0 and "is complete: there is nothing to resume" in said
    assert before == {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()}


def test_a_folder_of_other_things_is_refused_and_kept(folder, walras):
    for options in ((), ("--resume",)):
        code, said = walras("fit", folder / "spec.toml", "--out", folder, *options)
        assert code == 2 and "already used" in said
    assert (folder / "prices.csv").is_file()


def test_a_run_that_was_cut_off_before_its_report_is_finished(fitted, walras, tmp_path):
    """Its checkpoint is whole and the rest is missing or old."""
    run = tmp_path / "run"
    specification = fitted.parent / "spec.toml"
    code, _ = walras("fit", specification, "--out", run)
    assert code in (0, 1)
    expected = (run / "summary.csv").read_text()
    assert expected == (fitted / "summary.csv").read_text()
    (run / "summary.csv").unlink()
    (run / "checkpoint").mkdir()  # nothing in it: the run begins anew
    (run / "posterior.nc.abc.tmp").touch()
    code, said = walras("fit", specification, "--out", run)
    assert code == 2 and "add --resume" in said
    code, _ = walras("fit", specification, "--out", run, "--resume")
    assert code in (0, 1) and (run / "summary.csv").read_text() == expected
    assert {path.name for path in run.iterdir()} == {"spec.json", "posterior.nc", "summary.csv", "check.json", "report.html"}


def test_a_truncated_posterior_is_refused(fitted, walras, tmp_path):
    copied = tmp_path / "run"
    copied.mkdir()
    for path in fitted.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    whole = (copied / "posterior.nc").read_bytes()
    (copied / "posterior.nc").write_bytes(whole[: len(whole) // 2])
    code, said = walras("check", copied)
    assert code == 2 and "posterior.nc" in said and "truncated" in said


def test_a_damaged_posterior_is_refused(tmp_path):
    """A run may be copied by what loses a block: its numbers have checksums."""
    values = np.random.default_rng(0).standard_normal((4, 500))
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"cost": (("chain", "draw"), values)})})
    tree.attrs["problem"] = "{}"
    path = save(tree, tmp_path / "posterior.nc")
    assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022))
    whole = path.read_bytes()
    np.testing.assert_array_equal(load(path)["posterior"]["cost"], values)
    place = whole.index(values[1, 100:108].tobytes())
    path.write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
    with pytest.raises(CalibrationError, match="cannot be read"):
        load(path)


def test_changed_data_are_noticed(fitted, walras):
    source = fitted.parent / "prices.csv"
    original = source.read_text()
    try:
        source.write_text(original.replace("\n5,", "\n5,9", 1))
        code, said = walras("check", fitted)
    finally:
        source.write_text(original)
    assert code == 2 and "changed" in said


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('price = "p"', 'price = "nothing"', "nothing"),
        ('name = "price_formation"', 'name = "price_formatoin"', "price_formation"),
        ("chains = 2", "chains = 0", "chains"),
        ("chains = 2", "chaims = 2", "chaims"),
        ("[sampler]", "[observation]\nsuply = 'known'\n[sampler]", "suply"),
        ("[sampler]", "[priors]\ncolour = 1.0\n[sampler]", "colour"),
        ("[sampler]", "[priors]\ntrading_cost = {family='Normal', args=[0.0, 1.0]}\n[sampler]", "trading_cost"),
        ("[sampler]", "[priors]\ntrading_cost = {family='Nrmal', args=[0.0, 1.0]}\n[sampler]", "Nrmal"),
        ("seed = 3", "seed = 'three'", "seed"),
        ("seed = 3", "sed = 3", "sed is unknown: choose from seed, data, market"),
        ("[data]", "[datum]", "data is missing: add it"),
        ("seed = 3", "seed = 3\npanel = 'none'", "a table of its own, [panel]"),
        ("[market]", "[market", "TOML"),
        ("[sampler]", "[observation]\nerrors = 1\n[sampler]", "errors"),
        ("[market]", "[priors]\nprice_trend = 0.0\n[market]\nfixed = {price_trend = 0.0}", "price_trend"),
        ('path = "prices.csv"', 'path = "prices.csv"\nname = "fulton_fish"', "either"),
    ],
)
def test_a_wrong_specification_ends_in_a_sentence(folder, walras, old, new, says):
    assert old in SPEC
    (folder / "spec.toml").write_text(SPEC.replace(old, new))
    code, said = walras("fit", folder / "spec.toml", "--out", folder / "run")
    assert code == 2 and said.startswith("error:") and says in said
    assert not (folder / "run" / "posterior.nc").exists()


def test_a_missing_specification_and_an_unwritable_folder(folder, walras):
    code, said = walras("fit", folder / "absent.toml", "--out", folder / "run")
    assert code == 2 and "absent.toml" in said
    code, said = walras("fit", folder / "spec.toml", "--out", folder / "prices.csv" / "run")
    assert code == 2 and "cannot be written" in said


def test_something_that_is_not_a_run(folder, walras):
    code, said = walras("report", folder)
    assert code == 2 and "not a run directory" in said


def test_data_are_listed_and_shown(walras):
    code, said = walras("data", "list")
    assert code == 0 and "fulton_fish" in said
    code, said = walras("data", "show", "fulton_fish")
    assert code == 0 and "Licence" in said
    code, said = walras("data", "show", "fulton_fihs")
    assert code == 2 and "fulton_fish" in said


def test_help_loads_no_heavy_library():
    program = "import sys, walras.cli; sys.exit(any(name in sys.modules for name in ('jax', 'arviz', 'pandas', 'numpyro')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_data_can_tell_is_asked_before_a_fit_and_after_it(fitted, walras, tmp_path):
    code, said = walras("identify", fitted.parent / "spec.toml", "--out", tmp_path / "before")
    assert code == 0 and "The data can tell all parameters apart" in said and "achieved" not in said
    assert {path.name for path in (tmp_path / "before").iterdir()} == {"identify.json", "report.html"}
    code, said = walras("identify", fitted)
    assert code == 0 and "The fit took away" in said and "achieved" in said
    assert (fitted / "identify.json").is_file()
