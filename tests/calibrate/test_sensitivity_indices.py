"""Sobol indices, elementary effects and Shapley effects of functions whose own are known."""

import sys
from functools import partial
from itertools import combinations
from math import comb

import jax
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from refusals import assert_refused

from walras.calibrate.sensitivities.indices import morris, scaled, shapley, sobol, tail_share

A, B = 7.0, 0.1
# Ishigami and Homma (1990): variances of the parts of the function, by integrating it.
V1, V2, V13 = 0.5 * (1.0 + B * np.pi**4 / 5.0) ** 2, A**2 / 8.0, 8.0 * B**2 * np.pi**8 / 225.0
TOTAL = V1 + V2 + V13
FIRST = np.array([V1, V2, 0.0]) / TOTAL
WHOLE = np.array([V1 + V13, V2, V13]) / TOTAL
SHARES = np.array([V1 + V13 / 2, V2, V13 / 2]) / TOTAL  # an interaction is split between its two

UNIFORM = {f"x{i}": partial(scipy.stats.uniform(-np.pi, 2.0 * np.pi).ppf) for i in (1, 2, 3)}


def ishigami(x):
    return {"ishigami": np.sin(x[:, 0]) + A * np.sin(x[:, 1]) ** 2 + B * x[:, 2] ** 4 * np.sin(x[:, 0])}


def test_the_published_figures():
    """Saltelli et al., Global Sensitivity Analysis (2008), p. 179 of Ishigami's function with these constants."""
    assert_allclose(FIRST, [0.3139, 0.4424, 0.0], atol=5e-5)
    assert_allclose(WHOLE, [0.5576, 0.4424, 0.2437], atol=5e-5)


# With 4096 samples the largest error of any index over ten keys was .020.
SAMPLED = 0.03


def test_sobol_indices_of_ishigami():
    table, pairs = sobol(ishigami, UNIFORM, key=jax.random.key(1), samples=4096)
    found = table.loc["ishigami"]
    assert_allclose(found["first"], FIRST, atol=SAMPLED)
    assert_allclose(found["total"], WHOLE, atol=SAMPLED)
    assert_allclose(pairs["second"], [0.0, V13 / TOTAL, 0.0], atol=SAMPLED)
    assert list(pairs.index) == [("ishigami", "x1", "x2"), ("ishigami", "x1", "x3"), ("ishigami", "x2", "x3")]
    for index in ("first", "total"):
        assert np.all(found[f"{index}_low"] <= found[index]) and np.all(found[index] <= found[f"{index}_high"])


@pytest.mark.statistical
def test_shapley_effects_of_ishigami():
    """Three shares within 3.5 standard errors: one key in 700 fails."""
    found = shapley(ishigami, UNIFORM, key=jax.random.key(2), trajectories=4000).loc["ishigami"]
    error = (found["share_high"] - found["share"]) / scipy.stats.norm.ppf(0.95)
    assert np.all(np.abs(found["share"] - SHARES) < 3.5 * error) and np.all(error < 0.02)
    assert_allclose(found["share"].sum(), 1.0, rtol=1e-12)


def test_elementary_effects_of_a_linear_function():
    """Steps cross 90 % of each range: the effect of one is 0.9 times range and slope, with no spread at all."""
    quantiles = {"a": lambda u: 2.0 * u, "b": lambda u: u - 0.5, "c": lambda u: u}
    found = morris(lambda x: {"y": 3.0 * x[:, 0] - 4.0 * x[:, 1]}, quantiles, key=jax.random.key(3)).loc["y"]
    assert_allclose(found["mu"], [5.4, -3.6, 0.0], atol=1e-12)
    assert_allclose(found["mu_star"], [5.4, 3.6, 0.0], atol=1e-12)
    assert_allclose(found["sigma"], 0.0, atol=1e-12)


def test_elementary_effects_show_interactions():
    quantiles = {"a": lambda u: u, "b": lambda u: u, "c": lambda u: u}
    found = morris(lambda x: {"y": x[:, 0] * x[:, 1] + x[:, 2]}, quantiles, key=jax.random.key(3)).loc["y"]
    assert found["sigma"]["a"] > 0.1 and found["sigma"]["b"] > 0.1 and found["sigma"]["c"] < 1e-12


# --- dependent parameters

COVARIANCE = np.array([[1.0, 0.7, 0.0], [0.7, 2.0, -0.6], [0.0, -0.6, 0.5]])
SLOPES = np.array([1.0, -1.0, 2.0])
DEVIATIONS = np.sqrt(np.diagonal(COVARIANCE))
CORRELATION = COVARIANCE / np.outer(DEVIATIONS, DEVIATIONS)
NORMAL = {f"x{i}": partial(scipy.stats.norm(0.0, deviation).ppf) for i, deviation in enumerate(DEVIATIONS)}


def linear(x):
    return {"y": x @ SLOPES[: x.shape[1]]}


def explained(known, covariance, slopes):
    """Var E[β·X | X_known] of normal X (Owen and Prieur 2017, section 4)."""
    known = list(known)
    if not known:
        return 0.0
    loading = covariance[:, known] @ np.linalg.inv(covariance[np.ix_(known, known)])
    return float(slopes @ loading @ covariance[known] @ slopes)


