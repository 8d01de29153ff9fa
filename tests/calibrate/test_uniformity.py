"""The exact test of ranks: against simulation, against a closed form, and at its stated level."""

import numpy as np
import pytest
from scipy.stats import binom

from walras.calibrate.simulation_based.uniformity import band, p_value

HIGHEST = 19


def uniform_ranks(seed, replications, sets, highest=HIGHEST):
    return np.random.default_rng(seed).integers(0, highest + 1, (sets, replications))


def smallest_tail(ranks, highest):
    counts = (ranks[:, None] <= np.arange(highest)[None]).sum(0)
    law = binom(ranks.size, np.arange(1, highest + 1) / (highest + 1))
    return np.minimum(law.cdf(counts), law.sf(counts - 1)).min()


def test_two_ranks_are_a_two_sided_binomial_test():
    """With ranks 0 and 1 alone, all there is to test is one binomial count: 7 of 50 and fewer, or 43 and more."""
    ranks = np.repeat([0, 1], [7, 43])
    assert p_value(ranks, 1) == pytest.approx(2.0 * binom(50, 0.5).cdf(7), rel=1e-10)


@pytest.mark.statistical
def test_probabilities_are_those_of_simulated_ranks():
    """The share of 2,000 simulated sets with a smaller statistic, within 4 standard errors: a false alarm in 4e-4 of seeds."""
    simulated = np.sort([smallest_tail(ranks, HIGHEST) for ranks in uniform_ranks(0, 60, 2000)])
    for ranks in uniform_ranks(1, 60, 6):
        found = p_value(ranks, HIGHEST)
        share = np.mean(simulated <= smallest_tail(ranks, HIGHEST) * (1 + 1e-9))
        assert abs(share - found) < 4.0 * np.sqrt(found * (1.0 - found) / simulated.size) + 1e-3, (share, found)


@pytest.mark.statistical
@pytest.mark.parametrize("level", [0.01, 0.1])
def test_the_level_holds(level):
    """Of 2,000 uniform sets no more are rejected than 4 standard errors above the level: a false alarm in 1e-4 of seeds."""
    lowest, uppermost = band(100, HIGHEST, level)
    sets = uniform_ranks(2, 100, 2000)
    counts = (sets[:, :, None] <= np.arange(HIGHEST)).sum(1)
    rejected = ((counts < lowest) | (counts > uppermost)).any(1).mean()
    assert rejected < level + 4.0 * np.sqrt(level / 2000)
    assert rejected > 0.5 * level, "a test that never rejects would hold any level"


def test_the_band_is_that_of_the_test():
    """Counts leave the band where, and only where, the test rejects."""
    rng, level = np.random.default_rng(3), 0.05
    lowest, uppermost = band(200, HIGHEST, level)
    decisions = []
    for tilt in np.linspace(0.0, 0.6, 15):
        ranks = np.floor((HIGHEST + 1) * rng.uniform(size=200) ** (1.0 + tilt)).astype(int)
        counts = (ranks[:, None] <= np.arange(HIGHEST)[None]).sum(0)
        outside = bool(((counts < lowest) | (counts > uppermost)).any())
        decisions.append(outside)
        assert outside == (p_value(ranks, HIGHEST) <= level)
    assert 0 < sum(decisions) < 15


@pytest.mark.slow
def test_many_replications_and_extreme_ranks():
    """Probabilities stay positive, and the recursion whole, where the deviation is far beyond rounding."""
    assert 0.0 < p_value(np.zeros(1000, int), 79) < 1e-9
    assert p_value(np.arange(960) % 80, 79) > 0.99
