"""The pipeline through Nextflow: every process as a stub, resumption, refusals, and real reads."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_CEILING
from pathlib import Path

import pyarrow as pa
import pysam
import pytest
from pysam import bcftools

from conftest import table_row
from cordon.attestation.emulator import Emulator
from cordon.consortium.operator import Operator
from cordon.consortium.request import make_request, read_request
from cordon.federation.credentials import private_identity
from cordon.federation.flower.processes import free_port
from cordon.ledger.log import ChainedLog
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.guarantee import three_digits
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, read_table, write_table
from pipeline_lab import (
    FEW_PATIENTS,
    ROOT,
    SHEET,
    environment,
    nextflow,
    nextflow_command,
    real_options,
    stub_site,
    tasks,
)
from report_lab import Page

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]


def test_stubs_cover_every_process(tmp_path):
    """A simulated consortium that writes gVCFs, and a site with sarek's results and labels from resources."""
    callers = ["--callers", "haplotypecaller,deepvariant,bcftools"]
    simulated = nextflow(tmp_path, "-stub", *callers, "--gvcf", *FEW_PATIENTS, profile="demo,local")
    assert simulated.returncode == 0, simulated.stdout
    covered = tasks(tmp_path)
    given = [*stub_site(tmp_path)[2:], "--from_sarek", "sarek", "--site", "north", "--min_sites", "1"]
    (tmp_path / "sarek" / "preprocessing" / "recalibrated" / "a").mkdir(parents=True)
    for name in ("sarek/preprocessing/recalibrated/a/a.recal.bam", "known.vcf", "frequencies.vcf"):
        (tmp_path / name).touch()
    given += ["--labels", "resources", "--known_sites", "known.vcf,known.vcf"]
    given += ["--allele_frequencies", "frequencies.vcf"]
    brought = nextflow(tmp_path, "-stub", *callers, *given)
    assert brought.returncode == 0, brought.stdout
    covered |= tasks(tmp_path)
    assert "WARN" not in simulated.stdout + brought.stdout
    defined = {
        re.search(r"^process (\w+)", path.read_text(), re.MULTILINE).group(1)
        for path in (ROOT / "modules").rglob("main.nf")
    }
    assert {task.split(" ")[0] for task in covered} == defined
    assert {"NORMALISE_RESOURCE (known_sites_1)", "NORMALISE_RESOURCE (known_sites_2)"} <= covered
    # Only what is whole is published.
    assert not list((tmp_path / "results" / "calls").glob("*.000*"))
    assert (tmp_path / "results" / "calls" / "north-test.haplotypecaller.g.vcf.gz.tbi").exists()


def test_resume_repeats_nothing_and_after_one_changed_bam_only_what_depends_on_it(tmp_path):
    given = ["-stub", "-resume", "--callers", "haplotypecaller,bcftools", *stub_site(tmp_path)]
    first = nextflow(tmp_path, *given)
    assert first.returncode == 0, first.stdout
    everything = tasks(tmp_path)
    again = nextflow(tmp_path, *given)
    assert again.returncode == 0, again.stdout
    # The report tells what the run took, and is made anew with each.
    assert tasks(tmp_path) == {"REPORT (report.html)"}
    assert tasks(tmp_path, "CACHED") == everything - {"REPORT (report.html)"}

    (tmp_path / "north-1.bam").write_text("other reads")
    changed = nextflow(tmp_path, *given)
    assert changed.returncode == 0, changed.stdout
    before_training = {task for task in tasks(tmp_path) if task.split(" ")[0] not in AFTER_TRAINING}
    assert before_training == {
        "CHECK_INPUTS (samples.csv)",
        "NORMALISE_READS (north-1)",
        *(f"{name} (north-1.{part})" for name in CALLERS for part in ("0001", "0002")),
        "GATHER_CALLS (north-1 haplotypecaller.vcf.gz)",
        "GATHER_CALLS (north-1 bcftools.vcf.gz)",
        "NORMALISE_VARIANTS (north-1 haplotypecaller)",
        "NORMALISE_VARIANTS (north-1 bcftools)",
        "ENCODE_VARIANTS (north-1)",
        "LABEL_VARIANTS (north-1)",
    }
    # Other rows train another model, and every site takes part in it: none may be left out as cached.
    assert {"AGGREGATE (127.0.0.1:1)", "TRAIN_SITE (north)", "TRAIN_SITE (south)"} <= tasks(tmp_path)


