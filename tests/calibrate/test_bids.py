"""Observing bids: what is read from a table, fits from a specification to a report, counterfactuals and bad input."""

import json
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from numpy.testing import assert_allclose
from recovery import LEVEL, refits
from refusals import assert_refused

from walras import data
from walras.calibrate import (
    NUTS,
    Bids,
    CalibrationError,
    IndependentRows,
    Prior,
    Problem,
    check,
    fit,
    forecast,
    posterior_predictive,
    predictive_statistics,
    prior_predictive,
    report,
    revenue,
    run,
)
from walras.calibrate.auctions.pictures import plot_bid_quantiles, plot_values, value_quantiles
from walras.calibrate.spec import Spec
from walras.data import standard

TRUTH = {"value_level": 1.0, "value_spread": 0.4, "auction_spread": 0.35, "shifter_effect": np.array([0.8])}


def log_normal_bid(levels, bidders, spread):
    """Bids of values with median 1, by the quadrature of many nodes that the solvers do not use."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    parts = (0.5 * (nodes + 1.0)) ** (1.0 / (bidders - 1.0))
    return 0.5 * np.exp(spread * scipy.stats.norm.ppf(np.asarray(levels)[..., None] * parts)) @ weights


def auctions(sizes, seed=0, truth=TRUTH):
    """Simulated auctions with a covariate, by the textbook formula; the bidders are numbered in a random order."""
    rng, sizes = np.random.default_rng(seed), np.asarray(sizes)
    volume = np.exp(rng.normal(size=sizes.size))
    scale = (
        truth["value_level"]
        + truth["shifter_effect"][0] * np.log(volume)
        + truth["auction_spread"] * rng.normal(size=sizes.size)
    )
    rows = [
        pd.DataFrame(
            {
                "auction": auction,
                "bidder": np.arange(size),
                "bid": np.exp(scale[auction]) * log_normal_bid(rng.uniform(size=size), size, truth["value_spread"]),
                "volume": volume[auction],
            }
        )
        for auction, size in enumerate(sizes)
    ]
    return standard(pd.concat(rows, ignore_index=True), form="bids", units={"bid": "USD"})


FRAME = auctions([2, 3, 4] * 12)


def problem_of(frame=FRAME, priors=None, **options):
    return Problem("first_price_auction", frame, Bids(**{"shifters": ("volume",), **options}), priors or {})


# --- what is read from a table


def test_rows_are_in_falling_order_and_say_who_is_who():
    problem = problem_of()
    inputs, logs = problem.inputs, np.asarray(problem.observed)[:, 0]
    bids = FRAME["bid"].groupby(level="auction", sort=False)
    assert_allclose(np.exp(logs[np.asarray(inputs["first"])]), bids.max())
    assert_allclose(inputs["bidders"], bids.size())
    inner = np.asarray(inputs["rank"])[1:] > 1
    assert np.all(np.diff(logs)[inner] <= 0)
    assert set(problem.data.columns) == {"bid", "volume", "bidders"}
    again = replace(problem, data=problem.data)
    assert again.digest == problem.digest


def test_winning_bids_alone_keep_the_number_of_bidders():
    whole, won = problem_of(), problem_of(bids="winning")
    assert len(won.data) == 36
    assert_allclose(won.inputs["bidders"], whole.inputs["bidders"])
    assert_allclose(won.observed[:, 0], whole.observed[np.asarray(whole.inputs["first"]), 0])
    assert_allclose(problem_of(won.data, bids="winning").inputs["bidders"], whole.inputs["bidders"])


def test_auctions_cannot_be_forecast():
    problem = problem_of()
    tree = prior_predictive(problem, key=jax.random.key(0), draws=4)
    with pytest.raises(CalibrationError, match="not one series"):
        forecast(problem, tree, key=jax.random.key(0))


# --- one fit, from a specification to its report


SPEC = """
seed = 2
[data]
path = "bids.csv"
form = "bids"
units = {bid = "USD"}
[market]
name = "first_price_auction"
[observation]
shifters = ["volume"]
[sampler]
chains = 2
warmup = 150
draws = 150
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    auctions([3] * 60, seed=3).reset_index().to_csv(folder / "bids.csv", index=False)
    (folder / "spec.toml").write_text(SPEC)
    spec = Spec.from_toml(folder / "spec.toml")
    problem, sampler = run.build(spec)
    tree = posterior_predictive(problem, fit(problem, sampler, key=run.key_of(spec)), key=run.key_of(spec, 1))
    path = run.claim(folder / "run")
    run.write(path, spec, problem, tree)
    report(problem, tree, path / "report.html")
    return path, problem, tree


