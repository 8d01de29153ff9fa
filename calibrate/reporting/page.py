"""The pages of reports: what each section says, filled into fit.html and story.html."""

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from walras.calibrate.checks.checking import Report, check
from walras.calibrate.errors import CalibrationError
from walras.calibrate.predictions.predictive import predictive_statistics
from walras.calibrate.problem import Problem
from walras.calibrate.reporting import contents, plots, tables
from walras.calibrate.reporting.comparisons import plot_comparison
from walras.calibrate.reporting.numbers import listed, number, percent
from walras.calibrate.reporting.style import without_screen

_DPI = 130
_LONG = 400  # rows beyond which the last ones are shown once more
_LAST = 200


def render(problem: Problem, tree: xr.DataTree, comparison, story: Sequence[Sequence[Any]], findings=()) -> str:
    """The page as HTML."""
    with without_screen():
        prior = contents.prior_draws(problem, tree)
        judged = check(problem, tree)
        context = {
            **_headline(problem, judged),
            "notes": json.loads(tree.attrs.get("notes", "[]")),
            "story": [_story_section(section) for section in (*story, *problem.observation.story(problem, tree))],
            "steps": [_story_section(section, close=True) for found in findings for section in found.story()],
            "fit": _fit(problem, tree),
            "paths": _paths(problem, tree),
            "priors": _priors(problem, tree, prior),
            "predictive": _predictive(problem, tree),
            "derived": tables.derived(tree, contents.derived(problem, tree)),
            "scores": _scores(comparison),
            "parameters": tables.parameters(problem, tree, prior),
            "parameter_columns": tables.PARAMETER_COLUMNS,
            "fixed": tables.fixed(problem),
            "checks": tables.checks(judged),
            "chains": _chains(problem, tree),
            "provenance": _provenance(problem),
            "run": _run(tree),
            "specification": json.dumps(json.loads(tree.attrs["problem"]), indent=2, ensure_ascii=False),
        }
    return _filled("fit.html", context)


def render_story(title: str, lead: str, story: Sequence[Sequence[Any]]) -> str:
    """A page of sections alone, as HTML."""
    with without_screen():
        return _filled(
            "story.html", {"title": title, "lead": lead, "story": [_story_section(section, close=True) for section in story]}
        )


