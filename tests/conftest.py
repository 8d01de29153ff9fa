"""Double precision, strict shapes, and JAX's compilation cache for the whole suite."""

import jax
import matplotlib.pyplot as plt
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def single_precision():
    """JAX as a user finds it before the switch to double precision."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(autouse=True)
def closed_figures():
    """No test sees the figures of another."""
    yield
    plt.close("all")
