"""Tests of cordon.variants.labels, cordon.variants.known_sites and cordon.genome.regions."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_lab import candidates, other
from cordon.calls.normalise import bcftools_call, normalise_variants
from cordon.errors import InputProblems, UserError
from cordon.genome.regions import read_regions
from cordon.variants import labels
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.labels import label_variants
from cordon.variants.pileup_images import SIZE
from cordon.variants.table import LABELLED, PILEUP, VARIANTS, read_table, write_batches, write_table


def snv(lab, position, contig="chr1"):
    ref = lab.sequences[contig][position - 1]
    return position, ref, other(ref)


def labelled(lab, alleles, truth, confident=(("chr1", 0, 1500),), samples=("s1",), **more):
    table = alleles if isinstance(alleles, list) and isinstance(alleles[0], pa.Table) else None
    write_batches(lab.folder / "v.parquet", VARIANTS, table or [candidates(*alleles)])
    label_variants(
        lab.folder / "v.parquet",
        lab.folder / "l.parquet",
        sample="s1",
        truth=lab.vcf("truth.vcf.gz", truth, samples=samples, indexed=False),
        confident=lab.bed("confident.bed", *confident),
        reference=lab.reference,
        **more,
    )
    return read_table(lab.folder / "l.parquet", LABELLED)


def record(allele, genotype="GT 0/1"):
    position, ref, alt = allele
    return f"chr1 {position} {ref} {alt} . . . {genotype}".strip()


def test_real_false_and_outside(lab):
    alleles = [snv(lab, position) for position in (100, 200, 300)]
    table = labelled(lab, alleles, [record(alleles[0])], [("chr1", 0, 250)])
    assert table["label"].to_pylist() == [1, 0, None]
    assert table.schema.metadata[b"cordon.truth_alleles"] == b"1"
    assert table.schema.metadata[b"cordon.truth_found"] == b"1"


def test_labels_leave_the_images_where_there_are_some(lab):
    alleles = [snv(lab, position) for position in (100, 200)]
    images = [bytes([place]) * SIZE for place in (1, 2)]
    table = candidates(*alleles).append_column(PILEUP, pa.array(images, PILEUP.type))
    write_table(table, lab.folder / "v.parquet")
    files = {
        "truth": lab.vcf("truth.vcf.gz", [record(alleles[0])], indexed=False),
        "confident": lab.bed("confident.bed", ("chr1", 0, 1500)),
        "reference": lab.reference,
    }
    label_variants(lab.folder / "v.parquet", lab.folder / "l.parquet", sample="s1", **files)
    again = read_table(lab.folder / "l.parquet", LABELLED.append(PILEUP))
    assert again["label"].to_pylist() == [1, 0]
    assert again["pileup"].to_pylist() == images


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


def test_labels_and_their_source_are_in_the_file(lab):
    table = labelled(lab, [snv(lab, 100)], [record(snv(lab, 100))])
    assert table["label"].to_pylist() == [1]
    assert table.schema.metadata[b"cordon.variants.labels"] == b"truth set"


def test_a_truth_allele_of_another_row_group_is_matched_and_does_not_make_its_neighbour_ambiguous(lab):
    first, second = candidates(snv(lab, 100)), candidates(snv(lab, 104), snv(lab, 300))
    table = labelled(lab, [first, second], [record(snv(lab, 104)), record(snv(lab, 305))])
    assert table["label"].to_pylist() == [0, 1, None]


def test_the_same_position_on_another_contig_is_another_allele(lab):
    batch = pa.concat_tables([candidates(snv(lab, 100)), candidates(snv(lab, 100, "chr2"), contig="chr2")])
    confident = [("chr1", 0, 1500), ("chr2", 0, 600)]
    table = labelled(lab, [batch], [record(snv(lab, 100))], confident)
    assert table["label"].to_pylist() == [1, 0]


def test_a_long_deletion_that_no_candidate_matches_is_ambiguous_to_its_end(lab):
    sequence = lab.sequences["chr1"]
    deletion = (99, sequence[98:160], sequence[98])
    alleles = [snv(lab, position) for position in (88, 89, 150, 170, 171)]
    table = labelled(lab, alleles, [record(deletion), record(snv(lab, 120))])
    assert table["label"].to_pylist() == [0, None, None, None, 0]


def test_contig_names_of_truth_and_regions_are_mapped_by_the_table_only(lab):
    aliases = lab.text("aliases.tsv", "chr1\t1\n")
    truth, confident = [record(snv(lab, 100)).replace("chr1", "1")], [("1", 0, 1500)]
    vcf = lab.folder / "truth.vcf"
    header = '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n'
    header += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\n"
    contig, position, *rest = truth[0].split()
    vcf.write_text(header + "\t".join([contig, position, ".", *rest]) + "\n")
    write_table(candidates(snv(lab, 100), snv(lab, 200)), lab.folder / "v.parquet")
    files = {"truth": vcf, "confident": lab.bed("c.bed", *confident), "reference": lab.reference}
    label_variants(lab.folder / "v.parquet", lab.folder / "l.parquet", sample="s1", aliases=aliases, **files)
    assert read_table(lab.folder / "l.parquet", LABELLED)["label"].to_pylist() == [1, 0]
    with pytest.raises(UserError):
        label_variants(lab.folder / "v.parquet", lab.folder / "m.parquet", sample="s1", **files)
    assert not (lab.folder / "m.parquet").exists()


def test_a_table_of_two_samples_or_of_none(lab):
    both = [candidates(snv(lab, 100)), candidates(snv(lab, 200), sample="s2")]
    with pytest.raises(UserError, match=r"v\.parquet: holds more than one sample"):
        labelled(lab, both, [record(snv(lab, 100))])
    table = labelled(lab, [VARIANTS.empty_table()], [record(snv(lab, 100))])
    assert table.num_rows == 0
    assert table.schema.metadata[b"cordon.truth_alleles"] == b"1"


@settings(max_examples=200, deadline=None)
@given(
    missed=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 120)), max_size=8),
    asked=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 120)), min_size=1, max_size=8),
)
def test_near_is_what_comparing_all_with_all_says(missed, asked):
    spans = np.array(sorted((start, start + length) for start, length in missed)).reshape(-1, 2)
    starts = np.array([start for start, _ in asked])
    ends = starts + np.array([length for _, length in asked])
    near = labels._near(spans[:, 0], np.maximum.accumulate(spans[:, 1]), starts, ends)
    assert near.tolist() == [
        any(begin < end + 10 and stop > start - 10 for begin, stop in spans.tolist())
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


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


@pytest.mark.stress
def test_real_reads_give_the_truth_of_na12878(na12878, na12878_reference, na12878_bam, tmp_path):
    reference, called, normal = na12878_reference, tmp_path / "c.vcf.gz", tmp_path / "n.vcf.gz"
    bcftools_call(bam=na12878_bam, sample="NA12878", reference=reference, output=called)
    normalise_variants(vcf=called, reference=reference, sample="NA12878", output=normal)
    parts = encode(
        identity=SampleIdentity("a", "p", "s"),
        sample="NA12878",
        bam=na12878_bam,
        reference=reference,
        calls={"bcftools": normal},
    )
    write_batches(tmp_path / "v.parquet", VARIANTS, parts)
    label_variants(
        tmp_path / "v.parquet",
        tmp_path / "l.parquet",
        sample="NA12878",
        truth=na12878 / "NIST.chr20_10.0-10.1mb.truth.vcf.gz",
        confident=na12878 / "NIST.chr20_10.0-10.1mb.confident.bed",
        reference=reference,
    )
    result = read_table(tmp_path / "l.parquet", LABELLED)
    assert result.schema.metadata[b"cordon.truth_alleles"] == b"49"
    assert int(result.schema.metadata[b"cordon.truth_found"]) >= 45
    assert result["label"].to_pylist().count(0) <= 3


def test_the_command_prints_no_count_of_either_class(lab, command):
    write_table(candidates(snv(lab, 100), snv(lab, 200)), lab.folder / "v.parquet")
    files = {
        "variants": lab.folder / "v.parquet",
        "reference": lab.reference,
        "truth": lab.vcf("truth.vcf.gz", [record(snv(lab, 100))]),
        "confident": lab.bed("c.bed", ("chr1", 0, 1500)),
        "output": lab.folder / "l.parquet",
    }
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    printed = command("label_variants", "--sample", "s1", *options)
    for path in files.values():
        printed = printed.replace(str(path), "")
    assert not re.search(r"\d", printed)
    assert read_table(lab.folder / "l.parquet", LABELLED)["label"].to_pylist() == [1, 0]


@pytest.mark.parametrize("told", ["lowconf", "lowconf;q10"])
def test_a_truth_record_that_a_filter_failed_is_no_truth(lab, told):
    alleles = [snv(lab, position) for position in (100, 200, 300)]
    filters = [told, "PASS", "."]
    truth = [
        f"chr1 {at} {ref} {alt} 50 {said} . GT 0/1"
        for (at, ref, alt), said in zip(alleles, filters, strict=True)
    ]
    header = [f'##FILTER=<ID={name},Description="x">' for name in ("lowconf", "q10")]
    write_table(candidates(*alleles), lab.folder / "v.parquet")
    given = {
        "sample": "s1", "reference": lab.reference, "confident": lab.bed("c.bed", ("chr1", 0, 1500)),
        "truth": lab.vcf("t.vcf.gz", truth, header=header),
    }  # fmt: skip
    for passing, expected in ((True, [0, 1, 1]), (False, [1, 1, 1])):
        label_variants(lab.folder / "v.parquet", lab.folder / "l.parquet", passing=passing, **given)
        table = read_table(lab.folder / "l.parquet", LABELLED)
        assert table["label"].to_pylist() == expected
        assert int(table.schema.metadata[b"cordon.truth_alleles"]) == sum(expected)


def test_a_truth_set_of_which_filters_leave_nothing_is_refused(lab):
    """All candidates would be false."""
    position, ref, alt = snv(lab, 100)
    truth = [f"chr1 {position} {ref} {alt} 50 Silver . GT 0/1"]
    write_table(candidates((position, ref, alt)), lab.folder / "v.parquet")
    with pytest.raises(UserError, match=r"a filter failed 1 of its records.*--filtered_records keep"):
        label_variants(
            lab.folder / "v.parquet", lab.folder / "l.parquet", sample="s1", reference=lab.reference,
            truth=lab.vcf("t.vcf.gz", truth, header=['##FILTER=<ID=Silver,Description="x">']),
            confident=lab.bed("c.bed", ("chr1", 0, 1500)),
        )  # fmt: skip


def test_a_resource_record_that_a_filter_failed_is_not_known(lab, command):
    records = [
        f"chr1 {at} {' '.join(snv(lab, at)[1:])} 50 {told} AF=0.5" for at, told in ((100, "AC0"), (200, "."))
    ]
    header = ['##FILTER=<ID=AC0,Description="x">', '##INFO=<ID=AF,Number=A,Type=Float,Description="x">']
    vcf, out = lab.vcf("r.vcf.gz", records, samples=(), header=header), lab.folder / "out.vcf.gz"
    asked = ["--vcf", str(vcf), "--sites_only", "--reference", str(lab.reference), "--output", str(out)]
    assert command("normalise_variants", *asked) == "sites: alleles kept: 2 (records: 2)\n"
    told = command("normalise_variants", *asked, "--filtered_records", "drop")
    assert told == "sites: alleles kept: 1 (records: 2, filtered: 1)\n"