CALLERS = ("GATK4_HAPLOTYPECALLER", "BCFTOOLS_CALL")
AFTER_TRAINING = {
    "PLAN_RUN", "AGGREGATE", "TRAIN_SITE", "AUDIT_MODEL", "CALIBRATE_SCORES", "SCORE_VARIANTS",
    "DESCRIBE_CALLS", "EVALUATE_SCORES", "REPORT", "MULTIQC",
}  # fmt: skip


def test_one_parts_failure_costs_that_part_alone(tmp_path):
    """Part 2 of one sample fails in the first run; the second run calls it again and nothing else."""
    given = ["-stub", "-resume", "--callers", "bcftools", "-c", "failing.config", *stub_site(tmp_path)]
    mended = tmp_path / "mended"
    (tmp_path / "failing.config").write_text(
        "process { withName: 'BCFTOOLS_CALL' {\n"
        f"    beforeScript = {{ name == 'north-1.0002' ? 'test -e {mended}' : '' }}\n"
        "    errorStrategy = 'finish'\n"
        "} }\n"
    )
    first = nextflow(tmp_path, *given)
    assert first.returncode != 0
    assert tasks(tmp_path, "FAILED") == {"BCFTOOLS_CALL (north-1.0002)"}
    called = tasks(tmp_path)
    mended.touch()
    second = nextflow(tmp_path, *given)
    assert second.returncode == 0, second.stdout
    assert called <= tasks(tmp_path, "CACHED")
    calling = {task for task in tasks(tmp_path) if task.startswith("BCFTOOLS_CALL")}
    again = {task for task in calling if task not in called}
    assert "BCFTOOLS_CALL (north-1.0002)" in again
    assert again == calling


def test_a_bad_samplesheet_is_refused_with_every_problem_before_any_caller_starts(tmp_path):
    """Nextflow shows the failed task's script and what it said; with private names no cell is in them."""
    given = stub_site(tmp_path)
    rows = (
        SHEET,
        "north,north-1,north-1,north-1.bam,,north-1.vcf.gz,north-1.bed,train",
        "north,north-1,north-1,north-1.bam,,north-1.vcf.gz,north-1.bed,train",
        "east,east-1,east-1,missing.bam,,,,train",
    )
    # As R and LibreOffice write them.
    quoted = [",".join(f'"{cell}"' for cell in row.split(",")) for row in rows]
    (tmp_path / "samples.csv").write_text("\n".join(quoted) + "\n")
    given += ["--epsilon", "0", "--callers", "haplotypecaller,bcftools"]
    run = nextflow(tmp_path, *given)
    assert run.returncode != 0
    for expected in ("samples.csv, row 3", "samples.csv, row 4", "east", "missing.bam", "epsilon"):
        assert expected in run.stdout
    assert "HAPLOTYPECALLER" not in run.stdout
    # A container sees what is staged, and nothing else.
    assert len([*(tmp_path / "work").glob("*/*/staged/*/file")]) == 3
    (tmp_path / "late.config").write_text("params.gpu = true\n")
    late = ["--private_names", "true", "-work-dir", "private", "-c", "late.config"]
    private = nextflow(tmp_path, *given, *late)
    assert private.returncode != 0
    for expected in (
        "params.gpu: Give --gpu on the command line or in a params file",
        "samples.csv, row 3, column sample: Keep one row",
        "row 4, column bam: Correct the path",
    ):
        assert expected in private.stdout
    assert not re.findall(r"(?:north|east)-1|missing\.bam|\.vcf\.gz|\.bed", private.stdout)
    kept = tmp_path / "cordon_state" / "private_errors" / "check_inputs.txt"
    assert str(kept) in private.stdout
    assert "missing.bam does not exist. Correct the path" in kept.read_text()


