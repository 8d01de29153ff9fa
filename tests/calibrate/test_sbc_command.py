"""`walras sbc` on a sampler that starts far away and is not given the time to arrive."""

import numpy as np
import pytest

from walras.calibrate import SBC

SPEC = """
seed = 3
[data]
path = "prices.csv"
columns = {time = "day", price = "p", supply = "q"}
[market]
name = "price_formation"
[sampler]
chains = 1
warmup = 5
draws = 45
chunk = 50
init = {price_level = 300.0}
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{day},{2.0 + 0.3 * rng.normal():.4f},{10.0 + rng.normal():.4f}" for day in range(20)]
    (tmp_path / "prices.csv").write_text("\n".join(["day,p,q", *lines]) + "\n")
    (tmp_path / "spec.toml").write_text(SPEC)
    return tmp_path


def test_a_wrong_sampler_exits_with_1(folder, walras):
    """Twelve ranks of zero out of eighty have no chance of being uniform. A run that is complete is told again."""
    out = folder / "out"
    arguments = ("sbc", folder / "spec.toml", "--out", out, "--replications", 12, "--rows", 12)
    code, said = walras(*arguments)
    assert code == 1 and "price_level: draws are too high" in said
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "sbc.json"]
    assert "price_level" in SBC.load(out).rejected and "too high" in (out / "report.html").read_text()
    assert walras(*arguments)[0] == 2
    code, again = walras(*arguments, "--resume")
    assert code == 1 and "price_level: draws are too high" in again


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--rows", 1), "rows is 1"), (("--scheduler", "local", "--workers", 0), "workers is 0"), (("--replications", 3), "is 3")],
)
def test_bad_options(folder, walras, options, words):
    code, said = walras("sbc", folder / "spec.toml", "--out", folder / "out", *options)
    assert code == 2 and words in said
    assert not any((folder / "out").glob("*.json"))