def _filled(template: str, context: dict[str, Any]) -> str:
    here = PackageLoader("walras.calibrate", "reporting")
    return (
        Environment(loader=here, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(template).render(context)
    )


def _embed(figure: Figure, says: str, close: bool = True) -> dict[str, str]:
    """A figure as the source of an image, with the words that stand for it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    if close:
        plt.close(figure)
    return {"source": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), "says": says}


def _headline(problem: Problem, judged: Report) -> dict[str, Any]:
    attrs, registered = problem.data.attrs, problem.registered
    asking = [found for found in judged.checks if found.verdict != "pass"]
    return {
        "data_name": str(attrs.get("name", "data")),
        "market": problem.to_json()["market"],
        "summary": registered.summary if registered else "",
        "observation": type(problem.observation).__name__,
        "target": contents.target(problem),
        "rows": number(len(problem.data)),
        "verdict": judged.verdict,
        "asking": [{"name": c.name, "remedy": c.remedy, "verdict": c.verdict} for c in asking],
        "judged": len(judged.checks),
        "misspecification": judged.misspecification,
    }


def _story_section(section: Sequence[Any], close: bool = False) -> dict[str, Any]:
    if not 2 <= len(section) <= 3:
        raise CalibrationError(f"story has a section of {len(section)} parts: give (heading, body) or (heading, body, figure)")
    heading, body, figure = (*section, None)[:3]
    blocks = body if isinstance(body, list | tuple) else [body]
    image = None if figure is None else _embed(figure, str(heading), close=close)
    return {"heading": heading, "blocks": [part for block in blocks for part in _story_block(block)], "image": image}


def _story_block(block) -> list[dict[str, Any]]:
    if isinstance(block, pd.DataFrame):
        return [{"table": tables.from_frame(block)}]
    if isinstance(block, Markup):
        return [{"html": block}]
    return [{"text": paragraph} for paragraph in str(block).split("\n\n") if paragraph.strip()]


def _fit(problem: Problem, tree: xr.DataTree) -> dict[str, Any]:
    name = contents.target(problem)
    if name not in tree["observed_data"]:
        return {"images": [], "inside": {}}
    shown = {f"{name} and its one-step-ahead bands": slice(None)}
    if len(problem.data) > _LONG:
        shown[f"the last {_LAST} rows"] = slice(-_LAST, None)
    images = []
    for says, rows in shown.items():
        figure, ax = plt.subplots(figsize=(plots.WIDTH, 3.6))
        plots.plot_fit(problem, tree, ax, rows)
        images.append(_embed(figure, says))
    inside = {f"{100 * p:.0f} %": percent(share) for p, share in contents.coverage(tree, name).items()}
    return {"images": images, "inside": inside}


def _paths(problem: Problem, tree: xr.DataTree) -> list[dict[str, str]]:
    return [_embed(plots.plot_path(problem, tree, name), name) for name in contents.paths(problem, tree)]


def _priors(problem: Problem, tree: xr.DataTree, prior: xr.Dataset) -> dict[str, Any]:
    images = []
    if contents.short(problem, tree) and contents.several(tree):
        images.append(_embed(plots.plot_prior_posterior(problem, tree), "prior and posterior of each parameter"))
    long = [name for name in problem.sampled if name not in contents.short(problem, tree)]
    images += [_embed(plots.plot_long_vector(problem, tree, n), f"prior and posterior of {n}") for n in long]
    silent = contents.unmoved(problem, tree, prior)
    return {"images": images, "silent": listed(silent) if silent else ""}


def _predictive(problem: Problem, tree: xr.DataTree) -> dict[str, Any]:
    names = contents.replicated(tree)
    odd = [
        f"the {statistic} of {name} (p {'<' if p < 0.5 else '>'} {0.01 if p < 0.5 else 0.99})"
        for name in names
        for statistic, p in contents.replication_p(tree, name).items()
        if not 0.01 <= p <= 0.99
    ]
    whole = predictive_statistics(problem, tree)
    odd += [f"the {name}" for name, row in whole.iterrows() if not 0.01 <= row["p"] <= 0.99]
    series = [{"name": n, "image": _embed(plots.plot_replications(tree, n), f"simulated and observed {n}")} for n in names]
    errors = None
    if contents.target(problem) in tree["observed_data"]:
        errors = _embed(plots.plot_forecast_errors(tree), "one-step-ahead errors")
    table = tables.from_frame(whole.rename_axis("statistic")) if len(whole) else None
    return {"series": series, "odd": listed(odd) if odd else "", "whole": table, "errors": errors}


def _scores(comparison) -> dict[str, Any] | None:
    if comparison is None:
        return None
    several = hasattr(comparison, "horizons") and comparison.horizons.index.get_level_values("horizon").max() > 1
    return {
        "table": tables.from_frame(comparison.table),
        "text": getattr(comparison, "text", ""),
        "horizons": tables.from_frame(comparison.horizons) if several else None,
        "image": _embed(plot_comparison(comparison), "scores beside naive forecasts")
        if hasattr(comparison, "pointwise")
        else None,
    }


def _chains(problem: Problem, tree: xr.DataTree) -> dict[str, Any] | None:
    if not contents.short(problem, tree) or not contents.several(tree):
        return None
    images = [_embed(plots.plot_traces(problem, tree), "traces of the chains")]
    if tree["posterior"].sizes["chain"] > 1:
        images.append(_embed(plots.plot_ranks(problem, tree), "ranks of the chains' draws"))
    diverging = tree["sample_stats"].get("diverging")
    return {"images": images, "divergences": 0 if diverging is None else int(np.sum(diverging.to_numpy()))}


def _provenance(problem: Problem) -> dict[str, Any]:
    described = ("source", "licence", "notes", "form", "time_unit", "period")
    attrs = problem.data.attrs
    facts = [(name.replace("_", " "), str(attrs[name])) for name in described if attrs.get(name) not in (None, "")]
    return {"facts": facts, "columns": tables.columns(problem)}


def _run(tree: xr.DataTree) -> list[tuple[str, str]]:
    """How the run came about, from the attributes that every fit records."""
    attrs, posterior = tree.attrs, tree["posterior"]
    sampler = json.loads(attrs.get("sampler", "{}"))
    packages = json.loads(attrs.get("versions", "{}"))
    seconds = [f"{float(attrs[k]):.1f} s {what}" for k, what in _TIMINGS if k in attrs]
    facts = [
        ("draws", f"{posterior.sizes['chain']} chains × {number(int(posterior.sizes['draw']))} draws"),
        ("sampler", ", ".join((sampler.pop("kind", ""), *(f"{name} {value}" for name, value in sampler.items())))),
        *((name.replace("_", " "), number(float(attrs[name]), 4)) for name in _FACTS if name in attrs),
        ("key", attrs.get("key", "")),
        ("time", ", ".join(seconds)),
        ("versions", ", ".join(f"{name} {value}" for name, value in packages.items())),
        ("digest", attrs["digest"]),
        ("gradient evaluations a draw", _steps(tree)),
    ]
    return [(name, value) for name, value in facts if value]


_FACTS = ("starts", "starts_agreeing", "pareto_k", "elbo", "log_evidence")  # of samplers other than NUTS
_TIMINGS = (("compile_seconds", "to compile"), ("sample_seconds", "to sample"))


def _steps(tree: xr.DataTree) -> str:
    statistics = tree["sample_stats"]
    return number(float(np.mean(statistics["n_steps"].to_numpy()))) if "n_steps" in statistics else ""
