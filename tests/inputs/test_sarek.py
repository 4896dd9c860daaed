"""Tests of cordon.inputs.sarek, on folders as nf-core/sarek 3 leaves them."""

import csv

import pytest

from conftest import Read
from cordon.errors import InputProblems, UserError
from cordon.inputs.sarek import samplesheet_from_sarek


class Results:
    """A results folder; sarek names samples PATIENT_SAMPLE in read groups and calls."""

    def __init__(self, lab):
        self.lab = lab
        self.root = lab.folder / "results"

    def reads(self, step, name, file, sample):
        folder = self.root / "preprocessing" / step / name
        folder.mkdir(parents=True, exist_ok=True)
        bam = self.lab.bam(f"{name}.made.bam", [Read(100)], sample=sample)
        bam.rename(folder / file)
        self.lab.folder.joinpath(f"{bam.name}.bai").rename(folder / f"{file}.bai")

    def calls(self, tool, name, file, sample):
        folder = self.root / "variant_calling" / tool / name
        folder.mkdir(parents=True, exist_ok=True)
        vcf = self.lab.vcf("made.vcf.gz", ["chr1 100 A C 50 PASS . GT 0/1"], samples=[sample], indexed=False)
        vcf.rename(folder / file)

    def sheet(self, name, *rows):
        (self.root / "csv").mkdir(parents=True, exist_ok=True)
        (self.root / "csv" / name).write_text("\n".join(rows) + "\n")

    def take(self, callers=("haplotypecaller", "deepvariant"), folder="/data/results"):
        output = self.lab.folder / "samplesheet.csv"
        samplesheet_from_sarek(sarek=self.root, folder=folder, site="h", callers=callers, output=output)
        with output.open() as file:
            return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]


@pytest.fixture
def results(lab):
    return Results(lab)


def test_the_most_processed_reads_and_the_raw_calls_are_taken(results):
    results.reads("markduplicates", "N1", "N1.md.bam", "p1_N1")
    results.reads("recalibrated", "N1", "N1.recal.bam", "p1_N1")
    for end in ("g.vcf.gz", "filtered.vcf.gz", "vcf.gz"):
        results.calls("haplotypecaller", "N1", f"N1.haplotypecaller.{end}", "p1_N1")
    results.calls("deepvariant", "N1", "N1.deepvariant.g.vcf.gz", "p1_N1")
    results.calls("strelka", "N1", "N1.strelka.variants.vcf.gz", "p1_N1")
    calls = "/data/results/variant_calling"
    assert results.take() == [
        {
            "site": "h",
            "patient": "p1",
            "sample": "p1_N1",
            "bam": "/data/results/preprocessing/recalibrated/N1/N1.recal.bam",
            "bai": "/data/results/preprocessing/recalibrated/N1/N1.recal.bam.bai",
            "haplotypecaller_vcf": f"{calls}/haplotypecaller/N1/N1.haplotypecaller.vcf.gz",
            "deepvariant_vcf": f"{calls}/deepvariant/N1/N1.deepvariant.g.vcf.gz",
        }
    ]
    (row,) = results.take(callers=("other",))
    assert row["other_vcf"].endswith("strelka/N1/N1.strelka.variants.vcf.gz")
    assert "haplotypecaller_vcf" not in row


def test_tumours_pairs_and_joint_calls_are_left_out_and_sheets_name_patients(results):
    for name in ("N1", "T1"):
        results.reads("recalibrated", name, f"{name}.recal.bam", f"anna_{name}")
    results.calls("haplotypecaller", "N1", "N1.haplotypecaller.vcf.gz", "anna_N1")
    results.calls("haplotypecaller", "joint_variant_calling", "joint_germline.vcf.gz", "anna_N1")
    results.calls("strelka", "T1_vs_N1", "T1_vs_N1.strelka.somatic_snvs.vcf.gz", "TUMOR")
    results.sheet(
        "recalibrated.csv",
        "patient,sex,status,sample,bam,bai",
        "Anna,XX,0,N1,somewhere/N1.recal.bam,somewhere/N1.recal.bam.bai",
        "Anna,XX,1,T1,somewhere/T1.recal.bam,somewhere/T1.recal.bam.bai",
    )
    assert [(row["patient"], row["sample"]) for row in results.take()] == [("Anna", "anna_N1")]


def test_calls_without_reads_and_reads_without_calls(results):
    results.calls("haplotypecaller", "A", "A.haplotypecaller.vcf.gz", "p_A")
    results.reads("mapped", "B", "B.sorted.bam", "p_B")
    first, second = results.take()
    assert (first["sample"], "bam" in first) == ("p_A", False)
    assert (second["sample"], "haplotypecaller_vcf" in second) == ("p_B", False)


def test_lanes_are_not_a_samples_reads(results):
    results.reads("mapped", "A", "A-L1.bam", "p_A")
    results.reads("mapped", "A", "A-L2.bam", "p_A")
    results.calls("haplotypecaller", "A", "A.haplotypecaller.vcf.gz", "p_A")
    (row,) = results.take()
    assert "bam" not in row


def test_files_that_do_not_agree_or_cannot_be_read_are_named_all_at_once(results):
    results.reads("recalibrated", "A", "A.recal.bam", "p_A")
    results.calls("haplotypecaller", "A", "A.haplotypecaller.vcf.gz", "p_B")
    results.reads("recalibrated", "C", "C.recal.bam", "p_C")
    (results.root / "preprocessing" / "recalibrated" / "C" / "C.recal.bam").write_text("no BAM")
    with pytest.raises(InputProblems) as caught:
        results.take()
    first, second = (str(problem) for problem in caught.value.problems)
    assert "sample A: has files that name other samples: p_A in A.recal.bam, p_B in A.haplo" in first
    assert "sample C: has a file that cannot be read" in second
    assert not (results.lab.folder / "samplesheet.csv").exists()


def test_a_folder_that_is_none_of_sareks(results):
    results.root.mkdir()
    with pytest.raises(UserError, match=r"/data/results: holds no germline sample"):
        results.take()


def test_the_command_writes_where_the_folder_lies(results, command):
    results.reads("recalibrated", "A", "A.recal.bam", "p_A")
    output = results.lab.folder / "s.csv"
    said = command(
        "samplesheet_from_sarek", "--sarek", str(results.root), "--site", "h", "--output", str(output)
    )
    assert said.splitlines()[0] == "1 samples, 1 with reads"
    assert f",{results.root}/preprocessing/recalibrated/A/A.recal.bam," in output.read_text()
