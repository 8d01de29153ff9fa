"""Double precision, strict shapes, and no compiled programs of other runs, for the whole suite."""

import gc
import sys

import jax
import matplotlib.pyplot as plt
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The command line turns it on for its process, which here is that of all later tests.
jax.config.update("jax_enable_compilation_cache", False)


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


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """No compiled program outlives its module: where memory maps run out, the compiler ends with a segmentation fault."""
    yield
    if compiling := sys.modules.get("walras.calibrate.compiling"):
        compiling.forget()
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def walras(monkeypatch, capsys):
    """Run the command line in this process; returns (exit code, what it said)."""
    from walras import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["walras", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return run
