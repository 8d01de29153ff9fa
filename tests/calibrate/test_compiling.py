"""What is compiled for a problem serves its copies, and no other problem."""

import pickle

import jax.numpy as jnp
from simulated import series

from walras.calibrate import NUTS, ForeseenPrices, Prior, Problem
from walras.calibrate.samplers.nuts import chains
from walras.model import PriceFormation, Quadratic


def test_a_copy_from_another_process_uses_the_same_program():
    problem = Problem("price_formation", series(10), ForeseenPrices())
    assert chains(pickle.loads(pickle.dumps(problem)), NUTS()) is chains(problem, NUTS())


def closing_over(strength):
    def build(params, inputs):
        market = PriceFormation(params["trading_cost"], terminal=Quadratic(strength, 1.0))
        return market.solve(inputs["supply"] * jnp.ones(10), throw=False)

    return build


def test_functions_of_one_text_that_close_over_other_values_have_programs_of_their_own():
    priors = {"trading_cost": Prior("LogNormal", 0.0, 0.5), "price_noise": 1.0}
    weak, strong = (Problem(closing_over(strength), series(10), ForeseenPrices(), priors) for strength in (1.0, 2.0))
    assert weak.digest == strong.digest
    assert chains(weak, NUTS()) is not chains(strong, NUTS())


STRENGTH = 1.0


def reading(params, inputs):
    return PriceFormation(params["trading_cost"], terminal=Quadratic(STRENGTH, 1.0)).solve(inputs["supply"], throw=False)


def test_a_function_that_reads_a_number_which_changes_has_a_program_for_each(monkeypatch):
    problem = Problem(reading, series(10), ForeseenPrices(), {"trading_cost": Prior("LogNormal", 0.0, 0.5), "price_noise": 1.0})
    first = chains(problem, NUTS())
    monkeypatch.setattr("test_compiling.STRENGTH", 2.0)
    assert chains(problem, NUTS()) is not first
    monkeypatch.setattr("test_compiling.STRENGTH", 1.0)
    assert chains(problem, NUTS()) is first
