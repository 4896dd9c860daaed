"""Tests of cordon.calls.fields: what cannot be split is dropped and counted, and the rest is read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calls_lab import other
from cordon.calls.fields import Fields
from stages_lab import normalised, scored

FORMAT = [
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">',
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">',
]
LATER = [
    '##FORMAT=<ID=LAA,Number=.,Type=Integer,Description="x">',
    '##FORMAT=<ID=LAD,Number=LR,Type=Integer,Description="x">',
    '##FORMAT=<ID=LPL,Number=LG,Type=Integer,Description="x">',
    '##FORMAT=<ID=PSL,Number=P,Type=String,Description="x">',
]


def records(text):
    return [line.split("\t") for line in text.decode().splitlines() if not line.startswith("#")]


def two(lab, at):
    ref = lab.sequences["chr1"][at - 1]
    return f"chr1 {at} {ref} {other(ref)},{other(other(ref))}"


def test_three_copies_of_a_contig_are_split_without_their_likelihoods(lab):
    line = f"{two(lab, 310)} 122 . . GT:AD:PL 0/1/2:4,7,8:0,1,2,3,4,5,6,7,8,9"
    given = lab.vcf("in.vcf.gz", [line], header=FORMAT)
    assert normalised(lab, given)[1].fields_dropped == 1
    found = [(fields[8], fields[9]) for fields in records(scored(lab, haplotypecaller=given))]
    assert sorted(found) == [("GT:AD", "0/0/1:4,8"), ("GT:AD", "0/1/0:4,7")]


@pytest.mark.parametrize(("sample", "dropped"), [("1/2:0,3,3:9,8,7,6,5,4", 0), ("1:0,3,0:9,8,7", 0)])
def test_likelihoods_of_one_and_two_copies_stay(lab, sample, dropped):
    given = lab.vcf("in.vcf.gz", [f"{two(lab, 310)} 122 . . GT:AD:PL {sample}"], header=FORMAT)
    summary = normalised(lab, given)[1]
    assert (summary.fields_dropped, summary.kept) == (dropped, len(sample.split(":")[0].split("/")))


def test_a_wrong_number_of_values_that_nobody_uses_does_not_end_a_run(lab):
    header = ['##INFO=<ID=AS_QD,Number=A,Type=Float,Description="x">', *FORMAT]
    header += ['##INFO=<ID=AS_MQ,Number=A,Type=Float,Description="x">']
    given = lab.vcf("in.vcf.gz", [f"{two(lab, 200)} 122 . AS_QD=3.1,2;AS_MQ=0.1 GT 1/2"], header=header)
    assert normalised(lab, given)[1].fields_dropped == 1
    lines = records(scored(lab, haplotypecaller=given))
    assert [fields[7].split(";")[0] for fields in lines] == ["AS_QD=3.1", "AS_QD=2"]
    assert not any("AS_MQ" in fields[7] for fields in lines)


def test_vcf_4_5_comes_out_as_4_2_that_other_programs_read(lab):
    """Leading phase, local alleles, fields by chromosome copy; depths of local alleles become AD."""
    ref = lab.sequences["chr1"][199]
    alts = [base for base in "ACGT" if base != ref]
    lines = [
        f"chr1 200 {ref} {','.join(alts)} 50 . . GT:LAA:LAD:LPL:PSL /0|3:3:5,6:1,0,2:a,b",
        f"chr1 300 {lab.sequences['chr1'][299]} {other(lab.sequences['chr1'][299])} 50 . . GT |1",
    ]
    path = lab.vcf("in.vcf.gz", lines, header=LATER)
    later = lab.folder / "in.vcf"
    later.write_text(later.read_text().replace("VCFv4.2", "VCFv4.5"))
    result = scored(lab, haplotypecaller=later)
    assert result.startswith(b"##fileformat=VCFv4.2\n")
    first, second = records(result)
    assert (first[4], first[8], first[9]) == (alts[2], "GT:AD", "0|1:5,6")
    assert second[9] == "1"
    assert not any(name in result for name in (b"ID=LAA", b"ID=LAD", b"ID=LPL", b"ID=PSL"))
    assert path.exists()


@settings(max_examples=200)
@given(
    st.sampled_from([b"A", b"R", b"G", b"1", b".", b"P", b"LR"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_values_that_are_kept_have_as_many_as_they_must(number, values, alternatives):
    fields = Fields()
    fields.declared(b"##FORMAT=<ID=X,Number=" + number + b',Type=Integer,Description="x">\n')
    text = b",".join(b"%d" % value for value in values)
    _, layout, _ = fields.record(alternatives, b".", b"GT:X", b"0/1:" + text)
    alleles = alternatives + 1
    right = {b"A": {alternatives}, b"R": {alleles}, b"G": {alleles, alleles * (alleles + 1) // 2}}
    kept = number not in (b"P", b"LR")
    if number in right and alternatives > 1:
        kept = len(values) in right[number]
    assert (layout == b"GT:X", fields.dropped) == (kept, not kept)