@pytest.mark.statistical
def test_a_fit_recovers_the_truth(finished):
    """Each of five truths within its 99.8 % interval: one key in a hundred fails; and the intervals are short."""
    _, problem, tree = finished
    assert int(tree["sample_stats"]["diverging"].sum()) == 0
    for name, true in TRUTH.items():
        draws = tree["posterior"][name].to_numpy().reshape(-1)
        low, high = np.quantile(draws, [0.001, 0.999])
        centre = np.log(problem.data["volume"].groupby(level="auction").first()).mean() if name == "value_level" else 0.0
        assert low < float(np.squeeze(true)) + TRUTH["shifter_effect"][0] * centre < high, name
        assert high - low < 0.6, name


@pytest.mark.statistical
def test_checks_find_nothing_wrong_with_the_right_model(finished):
    """Misfit is judged at 1 % each; of a dozen checks none warns at this key."""
    _, problem, tree = finished
    judged = check(problem, tree)
    warned = [
        item.name for item in judged.checks if item.verdict != "pass" and ("forecast" in item.name or "replic" in item.name)
    ]
    assert warned == []
    assert "median log distance of the highest two bids" in predictive_statistics(problem, tree).index


def test_the_report_has_the_pictures_of_auctions(finished):
    path, problem, tree = finished
    page = (path / "report.html").read_text(encoding="utf-8")
    for heading in ("Quantiles of bids", "Values", "Reserves"):
        assert f">{heading}<" in page
    for drawn in (plot_bid_quantiles(problem, tree), plot_values(problem, tree)):
        labels = [label.get_text() for label in drawn.get_yticklabels()]
        assert any(labels) and "$" not in "".join(labels)  # reports do not parse formulas
    judged = json.loads((path / "check.json").read_text())
    assert judged["divergences"] == 0
    assert run.read(str(path))[1] == problem


def test_revenue_is_that_of_the_second_highest_value(finished):
    """Without a reserve bidders who are risk neutral pay E[second highest value], whatever they bid."""
    _, problem, tree = finished
    found = revenue(problem, tree, reserves=[0.0, 1e-6, 2e-6], bidders=[2, 4], draws=3)
    posterior, kept = tree["posterior"].to_dataset(), np.linspace(0, 299, 3).astype(int)
    levels, weights = np.polynomial.legendre.leggauss(2000)
    levels, weights = 0.5 * (levels + 1.0), 0.5 * weights
    for bidders in (2, 4):
        expected = []
        for draw in kept:
            one = {
                name: posterior[name].to_numpy().reshape(-1)[draw] for name in ("value_level", "value_spread", "auction_spread")
            }
            second = bidders * (bidders - 1) * levels ** (bidders - 2) * (1.0 - levels)
            mean = np.sum(weights * second * np.exp(one["value_spread"] * scipy.stats.norm.ppf(levels)))
            expected.append(np.exp(one["value_level"] + 0.5 * one["auction_spread"] ** 2) * mean)
        assert_allclose(found.curve.loc[(bidders, 0.0), "revenue"], np.mean(expected), rtol=1e-4)
        assert_allclose(found.curve.loc[(bidders, 0.0), "sold"], 1.0, rtol=1e-9)


def test_the_better_of_two_reserves_is_the_best(finished):
    _, problem, tree = finished
    found = revenue(problem, tree, reserves=[0.1, 1e3], bidders=[2], draws=3)
    assert_allclose(found.best.loc[2, "reserve"], 0.1)
    assert found.best.loc[2, ("gain", "mean")] == 0.0


