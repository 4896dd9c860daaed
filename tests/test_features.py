"""Tests of cordon.features and of what fills them: calls, context, pileup and encoding."""

import math

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Read
from cordon import context, pileup
from cordon.calls import CallSet, parse_calls
from cordon.context import Allele
from cordon.encoding import encode
from cordon.errors import UserError
from cordon.features import CALLERS, FEATURES, features
from cordon.tables import VARIANTS

HC_HEADER = [
    *(
        f'##INFO=<ID={name},Number=1,Type=Float,Description="x">'
        for name in ("QD", "FS", "SOR", "MQ", "MQRankSum", "ReadPosRankSum")
    ),
    '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="x">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">',
]
GOOD = "QD=20;FS=1;SOR=0.7;MQ=60;MQRankSum=0;ReadPosRankSum=0"


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def snv(lab, position):
    ref = lab.sequences["chr1"][position - 1]
    return ref, other(ref)


def with_alt(lab, position, start, length=100):
    sequence = lab.sequences["chr1"]
    changed = sequence[: position - 1] + other(sequence[position - 1]) + sequence[position:]
    return changed[start : start + length]


def evidence(lab, reads, *alleles):
    bam = lab.bam("in.bam", reads)
    with pysam.AlignmentFile(str(bam)) as file:
        found = pileup.gather(file, "chr1", lab.sequences["chr1"], alleles)
    assert tuple(found) == pileup.EVIDENCE
    return found


def test_reads_for_and_against_a_snv_are_counted(lab):
    ref, alt = snv(lab, 300)
    reads = [
        Read(250, quality=20),
        Read(250, flag=16, quality=40, mapping_quality=10),
        Read(260, bases=with_alt(lab, 300, 260), tags={"NM": 4}, quality=35),
        Read(270, bases=with_alt(lab, 300, 270), flag=16),
        Read(270, bases=with_alt(lab, 300, 270), flag=0x400),
        Read(280, cigar="10S90M", bases="A" * 10 + with_alt(lab, 300, 280, 90), flag=0x1),
    ]
    found = {name: values[0] for name, values in evidence(lab, reads, Allele(299, ref, alt)).items()}
    assert found["depth"] == 5
    assert (found["ref_forward"], found["ref_reverse"]) == (1, 1)
    assert (found["alt_forward"], found["alt_reverse"]) == (2, 1)
    assert found["ref_base_quality"] == 30
    assert found["alt_base_quality"] == pytest.approx((35 + 30 + 30) / 3)
    assert found["ref_mapping_quality"] == 35
    assert found["low_mapping_quality"] == pytest.approx(1 / 5)
    assert found["alt_end_distance"] == pytest.approx((39 + 29 + 19) / 3)
    assert found["alt_soft_clipped"] == pytest.approx(1 / 3)
    assert found["alt_mismatches"] == pytest.approx((3 + 0 + 0) / 3)
    assert found["improper_pairs"] == pytest.approx(1 / 3)
    assert found["other_alleles"] == 0


def test_another_base_counts_as_another_allele_from_two_reads_on(lab):
    ref, alt = snv(lab, 300)
    third = next(base for base in "ACGT" if base not in (ref, alt))
    bases = lab.sequences["chr1"][250:299] + third + lab.sequences["chr1"][300:350]
    one = evidence(lab, [Read(250), Read(250, bases=bases)], Allele(299, ref, alt))
    two = evidence(lab, [Read(250, bases=bases), Read(250, bases=bases)], Allele(299, ref, alt))
    assert (one["other_alleles"][0], two["other_alleles"][0]) == (0, 1)


@pytest.mark.parametrize("gap", [501, 505, 509])
def test_a_deletion_counts_wherever_it_is_written_in_its_repeat(lab, gap):
    sequence = lab.sequences["chr1"]
    deleted = sequence[450:gap] + sequence[gap + 1 : 551]
    reads = [
        Read(405),  # ends inside the run: says nothing of its length
        Read(450, cigar=f"{gap - 450}M1D{550 - gap}M", bases=deleted),
        Read(450),
    ]
    found = evidence(lab, reads, Allele(499, "CA", "C"))
    assert (found["depth"][0], found["alt_forward"][0], found["ref_forward"][0]) == (2, 1, 1)


