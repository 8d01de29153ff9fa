"""Samplers beside NUTS on a market whose posterior is normal, so that mode, covariance and evidence are known exactly."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from simulated import series

from walras.calibrate import (
    MAP,
    NUTS,
    SMC,
    SVI,
    CalibrationError,
    ForeseenPrices,
    Laplace,
    Prior,
    Problem,
    check,
    compare,
    fit,
    posterior_predictive,
    report,
    samplers,
)
from walras.calibrate.checkpoints import Checkpoints
from walras.calibrate.comparisons.rolling import Scores
from walras.calibrate.run import _sampler, summary
from walras.model import Status

ROWS, NOISE = 30, 0.4
NAMES = ("level", "slope")
# BFGS stops at slopes of 1e-6; curvatures here are 1 and more.
CLIMBED = 1e-6
# Five standard errors: one key in two million for each number compared.
STANDARD_ERRORS = 5.0
TINY = {
    "MAP": MAP(starts=2),
    "Laplace": Laplace(starts=2, draws=40),
    "SVI": SVI(starts=2, steps=200, chunk=50, draws=40),
    "SMC": SMC(runs=2, particles=40, moves=2),
}


class Line(NamedTuple):
    price: jnp.ndarray
    status: Status = Status.solved


def line(params, inputs):
    return Line(params["level"] + params["slope"] * inputs["supply"])


def gap(params, inputs):
    """No equilibrium unless the level is positive."""
    return line(params, inputs)._replace(status=Status.where(params["level"] > 0, Status.solved, Status.not_convex))


def problem(market=line, **priors):
    given = {"level": Prior("Normal", 1.0, 0.5), "slope": Prior("Normal", 0.0, 0.3), "price_noise": NOISE}
    return Problem(market, series(ROWS, seed=2), ForeseenPrices(), {**given, **priors})


def tilted(params, inputs):
    return Line(params["level"] + params["slope"] * (inputs["supply"] - 1.15))


def exact(shift=0.0):
    """Mean, covariance and log evidence by the formulas of the normal linear model, whose supply is shifted."""
    made = problem()
    design = np.column_stack([np.ones(ROWS), made.inputs["supply"] + shift])
    prior_mean, prior_variance = np.array([1.0, 0.0]), np.diag([0.25, 0.09])
    price = made.data["price"].to_numpy()
    marginal = design @ prior_variance @ design.T + NOISE**2 * np.eye(ROWS)
    covariance = np.linalg.inv(np.linalg.inv(prior_variance) + design.T @ design / NOISE**2)
    mean = covariance @ (np.linalg.solve(prior_variance, prior_mean) + design.T @ price / NOISE**2)
    return mean, covariance, scipy.stats.multivariate_normal(design @ prior_mean, marginal).logpdf(price)


def assert_exact_posterior(draws, effective):
    """Means and standard deviations within five standard errors, given the effective number of draws."""
    mean, covariance, _ = exact()
    for name, centre, spread in zip(NAMES, mean, np.sqrt(np.diag(covariance)), strict=True):
        assert abs(draws.values[name].mean() - centre) < STANDARD_ERRORS * spread / np.sqrt(effective)
        assert abs(draws.values[name].std() / spread - 1.0) < STANDARD_ERRORS / np.sqrt(2 * effective)


def test_the_mode_is_that_of_the_formula():
    draws = MAP(starts=3).run(problem(), jax.random.key(0))
    assert_allclose([draws.values[name].item() for name in NAMES], exact()[0], atol=CLIMBED)
    assert draws.facts["starts_agreeing"] == 3


def test_laplace_is_exact_where_the_posterior_is_normal():
    """Every weight is then the evidence itself."""
    draws = Laplace(starts=1).run(problem(), jax.random.key(1))
    assert_allclose(draws.facts["log_evidence"], exact()[2], rtol=1e-9)
    assert_allclose(draws.statistics["lp"] - draws.statistics["log_q"], exact()[2], rtol=1e-6)
    assert_exact_posterior(draws, 1000)


@pytest.mark.statistical
@pytest.mark.parametrize("guide", ["full", pytest.param("low_rank", marks=pytest.mark.slow)])
def test_variational_inference_finds_the_normal_posterior(guide):
    """False-alarm rate 2e-6; what the guide still misses after its last step is a twentieth of a standard deviation."""
    draws = SVI(guide=guide, steps=1000, particles=2, learning_rate=0.02, starts=1).run(problem(), jax.random.key(2))
    assert draws.facts["pareto_k"] < 0.7
    assert_allclose(draws.facts["log_evidence"], exact()[2], atol=0.05)
    assert_exact_posterior(draws, 400)


@pytest.mark.slow
@pytest.mark.statistical
def test_importance_weights_mend_a_diagonal_guide():
    """Supply that is seldom near zero makes level and slope trade off (correlation .6), and the guide too narrow.

    That is the negative control, by a fifth; the false-alarm rate is 1e-4.
    """
    correct = np.sqrt(exact(-1.15)[1][1, 1])
    plain, mended = (
        SVI(guide="diagonal", steps=1000, particles=2, learning_rate=0.02, draws=2000, starts=1, importance=importance).run(
            problem(tilted), jax.random.key(3)
        )
        for importance in (False, True)
    )
    assert mended.facts["pareto_k"] < 0.7
    assert plain.values["slope"].std() < 0.9 * correct
    assert_allclose(mended.values["slope"].std(), correct, rtol=0.1)


@pytest.mark.statistical
def test_tempering_finds_posterior_and_evidence():
    """Four runs of 400 particles; the standard error of the log evidence, .06, is that of 20 other keys."""
    draws = SMC(particles=400).run(problem(), jax.random.key(4))
    assert_allclose(draws.facts["log_evidence"], exact()[2], atol=STANDARD_ERRORS * 0.06)
    assert_exact_posterior(draws, 800)


@pytest.mark.slow
def test_tempering_leaves_out_markets_without_equilibrium():
    """The evidence is that of the whole prior, of which they are a part with no likelihood; here, as good as none of it."""
    made = problem(gap, level=Prior("Normal", 1.0, 1.0))
    same = problem(line, level=Prior("Normal", 1.0, 1.0))
    found = [SMC(runs=2, particles=200).run(each, jax.random.key(5)) for each in (made, same)]
    assert (found[0].values["level"] > 0).all()
    assert_allclose(found[0].facts["log_evidence"], found[1].facts["log_evidence"], atol=1.0)


class Killed(Exception):
    """Stands for a process that ends."""


@pytest.mark.parametrize("kind", ["MAP", *(pytest.param(k, marks=pytest.mark.slow) for k in ("SMC", "Laplace", "SVI"))])
def test_a_killed_run_goes_on_to_the_same_draws(kind, tmp_path, monkeypatch):
    made, sampler, key = problem(), TINY[kind], jax.random.key(6)
    whole = sampler.run(made, key)
    write, written = Checkpoints.write, []

    def dying(self, chunk, state, arrays):
        write(self, chunk, state, arrays)
        written.append(chunk)
        if len(written) == 2:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoints, "write", dying)
        sampler.run(made, key, None, Checkpoints(tmp_path / "run", {}))
    resumed = sampler.run(made, key, None, Checkpoints(tmp_path / "run", {}, resume=True))
    for name in NAMES:
        np.testing.assert_array_equal(whole.values[name], resumed.values[name])
    assert json.dumps(dict(whole.facts)) == json.dumps(dict(resumed.facts))


JUDGED = {
    "MAP": {"gradient", "starts_agreeing"},
    "Laplace": {"gradient", "starts_agreeing", "pareto_k"},
    "SVI": {"gradient", "starts_agreeing", "pareto_k", "elbo_change"},
    "SMC": {"r_hat", "ess_bulk", "ess_tail", "acceptance", "log_evidence_spread"},
}


@pytest.mark.parametrize("kind", ["MAP", "SMC", *(pytest.param(k, marks=pytest.mark.slow) for k in ("Laplace", "SVI"))])
def test_every_sampler_ends_in_the_same_tree_checks_and_report(kind, tmp_path):
    made = problem()
    told = []
    tree = fit(made, TINY[kind], key=jax.random.key(7), progress=told.append)
    assert told[-1].done == told[-1].total
    assert {"posterior", "sample_stats", "log_likelihood", "log_prior", "prior", "one_step_ahead"} <= set(tree.children)
    judged = check(made, tree)
    assert set(judged.to_json()) >= {"verdict", "r_hat", "ess_bulk", "divergences", "solver_failures", "checks"}
    assert judged.divergences == 0
    general = {
        "solver_failures",
        "prior_solved",
        *(f"forecast_{what}" for what in ("calibration", "correlation", "autocorrelation", "volatility")),
        *("prior_data_conflict", "prior_sensitivity"),  # not of a single point
    }
    assert {item.name for item in judged.checks} - general == JUDGED[kind]
    json.dumps(judged.to_json(), allow_nan=False)
    assert list(summary(made, tree).index) == list(NAMES)
    tree = posterior_predictive(made, tree, key=jax.random.key(8), draws=min(5, tree["posterior"].sizes["draw"]))
    page = report(made, tree, tmp_path / "report.html").read_text()
    assert kind in page


def refusal(call) -> str:
    with pytest.raises(CalibrationError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MAP(starts=0), "starts is 0"),
        (lambda: MAP(init="pathfinder"), "init is 'pathfinder'"),
        (lambda: Laplace(importance=1), "importance is 1: choose true or false"),
        (lambda: SVI(guide="flow"), "guide is 'flow': choose one of low_rank, full, diagonal"),
        (lambda: SVI(learning_rate=2.0), "learning_rate is 2.0: give a number between 0 and 1"),
        (lambda: SMC(target_ess=1.0), "target_ess is 1.0"),
        (lambda: SMC(resampling="none"), "resampling is 'none': choose one of systematic, multinomial"),
        (lambda: NUTS(init="somewhere"), "choose one of median, prior, uniform, pathfinder"),
        (lambda: _sampler({"kind": "Gibbs"}), "sampler kind is 'Gibbs': choose one of NUTS, MAP, Laplace, SVI, SMC"),
        (lambda: _sampler({"kind": "SMC", "chains": 4}), "sampler has the unknown option 'chains': known are runs"),
    ],
)
def test_options_are_refused_in_a_sentence(call, words):
    assert words in refusal(call)


def nowhere(params, inputs):
    return line(params, inputs)._replace(status=Status.not_convex)


@pytest.mark.parametrize("kind", TINY)
def test_no_start_has_a_density(kind):
    text = refusal(lambda: TINY[kind].run(problem(nowhere), jax.random.key(0)))
    assert "priors allow the data" in text


def test_a_specification_names_its_sampler():
    assert _sampler({"kind": "SMC", "particles": 100}) == SMC(particles=100)
    assert _sampler({"draws": 10}) == NUTS(draws=10)


def test_hessian_that_is_not_positive():
    """A saddle, where a climb that may take no step stays: the curvature of −log density along `level` is negative there."""
    from walras.calibrate.samplers import laplace

    class Saddle:
        names = ("level", "slope")
        data = None

        def potential(self, z, data):
            return -(z[0] ** 2) + z[1] ** 2

    assert "does not fall off from its highest point along 'level'" in refusal(
        lambda: laplace._precision(Saddle(), jnp.zeros(2))
    )


@pytest.mark.slow
@pytest.mark.statistical
def test_pathfinder_starts_near_the_posterior():
    """A start of the prior is 5 and more posterior standard deviations away; a path's point is one of the posterior's own."""
    made = problem()
    mean, covariance, _ = exact()
    distances = {}
    for init in ("prior", "pathfinder"):
        chains = samplers.Chains(made, NUTS(init=init))
        keys = jax.random.split(jax.random.key(11), 8)
        first = samplers.pathfinder.starts(chains.target, keys) if init == "pathfinder" else chains.target.first_points(keys)
        values, _ = chains.target.values(first[None], chains.target.data)
        away = np.stack([values[name][0] for name in NAMES], -1) - mean
        distances[init] = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    # Distances of normal points in two dimensions: P(> 5.3) is 8e-7.
    assert distances["pathfinder"].max() < 5.3 < distances["prior"].max()


def test_comparing_refits_by_nuts_and_takes_a_point():
    made = problem()
    tree = fit(made, TINY["MAP"], key=jax.random.key(12))
    scores = Scores(np.zeros((ROWS, 1)), np.ones((ROWS, 1)))
    table = compare({"point": (made, tree)}, key=jax.random.key(0), rolling={"point": scores}, origins=2).table
    assert np.isnan(table.loc["point", "loo"])
