"""The law of a series around a known mean, against dense normal laws and sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from walras.calibrate.law import log_densities
from walras.calibrate.price_formation.errors_law import SeriesErrors

# Two summations of the same dozen logarithms.
EXACT = 1e-10
# Standard errors within which a moment of the draws must lie: 2e-6 of normal variables are beyond.
STANDARD_ERRORS = 4.8

ELAPSED = jnp.array([0.0, 1.0, 2.0, 5.0, 6.5, 9.0, 10.0, 11.0])
MEAN = jnp.array([1.0, 1.2, 0.7, -0.3, 0.0, 0.4, 0.5, 0.9])
SCALE, PERSISTENCE, FREEDOM = jnp.asarray(0.6), jnp.asarray(0.7), jnp.asarray(4.5)
PRICE = jnp.array([1.5, 0.9, jnp.nan, -1.1, 0.4, jnp.nan, jnp.nan, 0.8])


def law(**options):
    return SeriesErrors(MEAN, SCALE, ELAPSED, **options)


def covariance():
    return SCALE**2 * PERSISTENCE ** np.abs(np.subtract.outer(np.asarray(ELAPSED), np.asarray(ELAPSED)))


@pytest.mark.parametrize("missing", [True, False])
def test_ar1_density_is_a_multivariate_normal(missing):
    """Decay by elapsed time and stepping over missing values are both in the dense covariance, or wrong here."""
    price = np.asarray(PRICE if missing else jnp.nan_to_num(PRICE))
    seen = ~np.isnan(price)
    dense = stats.multivariate_normal(np.asarray(MEAN)[seen], covariance()[np.ix_(seen, seen)])
    assert_allclose(law(persistence=PERSISTENCE).log_prob(price[:, None]), dense.logpdf(price[seen]), rtol=EXACT)


def test_ar1_one_step_ahead_is_the_conditional_law():
    one_step = law(persistence=PERSISTENCE).one_step_ahead(PRICE[:, None])
    for row in range(1, PRICE.size):
        past = np.flatnonzero(~np.isnan(PRICE[:row]))
        gain = np.linalg.solve(covariance()[np.ix_(past, past)], covariance()[past, row])
        assert_allclose(one_step.mean[row], MEAN[row] + gain @ (PRICE - MEAN)[past], rtol=EXACT)
        variance = covariance()[row, row] - gain @ covariance()[past, row]
        assert_allclose(one_step.scale[row], np.sqrt(variance), rtol=EXACT)
    assert_allclose(np.isnan(log_densities(one_step, PRICE)), np.isnan(PRICE))


def test_independent_student_errors():
    """Heavy tails must have `scale` as the scale of Student's t, and its standard deviation in the forecast."""
    value = law(degrees_of_freedom=FREEDOM)
    density = stats.t(FREEDOM, MEAN, SCALE)
    assert_allclose(value.log_prob(PRICE[:, None]), np.nansum(density.logpdf(PRICE)), rtol=EXACT)
    assert_allclose(value.one_step_ahead(PRICE[:, None]).variance, density.var(), rtol=EXACT)


def test_student_innovations_with_persistence():
    """Innovations from one seen value to the next are Student-t, scaled to what has not decayed."""
    expected, before = 0.0, None
    for row in np.flatnonzero(~np.isnan(PRICE)):
        kept = 0.0 if before is None else float(PERSISTENCE) ** float(ELAPSED[row] - ELAPSED[before])
        mean = MEAN[row] + (0.0 if before is None else kept * (PRICE - MEAN)[before])
        expected += stats.t(FREEDOM, mean, SCALE * np.sqrt(1 - kept**2)).logpdf(PRICE[row])
        before = row
    actual = law(persistence=PERSISTENCE, degrees_of_freedom=FREEDOM).log_prob(PRICE[:, None])
    assert_allclose(actual, expected, rtol=EXACT)


def test_no_persistence_is_independence():
    vanishing = law(persistence=jnp.asarray(1e-20)).log_prob(PRICE[:, None])
    assert_allclose(vanishing, law().log_prob(PRICE[:, None]), rtol=EXACT)


@pytest.mark.parametrize("persistence", [0.0, 1e-12, 0.7, 1.0 - 1e-9])
def test_gradient_is_finite(persistence):
    """Zero to a power of zero, and missing values, must not put NaN into a derivative."""

    def density(persistence, scale):
        return SeriesErrors(MEAN, scale, ELAPSED, persistence=persistence).log_prob(PRICE[:, None])

    assert np.isfinite(jax.grad(density, argnums=(0, 1))(jnp.asarray(persistence), SCALE)).all()


@pytest.mark.statistical
@pytest.mark.parametrize("freedom", [None, FREEDOM], ids=["normal", "student"])
def test_moments_of_simulated_series(freedom):
    """Means and, for normal errors, all covariances; 44 statistics within 4.8 standard errors: a false alarm in 1e-4."""
    count = 40_000
    draws = law(persistence=PERSISTENCE, degrees_of_freedom=freedom).sample(jax.random.key(0), (count,))
    assert draws.shape == (count, MEAN.size, 1)
    errors = np.asarray(draws[..., 0] - MEAN[None])
    # A Student-t error's variance exceeds its squared scale by ν/(ν−2) in every row.
    expected = covariance() * (1.0 if freedom is None else FREEDOM / (FREEDOM - 2))
    spread = np.sqrt(np.diag(expected))
    assert np.max(np.abs(errors.mean(0)) / spread) < STANDARD_ERRORS / np.sqrt(count)
    if freedom is None:
        sampling = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / count)
        assert np.max(np.abs(errors.T @ errors / count - expected) / sampling) < STANDARD_ERRORS
    else:
        # the fourth moment barely exists: compare a robust scale of the first row, whose quantile is known
        middle = np.mean(np.abs(errors[:, 0]) < stats.t(FREEDOM, 0, SCALE).ppf(0.75))
        assert abs(middle - 0.5) < STANDARD_ERRORS * 0.5 / np.sqrt(count)
