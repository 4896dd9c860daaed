"""The utility benchmark on real calls, cut short: that it runs and prints what it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import utility
from conftest import SHARED

pytestmark = pytest.mark.stress

SHORT = [
    "--epsilons",
    "3",
    "--sites",
    "2",
    "--units",
    "variant",
    "--set",
    "rounds=1",
    "--set",
    "local_steps=1",
]


def test_a_short_run_prints_every_way_with_its_cost():
    folder = SHARED / "na12878_chr1_calls"
    if not folder.exists():
        pytest.skip(f"real data are not on this machine ({folder})")
    words = ["--calls", f"other={folder}/unified_genotyper.vcf.gz", "--sample", "NA12878", "--json"]
    words += ["--truth", str(folder / "NA12878.subset.vcf.gz"), *SHORT]
    run = CliRunner().invoke(utility.main, words, catch_exceptions=False)
    assert run.exit_code == 0
    rows = json.loads(run.stdout)
    ways = [row["way"] for row in rows]
    assert len(ways) == len({json.dumps(row, sort_keys=True) for row in rows}) >= 6
    assert any("Laplace" in way for way in ways)
    assert any("adaptive" in way for way in ways)
    for row in rows:
        assert 0.3 < row["auroc"] < 1
        if row["epsilon"] is not None:
            assert row["unit"] == "variant"
            assert row["delta"] == 1e-5
            assert "Poisson-sampled" in row["mechanism"]
            assert row["adjacency"] == "add or remove one unit"
    pooled = next(row["auroc"] for row in rows if "no noise" in row["way"])
    assert pooled > 0.975
