"""The placebo: unrelated supply must look significant too often when errors are taken to be independent, and no more."""

import jax
import numpy as np
import pytest
from simulated import series

from walras.calibrate import CalibrationError, ForeseenPrices, Problem, StochasticPrices
from walras.calibrate.price_formation.placebo import placebo

ROWS, REPLICATIONS, PERSISTENCE = 80, 400, 0.8
# Of a share of 400 at a true 5 % the standard error is 0.011: ±0.035 is exceeded in 2e-3 of keys.
BAND = 0.035


def persistent_prices(key, persistence=PERSISTENCE):
    """AR(1) series (replications, rows) in their stationary law."""
    shocks = jax.random.normal(key, (REPLICATIONS, ROWS))
    prices = [shocks[:, 0]]
    for row in range(1, ROWS):
        prices.append(persistence * prices[-1] + np.sqrt(1 - persistence**2) * shocks[:, row])
    return np.stack(prices, 1)


@pytest.mark.statistical
def test_unrelated_supply_and_a_persistent_price():
    """If the AR(1) test rejected more than nominally, or the other no more, the warning in the report would be false."""
    problem = Problem("price_formation", series(ROWS), ForeseenPrices())
    found = placebo(problem, key=jax.random.key(0), price=persistent_prices(jax.random.key(1)), replications=REPLICATIONS)
    print(found)
    assert abs(found.ar1 - found.level) < BAND
    assert found.independent > 0.25
    assert found.standard_error == pytest.approx(np.sqrt(0.05 * 0.95 / REPLICATIONS))


@pytest.mark.statistical
def test_unrelated_supply_and_white_noise():
    """Without persistence both tests must hold their level (two shares within ±0.035: a false alarm in 4e-3 of keys)."""
    problem = Problem("price_formation", series(ROWS), ForeseenPrices())
    found = placebo(problem, key=jax.random.key(2), price=persistent_prices(jax.random.key(3), 0.0), replications=REPLICATIONS)
    print(found)
    assert abs(found.independent - found.level) < BAND
    assert found.ar1 < found.level + BAND


def test_it_needs_the_foreseen_market():
    with pytest.raises(CalibrationError, match="ForeseenPrices"):
        placebo(Problem("stationary", series(), StochasticPrices()), key=jax.random.key(0))
