"""Training the networks: settings, the loop, and its checkpoints."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from walras.model.equilibrium import EquilibriumError
from walras.model.trading_costs.generative.family import FIELDS, Family
from walras.model.trading_costs.generative.game import Game
from walras.model.trading_costs.generative.link import along, gathered, walk
from walras.model.trading_costs.generative.networks import Networks

_WARMUP = 0.05  # of the iterations, in which the learning rate grows
_LAST_RATE = 1e-3  # of the learning rate, at the end


@dataclass(frozen=True, kw_only=True)
class Training:
    """How networks are trained: `iterations` of the Muon optimiser on `paths` new random paths each.

    `width` and `depth` of the hidden layers; `learning_rate` at its height, after which it falls along a cosine. Progress
    is reported, and a checkpoint written, every `chunk` iterations. Orthogonalised steps (Muon; `optax.contrib`) reached in
    half the iterations a loss that Adam's did not.
    """

    iterations: int = 3000
    paths: int = 256
    width: int = 32
    depth: int = 2
    learning_rate: float = 0.01
    chunk: int = 50

    def __post_init__(self):
        for name in ("iterations", "paths", "width", "depth", "chunk"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise EquilibriumError(f"{name} is {value!r}: give a whole number of at least 1")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 < rate < np.inf:
            raise EquilibriumError(f"learning_rate is {self.learning_rate!r}: give a positive number, such as 0.01")

    @property
    def optimiser(self) -> optax.GradientTransformation:
        rate, warmup = self.learning_rate, int(np.ceil(_WARMUP * self.iterations))
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(self.iterations, warmup + 1), _LAST_RATE * rate)
        return optax.contrib.muon(schedule)


class TrainingProgress(NamedTuple):
    """Where a training is: `done` of `total` iterations in `seconds`, and the losses of the last ones.

    A loss is the mean square of what agents' first-order conditions would have otherwise, in units of its usual size.
    """

    done: int
    total: int
    generator: float
    discriminator: float
    seconds: float


class _State(NamedTuple):
    networks: Networks
    optimiser: optax.OptState
    done: Array


def train(
    family: Family,
    horizon: float,
    steps: int,
    training: Training,
    key: Array,
    checkpoint: str | Path | None,
    progress: Callable[[TrainingProgress], None] | None,
) -> Networks:
    """The networks of a family; from where `checkpoint` left off, if it exists.

    The paths of an iteration depend on its number and on `key` alone, so that a training that was stopped and goes on ends
    with the same networks. Raises `EquilibriumError` for a checkpoint of another training, and when losses stop being finite.
    """
    agents, places = jnp.size(family.low.risk_aversion), len(family.varying)
    build_key, path_key = jax.random.split(key)
    networks = Networks(agents, places, training.width, training.depth, build_key)
    state = _State(networks, training.optimiser.init(eqx.filter(networks, eqx.is_array)), jnp.zeros((), int))
    header = _header(family, horizon, steps, training, key)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        state = _load(path, header, state)
    elif path is not None:
        _save(path, header, state)  # now, so that a file which cannot be written is not found out later
    run = _compiled(family, horizon, steps, training)
    began = time.perf_counter()
    while int(state.done) < training.iterations:
        chunk = min(training.chunk, training.iterations - int(state.done))
        state, losses = run(state, path_key, chunk)
        if not np.all(np.isfinite(losses)):
            raise EquilibriumError(
                f"losses are not finite after {int(state.done)} iterations: give a smaller learning_rate, or check that "
                "parameters have the size that you mean" + ("" if path is None else f"; {path} has the state before")
            )
        if path is not None:
            _save(path, header, state)
        if progress is not None:
            seconds = time.perf_counter() - began
            progress(TrainingProgress(int(state.done), training.iterations, float(losses[0]), float(losses[1]), seconds))
    return state.networks


def _compiled(family, horizon, steps, training):
    """A function of a state, the key of paths, and how many iterations to make."""
    optimiser = training.optimiser

    @eqx.filter_jit
    def run(state, key, chunk):
        arrays, static = eqx.partition(state.networks, eqx.is_array)

        def iterate(carry, _):
            arrays, moments, done = carry
            drawn = draw(family, horizon, steps, training.paths, jax.random.fold_in(key, done))
            states = jax.lax.stop_gradient(drawn.over_paths(partial(walk, eqx.combine(arrays, static)), drawn.moves))
            slopes, losses = jax.grad(lambda a: _losses(eqx.combine(a, static), drawn, states), has_aux=True)(arrays)
            updates, moments = optimiser.update(slopes, moments, arrays)
            return (optax.apply_updates(arrays, updates), moments, done + 1), jnp.stack(losses)

        carry = arrays, state.optimiser, state.done
        (arrays, moments, done), losses = jax.lax.scan(iterate, carry, None, length=chunk)
        return _State(eqx.combine(arrays, static), moments, done), jnp.mean(losses, axis=0)

    return run


class Drawn(NamedTuple):
    """Each path's moves of W, and its market, or the one market of all paths."""

    game: Game
    place: Float[Array, "*paths places"]
    moves: Float[Array, "paths steps"]

    def over_paths(self, function: Callable, *more):
        """`function(game, place, *more)` of each path."""
        # Of one market, what depends on time alone is then computed once for all paths.
        of_market = None if self.place.ndim == 1 else 0
        return jax.vmap(function, (of_market, of_market, *[0] * len(more)))(self.game, self.place, *more)