@pytest.mark.slow
def test_revenue_above_a_reserve_that_binds():
    """At the old reserve all who bid still do, and pay the second highest of their values; far above it nobody may."""
    truth = {"value_level": 0.3, "value_spread": 0.4, "auction_spread": 0.3}
    problem = problem_of(FRAME.assign(floor=0.9 * FRAME["bid"].min()), dict(truth), reserve="floor")
    draws = {name: np.full((1, 2), value) for name, value in truth.items()} | {"shifter_effect": np.full((1, 2, 1), 0.8)}
    tree = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({name: (("chain", "draw", "s")[: v.ndim], v) for name, v in draws.items()})}
    )
    found = revenue(problem, tree, reserves=[1.0, 2.0, 1e4], bidders=[3])
    location = truth["value_level"] - np.log(0.9 * FRAME["bid"].min())
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    levels, parts = np.polynomial.legendre.leggauss(4000)
    levels, parts = 0.5 * (levels + 1.0), 0.5 * parts
    second = parts * 6.0 * levels * (1.0 - levels)
    scales = location + truth["auction_spread"] * nodes
    scores = [-scipy.stats.norm.ppf(scipy.stats.norm.cdf(s / truth["value_spread"]) * (1.0 - levels)) for s in scales]
    expected = sum(w * second @ np.exp(s + truth["value_spread"] * z) for w, s, z in zip(weights, scales, scores, strict=True))
    assert_allclose(found.curve.loc[(3, 1.0), "revenue"], expected / weights.sum(), rtol=1e-5)
    assert_allclose(found.curve["sold"].to_numpy()[[0, 2]], [1.0, 0.0], atol=1e-6)
    assert np.isfinite(found.curve.to_numpy()).all() and found.unit == "times floor"


def test_value_quantiles_of_one_auction_and_of_all(finished):
    """In an average auction log-normal; over all with the variances added."""
    _, problem, tree = finished
    levels = np.array([0.1, 0.5, 0.9])
    posterior = tree["posterior"].to_dataset()
    level, spread, auction = (posterior[n].to_numpy().mean() for n in ("value_level", "value_spread", "auction_spread"))
    for over, sd in ((False, spread), (True, np.hypot(spread, auction))):
        found = np.log(value_quantiles(problem, tree, levels, over_auctions=over)).mean(axis=0)
        assert_allclose(found, level + sd * scipy.stats.norm.ppf(levels), atol=0.02)


# --- bad input


def edited(**columns):
    return FRAME.reset_index().assign(**columns)


def with_bid(row, bid):
    table = FRAME.reset_index()
    table.loc[row, "bid"] = bid
    return table


