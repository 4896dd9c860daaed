"""Tests of cordon.variants.features, cordon.variants.context and cordon.variants.encode."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_lab import GOOD, HC_HEADER, encoded, other, snv
from conftest import Read
from cordon.calls.callers import ANNOTATIONS, CALLERS
from cordon.variants import context, pileup
from cordon.variants.context import Alleles
from cordon.variants.features import FEATURES, features
from cordon.variants.table import VARIANTS
from pileup_lab import with_alt


def described(sequence, *alleles, **neighbours):
    starts, refs, alts = zip(*alleles, strict=True)
    return context.describe(sequence.encode(), Alleles(np.array(starts), refs, alts), **neighbours)


def test_context_of_repeats(lab):
    sequence = lab.sequences["chr1"]
    found = described(sequence, (299, *snv(lab, 300)), (499, "CA", "C"), (699, "G", "GAC"))
    assert tuple(sorted(found)) == tuple(sorted(context.CONTEXT))
    assert found["homopolymer"].tolist()[1:] == [10, 1]
    assert found["repeat_unit"].tolist()[1:] == [1, 2]
    assert found["repeat_length"].tolist()[1:] == [10, 12]
    assert found["indel_length"].tolist() == [0, -1, 2]
    assert found["snv"].tolist() == [1, 0, 0]
    assert found["nearest_candidate"].tolist() == [200, 200, 200]
    neighbours = described(sequence, (299, *snv(lab, 300)), before=250, after=306)
    assert neighbours["nearest_candidate"].tolist() == [7]


def test_transitions_are_within_purines_or_pyrimidines():
    alleles = [(5, ref, alt) for ref, alt in ("AG", "CT", "AC", "GT")]
    assert described("ACGTACGTACGT", *alleles)["transition"].tolist() == [1, 1, 0, 0]


def plain_homopolymer(sequence, at):
    runs = []
    for start in (at - 1, at, at + 1):
        if 0 <= start < len(sequence):
            left = right = start
            while left > 0 and sequence[left - 1] == sequence[start]:
                left -= 1
            while right + 1 < len(sequence) and sequence[right + 1] == sequence[start]:
                right += 1
            runs.append(right - left + 1)
    return max(runs)


def plain_repeat(sequence, at):
    best = (0, 0)
    for unit in range(1, 7):
        left = right = at
        while (
            left > 0 and left - 1 + unit < len(sequence) and sequence[left - 1] == sequence[left - 1 + unit]
        ):
            left -= 1
        while right + unit < len(sequence) and sequence[right] == sequence[right + unit]:
            right += 1
        if right + unit - left >= 2 * unit and right + unit - left > best[1]:
            best = (unit, right + unit - left)
    return best


@given(st.text("ACG", min_size=3, max_size=60), st.data())
@settings(max_examples=300, deadline=None)
def test_context_is_what_a_walk_along_the_sequence_finds(sequence, data):
    at = data.draw(st.integers(0, len(sequence) - 1))
    found = described(sequence, (at, sequence[at], "T"))
    assert found["homopolymer"][0] == plain_homopolymer(sequence, at)
    assert (found["repeat_unit"][0], found["repeat_length"][0]) == plain_repeat(sequence, at)
    near = sequence[max(0, at - 50) : at + 51]
    assert found["gc"][0] == pytest.approx((near.count("G") + near.count("C")) / len(near))


@given(
    st.text("AC", min_size=8, max_size=40),
    st.integers(0, 30),
    st.integers(1, 4),
    st.booleans(),
    st.text("AC", min_size=4, max_size=4),
)
@settings(max_examples=200)
def test_an_indel_moved_within_its_room_gives_the_same_sequence(left, start, size, insertion, bases):
    sequence = "G" + left + "T"
    start %= len(left)
    if insertion:
        allele = (start, sequence[start], sequence[start] + bases[:size])
    else:
        size = min(size, len(sequence) - start - 2)
        if size < 1:
            return
        allele = (start, sequence[start : start + 1 + size], sequence[start])
    room = context.shift_room(*allele, sequence.encode(), 0)

    def applied(shift):
        at = start + 1 + shift
        if insertion:
            turn = shift % size
            return sequence[:at] + bases[turn:size] + bases[:turn] + sequence[at:]
        return sequence[:at] + sequence[at + size :]

    assert applied(room) == applied(0)
    assert len({applied(shift) for shift in range(room + 1)}) == 1


@pytest.mark.stress
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_features_are_bounded_and_never_missing(data):
    def column():
        number = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6), st.just(math.inf))
        return np.array([data.draw(number)])

    quals = {caller: column() for caller in CALLERS}
    annotations = {name: column() for name in ANNOTATIONS}
    reads = {name: np.abs(column()) for name in pileup.EVIDENCE}
    around = {name: column() for name in context.CONTEXT}
    with np.errstate(all="ignore"):
        values = features(quals, annotations, reads, around)
    assert values.shape == (1, len(FEATURES))
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 3


def test_a_call_without_qual_is_like_the_middle_one_and_not_like_the_worst(lab):
    """As of a cohort's calls, whose QUAL is taken as missing."""
    calls = {"haplotypecaller": lab.vcf("hc.vcf.gz", [f"chr1 300 {' '.join(snv(lab, 300))} . . . GT 0/1"])}
    (row,) = encoded(lab, calls).to_pylist()
    assert row["f_called_haplotypecaller"] == 1.0
    assert row["f_haplotypecaller_qual"] == pytest.approx(0.0, abs=1e-6)
    assert row["f_qd"] == 0.0
    assert row["haplotypecaller_qd"] is None or math.isnan(row["haplotypecaller_qd"])


