"""The DeepVariant module against its test double (tests/doubles/deepvariant), which is not DeepVariant.

These tests hold the command line and the form of the results; nothing here says how DeepVariant calls.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pysam
import pytest

from conftest import ROOT, Read
from cordon.calls.normalise import normalise_variants
from cordon.files import read_json
from cordon.inputs.run_parameters import properties
from pipeline_lab import environment

DOUBLE = ROOT / "tests" / "doubles" / "deepvariant"
IMAGE = "cordon-deepvariant-double:test"
MODEL_TYPES = properties(read_json(ROOT / "nextflow_schema.json"))["deepvariant_model_type"]["enum"]

WORKFLOW = f"""
include {{ DEEPVARIANT }} from '{ROOT}/modules/deepvariant/main'

workflow {{
    reads = channel.of([[id: 'NA12878'], file(params.bam), file("${{params.bam}}.bai")])
    dict = params.fasta.replace('.fasta', '.dict')
    reference = [params.fasta, "${{params.fasta}}.fai", dict].collect {{ path -> file(path) }}
    DEEPVARIANT(reads, reference, file(params.bed), params.model_type, true)
}}
"""


def double(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DOUBLE / "run_deepvariant"), *flags], text=True, capture_output=True
    )


def test_the_double_says_what_it_is():
    text = (DOUBLE / "run_deepvariant").read_text()
    assert "##source=TEST DOUBLE of DeepVariant, not DeepVariant" in text
    assert "It is not DeepVariant" in (DOUBLE / "Dockerfile").read_text()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_type_of_the_schema_is_documented(lab, model_type):
    bam = lab.bam("s1.bam", [Read(100)])
    given = [
        f"--ref={lab.reference}",
        "--reads",
        str(bam),
        "--output_vcf=x.vcf",
        f"--model_type={model_type}",
    ]
    assert double(*given, "--dry_run").returncode == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--output_vfc=x"], "Unknown command line flag 'output_vfc'"),
        (["--num_shards=many"], "flag --num_shards=many"),
        (["--vcf_stats_report=perhaps"], "Non-boolean argument"),
        (["--ref"], "Missing value for flag --ref"),
        (["reads.bam"], "takes no argument 'reads.bam'"),
        (["--model_type=WGS"], "--ref is required."),
        (["--model_type=WGX", "--ref=a", "--reads=b", "--output_vcf=c"], "value should be one of <WGS|WES|"),
        (["--model_type=WGS", "--ref=a", "--reads=b", "--output_vcf=c"], "a does not exist."),
    ],
)
def test_the_double_refuses_what_is_not_documented(flags, expected):
    run = double(*flags)
    assert run.returncode == 1
    assert expected in run.stderr


def run_module(folder: Path, na12878_bam: Path, na12878_reference: Path, configuration: str) -> Path:
    """Run DEEPVARIANT alone on 20 kb of real reads; returns its task's folder."""
    (folder / "main.nf").write_text(WORKFLOW)
    (folder / "regions.bed").write_text("chr20\t9999999\t10010000\nchr20\t10020000\t10030000\n")
    (folder / "nextflow.config").write_text(
        f"params.federation_slots = 1\nincludeConfig '{ROOT}/conf/base.config'\n"
        + "process.resourceLimits = [cpus: 1, memory: 4.GB]\n"
        + configuration
    )
    options = {"bam": na12878_bam, "fasta": na12878_reference, "bed": "regions.bed", "model_type": "WGS"}
    command = ["nextflow", "run", "main.nf", "-ansi-log", "false"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    run = subprocess.run(command, cwd=folder, env=environment(), text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (vcf,) = folder.glob("work/*/*/NA12878.deepvariant.vcf.gz")
    return vcf.parent


def check_results(task: Path, reference: Path, folder: Path) -> None:
    """The documented form: filters, FORMAT, reference blocks that leave no gap, the version."""
    assert "deepvariant: 1.10.0" in (task / "versions.yml").read_text()
    with pysam.VariantFile(str(task / "NA12878.deepvariant.vcf.gz")) as records:
        assert "##source=TEST DOUBLE of DeepVariant, not DeepVariant" in str(records.header)
        assert list(records.header.samples) == ["NA12878"]
        calls = list(records.fetch("chr20", 9_999_000, 10_031_000))
    filters = Counter(name for record in calls for name in record.filter)
    assert set(filters) <= {"PASS", "RefCall", "NoCall", "LowQual"}
    assert filters["PASS"] > 20
    assert {tuple(record.format) for record in calls} == {("GT", "GQ", "DP", "AD", "VAF", "PL")}
    assert all(len(record.samples[0]["VAF"]) == len(record.alts) for record in calls)
    covered = set()
    with pysam.VariantFile(str(task / "NA12878.deepvariant.g.vcf.gz")) as records:
        for record in records:
            assert record.alts[-1] == "<*>"
            if len(record.alts) == 1:
                assert tuple(record.format) == ("GT", "GQ", "MIN_DP", "PL")
            covered |= set(range(record.start, record.stop))
    assert covered >= {*range(9_999_999, 10_010_000), *range(10_020_000, 10_030_000)}
    made = {}
    for kind in ("vcf", "g.vcf"):
        output = folder / f"{kind}.normalised.vcf.gz"
        source = task / f"NA12878.deepvariant.{kind}.gz"
        normalise_variants(vcf=source, reference=reference, sample="NA12878", output=output)
        with pysam.VariantFile(str(output)) as records:
            made[kind] = [(record.pos, *record.alleles, *record.samples[0]["AD"]) for record in records]
    # Missing genotypes and reference calls are no candidates; VCF and gVCF hold the same ones.
    assert made["vcf"] == made["g.vcf"]
    assert len(made["vcf"]) >= filters["PASS"]


@pytest.mark.pipeline
@pytest.mark.timeout(300)
def test_the_module_runs_the_local_double(tmp_path, na12878_bam, na12878_reference):
    configuration = f"process {{ withName: 'DEEPVARIANT' {{ ext.command = '{DOUBLE}/run_deepvariant' }} }}\n"
    task = run_module(tmp_path, na12878_bam, na12878_reference, configuration)
    check_results(task, na12878_reference, tmp_path)


@pytest.fixture(scope="module")
def image():
    """The double's image; skips with the reason where it cannot be built."""
    if shutil.which("docker") is None:
        pytest.skip("Docker is not on this machine; tests/docker/start sets it up")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("Docker's daemon cannot be reached; tests/docker/start starts one")
    build = ["docker", "build", "--network", "host", "--tag", IMAGE, str(DOUBLE)]
    built = subprocess.run(build, text=True, capture_output=True)
    if built.returncode:
        pytest.skip(f"the double's image cannot be built here: {built.stderr.strip().splitlines()[-1]}")
    return IMAGE


@pytest.mark.pipeline
@pytest.mark.timeout(600)
def test_the_module_runs_the_doubles_container(tmp_path, na12878_bam, na12878_reference, image):
    configuration = (
        f"docker.enabled = true\nprocess {{ withName: 'DEEPVARIANT' {{ container = '{image}' }} }}\n"
    )
    task = run_module(tmp_path, na12878_bam, na12878_reference, configuration)
    check_results(task, na12878_reference, tmp_path)


@pytest.mark.pipeline
def test_the_gpu_profile_takes_the_gpu_image_of_the_same_version(tmp_path):
    run = subprocess.run(
        ["nextflow", "config", "-flat", "-profile", "gpu", str(ROOT)],
        cwd=tmp_path, env=environment(), text=True, capture_output=True, check=True,
    )  # fmt: skip
    module = (ROOT / "modules" / "deepvariant" / "main.nf").read_text()
    version = re.search(r"container '(docker\.io/google/deepvariant:[0-9.]+)'", module)[1]
    assert f"{version}-gpu" in run.stdout
    assert "accelerator = 1" in run.stdout
