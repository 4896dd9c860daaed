"""Tests of cordon.reads.duplicates: who marked before, when it is done here, and how many there are."""

import json

import pysam
import pytest

from conftest import Read, random_bases
from cordon.calls.normalise import bcftools_call
from cordon.reads.duplicates import Duplicates, marked_by
from cordon.reads.normalise import normalise_reads


def header(*programs):
    lines = ["@HD\tVN:1.6", *("@PG\t" + program for program in programs)]
    return pysam.AlignmentHeader.from_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "program",
    [
        "ID:MarkDuplicates\tPN:MarkDuplicates\tVN:2.18",
        "ID:MarkDuplicates.1\tCL:MarkDuplicates --INPUT a.bam --OUTPUT b.bam",
        "ID:x\tCL:picard.sam.markduplicates.MarkDuplicates INPUT=[a.bam]",
        "ID:x\tCL:java -Xmx4g -jar /opt/picard-2.1.jar MarkDuplicates I=a.bam",
        "ID:GATK\tPN:GATK MarkDuplicatesSpark\tCL:gatk --java-options '-Xmx4g' MarkDuplicatesSpark -I a.bam",
        "ID:samtools.3\tPN:samtools\tCL:samtools markdup -@ 4 a.bam b.bam",
        "ID:samtools-5A3F\tCL:/opt/samtools-1.19/samtools markdup a.bam b.bam",
        "ID:sambamba\tVN:0.6.7\tCL:markdup -t 8 a.bam b.bam",
        "ID:SAMBLASTER\tCL:samblaster -i stdin -o stdout",
        "ID:bamsormadup\tPN:bamsormadup",
        "ID:bammarkduplicates2\tPN:bammarkduplicates2\tCL:bammarkduplicates2 I=a.bam",
        "ID:s\tPN:sentieon driver\tCL:/opt/bin/sentieon driver -t 8 --algo Dedup --score_info s out.bam",
        "ID: DRAGEN HW build 05.021\tCL:dragen -r /ref --enable-duplicate-marking true",
        "ID:DRAGEN\tPN:dragen\tCL:/opt/edico/bin/dragen --enable-duplicate-marking=true",
        "ID:elprep\tPN:elPrep\tCL:elprep filter a.bam b.bam --mark-duplicates --sorting-order coordinate",
    ],
)
def test_programs_that_mark_duplicates_are_known(program):
    assert marked_by(header("ID:bwa\tPN:bwa\tCL:bwa mem ref.fa a.fq", program))


@pytest.mark.parametrize(
    "program",
    [
        "ID:bwa\tPN:bwa\tCL:bwa mem /ref/dragen_hg38/markduplicates/ref.fa a.fq",
        "ID:bwa\tPN:bwa\tCL:bwa mem -R @RG\\tID:no_markdup ref.fa markduplicates.fq",
        "ID:no_markdup\tPN:no_markdup\tCL:no_markdup a.bam",
        "ID: DRAGEN-OS\tVN:1.3.0\tCL:dragen-os -r /ref/hash -1 a.fq -2 b.fq",
        "ID:dragmap\tPN:dragmap\tCL:dragmap -r /ref",
        "ID:DRAGEN HW build\tPN:dragen\tCL:dragen --enable-map-align true --enable-duplicate-marking false",
        "ID:DRAGEN HW build\tPN:dragen\tCL:dragen --enable-map-align true",
        "ID:s\tPN:sentieon driver\tCL:sentieon driver --algo LocusCollector --fun score_info s",
        "ID:samtools\tPN:samtools\tCL:samtools view -b -o x.markdup.bam samblaster.bam",
        "ID:samtools\tPN:samtools\tCL:samtools sort -T /tmp/markdup -o markdup in.bam",
        "ID:sambamba\tCL:sort -o markdup a.bam",
        "ID:SortSam\tPN:SortSam\tCL:SortSam INPUT=MarkDuplicates.bam",
        "ID:x",
    ],
)
def test_programs_that_do_not_are_not_taken_for_them(program):
    assert not marked_by(header(program))


