"""What private names rest on: a name to be written beside that in the files, and errors that name nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pysam
import pytest
from click.testing import CliRunner, Result

from bin_commands import command_of
from conftest import ROOT, Lab, Read, table_row
from cordon.console.commands import PRIVATE_ERRORS, Facts, command
from cordon.inputs.samplesheet import COLUMNS
from cordon.variants.table import VARIANTS, write_batches
from cordon.variants.table import pa as arrow

NAME, OTHER, ID = "Anna_Muster", "Otto_Muster", "0f5e"
HEADER = "site,patient,sample,bam,bai,truth_vcf,confident_bed,role"


class House:
    """Anna's files as a task has them, and what it is told of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.folder, self.kept = lab, lab.folder, lab.folder / "private" / "error.txt"
        (self.folder / "given").mkdir()
        base = lab.sequences["chr1"][99]
        self.record = f"chr1 100 {base} {'A' if base != 'A' else 'C'} 50 PASS . GT"

    def told(self, **files: str) -> Path:
        """The JSON of a task's standard input: the files lie in a folder that has the patient's name."""
        own = {option: f"/data/{NAME}/{name}" for option, name in files.items()}
        return self.lab.text("given.json", json.dumps({"sample": NAME} | own))

    def run(self, name: str, line: str, *, private: bool = False) -> Result:
        words = [*line.split(), *(["--private_errors", str(self.kept)] if private else [])]
        return CliRunner().invoke(command_of(name), words)


