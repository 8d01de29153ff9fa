"""A posterior of two modes: what NUTS says of it, what SMC says, and what quadrature says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_modes import ROWS, STRENGTH, build, market_at, quadrature, simulated_prices

from walras.calibrate import NUTS, SMC, check, fit
from walras.calibrate.samplers import Target
from walras.model import Agents

# Weight of the right wells by quadrature: .6426 with 2,001 × 161 and with 8,001 × 321 points; .41 with 641, which miss modes
# .001 wide.
POINTS = (2001, 161)


def right_wells(tree):
    """The share of draws with a positive centre, by chain."""
    return (tree["posterior"]["well_centre"].to_numpy() > 0.0).mean(axis=1)


def by_quadrature(problem):
    target = Target(problem)
    centres = np.linspace(-1.6, 1.6, POINTS[0])
    strengths = np.log(STRENGTH) + np.linspace(-0.8, 0.8, POINTS[1])
    at = np.stack(np.meshgrid(centres - 0.2, strengths, indexing="ij"), -1).reshape(-1, 2)
    potential = jax.jit(lambda points: jax.lax.map(lambda z: target.potential(z, target.data), points, batch_size=2000))
    return quadrature(-np.asarray(potential(jnp.asarray(at))).reshape(POINTS), centres, strengths)


@pytest.mark.slow
@pytest.mark.parametrize("centre", [-1.0, 1.0])
def test_prices_are_those_of_the_solver(centre):
    """Substeps of the solver leave an error of O(h²), 1e-4 of prices that move by .14."""
    problem = simulated_prices()
    params = {"well_centre": jnp.asarray(centre), "well_strength": jnp.asarray(STRENGTH)}
    solved = market_at(params).solve(problem.inputs["supply"], horizon=float(ROWS), solver=Agents())
    np.testing.assert_allclose(build(params, problem.inputs).price, solved.price, atol=5e-5)


@pytest.mark.slow
@pytest.mark.statistical
def test_tempering_weighs_both_wells():
    """Four runs of 2,000 particles: the weight's standard error is .02, the log evidence's .1; false-alarm rate 1e-6."""
    problem = simulated_prices()
    log_evidence, weight = by_quadrature(problem)
    assert 0.6 < weight < 0.7
    tree = fit(problem, SMC(particles=2000), key=jax.random.key(2))
    print(right_wells(tree), weight, tree.attrs["log_evidence_runs"], log_evidence)
    assert abs(right_wells(tree).mean() - weight) < 0.1
    assert abs(float(tree.attrs["log_evidence"]) - log_evidence) < 0.5
    names = {item.name: item.verdict for item in check(problem, tree).checks}
    assert names["acceptance"] == names["log_evidence_spread"] == "pass"


@pytest.mark.slow
def test_trajectories_stay_in_the_well_where_they_begin():
    """Negative control. NUTS passes its checks in one well, and without a start its chains are wherever they fell."""
    problem = simulated_prices()
    sampler = NUTS(chains=2, warmup=500, draws=500, init={"well_centre": -1.0, "well_strength": STRENGTH})
    tree = fit(problem, sampler, key=jax.random.key(3))
    assert right_wells(tree).max() == 0.0
    judged = check(problem, tree)
    assert judged.r_hat < 1.05
    spread = fit(problem, NUTS(chains=4, warmup=300, draws=300), key=jax.random.key(2))
    assert set(right_wells(spread)) <= {0.0, 1.0}