def test_marks_that_were_taken_away_again_are_no_marks():
    marked, reverted = "ID:MarkDuplicates\tPN:MarkDuplicates", "ID:1\tPN:RevertSam\tCL:RevertSam I=a.bam"
    assert not marked_by(header(marked, reverted))
    assert not marked_by(header(marked, "ID:1\tPN:samtools\tCL:samtools reset -o a.bam b.bam"))
    assert marked_by(header(marked, reverted, "ID:MarkDuplicates.2\tPN:MarkDuplicates"))


def amplicon(lab, flag=0):
    """120 reads of one amplicon, every second with a substitution at position 151."""
    ref = lab.sequences["chr1"][100:200]
    alt = ref[:50] + "ACGT"["CATG".index(ref[50])] + ref[51:]
    reads = [Read(100, "100M", (ref, alt)[number % 2], flag=flag if number else 0) for number in range(120)]
    return lab.bam("in.bam", reads)


def normalised(lab, bam, **options):
    output = lab.folder / "out.bam"
    return normalise_reads(bam=bam, sample="s1", reference=lab.reference, output=output, **options)[1]


@pytest.mark.parametrize(
    "asked", [{"library": "amplicon"}, {"library": "umi"}, {"mark_duplicates": "no"}], ids=str
)
def test_a_variant_of_an_amplicon_is_called_where_duplicates_are_not_marked(lab, asked):
    found = normalised(lab, amplicon(lab), **asked)
    assert found == Duplicates("not marked", 120, 0)
    assert not found.warning
    out = lab.folder / "calls.vcf.gz"
    assert bcftools_call(bam=lab.folder / "out.bam", sample="s1", reference=lab.reference, output=out) == 1


@pytest.mark.parametrize("asked", [{}, {"library": "wes"}, {"library": "amplicon", "mark_duplicates": "yes"}])
def test_where_most_reads_are_duplicates_a_warning_says_what_to_do(lab, asked):
    found = normalised(lab, amplicon(lab), **asked)
    assert found == Duplicates("marked", 120, 119)
    assert "119 of 120 mapped reads (99%) are duplicates" in found.warning
    assert "library: amplicon or umi" in found.warning


@pytest.mark.parametrize("asked", [{}, {"mark_duplicates": "no"}, {"library": "amplicon"}])
def test_flags_of_the_records_show_that_marking_was_done(lab, asked):
    """Whatever the header says; they are left as they are."""
    found = normalised(lab, amplicon(lab, flag=1024), **asked)
    assert found == Duplicates("marked before", 120, 119)
    assert "samtools view --remove-flags DUP" in found.warning


@pytest.mark.parametrize(
    ("programs", "tags"),
    [
        ([], {"cD": 3}),
        ([{"ID": "fgbio", "PN": "fgbio", "CL": "fgbio CallMolecularConsensusReads --input a.bam"}], {}),
        ([{"ID": "x", "CL": "java -jar fgbio-2.1.jar CallDuplexConsensusReads -i a.bam"}], {}),
    ],
)
def test_consensus_reads_are_known_by_their_tag_or_by_what_made_them(lab, programs, tags):
    bam = lab.bam("in.bam", [Read(100, tags=tags), Read(100)], programs=programs)
    assert normalised(lab, bam) == Duplicates("not marked", 2, 0)
    assert normalised(lab, bam, mark_duplicates="yes").duplicates == 1


def test_marking_that_is_asked_for_replaces_earlier_flags(lab):
    reads = [Read(100, flag=1024), Read(500, flag=1024), Read(700)]
    assert normalised(lab, lab.bam("in.bam", reads), mark_duplicates="yes") == Duplicates("marked", 3, 0)


def test_the_rate_is_of_mapped_reads_and_reaches_the_summary(lab, command):
    bases = random_bases(100, 1)
    reads = [Read(100), Read(100), Read(300), Read(400), Read(100, "*", bases, flag=4)]
    bam, out = lab.bam("in.bam", reads, indexed=False), lab.folder / "out.json"
    told = command(
        "normalise_reads", "--bam", str(bam), "--sample", "s1", "--reference", str(lab.reference),
        "--output", str(lab.folder / "out.bam"), "--summary", str(out),
    )  # fmt: skip
    assert told == "s1: sorted, duplicates marked; duplicates: 1 of 4 mapped reads (25.0%)\n"
    assert json.loads(out.read_text()) == {
        "sample": "s1", "marking": "marked", "reads": 4, "duplicates": 1, "duplicate_rate": 0.25,
        "warning": "",
    }  # fmt: skip
