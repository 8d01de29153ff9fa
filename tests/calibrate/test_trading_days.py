"""A panel of trading days: one game each, with shared parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from oracles.compiling import lightly
from simulated import series

from walras import data
from walras.calibrate import NUTS, CalibrationError, ForeseenPrices, Problem, TradingDays, fit, prior_predictive
from walras.calibrate.price_formation.errors_law import SeriesErrors
from walras.calibrate.price_formation.markets import foreseen

DAYS, STEPS = 5, 12
# The same closed form and the same sum of log densities, in another order.
EXACT = 1e-11
VALUES = {"price_level": 40.0, "price_trend": 0.2, "trading_cost": 0.8, "holding_cost": 0.05, "price_noise": 1.5}
VALUES |= {"price_level_spread": 3.0, "error_persistence": 0.6}


def panel(days=DAYS, seed=0, **columns):
    rng = np.random.default_rng(seed)
    rows = days * STEPS
    frame = pd.DataFrame(
        {
            "market": np.repeat([f"2024-06-{day + 1:02d}" for day in range(days)], STEPS),
            "time": np.tile(2.0 * np.arange(STEPS), days),
            "price": 40 + 5 * rng.normal(size=rows),
            "supply": -30 + 8 * np.sin(np.arange(rows) * 2 * np.pi / STEPS) + rng.normal(size=rows),
        }
    ).assign(**columns)
    return data.standard(frame, form="panel", units={"price": "EUR/MWh", "supply": "GW"}, time_unit="hour")


def forward(problem, values):
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        return lightly(lambda: problem.forward(problem.inputs))()


@pytest.mark.parametrize("errors", ["independent", "ar1"])
def test_density_is_the_sum_over_days_of_games_of_their_own(errors):
    problem = Problem("trading_days", panel(), TradingDays(errors=errors))
    levels = jnp.asarray([37.0, 41.0, 44.0, 39.0, 40.0])
    _, equilibrium, law = forward(problem, {**VALUES, "price_level_by_day": levels})
    assert equilibrium.price.shape == (DAYS, STEPS)
    supply = problem.data["supply"].to_numpy().reshape(DAYS, STEPS)
    price = problem.data["price"].to_numpy().reshape(DAYS, STEPS)
    density = lightly(lambda law, table: law.log_prob(table))
    total = 0.0
    for day in range(DAYS):
        net = jnp.asarray(supply[day] - supply[day].mean())
        game = foreseen({**VALUES, "price_level": levels[day]}, {"supply": net, "horizon": 24.0})
        kept = VALUES["error_persistence"] if errors == "ar1" else None
        errors_of_day = SeriesErrors(game.price, VALUES["price_noise"], jnp.arange(float(STEPS)), persistence=kept)
        total += float(density(errors_of_day, jnp.asarray(price[day])[:, None]))
    assert_allclose(float(density(law, problem.observed)), total, rtol=EXACT)


def test_costs_differ_by_a_factor_and_levels_by_a_sum():
    problem = Problem("trading_days", panel(), TradingDays(by_day=("price_level", "trading_cost")))
    standard = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5])
    levels = jnp.full(DAYS, 40.0)
    values = {**VALUES, "trading_cost_spread": 0.3, "trading_cost_standard": standard, "price_level_by_day": levels}
    params, _, _ = forward(problem, values)
    with handlers.substitute(data=values), handlers.seed(rng_seed=0):
        own = problem.observation.latents(params, problem.inputs)["by_day"]
    assert_allclose(own["trading_cost"], 0.8 * np.exp(0.3 * np.asarray(standard)), rtol=EXACT)
    assert_allclose(own["price_level"], levels, rtol=EXACT)


def test_pooling_chooses_what_is_inferred():
    def sampled(**options):
        return set(Problem("trading_days", panel(), TradingDays(**options)).latent)

    assert {"price_level_spread", "price_level_by_day"} <= sampled()
    assert "price_level_spread" not in sampled(pooling="none")
    assert not {"price_level_spread", "price_level_by_day"} & sampled(by_day=())


@pytest.mark.slow
@pytest.mark.statistical
def test_fit_recovers_the_levels_of_days():
    """Simulated from the prior and fitted. False-alarm rate: 4 standard deviations on 8 posteriors, about 1e-3."""
    problem = Problem("trading_days", panel(), TradingDays())
    simulated = prior_predictive(problem, key=jax.random.key(2))
    frame = panel(price=np.asarray(simulated["prior_predictive"]["price"])[0, 7])
    # The priors of the problem that simulated, not those of the simulated prices' own spread.
    tree = fit(problem.with_data(frame), NUTS(chains=2, warmup=300, draws=200), key=jax.random.key(3))
    posterior, prior = tree["posterior"], simulated["prior"]
    assert posterior["price_level_by_day"].dims == ("chain", "draw", "day")
    for name in ("trading_cost", "holding_cost", "price_trend", "price_level_by_day"):
        truth = np.asarray(prior[name])[0, 7]
        mean, spread = posterior[name].mean(("chain", "draw")), posterior[name].std(("chain", "draw"))
        assert np.all(np.abs(truth - mean) < 4 * spread), name


def test_a_user_can_start_from_an_hourly_file(tmp_path):
    hours = pd.date_range("2024-03-30", periods=72, freq="h", tz="Europe/Berlin")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"t": hours, "eur": 50 + rng.normal(size=72), "l": 40 + rng.normal(size=72), "r": rng.normal(size=72)})
    table.to_csv(tmp_path / "hourly.csv", index=False)
    columns = {"time": "t", "price": "eur", "load": "l", "renewables": "r"}
    frame = data.days(data.read(tmp_path / "hourly.csv", columns=columns), zone="Europe/Berlin")
    problem = Problem("trading_days", frame, TradingDays(errors="ar1"))
    # The clocks change on 31 March 2024: that day has 23 hours and is left out.
    assert problem.inputs["supply"].shape == (2, 24)


@pytest.mark.parametrize(
    ("frame", "options", "sentence"),
    [
        (series, {}, "panel"),
        (lambda: panel().iloc[:-1], {}, "steps"),
        (lambda: panel(supply=[np.nan, *range(DAYS * STEPS - 1)]), {}, "missing"),
        (lambda: panel(time=np.tile(np.arange(STEPS) ** 2.0, DAYS)), {}, "steps"),
        (panel, {"by_day": "discount"}, "by_day"),
        (panel, {"supply": "latent"}, "supply"),
        (panel, {"pooling": "complete"}, "pooling"),
    ],
    ids=["series", "a day lacks a row", "missing supply", "irregular", "unknown parameter", "latent", "pooling"],
)
def test_bad_input(frame, options, sentence):
    with pytest.raises((CalibrationError, data.DataError), match=sentence):
        Problem("trading_days", frame(), TradingDays(**options))


def test_other_observations_are_refused():
    with pytest.raises(CalibrationError, match="TradingDays"):
        Problem("trading_days", series(), ForeseenPrices())
