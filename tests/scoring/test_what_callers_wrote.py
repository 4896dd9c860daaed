"""What a caller wrote comes out of all stages as it was: any bytes, any compression, scored before or not."""

import gzip

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from calls_lab import other, snv
from cordon.calls.normalise import normalise_variants
from cordon.calls.own import without_scores
from cordon.errors import UserError
from cordon.genome.reference import read_fai
from cordon.inputs.files import Genome, calls_faults, sites_faults, vcf_faults
from cordon.variants.labels import label_variants
from cordon.variants.table import LABELLED, VARIANTS, read_table
from stages_lab import checked, normalised, scored

HEADER = [
    '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">',
    '##INFO=<ID=NAME,Number=.,Type=String,Description="Name">',
    '##FILTER=<ID=LowQual,Description="Low">',
    '##FILTER=<ID=q10,Description="Below 10">',
]


def records(body):
    return [line.split(b"\t") for line in body.splitlines() if not line.startswith(b"#")]


def own(lines):
    return [line for line in lines if b"CORDON" in line]


@pytest.mark.parametrize("caller", ["haplotypecaller", "deepvariant", "other"])
def test_a_scored_vcf_is_scored_as_the_calls_that_it_was_made_of(lab, caller):
    """Twice over, as whoever refines a model does: one CORDON in each record and one declaration of it."""
    filters = ["LowQual;q10", "PASS", "."]
    lines = [
        f"chr1 {at} {' '.join(snv(lab, at))} 50 {told} DP=30 GT 0/1"
        for at, told in zip((100, 200, 300), filters, strict=True)
    ]
    plain = lab.vcf("in.vcf.gz", lines, header=HEADER)
    first = scored(lab, "one", **{caller: plain})
    again = lab.folder / "one" / "s1.scored.vcf.gz"
    assert normalised(lab, again, caller)[1].scored_before == 3
    second = scored(lab, "two", **{caller: again})
    third = scored(lab, "three", **{caller: lab.folder / "two" / "s1.scored.vcf.gz"})
    assert records(first) == records(second) == records(third)
    told = [line for line in second.splitlines() if line.startswith(b"##CORDON_calls")]
    assert [b"taken away" in line for line in told] == [True]
    rest = [line for line in second.splitlines() if line not in told]
    assert rest == first.splitlines()
    assert second == third
    for fields in records(second):
        assert [part.split(b"=")[0] for part in fields[7].split(b";")].count(b"CORDON") == 1


def test_the_record_of_another_caller_keeps_that_callers_filter():
    info = "DP=3;CORDON=1;CORDON_CALLERS=bcftools,deepvariant;CORDON_FILTERS=bcftools:q10,deepvariant:a&b"
    assert without_scores("PASS", info) == ("a;b", "DP=3")
    assert without_scores("CORDONLowScore", "CORDON=1;CORDON_CALLERS=other") == (".", ".")
    assert without_scores("CORDONReview;x", "DP=3;CORDONISH=1") == ("x", "DP=3;CORDONISH=1")
    assert without_scores("x", "DP=3") == ("x", "DP=3")


# What may stand in a text of INFO: any byte but those that separate.
TEXT = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b"\0\t\n\r ;,=\"'<>%\\"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(name=TEXT.filter(bool), said=TEXT)
@example(name="Papillon-Lefèvre_syndrome".encode(), said="é".encode())
@example(name="Papillon-Lefèvre_syndrome".encode("latin-1"), said=b"\xe9")
@example(name=b"\xff\xfe", said=b"\x80")
def test_bytes_of_any_encoding_reach_the_scored_vcf(lab, name, said):
    """In ID, in INFO, and in the header."""
    ref, alt = snv(lab, 100)
    text = lab.vcf("in.vcf.gz", [f"chr1 100 {ref} {alt} 50 LowQual NAME=@@ GT 0/1"], header=HEADER)
    with gzip.open(text) as file:
        body = file.read().replace(b"@@", name).replace(b"\t.\t" + ref.encode(), b"\t@\t" + ref.encode())
    body = body.replace(b"\t@\t", b"\tx" + name + b"\t").replace(b'"Name"', b'"Name-' + said + b'"')
    path = lab.folder / "in.vcf"
    path.write_bytes(body)
    result = scored(lab, haplotypecaller=path)
    (fields,) = records(result)
    assert fields[2] == b"x" + name
    assert fields[7].split(b";")[0] == b"NAME=" + name
    assert b'Description="Name-' + said + b'"' in result


