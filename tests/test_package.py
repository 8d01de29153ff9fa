"""The package as a whole: what an import does, which names are public, and which room may import which."""

import ast
import importlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import walras

PUBLIC = {
    "walras": ["WalrasError", "__version__"],
    "walras.calibrate": [
        "CalibrationError",
        "NUTS",
        "Prior",
        "Problem",
        "TradingDays",
        "check",
        "compare",
        "fit",
        "forecast",
        "load",
        "posterior_predictive",
        "prior_predictive",
        "report",
        "save",
    ],
    "walras.model": [
        "AffineEquilibrium",
        "Agents",
        "Barrier",
        "ClosedForm",
        "Diffusion",
        "DoubleWell",
        "EquilibriumError",
        "LinearDemand",
        "PathEquilibrium",
        "PriceFormation",
        "Quadratic",
        "RandomSupply",
        "StationaryEquilibrium",
        "StationaryMarket",
        "Status",
        "VanishingNoise",
        "density",
        "expected_costs",
        "plot_costs",
        "plot_density",
        "plot_paths",
        "plot_price",
        "sample_paths",
        "verify",
    ],
    "walras.data": ["DataError", "catalogue", "days", "describe", "elapsed", "load", "read", "standard"],
}

FORBIDDEN = {
    "model": {"walras.data", "walras.calibrate", "numpyro", "arviz", "pandas"},
    "data": {"walras.model", "walras.calibrate", "jax", "numpyro", "arviz"},
}

# `import walras` may take this many times as long as `import jax`. It takes about a hundredth, so that the medians of
# three runs each cannot cross by noise.
IMPORT_TIME_RATIO = 1.5
IMPORT_RUNS = 3

IMPORT_ALL = """
import importlib, pkgutil
def import_all(package):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        importlib.import_module(module.name)
"""


def fresh(code: str) -> str:
    """What `code` prints in a new process that has imported nothing."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def room(name: str) -> Path:
    """The folder of walras.<name>, behind the symlink of an editable install."""
    return (Path(walras.__file__).parent / name).resolve()


def imports(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Every import in a folder's files, inside functions too: the file, the name imported, the level of relativity."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name, 0) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((path.name, f"{node.module or ''}.{alias.name}", node.level) for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_importing_walras_imports_no_jax():
    code = "import sys, walras; print(sorted({'jax', 'numpy', 'pandas', 'walras.model'} & set(sys.modules)))"
    assert fresh(code) == "[]"


def test_importing_every_module_makes_no_array_and_changes_no_configuration():
    code = f"""
{IMPORT_ALL}
import jax
before = dict(jax.config.values)
import_all("walras")
print(jax.live_arrays(), {{name for name, value in jax.config.values.items() if before.get(name, value) != value}})
"""
    assert fresh(code) == "[] set()"


def test_importing_walras_is_no_slower_than_importing_jax():
    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    times: dict[str, list[float]] = {"jax": [], "walras": []}
    for _ in range(IMPORT_RUNS):
        for name, taken in times.items():
            taken.append(float(fresh(code.format(name))))
    assert statistics.median(times["walras"]) <= IMPORT_TIME_RATIO * statistics.median(times["jax"])


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_importable(module: str):
    found = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_rooms_load_only_what_they_may(name: str):
    code = f"{IMPORT_ALL}\nimport_all('walras.{name}')\nimport sys\nprint(*sys.modules)"
    loaded = fresh(code).split()
    assert f"walras.{name}" in loaded
    assert [module for module in loaded if within(module, FORBIDDEN[name])] == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_rooms_name_only_what_they_may(name: str):
    found = list(imports(room(name)))
    assert found
    assert [entry for entry in found if within(entry[1], FORBIDDEN[name])] == []


@pytest.mark.parametrize("name", ["model", "calibrate", "data"])
def test_no_import_is_relative(name: str):
    assert [entry for entry in imports(room(name)) if entry[2]] == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import walras.data as d", True),
        ("from walras import data", True),
        ("from walras.data.times import elapsed", True),
        ("def f():\n    import pandas", True),
        ("from walras.database import x", False),
        ("import pandas_like", False),
    ],
)
def test_forbidden_imports_are_recognised(tmp_path: Path, statement: str, expected: bool):
    (tmp_path / "module.py").write_text(statement, encoding="utf-8")
    assert any(within(name, FORBIDDEN["model"]) for _, name, _ in imports(tmp_path)) == expected


def test_arviz_may_be_imported_before():
    """It leaves a NumPyro that is loaded late, whose parts were missing where they were imported first."""
    code = "import arviz, walras.calibrate, numpyro; numpyro.distributions.distribution.Unit"
    subprocess.run([sys.executable, "-c", code], check=True)
