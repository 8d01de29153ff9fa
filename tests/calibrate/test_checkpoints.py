"""Runs that are killed and resumed end as if nothing had happened."""

import errno
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from simulated import series

from walras.calibrate import NUTS, CalibrationError, ForeseenPrices, Prior, Problem, fit
from walras.calibrate.checkpoints import Checkpoints

SAMPLER = NUTS(chains=2, warmup=30, draws=30, chunk=20)
KEY = jax.random.key(5)


class Killed(BaseException):
    """As sudden as a signal."""


@pytest.fixture(scope="module")
def problem():
    return Problem("price_formation", series(20), ForeseenPrices(), {"trading_cost": Prior("LogNormal", -1.0, 0.3)})


@pytest.fixture(scope="module")
def whole(problem):
    return fit(problem, SAMPLER, key=KEY)


def killed_after(monkeypatch, chunks):
    """Let a run die once it has written so many chunks."""
    write = Checkpoints.write

    def writes(self, chunk, state, arrays):
        if chunk == chunks:
            raise Killed
        write(self, chunk, state, arrays)

    monkeypatch.setattr(Checkpoints, "write", writes)


def assert_same(one: xr.DataTree, other: xr.DataTree):
    assert set(one.children) == set(other.children)
    for name in one.children:
        xr.testing.assert_equal(one[name].to_dataset(), other[name].to_dataset())


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_draws(problem, whole, tmp_path, monkeypatch, chunks):
    """Killed before there is anything, in warm-up (30 of 20 + 20), and after it."""
    with monkeypatch.context() as patched:
        killed_after(patched, chunks)
        with pytest.raises(Killed):
            fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("chunk-*"))) == chunks
    reports = []
    resumed = fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path / "kept", resume=True, progress=reports.append)
    assert_same(resumed, whole)
    assert [report.done for report in reports if report.done] == list(range(20 * chunks + 20, 61, 20))


def test_a_finished_run_is_read(problem, whole, tmp_path):
    fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert_same(fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path, resume=True), whole)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_chains_in_processes_resume_each_from_its_own_chunk(problem, tmp_path):
    sampler = replace(SAMPLER, processes=2)
    whole = fit(problem, sampler, key=KEY, checkpoint=tmp_path)
    (tmp_path / "process-0" / "chunk-00002.npz").unlink()
    for chunk in (1, 2):
        (tmp_path / "process-1" / f"chunk-0000{chunk}.npz").unlink()
    assert_same(fit(problem, sampler, key=KEY, checkpoint=tmp_path, resume=True), whole)


@pytest.fixture
def begun(problem, tmp_path):
    fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path)
    (tmp_path / "chunk-00002.npz").unlink()
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CHANGES = {
    "sampler target_accept was 0.9 and is 0.8": {"sampler": replace(SAMPLER, target_accept=0.8)},
    "key was": {"key": jax.random.key(6)},
    "data differs": {"rows": 21},
    "problem priors trading_cost args was": {"prior": Prior("LogNormal", -1.0, 0.4)},
}


@pytest.mark.parametrize("words", CHANGES)
def test_another_run_is_refused_and_nothing_lost(begun, words):
    change, before = CHANGES[words], contents(begun)
    prior = change.get("prior", Prior("LogNormal", -1.0, 0.3))
    other = Problem("price_formation", series(change.get("rows", 20)), ForeseenPrices(), {"trading_cost": prior})
    with pytest.raises(CalibrationError, match=f"holds another run: its {words}.*: restore what it was begun with"):
        fit(other, change.get("sampler", SAMPLER), key=change.get("key", KEY), checkpoint=begun, resume=True)
    assert contents(begun) == before


def test_a_run_in_the_folder_is_not_overwritten(problem, begun):
    before = contents(begun)
    with pytest.raises(CalibrationError, match="holds a run that was begun: resume it, or choose another folder"):
        fit(problem, SAMPLER, key=KEY, checkpoint=begun)
    assert contents(begun) == before


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_chunk_is_named_and_the_one_before_serves(problem, whole, begun, damage):
    path = begun / "chunk-00001.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: {"flipped": None, "truncated": 100, "empty": 0}[damage]])
    before = contents(begun)
    with pytest.raises(CalibrationError, match=r"chunk-00001\.npz cannot be read .*: remove it and those after it, and resume"):
        fit(problem, SAMPLER, key=KEY, checkpoint=begun, resume=True)
    assert contents(begun) == before
    path.unlink()
    assert_same(fit(problem, SAMPLER, key=KEY, checkpoint=begun, resume=True), whole)


def test_a_missing_chunk_is_named(problem, begun):
    (begun / "chunk-00000.npz").unlink()
    with pytest.raises(CalibrationError, match=r"chunk-00000\.npz cannot be read"):
        fit(problem, SAMPLER, key=KEY, checkpoint=begun, resume=True)


def test_a_full_disk_loses_nothing(problem, whole, tmp_path, monkeypatch):
    replaced, room = Path.replace, iter([True, True, False])  # the identity and one chunk

    def replace_if_room(self, target):
        if not next(room):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replaced(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_if_room)
        with pytest.raises(CalibrationError, match=r"chunk-00001\.npz cannot be written \(No space left on device\): make"):
            fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk-00000.npz", "identity.json"]
    assert_same(fit(problem, SAMPLER, key=KEY, checkpoint=tmp_path, resume=True), whole)


SPEC = """
seed = 3
[data]
name = "fulton_fish"
[market]
name = "price_formation"
[sampler]
chains = 2
warmup = 100
draws = 200
chunk = 10
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path):
    """From start to report; each run is resumed until it ends, with the posterior of the one that was never interrupted."""
    (tmp_path / "spec.toml").write_text(SPEC)
    walras = [sys.executable, "-m", "walras", "fit", str(tmp_path / "spec.toml"), "--resume", "--out"]

    def run(out, seconds=None):
        """Whether the run ended by itself within these seconds."""
        process = subprocess.Popen([*walras, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return False
        assert process.returncode in (0, 1), said.decode()  # 1: so few draws may fail their checks
        return True

    def posterior(out):
        with xr.open_datatree(out / "posterior.nc", engine="h5netcdf") as tree:
            return tree.load()

    assert run(tmp_path / "whole")
    expected, kills, moments = posterior(tmp_path / "whole"), 0, random.Random(0)
    for number in range(1000):
        out = tmp_path / str(number)
        while not run(out, moments.uniform(2.0, 20.0) if kills < 20 else None):
            kills += 1
        assert_same(posterior(out), expected)
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
        if kills >= 20:
            break
    assert kills >= 20


def test_keys_and_shapes_survive(tmp_path):
    state = {"key": jax.random.key(1), "old": jax.random.PRNGKey(2), "number": np.float32(1.5), "none": None}
    Checkpoints(tmp_path, {"a": 1}).write(0, state, {"x/y": np.arange(3.0)})
    chunks, found, arrays = Checkpoints(tmp_path, {"a": 1}, resume=True).read(jax.tree.map(jax.numpy.asarray, state))
    assert chunks == 1 and found["number"].dtype == np.float32
    assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(state["key"]).tolist()
    np.testing.assert_array_equal(arrays[0]["x/y"], np.arange(3.0))
    with pytest.raises(CalibrationError, match="another version of walras"):
        Checkpoints(tmp_path, {"a": 1}, resume=True).read({"key": jax.random.key(0)})
