"""Tests of cordon.labels and cordon.regions."""

import pyarrow as pa
import pytest

from cordon.encoding import encode
from cordon.errors import InputProblems, UserError
from cordon.features import FEATURES
from cordon.labels import label
from cordon.regions import read_regions
from cordon.tables import LABELLED, VARIANTS, read_table, write_table
from cordon.variants import bcftools_call, normalise_variants


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def candidates(*alleles):
    rows = []
    for position, ref, alt in alleles:
        row = {field.name: None for field in VARIANTS} | dict.fromkeys(FEATURES, 0.0)
        row |= {"site": "a", "patient": "p", "sample": "s1", "callers": "bcftools"}
        rows.append(row | {"contig": "chr1", "position": position, "ref": ref, "alt": alt})
    return pa.Table.from_pylist(rows, schema=VARIANTS)


def snv(lab, position):
    ref = lab.sequences["chr1"][position - 1]
    return position, ref, other(ref)


def labelled(lab, alleles, truth, confident=(("chr1", 0, 1500),), samples=("s1",)):
    return label(
        candidates(*alleles),
        truth=lab.vcf("truth.vcf.gz", truth, samples=samples, indexed=False),
        confident=lab.bed("confident.bed", *confident),
        reference=lab.reference,
    )


def record(allele, genotype="GT 0/1"):
    position, ref, alt = allele
    return f"chr1 {position} {ref} {alt} . . . {genotype}".strip()


def test_real_false_and_outside(lab):
    alleles = [snv(lab, position) for position in (100, 200, 300)]
    table = labelled(lab, alleles, [record(alleles[0])], [("chr1", 0, 250)])
    assert table["label"].to_pylist() == [1, 0, None]
    assert table.schema.metadata[b"cordon.truth_alleles"] == b"1"
    assert table.schema.metadata[b"cordon.truth_found"] == b"1"


def test_the_last_base_inside_and_the_first_outside(lab):
    alleles = [snv(lab, 250), snv(lab, 251)]
    assert labelled(lab, alleles, [record(snv(lab, 20))], [("chr1", 0, 250)])["label"].to_pylist() == [
        0,
        None,
    ]


def test_the_truth_is_left_aligned_before_it_is_compared(lab):
    table = labelled(lab, [(500, "CA", "C")], ["chr1 505 AA A . . . GT 0/1"])
    assert table["label"].to_pylist() == [1]


def test_near_an_unmatched_truth_allele_is_ambiguous(lab):
    alleles = [snv(lab, position) for position in (89, 90, 110, 111)]
    table = labelled(lab, alleles, [record(snv(lab, 100))])
    assert table["label"].to_pylist() == [0, None, None, 0]
    assert table.schema.metadata[b"cordon.truth_found"] == b"0"


def test_near_a_matched_truth_allele_is_false(lab):
    alleles = [snv(lab, 100), snv(lab, 104)]
    assert labelled(lab, alleles, [record(alleles[0])])["label"].to_pylist() == [1, 0]


def test_truth_alleles_that_the_genotype_does_not_hold_do_not_count(lab):
    allele = snv(lab, 100)
    table = labelled(lab, [allele], [record(allele, "GT 0/0"), record(snv(lab, 300), "GT 0/1")])
    assert table["label"].to_pylist() == [0]
    assert table.schema.metadata[b"cordon.truth_alleles"] == b"1"


def test_truth_without_genotypes_or_of_a_sample_otherwise_named(lab):
    allele = snv(lab, 100)
    assert labelled(lab, [allele], [record(allele, "")], samples=())["label"].to_pylist() == [1]
    assert labelled(lab, [allele], [record(allele)], samples=("HG001",))["label"].to_pylist() == [1]
    with pytest.raises(UserError, match="none of them s1"):
        labelled(lab, [allele], [record(allele, "GT 0/1 0/1")], samples=("a", "b"))


def test_labels_survive_writing(lab):
    table = labelled(lab, [snv(lab, 100)], [record(snv(lab, 100))])
    write_table(table, lab.folder / "l.parquet")
    again = read_table(lab.folder / "l.parquet", LABELLED)
    assert again["label"].to_pylist() == [1]
    assert again.schema.metadata == table.schema.metadata


def test_overlapping_regions_are_one(lab):
    regions = read_regions(lab.text("a.bed", "track x\nc\t10\t20\nc\t5\t12\tname\nc\t20\t30\n\nc\t40\t50\n"))
    assert regions.hold("c", 5, 30)
    assert not regions.hold("c", 29, 31)
    assert regions.hold("c", 40, 41)
    assert not regions.hold("d", 5, 6)


def test_malformed_regions_are_named_by_row(lab):
    with pytest.raises(InputProblems) as caught:
        read_regions(lab.text("a.bed", "c 1 2\nc\t1\t2\nc\t9\t4\n"))
    assert [problem.where for problem in caught.value.problems] == [
        f"{lab.folder}/a.bed, row 1", f"{lab.folder}/a.bed, row 3",
    ]  # fmt: skip
    with pytest.raises(InputProblems, match="holds no interval"):
        read_regions(lab.text("b.bed", "# nothing\n"))


def test_real_reads_give_the_truth_of_na12878(na12878, na12878_reference, na12878_bam, tmp_path):
    reference, called, normal = na12878_reference, tmp_path / "c.vcf.gz", tmp_path / "n.vcf.gz"
    bcftools_call(bam=na12878_bam, sample="NA12878", reference=reference, output=called)
    normalise_variants(vcf=called, reference=reference, sample="NA12878", output=normal)
    table = encode(
        site="a",
        patient="p",
        sample="NA12878",
        bam=na12878_bam,
        reference=reference,
        calls={"bcftools": normal},
    )
    truth = na12878 / "NIST.chr20_10.0-10.1mb.truth.vcf.gz"
    confident = na12878 / "NIST.chr20_10.0-10.1mb.confident.bed"
    result = label(table, truth=truth, confident=confident, reference=reference)
    assert result.schema.metadata[b"cordon.truth_alleles"] == b"49"
    assert int(result.schema.metadata[b"cordon.truth_found"]) >= 45
    assert result["label"].to_pylist().count(0) <= 3
