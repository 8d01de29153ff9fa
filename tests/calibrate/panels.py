"""Panels for the tests of walras.calibrate: a market that is a number, whose posterior is known, and prices."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from numpyro import handlers

from walras.calibrate import IndependentRows, Observation
from walras.model import Status

NOISE = 0.7


class Level(NamedTuple):
    price: object
    status: object


def level(params, inputs):
    return Level(params["level"], Status.solved)


@dataclass(frozen=True, kw_only=True)
class NoisyLevel(Observation):
    """Prices are the market's level plus normal noise of known size."""

    targets: ClassVar[tuple[str, ...]] = ("price",)

    def inputs(self, frame):
        return {"rows": np.arange(len(frame))}

    def observed(self, frame):
        return frame[["price"]].to_numpy(float)

    def law(self, equilibrium, params, inputs):
        return IndependentRows(dist.Normal(jnp.full(inputs["rows"].size, equilibrium.price), NOISE))


def panel_of(tables) -> pd.DataFrame:
    """A panel frame of the columns of each market, by name."""
    rows = [pd.DataFrame({"market": name, "time": np.arange(len(next(iter(t.values())))), **t}) for name, t in tables.items()]
    return pd.concat(rows, ignore_index=True)


def prices(markets=4, rows=20, seed=0) -> dict:
    """Prices that fall with supply; `rows` of all markets, or of each."""
    rng = np.random.default_rng(seed)
    found = {}
    for number, size in enumerate(np.broadcast_to(rows, markets)):
        supply = rng.normal(size=size)
        price = 10 + rng.normal() - (0.5 + 0.1 * number) * supply + 0.3 * rng.normal(size=size)
        found[f"m{number:03d}"] = {"price": price, "supply": 3 + supply}
    return found


def forward(problem, values):
    """Parameters, equilibrium and law at values of the program's sites."""
    with handlers.block(), handlers.substitute(data=values), handlers.seed(rng_seed=0):
        return jax.jit(lambda: problem.forward(problem.inputs))()
