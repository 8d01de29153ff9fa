"""Moments of linear stochastic differential equations and densities of linear-Gaussian state spaces.

Differential equations are dz = (Az + b) dt + noise with covariance Σ per unit of time.
"""

import numpy as np
from scipy.linalg import block_diag, expm, solve_continuous_lyapunov
from scipy.stats import multivariate_normal


def linear_sde_moments(drift_matrix, drift_const, diffusion_cov, duration):
    """(transition matrix, offset, covariance) of the state after `duration` given the state before it.

    The offset comes from exp of the drift augmented by a constant state, the covariance from Van Loan's block
    exponential. The latter holds exp(−At): it loses digits when stable modes decay by many orders of magnitude.
    """
    drift_matrix, size = np.asarray(drift_matrix, float), len(drift_const)
    affine = np.block([[drift_matrix, np.reshape(drift_const, (-1, 1))], [np.zeros((1, size + 1))]])
    moved = expm(affine * duration)
    blocks = np.block([[-drift_matrix, np.asarray(diffusion_cov)], [np.zeros((size, size)), drift_matrix.T]])
    van_loan = expm(blocks * duration)
    covariance = van_loan[size:, size:].T @ van_loan[:size, size:]
    return moved[:size, :size], moved[:size, size], 0.5 * (covariance + covariance.T)


def averaged_moments(drift_matrix, drift_const, diffusion_cov, duration):
    """(transition (2n, n), offset (2n,), covariance (2n, 2n)) of (end state, time average of the state).

    Both are given the state at the start; the state is augmented by its running integral, which starts at zero.
    """
    size = len(drift_const)
    zero = np.zeros((size, size))
    drift = np.block([[np.asarray(drift_matrix, float), zero], [np.eye(size), zero]])
    constant = np.concatenate([drift_const, np.zeros(size)])
    transition, offset, covariance = linear_sde_moments(drift, constant, block_diag(np.asarray(diffusion_cov), zero), duration)
    scale = np.repeat([1.0, 1.0 / duration], size)
    return scale[:, None] * transition[:, :size], scale * offset, np.outer(scale, scale) * covariance


def stationary_moments(drift_matrix, drift_const, diffusion_cov):
    """Mean and covariance of the stationary law."""
    mean = np.linalg.solve(drift_matrix, -np.asarray(drift_const, float))
    return mean, solve_continuous_lyapunov(drift_matrix, -np.asarray(diffusion_cov, float))


def autocovariance(drift_matrix, diffusion_cov, lag):
    """Cov(z(t + lag), z(t)) in the stationary law."""
    return expm(np.asarray(drift_matrix) * lag) @ solve_continuous_lyapunov(drift_matrix, -np.asarray(diffusion_cov))


def dense_gaussian(transitions, offsets, covs, maps, map_offsets, noise_covs, start_mean, start_cov):
    """Mean and covariance of all observations stacked, from the joint law of all states in one linear solve.

    States: z₀ ~ N(start_mean, start_cov), z_{k+1} = F_k z_k + f_k + N(0, W_k) for `transitions`, `offsets`, `covs`
    (one fewer than the observations). Observations: y_k = H_k z_k + g_k + N(0, R_k).
    """
    size, count = len(start_mean), len(maps)
    system = np.eye(size * count)
    for k, transition in enumerate(transitions):
        system[(k + 1) * size : (k + 2) * size, k * size : (k + 1) * size] = -np.asarray(transition)
    inverse = np.linalg.inv(system)
    mean = inverse @ np.concatenate([start_mean, *offsets])
    cov = inverse @ block_diag(start_cov, *covs) @ inverse.T
    observe = block_diag(*[np.atleast_2d(matrix) for matrix in maps])
    noise = block_diag(*[np.atleast_2d(matrix) for matrix in noise_covs])
    shift = np.concatenate([np.atleast_1d(offset) for offset in map_offsets])
    return observe @ mean + shift, observe @ cov @ observe.T + noise


def dense_gaussian_logpdf(observations, mean, cov) -> float:
    """Log density of the stacked observations; NaN marks a missing one, which is left out of the joint law."""
    flat = np.ravel(observations)
    seen = ~np.isnan(flat)
    return float(multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(flat[seen]))


def dense_conditional(observations, mean, cov):
    """Mean and covariance of every stacked entry given those that are not NaN: a smoother by one dense solve."""
    flat = np.ravel(observations)
    seen = ~np.isnan(flat)
    gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
    return mean + gain @ (flat[seen] - mean[seen]), cov - gain @ cov[seen]