def test_gzip_is_read_as_bgzip_is(lab):
    """Calls, truth, frequencies: each by the first check, and by the stage that reads it."""
    ref, alt = snv(lab, 100)
    frequency = '##INFO=<ID=AF,Number=A,Type=Float,Description="x">'
    bgzip = lab.vcf("in.vcf.gz", [f"chr1 100 {ref} {alt} 50 . . GT 0/1"])
    sites = lab.vcf("af.vcf.gz", [f"chr1 100 {ref} {alt} . . AF=0.1"], samples=(), header=[frequency])
    paths = []
    for compressed in (bgzip, sites):
        plain = lab.folder / f"plain.{compressed.name}"
        with gzip.open(compressed) as file:
            plain.write_bytes(gzip.compress(file.read()))
        paths.append(plain)
    calls, resource = paths
    genome = Genome(lab.reference, read_fai(f"{lab.reference}.fai"))
    assert checked(lab, calls) == list(calls_faults(calls, "s1", genome, alone=True)) == []
    assert list(vcf_faults(calls, genome, alone=True)) == list(sites_faults(resource, "AF", genome)) == []
    out = lab.folder / "sites.vcf.gz"
    assert normalise_variants(vcf=resource, sample=None, reference=lab.reference, output=out).kept == 1
    assert records(scored(lab, haplotypecaller=calls)) == records(scored(lab, haplotypecaller=bgzip))
    bed = lab.bed("confident.bed", ("chr1", 0, 3000))
    label_variants(
        lab.folder / "v.parquet", lab.folder / "l.parquet", sample="s1", reference=lab.reference,
        truth=calls, confident=bed,
    )  # fmt: skip
    assert read_table(lab.folder / "l.parquet", LABELLED)["label"].to_pylist() == [1]


def test_calls_without_a_record_give_a_scored_vcf_without_one(lab):
    """And beside another caller's they take nothing away."""
    ref, alt = snv(lab, 100)
    empty, one = lab.vcf("empty.vcf.gz", []), lab.vcf("one.vcf.gz", [f"chr1 100 {ref} {alt} 50 . . GT 0/1"])
    result = scored(lab, haplotypecaller=empty)
    assert records(result) == []
    assert result.splitlines()[-1].split(b"\t")[-1] == b"s1"
    assert (lab.folder / "s1.scored.vcf.gz.tbi").exists()
    assert len(records(scored(lab, haplotypecaller=empty, bcftools=one))) == 1


def test_a_gzip_file_that_is_cut_off_or_no_vcf_is_refused(lab):
    ref, alt = snv(lab, 100)
    with gzip.open(lab.vcf("in.vcf.gz", [f"chr1 100 {ref} {alt} 50 . . GT 0/1"])) as file:
        whole = gzip.compress(file.read())
    path = lab.folder / "cut.vcf.gz"
    for content in (whole[:40], gzip.compress(b"no VCF\n")):
        path.write_bytes(content)
        ((what, _),) = checked(lab, path)
        assert what.startswith(f"{path} is no readable VCF or BCF")
        with pytest.raises(UserError, match=r"cut\.vcf\.gz"):
            normalised(lab, path)


def test_a_haplotype_that_is_written_twice_passes_once(lab):
    """One caller's two substitutions and another's one allele of both: what stands has the better score."""
    bases = lab.sequences["chr1"][99:102]
    first, last = other(bases[0]), other(bases[2])
    one, two = f"chr1 100 {bases[0]} {first}", f"chr1 102 {bases[2]} {last}"
    both = f"chr1 100 {bases} {first}{bases[1]}{last}"
    alone, single = snv(lab, 300)
    hc = lab.vcf("hc.vcf.gz", [f"{one} 50 . . GT 0/1", f"{two} 20 . . GT 0/1"])
    fb = lab.vcf("fb.vcf.gz", [f"{both} 90 . . GT 0/1", f"chr1 300 {alone} {single} 9 . . GT 0/1"])
    lines = records(scored(lab, haplotypecaller=hc, other=fb))
    told = {(fields[1], fields[4]): (fields[6], fields[7].split(b";")[-1]) for fields in lines}
    again = told[b"100", (first + bases[1] + last).encode()]
    names = f"chr1:100:{bases[0]}>{first},chr1:102:{bases[2]}>{last}"
    assert again == (b"CORDONRepeat", f"CORDON_REPEATS={names}".encode())
    assert [told[key][0] for key in sorted(told)].count(b"PASS") == 3
    rows = read_table(lab.folder / "s1.scored.parquet", VARIANTS)
    assert rows.num_rows == 4
    table = pq.read_table(lab.folder / "s1.scored.parquet")
    assert table["cordon_pass"].to_pylist() == [name is None for name in table["cordon_repeats"].to_pylist()]
    assert table["cordon_repeats"].to_pylist().count(names) == 1