CASES = {
    "a bid of zero": (lambda: problem_of(with_bid(3, 0.0)), ["bid of bidder", "not positive", "drop the row"]),
    "a negative bid": (lambda: problem_of(with_bid(3, -1.0)), ["negative"]),
    "a bid that is missing": (lambda: problem_of(with_bid(3, np.nan)), ["bid of bidder", "missing", "drop the row"]),
    "one bidder": (lambda: problem_of(FRAME.iloc[1:].reset_index()), ["has 1 bidders", "drop auctions of one"]),
    "fewer bidders than bids": (lambda: problem_of(edited(bidders=2.0)), ["has 2 bidders and 3 bids"]),
    "half a bidder": (lambda: problem_of(edited(bidders=5.5)), ["has 5.5 bidders", "whole number"]),
    "a shifter that is not there": (lambda: problem_of(shifters=("acreage",)), ["shifter 'acreage' is missing", "name one of"]),
    "a shifter that follows from others": (
        lambda: problem_of(edited(area=FRAME["volume"].to_numpy() ** 2), shifters=("volume", "area")),
        ["shifter 'area' follows from volume", "leave it out"],
    ),
    "a number for a shifter": (lambda: problem_of(shifters=3), ["shifters are 3", "names of columns"]),
    "one auction": (lambda: problem_of(FRAME.iloc[:2], shifters=()), ["data have 1 auctions", "at least 2"]),
    "a shifter that is negative": (
        lambda: problem_of(edited(slope=-1.0), shifters=("slope",)),
        ["shifter 'slope' is -1", "positive"],
    ),
    "a shifter that differs within": (
        lambda: problem_of(edited(volume=np.arange(1.0, 1.0 + len(FRAME)))),
        ["shifter 'volume' differs", "one value for each auction"],
    ),
    "a shifter that never changes": (lambda: problem_of(edited(volume=2.0)), ["shifter 'volume' is always 2"]),
    "a bid below the reserve": (
        lambda: problem_of(edited(floor=FRAME["bid"].max()), reserve="floor"),
        ["below its floor", "drop"],
    ),
    "a reserve that is not there": (lambda: problem_of(reserve="floor"), ["reserve 'floor' is missing"]),
    "a family that is unknown": (lambda: problem_of(values="normal"), ["observation values is 'normal'", "choose one of"]),
    "other bids": (lambda: problem_of(bids="losing"), ["observation bids is 'losing'", "choose one of"]),
    "a series": (
        lambda: problem_of(data.load("fulton_fish")),
        ["data are a series", "one row for each bidder"],
    ),
    "a risk above one": (lambda: problem_of(priors={"risk": 1.5}), ["risk is fixed at 1.5", "(0, 1]"]),
}


@pytest.mark.parametrize("what", CASES)
def test_refused(what):
    assert_refused(*CASES[what])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bidders": [1]}, ["bidders is [1]", "at least 2"]),
        ({"reserves": [-1.0, 2.0]}, ["reserves is", "at least 0"]),
        ({"reserves": [1.0, 1.0]}, ["reserves is", "two or more"]),
        ({"seller_value": np.nan}, ["seller_value is nan"]),
        ({"draws": 0}, ["draws is 0", "at least 1"]),
    ],
)
def test_refused_counterfactuals(finished, options, words):
    _, problem, tree = finished
    assert_refused(lambda: revenue(problem, tree, **options), words)


# --- slow


def shares_inside(fitted, tables, truths, init="median"):
    """The share of true values of each parameter inside central 90 % intervals, and of draws that diverged."""
    sampler = NUTS(chains=2, warmup=300, draws=300, init=init)
    inside, diverged = {name: [] for name in fitted.sampled}, []
    for number, draws in enumerate(refits(fitted, sampler, jax.random.key(1), tables)):
        diverged.append(draws.statistics["diverging"].mean())
        for name, hits in inside.items():
            low, high = np.quantile(draws.values[name], [0.05, 0.95], axis=(0, 1))
            hits.append((low <= truths[name][number]) & (truths[name][number] <= high))
    return {name: np.mean(hits) for name, hits in inside.items()}, np.mean(diverged)


NARROW = {
    "value_level": ("Normal", 1.0, 0.5),
    "value_spread": ("LogNormal", -0.9, 0.3),
    "auction_spread": ("LogNormal", -1.0, 0.3),
}
DESIGNS = {
    "two bidders": ([2] * 300, {}),
    "two to five bidders": ([2, 3, 4, 5] * 75, {}),
    "winning bids": ([3] * 300, {"bids": "winning"}),
    "Weibull values": ([3] * 300, {"values": "weibull"}),
    "a reserve that binds": ([2] * 300, {"reserve": "floor"}),
}
REPLICATIONS = 50
# Of 50 replications at 90 %, 39 to 50 are inside in all but 0.3 % of keys.
BAND = 0.12


def coverage(right, fitted):
    """Of truths drawn from the prior, and tables simulated with them."""
    drawn = prior_predictive(right, key=jax.random.key(2), draws=REPLICATIONS)
    tables = drawn["prior_predictive"]["log_bid"].to_numpy()[0, :, :, None]
    return shares_inside(fitted, tables, {name: drawn["prior"][name].to_numpy()[0] for name in right.sampled})


