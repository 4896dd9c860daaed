"""What tests of the pipeline share: Nextflow as a user starts it, sites of stubs, what processes ask for."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pysam
from pysam import bcftools

ROOT = Path(__file__).resolve().parents[2]


SHEET = "site,patient,sample,bam,bai,truth_vcf,confident_bed,role"


def environment() -> dict[str, str]:
    """What `make` gives Nextflow: the tools that are on PATH already, then those that it set up."""
    path = f"{ROOT}/.venv/bin:{os.environ['PATH']}:{ROOT}/tools/bin"
    return os.environ | {"PATH": path, "NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true"}


def nextflow_command(*arguments: str, profile: str = "local", pipeline: Path = ROOT) -> list[str]:
    return ["nextflow", "run", str(pipeline), "-profile", profile, "-ansi-log", "false", *arguments]


def nextflow(
    folder: Path, *arguments: str, profile: str = "local", pipeline: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the pipeline in ``folder`` as a user would; its output is in stdout."""
    return subprocess.run(
        nextflow_command(*arguments, profile=profile, pipeline=pipeline),
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


# A stub's work is its task's start and end.
FEW_PATIENTS = ("--simulate_patients", "2", "--simulate_held_out", "1")


def real_options(folder: Path, na12878: Path, model: Path) -> list[str]:
    """Options that score the shared NA12878 reads with ``model``."""
    sheet = f"{SHEET}\nhospital,Doe-1952,NA12878,{na12878}/NA12878.chr20_10mb.bam,,"
    sheet += f"{na12878}/NIST.chr20_10.0-10.1mb.truth.vcf.gz,"
    sheet += f"{na12878}/NIST.chr20_10.0-10.1mb.confident.bed,test\n"
    (folder / "samples.csv").write_text(sheet)
    # Where the truth is known.
    (folder / "regions.bed").write_text("chr20\t9999999\t10100000\n")
    # On so few reads the JVM's second compiler costs more than it gains.
    quickly = "ext.java_options = '-XX:-UsePerfData -XX:+UseSerialGC -XX:TieredStopAtLevel=1'"
    (folder / "quick.config").write_text(f"process {{ withName: 'GATK4_.*' {{ {quickly} }} }}\n")
    reference = na12878 / "hg19.chr20_9995k_11095k.masked.fa.gz"
    return [
        "--input", "samples.csv", "--reference", str(reference), "--intervals", "regions.bed",
        "--scoring_model", str(model), "--scatter", "3", "-c", "quick.config",
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
        assert set(record.filter) <= {"PASS", "CORDONLowScore", "CORDONReview", "CORDONRepeat"}
        assert len(record.filter) == 1
        assert len(record.alts) == 1
        assert record.samples[0].name == "NA12878"
        assert any(allele for allele in record.samples[0]["GT"])
    haplotype = [record for record in records if "haplotypecaller" in record.info["CORDON_CALLERS"]]
    assert all("DP" in record.info and "AD" in record.format for record in haplotype)


# What a job is asked for at its first, second and third attempt.
RESOURCES: dict[str, tuple[int, list[int], list[int]]] = {
    # label: (cores, [GB], [hours])
    "process_single": (1, [2, 4, 6], [4, 8, 12]),
    "process_low": (2, [4, 8, 12], [4, 8, 12]),
    "process_medium": (4, [8, 16, 24], [12, 24, 36]),
    "process_high": (12, [32, 64, 96], [24, 48, 72]),
    "process_audit": (1, [4, 8, 12], [4, 8, 12]),
    "process_federation": (1, [2, 4, 6], [24, 24, 24]),
}


LABELS = {
    "AGGREGATE": "process_federation",
    "TRAIN_SITE": "process_federation",
    "AUDIT_MODEL": "process_audit",
    "DEEPVARIANT": "process_high",
    "GATK4_HAPLOTYPECALLER": "process_medium",
    "SIMULATE_COHORT": "process_medium",
    "GATK4_GENOTYPEGVCFS": "process_low",
    "NORMALISE_READS": "process_low",
} | dict.fromkeys(
    (
        "BCFTOOLS_CALL", "CALIBRATE_SCORES", "CHECK_INPUTS", "DESCRIBE_CALLS", "ENCODE_VARIANTS",
        "EVALUATE_SCORES", "GATHER_CALLS", "LABEL_VARIANTS", "MULTIQC", "NORMALISE_RESOURCE",
        "NORMALISE_VARIANTS", "PLAN_RUN", "PREPARE_REFERENCE", "REPORT", "SAMPLESHEET_FROM_SAREK",
        "SCORE_VARIANTS", "SPLIT_INTERVALS",
    ),
    "process_single",
)  # fmt: skip
