"""Simulation-based calibration: right samplers pass at the stated level, wrong ones are caught and named.

By a problem whose posterior is known, so that what is judged is the judge.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import jax
import numpy as np
import pandas as pd
import pytest
from exact import NOISE, PRIOR_MEAN, PRIOR_SD, Blind, Exact, problem
from simulated import series

from walras.calibrate import NUTS, SBC, CalibrationError, ForeseenPrices, Problem, sbc
from walras.calibrate.simulation_based.truths import simulate

KEY = jax.random.key(5)
TINY = NUTS(chains=1, warmup=20, draws=20, chunk=20)


@pytest.fixture(scope="module")
def right():
    return sbc(problem(), Exact(), key=KEY, replications=1000, batch=200)


@pytest.mark.statistical
def test_an_exact_sampler_passes(right):
    """A false alarm in at most 1 % of keys."""
    assert right.rejected == []
    assert list(right.table.index) == ["level", "mean of path", "spread of path", "log likelihood"]
    assert "the ranks of all 4 quantities are uniform" in right.text
    assert right.ranks.shape == (1000, 4) and right.ranks.min().min() == 0 and right.ranks.max().max() == 79
    assert right.failed == right.unsolved == right.unmixed == 0


@pytest.mark.statistical
def test_coverage_is_nominal(right):
    """Four shares, of one quantity, within binomial bands of 99 %: a false alarm in less than 4 % of keys."""
    shares = right.table.loc["level", list(right.expected.index)].astype(float)
    assert (right.expected["low"] <= shares).all() and (shares <= right.expected["high"]).all()
    assert right.expected["nominal"].tolist() == pytest.approx([0.5, 0.8, 0.9, 0.95])


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Exact(shift=0.3), "too high"),
        (Exact(shift=-0.3), "too low"),
        (Exact(scale=0.8), "too narrow"),
        (Exact(scale=1.25), "too wide"),
    ],
)
def test_wrong_samplers_are_caught(wrong, words):
    """Negative controls. A shift of 0.3 deviations moves the mean rank by 9 standard errors, a scale of 0.8 their distance
    from the middle by 7: either is missed in fewer than 1e-3 of keys.
    """
    found = sbc(problem(), wrong, key=KEY, replications=1000, batch=200)
    assert "level" in found.rejected
    assert words in found.table.loc["level", "verdict"]
    assert "not uniform" in found.text and words in found.text


@pytest.mark.statistical
def test_the_log_likelihood_catches_a_sampler_of_the_prior():
    """Draws from the prior have uniform ranks of every parameter (Modrák et al. 2023): only data-dependent quantities tell."""
    found = sbc(problem(), Blind(), key=KEY, replications=500, batch=100)
    assert found.rejected == ["log likelihood"]


def test_simulated_tables_follow_their_truths():
    """Tables lack what the data lack; levels have the prior's moments, and errors the noise's (within 5 standard errors)."""
    truths = simulate(problem(missing=2), KEY, 400)
    assert np.isnan(truths.tables[:, :2]).all() and np.isfinite(truths.tables[:, 2:]).all()
    errors = (truths.tables[:, 2:, 0] - truths.values["level"][:, None]).ravel()
    for sample, mean, sd in ((truths.values["level"], PRIOR_MEAN, PRIOR_SD), (errors, 0.0, NOISE)):
        assert abs(sample.mean() - mean) < 5 * sd / np.sqrt(sample.size)
        assert abs(sample.std() - sd) < 5 * sd / np.sqrt(2 * sample.size)


def test_draws_of_the_prior_without_an_equilibrium_are_replaced():
    truths = simulate(problem(floor=PRIOR_MEAN), KEY, 100)
    assert (truths.values["level"] > PRIOR_MEAN).all() and len(truths.tables) == 100
    assert 60 < truths.unsolved < 160  # a negative binomial number, of mean 100 and deviation 14
    with pytest.raises(CalibrationError, match="no equilibrium"):
        simulate(problem(floor=PRIOR_MEAN + 20 * PRIOR_SD), KEY, 10)


def test_measured_supply_weighs_the_prior():
    """The spread of measured supply is drawn from its law given the measurements, whose density the program has as a factor.

    By quadrature of prior times likelihood; the mean of 300 draws is within 5 standard errors.
    """
    measured = Problem("price_formation", series(30), ForeseenPrices(supply="measured"))
    drawn = np.log(simulate(measured, KEY, 300).values["supply_sd"])
    grid = np.linspace(drawn.min() - 1.0, drawn.max() + 1.0, 2001)
    supply = measured.data["supply"].to_numpy()
    square = np.sum((supply - supply.mean()) ** 2)
    prior = measured.priors["supply_sd"].args
    log_density = -0.5 * ((grid - prior[0]) / prior[1]) ** 2 - len(supply) * grid - 0.5 * square * np.exp(-2.0 * grid)
    weights = np.exp(log_density - log_density.max())
    mean = np.average(grid, weights=weights)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=weights))
    assert abs(drawn.mean() - mean) < 5 * sd / np.sqrt(drawn.size)
    assert abs(drawn.std() - sd) < 5 * sd / np.sqrt(2 * drawn.size)


OPTIONS = {"key": KEY, "replications": 10, "batch": 4, "draws": 9}


@pytest.mark.slow
def test_ranks_do_not_depend_on_workers():
    """The same to the bit, here and in two spawned processes, each of which compiles."""
    foreseen = Problem("price_formation", series(12), ForeseenPrices())
    here = sbc(foreseen, TINY, **OPTIONS)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        there = sbc(foreseen, TINY, **OPTIONS, executor=pool)
    pd.testing.assert_frame_equal(here.ranks, there.ranks)
    pd.testing.assert_frame_equal(here.states, there.states)


def test_an_interrupted_run_is_resumed(tmp_path):
    """To the same ranks, from the batches that were done; and what did not mix is counted."""
    whole = sbc(problem(), TINY, **OPTIONS)

    def stop(done):
        if done.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sbc(problem(), TINY, **OPTIONS, checkpoint=tmp_path, progress=stop)
    seen = []
    resumed = sbc(problem(), TINY, **OPTIONS, checkpoint=tmp_path, resume=True, progress=seen.append)
    assert seen[0].done == 8 and seen[-1].done == seen[-1].total == 12
    pd.testing.assert_frame_equal(whole.ranks, resumed.ranks)
    assert resumed.unmixed == (whole.states["ess"] < 9).sum() > 0
    with pytest.raises(CalibrationError, match="another run"):
        sbc(problem(), TINY, **{**OPTIONS, "replications": 12}, checkpoint=tmp_path, resume=True)


@pytest.mark.slow
def test_one_by_one_is_as_side_by_side():
    """Vectorised NUTS draws what single runs draw, given the same keys and tables (to rounding, before chaos sets in)."""
    short = NUTS(chains=2, warmup=4, draws=4, chunk=4)
    truths = simulate(problem(), KEY, 3)
    keys = jax.random.split(KEY, 3)
    together = short.run_each(problem(), keys, truths.tables)
    alone = super(NUTS, short).run_each(problem(), keys[1:2], truths.tables[1:2])
    assert together.values["level"].shape == (3, 2, 4)
    for name, array in alone.values.items():
        np.testing.assert_allclose(together.values[name][1:2], array, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_start_outside_the_posterior_is_a_failure():
    """Chains that start where there is no equilibrium have no ranks, and the others are judged without them."""
    floored = problem(floor=PRIOR_MEAN)
    with pytest.raises(CalibrationError, match="no replication could start"):
        sbc(floored, NUTS(chains=1, warmup=4, draws=9, chunk=13, init={"level": 0.0}), **OPTIONS)


def test_a_finding_is_kept_and_told(right, tmp_path):
    right.save(tmp_path)
    again = SBC.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, right.table, check_exact=True)
    assert again.text == right.text
    headings = [section[0] for section in again.story()]
    assert headings == ["Calibration", "Ranks", "Histograms of ranks", "Coverage"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replications": 2}, "replications is 2"),
        ({"draws": True}, "draws is True"),
        ({"level": 1.5}, "level is 1.5"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(CalibrationError, match=words):
        sbc(problem(), Exact(), key=KEY, **options)
