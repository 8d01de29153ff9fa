"""What a command-line process sets before anything is computed."""

import os
from pathlib import Path

import jax
import matplotlib


def prepare():
    """Double precision, a plotting backend without a screen, and JAX's compiled programs kept between runs.

    Programs are kept in the folder that the environment variable JAX_COMPILATION_CACHE_DIR names, else in the user's
    cache.
    """
    jax.config.update("jax_enable_x64", True)
    matplotlib.use("Agg")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "walras" / "jax"))
