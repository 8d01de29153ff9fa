"""Residuals are recomputed from the solution, and a market without an equilibrium says so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.model import (
    EquilibriumError,
    LinearDemand,
    PriceFormation,
    Quadratic,
    RandomSupply,
    StationaryMarket,
    Status,
)

SUPPLY = np.array([0.3, -1.0, 2.0, 0.1])
RANDOM = RandomSupply(0.6, 1.7, 0.8)


def finite_market(trading_cost=0.7, holding=1.3, terminal=2.1):
    return PriceFormation(trading_cost, Quadratic(holding, 0.4), Quadratic(terminal, -0.3))


def stationary_market(trading_cost=0.7, holding=1.3, discount=0.2, depreciation=0.3, slope=0.5):
    return StationaryMarket(
        trading_cost,
        Quadratic(holding, 0.4),
        discount=discount,
        depreciation=depreciation,
        demand=LinearDemand(0.25, slope),
    )


def test_residual_of_a_path_sees_a_wrong_price():
    equilibrium = finite_market().solve(SUPPLY)
    wrong = eqx.tree_at(lambda solved: solved.price, equilibrium, equilibrium.price.at[1].add(0.01))
    assert equilibrium.residual < 1e-12 < 1e-3 < wrong.residual


@pytest.mark.parametrize("field", ["level", "supply_response", "position_response", "costate", "position_drift"])
def test_residual_of_a_stationary_market_sees_a_wrong_coefficient(field):
    equilibrium = stationary_market().solve(RANDOM)
    wrong = eqx.tree_at(
        lambda solved: getattr(solved, field),
        equilibrium,
        replace_fn=lambda value: jax.tree.map(lambda x: x + 0.01, value),
    )
    assert equilibrium.residual < 1e-12 < 1e-3 < wrong.residual


@pytest.mark.parametrize("field", ["level", "supply_response", "position_response"])
def test_residual_of_a_random_supply_sees_a_wrong_coefficient(field):
    equilibrium = finite_market().solve(RANDOM, steps=3)
    wrong = eqx.tree_at(lambda solved: getattr(solved, field), equilibrium, replace_fn=lambda value: value + 0.01)
    assert equilibrium.residual < 1e-12 < 1e-3 < wrong.residual


@pytest.mark.parametrize("wrong", [{"trading_cost": -1.0}, {"trading_cost": 0.0}, {"holding": -1.0}, {"terminal": -1.0}])
@pytest.mark.parametrize("supply", [SUPPLY, RANDOM], ids=["foreseen", "random"])
def test_finite_market_that_is_not_convex(wrong, supply):
    market = finite_market(**wrong)
    with pytest.raises(EquilibriumError, match="not convex"):
        market.solve(supply, steps=4)
    assert bool(market.solve(supply, steps=4, throw=False).status == Status.not_convex)


@pytest.mark.parametrize("wrong", [{"trading_cost": -1.0}, {"holding": -1.0}, {"discount": -0.1}, {"slope": -0.5}])
def test_stationary_market_that_is_not_convex(wrong):
    with pytest.raises(EquilibriumError):
        stationary_market(**wrong).solve(RANDOM)


@pytest.mark.parametrize("wrong", [{"depreciation": 0.0, "slope": 0.0}, {"depreciation": -0.05}])
def test_stock_that_never_settles_or_grows_by_itself(wrong):
    with pytest.raises(EquilibriumError):
        stationary_market(**wrong).solve(RANDOM)


def test_supply_that_does_not_revert():
    with pytest.raises(EquilibriumError, match="never settles"):
        stationary_market().solve(RandomSupply(0.6, 0.0, 0.8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_price_that_is_not_finite(bad):
    with pytest.raises(EquilibriumError, match="not finite"):
        finite_market().solve(np.array([0.1, bad]))


def test_status_survives_jit_and_vmap():
    def status_code(trading_cost):
        return finite_market(trading_cost).solve(SUPPLY).status == Status.solved

    solved = jax.jit(jax.vmap(status_code))(np.array([0.7, -0.7]))
    assert solved.tolist() == [True, False]


@pytest.mark.parametrize(("supply", "arguments"), [(jnp.sin, {"steps": 0}), (RANDOM, {"steps": 0}), (RANDOM, {})])
def test_number_of_steps_is_required(supply, arguments):
    with pytest.raises(EquilibriumError, match="steps"):
        finite_market().solve(supply, **arguments)


def test_steps_of_a_supply_function_are_chosen_where_values_are_known():
    chosen = finite_market().solve(lambda t: jnp.sin(20 * t), horizon=1.0)
    assert chosen.price.size > 32
    with pytest.raises(EquilibriumError, match="steps"):
        jax.jit(lambda horizon: finite_market().solve(jnp.sin, horizon=horizon).price)(1.0)


def test_a_supply_function_of_numpy_is_refused():
    with pytest.raises(EquilibriumError, match=r"jax\.numpy"):
        finite_market().solve(np.sin, steps=4)


@pytest.mark.parametrize(
    ("supply", "initial"),
    [
        (np.ones((2, 2)), 0.0),
        (np.ones(0), 0.0),
        (np.ones(3), np.ones((2, 2))),
        (np.ones(3), (np.ones(3), np.ones(2))),
    ],
    ids=["matrix of supply", "no supply", "matrix of positions", "weights of another length"],
)
def test_wrong_shapes_are_refused(supply, initial):
    with pytest.raises(EquilibriumError, match=r"shape|weights"):
        finite_market().solve(supply, initial=initial)
