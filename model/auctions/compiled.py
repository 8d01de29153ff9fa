"""Auctions' methods as programs: operation by operation, the first bids of an auction would take seconds to compile."""

from collections.abc import Callable
from functools import wraps
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from walras.model.equilibrium import is_traced
from walras.model.formula import Formula


def compiled[M: Callable](method: M) -> M:
    """A method of an auction or of its equilibrium, whose arguments are numbers, as one program.

    Inside a JAX transformation it is part of that. Programs are kept for other parameters of the same distribution, and for
    other functions that do the same.
    """
    program = eqx.filter_jit(method)

    @wraps(method)
    def call(market, *numbers, **named):
        known = None if is_traced((market, numbers, named)) else _as_arrays(market)
        if known is None:
            return method(market, *numbers, **named)
        return program(known, *map(_number, numbers), **{name: _number(value) for name, value in named.items()})

    return cast(M, call)


class _Elementwise(eqx.Module):
    formula: Formula

    def __call__(self, *arguments):
        return jnp.vectorize(self.formula)(*arguments)


def _as_arrays(market):
    """An auction, or an equilibrium with its auction, of arrays and formulas; None if it has what cannot be told apart."""
    if hasattr(market, "auction"):
        auction = _as_arrays(market.auction)
        return None if auction is None else eqx.tree_at(lambda equilibrium: equilibrium.auction, market, auction)
    for name, arguments in market.functions.items():
        given = getattr(market, name)
        found = _function_as_arrays(given, arguments)
        if found is None:
            return None
        market = eqx.tree_at(lambda auction, name=name: getattr(auction, name), market, found)
    return jax.tree.map(_number, market)


def _function_as_arrays(given, arguments: int):
    if not jax.tree_util.all_leaves([given]):
        found = jax.tree.map(_number, given)
        # What a class does not declare to JAX is lost on the way.
        return found if vars(found).keys() >= vars(given).keys() else None
    return None if hasattr(given, "icdf") else _Elementwise(Formula.of(given, *[jnp.zeros(())] * arguments))


def _number(leaf) -> Array:
    """A number as an array: as it is, it would be a constant of the program."""
    return jnp.asarray(leaf, float) if isinstance(leaf, int | float | np.ndarray | np.generic | jax.Array) else leaf