@pytest.mark.parametrize(
    ("sheet", "told"),
    [
        (f"{SHEET}\nnorth,Zünzi,n1,n1.bam,,,,train\n".encode("latin-1"), "UTF-8"),
        (f"{SHEET}\nnorth,n1,n1,foo://n1.bam,,,,train\n".encode(), "row 2, column bam"),
    ],
    ids=["Latin-1", "a scheme that nobody knows"],
)
def test_what_nextflow_cannot_read_is_told_by_file_and_remedy(tmp_path, sheet, told):
    given = stub_site(tmp_path)
    (tmp_path / "samples.csv").write_bytes(sheet)
    run = nextflow(tmp_path, *given, "--callers", "bcftools")
    assert run.returncode != 0
    said = run.stdout.partition("Command error:")[2]
    assert "samples.csv" in said
    assert told in said


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
    profiles = "".join((ROOT / "conf" / name).read_text() for name in ("profiles.config", "test.config"))
    not_pinned = {
        "outdir",
        "transport",
        "private_names",
        *re.findall(r"^ *params\.(\w+) = ", profiles, re.MULTILINE),
    }
    assert {"simulate_sites", "scheduler", "gpu", "callers", "rounds"} < not_pinned
    for name, value in configured.items():
        if name == "state_dir":  # where the run was launched; no constant
            continue
        found = None if value == "null" else json.loads(value.replace("'", '"'))
        assert found == defaults[name] or name in not_pinned, name
        # A form that fills in its defaults would take these back from the profile, or hide that they matter.
        assert (name in not_pinned) <= (defaults[name] is None), name


def test_version_is_one_everywhere():
    from cordon import __version__

    config = (ROOT / "nextflow.config").read_text()
    assert re.search(r"version = '([^']+)'", config).group(1) == __version__
    bundle = (ROOT / "src" / "cordon" / "federation" / "flower" / "bundle" / "pyproject.toml").read_text()
    assert f'version = "{__version__}"' in bundle
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    for path in (ROOT / "modules").rglob("main.nf"):
        for container in re.findall(r'container "(cordon-[^"]+)"', path.read_text()):
            assert container.endswith(":${workflow.manifest.version}"), path


def shown(folder: Path) -> str:
    """What the runs in ``folder`` show to whoever is told of their tasks (Tower): scripts, what tasks said,
    Nextflow's logs, and the last run's trace with its tags."""
    names = (".command.sh", ".command.out", ".command.err", ".command.log")
    files = [path for name in names for path in (folder / "work").rglob(name)]
    assert len(files) > 40
    said = [path.read_text() for path in [*files, *folder.glob(".nextflow.log*")]]
    return "\n".join([*said, (folder / "results" / "pipeline_info" / "trace.txt").read_text()])


def who_is_who(folder: Path) -> dict[str, str]:
    """Pseudonyms by sample of a run with private names in ``folder``; the file is its owner's alone."""
    path = folder / "results" / "pipeline_info" / "private_names.csv"
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open() as file:
        return {row["sample"]: row["sample_pseudonym"] for row in csv.DictReader(file)}


def untrained_model(path: Path) -> Path:
    """A model that says nothing: enough to see what reaches the scored VCF."""
    from cordon.model import released as models
    from cordon.variants.features import FEATURES

    privacy = {"unit": "patient", "epsilon": 1.0, "delta": 1e-5, "mechanism": "gaussian", "rounds": 0}
    start = models.initial_parameters("logistic", len(FEATURES))
    models.Model("logistic", tuple(FEATURES), start, privacy).save(path)
    return path


def scored_alleles(path: Path, callers: set[str]) -> set[tuple[str, int, str, str]]:
    """The alleles of a scored VCF that at least one of the callers proposed."""
    with pysam.VariantFile(str(path)) as records:
        return {
            (record.contig, record.pos, *record.alleles)
            for record in records
            if callers & set(record.info["CORDON_CALLERS"])
        }


