"""Tests of cordon.variants.spellings, and of labels that do not depend on how a haplotype is written."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calls_lab import candidates, other
from cordon.variants.haplotypes import REACH, Edit, replay
from cordon.variants.labels import label_variants
from cordon.variants.spellings import repeats, respelled, whole_haplotypes
from cordon.variants.table import LABELLED, read_table, write_table

FLANK = "GATTACAGGC" * 3


def test_a_row_that_writes_a_true_haplotype_is_real_and_the_variant_counts_once(lab):
    """Two substitutions, and one allele of both: whichever the truth has, and whichever is called."""
    bases = lab.sequences["chr1"][99:102]
    mnp = (100, bases, other(bases[0]) + bases[1] + other(bases[2]))
    one, two = (100, bases[0], mnp[2][0]), (102, bases[2], mnp[2][2])
    wrong = (100, bases, other(bases[0]) + bases[1] + other(other(bases[2])))
    for truth, called, expected, counted in (
        ([one, two], [one, mnp, two], [1, 1, 1], 2),
        ([mnp], [one, mnp, two], [1, 1, 1], 2),
        ([one, two], [mnp], [1], 1),
        ([mnp], [one, two], [1, 1], 2),
        ([mnp], [one, wrong, two], [1, 0, 1], 2),
        ([one, two], [one, wrong, two], [1, 0, 1], 2),
        ([mnp], [one, mnp], [1, 1], 2),
    ):
        table = labelled(lab, called, truth)
        assert table["label"].to_pylist() == expected, (truth, called)
        assert int(table.schema.metadata[b"cordon.truth_alleles"]) == counted


def labelled(lab, alleles, truth):
    table = candidates(*alleles)
    callers = ["other" if len(ref) > 1 else "bcftools;haplotypecaller" for _, ref, _ in alleles]
    place = table.schema.get_field_index("callers")
    write_table(table.set_column(place, "callers", pa.array(callers)), lab.folder / "v.parquet")
    records = [f"chr1 {at} {ref} {alt} . . . GT 0/1" for at, ref, alt in truth]
    label_variants(
        lab.folder / "v.parquet", lab.folder / "l.parquet", sample="s1", reference=lab.reference,
        truth=lab.vcf("truth.vcf.gz", records, indexed=False), confident=lab.bed("c.bed", ("chr1", 0, 1500)),
    )  # fmt: skip
    return read_table(lab.folder / "l.parquet", LABELLED)


@st.composite
def haplotypes(draw):
    """A reference of few kinds of bases, and what a haplotype changes: substitutions and one indel."""
    middle = draw(st.text("ACG", min_size=6, max_size=14))
    sequence = FLANK + middle + FLANK
    places = draw(st.sets(st.integers(0, len(middle) - 1), min_size=1, max_size=4))
    edits = []
    for number, place in enumerate(sorted(places)):
        at = len(FLANK) + place
        if number == 0 and draw(st.booleans()):
            edits.append(Edit(at, at, draw(st.text("ACG", min_size=1, max_size=3))))
        else:
            edits.append(Edit(at, at + 1, draw(st.sampled_from([b for b in "ACGT" if b != sequence[at]]))))
    return sequence, edits


def written(edit, sequence):
    """The edit as a VCF has it: with the base before, where it would have no base else."""
    ref = sequence[edit.start : edit.end]
    if ref and edit.alt:
        return (edit.start + 1, ref, edit.alt)
    return (edit.start, sequence[edit.start - 1] + ref, sequence[edit.start - 1] + edit.alt)


def real(called, truth, sequence):
    """The label of each of the alleles called, by a truth set."""
    held = [allele for allele in called if allele in truth]
    rest = [allele for allele in called if allele not in truth]
    found = np.array([allele in held for allele in sorted(truth)])
    result = respelled(rest, sorted(truth), found, sequence)
    return [allele in held or allele in result.real for allele in called], result


@settings(max_examples=300, deadline=None)
@given(made=haplotypes())
@example(made=(FLANK + "CTC" + FLANK, [Edit(30, 31, "G"), Edit(32, 33, "G")]))
def test_a_true_haplotype_is_real_however_it_is_written(made):
    """As alleles of their own, as one allele, and as alleles of which some are put together."""
    sequence, edits = made
    alleles = [written(edit, sequence) for edit in edits]
    first, last = edits[0].start, max(edit.end for edit in edits)
    spelled = replay(edits, sequence)[first : last + len(replay(edits, sequence)) - len(sequence)]
    whole = written(Edit.of(first + 1, sequence[first:last], spelled), sequence)
    half = max(edits[:2][-1].end, edits[0].end)
    begin = replay(edits[:2], sequence)
    begin = written(
        Edit.of(first + 1, sequence[first:half], begin[first : half + len(begin) - len(sequence)]), sequence
    )
    spellings = [alleles, [whole], sorted([begin, *alleles[2:]])]
    for truth in spellings:
        for called in spellings:
            assert all(real(called, truth, sequence)[0]), (truth, called)
    for truth in spellings:
        found = real([whole], truth, sequence)[1].found
        assert found == (frozenset() if whole in truth else frozenset(range(len(truth))))


def test_the_spelling_of_most_callers_stands_then_the_preferred_one():
    sequence = FLANK + "CTC" + FLANK
    one, mnp, two = (31, "C", "G"), (31, "CTC", "GTG"), (33, "C", "G")
    alleles = [one, mnp, two]
    for callers, expected in (
        (["haplotypecaller", "other", "haplotypecaller"], [((0, 2), (1,))]),
        (["haplotypecaller", "bcftools;other", "haplotypecaller"], [((1,), (0, 2))]),
        (["bcftools", "haplotypecaller", "bcftools"], [((1,), (0, 2))]),
        (["haplotypecaller", "other", "deepvariant"], [((1,), (0, 2))]),
        (["other", "other", "other"], [((0, 2), (1,))]),
    ):
        assert repeats(alleles, callers, sequence) == expected
    assert repeats([one, two], ["other", "other"], sequence) == []
    assert repeats([mnp, two], ["other", "other"], sequence) == []


def test_a_truth_allele_that_is_neither_kind_alone_leaves_what_lies_in_it_without_a_label():
    sequence = FLANK + "CTC" + FLANK
    truth = [(31, "CTC", "GT")]
    _, result = real([(31, "C", "A"), (40, "A", "T"), truth[0]], truth, sequence)
    assert result.unknown == {(31, "C", "A")}
    assert not result.real


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_batches_are_cut_where_alleles_are_far_apart(size):
    """On several contigs, in whatever batches the rows come; no row is lost."""
    positions = [10, 20, 25 + REACH, 500, 501, 10, 5, 400]
    contigs = ["chr1"] * 5 + ["chr2"] + ["chr3"] * 2
    table = pa.table({"contig": contigs, "position": positions, "ref": ["A"] * 8})
    batches = [table.slice(start, size) for start in range(0, 8, size)]
    found = list(whole_haplotypes(batches))
    assert pa.concat_tables(found).to_pydict() == table.to_pydict()
    for before, after in pairwise(found):
        (end,), (start,) = before.slice(before.num_rows - 1).to_pylist(), after.slice(0, 1).to_pylist()
        assert start["contig"] != end["contig"] or start["position"] > end["position"] + 1 + REACH
