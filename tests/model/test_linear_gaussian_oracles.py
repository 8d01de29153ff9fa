"""The linear-Gaussian oracles against textbook formulas, quadrature and a Kalman filter."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import linear_gaussian as oracle
from scipy.integrate import quad_vec
from scipy.linalg import expm
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

# Exponentials of matrices of norm below ten, and adaptive quadrature to 1e-13.
EXACT = 1e-10

DRIFT = np.array([[-1.7, 0.0], [0.8, -0.6]])
CONSTANT = np.array([0.9, -0.2])
DIFFUSION = np.array([[0.64, 0.1], [0.1, 0.3]])


def test_moments_equal_quadrature():
    transition, offset, covariance = oracle.linear_sde_moments(DRIFT, CONSTANT, DIFFUSION, 1.3)
    assert_allclose(transition, expm(1.3 * DRIFT), rtol=EXACT)
    assert_allclose(offset, quad_vec(lambda s: expm(s * DRIFT) @ CONSTANT, 0, 1.3)[0], rtol=EXACT)
    expected = quad_vec(lambda s: expm(s * DRIFT) @ DIFFUSION @ expm(s * DRIFT).T, 0, 1.3)[0]
    assert_allclose(covariance, expected, rtol=EXACT)


def test_averages_equal_quadrature():
    """The average of ∫₀ᵗ is a weighted sum of the noise: weight (1/T)∫_u^T exp(A(s − u)) ds on the noise at u."""
    duration = 1.3
    transition, offset, covariance = oracle.averaged_moments(DRIFT, CONSTANT, DIFFUSION, duration)

    def weight(u):
        return np.linalg.solve(DRIFT, expm((duration - u) * DRIFT) - np.eye(2)) / duration

    def loading(u):
        return np.vstack([expm((duration - u) * DRIFT), weight(u)])

    expected = quad_vec(lambda u: loading(u) @ DIFFUSION @ loading(u).T, 0, duration)[0]
    assert_allclose(covariance, expected, rtol=EXACT)
    assert_allclose(transition, loading(0.0), rtol=EXACT)
    assert_allclose(offset, quad_vec(lambda u: loading(u) @ CONSTANT, 0, duration)[0], rtol=EXACT)


def test_two_days_compose():
    (f1, o1, s1), (f2, o2, s2) = (oracle.linear_sde_moments(DRIFT, CONSTANT, DIFFUSION, t) for t in (0.4, 0.9))
    transition, offset, covariance = oracle.linear_sde_moments(DRIFT, CONSTANT, DIFFUSION, 1.3)
    assert_allclose(f2 @ f1, transition, rtol=EXACT)
    assert_allclose(f2 @ o1 + o2, offset, rtol=EXACT)
    assert_allclose(f2 @ s1 @ f2.T + s2, covariance, rtol=EXACT)


def test_averages_compose():
    """The average over two days is the average of the daily averages, and the second starts where the first ends."""
    day = oracle.averaged_moments(DRIFT, CONSTANT, DIFFUSION, 0.5)
    two = oracle.averaged_moments(DRIFT, CONSTANT, DIFFUSION, 1.0)
    carry = np.block([[day[0][:2], np.zeros((2, 2))], [0.5 * day[0][2:], 0.5 * np.eye(2)]])
    fresh = np.diag([1.0, 1.0, 0.5, 0.5])
    assert_allclose(carry @ day[0], two[0], rtol=EXACT)
    assert_allclose(carry @ day[1] + fresh @ day[1], two[1], rtol=EXACT)
    assert_allclose(carry @ day[2] @ carry.T + fresh @ day[2] @ fresh.T, two[2], rtol=EXACT)


def test_ornstein_uhlenbeck_formulas():
    theta, volatility, duration = 1.7, 0.8, 0.6
    arguments = ([[-theta]], [theta * 0.3], [[volatility**2]])
    _, _, covariance = oracle.averaged_moments(*arguments, duration)
    z, scale = theta * duration, volatility**2 / theta**2
    decay = np.exp(-z)
    assert_allclose(covariance[0, 0], volatility**2 * (1 - decay**2) / (2 * theta), rtol=EXACT)
    assert_allclose(covariance[0, 1], scale * (1 - decay) ** 2 / (2 * duration), rtol=EXACT)
    variance = scale / duration**2 * (duration - 2 * (1 - decay) / theta + (1 - decay**2) / (2 * theta))
    assert_allclose(covariance[1, 1], variance, rtol=EXACT)
    mean, stationary = oracle.stationary_moments(*arguments)
    assert_allclose([mean[0], stationary[0, 0]], [0.3, volatility**2 / (2 * theta)], rtol=EXACT)


def test_stationary_law_is_kept():
    mean, covariance = oracle.stationary_moments(DRIFT, CONSTANT, DIFFUSION)
    transition, offset, added = oracle.linear_sde_moments(DRIFT, CONSTANT, DIFFUSION, 2.0)
    assert_allclose(transition @ mean + offset, mean, rtol=EXACT)
    assert_allclose(transition @ covariance @ transition.T + added, covariance, rtol=EXACT)
    assert_allclose(oracle.autocovariance(DRIFT, DIFFUSION, 2.0), transition @ covariance, rtol=EXACT)


def test_autoregression_has_its_textbook_autocovariance():
    phi, count = 0.6, 7
    variance = 1 / (1 - phi**2)
    mean, cov = oracle.dense_gaussian(
        [[[phi]]] * (count - 1), [[0.0]] * (count - 1), [[[1.0]]] * (count - 1),
        [[[2.0]]] * count, [[0.5]] * count, [[[0.1]]] * count, [0.0], [[variance]],
    )  # fmt: skip
    gaps = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    assert_allclose(mean, 0.5)
    assert_allclose(cov, 4 * variance * phi**gaps + 0.1 * np.eye(count), rtol=EXACT)


def make_state_space(count, rng):
    """Time-varying two-dimensional states seen through one or two noisy linear maps."""
    moves = [oracle.linear_sde_moments(DRIFT, CONSTANT, DIFFUSION, t) for t in rng.uniform(0.2, 2.0, count - 1)]
    maps = rng.normal(size=(count, 2, 2))
    shifts = rng.normal(size=(count, 2))
    noise = [np.diag(variances) for variances in rng.uniform(0.1, 1.0, (count, 2))]
    return (*zip(*moves, strict=True), maps, shifts, noise, *oracle.stationary_moments(DRIFT, CONSTANT, DIFFUSION))


def kalman_filter(observations, transitions, offsets, covs, maps, shifts, noise, mean, cov):
    """The recursive filter of statsmodels; its transition at the last date is never used."""

    def last(arrays, fill):
        return np.stack([*arrays, fill], axis=-1)

    model = KalmanFilter(k_endog=2, k_states=2, k_posdef=2)
    model.bind(observations)
    model["transition"] = last(transitions, np.eye(2))
    model["state_intercept"] = last(offsets, np.zeros(2))
    model["state_cov"] = last(covs, np.eye(2))
    model["selection"] = np.eye(2)
    model["design"], model["obs_intercept"] = np.moveaxis(maps, 0, -1), shifts.T
    model["obs_cov"] = np.moveaxis(np.array(noise), 0, -1)
    model.initialize_known(mean, cov)
    return model


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_density_equals_the_kalman_filter(missing):
    rng = np.random.default_rng(11)
    system = make_state_space(9, rng)
    observations = rng.normal(size=(9, 2))
    observations[rng.uniform(size=(9, 2)) < missing] = np.nan
    expected = kalman_filter(observations, *system).loglike()
    actual = oracle.dense_gaussian_logpdf(observations, *oracle.dense_gaussian(*system))
    assert_allclose(actual, expected, rtol=EXACT)


def test_conditional_law_equals_bayes_rule_in_information_form():
    """Seen entries with noise R: posterior precision is the prior's plus R⁻¹ on what was seen."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 5))
    prior_mean, prior_cov, noise = rng.normal(size=5), root @ root.T + np.eye(5), 0.4
    seen = np.array([0.3, np.nan, -1.0, np.nan, 2.0])
    joint_mean = np.concatenate([prior_mean, prior_mean])
    joint_cov = np.kron(np.ones((2, 2)), prior_cov) + noise * np.kron(np.diag([0, 1]), np.eye(5))
    observations = np.concatenate([np.full(5, np.nan), seen])
    mean, cov = oracle.dense_conditional(observations, joint_mean, joint_cov)
    precision = np.linalg.inv(prior_cov) + np.diag(np.where(np.isnan(seen), 0.0, 1 / noise))
    assert_allclose(cov[:5, :5], np.linalg.inv(precision), rtol=EXACT, atol=EXACT)
    pull = np.where(np.isnan(seen), 0.0, (np.nan_to_num(seen) - prior_mean) / noise)
    assert_allclose(mean[:5], prior_mean + np.linalg.solve(precision, pull), rtol=EXACT, atol=EXACT)
