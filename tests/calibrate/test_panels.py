"""Markets fitted one by one: in batches, in any order, on workers that may die, and those that cannot be fitted."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from panels import NoisyLevel, level, panel_of, prices

from walras.calibrate import (
    NUTS,
    CalibrationError,
    ForeseenPrices,
    Panel,
    Prior,
    StochasticPrices,
    failures,
    fit,
    fit_each,
    load,
    save,
)
from walras.calibrate.distributing import scheduler
from walras.calibrate.executing import each
from walras.calibrate.panels.batches import Batch, run_batch
from walras.calibrate.panels.by_market import ByMarket, by_market
from walras.calibrate.panels.fitting import _pieces
from walras.calibrate.panels.panel import padded, prepare

KEY = jax.random.key(3)
SHORT = NUTS(chains=2, warmup=60, draws=40, chunk=20)


def toy(tables, **priors):
    return Panel(level, panel_of(tables), NoisyLevel(), {"level": Prior("Normal", 0.0, 3.0), **priors})


def noise(markets, rows=8, seed=0) -> dict:
    rng = np.random.default_rng(seed)
    return {f"m{i}": {"price": i + rng.normal(size=n)} for i, n in enumerate(np.broadcast_to(rows, markets))}


@pytest.fixture(scope="module")
def whole():
    """Five markets of two lengths, in batches of two."""
    return fit_each(toy(noise(5, [8, 8, 5, 8, 5])), SHORT, key=KEY, batch=2)


def test_every_market_has_its_draws_and_its_rows(whole):
    assert whole["posterior"]["level"].dims == ("market", "chain", "draw")
    assert list(whole["posterior"]["market"].to_numpy()) == ["m0", "m1", "m2", "m3", "m4"]
    seen = np.isfinite(whole["observed_data"]["price"]).sum("row")
    assert list(seen.to_numpy()) == [8, 8, 5, 8, 5]
    assert_allclose(np.isnan(whole["one_step_ahead"]["probability"]), np.isnan(whole["observed_data"]["price"]))
    assert not failures(whole)


@pytest.mark.statistical
def test_levels_have_the_normal_posterior_of_each_market_alone():
    """Against the conjugate posterior. False-alarm rate: 5 z-scores at 4.5 standard errors, about 3e-5."""
    tables = noise(5, [8, 8, 5, 8, 5])
    tree = fit_each(toy(tables), NUTS(chains=4, warmup=200, draws=500), key=KEY, batch=3)
    for name, table in tables.items():
        precision = len(table["price"]) / 0.7**2 + 1 / 3.0**2
        mean, sd = table["price"].sum() / 0.7**2 / precision, precision**-0.5
        draws = tree["posterior"]["level"].sel(market=name).to_numpy()
        size = float(tree["diagnostics"]["level"].sel(market=name, diagnostic="ess_bulk"))
        assert abs(draws.mean() - mean) < 4.5 * sd / np.sqrt(size)
        assert_allclose(draws.std(), sd, rtol=0.15)


def test_draws_do_not_depend_on_the_order_of_rows_or_batches(whole):
    frame = panel_of(noise(5, [8, 8, 5, 8, 5]))
    blocks = [rows for _, rows in frame.groupby("market")]
    shuffled = pd.concat([blocks[i] for i in (3, 0, 4, 2, 1)])
    panel = Panel(level, shuffled, NoisyLevel(), {"level": Prior("Normal", 0.0, 3.0)})
    assert fit_each(panel, SHORT, key=KEY, batch=2)["posterior"].identical(whole["posterior"])


class Backwards:
    """An executor that does the last piece first."""

    def map(self, function, pieces):
        pieces = list(pieces)
        return reversed([function(piece) for piece in reversed(pieces)])


@pytest.mark.parametrize("executor", [Backwards(), ThreadPoolExecutor(2)], ids=["last first", "two threads"])
def test_draws_do_not_depend_on_who_computes(whole, executor):
    tree = fit_each(toy(noise(5, [8, 8, 5, 8, 5])), SHORT, key=KEY, batch=2, executor=executor)
    assert tree.identical(whole)


@pytest.mark.slow
def test_draws_of_a_market_do_not_depend_on_the_others(whole):
    """Its key follows from its name: up to the rounding of another program."""
    tables = noise(5, [8, 8, 5, 8, 5])
    alone = fit_each(toy({"m3": tables["m3"]}), SHORT, key=KEY)
    assert_allclose(alone["posterior"]["level"].sel(market="m3"), whole["posterior"]["level"].sel(market="m3"), rtol=1e-6)


@pytest.mark.slow
def test_priors_follow_the_units_of_each_market():
    """Two markets, one of them in other units: the same draws in those units, by one program. Its priors are data."""
    tables = {"a": prices(1)["m000"]}
    tables["b"] = {"price": 100.0 * tables["a"]["price"], "supply": 7.0 * tables["a"]["supply"]}
    panel = Panel("price_formation", panel_of(tables), ForeseenPrices())
    found = prepare(panel.without_data(), panel.frames.items())
    assert len({one.program for one in found}) == 1
    # the same key for both, so that they differ in nothing but units
    (piece,) = _pieces(panel, found, KEY, 2)
    same = Batch(piece.batch.markets, np.stack([piece.batch.keys[0]] * 2), 2)
    values = run_batch(piece.template, NUTS(chains=1, warmup=10, draws=4, chunk=7), same).values
    assert_allclose(100.0 * values["price_level"][0], values["price_level"][1], rtol=1e-6)
    assert_allclose(100.0 / 7.0 * values["trading_cost"][0], values["trading_cost"][1], rtol=1e-6)


def test_stationary_markets_of_different_length_share_one_program():
    panel = Panel("stationary", panel_of(prices(3, rows=[12, 9, 15])), StochasticPrices())
    found = padded(panel, prepare(panel.without_data(), panel.frames.items()))
    assert {one.program for one in found} == {found[0].program}
    assert {one.observed.shape for one in found} == {(15, 2)}


def test_markets_that_cannot_be_fitted_are_named_and_the_others_kept(whole):
    tables = noise(5, [8, 8, 5, 8, 5])
    tables["empty"] = {"price": np.full(8, np.nan)}
    tables["huge"] = {"price": 1e200 * np.arange(8.0)}
    panel = toy(tables)
    tree = fit_each(panel, SHORT, key=KEY, batch=2)
    assert list(failures(tree)) == ["huge"]
    assert "not finite" in failures(tree)["huge"]
    assert list(tree["posterior"]["market"].to_numpy()) == ["empty", "m0", "m1", "m2", "m3", "m4"]
    for name in ("m2", "m4"):  # those in a batch of their own: the same program as before
        assert_allclose(tree["posterior"]["level"].sel(market=name), whole["posterior"]["level"].sel(market=name), rtol=1e-6)


def test_refused_data_are_told_by_name():
    tables = prices(2) | {"nothing": {"price": np.full(20, np.nan), "supply": np.arange(20.0)}}
    tables["still"] = {"price": np.full(20, 2.0), "supply": np.arange(20.0)}
    panel = Panel("price_formation", panel_of(tables), ForeseenPrices())
    found = {one.name: one.failure for one in prepare(panel.without_data(), panel.frames.items())}
    assert [name for name, why in found.items() if why] == ["nothing", "still"]
    assert "missing in every row" in found["nothing"]
    assert "constant" in found["still"]


def test_a_name_that_two_markets_share_is_told():
    frame = panel_of(prices(2))
    frame["market"] = "same"
    with pytest.raises(CalibrationError, match="none of the 1 markets can be fitted; market 'same': time is 0 in both row 1"):
        fit_each(Panel("price_formation", frame, ForeseenPrices()), SHORT, key=KEY)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame.drop(columns="market"), "column 'market' is missing"),
        (lambda frame: frame.drop(columns="time"), "column 'time' is missing"),
    ],
)
def test_panels_need_markets_and_times(change, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        Panel(level, change(panel_of(noise(2))), NoisyLevel())


def test_bad_arguments():
    panel = toy(noise(2))
    with pytest.raises(CalibrationError, match="market 'm9' is not in the panel: it has 'm0', 'm1'"):
        panel.problem("m9")
    with pytest.raises(CalibrationError, match="batch is 0"):
        fit_each(panel, SHORT, key=KEY, batch=0)
    with pytest.raises(CalibrationError, match="workers is 0"), scheduler("local", 0):
        pass


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_after_its_last_batch(whole, tmp_path):
    panel, seen = toy(noise(5, [8, 8, 5, 8, 5])), []

    def die(report):
        seen.append(report)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        fit_each(panel, SHORT, key=KEY, batch=2, checkpoint=tmp_path, progress=die)
    assert len(list(tmp_path.glob("chunk-*"))) == 2
    again = []
    tree = fit_each(panel, SHORT, key=KEY, batch=2, checkpoint=tmp_path, resume=True, progress=again.append)
    assert tree.identical(whole)
    assert [report.done for report in again] == [2, 3, 5]
    with pytest.raises(CalibrationError, match="holds another run: its batch was 2 and is 3"):
        fit_each(panel, SHORT, key=KEY, batch=3, checkpoint=tmp_path, resume=True)


def test_findings_by_market(whole, tmp_path):
    tree = whole.copy()
    tree.attrs = {**whole.attrs, "failed": '[["m9", "price is missing"]]'}
    found = by_market(tree)
    assert found.summary.loc[("m3", "level"), "mean"] == float(tree["posterior"]["level"].sel(market="m3").mean())
    assert list(found.checks.index) == ["m0", "m1", "m2", "m3", "m4"]
    assert found.verdict == "fail"
    assert found.text.startswith("5 of 6 markets were fitted")
    assert "Market m9: price is missing" in found.text
    found.save(tmp_path)
    again = ByMarket.load(tmp_path)
    pd.testing.assert_frame_equal(again.summary, found.summary)
    pd.testing.assert_frame_equal(again.checks, found.checks)
    (first, _, _), (second, (_, means)), *_ = found.story()
    assert (first, second) == ("Markets, each by itself", "Posterior means")
    assert means.loc["m3", "level"] == found.summary.loc[("m3", "level"), "mean"]
    assert load(save(tree, tmp_path / "posterior.nc")).identical(tree)


def test_dask_is_asked_for_by_name(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **options):
        if name in ("dask", "distributed"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CalibrationError, match=r'pip install "walras\[distributed\]"'), scheduler():
        pass


def test_nothing_answers():
    with pytest.raises(CalibrationError, match="does not answer"), scheduler("tcp://127.0.0.1:9", timeout=1):
        pass


def _slow_square(number):
    time.sleep(0.2)
    return number**2, os.getpid()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_repeats_nothing():
    """One of two workers is killed by SIGKILL in mid-run; a third process takes its place."""
    with scheduler(workers=2) as executor:
        first = {pid for _, pid in each(_slow_square, range(4), executor)}
        threading.Timer(1.0, os.kill, (min(first), signal.SIGKILL)).start()
        found = list(each(_slow_square, range(60), executor))
    assert [square for square, _ in found] == [number**2 for number in range(60)]
    assert {pid for _, pid in found} - first


@pytest.mark.slow
def test_one_worker_two_workers_and_a_killed_one_draw_the_same_as_here():
    panel = Panel("price_formation", panel_of(prices(12, rows=20)), ForeseenPrices())
    here = fit_each(panel, SHORT, key=KEY, batch=2)
    killed = []
    for workers in (1, 2):
        with scheduler(workers=workers) as executor:

            def kill(report, executor=executor, workers=workers):
                if workers == 2 and not killed:
                    pids = executor._client.run(os.getpid)
                    killed.append(min(pids.values()))
                    os.kill(killed[0], signal.SIGKILL)

            assert fit_each(panel, SHORT, key=KEY, batch=2, executor=executor, progress=kill).identical(here)
    assert killed


@pytest.mark.slow
@pytest.mark.statistical
def test_a_batch_agrees_with_fits_of_their_own():
    """Means of `fit_each` against `fit`. False-alarm rate: 20 z-scores at 4.5 standard errors, about 1e-4."""
    panel = Panel("price_formation", panel_of(prices(4, rows=20)), ForeseenPrices())
    sampler = NUTS(warmup=500, draws=1000)
    together = fit_each(panel, sampler, key=KEY)
    for name in panel.frames:
        alone = fit(panel.problem(name), sampler, key=KEY)
        for parameter in panel.problem(name).sampled:
            ours, theirs = together["posterior"][parameter].sel(market=name), alone["posterior"][parameter]
            size = float(together["diagnostics"][parameter].sel(market=name, diagnostic="ess_bulk"))
            error = float(theirs.std()) * np.sqrt(2 / size)
            assert abs(float(ours.mean() - theirs.mean())) < 4.5 * error, (name, parameter)
