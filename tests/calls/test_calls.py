"""Tests of cordon.calls.read and cordon.variants.candidates."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from calls_lab import GOOD, HC_HEADER, snv
from cordon.calls.read import CALLS, CallSet, parse_calls
from cordon.errors import UserError
from cordon.variants.candidates import union


def called(caller, vcf, sample="s1", contig="chr1"):
    return pa.concat_tables(CallSet(caller, vcf, sample).read(contig)).to_pylist()


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
    (call,) = called("haplotypecaller", vcf)
    assert call["passed"] is passed
    assert call["dosage"] == 0.5


def test_the_other_callers_filters_and_qd_by_depth(lab):
    ref, alt = snv(lab, 300)
    header = [*HC_HEADER, '##FILTER=<ID=RefCall,Description="x">']
    vcf = lab.vcf("a.vcf.gz", [f"chr1 300 {ref} {alt} 19 RefCall . GT:DP 1/1:10"], header=header)
    for caller in ("bcftools", "deepvariant", "other"):
        (call,) = called(caller, vcf)
        assert not call["passed"]
        assert call["qd"] == pytest.approx(1.9)
        assert call["dosage"] == 1


def test_calls_of_another_sample_or_unsplit_are_refused(lab):
    ref, alt = snv(lab, 300)
    third = next(base for base in "ACGT" if base not in (ref, alt))
    vcf = lab.vcf("a.vcf.gz", [f"chr1 300 {ref} {alt},{third} 50 . . GT 1/2"])
    with pytest.raises(UserError, match=r"a\.vcf\.gz: chr1:300 holds 3 alleles"):
        called("bcftools", vcf)
    with pytest.raises(UserError, match=r"holds sample s1, expected s2"):
        CallSet("bcftools", vcf, "s2")


@pytest.mark.parametrize("arguments", [["gatk=a.vcf"], ["bcftools"], [], ["bcftools=absent.vcf"]])
def test_wrong_calls_arguments_are_refused(arguments):
    with pytest.raises(UserError, match="--calls"):
        parse_calls(arguments)


def test_annotations_come_from_the_first_caller_that_says_them(lab):
    ref, alt = snv(lab, 300)
    header = [*HC_HEADER, '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">']
    hc = lab.vcf("hc.vcf.gz", [f"chr1 300 {ref} {alt} 50 . QD=20;FS=1 GT:GQ 0/1:99"], header=header)
    bt = lab.vcf("bt.vcf.gz", [f"chr1 300 {ref} {alt} 40 . MQ=31 GT:AD 1/1:4,12"], header=header)
    sets = [CallSet("bcftools", bt, "s1"), CallSet("haplotypecaller", hc, "s1")]
    (found,) = union(sets, "chr1")
    said = {name: values[0] for name, values in found.annotations().items()}
    assert (said["qd"], said["gq"], said["fs"], said["mq"]) == (20, 99, 1, 31)
    assert (said["depth"], said["alt_fraction"], said["dosage"]) == (16, 0.75, 0.5)
    assert np.isnan(said["sor"])


def test_many_calls_come_in_stretches_that_share_no_position(lab, monkeypatch):
    monkeypatch.setattr("cordon.calls.read.BLOCK", 400)
    places = {"bcftools": range(100, 900, 3), "haplotypecaller": range(100, 500, 2), "other": range(850, 860)}
    sets, expected = [], {}
    for caller, positions in places.items():
        records = []
        for position in positions:
            ref = lab.sequences["chr1"][position - 1]
            for alt in [base for base in "ACGT" if base != ref][: 1 + position % 3]:
                records.append(f"chr1 {position} {ref} {alt} 50 . . GT 0/1")
                expected.setdefault((position, ref, alt), set()).add(caller)
        sets.append(CallSet(caller, lab.vcf(f"{caller}.vcf.gz", records), "s1"))
    stretches = list(union(sets, "chr1"))
    assert len(stretches) > 5
    found = {}
    for stretch in stretches:
        for row, key in enumerate(stretch.keys.to_pylist()):
            callers = {caller for caller, table in stretch.calls.items() if table["qual"][row].is_valid}
            assert tuple(key.values()) not in found
            found[tuple(key.values())] = callers
    assert list(found) == sorted(found)
    assert found == expected
    for first, second in pairwise(stretches):
        assert (first.after, second.before) == (second.positions[0], first.positions[-1])
        assert first.positions[-1] < second.positions[0]
    assert stretches[0].calls["deepvariant"].schema.equals(CALLS)


def test_a_contig_with_an_awkward_name_is_read(lab):
    lab.sequences = {"HLA-A*01:01:1-5": lab.sequences["chr1"]}
    vcf = lab.vcf("a.vcf.gz", ["HLA-A*01:01:1-5 300 A C 50 . . GT 0/1"])
    assert [call["position"] for call in called("other", vcf, contig="HLA-A*01:01:1-5")] == [300]
