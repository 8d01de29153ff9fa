"""A placebo: how often does unrelated supply look as if it moved the price through agents' stocks?

A persistent price regressed on integrated supply is often "significant" by accident. Here supply is simulated,
independent of the price, and the holding cost's coefficient is tested against zero, as if it were the market's: with
errors taken to be independent, and with AR(1) errors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.price_formation.foreseen import ForeseenPrices
from walras.calibrate.problem import Problem
from walras.model import PriceFormation, Quadratic

_PERSISTENCES = np.linspace(0.0, 0.99, 100)


class Placebo(NamedTuple):
    """Shares of replications in which η = 0 is rejected at `level`, by the errors assumed, and their number."""

    independent: float
    ar1: float
    level: float
    replications: int

    @property
    def standard_error(self) -> float:
        """Of a share whose true value is `level`."""
        return float(np.sqrt(self.level * (1.0 - self.level) / self.replications))


def placebo(problem: Problem, *, key, replications: int = 400, level: float = 0.05, price=None) -> Placebo:
    """Test η = 0 in the foreseen market with simulated, unrelated supply in place of the observed one.

    `problem` must be observed by `ForeseenPrices` with supply known. Each replication draws white noise of the supply's
    variance; `price` (replications, rows) replaces the observed price by simulated ones. The test is that of the regression
    coefficient by generalised least squares; its Student-t p-value is averaged over the persistence with weights of
    restricted likelihood.
    """
    if not isinstance(problem.observation, ForeseenPrices):
        raise CalibrationError("problem is not observed by ForeseenPrices: the placebo needs the foreseen market")
    inputs = problem.inputs
    spread = jnp.std(inputs["supply"][inputs["step"]])
    observed = jnp.asarray(problem.observed[:, 0])
    prices = jnp.broadcast_to(observed, (replications, observed.size)) if price is None else jnp.asarray(price)
    shocks = spread * jax.random.normal(key, (replications, inputs["step"].size))

    def one(price, shock):
        supply = jnp.zeros_like(inputs["supply"]).at[inputs["step"]].set(shock - shock.mean())
        regressors = _regressors(supply, inputs)
        return jnp.stack([_p_value(price, regressors, inputs["elapsed"], persistences) for persistences in grids])

    grids = (_PERSISTENCES[:1], _PERSISTENCES)
    rejected = np.asarray(quickly(jax.vmap(one))(prices, shocks)) < level
    return Placebo(*map(float, rejected.mean(axis=0)), level, replications)


def _regressors(supply, inputs):
    """The foreseen price is linear in its parameters; the last column is that of the holding cost."""
    steps, horizon = supply.size, inputs["horizon"]
    trend = (jnp.arange(steps) + 0.5) / steps - 0.5
    stock = PriceFormation(1e-12, holding=Quadratic(1.0)).solve(supply, horizon=horizon).price
    columns = jnp.stack([jnp.ones(steps), trend, supply, stock / jnp.std(stock)], -1)[inputs["step"]]
    return jnp.concatenate([columns[:, :3], inputs["demand"], columns[:, 3:]], -1)


def _p_value(price, regressors, elapsed, persistences):
    """The p-value of no last coefficient with AR(1) errors, averaged over `persistences` by restricted likelihood."""
    size, width = regressors.shape

    def at(persistence):
        decay = jnp.power(persistence, jnp.diff(elapsed))
        scale = jnp.append(1.0, jnp.sqrt(1.0 - decay**2))

        def whiten(column):
            return jnp.append(column[:1], column[1:] - decay * column[:-1]) / scale

        x, y = jax.vmap(whiten, 1, 1)(regressors), whiten(price)
        gram = x.T @ x
        coefficients = jnp.linalg.solve(gram, x.T @ y)
        variance = jnp.sum((y - x @ coefficients) ** 2) / (size - width)
        likelihood = -0.5 * ((size - width) * jnp.log(variance) + jnp.linalg.slogdet(gram)[1]) - jnp.sum(jnp.log(scale))
        squared = coefficients[-1] ** 2 / (variance * jnp.linalg.inv(gram)[-1, -1])
        # the two-sided tail of Student's t with f degrees of freedom is I_x(f/2, ½) at x = f / (f + t²)
        freedom = float(size - width)
        return likelihood, jax.scipy.special.betainc(freedom / 2.0, 0.5, freedom / (freedom + squared))

    likelihoods, p_values = jax.vmap(at)(jnp.asarray(persistences))
    return jnp.sum(jax.nn.softmax(likelihoods) * p_values)
