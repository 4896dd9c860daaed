"""MultiQC shows callers' and the federation's figures as they are, and no more than may be told."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from conftest import ROOT
from cordon.calls.normalise import Summary, write_statistics
from cordon.genome.samtools import index
from cordon.reads.duplicates import Duplicates
from report_lab import BESIDE, OVER, certificate, evaluation, federation

MULTIQC = Path(sys.executable).with_name("multiqc")


def content(folder: Path, *summaries: Path, **given: Any) -> Result:
    """Run bin/multiqc_content.py with the files' contents; what it writes is in ``folder``/content."""
    arguments = [str(path) for path in summaries]
    for name, value in given.items():
        path = folder / f"{name}.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        arguments += [f"--{name}", str(path)]
    command = runpy.run_path(str(ROOT / "bin" / "multiqc_content.py"))["main"]
    return CliRunner().invoke(command, [*arguments, "--outdir", str(folder / "content")])


def sections(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name.removeprefix("cordon_").removesuffix("_mqc.json"): json.loads(path.read_text())
        for path in (folder / "content").glob("*_mqc.json")
    }


def summary(folder: Path, name: str, **counts: int) -> Path:
    path = folder / f"{name}.summary.json"
    Summary(**counts).write(path)
    return path


def test_callers_counts_stand_by_sample_and_caller(tmp_path):
    one = summary(tmp_path, "p1.bcftools", records=9, kept=7, not_carried=2)
    other = summary(tmp_path, "p1.haplotypecaller", records=5, kept=4, symbolic=1)
    assert content(tmp_path, one, other).exit_code == 0
    shown = sections(tmp_path)
    assert set(shown) == {"normalisation"}
    data = shown["normalisation"]["data"]
    assert data["p1.bcftools"]["kept"] == 7
    assert data["p1.bcftools"]["not in the sample's genotype"] == 2
    assert data["p1.haplotypecaller"] == {
        "kept": 4, "not in the sample's genotype": 0, "there already": 0, "spanning deletion": 0,
        "symbolic": 1, "other letters than ACGTN": 0,
    }  # fmt: skip


def test_every_epsilon_has_unit_delta_mechanism_and_adjacency_beside_it(tmp_path):
    assert content(tmp_path, federation=federation()).exit_code == 0
    shown = sections(tmp_path)
    assert set(shown) == {"sites", "epsilon", "rounds", "decisions"}
    for name in ("sites", "epsilon", "decisions"):
        assert BESIDE in shown[name]["description"].replace("\xa0", " ")
    assert shown["sites"]["data"]["north"] == {
        "Status": "finished", "Declared patients": 40, "Weight": 0.25, "Epsilon by RDP": 3.38,
        "Epsilon by PLD": 3.13, "Scope": "all runs in the ledger", "Delta": "1e-05", "Unit": "patient",
        "Mechanism": "Poisson-sampled Gaussian", "Adjacency": "add or remove one unit",
    }  # fmt: skip
    assert shown["epsilon"]["data"]["north"] == [[1, 2.13], [2, 3.38]]
    assert shown["epsilon"]["pconfig"]["y_lines"][0]["value"] == 4.0


def test_no_epsilon_is_shown_as_less_than_it_is_and_each_has_its_own_mechanism_and_scope(tmp_path):
    record = federation()
    record["sites"][0] |= {"epsilon_rdp": 8.0049, "epsilon_pld": 0.0012301}
    record["sites"][0]["mechanism"] = "Poisson-sampled Gaussian and Poisson-sampled Laplace"
    assert content(tmp_path, federation=record).exit_code == 0
    sites = sections(tmp_path)["sites"]
    shown = sites["data"]["north"]
    told = [sites["headers"][name]["format"].format(shown[name]) for name in shown if "Epsilon" in name]
    assert told == ["8.01", "0.00124"]
    assert shown["Mechanism"] == "Poisson-sampled Gaussian and Poisson-sampled Laplace"
    assert sites["data"]["south"]["Mechanism"] == "Poisson-sampled Gaussian"
    assert "scope: all runs in the ledger" in sites["description"]


def test_rounds_and_quarantines_are_told_with_their_reasons(tmp_path):
    assert content(tmp_path, federation=federation()).exit_code == 0
    shown = sections(tmp_path)
    assert shown["rounds"]["data"]["round 1"] == {
        "Accepted": 3, "Quarantined": 1, "Missing": 0, "Bytes": 4 * 1234, "Seconds": 6.1
    }  # fmt: skip
    assert shown["rounds"]["data"]["round 2"]["Missing"] == 1
    assert shown["decisions"]["data"]["rogue, 1"] == {"Decision": "quarantined", "Reason": OVER}


