"""The pipeline through Nextflow: every process as a stub, resumption, refusals, and real reads."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pysam
import pytest
from pysam import bcftools

ROOT = Path(__file__).resolve().parents[1]
SHEET = "site,patient,sample,bam,bai,truth_vcf,confident_bed,role"

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]


def environment() -> dict[str, str]:
    """What `make` gives Nextflow: the tools that are on PATH already, then those that it set up."""
    path = f"{ROOT}/.venv/bin:{os.environ['PATH']}:{ROOT}/tools/bin"
    return os.environ | {"PATH": path, "NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true"}


def nextflow_command(*arguments: str, profile: str = "local") -> list[str]:
    return ["nextflow", "run", str(ROOT), "-profile", profile, "-ansi-log", "false", *arguments]


def nextflow(folder: Path, *arguments: str, profile: str = "local") -> subprocess.CompletedProcess[str]:
    """Run the pipeline in ``folder`` as a user would; its output is in stdout."""
    return subprocess.run(
        nextflow_command(*arguments, profile=profile),
        cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def tasks(folder: Path, status: str = "COMPLETED") -> set[str]:
    """The tasks of the last run that had ``status``, as PROCESS (tag)."""
    with (folder / "results" / "pipeline_info" / "trace.txt").open() as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["status"] == status]
    return {re.sub(r"^(\w+:)+", "", row["name"]) for row in rows}


def stub_site(folder: Path) -> list[str]:
    """A samplesheet of two sites with empty files, enough for stubs; returns the options that name it."""
    rows = [SHEET]
    for sample, role in (("north-1", "train"), ("north-2", "test"), ("south-1", "train")):
        for suffix in ("bam", "vcf.gz", "bed"):
            (folder / f"{sample}.{suffix}").touch()
        rows.append(f"{sample[:5]},{sample},{sample},{sample}.bam,,{sample}.vcf.gz,{sample}.bed,{role}")
    (folder / "samples.csv").write_text("\n".join(rows) + "\n")
    (folder / "sites.csv").write_text("site,declared_patients,weight\nnorth,1,1\nsouth,1,1\n")
    (folder / "reference.fasta").write_text(">z\nACGT\n")
    return ["--input", "samples.csv", "--sites", "sites.csv", "--reference", "reference.fasta"]


def test_stubs_cover_every_process(tmp_path):
    run = nextflow(
        tmp_path, "-stub", "--callers", "haplotypecaller,deepvariant,bcftools", profile="demo,local"
    )
    assert run.returncode == 0, run.stdout
    assert "WARN" not in run.stdout
    defined = {
        re.search(r"^process (\w+)", path.read_text(), re.MULTILINE).group(1)
        for path in (ROOT / "modules").rglob("main.nf")
    }
    assert {task.split(" ")[0] for task in tasks(tmp_path)} == defined


def test_resume_repeats_nothing_and_after_one_changed_bam_only_what_depends_on_it(tmp_path):
    given = ["-stub", "-resume", "--callers", "haplotypecaller,bcftools", *stub_site(tmp_path)]
    first = nextflow(tmp_path, *given)
    assert first.returncode == 0, first.stdout
    everything = tasks(tmp_path)
    again = nextflow(tmp_path, *given)
    assert again.returncode == 0, again.stdout
    assert tasks(tmp_path) == set()
    assert tasks(tmp_path, "CACHED") == everything

    (tmp_path / "north-1.bam").write_text("other reads")
    changed = nextflow(tmp_path, *given)
    assert changed.returncode == 0, changed.stdout
    before_training = {task for task in tasks(tmp_path) if task.split(" ")[0] not in AFTER_TRAINING}
    assert before_training == {
        "CHECK_INPUTS (samples.csv)",
        "NORMALISE_READS (north-1)",
        "GATK4_HAPLOTYPECALLER (north-1)",
        "BCFTOOLS_CALL (north-1)",
        "NORMALISE_VARIANTS (north-1 haplotypecaller)",
        "NORMALISE_VARIANTS (north-1 bcftools)",
        "ENCODE_VARIANTS (north-1)",
        "LABEL_VARIANTS (north-1)",
    }
    # Other rows train another model, and every site takes part in it: none may be left out as cached.
    assert {"AGGREGATE (127.0.0.1:1)", "TRAIN_SITE (north)", "TRAIN_SITE (south)"} <= tasks(tmp_path)


AFTER_TRAINING = {
    "PLAN_RUN", "AGGREGATE", "TRAIN_SITE", "CALIBRATE_SCORES", "SCORE_VARIANTS", "EVALUATE_SCORES", "REPORT",
}  # fmt: skip


def test_a_bad_samplesheet_is_refused_with_every_problem_before_any_caller_starts(tmp_path):
    given = stub_site(tmp_path)
    (tmp_path / "samples.csv").write_text(
        f"{SHEET}\n"
        "north,north-1,north-1,north-1.bam,,north-1.vcf.gz,north-1.bed,train\n"
        "north,north-1,north-1,north-1.bam,,north-1.vcf.gz,north-1.bed,train\n"
        "east,east-1,east-1,missing.bam,,,,train\n"
    )
    run = nextflow(tmp_path, *given, "--epsilon", "0", "--callers", "haplotypecaller,bcftools")
    assert run.returncode != 0
    for expected in ("samples.csv, row 3", "samples.csv, row 4", "east", "missing.bam", "epsilon"):
        assert expected in run.stdout
    assert "HAPLOTYPECALLER" not in run.stdout


def test_schema_and_configuration_agree_on_names_and_defaults():
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    defaults = {
        name: field.get("default")
        for group in schema["$defs"].values()
        for name, field in group["properties"].items()
    }
    text = (ROOT / "nextflow.config").read_text()
    block = re.search(r"^params \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE).group(1)
    configured = dict(re.findall(r"^    (\w+) = (.+)$", block, re.MULTILINE))
    assert set(configured) == set(defaults)
    for name, value in configured.items():
        if name == "state_dir":  # where the run was launched; no constant
            continue
        found = None if value == "null" else json.loads(value.replace("'", '"'))
        assert found == defaults[name], name


def test_version_is_one_everywhere():
    from cordon import __version__

    config = (ROOT / "nextflow.config").read_text()
    assert re.search(r"version = '([^']+)'", config).group(1) == __version__
    bundle = (ROOT / "src" / "cordon" / "federation" / "bundle" / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in bundle
    for path in (ROOT / "modules").rglob("main.nf"):
        for container in re.findall(r'container "(cordon-[^"]+)"', path.read_text()):
            assert container.endswith(":${workflow.manifest.version}"), path


def real_options(folder: Path, na12878: Path, model: Path) -> list[str]:
    """Options that score the shared NA12878 reads with ``model``."""
    sheet = f"{SHEET}\nhospital,NA12878,NA12878,{na12878}/NA12878.chr20_10mb.bam,,"
    sheet += f"{na12878}/NIST.chr20_10.0-10.1mb.truth.vcf.gz,"
    sheet += f"{na12878}/NIST.chr20_10.0-10.1mb.confident.bed,test\n"
    (folder / "samples.csv").write_text(sheet)
    (folder / "regions.bed").write_text("chr20\t9999999\t10270433\n")
    reference = na12878 / "hg19.chr20_9995k_11095k.masked.fa.gz"
    return [
        "--input", "samples.csv", "--reference", str(reference), "--intervals", "regions.bed",
        "--scoring_model", str(model),
    ]  # fmt: skip


def check_scored_vcf(path: Path, rows: int) -> None:
    """The invariants of a scored VCF: readable, indexed, sorted, whole, every record scored and filtered."""
    viewed = bcftools.view("-H", str(path)).splitlines()
    assert len(viewed) == rows
    positions = [int(line.split("\t")[1]) for line in viewed]
    assert positions == sorted(positions)
    with pysam.VariantFile(str(path)) as file:
        header = str(file.header)
        for word in ("ModelHash=", "Epsilon=", "Delta=", "Unit=", "Mechanism="):
            assert word in header
        records = list(file.fetch("chr20", 9_999_000, 10_271_000))
    assert len(records) == rows
    for record in records:
        assert np.isfinite(record.info["CORDON"])
        assert set(record.info["CORDON_CALLERS"]) <= {"haplotypecaller", "bcftools"}
        assert set(record.filter) <= {"PASS", "CORDONLowScore"}
        assert len(record.filter) == 1
        assert len(record.alts) == 1
        assert record.samples[0].name == "NA12878"
        assert any(allele for allele in record.samples[0]["GT"])
    haplotype = [record for record in records if "haplotypecaller" in record.info["CORDON_CALLERS"]]
    assert all("DP" in record.info and "AD" in record.format for record in haplotype)


def test_two_hospitals_join_an_aggregator_elsewhere_each_with_a_run_of_its_own(tmp_path):
    """As in production: the aggregator is no part of the pipelines; a site has a key, a plan, an address."""
    small = "--sites 2 --patients 2 --held_out 1 --length 30000 --outdir cohort"
    command(tmp_path, "simulate_cohort", small)
    command(
        tmp_path,
        "plan_run",
        "--sites cohort/sites.csv --state keys --outdir run --model logistic --epsilon 8 --delta 1e-5"
        " --rounds 2 --local_steps 2 --sampling_rate 0.5 --clip_norm 0.05 --learning_rate 2"
        " --max_variants_per_patient 64",
    )
    address = (tmp_path / "run" / "address.txt").read_text().strip()
    header, *rows = (tmp_path / "cohort" / "samplesheet.csv").read_text().splitlines()
    options = f"--plan run/plan.json --credentials run/aggregator --address {address} --state state"
    with started(tmp_path, "aggregate", f"{options} --output model.safetensors --record federation.json"):
        runs = {}
        for site in ("north", "south"):
            folder = tmp_path / site
            folder.mkdir()
            own = [row for row in rows if row.startswith(site)]
            (tmp_path / "cohort" / f"{site}.csv").write_text("\n".join([header, *own]) + "\n")
            given = f"""
                --input {tmp_path}/cohort/{site}.csv --sites {tmp_path}/cohort/sites.csv
                --reference {tmp_path}/cohort/reference.fasta --callers haplotypecaller,bcftools
                --aggregator {address} --aggregator_ca {tmp_path}/run/aggregator/ca.crt
                --site_key {tmp_path}/run/sites/{site}/site.key --plan {tmp_path}/run/plan.json
            """
            runs[site] = subprocess.Popen(
                nextflow_command(*given.split()),
                cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        for site, run in runs.items():
            said, _ = run.communicate(timeout=400)
            assert run.returncode == 0, f"{site}: {said}"
    record = json.loads((tmp_path / "federation.json").read_text())
    assert [site["status"] for site in record["sites"]] == ["finished", "finished"]
    for site in ("north", "south"):
        assert "AGGREGATE" not in " ".join(tasks(tmp_path / site))
        scored = tmp_path / site / "results" / "scored" / f"{site}-p01.scored.vcf.gz"
        assert record["model_hash"] in bcftools.view("-h", str(scored))


def command(folder: Path, name: str, options: str) -> None:
    """Run a command of bin/ in ``folder``."""
    subprocess.run(
        [sys.executable, str(ROOT / "bin" / f"{name}.py"), *options.split()], cwd=folder, check=True
    )


@contextmanager
def started(folder: Path, name: str, options: str) -> Iterator[None]:
    """A command of bin/ that runs beside the block, and must have ended well soon after it."""
    arguments = [sys.executable, str(ROOT / "bin" / f"{name}.py"), *options.split()]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log)
    try:
        yield
        assert process.wait(timeout=60) == 0, (folder / f"{name}.log").read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