def exact_shares(covariance, slopes):
    """Shapley's formula, all subsets one by one."""
    size = len(slopes)
    effects = np.zeros(size)
    for player in range(size):
        others = [i for i in range(size) if i != player]
        for known in (s for k in range(size) for s in combinations(others, k)):
            gain = explained((*known, player), covariance, slopes) - explained(known, covariance, slopes)
            effects[player] += gain / (size * comb(size - 1, len(known)))
    return effects / (slopes @ covariance @ slopes)


def test_the_closed_form_of_two_parameters():
    """Owen and Prieur (2017), section 4.1: the effect of the first of two."""
    (s1, r), (_, s2) = COVARIANCE[0, :2], COVARIANCE[1, :2]
    rho, b1, b2 = r / np.sqrt(s1 * s2), SLOPES[0], SLOPES[1]
    first = b1**2 * s1 * (1 - rho**2 / 2) + r * b1 * b2 + b2**2 * s2 * rho**2 / 2
    total = b1**2 * s1 + 2 * r * b1 * b2 + b2**2 * s2
    assert_allclose(exact_shares(COVARIANCE[:2, :2], SLOPES[:2])[0], first / total, rtol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("width", [2, 3])
def test_shapley_effects_of_dependent_parameters(width):
    """Two or three shares within 3.5 standard errors: one key in 700 fails. Taken to be independent, all are wrong."""
    quantiles = dict(list(NORMAL.items())[:width])
    exact = exact_shares(COVARIANCE[:width, :width], SLOPES[:width])
    options = {"key": jax.random.key(4), "trajectories": 6000}
    found = shapley(linear, quantiles, correlation=CORRELATION[:width, :width], **options).loc["y"]
    error = (found["share_high"] - found["share"]) / scipy.stats.norm.ppf(0.95)
    assert np.all(np.abs(found["share"] - exact) < 3.5 * error) and np.all(error < 0.02)
    independent = shapley(linear, quantiles, **options).loc["y", "share"]
    assert np.max(np.abs(independent - exact)) > 5 * error.max()


# --- scales, failures and refusals


def test_outputs_of_one_sign_enter_by_their_logs():
    quantiles = {"a": lambda u: np.exp(scipy.stats.norm.ppf(u)), "b": lambda u: np.exp(0.5 * scipy.stats.norm.ppf(u))}
    table, _ = sobol(
        lambda x: {"product": -(x[:, 0]) / x[:, 1]}, quantiles, key=jax.random.key(5), samples=1024, second=False, logs=True
    )
    assert_allclose(table.loc["product", "first"], [0.8, 0.2], atol=SAMPLED)  # log-variances 1 and 1/4
    assert scaled(np.array([1.0, -1.0]))[1] == "plain" and scaled(np.array([-1.0, -2.0]))[1] == "log"


def test_heavy_tails_are_seen():
    normal, heavy = (
        scipy.stats.norm.ppf(np.linspace(1e-4, 1 - 1e-4, 20001)),
        scipy.stats.cauchy.ppf(np.linspace(1e-4, 1 - 1e-4, 20001)),
    )
    assert tail_share(normal) < 0.1 and tail_share(heavy) > 0.9


def test_a_few_points_without_a_value_are_left_out():
    def failing(x):
        return {"ishigami": np.where(x[:, 0] > 0.995 * np.pi, np.nan, ishigami(x)["ishigami"])}

    table, _ = sobol(failing, UNIFORM, key=jax.random.key(1), samples=4096, second=False)
    assert_allclose(table.loc["ishigami", "first"], FIRST, atol=2 * SAMPLED)
    for method, size in ((morris, 500), (shapley, 500)):
        assert np.isfinite(method(failing, UNIFORM, key=jax.random.key(1), trajectories=size).select_dtypes("number")).all(
            axis=None
        )


def test_refusals(monkeypatch):
    def mostly(x):
        return {"fine": x[:, 0], "broken": np.where(x[:, 0] > 0.0, np.nan, x[:, 0])}

    for method in (sobol, morris, shapley):
        told = ["'broken' has no value at 50 %", "narrow the priors"] if method is not morris else ["'broken'"]
        assert_refused(partial(method, mostly, UNIFORM, key=jax.random.key(0)), told)
        assert_refused(partial(method, ishigami, {}, key=jax.random.key(0)), ["no parameter is uncertain"])
    assert_refused(partial(sobol, ishigami, UNIFORM, key=jax.random.key(0), samples=100), ["samples is 100", "512"])
    assert_refused(partial(morris, ishigami, UNIFORM, key=jax.random.key(0), trajectories=1), ["trajectories is 1"])
    monkeypatch.setitem(sys.modules, "SALib.analyze", None)
    for method in (sobol, morris, shapley):
        refused = partial(method, ishigami, UNIFORM, key=jax.random.key(0))
        assert_refused(refused, ['pip install "walras[sensitivity]"'])
