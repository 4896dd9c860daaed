"""The demo: a whole consortium, played once for all tests here, or taken as `make demo` left it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pysam import bcftools

from browser_lab import chromium, pictures
from cordon.federation.plan import Plan
from cordon.model import released as models
from cordon.privacy.guarantee import LIFETIME, RUN
from cordon.variants.table import LABELLED, TRUTH_ALLELES_KEY, TRUTH_FOUND_KEY, read_table
from docs_lab import blocks, played, unlike
from pipeline_lab import check_scored_vcf, environment, nextflow, real_options
from report_lab import Page

ROOT = Path(__file__).resolve().parents[2]

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


def test_the_demo_ends_by_saying_what_came_of_it(demo):
    told = subprocess.run([ROOT / "tools" / "outcome", "results/demo"], cwd=ROOT, env=environment(),
                          text=True, capture_output=True, check=True).stdout  # fmt: skip
    evaluation = json.loads((demo / "evaluation.json").read_text())
    areas = {score["name"]: score["auroc"] for score in evaluation["scores"]}
    for name in ("bcftools QD", "cordon"):
        assert f" {areas[name]:.3f} (95 % interval " in told
    record = json.loads((demo / "federation" / "federation.json").read_text())
    most = max(site["epsilon_rdp"] for site in record["sites"])
    spent = Plan.from_dict(record["plan"]).statement(most).replace(RUN, LIFETIME)
    assert f"Each spent at most {spent}, by RDP." in told
    assert f"Scored variants: 24 patients in results/demo{os.sep}scored" in told
    assert len(told.splitlines()) < 8


def test_the_demo_scores_every_patient_and_reports(demo):
    scored = sorted((demo / "scored").glob("*.scored.vcf.gz"))
    assert len(scored) == 24
    for path in scored:
        table = bcftools.query("-f", "%INFO/CORDON\t%FILTER\n", str(path)).splitlines()
        assert len(table) > 150
        filters = {line.split("\t")[1] for line in table}
        assert {"PASS", "CORDONLowScore"} <= filters
        assert filters <= {"PASS", "CORDONLowScore", "CORDONReview", "CORDONRepeat"}


def numbers(value):
    """Every number anywhere in a JSON value."""
    if isinstance(value, dict | list):
        return set().union(*map(numbers, value.values() if isinstance(value, dict) else value), set())
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_the_reports_numbers_are_those_of_the_files(demo):
    record, certificate, evaluation, callset = (
        json.loads((demo / name).read_text())
        for name in (
            "federation/federation.json",
            "federation/certificate.json",
            "evaluation.json",
            "callset.json",
        )
    )
    assert (demo / "report.html").stat().st_size < 5_000_000
    page = Page((demo / "report.html").read_text())
    assert record["run"] in page.text
    spent = {float(attrs["value"]) for attrs in page.values("epsilon")}
    assert len(spent) >= 10
    assert spent <= numbers(record) | numbers(certificate)
    scores = {row["name"]: row for row in evaluation["scores"]}
    table = page.table("Scores")
    assert len(table) == 1 + len(scores)
    assert table["Cordon"] == [f"{scores['cordon'][area]:.3f}" for area in ("auroc", "auprc")]
    kept = next(row for row in evaluation["filters"] if row["name"] == "cordon")
    assert page.table("Filters:")["Cordon PASS"][:2] == [f"{kept['true_kept']:,}", f"{kept['false_kept']:,}"]
    passing = next(row for row in callset["filters"] if row["name"] == "cordon")
    left = page.table("What each filter leaves")["Cordon PASS"]
    assert left[:3] == [
        f"{passing['alleles']:,}",
        *(f"{passing[k]:.2f}" for k in ("ti_tv", "het_hom")),
    ]
    assert sum(row["alleles"] for row in callset["callers"]) == callset["alleles"]
    rounds = page.table("Rounds")
    assert [rounds[str(entry["round"])][-1] for entry in record["rounds"]] == [
        f"{entry['seconds']:.1f}" for entry in record["rounds"]
    ]
    assert page.table("Resources")["GATK4_HAPLOTYPECALLER"][0] == "24"


def test_the_report_that_may_leave_the_site_holds_nothing_of_it(demo):
    own, shared = ((demo / name).read_text() for name in ("report.html", "shareable_report.html"))
    samples = {path.name.partition(".")[0] for path in (demo / "scored").glob("*.vcf.gz")}
    assert len(samples) == 24
    evaluation = json.loads((demo / "evaluation.json").read_text())
    exact = {f"{row['auroc']:.6f}".rstrip("0") for row in evaluation["scores"]}
    for secret in {*samples, *exact, "GATK4_HAPLOTYPECALLER", "simulate_seed", str(demo), "peak_rss"}:
        assert secret not in shared
    assert all(value in own for value in exact)
    record = json.loads((demo / "federation" / "federation.json").read_text())
    certificate = json.loads((demo / "federation" / "certificate.json").read_text())
    spent = {float(attrs["value"]) for attrs in Page(shared).values("epsilon")}
    assert spent
    assert spent <= numbers(record) | numbers(certificate)


def test_pictures_of_the_report_can_be_taken(demo, tmp_path):
    """`make pictures` keeps them in the documentation, to be looked at."""
    with chromium() as browser:
        taken = pictures(browser, demo / "report.html", Path(os.environ.get("CORDON_PICTURES", tmp_path)))
    assert len(taken) == 15


def test_all_sites_took_part_in_every_round_within_the_budget(demo):
    record = json.loads((demo / "federation" / "federation.json").read_text())
    assert len(record["rounds"]) == record["plan"]["rounds"] == 5
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


def test_training_and_audit_compute_on_the_one_thread_that_they_have(demo):
    """More threads on such small matrices wait for one another, and use five times the processor."""
    trace = csv.DictReader((demo / "pipeline_info" / "trace.txt").read_text().splitlines(), delimiter="\t")
    tasks = [(row["name"], row["hash"]) for row in trace]
    for process, command in (("TRAIN_SITE", "train_site.py"), ("AUDIT_MODEL", "audit_model.py")):
        folders = [folder for name, folder in tasks if process in name]
        assert len(folders) == (3 if process == "TRAIN_SITE" else 1)
        for folder in folders:
            (script,) = (demo / "work").glob(f"{folder}*/.command.sh")
            assert f"export OMP_NUM_THREADS=1\n{command} " in script.read_text()


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
    assert auroc.pop("cordon") > max(auroc.values()) + 0.01, evaluation["scores"]
    tables = sorted(str(path) for path in (demo / "variants").glob("*.parquet"))
    benchmark = [
        str(ROOT / ".venv/bin/python"),
        str(ROOT / "benchmarks/cohort.py"),
        "--repeats",
        "15",
        "--json",
    ]
    run = subprocess.run([*benchmark, *tables], text=True, capture_output=True, check=True)
    found = json.loads(run.stdout)["auroc"]
    figures = {name: float(np.median(values["all"])) for name, values in found.items()}
    federated, start = figures.pop("federated"), figures.pop("public start")
    assert federated > start + 0.004, (federated, start)
    # From a good start a site alone comes as far, give or take its noise.
    assert federated > max(figures.values()) - 0.002, (federated, figures)
    assert federated > figures["bcftools QD"] + 0.02, (federated, figures)
    # Not above one site alone in every stratum, but above every caller's own score where indels are.
    indel = {name: float(np.median(values["indel"])) for name, values in found.items()}
    assert indel["federated"] > max(indel["bcftools QD"], indel["haplotypecaller QD"]), indel


def test_the_aggregators_ledger_is_published_whole(demo):
    lines = (demo / "federation" / "aggregator.ledger.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["kind"] for row in rows] == ["enrolled"] * 3 + (["asked"] * 3 + ["decision"] * 3) * 5
    assert [row["decision"] for row in rows if row["kind"] == "decision"] == ["accepted"] * 15
    assert [row["previous"] for row in rows] == ["0" * 64, *(row["hash"] for row in rows[:-1])]
    assert all(row["signature"] for row in rows)


@pytest.mark.parametrize(
    "block",
    [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.mark.startswith("run")],
    ids=lambda block: f"line {block.line}",
)
def test_the_tutorial_shows_what_its_commands_print_of_the_demo(demo, block):
    assert unlike(block.output, played(block, ROOT)) == []


NEXTFLOW = """#!/usr/bin/env bash
mkdir -p "{out}/scored" && touch "{out}/scored/p.scored.vcf.gz"
[[ -e trains ]] && mkdir -p "{out}/state/sites" && cp trains "{out}/state/sites/north.sqlite"
[[ ! -e fails ]]
"""


def test_a_second_demo_whose_training_is_cached_keeps_the_ledgers_of_the_first(tmp_path):
    """With a double of Nextflow that trains, or takes training from its cache, and may fail at the end."""
    out = tmp_path / "out"
    (tmp_path / "nextflow").write_text(NEXTFLOW.format(out=out))
    (tmp_path / "nextflow").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ledger = out / "state" / "sites" / "north.sqlite"
    for trains, fails, holds in (
        ("first", False, "first"), ("", False, "first"), ("", True, "first"), ("", False, "first"),
        ("second", True, "second"), ("", False, "second"), ("third", False, "third"),
    ):  # fmt: skip
        for name, wanted in (("trains", trains), ("fails", fails)):
            (tmp_path / name).unlink(missing_ok=True)
            if wanted:
                (tmp_path / name).write_text(str(wanted))
        run = subprocess.run([ROOT / "tools" / "demo", str(out)], cwd=tmp_path, env=environment)
        assert (run.returncode != 0) == fails
        assert ledger.read_text() == holds
        assert sorted(path.name for path in out.iterdir()) == ["scored", "state"]


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
