"""Sequential Monte Carlo: from the prior to the posterior by small steps, for posteriors of several modes."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from walras.calibrate.compiling import quickly
from walras.calibrate.errors import CalibrationError
from walras.calibrate.samplers.draws import (
    Draws,
    Progress,
    Sampler,
    in_chunks,
    require_between,
    require_choice,
    require_whole,
)
from walras.calibrate.samplers.target import Target

_RESAMPLING = ("systematic", "multinomial")  # of blackjax.smc.resampling
_BATCH = 100  # particles whose density is computed side by side: more take more memory, and no less time
_ACCEPTANCE = 0.8  # of trajectories, at least, by which step sizes are chosen (Beskos et al. 2013: .65 at least)
_FIRST_STEP = 0.5  # in standard deviations of the particles
_PILOTS, _SMALLEST_STEP = 100, 1e-6  # particles that try a step size, before it is halved
_REGULAR = 1e-6  # of each variance, added to it: a cloud that is flat has a mass matrix too
_MOST_STAGES = 500
# A log density that no particle has. Where a trajectory flies off, the product of its momentum and velocity overflows, with
# any sign, and Metropolis would accept an energy of −∞; where the density is zero it refuses it.
_ABYSS = -1e30


@dataclass(frozen=True, kw_only=True)
class SMC(Sampler):
    """Adaptive tempered sequential Monte Carlo (blackjax): from draws of the prior, by raising the likelihood's power.

    Each of `runs` independent runs is a chain of the tree, its `particles` are the draws: R̂ then says whether runs agree, on
    the weights of modes too. The power rises as far as the effective share of particles stays `target_ess`; they are then
    resampled and take `moves` Hamiltonian trajectories of `leapfrogs` steps, whose mass matrix is the particles' covariance
    and whose step size follows the acceptance. Facts: `log_evidence`, its spread over runs, temperatures and acceptance.
    """

    runs: int = 4
    particles: int = 1000
    target_ess: float = 0.5
    moves: int = 10
    leapfrogs: int = 4
    resampling: str = "systematic"

    def __post_init__(self):
        require_whole(runs=(self.runs, 1), particles=(self.particles, 20), moves=(self.moves, 1), leapfrogs=(self.leapfrogs, 1))
        require_between(0.0, 1.0, target_ess=self.target_ess)
        require_choice("resampling", self.resampling, _RESAMPLING)

    def run(self, problem, key, progress=None, checkpoints=None):
        """The particles of each run. Raises `CalibrationError` when no draw of the prior has a likelihood."""
        began = time.perf_counter()
        target = Target(problem, "prior")
        begin, advance = _programs(target, self)
        states, stages = [], []
        for number, key_of_run in enumerate(jax.random.split(key, self.runs)):
            state = begin(key_of_run, _prior_points(target, key_of_run, self.particles), target.data)
            _require_likelihood(state)
            held = checkpoints and checkpoints.part(f"run-{number}")
            report = partial(_report, progress, number, self.runs)
            state, parts = in_chunks(lambda state: advance(state, target.data), state, _finished, held, report)
            states.append(state)
            stages.append({name: np.stack([part[name] for part in parts]) for name in parts[0]})
        points = np.stack([np.asarray(state.particles) for state in states])
        values, log_density = target.values(points, target.data)
        return Draws(values, {"lp": log_density}, 0.0, time.perf_counter() - began, _facts(states, stages))


class _Cloud(NamedTuple):
    """The particles (particles, dimension) of one run at a temperature, the likelihood's power."""

    key: Any
    particles: Any
    log_likelihood: Any
    temperature: Any
    log_evidence: Any
    step_size: Any


def _prior_points(target: Target, key, particles: int):
    return target.first_points(jax.random.split(jax.random.fold_in(key, 0), particles))


