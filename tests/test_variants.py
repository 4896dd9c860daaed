"""Tests of cordon.variants."""

import pysam
import pytest

from conftest import Read
from cordon.errors import UserError
from cordon.variants import bcftools_call, normalise_variants


def normalise(lab, records, sample="s1", **options):
    vcf = lab.vcf("in.vcf.gz", records, **options)
    output = lab.folder / "out.vcf.gz"
    count = normalise_variants(vcf=vcf, reference=lab.reference, sample=sample, output=output)
    with pysam.VariantFile(str(output)) as file:
        found = [(record.contig, record.pos, record.ref, *record.alts) for record in file]
    assert count == len(found)
    assert (lab.folder / "out.vcf.gz.tbi").exists()
    return found


def at(lab, position):
    return lab.sequences["chr1"][position - 1]


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def test_alleles_are_split_and_left_aligned(lab):
    first, second = [base for base in "ACGT" if base != at(lab, 100)][:2]
    records = [
        f"chr1 100 {at(lab, 100)} {first},{second} 50 . . GT 1/2",
        "chr1 505 AA A 50 . . GT 0/1",
    ]
    assert normalise(lab, records) == [
        ("chr1", 100, at(lab, 100), first),
        ("chr1", 100, at(lab, 100), second),
        ("chr1", 500, "CA", "C"),
    ]


def test_what_the_sample_does_not_carry_is_left_out(lab):
    base = at(lab, 100)
    records = [
        f"chr1 100 {base} {other(base)} 50 . . GT 0/0",
        f"chr1 110 {at(lab, 110)} {other(at(lab, 110))} 50 . . GT ./.",
        f"chr1 120 {at(lab, 120)} <NON_REF> 50 . . GT 0/1",
        f"chr1 130 {at(lab, 130)} *,{other(at(lab, 130))} 50 . . GT 1/2",
        f"chr1 140 {at(lab, 140)} {other(at(lab, 140))} 50 . . GT 0|1",
    ]
    assert [found[1] for found in normalise(lab, records)] == [130, 140]


def test_only_the_sample_asked_for_is_kept(lab):
    bases = [at(lab, position) for position in (100, 200)]
    records = [
        f"chr1 100 {bases[0]} {other(bases[0])} 50 . . GT 0/1 0/0",
        f"chr1 200 {bases[1]} {other(bases[1])} 50 . . GT 0/0 0/1",
    ]
    assert [found[1] for found in normalise(lab, records, "s2", samples=("s1", "s2"))] == [200]
    with pysam.VariantFile(str(lab.folder / "out.vcf.gz")) as file:
        assert list(file.header.samples) == ["s2"]
    with pytest.raises(UserError, match="holds sample s1, s2, not s3"):
        normalise(lab, records, "s3", samples=("s1", "s2"))


def test_the_same_allele_written_twice_is_one(lab):
    records = ["chr1 501 AA A 50 . . GT 0/1", "chr1 505 AA A 60 . . GT 0/1"]
    assert normalise(lab, records) == [("chr1", 500, "CA", "C")]


def test_soft_masked_bases_become_upper_case(lab):
    base = at(lab, 100)
    records = [f"chr1 100 {base.lower()} {other(base).lower()} 50 . . GT 0/1"]
    assert normalise(lab, records) == [("chr1", 100, base, other(base))]


def test_another_reference_is_noticed(lab):
    wrong = other(at(lab, 100))
    with pytest.raises(UserError, match=r"in\.vcf\.gz: REF at chr1:100 is not what"):
        normalise(lab, [f"chr1 100 {wrong} {at(lab, 100)} 50 . . GT 0/1"])
    assert not (lab.folder / "out.vcf.gz").exists()


def test_no_calls_give_an_indexed_empty_file(lab):
    assert normalise(lab, []) == []


def test_bcftools_finds_a_snv(lab):
    sequence = lab.sequences["chr1"]
    changed = sequence[:299] + other(sequence[299]) + sequence[300:]
    reads = [Read(start, bases=changed[start : start + 100]) for start in range(205, 295, 3)]
    output = lab.folder / "calls.vcf.gz"
    bam = lab.bam("in.bam", reads)
    assert bcftools_call(bam=bam, sample="s1", reference=lab.reference, output=output) == 1
    with pysam.VariantFile(str(output)) as file:
        (record,) = file
        assert (record.pos, record.ref, record.alts) == (300, sequence[299], (other(sequence[299]),))
        assert record.samples["s1"]["GT"] == (1, 1)
        assert record.samples["s1"]["AD"] == (0, 30)
