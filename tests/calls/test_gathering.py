"""Tests of cordon.calls.gather."""

import pysam
import pytest
from pysam import bcftools

from cordon.calls.gather import gather_calls
from cordon.calls.normalise import bcftools_call
from cordon.errors import UserError
from cordon.genome.intervals import split_intervals


def parts(lab):
    return [
        lab.vcf("1.vcf.gz", ["chr1 10 A C 50 PASS . GT 0/1", "chr1 20 A C 50 PASS . GT 1/1"]),
        lab.vcf("2.vcf.gz", []),
        lab.vcf("3.vcf.gz", ["chr1 30 A C 50 PASS . GT 0/1", "chr2 5 A C 50 PASS . GT 0/1"]),
    ]


def test_parts_come_in_order_whole_and_indexed(lab):
    output = lab.folder / "all.vcf.gz"
    assert gather_calls(parts(lab), output) == 4
    lines = bcftools.view("-H", str(output)).splitlines()
    assert ["\t".join(line.split("\t")[:2]) for line in lines] == [
        "chr1\t10",
        "chr1\t20",
        "chr1\t30",
        "chr2\t5",
    ]
    with pysam.VariantFile(str(output)) as records:
        assert [record.pos for record in records.fetch("chr2")] == [5]


def test_parts_in_another_order_or_of_other_samples_are_refused(lab):
    first, empty, last = parts(lab)
    for wrong in (
        [last, empty, first],
        [first, lab.vcf("other.vcf.gz", ["chr1 30 A C 50 PASS . GT 0/1"], samples=["s2"])],
    ):
        with pytest.raises(UserError, match=wrong[0].name):
            gather_calls(wrong, lab.folder / "wrong.vcf.gz")
        assert not (lab.folder / "wrong.vcf.gz").exists()


@pytest.mark.stress
def test_a_caller_in_parts_calls_what_it_calls_in_one(na12878_bam, na12878_reference, tmp_path):
    """bcftools on real reads; cuts fall anywhere, because these 270 kb hold no run of N."""
    region = tmp_path / "region.bed"
    region.write_text("chr20\t9999999\t10270433\n")
    called = {}
    for parts in (1, 7):
        folder = tmp_path / str(parts)
        split_intervals(reference=na12878_reference, intervals=region, parts=parts, outdir=folder)
        vcfs = [bed.with_suffix(".vcf.gz") for bed in sorted(folder.glob("*.bed"))]
        for vcf in vcfs:
            given = {"bam": na12878_bam, "sample": "NA12878", "reference": na12878_reference}
            bcftools_call(**given, intervals=vcf.with_name(f"{vcf.name[:4]}.bed"), output=vcf)
        gather_calls(vcfs, folder / "all.vcf.gz")
        called[parts] = bcftools.view("-H", str(folder / "all.vcf.gz")).splitlines()
    assert called[7] == called[1]
    assert len(called[1]) > 350


def test_the_command(lab, command):
    given = [word for part in parts(lab) for word in ("--vcf", str(part))]
    said = command("gather_calls", *given, "--output", str(lab.folder / "all.vcf.gz"))
    assert said.endswith("all.vcf.gz: 4 records of 3 parts\n")
