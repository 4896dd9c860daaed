"""Malformed inputs to the commands before training: each ends with its exit status and a message to act on.

A message names the file (and row where there are rows), says what is wrong, and what to do. Nothing is left
half-written.
"""

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path

import pysam
import pytest
from click.testing import CliRunner

from conftest import ROOT, Lab, Read

RIGHT, USAGE = 0, 2
HEADER = "site,patient,sample,bam,truth_vcf,confident_bed\n"


@dataclass(frozen=True)
class Case:
    """A command with arguments in the lab's folder, which file it gets, and what it must say."""

    name: str
    command: str
    arguments: str
    says: str
    files: dict = field(default_factory=dict)
    status: int = USAGE


def run(command: str, *arguments: str):
    """Run ``bin/COMMAND.py`` in this process."""
    spec = importlib.util.spec_from_file_location(command, ROOT / "bin" / f"{command}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return CliRunner().invoke(module.main, list(arguments))


READS = "--sample s1 --reference reference.fasta --output out.bam --bam"
CALLS = "--sample s1 --reference reference.fasta --output out.vcf.gz --vcf"
SPLIT = "--reference reference.fasta --outdir out"
ENCODE = "--site h --sample s1 --pseudonyms who.json --reference reference.fasta --output out.parquet"
LABEL = "--variants table.parquet --sample s1 --reference reference.fasta --output out.parquet"
INPUTS = "--samplesheet sheet.csv --reference reference.fasta --parameters parameters.json --output out.csv"
INPUTS += f" --schema {ROOT}/nextflow_schema.json"
ROW = "h,p1,s1,s1.bam,calls.vcf.gz,all.bed\n"

CASES = [
    Case(
        "no FASTA",
        "prepare_reference",
        "--reference x.fa --outdir out",
        "not a FASTA file",
        {"x.fa": "ACGT\n"},
    ),
    Case("no sequence", "prepare_reference", "--reference x.fa --outdir out", "x.fa", {"x.fa": ""}),
    Case(
        "contig twice",
        "prepare_reference",
        "--reference x.fa --outdir out",
        "contig 'z' has no name or is there",
        {"x.fa": ">z\nAC\n>z\nAC\n"},
    ),
    Case(
        "truncated gzip",
        "prepare_reference",
        "--reference cut.fa.gz --outdir out",
        "cut.fa.gz: cannot be read to its end",
    ),
    Case("no BAM", "normalise_reads", f"{READS} x.bam", "x.bam: is truncated or no BAM", {"x.bam": "text"}),
    Case(
        "truncated BAM",
        "normalise_reads",
        f"{READS} cut.bam",
        "cut.bam: is truncated or no BAM or CRAM. Copy it",
    ),
    Case("missing BAM", "normalise_reads", f"{READS} none.bam", "'none.bam' does not exist"),
    Case("no read group", "normalise_reads", f"{READS} unnamed.bam", "samtools addreplacerg"),
    Case(
        "another sample's BAM", "normalise_reads", f"{READS} s2.bam", "s2.bam: its read groups name sample s2"
    ),
    Case(
        "BAM of another reference",
        "normalise_reads",
        f"{READS} long.bam",
        "long.bam: its contig chr1 has 1600 bp",
    ),
    Case("BAM of another style", "normalise_reads", f"{READS} ensembl.bam", "ensembl.bam: its contig 1"),
    Case(
        "a table with one name",
        "normalise_reads",
        f"{READS} s1.bam --aliases names.tsv",
        "names.tsv, row 2: holds one name only (chr1)",
        {"names.tsv": "# names\nchr1\n"},
    ),
    Case(
        "a table that joins two contigs",
        "normalise_reads",
        f"{READS} s1.bam --aliases names.tsv",
        "are two contigs of the reference",
        {"names.tsv": "chr1\tchr2\n"},
    ),
    Case("no VCF", "normalise_variants", f"{CALLS} x.vcf", "x.vcf", {"x.vcf": "text\n"}),
    Case("truncated VCF", "normalise_variants", f"{CALLS} cut.vcf.gz", "cut.vcf.gz"),
    Case(
        "another sample's VCF",
        "normalise_variants",
        f"{CALLS} s2.vcf.gz",
        "s2.vcf.gz: holds sample s2, not s1",
    ),
    Case("wrong REF", "normalise_variants", f"{CALLS} ref.vcf.gz", "ref.vcf.gz: REF at chr1:100 is not what"),
    Case("VCF of another style", "normalise_variants", f"{CALLS} ensembl.vcf.gz", "ensembl.vcf.gz"),
    Case(
        "no sample and no --sites_only",
        "normalise_variants",
        "--reference reference.fasta --output out.vcf.gz --vcf calls.vcf.gz",
        "--sites_only",
    ),
    Case(
        "malformed BED",
        "split_intervals",
        f"{SPLIT} --intervals x.bed",
        "x.bed, row 2: is no BED interval",
        {"x.bed": "chr1\t0\t10\nchr1 20 30\n"},
    ),
    Case(
        "BED that ends before it starts",
        "split_intervals",
        f"{SPLIT} --intervals x.bed",
        "x.bed, row 1: start 30 is not before end 20",
        {"x.bed": "chr1\t30\t20\n"},
    ),
    Case(
        "empty BED",
        "split_intervals",
        f"{SPLIT} --intervals x.bed",
        "x.bed: holds no interval",
        {"x.bed": "# \n"},
    ),
    Case(
        "BED of another style",
        "split_intervals",
        f"{SPLIT} --intervals x.bed",
        "names contig 1, which reference.fasta lacks. Use its contig names, or map them with",
        {"x.bed": "1\t0\t10\n"},
    ),
    Case(
        "BED beyond the contig",
        "split_intervals",
        f"{SPLIT} --intervals x.bed",
        "reaches to 1501 on chr1, which has 1500 bp",
        {"x.bed": "chr1\t0\t1501\n"},
    ),
    Case("no parts", "split_intervals", f"{SPLIT} --parts 0", "0 is not in the range"),
    Case(
        "no index of the reference",
        "split_intervals",
        "--reference x.fa --outdir out",
        "x.fa.fai: does not exist",
        {"x.fa": ">z\nAC\n"},
    ),
    Case(
        "no pseudonym",
        "encode_variants",
        f"{ENCODE.replace('who', 'nobody')} --bam s1.bam --calls other=calls.vcf.gz",
        "nobody.json: has no pseudonym of the sample",
    ),
    Case(
        "a caller that is none",
        "encode_variants",
        f"{ENCODE} --bam s1.bam --calls x=calls.vcf.gz",
        "--calls x=",
    ),
    Case("no calls", "encode_variants", f"{ENCODE} --bam s1.bam", "--calls"),
    Case(
        "BAM without index",
        "encode_variants",
        f"{ENCODE} --bam bare.bam --calls other=calls.vcf.gz",
        "bare.bam: has no index",
    ),
    Case(
        "no table",
        "label_variants",
        f"{LABEL} --truth calls.vcf.gz --confident all.bed",
        "table.parquet: not a readable Parquet file",
        {"table.parquet": "text"},
    ),
    Case(
        "truth without regions",
        "label_variants",
        f"{LABEL} --truth calls.vcf.gz",
        "--confident",
        {"table.parquet": "text"},
    ),
    Case("empty samplesheet", "check_inputs", INPUTS, "sheet.csv: is empty.", {"sheet.csv": ""}),
    Case("no rows", "check_inputs", INPUTS, "sheet.csv: has a header but no rows.", {"sheet.csv": HEADER}),
    Case(
        "binary samplesheet",
        "check_inputs",
        INPUTS,
        "sheet.csv: is no CSV text",
        {"sheet.csv": b"\xff\xfe\x00"},
    ),
    Case(
        "unknown column",
        "check_inputs",
        INPUTS,
        "row 1: column pateint is unknown. Did you mean patient?",
        {"sheet.csv": HEADER.replace("patient", "pateint") + ROW},
    ),
    Case(
        "duplicated patient",
        "check_inputs",
        INPUTS,
        "row 3, column patient: patient p1 is at site h in row 2.",
        {"sheet.csv": HEADER + ROW + ROW.replace("h,p1,s1,s1", "i,p1,s2,s2")},
    ),
    Case(
        "no reads and no calls",
        "check_inputs",
        INPUTS,
        "row 2, column bam: is empty, and so is haplotypecaller_vcf.",
        {"sheet.csv": HEADER + ROW.replace("s1.bam", "")},
    ),
    Case(
        "unsorted reads that say otherwise",
        "check_inputs",
        INPUTS,
        "lying.bam says that it is sorted by coordinate but is not. Sort it with `samtools sort`.",
        {"sheet.csv": HEADER + ROW.replace("s1.bam", "lying.bam")},
    ),
    Case(
        "no JSON",
        "check_inputs",
        INPUTS,
        "parameters.json: not a readable JSON file",
        {"sheet.csv": HEADER + ROW, "parameters.json": "{"},
    ),
    Case(
        "a parameter that is none",
        "check_inputs",
        INPUTS,
        "--calers: is no parameter of this pipeline. Did you mean",
        {
            "sheet.csv": HEADER + ROW,
            "parameters.json": '{"outdir": "o", "min_sites": 1, "calers": "bcftools"}',
        },
    ),
]


def cut(path: Path, size: int = 28) -> bytes:
    return path.read_bytes()[:-size]


@pytest.fixture
def folder(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab's folder with right files and wrong ones, as the current folder."""
    here = lab.folder
    base = lab.sequences["chr1"][99]
    other = next(letter for letter in "ACGT" if letter != base)
    record = f"chr1 100 {base} {other} 50 PASS . GT 0/1"
    _ = lab.reference
    reads = [Read(100), Read(200), Read(50, contig="chr2")]
    lab.bam("s1.bam", reads)
    lab.bam("s2.bam", reads, sample="s2")
    lab.bam("bare.bam", reads, indexed=False)
    lab.bam("unnamed.bam", reads, sample=None)
    lab.bam("lying.bam", [Read(200), Read(100)], indexed=False)
    lab.bam("long.bam", [Read(100)], contigs={"chr1": 1600, "chr2": 600})
    lab.bam("ensembl.bam", [Read(100, contig="1", bases="A" * 100)], contigs={"1": 1500, "2": 600})
    (here / "cut.bam").write_bytes(cut(here / "s1.bam"))
    lab.vcf("calls.vcf.gz", [record])
    lab.vcf("s2.vcf.gz", [record], samples=["s2"])
    lab.vcf("ref.vcf.gz", [f"chr1 100 {other} {base} 50 PASS . GT 0/1"])
    lab.vcf("ensembl.vcf.gz", [record[3:]], header=["##contig=<ID=1,length=1500>"], indexed=False)
    (here / "cut.vcf.gz").write_bytes(cut(here / "calls.vcf.gz", 60))
    lab.bed("all.bed", ("chr1", 0, 1500))
    pysam.tabix_compress(str(lab.reference), str(here / "whole.fa.gz"))
    (here / "cut.fa.gz").write_bytes(cut(here / "whole.fa.gz", 200))
    lab.text(
        "parameters.json",
        json.dumps({"outdir": "o", "state_dir": "s", "min_sites": 1, "callers": "haplotypecaller,bcftools"}),
    )
    lab.text("who.json", '{"patient": "0a", "sample": "0b"}')
    lab.text("nobody.json", '{"patient": "0a", "sample": ""}')
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_input_is_refused_with_a_message(folder, case):
    for name, content in case.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {path.name for path in folder.iterdir()}
    result = run(case.command, *case.arguments.split())
    assert result.exit_code == case.status, (result.output, result.exception)
    assert case.says in " ".join(result.output.split()), result.output
    left = {path.name for path in folder.iterdir()} - before
    assert all(name == "out" and not any((folder / name).iterdir()) for name in left), left


def test_the_same_commands_take_what_is_right(folder):
    """The table's own files are wrong in one way only: with right ones every command succeeds."""
    (folder / "sheet.csv").write_text(HEADER + ROW)
    labelled = LABEL.replace("out.", "labelled.").replace("table", "out")
    for command, arguments in (
        ("prepare_reference", "--reference whole.fa.gz --outdir out"),
        ("normalise_reads", f"{READS} s1.bam"),
        ("normalise_variants", f"{CALLS} calls.vcf.gz"),
        ("split_intervals", f"{SPLIT} --intervals all.bed"),
        ("encode_variants", f"{ENCODE} --bam out.bam --calls other=out.vcf.gz"),
        ("label_variants", f"{labelled} --truth calls.vcf.gz --confident all.bed"),
        ("check_inputs", INPUTS),
    ):  # fmt: skip
        result = run(command, *arguments.split())
        assert result.exit_code == RIGHT, (command, result.output, result.exception)


def test_the_table_is_long_enough_and_names_no_case_twice():
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.command for case in CASES} == {
        "check_inputs", "normalise_reads", "normalise_variants", "split_intervals", "encode_variants",
        "label_variants", "prepare_reference",
    }  # fmt: skip