@pytest.mark.parametrize(("place", "inserted", "is_alt"), [(700, "AC", 1), (701, "CA", 1), (700, "AG", 0)])
def test_an_insertion_counts_when_its_bases_are_the_same_turned(lab, place, inserted, is_alt):
    sequence = lab.sequences["chr1"]
    bases = sequence[650:place] + inserted + sequence[place:750]
    read = Read(650, cigar=f"{place - 650}M2I{750 - place}M", bases=bases)
    found = evidence(lab, [read], Allele(699, "G", "GAC"))
    assert (found["depth"][0], found["alt_forward"][0]) == (1, is_alt)


def test_a_block_substitution_is_compared_whole(lab):
    sequence = lab.sequences["chr1"]
    alt = other(sequence[299]) + other(sequence[300])
    half = sequence[250:299] + alt[0] + sequence[300:350]
    both = sequence[250:299] + alt + sequence[301:350]
    found = evidence(
        lab, [Read(250), Read(250, bases=half), Read(250, bases=both)], Allele(299, sequence[299:301], alt)
    )
    assert (found["depth"][0], found["ref_forward"][0], found["alt_forward"][0]) == (3, 1, 1)


def test_alleles_without_reads_have_depth_0_and_no_means(lab):
    found = evidence(lab, [Read(0)], Allele(299, *snv(lab, 300)))
    assert found["depth"][0] == 0
    assert math.isnan(found["alt_base_quality"][0])
    none = pileup.nothing(1)
    assert all(np.array_equal(none[name], found[name], equal_nan=True) for name in pileup.EVIDENCE)


def test_context_of_repeats(lab):
    sequence = lab.sequences["chr1"]
    alleles = [Allele(299, *snv(lab, 300)), Allele(499, "CA", "C"), Allele(699, "G", "GAC")]
    found = context.describe(sequence, alleles)
    assert tuple(sorted(found)) == tuple(sorted(context.CONTEXT))
    assert found["homopolymer"].tolist()[1:] == [10, 1]
    assert found["repeat_unit"].tolist()[1:] == [1, 2]
    assert found["repeat_length"].tolist()[1:] == [10, 12]
    assert found["indel_length"].tolist() == [0, -1, 2]
    assert found["snv"].tolist() == [1, 0, 0]
    assert found["nearest_candidate"].tolist() == [200, 200, 200]


def test_transitions_are_within_purines_or_pyrimidines():
    alleles = [Allele(5, ref, alt) for ref, alt in ("AG", "CT", "AC", "GT")]
    assert context.describe("ACGTACGTACGT", alleles)["transition"].tolist() == [1, 1, 0, 0]


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
        allele = Allele(start, sequence[start], sequence[start] + bases[:size])
    else:
        size = min(size, len(sequence) - start - 2)
        if size < 1:
            return
        allele = Allele(start, sequence[start : start + 1 + size], sequence[start])
    room = context.shift_room(allele, sequence, 0)

    def applied(shift):
        at = start + 1 + shift
        if insertion:
            turn = shift % size
            return sequence[:at] + bases[turn:size] + bases[:turn] + sequence[at:]
        return sequence[:at] + sequence[at + size :]

    assert applied(room) == applied(0)
    assert len({applied(shift) for shift in range(room + 1)}) == 1


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_features_are_bounded_and_never_missing(data):
    def column():
        number = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6), st.just(math.inf))
        return np.array([data.draw(number)])

    names = ["qd", "gq", "fs", "sor", "mq", "mq_rank_sum", "read_pos_rank_sum"]
    calls = {f"{caller}_qual": column() for caller in CALLERS} | {"dosage": column()}
    calls |= {f"haplotypecaller_{name}": column() for name in names}
    reads = {name: np.abs(column()) for name in pileup.EVIDENCE}
    around = {name: column() for name in context.CONTEXT}
    with np.errstate(all="ignore"):
        values = features(calls, reads, around)
    assert values.shape == (1, len(FEATURES))
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 3


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        (GOOD, True),
        ("QD=20;FS=1;SOR=0.7;MQ=60", True),
        (GOOD.replace("QD=20", "QD=1.9"), False),
        (GOOD.replace("FS=1", "FS=61"), False),
        (GOOD.replace("MQRankSum=0", "MQRankSum=-13"), False),
    ],
)
def test_haplotypecallers_hard_filters(lab, fields, passed):
    ref, alt = snv(lab, 300)
    vcf = lab.vcf("a.vcf.gz", [f"chr1 300 {ref} {alt} 50 . {fields} GT 0/1"], header=HC_HEADER)
    (call,) = CallSet("haplotypecaller", vcf, "s1").read("chr1").values()
    assert call.passed is passed
    assert call.values["dosage"] == 0.5


