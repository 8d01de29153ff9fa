"""Users' functions as values: what tells them apart, and that prices follow a function that has changed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammainc
from numpy.testing import assert_allclose

from walras.model import PriceFormation
from walras.model.auctions.values import inverse
from walras.model.costs import as_function
from walras.model.formula import Formula

ZERO = jnp.zeros(())

# Each makes a function of one number from a parameter.
MAKERS = {
    "a number": lambda s: lambda x: s * x + jnp.sin(x),
    "an array": lambda s: lambda x: jnp.sum(jnp.array([1.0, s]) * x),
    "an array in a compiled function": lambda s: jax.jit(lambda x: jnp.sum(jnp.array([1.0, s]) * x)),
    "an array in a branch": lambda s: lambda x: jax.lax.cond(x > 0, lambda y: jnp.sum(jnp.array([1.0, s]) * y), jnp.sin, x),
    "a function with rules of its own": lambda s: lambda x: jax.nn.softplus(s * x),
    "quantiles by halving": lambda s: lambda u: inverse(lambda v: gammainc(s, v), u, 0.0, 200.0),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_formulas_are_told_apart_by_what_they_do(make):
    first, again, other = (Formula.of(make(s), ZERO) for s in (2.0, 2.0, np.nextafter(2.0, 3.0)))
    assert eqx.tree_equal(first, again)
    assert hash(first.operations) == hash(again.operations)
    assert not eqx.tree_equal(first, other)
    assert_allclose(first(0.3), make(2.0)(0.3), rtol=1e-15)


def test_arrays_that_are_closed_over_are_no_part_of_the_operations():
    table = jnp.arange(3.0)
    first, other = (Formula.of(lambda x, t=t: jnp.sum(t * x), ZERO) for t in (table, table + 1.0))
    assert first.operations == other.operations
    assert_allclose([first(2.0), other(2.0)], [6.0, 12.0])


def test_derivatives_in_what_is_closed_over():
    evaluate = eqx.filter_jit(lambda formula, x: formula(x))

    def of(s):
        return evaluate(Formula.of(lambda x: jax.jit(lambda y: s**3 * y**2)(x), ZERO), 2.0)

    assert_allclose(of(1.5), 13.5)
    assert_allclose(jax.grad(of)(1.5), 27.0)
    assert_allclose(jax.jit(jax.jacfwd(jax.grad(of)))(1.5), 36.0)
    assert_allclose(jax.vmap(of)(jnp.arange(3.0)), [0.0, 4.0, 32.0])


def test_a_cost_is_read_when_a_game_begins():
    strength = 1.0

    def cost(x):
        return strength * x**2

    program = jax.jit(lambda formula: formula(3.0))
    assert_allclose(program(as_function(cost, None, float)), 9.0)
    strength = 2.0
    assert_allclose(program(as_function(cost, None, float)), 18.0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_prices_follow_a_cost_that_reads_a_number_which_changes(noise):
    strength = 1.0

    def cost(x):
        return 0.5 * strength * x**2

    pulls = []
    for number in (1.0, 2.0):
        strength = number
        found = PriceFormation(1.0, holding=cost, noise=noise).solve(jnp.ones(2), initial=jnp.array([-1.0, 1.0]))
        pulls.append(found.price + 1.0)  # −cQ is −1
    # (★): −E∫ₜᵀ V′ with X̄ = t, over each step 11/24 and 5/24 times the strength, to second order in the steps.
    assert_allclose(pulls[1], 2.0 * pulls[0], rtol=1e-2)
    assert_allclose(pulls[0], [-11 / 24, -5 / 24], rtol=0.1)
