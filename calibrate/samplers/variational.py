"""Variational inference: the normal distribution that is nearest to the posterior."""

import time
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI as NumpyroSVI
from numpyro.infer import Trace_ELBO, autoguide, init_to_value
from numpyro.optim import optax_to_numpyro

from walras.calibrate.compiling import quickly
from walras.calibrate.samplers.approximation import FEWEST_DRAWS, drawn
from walras.calibrate.samplers.draws import (
    Progress,
    Sampler,
    in_chunks,
    require_between,
    require_choice,
    require_true_or_false,
    require_whole,
)
from walras.calibrate.samplers.modes import MAP, climb
from walras.calibrate.samplers.target import Initial, Target

_GUIDES = {
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "full": autoguide.AutoMultivariateNormal,
    "diagonal": autoguide.AutoDiagonalNormal,
}
_INITIAL_SCALE = 0.1  # of the guide, in standard deviations of the prior
_LAST = 0.1  # the share of steps at the end over which the bound must no longer rise


@dataclass(frozen=True, kw_only=True)
class SVI(Sampler):
    """Draws of the normal guide that stochastic variational inference brings nearest to the posterior (NumPyro, Adam).

    `guide`: its covariance is "low_rank" (diagonal plus a rank of the square root of the dimension), "full" or "diagonal", in
    unconstrained coordinates. It starts at a mode found from `starts` (as in `MAP`) and takes `steps`, each with the gradient
    of the bound at `particles` points; `learning_rate` falls to zero over them. `draws` and `importance` as in `Laplace`.
    Progress and checkpoints move in steps of `chunk`.
    """

    guide: str = "low_rank"
    steps: int = 5000
    learning_rate: float = 0.01
    particles: int = 8
    draws: int = 1000
    importance: bool = False
    starts: int = 8
    init: Initial = field(default="prior", hash=False)
    chunk: int = 500

    def __post_init__(self):
        require_choice("guide", self.guide, tuple(_GUIDES))
        require_whole(
            steps=(self.steps, 100), particles=(self.particles, 1), draws=(self.draws, FEWEST_DRAWS), chunk=(self.chunk, 1)
        )
        require_between(0.0, 1.0, learning_rate=self.learning_rate)
        require_true_or_false(importance=self.importance)
        MAP(starts=self.starts, init=self.init)

    def run(self, problem, key, progress=None, checkpoints=None):
        """Draws of the guide after its last step."""
        climb_key, step_key, draw_key = jax.random.split(key, 3)
        target = Target(problem, self.init)
        found, compile_seconds, began = climb(target, MAP(starts=self.starts, init=self.init), climb_key)
        guide, svi = self._inference(target, found.points[0])
        # The guide exists after this, which a restored run needs too.
        state = jax.tree.map(jnp.asarray, svi.init(step_key, data=target.data))
        total = -(-self.steps // self.chunk) * self.chunk

        def advance(state):
            state, losses = advanced(state, target.data)
            return state, {"losses": losses}

        def report(_, parts):
            if progress is not None:
                progress(Progress(len(parts) * self.chunk, total))

        advanced = quickly(
            lambda state, data: jax.lax.scan(lambda now, _: svi.update(now, data=data), state, length=self.chunk)
        )
        report(state, [])
        state, parts = in_chunks(advance, state, lambda state: int(state.optim_state[0]) >= total, checkpoints, report)
        losses = np.concatenate([part["losses"] for part in parts])
        posterior = guide.get_posterior(svi.get_params(state))
        posterior = posterior.to_event(len(posterior.batch_shape))
        draws = drawn(target, posterior, found, draw_key, self.draws, self.importance)
        seconds, facts = time.perf_counter() - began, {**(draws.facts or {}), **_bound(losses)}
        return draws._replace(compile_seconds=compile_seconds, sample_seconds=seconds, facts=facts)

    def _inference(self, target: Target, mode):
        # One site for the whole vector: the guide's coordinates are then those of the target.
        def program(data):
            z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (mode.size,)))
            numpyro.factor("posterior", -target.potential(z, data))

        start = init_to_value(values={"z": jnp.asarray(mode)})
        guide = _GUIDES[self.guide](program, init_loc_fn=start, init_scale=_INITIAL_SCALE)
        schedule = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        side_by_side = target.mapping(mode, target.data) is jax.vmap
        bound = Trace_ELBO(self.particles, vectorize_particles=side_by_side)
        return guide, NumpyroSVI(program, guide, optax_to_numpyro(optax.adam(schedule)), bound)


def _bound(losses: np.ndarray) -> dict[str, float]:
    """The evidence lower bound at the end, and how much it rose between the halves of the last steps, beyond its noise."""
    last = -losses[-max(int(_LAST * losses.size), 20) :]
    early, late = np.array_split(last, 2)
    noise = np.hypot(early.std() / np.sqrt(early.size), late.std() / np.sqrt(late.size))
    rise = abs(late.mean() - early.mean())
    return {"elbo": float(last.mean()), "elbo_change": float(max(rise - 2.0 * noise, 0.0))}