def draw(family: Family, horizon, steps: int, paths: int, key) -> Drawn:
    """Random markets, uniform in the family's box, and random moves."""
    one, other = jax.random.split(key)
    moves = jax.random.rademacher(other, (paths, steps), jnp.float32)
    places = (paths, len(family.varying)) if family.varying else (0,)
    place = jax.random.uniform(one, places, minval=-1.0, maxval=1.0)

    def game(at):
        return Game.of(family.at(at), horizon, steps)

    return Drawn(jax.vmap(game)(place) if family.varying else game(place), place.astype(jnp.float32), moves)


def _losses(networks, drawn: Drawn, states):
    """Their sum, and those of generator and discriminator."""

    def of_path(game, place, states):
        marginal, price = gathered(game, along(networks, game, place, states))
        return jnp.mean((marginal / game.marginal) ** 2), jnp.mean((price / game.premium) ** 2)

    generator, discriminator = jax.tree.map(jnp.mean, drawn.over_paths(of_path, states))
    return generator + discriminator, (generator, discriminator)


def _header(family, horizon, steps, training, key) -> dict:
    """What a training is of, as plain data."""

    def plain(market):
        return {name: np.asarray(getattr(market, name)).tolist() for name in FIELDS} | {"power": market.power}

    return {
        **{name: value for name, value in asdict(training).items() if name != "chunk"},
        "low": plain(family.low),
        "high": plain(family.high),
        "horizon": float(horizon),
        "steps": steps,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
    }


def _save(path: Path, header: dict, state: _State):
    """Written beside it first, so that a killed run leaves the checkpoint before."""
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write((json.dumps(header) + "\n").encode())
            eqx.tree_serialise_leaves(file, state)
        beside.replace(path)
    except OSError as error:
        raise EquilibriumError(f"checkpoint {path} cannot be written ({error.strerror}): give a file in a folder") from error


def _load(path: Path, header: dict, state: _State) -> _State:
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline())
            differs = [name for name in header if found.get(name) != header[name]]
            if differs:
                raise EquilibriumError(
                    f"checkpoint {path} is of a training with {differs[0]}={found.get(differs[0])}, and not "
                    f"{header[differs[0]]}: give its settings, or another file"
                )
            return eqx.tree_deserialise_leaves(file, state)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, EquilibriumError):
            raise
        raise EquilibriumError(f"checkpoint {path} cannot be read ({error}): delete it, or give another file") from error