def informed(sizes, **options):
    """A problem whose priors let all truths be fitted well, and where a floor of 1 is above many values."""
    priors = {
        name: Prior(*prior) for name, prior in NARROW.items() if options.get("values") != "weibull" or "value_s" not in name
    }
    frame = auctions(sizes)
    return problem_of(frame.assign(bid=1.0 + frame["bid"], floor=1.0), priors, **options)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_truths_drawn_from_the_prior(design):
    """Each of four shares within ±0.12 of 0.9 over 50 replications of 300 auctions: a false alarm in 1.3 % of keys."""
    sizes, options = DESIGNS[design]
    problem = informed(sizes, **options)
    shares, diverged = coverage(problem, problem)
    print(design, shares, diverged)
    assert all(np.all(np.abs(share - LEVEL) <= BAND) for share in shares.values())
    assert diverged < 0.01


@dataclass(frozen=True, kw_only=True)
class UpToTheLimit(Bids):
    """The exact law of bids whose auctions differ by covariates alone: none is above a limit that parameters set."""

    def law(self, equilibrium, params, inputs):
        rows = inputs["auction"]
        return IndependentRows(ExactBid(equilibrium.table, equilibrium.location[rows], inputs["kind"][rows]))


class ExactBid(dist.Distribution):
    support = dist.constraints.real

    def __init__(self, table, location, kind):
        self.table, self.location, self.kind = table, location, kind
        super().__init__(batch_shape=location.shape)

    def log_prob(self, value):
        density = self.table.log_density(self.kind, value, self.location[:, None])[:, 0]
        return jnp.where(value <= self.location + self.table.top[self.kind], density, -jnp.inf)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_exact_law_of_bids_with_a_limit_is_not_regular():
    """Negative control: without a scale of auctions' own the likelihood ends where the highest bid does, and chains diverge."""
    sizes = [3] * 300
    priors = {name: Prior(*prior) for name, prior in NARROW.items()}
    known = {"auction_spread": 1e-3, "shifter_effect": Prior("Normal", [0.8], [0.1])}
    right = problem_of(auctions(sizes), {**priors, **known})
    drawn = prior_predictive(right, key=jax.random.key(2), draws=4)
    tables = drawn["prior_predictive"]["log_bid"].to_numpy()[0, :, :, None]
    naive = Problem("first_price_auction", auctions(sizes), UpToTheLimit(shifters=("volume",)), dict(right.priors))
    truths = {name: drawn["prior"][name].to_numpy()[0] for name in right.sampled}
    # Chains start where the limit is above all bids: elsewhere the density is zero.
    shares, diverged = shares_inside(naive, tables, truths, init={"value_level": 4.0})
    print(shares, diverged)
    assert diverged > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("bidders", [2, 3, 4, 5, 6])
def test_timber(bidders):
    """Auctions of each number of bidders, above the advertised value: chains agree, and nothing diverges."""
    problem = Problem("first_price_auction", timber(bidders), Bids(shifters=("advertised", "volume"), reserve="advertised"))
    tree = fit(problem, NUTS(chains=4, warmup=300, draws=400, processes=2), key=jax.random.key(0))
    judged = check(problem, tree)
    print(bidders, judged, tree.attrs["compile_seconds"], tree.attrs["sample_seconds"])
    assert judged.r_hat <= 1.01 and judged.divergences == 0 and judged.solver_failures == 0


def timber(bidders, auctions=400):
    """Auctions drawn at random among those whose bids are all from once to 20 times the advertised value."""
    frame = data.load("timber")
    ratio = frame["bid"] / frame["advertised"]
    kept = ratio.between(1.0, 20.0).groupby(level="auction").transform("all")
    frame = frame[kept & (frame.groupby(level="auction")["bid"].transform("size") == bidders)]
    names = frame.index.get_level_values("auction").unique()
    drawn = np.random.default_rng(0).permutation(names)[:auctions]
    return frame[frame.index.get_level_values("auction").isin(drawn)]
