"""Users' functions as values, so that compiled programs are found again."""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.extend import core
from jaxtyping import Array


class Formula(eqx.Module):
    """A function of arrays as what it does, with the arrays that it closes over.

    To `jax.jit` a function is what it was when first seen: one that reads a number which has changed since would have the
    old one, and one that is written again would be compiled again. Formulas are told apart by what they do.
    """

    constants: list[Array]
    operations: "_Operations" = eqx.field(static=True)

    @classmethod
    def of(cls, function: Callable, *arguments: Array) -> "Formula":
        """The formula of a function of arguments of these shapes and types; it returns an array."""
        closed = jax.make_jaxpr(lambda *given: function(*given))(*arguments)  # a new function, which JAX has not seen
        return cls(closed.consts, _Operations(closed.jaxpr))

    def __call__(self, *arguments):
        (found,) = eval_jaxpr(self.operations.jaxpr, self.constants, *arguments)
        return found


class _Operations:
    """What is done with arguments and constants; the same if it reads the same, down to the last digit of a number."""

    def __init__(self, jaxpr: core.Jaxpr):
        self.jaxpr = jaxpr
        hidden = [np.asarray(constant) for constant in _hidden(jaxpr)]
        self._reads = str(jaxpr), *((array.dtype.str, array.shape, array.tobytes()) for array in hidden)

    def __eq__(self, other):
        return isinstance(other, _Operations) and self._reads == other._reads

    def __hash__(self):
        return hash(self._reads)


def _hidden(jaxpr: core.Jaxpr) -> Iterator[Array]:
    """The arrays that functions compiled inside others close over, which the text of the whole does not have."""
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values())):
            yield from getattr(inner, "consts", ())
            operations = getattr(inner, "jaxpr", inner)
            if isinstance(operations, core.Jaxpr):
                yield from _hidden(operations)
