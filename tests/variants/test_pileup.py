"""Tests of pileup and segments, against counts by hand and against a plain pileup."""

import math
import random

import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plain_pileup
from conftest import Lab, Read, random_bases
from cordon.calls.normalise import bcftools_call, normalise_variants
from cordon.calls.read import CallSet
from cordon.variants import pileup
from cordon.variants.candidates import union
from cordon.variants.context import Alleles
from pileup_lab import other, snv, with_alt


def evidence(lab, reads, *alleles):
    """The evidence for alleles (0-based start, ref, alt), which a plain pileup finds too."""
    bam = lab.bam("in.bam", reads)
    starts, refs, alts = zip(*alleles, strict=True)
    given = ("chr1", lab.sequences["chr1"].encode(), Alleles(np.array(starts), refs, alts))
    with pysam.AlignmentFile(str(bam)) as file:
        found = pileup.gather(file, *given)
        plain = plain_pileup.gather(file, *given)
    assert tuple(found) == pileup.EVIDENCE
    for name in pileup.EVIDENCE:
        np.testing.assert_allclose(found[name], plain[name], err_msg=name)
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
    found = {name: values[0] for name, values in evidence(lab, reads, (299, ref, alt)).items()}
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
    one = evidence(lab, [Read(250), Read(250, bases=bases)], (299, ref, alt))
    two = evidence(lab, [Read(250, bases=bases), Read(250, bases=bases)], (299, ref, alt))
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
    found = evidence(lab, reads, (499, "CA", "C"))
    assert (found["depth"][0], found["alt_forward"][0], found["ref_forward"][0]) == (2, 1, 1)


@pytest.mark.parametrize(("place", "inserted", "is_alt"), [(700, "AC", 1), (701, "CA", 1), (700, "AG", 0)])
def test_an_insertion_counts_when_its_bases_are_the_same_turned(lab, place, inserted, is_alt):
    sequence = lab.sequences["chr1"]
    bases = sequence[650:place] + inserted + sequence[place:750]
    read = Read(650, cigar=f"{place - 650}M2I{750 - place}M", bases=bases)
    found = evidence(lab, [read], (699, "G", "GAC"))
    assert (found["depth"][0], found["alt_forward"][0]) == (1, is_alt)


def test_a_block_substitution_is_compared_whole(lab):
    sequence = lab.sequences["chr1"]
    alt = other(sequence[299]) + other(sequence[300])
    half = sequence[250:299] + alt[0] + sequence[300:350]
    both = sequence[250:299] + alt + sequence[301:350]
    found = evidence(
        lab, [Read(250), Read(250, bases=half), Read(250, bases=both)], (299, sequence[299:301], alt)
    )
    assert (found["depth"][0], found["ref_forward"][0], found["alt_forward"][0]) == (3, 1, 1)


def test_alleles_without_reads_have_depth_0_and_no_means(lab):
    found = evidence(lab, [Read(0)], (299, *snv(lab, 300)))
    assert found["depth"][0] == 0
    assert math.isnan(found["alt_base_quality"][0])
    none = pileup.nothing(1)
    assert all(np.array_equal(none[name], found[name], equal_nan=True) for name in pileup.EVIDENCE)


@st.composite
def aligned(draw):
    """Reads with random CIGARs, flags and errors, and alleles among them."""
    source = random.Random(draw(st.integers(0, 2**32)))
    reads = []
    for _ in range(draw(st.integers(1, 12))):
        cigar, query = "", 0
        if source.random() < 0.3:
            cigar, query = f"{source.randint(1, 9)}S", 0
        for _ in range(source.randint(0, 3)):
            cigar += f"{source.randint(1, 25)}M{source.randint(1, 3)}{source.choice('ID')}"
        cigar += f"{source.randint(1, 40)}M" + (f"{source.randint(1, 9)}S" if source.random() < 0.3 else "")
        pairs = pysam.AlignedSegment()
        pairs.cigarstring = cigar
        query = pairs.infer_query_length()
        reads.append(
            Read(
                source.randint(480, 520), cigar, "".join(source.choice("AACG") for _ in range(query)),
                flag=source.choice([0, 16, 1, 3, 1024, 256]), quality=source.randint(2, 40),
                mapping_quality=source.randint(0, 60), tags={"NM": 3} if source.random() < 0.5 else {},
            )
        )  # fmt: skip
    return sorted(reads, key=lambda read: read.start), source


@given(aligned())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_reads_give_what_a_plain_pileup_gives(tmp_path_factory, drawn):
    reads, source = drawn
    chr1 = random_bases(499, seed=1) + "A" * 12 + "G" + "AC" * 6 + random_bases(500, seed=3)
    lab = Lab(tmp_path_factory.mktemp("random"), {"chr1": chr1, "chr2": "ACGT"})
    alleles = []
    for start in sorted(source.sample(range(470, 560), 15)):
        kind = source.choice("SSIDB")
        ref = chr1[start : start + (source.randint(2, 4) if kind in "DB" else 1)]
        alt = {"S": other(ref[0]), "I": ref + "AC"[: source.randint(1, 2)], "D": ref[0]}.get(kind)
        alleles.append((start, ref, alt or other(ref[0]) + ref[1:-1] + other(ref[-1])))
    evidence(lab, reads, *alleles)


def test_real_reads_give_what_a_plain_pileup_gives(na12878_reference, na12878_bam, tmp_path):
    called, normal = tmp_path / "c.vcf.gz", tmp_path / "n.vcf.gz"
    bcftools_call(bam=na12878_bam, sample="NA12878", reference=na12878_reference, output=called)
    normalise_variants(vcf=called, reference=na12878_reference, sample="NA12878", output=normal)
    with pysam.FastaFile(str(na12878_reference)) as fasta:
        sequence = fasta.fetch("chr20").upper().encode()
    compared = 0
    for candidates in union([CallSet("bcftools", normal, "NA12878")], "chr20"):
        with pysam.AlignmentFile(str(na12878_bam)) as file:
            given = (file, "chr20", sequence, candidates.alleles)
            found, plain = pileup.gather(*given), plain_pileup.gather(*given)
        for name in pileup.EVIDENCE:
            np.testing.assert_allclose(found[name], plain[name], err_msg=name)
        compared += candidates.keys.num_rows
    assert compared > 300