def _programs(target: Target, options: SMC):
    """How a run begins at draws of the prior, and its next stage: a higher temperature, resampling, moves."""
    from blackjax.mcmc import hmc  # makes an array when it is imported
    from blackjax.smc import resampling
    from blackjax.smc.ess import ess, ess_solver
    from blackjax.smc.solver import dichotomy

    kernel, choose = hmc.build_kernel(), getattr(resampling, options.resampling)

    def parts(z, data):
        prior = -target.prior_potential(z, data)
        likelihood = -target.potential(z, data) - prior
        return prior, jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood)

    def over(function, first, data):
        size = None if target.mapping(first, data) is not jax.vmap else min(_BATCH, options.particles)
        return partial(jax.lax.map, function, batch_size=size)

    def begin(key, points, data):
        log_likelihood = over(lambda z: parts(z, data)[1], points[0], data)(points)
        # Prior draws without a likelihood, such as markets without equilibrium, are no particles.
        possible = jnp.isfinite(log_likelihood)
        share = jnp.mean(possible, dtype=log_likelihood.dtype)
        chosen = choose(jax.random.fold_in(key, 1), possible / jnp.maximum(possible.sum(), 1), options.particles)
        return _Cloud(
            jax.random.fold_in(key, 2),
            points[chosen],
            log_likelihood[chosen],
            jnp.zeros(()),
            jnp.log(share),
            jnp.asarray(_FIRST_STEP),
        )

    def advance(cloud: _Cloud, data):
        key, choose_key, move_key = jax.random.split(cloud.key, 3)
        remaining = 1.0 - cloud.temperature
        rise = ess_solver(lambda _: cloud.log_likelihood, cloud.particles, options.target_ess, remaining, dichotomy)
        rise = jnp.clip(rise, 0.0, remaining)
        # Not 1 - (1 - t), which may differ from 1.
        temperature = jnp.where(rise >= remaining, 1.0, cloud.temperature + rise)
        log_weights = rise * cloud.log_likelihood
        total = logsumexp(log_weights)
        kept = cloud.particles[choose(choose_key, jnp.exp(log_weights - total), options.particles)]
        spread = jnp.atleast_2d(jnp.cov(kept, rowvar=False))
        spread += _REGULAR * jnp.diag(jnp.diag(spread)) + jnp.finfo(spread.dtype).tiny * jnp.eye(len(spread))

        def density(z):
            prior, likelihood = parts(z, data)
            value = prior + temperature * likelihood
            return jnp.where(value > _ABYSS, value, -jnp.inf)

        def trajectory(step_size, state, key):
            step_key, key = jax.random.split(key)
            # A range of step sizes, so that no trajectory is a whole period.
            step_size *= jax.random.uniform(step_key, minval=0.5, maxval=1.5)
            state, info = kernel(key, state, density, step_size, spread, options.leapfrogs)
            return state, info.acceptance_rate

        def moves(step_size, count):
            def moved(key_and_point):
                key, z = key_and_point
                move = partial(trajectory, step_size)
                state, acceptance = jax.lax.scan(move, hmc.init(z, density), jax.random.split(key, count))
                return state.position, parts(state.position, data)[1], jnp.mean(acceptance)

            return over(moved, kept[0], data)

        # Modes shrink as the temperature rises, where the covariance of all particles does not: particles from all over the
        # cloud try the step size, and their moves are dropped.
        keys = jax.random.split(move_key, options.particles)
        every = slice(None, None, -(-options.particles // _PILOTS))

        def refused(step_size):
            return (jnp.mean(moves(step_size, 1)((keys[every], kept[every]))[2]) < _ACCEPTANCE) & (step_size > _SMALLEST_STEP)

        step_size = jax.lax.while_loop(refused, lambda step_size: step_size / 2.0, cloud.step_size)
        particles, log_likelihood, acceptance = moves(step_size, options.moves)((keys, kept))
        accepted = jnp.mean(acceptance)
        evidence = cloud.log_evidence + total - jnp.log(options.particles)
        stage = {"temperature": temperature, "acceptance": accepted, "ess": ess(log_weights), "step_size": step_size}
        return _Cloud(key, particles, log_likelihood, temperature, evidence, 2.0 * step_size), stage

    return quickly(begin), quickly(advance)


def _require_likelihood(cloud: _Cloud):
    if not np.isfinite(cloud.log_evidence):
        raise CalibrationError(
            f"none of {len(cloud.particles)} draws of the prior has a likelihood: check that the priors allow the data, or "
            "take more particles"
        )


def _finished(cloud: _Cloud) -> bool:
    return float(cloud.temperature) >= 1.0


def _report(progress, number: int, runs: int, cloud: _Cloud, parts):
    """Told on the scale of the temperature's logarithm, along which stages are about even."""
    if len(parts) > _MOST_STAGES:
        raise CalibrationError(
            f"after {len(parts)} stages the temperature is {float(cloud.temperature):.2g}: the likelihood is too sharp for "
            f"{len(cloud.particles)} particles, narrow the priors or take more"
        )
    if progress is not None:
        first, now = float(parts[0]["temperature"]), float(cloud.temperature)
        share = 1.0 if now >= 1.0 else 1.0 - np.log(now) / np.log(first)
        progress(Progress(100 * number + int(100 * share), 100 * runs))


def _facts(states: list[_Cloud], stages: list[dict]) -> dict[str, Any]:
    """The evidence of all runs, the mean of theirs (unbiased on the natural scale), and how runs went."""
    evidence = np.array([float(state.log_evidence) for state in states])
    return {
        "log_evidence": float(logsumexp(jnp.asarray(evidence)) - np.log(evidence.size)),
        "log_evidence_runs": evidence.tolist(),
        "smallest_acceptance": float(min(stage["acceptance"].min() for stage in stages)),
        "temperatures": [stage["temperature"].tolist() for stage in stages],
        "acceptance": [stage["acceptance"].tolist() for stage in stages],
    }