def test_a_cram_is_called_in_parts_and_its_calls_are_taken_again_from_sareks_layout(
    tmp_path, na12878, na12878_reference
):
    """Real GATK, and the double of DeepVariant; then the same calls brought along, without the reads. Both
    with private names: no task shows what sample, patient and their files are called."""
    given = real_options(tmp_path, na12878, untrained_model(tmp_path / "model.safetensors"))
    bam = f"{na12878}/NA12878.chr20_10mb.bam"
    cram = str(tmp_path / "Jane_Doe.cram")
    pysam.view("-C", "-T", str(na12878_reference), "-o", cram, bam, catch_stdout=False)
    sheet = (tmp_path / "samples.csv").read_text().replace(bam, "Jane_Doe.cram")
    for path in sorted(na12878.glob("NIST.*")):
        (tmp_path / path.name.replace("NIST", "Jane_Doe")).symlink_to(path)
    (tmp_path / "samples.csv").write_text(sheet.replace(f"{na12878}/NIST", "Jane_Doe"))
    (tmp_path / "regions.bed").write_text("20\t9999999\t10050000\n")
    double = ROOT / "tests" / "doubles" / "deepvariant" / "run_deepvariant"
    config = f"process {{ withName: 'DEEPVARIANT' {{ ext.command = '{double}' }} }}\n"
    (tmp_path / "double.config").write_text(config)
    given += ["-c", "double.config", "--contig_aliases", str(ROOT / "assets" / "contig_aliases.tsv")]
    given += ["--private_names", "true"]
    called = nextflow(tmp_path, *given, "--gvcf", "--callers", "haplotypecaller,deepvariant,bcftools")
    assert called.returncode == 0, called.stdout
    own = who_is_who(tmp_path)["NA12878"]
    parts = {task for task in tasks(tmp_path) if task.startswith("GATK4_HAPLOTYPECALLER")}
    assert parts == {f"GATK4_HAPLOTYPECALLER ({own}.000{number})" for number in (1, 2, 3)}
    calls = tmp_path / "results" / "calls"
    for end in (
        "haplotypecaller.vcf.gz",
        "haplotypecaller.g.vcf.gz",
        "deepvariant.g.vcf.gz",
        "bcftools.vcf.gz",
    ):
        lines = bcftools.view("-H", str(calls / f"{own}.{end}")).splitlines()
        places = [int(line.split("\t")[1]) for line in lines]
        assert places == sorted(set(places)) or end == "bcftools.vcf.gz"
        assert places[-1] > 10_040_000
    counts = json.loads((calls / f"{own}.haplotypecaller.summary.json").read_text())
    table = read_table(tmp_path / "results" / "variants" / f"{own}.labelled.parquet", LABELLED)
    assert set(table["sample"].to_pylist()) == {own}
    assert 0 < sum(label == 1 for label in table["label"].to_pylist()) < table.num_rows
    scored = tmp_path / "results" / "scored" / f"{own}.scored.vcf.gz"
    assert list(pysam.VariantFile(str(scored)).header.samples) == [own]
    names = ("NA12878", "Doe-1952", "Jane_Doe", *set(table["patient"].to_pylist()))
    assert not [name for name in names if name in shown(tmp_path)]
    first = scored_alleles(scored, {"haplotypecaller"})
    assert len(first) == counts["kept"] > 50

    brought = ("haplotypecaller.vcf.gz", "deepvariant.g.vcf.gz")
    (tmp_path / "names.txt").write_text("NA12878\n")
    for end in brought:
        folder = tmp_path / "sarek" / "variant_calling" / end.split(".")[0] / "Jane_Doe"
        folder.mkdir(parents=True)
        renamed = ["-s", str(tmp_path / "names.txt"), "-o", str(folder / f"Jane_Doe.{end}")]
        bcftools.reheader(*renamed, str(calls / f"{own}.{end}"), catch_stdout=False)
    wanted = {"haplotypecaller", "deepvariant"}
    expected = scored_alleles(scored, wanted)
    scored.unlink()
    given = [
        *given[2:],
        "--from_sarek",
        "sarek",
        "--site",
        "hospital",
        "--callers",
        "haplotypecaller,deepvariant",
    ]
    again = nextflow(tmp_path, *given)
    assert again.returncode == 0, again.stdout
    assert not any("CALLER" in task or "DEEPVARIANT" in task or "READS" in task for task in tasks(tmp_path))
    assert who_is_who(tmp_path) == {"NA12878": own}
    assert scored_alleles(scored, wanted) == expected
    assert list(pysam.VariantFile(str(scored)).header.samples) == [own]
    assert not [name for name in names if name in shown(tmp_path)]


STUDY = """
name = "two"
purpose = "A test."
sites = ["north", "south"]
data_use = ["DUO:0000042"]
expires = 2999-12-31
model_receivers = "the sites"
unit = "patient"
lifetime_epsilon = 8.0
run_epsilon = 8.0
delta = 1e-5
"""