@pytest.fixture
def house(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.chdir(lab.folder)
    assert lab.reference.exists()
    return House(lab)


def reads_line(house: House) -> str:
    given = house.told(bam="reads.bam")
    return f"--bam given/reads --sample {ID} --given {given} --reference reference.fasta --output {ID}.bam"


def calls_line(house: House) -> str:
    given = house.told(vcf="calls.vcf.gz")
    return f"--vcf given/calls --sample {ID} --given {given} --reference reference.fasta --output {ID}.vcf.gz"


def label_line(house: House) -> str:
    given = house.told(truth="truth.vcf.gz", confident="confident.bed")
    row = table_row(contig="chr1", position=100)
    table = arrow.Table.from_pylist([{name: row.get(name) for name in VARIANTS.names}], schema=VARIANTS)
    write_batches("v.parquet", VARIANTS, [table])
    return (
        f"--variants v.parquet --sample {ID} --given {given} --reference reference.fasta --output l.parquet"
        " --truth given/truth --confident given/confident"
    )


@pytest.mark.parametrize("kind", ["bam", "cram"])
def test_reads_are_written_under_another_name_and_are_the_same_reads(house: House, kind: str) -> None:
    bam = house.lab.bam("x.bam", [Read(100), Read(100), Read(200)], sample=NAME)
    if kind == "bam":
        bam.rename("given/reads")
    else:
        pysam.view("-C", "-T", "reference.fasta", "-o", "given/reads", str(bam), catch_stdout=False)
    result = house.run("normalise_reads", reads_line(house))
    assert result.output == f"{ID}: sorted, duplicates marked; duplicates: 1 of 3 mapped reads (33.3%)\n"
    with pysam.AlignmentFile(f"{ID}.bam") as file:
        assert [group["SM"] for group in file.header.to_dict()["RG"]] == [ID]
        assert [read.reference_start for read in file] == [100, 100, 200]
        assert NAME not in str(file.header)
    assert sorted(path.name for path in house.folder.iterdir() if ID in path.name) == [
        f"{ID}.bam", f"{ID}.bam.bai",
    ]  # fmt: skip


def test_calls_of_one_of_several_samples_are_written_under_another_name(house: House) -> None:
    house.lab.vcf("x.vcf.gz", [f"{house.record} 0/0 1/1"], samples=[OTHER, NAME]).rename("given/calls")
    result = house.run("normalise_variants", calls_line(house))
    assert result.output.startswith(f"{ID}: alleles kept: 1 ")
    with pysam.VariantFile(f"{ID}.vcf.gz") as file:
        assert [record.samples[0]["GT"] for record in file] == [(1, 1)]
        assert list(file.header.samples) == [ID]


def test_the_truth_is_that_of_the_name_in_its_file(house: House) -> None:
    line = label_line(house)
    house.lab.bed("given/confident", ("chr1", 0, 1500))
    for genotypes, real in (("1/1 0/0", 0), ("0/0 1/1", 1)):
        record = house.record.replace(" 50 PASS", " . .")
        row = record.split()
        house.lab.vcf("x.vcf.gz", [f"{record} {genotypes}"], samples=[OTHER, NAME]).rename("given/truth")
        table = arrow.Table.from_pylist(
            [{name: (table_row(contig="chr1", position=100, ref=row[2], alt=row[3])).get(name)
              for name in VARIANTS.names}], schema=VARIANTS,
        )  # fmt: skip
        write_batches("v.parquet", VARIANTS, [table])
        result = house.run("label_variants", line)
        assert result.output == "v.parquet: labelled by given/truth inside given/confident\n"
        assert arrow.parquet.read_table("l.parquet")["label"].to_pylist() == [real]


def wrong_reads(house: House) -> str:
    house.lab.bam("x.bam", [Read(100)], sample=OTHER).rename("given/reads")
    return reads_line(house)


def wrong_calls(house: House) -> str:
    house.lab.vcf("x.vcf.gz", [f"{house.record} 0/1"], samples=[OTHER]).rename("given/calls")
    return calls_line(house)


def wrong_truth(house: House) -> str:
    samples = [OTHER, "Emma_Muster"]
    house.lab.vcf("x.vcf.gz", [f"{house.record} 0/1 0/1"], samples=samples).rename("given/truth")
    house.lab.bed("given/confident", ("chr1", 0, 1500))
    return label_line(house)


def wrong_regions(house: House) -> str:
    house.lab.text("given/confident", f"chr1\t{OTHER}\t100\n")
    house.lab.vcf("x.vcf.gz", [f"{house.record} 0/1"], samples=[NAME]).rename("given/truth")
    return label_line(house)


WRONG = [
    ("normalise_reads", wrong_reads, "reads.bam: its read groups name sample Otto_Muster, not Anna_Muster."),
    ("normalise_variants", wrong_calls, "calls.vcf.gz: holds sample Otto_Muster, not Anna_Muster."),
    (
        "label_variants",
        wrong_truth,
        "truth.vcf.gz: holds samples Otto_Muster, Emma_Muster, none of them Anna_Muster.",
    ),
    ("label_variants", wrong_regions, "confident.bed, row 1: is no BED interval"),
]


@pytest.mark.parametrize(("name", "made", "says"), WRONG, ids=[made.__name__ for _, made, _ in WRONG])
def test_an_error_names_the_user_s_file_and_with_private_names_nobody(
    house: House, name: str, made: Any, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    line = made(house)
    public = house.run(name, line)
    assert public.exit_code == 2
    assert f"/data/{NAME}/{says}" in public.stderr
    private = house.run(name, line, private=True)
    assert private.exit_code == 2
    assert "Muster" not in private.output + "".join(capfd.readouterr())
    assert private.stderr.startswith("error: ")
    assert private.stderr.endswith(f"the whole message is in {house.kept}.\n")
    assert house.kept.read_text() == public.stderr
    assert house.kept.stat().st_mode & 0o777 == 0o600
    as_json = json.loads(house.run(name, f"{line} --json", private=True).stdout)
    assert f"error: {as_json['problem']}\n" == private.stderr
    assert "problems" not in as_json


@command()
@click.argument("kind")
@PRIVATE_ERRORS
def example(kind: str) -> Facts:
    """Does what it is told, beside a library that tells all."""
    os.write(2, f"[E::library] {NAME}\n".encode())
    match kind:
        case "bug":
            raise KeyError(NAME)
        case "disk":
            raise OSError(28, "No space left on device", f"/data/{NAME}.bam")
        case "usage":
            raise click.UsageError("Two of them. Give one.")
    return Facts({}, ["done"])


@pytest.mark.parametrize(
    ("kind", "status", "says", "keeps"),
    [
        ("bug", 1, "error: KeyError. Names", ["[E::library] Anna", "KeyError: 'Anna_Muster'", "Traceback"]),
        ("disk", 2, "error: No space left on device. Names", ["/data/Anna_Muster.bam: No space left on"]),
        ("usage", 2, "Error: Two of them. Give one.", None),
        ("none", 0, "", None),
    ],
)  # fmt: skip
def test_what_libraries_say_and_what_nobody_foresaw_is_kept_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
    kind: str, status: int, says: str, keeps: list[str] | None,
) -> None:  # fmt: skip
    kept = tmp_path / "new" / "error.txt"
    result = CliRunner().invoke(example, [kind, "--private_errors", str(kept)])
    assert result.exit_code == status
    assert says in result.stderr
    assert "Muster" not in result.output + "".join(capfd.readouterr())
    if keeps is None:
        assert not kept.exists()
    else:
        assert [words for words in keeps if words not in kept.read_text()] == []
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(example, ["none", "--private_errors", f"{tmp_path}/file/error.txt"])
    assert result.exit_code == 2
    assert "error.txt: cannot be made (" in result.stderr
    assert result.stderr.endswith("Check --state_dir.\n")


def inputs(house: House, *rows: str, header: str = HEADER) -> str:
    house.lab.text("sheet.csv", "\n".join([header, *rows]) + "\n")
    parameters = {"outdir": "o", "state_dir": "s", "min_sites": 1, "callers": "bcftools"}
    house.lab.text("parameters.json", json.dumps(parameters))
    schema = f"{ROOT}/nextflow_schema.json"
    return (
        f"--samplesheet sheet.csv --reference reference.fasta --parameters parameters.json --schema {schema}"
        " --state state --output out.csv --names names.csv"
    )


def test_private_problems_name_row_column_and_remedy(house: House) -> None:
    house.lab.bam("Muster.bam", [Read(100)], sample=NAME)
    rows = [
        f"h,{NAME},{NAME},Muster.bam,,,,score",
        f"h,{OTHER},{OTHER},Muster.bam,,Muster.vcf.gz,,score",
        "h,Emma Muster,Emma_Muster,Emma_Muster.bam,,,,score",
    ]
    result = house.run("check_inputs", inputs(house, *rows), private=True)
    assert result.exit_code == 2
    first, *problems, last = result.stderr.replace("  - sheet.csv, ", "").splitlines()
    assert first == "error: 6 problems in the input:"
    assert problems == [
        "row 4, column patient: The patient, by one id at all sites of a state folder, always; all samples "
        "of a patient are one privacy unit.",
        "row 3, column bam: Keep one row a sample; merge its lanes into one BAM first.",
        "row 3, column confident_bed: Give both, or neither.",
        "row 3, column bam: Write the BAM's sample name in the row, or give this sample's BAM.",
        "row 3, column truth_vcf: Correct the path, or copy the file there.",
        "row 4, column bam: Correct the path, or copy the file there.",
    ]
    assert last.endswith(f"the whole message is in {house.kept}.")
    whole = house.kept.read_text()
    for cell in (
        "'Emma Muster' is no id",
        "Muster.bam holds sample Anna_Muster (@RG SM), the row says Otto_M",
    ):
        assert cell in whole
    assert not Path("names.csv").exists()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", ["Muster", "Mus ter", "Muster.bam", "Muster.vcf.gz", "Muster.bed"])
def test_no_cell_is_told_wherever_it_stands(house: House, column: str, value: str) -> None:
    house.lab.bam("Muster.bam", [Read(100)], sample=None)
    house.lab.bed("Muster.bed", ("chr7", 0, 1500))
    house.lab.vcf("Muster.vcf.gz", [f"{house.record} 0/1"], samples=["Muster"])
    right = dict.fromkeys(COLUMNS, "") | {"site": "h", "patient": "p", "sample": "s", "bam": "Muster.bam"}
    row = ",".join((right | {column: value}).values())
    result = house.run("check_inputs", inputs(house, row, row, header=",".join(COLUMNS)), private=True)
    assert result.exit_code == 2
    told = result.output.replace("Mus ter", "Muster")
    assert "sheet.csv, row 3, column sample" in told
    # A site is named everywhere, as public in the consortium.
    assert "Muster" not in told


def test_who_is_who_is_written_for_the_house_alone(house: House) -> None:
    house.lab.bam("Muster.bam", [Read(100)], sample=NAME)
    row = f"h,{OTHER},{NAME},Muster.bam,,,,score"
    result = house.run("check_inputs", inputs(house, row), private=True)
    assert result.exit_code == 0, result.output
    header, line = Path("names.csv").read_text().splitlines()
    assert header == "site,patient,sample,patient_pseudonym,sample_pseudonym"
    assert line.startswith(f"h,{OTHER},{NAME},")
    assert Path("out.csv").read_text().splitlines()[1].endswith(line.removeprefix(f"h,{OTHER},{NAME}"))
    assert Path("names.csv").stat().st_mode & 0o777 == 0o600
    assert not house.kept.exists()
