"""The report of a toy family, an auction house whose rows have no time, on its page and in its pictures."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import ClassVar

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from markupsafe import Markup
from numpyro import handlers

from walras.calibrate import (
    NUTS,
    CalibrationError,
    IndependentRows,
    Observation,
    Parameter,
    Prior,
    Problem,
    check,
    fit,
    posterior_predictive,
    prior_predictive,
)
from walras.calibrate.reporting import contents, plots, report
from walras.calibrate.reporting.numbers import listed, number, tick
from walras.model import Status

ROWS, HOUSES = 60, 25
HOSTILE = "<script>alert('$x_{')</script>"  # markup for a browser, and mathematics that matplotlib cannot parse


@dataclass(frozen=True, kw_only=True)
class Bids(Observation):
    """Bids around a markup on the size of the lot, with an effect for each house."""

    size: str = HOSTILE
    targets: ClassVar[tuple[str, ...]] = ("bid",)

    def observed(self, frame):
        return frame[["bid"]].to_numpy()

    def inputs(self, frame):
        return {"size": frame[self.size].to_numpy(), "house": frame["house"].to_numpy().astype(int)}

    def parameters(self, frame):
        houses = Prior("Normal", [0.0] * HOUSES, [0.3] * HOUSES, unit="USD", why="houses differ by a few tenths")
        return {"house": Parameter(houses), "spread": Parameter(Prior("LogNormal", 0.0, 1.5, why="within a factor of 20"))}

    def dimensions(self):
        return {"house": ["house_name"]}

    def law(self, equilibrium, params, inputs):
        return IndependentRows(dist.Normal(equilibrium.bid + params["house"][inputs["house"]], params["spread"]))

    def quantities(self, equilibrium, params, inputs):
        return {"relative_markup": params["markup"] / params["spread"]}

    def notes(self, frame):
        return [f"Sizes are in the column {self.size}."]


def house_market(params, inputs):
    return SimpleNamespace(bid=params["markup"] * inputs["size"], status=Status.solved)


def bids(index=None):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({HOSTILE: rng.uniform(1, 2, ROWS), "house": np.arange(ROWS) % HOUSES})
    frame["bid"] = 2.0 * frame[HOSTILE] + 0.3 * rng.standard_normal(ROWS)
    frame.loc[3, "bid"] = np.nan
    frame.index = pd.RangeIndex(ROWS, name="auction") if index is None else index
    frame.attrs = {"name": "house & sons", "units": {"bid": "USD"}, "source": "simulated"}
    return frame


MARKUP = Prior("Normal", 0.0, 5.0, unit="USD", why="bids are a few times the size")
SAMPLER = NUTS(chains=2, warmup=100, draws=100, dense_mass=False, init="uniform")


@pytest.fixture(scope="module")
def fitted():
    problem = Problem(house_market, bids(), Bids(), {"markup": MARKUP})
    return problem, fit(problem, SAMPLER, key=jax.random.key(0))


@pytest.fixture(scope="module")
def complete(fitted):
    """The fit with simulated series and prior draws."""
    problem, tree = fitted
    tree = posterior_predictive(problem, tree, key=jax.random.key(1), draws=50)
    tree["prior"] = prior_predictive(problem, key=jax.random.key(2), draws=100)["prior"]
    return problem, tree


@pytest.fixture(scope="module")
def page(complete, tmp_path_factory):
    """The text of a report with everything in it."""
    table = pd.DataFrame({"score": [1.5, np.nan], "best": [True, False]}, index=["<i>ours</i>", "theirs"])
    story_figure = plt.figure()
    story = [
        ("What was found", ["Bids <rise>.\n\nA second paragraph.", Markup("<em>strongly</em>"), table]),
        ("Beside it", "A picture.", story_figure),
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    before = plt.get_fignums()
    assert report(*complete, path, comparison=SimpleNamespace(table=table, text="Ours is best."), story=story) == path
    assert plt.get_fignums() == before
    plt.close(story_figure)
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


class _Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_from_outside(page):
    links = [attrs[name] for _, attrs in _Tags(page).tags for name in ("src", "href") if name in attrs]
    assert links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\(|@import", page)
    assert len(page) < 3e6


def test_every_link_within_the_page_has_its_section(page):
    tags = _Tags(page).tags
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a"} <= ids


def test_the_page_tells_parameters_priors_verdict_and_remedies(page, complete):
    problem, tree = complete
    text = _Tags(page).text
    for name in [*problem.sampled, "relative_markup"]:
        assert name in text
    for reason in (MARKUP.why, "houses differ by a few tenths", "within a factor of 20"):
        assert reason in text
    judged = check(problem, tree)
    assert ("span", {"class": f"verdict {judged.verdict}"}) in _Tags(page).tags
    assert judged.verdict != "pass"  # so few draws must be remarked upon
    for found in judged.checks:
        assert found.name in text
        assert found.verdict == "pass" or found.remedy in text
    assert problem.digest in text and "simulated" in text and "house & sons" in text


def test_the_story_and_the_comparison_are_told(page):
    text = _Tags(page).text
    for words in ("What was found", "Bids <rise>.", "A second paragraph.", "Ours is best.", "<i>ours</i>", "A picture."):
        assert words in text
    assert "<em>strongly</em>" in page


def test_names_from_outside_are_escaped(page):
    assert HOSTILE in _Tags(page).text
    assert "<script" not in page and "<i>" not in page and "<rise>" not in page


def test_a_run_without_prior_and_simulations_is_reported(fitted, tmp_path):
    path = report(*fitted, tmp_path / "plain.html")
    assert "posterior_predictive" in path.read_text(encoding="utf-8")
    assert plt.get_fignums() == []


def test_priors_given_as_a_function_are_drawn(fitted):
    problem, tree = fitted

    def priors():
        markup = numpyro.sample("markup", dist.Normal(0.0, 5.0))
        with numpyro.plate("houses", HOUSES):
            house = numpyro.sample("house", dist.Normal(0.0, 0.3))
        return {"markup": markup, "house": house, "spread": numpyro.sample("spread", dist.LogNormal(0.0, 1.5))}

    joint = Problem(house_market, problem.data, Bids(), priors)
    drawn = contents.prior_draws(joint, tree)
    assert drawn["house"].dims == ("chain", "draw", "house_name")
    # 2000 draws of a normal with sd 5: its sample sd is within 10 % of it but for one time in 10⁹
    assert float(drawn["markup"].std()) == pytest.approx(5.0, rel=0.1)


def test_rows_with_two_names_are_drawn_in_their_order(fitted):
    pairs = pd.MultiIndex.from_arrays([np.arange(ROWS) // 2, np.arange(ROWS) % 2], names=["auction", "bidder"])
    problem = Problem(house_market, bids(pairs), Bids(), {"markup": MARKUP})
    ax = plots.plot_fit(problem, fitted[1])
    assert ax.get_xlabel() == "auction × bidder"
    assert ax.get_ylabel() == "bid (USD)"
    plt.close(ax.figure)


def test_a_path_over_the_rows_lies_over_its_column_and_one_on_a_grid_above_it(fitted):
    problem, tree = fitted
    steps = np.random.default_rng(0).standard_normal((2, 100, 30))
    tree = tree.copy()
    tree["posterior"] = (
        tree["posterior"]
        .to_dataset()
        .assign(bid_path=tree["one_step_ahead"]["simulated"], bid_on_grid=(("chain", "draw", "grid"), steps))
    )
    assert contents.paths(problem, tree) == ["bid_path", "bid_on_grid"]
    assert contents.derived(problem, tree) == ["relative_markup"]
    for name, panels in (("bid_path", 1), ("bid_on_grid", 2)):
        figure = plots.plot_path(problem, tree, name)
        assert len(figure.axes) == panels
        plt.close(figure)


def test_an_observed_path_is_no_reconstruction(fitted):
    problem, tree = fitted
    exact = xr.ones_like(tree["one_step_ahead"]["simulated"])
    tree = tree.copy()
    tree["posterior"] = tree["posterior"].to_dataset().assign(bid_path=exact)
    assert contents.paths(problem, tree) == []


def test_characters_without_a_glyph_do_not_warn(complete, tmp_path):
    figure, ax = plt.subplots()
    ax.set_title("魚の値段")
    report(*complete, tmp_path / "report.html", story=[("魚の値段", "Fish.", figure)])
    plt.close(figure)


@pytest.mark.parametrize(("shift", "agree"), [(0.0, True), (1.0, False)])
def test_chains_that_agree_stay_in_the_band_and_others_leave_it(fitted, shift, agree):
    # the band holds by chance in 99 of 100 panels: the draws are fixed, so that this test does not depend on it
    problem, tree = fitted
    draws = np.random.default_rng(0).standard_normal((2, 100))
    draws[1] += shift
    tree = tree.copy()
    tree["posterior"] = tree["posterior"].to_dataset().assign(markup=(("chain", "draw"), draws))
    figure = plots.plot_ranks(problem, tree)
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left") == "markup")
    limit = plots._rank_limits(contents.posterior(tree)[["markup"]])["markup"].item()
    assert agree == all(np.abs(line.get_ydata()).max() < limit for line in ax.lines)
    plt.close(figure)


def test_bands_end_where_the_calendar_has_a_gap():
    days = pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-20"])
    places = contents.positions(days, 4)
    x, low, _ = plots._steps(places, np.arange(4.0), np.arange(4.0) + 1)
    drawn = x[np.isfinite(low)]
    assert drawn.max() == np.datetime64("2024-01-20T12")
    assert not ((drawn > np.datetime64("2024-01-03T12")) & (drawn < np.datetime64("2024-01-19T12"))).any()
    assert np.isnan(low).sum() == 2  # after the third day and after the last


@pytest.mark.statistical
def test_a_band_holds_its_share_of_the_mixture(fitted):
    """On average over rows within five standard errors, if rows were independent: a false alarm in 1e-6 of keys."""
    problem, tree = fitted
    draws = tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"]
    latent = {name: tree["posterior"][name].to_numpy() for name in problem.latent}
    values = {name: array.reshape(draws, *array.shape[2:]) for name, array in latent.items()}

    def ahead(values, key):
        law = handlers.seed(handlers.substitute(lambda: problem.forward(problem.inputs)[2], values), key)()
        return law.one_step_ahead(problem.observed).sample(key)

    simulated = np.asarray(jax.jit(jax.vmap(ahead))(values, jax.random.split(jax.random.key(1), draws)))
    low, high = contents.bands(tree)[0.9]
    share = np.mean((low < simulated) & (simulated < high))
    # Both the band's ends and the share are found from as many draws.
    assert share == pytest.approx(0.9, abs=5 * np.sqrt(2 * 0.9 * 0.1 / (draws * ROWS)))


def test_statistics_that_never_vary_are_drawn():
    """Of two rows every replication has the same lag-1 autocorrelation."""
    replicated = np.random.default_rng(0).standard_normal((2, 50, 2))
    tree = xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset({"bid": (("chain", "draw", "row"), replicated)}),
            "observed_data": xr.Dataset({"bid": ("row", [0.1, 0.4])}),
        }
    )
    figure = plots.plot_replications(tree, "bid")
    figure.canvas.draw()
    plt.close(figure)


def test_statistics_of_series_agree_with_numpy():
    series = np.random.default_rng(0).standard_normal(50).cumsum()
    found = contents.statistics(series)
    assert found["standard deviation"] == pytest.approx(series.std())
    assert 0.5 < found["lag-1 autocorrelation"] < 1.0
    assert np.isnan(contents.statistics(np.ones(5))["lag-1 autocorrelation"])


def test_data_that_send_a_share_towards_zero_are_not_said_to_be_silent():
    # In logarithms what is left is as long as the prior; as a share it is a seventh of it. And the other way round.
    rng = np.random.default_rng(0)
    uniform = rng.uniform(0.05, 0.95, 4000)
    draws = {
        "share": (uniform, rng.uniform(0.0, 0.13, 4000)),
        "scale": (np.exp(rng.normal(0, 3, 4000)), np.exp(rng.normal(5, 0.3, 4000))),
        "nothing new": (uniform, rng.uniform(0.05, 0.95, 4000)),
    }
    prior, after = (xr.Dataset({name: (("chain", "draw"), pair[i][None]) for name, pair in draws.items()}) for i in range(2))
    tree = xr.DataTree.from_dict({"posterior": after})
    assert contents.unmoved(SimpleNamespace(sampled=list(draws)), tree, prior) == ["nothing new"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (-0.04688, "−0.0469"),
        (2.756e-5, "2.76×10⁻⁵"),
        (1e9, "1.00×10⁹"),
        (4127.3, "4,130"),
        (0.9996, "1.00"),
        (999.6, "1,000"),
        (0.0, "0"),
        (float("nan"), "–"),
        (-float("inf"), "−∞"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_ticks_and_lists_are_short():
    assert [tick(v) for v in (0.5, 1e-5, 2000.0)] == ["0.5", "10⁻⁵", "2,000"]
    assert [listed(v) for v in ([], ["a"], ["a", "b", "c"])] == ["none", "a", "a, b and c"]


def test_a_folder_that_does_not_exist_is_refused_with_a_remedy(fitted, tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot be written .* choose another folder"):
        report(*fitted, tmp_path / "absent" / "report.html")


def test_what_is_not_a_file_is_left_as_it_is(fitted, tmp_path):
    with pytest.raises(CalibrationError, match="is not a file"):
        report(*fitted, tmp_path)


def test_another_problem_is_refused(fitted, tmp_path):
    problem, tree = fitted
    other = Problem(house_market, problem.data, Bids(), {"markup": Prior("Normal", 0.0, 1.0)})
    with pytest.raises(CalibrationError, match="another problem"):
        report(other, tree, tmp_path / "report.html")


def test_nothing_is_left_behind_when_the_story_is_wrong(fitted, tmp_path):
    with pytest.raises(CalibrationError, match="story"):
        report(*fitted, tmp_path / "report.html", story=[("only a heading",)])
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == []
