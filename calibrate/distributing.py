"""Workers on this machine or on many, as an executor: a Dask cluster."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager

import jax

from walras.calibrate.errors import CalibrationError, require_whole

LOCAL = "local"
# What a piece may lose to workers that die before its own computation is blamed, and the run ends.
_ALLOWED_DEATHS = 5


@contextmanager
def scheduler(address: str | None = LOCAL, workers: int = 2, *, timeout: float = 30.0) -> Iterator[Executor | None]:
    """The executor of a Dask cluster, for every function that takes one; it ends with the `with` block.

        with scheduler(workers=4) as executor:
            tree = fit_each(panel, key=key, executor=executor)

    `address`: "local" for a cluster of `workers` processes on this machine, each computing in one thread; that of a running
    scheduler, such as "tcp://host:8786", which answers within `timeout` seconds and whose workers have walras installed in
    the same versions; or None, and there is no executor: the work is done here. A worker that dies is replaced, and what it
    was doing is done again by another.

    A script that starts a local cluster must do so under `if __name__ == "__main__":`, since workers import it. Raises
    `CalibrationError` where Dask is not installed, no scheduler answers, or `workers` is not positive.
    """
    if address is None:
        yield None
        return
    require_whole(workers=(workers, 1))
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CalibrationError('workers need Dask, which is not installed: pip install "walras[distributed]"') from error
    with ExitStack() as stack:
        stack.enter_context(config.set({"distributed.scheduler.allowed-failures": _ALLOWED_DEATHS}))
        if address == LOCAL:
            made = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=None,
                env=_environment(),
                silence_logs=logging.ERROR,
            )
            address = stack.enter_context(made).scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=timeout))
        except (OSError, ValueError) as error:
            raise CalibrationError(
                f"scheduler {address!r} does not answer ({error}): start one with dask scheduler, or give 'local'"
            ) from error
        # Pure tasks would be looked up by a hash of their data, which takes longer than sending them.
        yield client.get_executor(pure=False)


def _environment() -> dict[str, str]:
    """What a worker process must have before JAX starts in it: one thread, and the programs compiled by others."""
    threads = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    cache = jax.config.jax_compilation_cache_dir or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}
    return {**threads, **kept, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
