"""Tests of cordon.variants.pileup_images: what a pileup image holds, in which order, and who sees it."""

import random

import numpy as np
import pysam
import pytest

from calls_lab import encoded
from conftest import Read
from cordon.variants import pileup
from cordon.variants.context import Alleles
from cordon.variants.pileup_images import CHANNELS, READS, SHAPE, SIZE, WIDTH, Images
from cordon.variants.table import PILEUP, VARIANTS, read_table
from pileup_lab import other, snv, with_alt

MIDDLE = WIDTH // 2
BASE, QUALITY, MAPPING, STRAND, SUPPORT, DIFFERENCE = range(len(CHANNELS))
CODES = {"A": 64, "C": 128, "G": 192, "T": 255, "N": 32}


def images(lab, reads, *alleles):
    """The images of alleles (0-based start, ref, alt)."""
    sequence = lab.sequences["chr1"].encode()
    starts, refs, alts = zip(*alleles, strict=True)
    drawn = Images(np.array(starts), sequence)
    with pysam.AlignmentFile(str(lab.bam("in.bam", reads))) as file:
        pileup.gather(file, "chr1", sequence, Alleles(np.array(starts), refs, alts), drawn)
    assert drawn.pixels().shape == (len(alleles), *SHAPE)
    return drawn.pixels()


def codes(bases):
    return [CODES[base] for base in bases]


def test_a_row_is_a_read_around_the_allele(lab):
    ref, alt = snv(lab, 300)
    reads = [
        Read(250, quality=20, mapping_quality=40),
        Read(260, bases=with_alt(lab, 300, 260), flag=16, quality=60, mapping_quality=70),
    ]
    (image,) = images(lab, reads, (299, ref, alt))
    sequence = lab.sequences["chr1"]
    assert image[BASE, 0].tolist() == codes(sequence[299 - MIDDLE : 300 + MIDDLE])
    assert (image[QUALITY, 0] == 20 * 6).all()
    assert (image[MAPPING, 0] == 40 * 4).all()
    assert (image[STRAND, 0] == 120).all()
    assert (image[SUPPORT, 0] == 120).all()
    assert (image[DIFFERENCE, 0] == 0).all()
    assert image[BASE, 1, MIDDLE] == CODES[alt]
    assert np.flatnonzero(image[DIFFERENCE, 1]).tolist() == [MIDDLE]
    assert [image[channel, 1, 0] for channel in (QUALITY, MAPPING, STRAND, SUPPORT)] == [240] * 4
    assert not image[:, 2:].any()


def test_outside_a_read_and_where_there_is_none_everything_is_0(lab):
    (image,) = images(lab, [Read(290, cigar="15M")], (299, *snv(lab, 300)))
    shown = slice(290 - 299 + MIDDLE, 305 - 299 + MIDDLE)
    assert (image[BASE, 0, shown] > 0).all()
    image[:, 0, shown] = 0
    assert not image.any()


def test_gaps_insertions_and_other_alleles_are_marked(lab):
    sequence = lab.sequences["chr1"]
    third = next(base for base in "ACGT" if base not in snv(lab, 300))
    deleted = sequence[250:290] + sequence[292:352]
    inserted = sequence[250:310] + "GG" + sequence[310:348]
    reads = [
        Read(250, cigar="40M2D60M", bases=deleted),
        Read(250, cigar="60M2I38M", bases=inserted),
        Read(250, bases=sequence[250:299] + third + sequence[300:350]),
    ]
    (image,) = images(lab, reads, (299, *snv(lab, 300)))
    at = {position: position - 299 + MIDDLE for position in (289, 290, 291, 309)}
    assert np.flatnonzero(image[DIFFERENCE, 0]).tolist() == [at[289], at[290], at[291]]
    assert np.flatnonzero(image[BASE, 0] == 0).tolist() == [at[290], at[291]]
    assert (image[QUALITY, 0] == 0).sum() == 2
    assert image[SUPPORT, 0, at[290]] == 120
    assert np.flatnonzero(image[DIFFERENCE, 1]).tolist() == [at[309]]
    assert image[BASE, 1].tolist() == codes(sequence[299 - MIDDLE : 300 + MIDDLE])
    assert image[SUPPORT, 2, 0] == 60


def test_an_insertion_before_the_first_base_is_not_marked_on_another_read(lab):
    reads = [Read(295, cigar="3I40M", bases="GGG" + lab.sequences["chr1"][295:335]), Read(296)]
    (image,) = images(lab, reads, (299, *snv(lab, 300)))
    assert not image[DIFFERENCE].any()