def test_accuracy_and_audit_are_told_without_the_names_of_samples_and_without_private_figures(tmp_path):
    certified = certificate()
    assert content(tmp_path, evaluation=evaluation(), certificate=certified).exit_code == 0
    shown = sections(tmp_path)
    assert set(shown) == {"scores", "filters", "audit"}
    assert shown["scores"]["data"]["Cordon"]["AUROC"] == 0.961234
    assert shown["filters"]["data"]["Cordon"]["Real alleles kept"] == 1722
    assert "without noise" in shown["scores"]["description"]
    assert set(shown["audit"]["headers"]) == {"Question", "Result"}
    assert {name: row["Result"] for name, row in shown["audit"]["data"].items()} == {
        "claims": "passed", "membership": "not able to refute"
    }  # fmt: skip
    assert "secret-sample-name" not in json.dumps(shown)


def test_a_file_that_is_no_summary_is_named(tmp_path):
    (tmp_path / "x.summary.json").write_text('{"records": 1}')
    result = content(tmp_path, tmp_path / "x.summary.json")
    assert result.exit_code == 2
    assert "x.summary.json: lacks kept, not_carried" in result.output


def test_statistics_of_calls_are_bcftools_own(lab, tmp_path):
    """Three transitions, one transversion, one insertion."""
    sequence = lab.sequences["chr1"]
    transition = {"A": "G", "G": "A", "C": "T", "T": "C"}
    transversion = {"A": "C", "C": "A", "G": "T", "T": "G"}
    rows = [
        f"chr1 {at} {sequence[at - 1]} {transition[sequence[at - 1]]} 50 PASS . GT 0/1"
        for at in (100, 200, 300)
    ]
    rows.append(f"chr1 400 {sequence[399]} {transversion[sequence[399]]} 50 PASS . GT 0/1")
    rows.append(f"chr1 500 {sequence[499]} {sequence[499]}TT 50 PASS . GT 0/1")
    vcf = lab.vcf("calls.vcf.gz", rows)
    index(vcf)
    write_statistics(vcf, tmp_path / "p1.stats.txt")
    said = (tmp_path / "p1.stats.txt").read_text()
    assert "number of records:\t5\n" in said
    assert "number of indels:\t1\n" in said
    assert "TSTV\t0\t3\t1\t3.00" in said


@pytest.mark.stress
@pytest.mark.skipif(not MULTIQC.exists(), reason="MultiQC is not installed: `make setup`")
@pytest.mark.timeout(120)
def test_multiqc_itself_shows_them(lab, tmp_path):
    """The real MultiQC, strict, with the pipeline's configuration: every section and no complaint."""
    one = summary(tmp_path, "p1.bcftools", records=9, kept=7)
    done = content(
        tmp_path, one, federation=federation(), evaluation=evaluation(), certificate=certificate(),
        versions='"CORDON:CALL:BCFTOOLS_CALL":\n    bcftools: 1.24\n',
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    versions = yaml.safe_load((tmp_path / "content" / "cordon_mqc_versions.yml").read_text())
    assert versions == {"BCFTOOLS_CALL": {"bcftools": "1.24"}}
    row = f"chr1 100 {lab.sequences['chr1'][99]} N 50 PASS . GT 0/1"
    shutil.copy(lab.vcf("x.vcf.gz", [row]), tmp_path / "p1.bcftools.normalised.vcf.gz")
    write_statistics(
        tmp_path / "p1.bcftools.normalised.vcf.gz", tmp_path / "content" / "p1.bcftools.stats.txt"
    )
    run = subprocess.run(
        [str(MULTIQC), "--config", str(ROOT / "assets" / "multiqc_config.yml"), "--filename", "report.html",
         "--strict", "--no-ansi", "--data-dir", "content"],
        cwd=tmp_path, text=True, capture_output=True,
    )  # fmt: skip
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "LINT" not in said, said
    assert "MultiQC complete" in said
    for name in sections(tmp_path):
        assert f"cordon_{name}: Found" in said
    data = tmp_path / "report_data"
    spent = (data / "multiqc_cordon_epsilon_plot.txt").read_text()
    assert "north\t[1, 2.13]\t[2, 3.38]" in spent
    assert "p1.bcftools" in (data / "multiqc_bcftools_stats.txt").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "Gaussian mechanism" in page
    assert "secret-sample-name" not in page


def test_duplicates_stand_by_sample_and_absurd_rates_are_named(tmp_path):
    paths = []
    for name, marked in (("p1", 25), ("p2", 118)):
        paths.append(tmp_path / f"{name}.reads.json")
        Duplicates("marked", 120, marked).write(paths[-1], name)
    assert content(tmp_path, *paths, summary(tmp_path, "p1.bcftools", kept=7)).exit_code == 0
    shown = sections(tmp_path)
    assert set(shown) == {"normalisation", "duplicates"}
    rows = shown["duplicates"]["data"]
    assert rows["p1"]["rate"] == pytest.approx(100 * 25 / 120)
    assert rows["p2"].pop("rate") == pytest.approx(100 * 118 / 120)
    assert rows["p2"] == {"duplicates": 118, "reads": 120, "marking": "marked"}
    assert "More than half of the reads of p2 are" in shown["duplicates"]["description"]