def test_two_hospitals_join_an_aggregator_elsewhere_each_with_a_run_of_its_own(tmp_path):
    """As in production: the aggregator is no part of the pipelines; a site has a key, and a kit with plan,
    address, and a policy that the aggregator satisfies (TEST ONLY here). One connects through a shared
    folder, and one keeps its names private."""
    small = "--sites 2 --patients 2 --held_out 1 --length 30000 --outdir cohort"
    command(tmp_path, "simulate_cohort", small)
    emulator = Emulator.at(tmp_path / "emulator")
    operator = Operator.begin(tmp_path / "two", "two")
    (operator.folder / "study.toml").write_text(STUDY)
    for site in ("north", "south"):
        asked = read_request(make_request(tmp_path / site, site, 2, 1.0, "its data manager"))
        operator.approve(asked, private_identity(tmp_path / site / "site.key"))
    address = f"127.0.0.1:{free_port()}"
    cordon(tmp_path, "plan two --model logistic --pretrained none --rounds 2 --max_variants_per_patient 64")
    policy = emulator.write_policy(tmp_path / "policy.toml")
    cordon(tmp_path, f"consortium kit two --address {address} --policy {policy}")
    for site in ("north", "south"):
        cordon(tmp_path, f"site join two/two.kit --folder {site} --fingerprint {operator.fingerprint}")
    header, *rows = (tmp_path / "cohort" / "samplesheet.csv").read_text().splitlines()
    with (
        started(tmp_path, "aggregator run two --evidence emulator:emulator"),
        relayed(tmp_path / "shared", address),
    ):
        runs = {}
        shared = f"--transport files --transport_dir {tmp_path}/shared"
        ways = {"north": "--private_names true", "south": shared}
        for site in ("north", "south"):
            folder = tmp_path / site
            own = [row for row in rows if row.startswith(site)]
            (tmp_path / "cohort" / f"{site}.csv").write_text("\n".join([header, *own]) + "\n")
            given = f"""
                -params-file {folder}/run.yml --input {tmp_path}/cohort/{site}.csv
                --reference {tmp_path}/cohort/reference.fasta --callers bcftools {ways[site]}
                --audit_trainings 16 --scatter 1
            """
            runs[site] = subprocess.Popen(
                nextflow_command(*given.split()),
                cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        for site, run in runs.items():
            said, _ = run.communicate(timeout=1000)
            assert run.returncode == 0, f"{site}: {said}"
    (done,) = (operator.folder / "runs").glob("*/federation.json")
    record = json.loads(done.read_text())
    assert [site["status"] for site in record["sites"]] == ["finished", "finished"]
    assert record["plan"]["study"] == operator.study.hash
    relay = (tmp_path / "shared.log").read_text()
    assert "session south-" in relay
    assert "session north-" not in relay
    for site in ("north", "south"):
        assert "AGGREGATE" not in " ".join(tasks(tmp_path / site))
        own = who_is_who(tmp_path / site)[f"{site}-p01"] if site == "north" else f"{site}-p01"
        scored = tmp_path / site / "results" / "scored" / f"{own}.scored.vcf.gz"
        assert record["model_hash"] in bcftools.view("-h", str(scored))
        results = tmp_path / site / "results"
        spent = json.loads((results / "federation" / "sites" / f"{site}.spent.json").read_text())
        report = Page((results / "report.html").read_text())
        shown_up = three_digits(spent["epsilon_rdp"], ROUND_CEILING)
        assert report.table("Sites' own ledgers")[site][0] == shown_up
        assert f"{site} trained one model with other sites" in report.text
        assert own not in (results / "shareable_report.html").read_text()
    assert not re.search(r"north-p\d", shown(tmp_path / "north"))
    assert re.search(r"NORMALISE_READS \(south-p\d", shown(tmp_path / "south"))


@contextmanager
def relayed(folder: Path, address: str) -> Iterator[None]:
    """A relay from ``folder`` to ``address`` beside the block; what it says is in ``folder``.log."""
    relay = [sys.executable, "-m", "cordon.cli", "relay", str(folder), "--aggregator", address]
    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(relay, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def command(folder: Path, name: str, options: str) -> None:
    """Run a command of bin/ in ``folder``."""
    subprocess.run(
        [sys.executable, str(ROOT / "bin" / f"{name}.py"), *options.split()], cwd=folder, check=True
    )


def cordon(folder: Path, words: str) -> None:
    """Run `cordon` in ``folder``."""
    subprocess.run([sys.executable, "-m", "cordon.cli", *words.split()], cwd=folder, check=True)


@contextmanager
def started(folder: Path, words: str) -> Iterator[None]:
    """`cordon` in ``folder`` beside the block; it must have ended well soon after it."""
    with (folder / "aggregator.log").open("w") as log:
        arguments = [sys.executable, "-m", "cordon.cli", *words.split()]
        process = subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log)
    try:
        yield
        assert process.wait(timeout=60) == 0, (folder / "aggregator.log").read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


PLANNING = """
include {{ PLAN_RUN }} from '{root}/modules/plan_run/main'

workflow {{
    PLAN_RUN(file('sites.csv'), ['127.0.0.1', 0], ['north.parquet'], "${{params.state_dir}}", [])
    PLAN_RUN.out.plan.subscribe {{ plan -> plan.copyTo('plan.json') }}
}}
"""


def test_a_resumed_run_keeps_its_plan_and_a_new_one_looks_at_the_ledgers_anew(tmp_path):
    """The real process, with the arguments that the pipeline gives it."""
    from cordon.federation.plan import read_plan
    from cordon.ledger.site import SiteLedger

    (tmp_path / "sites.csv").write_text("site,declared_patients,weight\nnorth,20,1\n")
    (tmp_path / "plan.nf").write_text(PLANNING.format(root=ROOT))
    (tmp_path / "bin").symlink_to(ROOT / "bin")
    script, config = tmp_path / "plan.nf", str(ROOT / "nextflow.config")

    def planned(*options: str):
        command = nextflow_command(*options, "-c", config, "--accountant", "pld", pipeline=script)
        run = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return run, read_plan(tmp_path / "plan.json")

    run, first = planned("--run_epsilon", "6")
    assert run.returncode == 0, run.stdout
    assert (first.epsilon, first.budget, first.accountant) == (6.0, 8.0, "pld")
    held = SiteLedger(tmp_path / "cordon_state" / "sites" / "north.sqlite", epsilon=8.0, delta=1e-5)
    for number in range(first.rounds):
        held.reserve("a", number, first.event, first.grouping(20), ["p"], accountant="pld")
    run, again = planned("--run_epsilon", "6", "-resume")
    assert run.returncode == 0, run.stdout
    assert again == first
    run, left = planned()
    assert run.returncode == 0, run.stdout
    assert left.cost() == left.epsilon < 6.0
    run, _ = planned("--run_epsilon", "6")
    assert run.returncode != 0
    assert "no site has room for a run of epsilon" in run.stdout


CALIBRATING = """
include {{ CALIBRATE_SCORES }} from '{root}/modules/calibrate_scores/main'

workflow {{
    table = channel.of(['north', file('north.parquet')])
    CALIBRATE_SCORES(table, file('model.safetensors'), "${{params.state_dir}}", file('sites.csv'))
    CALIBRATE_SCORES.out.calibration.subscribe {{ _site, made -> made.copyTo('made.json') }}
}}
"""


def test_a_private_calibration_is_told_all_that_bounds_the_sites_budget(tmp_path):
    """The real process, with the arguments that the pipeline gives it."""
    (tmp_path / "sites.csv").write_text("site,declared_patients,weight\nnorth,20,1\n")
    rows = [table_row(position=place + 1, label=place % 2) for place in range(8)]
    write_table(pa.Table.from_pylist(rows, schema=LABELLED), tmp_path / "north.parquet")
    parameters = initial_parameters("logistic", len(FEATURES))
    Model("logistic", FEATURES, parameters, {}).save(tmp_path / "model.safetensors")
    (tmp_path / "calibrate.nf").write_text(CALIBRATING.format(root=ROOT))
    (tmp_path / "bin").symlink_to(ROOT / "bin")
    given = ["--calibration", "private", "--calibration_epsilon", "2", "--accountant", "pld"]
    given += ["--sites_per_patient", "3", "--same_person", "merge", "-c", str(ROOT / "nextflow.config")]
    command = nextflow_command(*given, pipeline=tmp_path / "calibrate.nf")
    run = subprocess.run(
        command, cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert run.returncode == 0, run.stdout
    cost = json.loads((tmp_path / "made.json").read_text())["cost"]
    assert (cost["epsilon"], cost["accountant"], cost["sites_per_patient"]) == (2, "PLD", 3)
    chain = ChainedLog(tmp_path / "cordon_state" / "sites" / "north.sqlite")
    assert [(row["declared_units"], row["event"]["sites"]) for row in chain.of_kind("reserved")] == [(20, 3)]
    assert [row["accountant"] for row in chain.of_kind("budget")] == ["pld"]
