"""The utility benchmark on real calls, cut short: that it runs and prints what it says."""

from __future__ import annotations

import json

import pysam
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


def test_a_deletion_without_bases_overwrites_none(tmp_path):
    """A truth set's `N <DEL>` reaches over other calls' places, and says nothing of their bases."""
    text = (
        "##fileformat=VCFv4.2\n##contig=<ID=z,length=5000>\n##INFO=<ID=END,Number=1,Type=Integer,Description=x>\n"
        '##ALT=<ID=DEL,Description="x">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
    )
    calls, truth = tmp_path / "calls.vcf", tmp_path / "truth.vcf"
    calls.write_text(text + "z\t10\t.\tAC\tA\t9\t.\t.\nz\t50\t.\tG\tT\t9\t.\t.\n")
    truth.write_text(text + "z\t10\t.\tN\t<DEL>\t9\t.\tEND=60\n")
    reference = utility.scaffold([calls, truth], tmp_path)
    with pysam.FastaFile(str(reference)) as file:
        bases = file.fetch("z")
    assert (bases[9:11], bases[49], set(bases[11:49])) == ("AC", "G", {"N"})
    assert len(bases) > 1000
