"""Priors as plain data, and problems: what identifies them, what they refuse, and their NumPyro program."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from simulated import series

from walras.calibrate import CalibrationError, ForeseenPrices, Prior, Problem, StochasticPrices
from walras.calibrate.law import log_densities
from walras.model import PriceFormation, Quadratic

# The same sum of log densities in another order.
EXACT = 1e-10

PRIORS = {
    "trading_cost": Prior("LogNormal", -1.0, 0.5, unit="USD", why="small"),
    "demand_effect": Prior("Normal", [0.0, 1.0], [1.0, 2.0]),
}
OBSERVED = ForeseenPrices(demand=("storm", "holiday"))


def problem(priors=PRIORS, observation=OBSERVED, **options):
    return Problem("price_formation", series(**options), observation, priors)


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_survives_json_and_pickle(name):
    prior = PRIORS[name]
    assert Prior.from_json(json.loads(json.dumps(prior.to_json()))) == prior
    assert pickle.loads(pickle.dumps(prior)) == prior
    assert hash(Prior.from_json(prior.to_json())) == hash(prior)


def test_a_vector_prior_is_one_event():
    distribution = PRIORS["demand_effect"].distribution()
    assert (distribution.batch_shape, distribution.event_shape) == ((), (2,))
    assert_allclose(
        distribution.log_prob(jnp.zeros(2)), dist.Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])).log_prob(0.0).sum()
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("LogNormale", 0.0, 1.0), ["'LogNormale'", "distribution class of NumPyro", "LogNormal"]),
        (("Normal", 0.0, -1.0), ["Normal(0.0, -1.0)", "scale", "see numpyro.distributions.Normal"]),
        (("Normal", 0.0, float("nan")), ["Normal", "nan", "give a finite number"]),
        (("Normal", "zero", 1.0), ["Normal", "'zero'", "give a number"]),
        (("Normal", 0.0, 1.0, 2.0, 3.0), ["Normal", "see numpyro.distributions.Normal"]),
        (("Poisson", 3.0), ["'Poisson'", "discrete", "LogNormal"]),
        (("init_to_median",), ["'init_to_median'", "distribution class of NumPyro"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refused_priors(arguments, told):
    with pytest.raises(CalibrationError) as raised:
        Prior(*arguments)
    for words in told:
        assert words in str(raised.value)


def test_equal_problems_are_equal_and_hash_alike():
    """Compiled chains and saved runs are looked up by the digest."""
    one, other = problem(), problem()
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest


def changed_price():
    frame = series()
    frame.iloc[3, 0] += 1e-12
    return frame


CHANGES = {
    "a price": lambda: Problem("price_formation", changed_price(), OBSERVED, PRIORS),
    "a time": lambda: problem(times=[*range(11), 12]),
    "a prior": lambda: problem({**PRIORS, "trading_cost": Prior("LogNormal", -1.0, 0.6)}),
    "a fixed number": lambda: problem({**PRIORS, "trading_cost": 0.5}),
    "an option": lambda: problem(observation=ForeseenPrices(demand=("storm", "holiday"), errors="ar1")),
    "a market": lambda: Problem("stationary", series(), StochasticPrices()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_problem_has_another_digest(what):
    """Otherwise a run of other data would pass for a run of these."""
    other = CHANGES[what]()
    assert other.digest != problem().digest
    assert other != problem()


def test_a_problem_survives_pickling():
    copy = pickle.loads(pickle.dumps(problem()))
    assert copy == problem()
    assert copy.priors == problem().priors


def test_what_is_not_given_has_the_default_prior():
    made = problem()
    assert made.priors["trading_cost"] == PRIORS["trading_cost"]
    assert set(made.sampled) == {*PRIORS, "price_level", "price_trend", "holding_cost", "price_noise"}
    assert all(prior.why for name, prior in made.priors.items() if name not in PRIORS)


def test_fixed_numbers_are_not_sampled():
    made = problem({**PRIORS, "price_trend": 0, "holding_cost": 0.25})
    assert not {"price_trend", "holding_cost"} & set(made.sampled)
    assert made.priors["holding_cost"] == 0.25


@pytest.mark.parametrize(
    ("priors", "told"),
    [
        ({"tradingcost": 1.0}, ["'tradingcost'", "trading_cost"]),
        ({"trading_cost": Prior("Normal", 0.0, 1.0)}, ["'trading_cost'", "Normal(0, 1)", "(0, inf)", "LogNormal"]),
        ({"trading_cost": -1.0}, ["trading_cost", "-1.0", "(0, inf)"]),
        ({"trading_cost": 0.0}, ["trading_cost", "0.0", "(0, inf)"]),
        ({"trading_cost": Prior("Uniform", -10.0, -5.0)}, ["'trading_cost'", "(0, inf)"]),
        ({"trading_cost": Prior("LogNormal", (0.0, 0.0), 1.0)}, ["'trading_cost'", "shape (2,)", "single numbers"]),
        ({"demand_effect": 0.5}, ["'demand_effect'", "shape ()", "1 numbers, one for each column"]),
        ({"error_persistence": 1.0}, ["error_persistence", "1.0", "(0, 1)"]),
        ({"trading_cost": float("nan")}, ["trading_cost", "nan", "finite"]),
        ({"trading_cost": True}, ["'trading_cost'", "True", "give a Prior, or a number"]),
        ({"trading_cost": "LogNormal"}, ["'trading_cost'", "'LogNormal'", "give a Prior, or a number"]),
        ({"error_persistence": Prior("LogNormal", 0.0, 1.0)}, ["'error_persistence'", "(0, 1)", "Uniform"]),
    ],
)
def test_refused_parameters(priors, told):
    with pytest.raises(CalibrationError) as raised:
        problem(priors, ForeseenPrices(errors="ar1", demand=("storm",)))
    for words in told:
        assert words in str(raised.value)


def test_an_unknown_market_is_named():
    with pytest.raises(CalibrationError, match=r"'stationry' is not registered: did you mean 'stationary'\?"):
        Problem("stationry", series(), StochasticPrices())


def test_missing_prices_are_counted_and_say_nothing():
    """NaN must be masked: the density is that of the other rows, and the reader is told how many."""
    whole, gap = problem(), problem(missing=[("price", 4), ("price", 9)])
    assert "2 of 12 values of price are missing; the likelihood leaves them out." in gap.observation.notes(gap.data)
    values = {name: jnp.asarray(0.3) for name in whole.sampled} | {"demand_effect": jnp.zeros(2)}
    law = law_at(whole, values)
    rows = log_densities(law.one_step_ahead(whole.observed), whole.observed[:, 0])
    assert_allclose(law.log_prob(gap.observed), jnp.delete(rows, jnp.array([4, 9])).sum(), rtol=EXACT)


def law_at(made, values):
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        return made.forward(made.inputs)[2]


def test_program_density_is_prior_plus_likelihood():
    """The NumPyro program must contain each prior and the data once, and nothing else."""
    made = problem()
    values = {name: jnp.asarray(0.3) for name in made.sampled} | {"demand_effect": jnp.array([0.1, -0.2])}
    total, _ = log_density(made.model, (), {}, values)
    prior = sum(made.priors[name].distribution().log_prob(value).sum() for name, value in values.items())
    assert_allclose(total, prior + law_at(made, values).log_prob(made.observed), rtol=EXACT)


def test_unsolvable_draws_have_no_density_and_finite_gradients():
    """A failed solve is −∞, never a finite penalty; a NaN in its gradient would poison the sampler."""

    def density(cost):
        made = Problem(negative_cost, series(), ForeseenPrices(), {"cost": Prior("Normal", 0.0, 1.0)})
        return log_density(made.model, (), {}, {"cost": cost, "price_noise": jnp.asarray(0.5)})[0]

    assert density(jnp.asarray(-1.0)) == -jnp.inf
    assert np.isfinite(density(jnp.asarray(1.0)))
    assert np.isfinite(jax.grad(density)(jnp.asarray(-1.0)))


def negative_cost(params, inputs):
    return PriceFormation(params["cost"], holding=Quadratic(1.0)).solve(inputs["supply"], throw=False)


def test_a_market_may_be_a_plain_function():
    made = Problem(negative_cost, series(), ForeseenPrices(), {"cost": Prior("LogNormal", 0.0, 1.0)})
    assert made.sampled == ["price_noise", "cost"]
    assert made.to_json()["market"].endswith(":negative_cost")


def grouped():
    """A hierarchical prior, and an ordered one."""
    scale = numpyro.sample("spread", dist.HalfNormal(1.0))
    costs = numpyro.sample(
        "costs", dist.TransformedDistribution(dist.Normal(jnp.zeros(2), scale).to_event(1), dist.transforms.OrderedTransform())
    )
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    return {"cost": jnp.exp(costs[1]), "price_noise": noise}


def test_priors_may_be_a_numpyro_program():
    """Hierarchical and ordered priors reach the program whole."""
    made = Problem(negative_cost, series(), ForeseenPrices(), grouped)
    assert made.sampled == ["spread", "costs", "noise"]
    values = {"spread": jnp.asarray(0.7), "costs": jnp.array([-0.4, 0.2]), "noise": jnp.asarray(0.5)}
    total, _ = log_density(made.model, (), {}, values)
    prior, _ = log_density(grouped, (), {}, values)
    assert_allclose(total - prior, law_at(made, values).log_prob(made.observed), rtol=EXACT)
    assert pickle.loads(pickle.dumps(made)) == made


def test_handlers_condition_the_program():
    conditioned = handlers.condition(problem().model, {"trading_cost": jnp.asarray(0.5)})
    sites = handlers.trace(handlers.seed(conditioned, 0)).get_trace()
    assert sites["trading_cost"]["is_observed"]
    assert sites["trading_cost"]["value"] == 0.5
    assert sites["observed"]["value"].shape == (12, 1)


def test_predictive_simulates_the_data_anew():
    """`observed=None` must free the data, and the named series must be the columns of the table."""
    drawn = Predictive(problem().model, num_samples=7)(jax.random.key(0), observed=None)
    assert drawn["price"].shape == (7, 12)
    assert_allclose(drawn["price"], drawn["observed"][..., 0])
    assert np.all(np.std(drawn["price"], axis=0) > 0)