def test_encoding_joins_the_callers(lab):
    first, second = snv(lab, 300), snv(lab, 400)
    hc = [f"chr1 300 {first[0]} {first[1]} 50 . {GOOD} GT:GQ 0/1:99", "chr2 50 N A 9 . . GT 0/1"]
    hc[1] = (
        hc[1].replace("N", lab.sequences["chr2"][49]).replace(" A ", f" {other(lab.sequences['chr2'][49])} ")
    )
    bt = [f"chr1 300 {first[0]} {first[1]} 40 . . GT 0/1", f"chr1 400 {second[0]} {second[1]} 5 . . GT 0/1"]
    calls = {
        "haplotypecaller": lab.vcf("hc.vcf.gz", hc, header=HC_HEADER),
        "bcftools": lab.vcf("bt.vcf.gz", bt),
    }
    table = encoded(lab, calls, [Read(250), Read(260, bases=with_alt(lab, 300, 260))])
    assert table.schema.equals(VARIANTS, check_metadata=True)
    places = zip(table["contig"].to_pylist(), table["position"].to_pylist(), strict=True)
    assert list(places) == [("chr1", 300), ("chr1", 400), ("chr2", 50)]
    assert table["callers"].to_pylist() == ["bcftools;haplotypecaller", "bcftools", "haplotypecaller"]
    assert table["bcftools_pass"].to_pylist() == [True, False, None]
    assert table["haplotypecaller_qual"].to_pylist() == [50, None, 9]
    assert table["f_called_haplotypecaller"].to_pylist() == [1, 0, 1]
    assert table["f_alt_fraction"].to_pylist() == [0, -2, -2]
    assert table["f_reads_missing"].to_pylist() == [0, 0, 0]
    assert set(table["sample"].to_pylist()) == {"pseudonym"}
    assert table["variant_type"].to_pylist() == ["SNV"] * 3
    assert table["zygosity"].to_pylist() == ["heterozygous"] * 3
    assert table["allele_frequency"].null_count == 3


def test_without_reads_depth_and_fraction_are_the_callers(lab):
    ref, alt = snv(lab, 300)
    header = [*HC_HEADER, '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">']
    records = [
        f"chr1 300 {ref} {alt} 50 . . GT:AD:DP 1/1:0,30:30",
        f"chr1 400 {snv(lab, 400)[0]} {snv(lab, 400)[1]} 50 . . GT 0/1",
    ]
    table = encoded(lab, {"other": lab.vcf("o.vcf.gz", records, header=header)})
    assert table["f_reads_missing"].to_pylist() == [1, 1]
    assert table["f_depth_missing"].to_pylist() == [0, 1]
    assert table["f_depth"].to_pylist() == [0, 0]
    assert table["f_alt_fraction"].to_pylist() == [2, 0]
    assert table["f_gq_missing"].to_pylist() == [1, 1]
    assert table["zygosity"].to_pylist() == ["homozygous", "heterozygous"]


def test_frequencies_come_from_a_resource(lab):
    alleles = [(position, *snv(lab, position)) for position in (300, 400)]
    records = [f"chr1 {position} {ref} {alt} 50 . . GT 0/1" for position, ref, alt in alleles]
    population = lab.vcf(
        "af.vcf.gz", [f"chr1 300 {alleles[0][1]} {alleles[0][2]} . . AF=0.25"], samples=(),
        header=['##INFO=<ID=AF,Number=A,Type=Float,Description="x">'],
    )  # fmt: skip
    table = encoded(lab, {"bcftools": lab.vcf("b.vcf.gz", records)}, [Read(250)], frequencies=population)
    assert table["allele_frequency"].to_pylist() == [0.25, 0]


def test_encoding_no_calls_gives_an_empty_table(lab):
    calls = {"bcftools": lab.vcf("bt.vcf.gz", [])}
    table = encoded(lab, calls, [Read(250)])
    assert table.num_rows == 0
    assert table.schema.equals(VARIANTS)