def test_the_other_callers_filters_and_qd_by_depth(lab):
    ref, alt = snv(lab, 300)
    header = [*HC_HEADER, '##FILTER=<ID=RefCall,Description="x">']
    vcf = lab.vcf("a.vcf.gz", [f"chr1 300 {ref} {alt} 19 RefCall . GT:DP 1/1:10"], header=header)
    for caller in ("bcftools", "deepvariant"):
        (call,) = CallSet(caller, vcf, "s1").read("chr1").values()
        assert not call.passed
        assert call.values["qd"] == pytest.approx(1.9)
        assert call.values["dosage"] == 1


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
    bam = lab.bam("in.bam", [Read(250), Read(260, bases=with_alt(lab, 300, 260))])
    table = encode(site="a", patient="p", sample="s1", bam=bam, reference=lab.reference, calls=calls)
    assert table.schema.equals(VARIANTS, check_metadata=True)
    places = zip(table["contig"].to_pylist(), table["position"].to_pylist(), strict=True)
    assert list(places) == [("chr1", 300), ("chr1", 400), ("chr2", 50)]
    assert table["callers"].to_pylist() == ["bcftools;haplotypecaller", "bcftools", "haplotypecaller"]
    assert table["bcftools_pass"].to_pylist() == [True, False, None]
    assert table["haplotypecaller_qual"].to_pylist() == [50, None, 9]
    assert table["f_called_haplotypecaller"].to_pylist() == [1, 0, 1]
    assert table["f_alt_fraction"].to_pylist() == [0, -2, -2]


def test_encoding_no_calls_gives_an_empty_table(lab):
    calls = {"bcftools": lab.vcf("bt.vcf.gz", [])}
    bam = lab.bam("in.bam", [Read(250)])
    table = encode(site="a", patient="p", sample="s1", bam=bam, reference=lab.reference, calls=calls)
    assert table.num_rows == 0
    assert table.schema.equals(VARIANTS)


def test_calls_of_another_sample_or_unsplit_are_refused(lab):
    ref, alt = snv(lab, 300)
    third = next(base for base in "ACGT" if base not in (ref, alt))
    vcf = lab.vcf("a.vcf.gz", [f"chr1 300 {ref} {alt},{third} 50 . . GT 1/2"])
    with pytest.raises(UserError, match=r"a\.vcf\.gz: chr1:300 holds 3 alleles"):
        CallSet("bcftools", vcf, "s1").read("chr1")
    with pytest.raises(UserError, match=r"holds sample s1, expected s2"):
        CallSet("bcftools", vcf, "s2")


@pytest.mark.parametrize("arguments", [["gatk=a.vcf"], ["bcftools"], [], ["bcftools=absent.vcf"]])
def test_wrong_calls_arguments_are_refused(arguments):
    with pytest.raises(UserError, match="--calls"):
        parse_calls(arguments)