def test_rows_are_in_the_order_of_the_reads_starts(lab):
    reads = [Read(250 + number, quality=number) for number in range(20)]
    (image,) = images(lab, reads, (299, *snv(lab, 300)))
    assert (image[QUALITY, :20, MIDDLE] // 6).tolist() == list(range(20))


@pytest.fixture
def deep(lab):
    """150 reads at two near alleles, of which every third has the second one."""
    return [
        Read(220 + number // 3, bases=with_alt(lab, 310, 220 + number // 3) if number % 3 else "", quality=9)
        for number in range(150)
    ]


ALLELES = (289, 309)


def test_of_many_reads_an_even_choice_is_shown_however_they_are_laid_out(lab, deep, monkeypatch):
    alleles = [(start, *snv(lab, start + 1)) for start in ALLELES]
    found = images(lab, deep, *alleles)
    assert (found[:, QUALITY, :, MIDDLE] > 0).all()
    # Not the first or the last to begin: nearly as spread as all of them are, 50 starts in a row.
    (first,) = np.nonzero(found[0, BASE, :, 0] == 0)
    assert len(first) < READS
    begins = [int(np.argmax(row > 0)) for row in found[1, BASE]]
    assert begins == sorted(begins)
    assert 10 <= (found[1, SUPPORT, :, MIDDLE] == 240).sum() <= 28
    for batch in (1, 7, 64):
        monkeypatch.setattr(pileup, "READS", batch)
        assert np.array_equal(images(lab, deep, *alleles), found)


def test_an_image_does_not_depend_on_the_other_alleles(lab, deep):
    together = images(lab, deep, *((start, *snv(lab, start + 1)) for start in ALLELES))
    for place, start in enumerate(ALLELES):
        (alone,) = images(lab, deep, (start, *snv(lab, start + 1)))
        assert np.array_equal(alone, together[place])


def test_random_reads_give_what_drawing_them_one_by_one_gives(lab):
    source = random.Random(4)
    sequence = lab.sequences["chr1"]
    reads = []
    for _ in range(60):
        start, middle, size = source.randrange(200, 400), source.randrange(5, 60), source.randrange(1, 6)
        kind, before = source.choice("MID"), sequence[start : start + middle]
        rest = sequence[start + middle + (size if kind == "D" else 0) :][:50]
        rest = "".join(other(base) if source.random() < 0.1 else base for base in rest)
        extra = "" if kind == "D" else "T" * size
        cigar = f"{middle}M{size}{kind}50M" if kind != "M" else f"{middle + size + 50}M"
        reads.append(Read(start, cigar=cigar, bases=before + extra + rest, quality=source.randrange(2, 50)))
    reads.sort(key=lambda read: read.start)
    starts = (250, 299, 300, 350)
    found = images(lab, reads, *((start, *snv(lab, start + 1)) for start in starts))
    with pysam.AlignmentFile(str(lab.folder / "in.bam")) as file:
        segments = list(file)
    for image, start in zip(found, starts, strict=True):
        covering = [read for read in segments if read.reference_start <= start < read.reference_end]
        assert len(covering) <= READS
        for row, read in enumerate(covering):
            aligned = {
                position: query for query, position in read.get_aligned_pairs() if position is not None
            }
            for column in range(WIDTH):
                position = start + column - MIDDLE
                query = aligned.get(position)
                base = CODES[read.query_sequence[query]] if query is not None else 0
                quality = 6 * min(40, read.query_qualities[query]) if query is not None else 0
                assert tuple(image[[BASE, QUALITY], row, column]) == (base, quality)
                assert (image[STRAND, row, column] > 0) == (position in aligned)
        assert not image[:, len(covering) :].any()


def test_encoding_adds_the_images_where_they_are_asked_for(lab, command):
    alleles = [(position, *snv(lab, position)) for position in (300, 310)]
    calls = {"bcftools": lab.vcf("b.vcf.gz", [f"chr1 {p} {r} {a} 50 . . GT 0/1" for p, r, a in alleles])}
    reads = [Read(250), Read(260, bases=with_alt(lab, 300, 260))]
    table = encoded(lab, calls, reads)
    assert table.schema.equals(VARIANTS)
    expected = images(lab, reads, *((p - 1, r, a) for p, r, a in alleles))
    who = lab.text("who.json", '{"patient": "p", "sample": "pseudonym"}')
    command(
        "encode_variants", "--site", "a", "--sample", "s1", "--pseudonyms", str(who),
        "--reference", str(lab.reference), "--bam", str(lab.folder / "in.bam"), "--pileups",
        "--calls", f"bcftools={calls['bcftools']}", "--output", str(lab.folder / "v.parquet"),
    )  # fmt: skip
    again = read_table(lab.folder / "v.parquet", VARIANTS.append(PILEUP))
    assert again["pileup"].to_pylist() == [image.tobytes() for image in expected]
    assert again.drop_columns(["pileup"]).equals(table)


def test_without_reads_the_images_are_empty(lab):
    position, ref, alt = 300, *snv(lab, 300)
    calls = {"bcftools": lab.vcf("b.vcf.gz", [f"chr1 {position} {ref} {alt} 50 . . GT 0/1"])}
    with_images = VARIANTS.append(PILEUP)
    from calls_lab import IDENTITY
    from cordon.variants.encode import encode

    (table,) = encode(identity=IDENTITY, sample="s1", reference=lab.reference, calls=calls, pileups=True)
    assert table.schema.equals(with_images)
    assert table["pileup"].to_pylist() == [bytes(SIZE)]
