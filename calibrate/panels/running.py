"""Run directories of panels whose markets are fitted one by one."""

import json
from pathlib import Path

import xarray as xr

from walras.calibrate import registry
from walras.calibrate.panels.by_market import ByMarket, by_market
from walras.calibrate.panels.panel import Panel
from walras.calibrate.reporting import report_findings
from walras.calibrate.spec import Spec
from walras.calibrate.tree import save
from walras.calibrate.writing import write_whole


def write(folder: Path, spec: Spec, panel: Panel, tree: xr.DataTree) -> ByMarket:
    """Write spec.json, posterior.nc, summary.csv, checks.csv, check.json, by_market.json and report.html; what was found."""
    found = by_market(tree)
    record = {
        "spec": json.loads(spec.model_dump_json()),
        "problem": panel.to_json(),
        "digest": panel.digest,
        "versions": json.loads(tree.attrs["versions"]),
        "seed": spec.seed,
    }
    write_whole(folder / "spec.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    save(tree, folder / "posterior.nc")
    write_whole(folder / "summary.csv", found.summary.to_csv())
    write_whole(folder / "checks.csv", found.checks.to_csv())
    write_whole(folder / "check.json", json.dumps(_checks(found), indent=2) + "\n")
    found.save(folder)
    market = spec.market.name
    summary = registry.market(market).summary
    report_findings([found], folder / "report.html", title=f"A panel of {market}", lead=summary)
    return found


def _checks(found: ByMarket) -> dict:
    """The worst of every market, in the form of a single fit's check.json."""
    judged = found.checks
    failing = float((judged["verdict"] == "fail").mean())
    unfitted = len(found.failed) / (len(judged) + len(found.failed))
    return {
        "verdict": found.verdict,
        "r_hat": float(judged["r_hat"].max()),
        "ess_bulk": float(judged["ess_bulk"].min()),
        "divergences": int(judged["divergences"].sum()),
        "solver_failures": int(judged["solver_failures"].sum()),
        "checks": [
            {
                "name": "markets_failing",
                "verdict": "fail" if failing else "pass",
                "value": failing,
                "remedy": "the share of markets whose fits fail a check: checks.csv names them and the checks",
            },
            {
                "name": "markets_unfitted",
                "verdict": "fail" if unfitted else "pass",
                "value": unfitted,
                "remedy": "the share of markets that cannot be fitted: by_market.json says why, mend or drop their rows",
            },
        ],
    }
