"""The demo: a whole consortium, played once for all tests here, or taken as `make demo` left it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pysam import bcftools

from cordon import model as models
from cordon.tables import LABELLED, TRUTH_ALLELES_KEY, TRUTH_FOUND_KEY, read_table
from test_pipeline import check_scored_vcf, nextflow, real_options

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def demo() -> Path:
    """The demo's results; `make demo` is resumed, so only what is missing is computed."""
    run = subprocess.run(
        ["make", "demo"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert run.returncode == 0, run.stdout
    assert "Report: results/demo/report.html" in run.stdout
    return ROOT / "results" / "demo"


def test_the_demo_scores_every_patient_and_reports(demo):
    scored = sorted((demo / "scored").glob("*.scored.vcf.gz"))
    assert len(scored) == 24
    for path in scored:
        table = bcftools.query("-f", "%INFO/CORDON\t%FILTER\n", str(path)).splitlines()
        assert len(table) > 150
        assert {line.split("\t")[1] for line in table} == {"PASS", "CORDONLowScore"}
    report = (demo / "report.html").read_text()
    record = json.loads((demo / "federation" / "federation.json").read_text())
    assert record["run"] in report


def test_all_sites_took_part_in_every_round_within_the_budget(demo):
    record = json.loads((demo / "federation" / "federation.json").read_text())
    assert len(record["rounds"]) == record["plan"]["rounds"] == 10
    for entry in record["rounds"]:
        assert [site["decision"] for site in entry["sites"]] == ["accepted"] * 3
    for site in record["sites"]:
        assert site["status"] == "finished"
        assert 7.9 < site["epsilon_rdp"] <= 8.0
    model = models.load(demo / "federation" / "model.safetensors")
    assert model.hash == record["model_hash"]
    for site in record["sites"]:
        spent = json.loads((demo / "federation" / "sites" / f"{site['site']}.spent.json").read_text())
        assert spent["model_hash"] == model.hash


def test_callers_raw_calls_hold_a_real_share_of_false_positives(demo):
    for site in ("north", "south", "west"):
        tables = [read_table(path, LABELLED) for path in (demo / "variants").glob(f"{site}-*.parquet")]
        labels = np.concatenate(
            [
                table.filter(table.column("haplotypecaller_qual").is_valid())
                .column("label").drop_null().to_numpy()
                for table in tables
            ]
        )  # fmt: skip
        assert 0.10 < 1 - labels.mean() < 0.30, site


def test_the_federated_model_beats_quality_scores_and_any_site_alone_on_held_out_patients(demo):
    """Loosely: one private training is one draw of its noise. benchmarks/cohort.py has the distribution."""
    evaluation = json.loads((demo / "evaluation.json").read_text())
    auroc = {score["name"]: score["auroc"] for score in evaluation["scores"]}
    for name in ("haplotypecaller QUAL", "haplotypecaller QD", "bcftools QUAL"):
        assert auroc["cordon"] > auroc[name], auroc
    assert auroc["cordon"] > auroc["bcftools QD"] - 0.01, auroc
    tables = sorted(str(path) for path in (demo / "variants").glob("*.parquet"))
    benchmark = [
        str(ROOT / ".venv/bin/python"),
        str(ROOT / "benchmarks/cohort.py"),
        "--repeats",
        "5",
        "--json",
    ]
    run = subprocess.run([*benchmark, *tables], text=True, capture_output=True, check=True)
    figures = {name: float(np.median(values)) for name, values in json.loads(run.stdout)["auroc"].items()}
    alone = max(value for name, value in figures.items() if name.endswith("alone"))
    assert figures["federated"] > alone, figures
    assert figures["federated"] > figures["bcftools QD"], figures


def test_the_aggregators_ledger_is_published_whole(demo):
    lines = (demo / "federation" / "aggregator.ledger.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["kind"] for row in rows] == ["enrolled"] * 3 + ["decision"] * 30
    assert [row["decision"] for row in rows[3:]] == ["accepted"] * 30
    assert [row["previous"] for row in rows] == ["0" * 64, *(row["hash"] for row in rows[:-1])]
    assert all(row["signature"] for row in rows)


def test_the_demos_model_scores_real_reads_of_na12878(demo, tmp_path, na12878):
    """Real GATK on real reads, from normalisation to the scored VCF, with the model of the demo."""
    model = demo / "federation" / "model.safetensors"
    run = nextflow(tmp_path, *real_options(tmp_path, na12878, model), "--callers", "haplotypecaller,bcftools")
    assert run.returncode == 0, run.stdout
    labelled = read_table(tmp_path / "results" / "variants" / "NA12878.labelled.parquet", LABELLED)
    truth, found = (int(labelled.schema.metadata[key]) for key in (TRUTH_ALLELES_KEY, TRUTH_FOUND_KEY))
    assert truth == 49
    assert found >= 48
    check_scored_vcf(tmp_path / "results" / "scored" / "NA12878.scored.vcf.gz", labelled.num_rows)
    header = bcftools.view("-h", str(tmp_path / "results" / "scored" / "NA12878.scored.vcf.gz"))
    assert models.load(model).hash in header
