"""What the reads say of each candidate allele, from one pass over the reads near the candidates."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.context import FLANK, Allele, shift_room

# What `gather` returns, all float64 [n]. Means over no read are NaN.
EVIDENCE = (
    "depth",  # reads that say something of the allele
    "alt_forward",
    "alt_reverse",
    "ref_forward",
    "ref_reverse",
    "alt_base_quality",  # mean, phred
    "ref_base_quality",
    "alt_mapping_quality",
    "ref_mapping_quality",
    "low_mapping_quality",  # share of all reads with MAPQ < 20
    "alt_end_distance",  # mean distance to the nearer end of the read, bp
    "alt_soft_clipped",  # share of alt reads with a soft clip
    "alt_mismatches",  # mean edit distance of alt reads beside this allele
    "other_alleles",  # alleles with two or more reads that are neither ref nor alt
    "improper_pairs",  # share of alt reads that are paired but not properly
)
# Secondary, QC-fail, duplicate, supplementary, unmapped (SAM specification, section 1.4).
SKIPPED_FLAGS = 0x4 | 0x100 | 0x200 | 0x400 | 0x800
LOW_MAPPING_QUALITY = 20
# Candidates nearer than this (bp) share a fetch: about two reads' length, so few reads are read twice.
SAME_FETCH = 300
MATCHES = frozenset((pysam.CMATCH, pysam.CEQUAL, pysam.CDIFF))
REF, ALT = 0, 1


@dataclass(slots=True)
class _Read:
    """One aligned read, its CIGAR walked once. Positions are 0-based."""

    start: int
    end: int
    blocks: list[tuple[int, int, int]]  # reference start, query start, length
    indels: dict[int, tuple[int, str]]  # reference base before it -> signed length, inserted bases
    sequence: str
    qualities: Sequence[int]
    clips: tuple[int, int]  # soft-clipped bases at the left and right end
    reverse: bool
    mapping_quality: int
    edits: int
    improper: bool

    def query_at(self, position: int) -> int:
        """Index of the read's base aligned to ``position``, -1 where there is none."""
        for block_start, query, length in self.blocks:
            if block_start <= position < block_start + length:
                return query + position - block_start
        return -1


@dataclass(slots=True)
class _Tally:
    """Sums over the reads at one allele; pairs are (ref, alt)."""

    allele: Allele
    rightmost: int  # last reference base that a read must cover to tell ref from alt
    inserted: str
    depth: int = 0
    low_mapping: int = 0
    forward: list[int] = field(default_factory=lambda: [0, 0])
    reverse: list[int] = field(default_factory=lambda: [0, 0])
    base_quality: list[float] = field(default_factory=lambda: [0.0, 0.0])
    mapping_quality: list[float] = field(default_factory=lambda: [0.0, 0.0])
    end_distance: int = 0
    soft_clipped: int = 0
    mismatches: int = 0
    improper: int = 0
    others: dict[str, int] = field(default_factory=dict)


def gather(
    alignments: pysam.AlignmentFile, contig: str, sequence: str, alleles: Sequence[Allele]
) -> dict[str, NDArray[np.float64]]:
    """Evidence of the reads for alleles sorted by start on one contig of the given whole sequence.

    Every read near a candidate is read once; duplicates, secondary and supplementary alignments do not
    count. A read supports an indel when it holds the same indel anywhere in the repeat where that can be
    written; it counts for or against only when it covers that whole repeat.
    """
    tallies = [_tally(allele, sequence) for allele in alleles]
    for first, last in _fetches(alleles):
        group = tallies[first:last]
        starts = [tally.allele.start for tally in group]
        end = max(tally.rightmost for tally in group) + 1
        for segment in alignments.fetch(contig, starts[0], min(end, len(sequence))):
            if segment.flag & SKIPPED_FLAGS or not segment.cigartuples or not segment.query_sequence:
                continue
            read = _parse(segment, sequence)
            for tally in group[bisect_left(starts, read.start) :]:
                if tally.allele.start >= read.end:
                    break
                if tally.rightmost < read.end:
                    _count(tally, read)
    rows = [_evidence(tally) for tally in tallies]
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(EVIDENCE))
    return {name: values[:, column] for column, name in enumerate(EVIDENCE)}


def _tally(allele: Allele, sequence: str) -> _Tally:
    if not allele.simple_indel:
        return _Tally(allele, allele.end - 1, "")
    room = shift_room(allele, sequence[allele.start : allele.end + FLANK], allele.start)
    return _Tally(allele, min(allele.end + room, len(sequence) - 1), allele.alt[1:])


def _fetches(alleles: Sequence[Allele]) -> Iterator[tuple[int, int]]:
    """Slices of ``alleles`` whose reads come from one fetch."""
    first = 0
    for index in range(1, len(alleles) + 1):
        if index == len(alleles) or alleles[index].start - alleles[index - 1].start > SAME_FETCH:
            yield first, index
            first = index


def _parse(segment: pysam.AlignedSegment, sequence: str) -> _Read:
    blocks: list[tuple[int, int, int]] = []
    indels: dict[int, tuple[int, str]] = {}
    bases: str = segment.query_sequence
    cigar: list[tuple[int, int]] = segment.cigartuples
    position, query = segment.reference_start, 0
    for operation, length in cigar:
        if operation in MATCHES:
            blocks.append((position, query, length))
            position += length
            query += length
        elif operation == pysam.CINS:
            indels[position - 1] = (length, bases[query : query + length])
            query += length
        elif operation == pysam.CDEL:
            indels[position - 1] = (-length, "")
            position += length
        elif operation == pysam.CSOFT_CLIP:
            query += length
        elif operation == pysam.CREF_SKIP:
            position += length
    qualities = segment.query_qualities
    return _Read(
        start=segment.reference_start,
        end=position,
        blocks=blocks,
        indels=indels,
        sequence=bases,
        qualities=qualities if qualities is not None else [0] * len(bases),
        clips=(_clip(cigar), _clip(cigar[::-1])),
        reverse=segment.is_reverse,
        mapping_quality=segment.mapping_quality,
        edits=segment.get_tag("NM") if segment.has_tag("NM") else _edits(blocks, indels, bases, sequence),
        improper=segment.is_paired and not segment.is_proper_pair,
    )


def _clip(cigar: Sequence[tuple[int, int]]) -> int:
    """Soft-clipped bases at the first end of a CIGAR; a hard clip may lie outside."""
    for operation, length in cigar:
        if operation == pysam.CSOFT_CLIP:
            return length
        if operation != pysam.CHARD_CLIP:
            break
    return 0


def _edits(
    blocks: list[tuple[int, int, int]], indels: dict[int, tuple[int, str]], bases: str, sequence: str
) -> int:
    """Edit distance as the NM tag counts it, for reads that carry none."""
    edits = sum(abs(length) for length, _ in indels.values())
    for start, query, length in blocks:
        pairs = zip(bases[query : query + length], sequence[start : start + length], strict=True)
        edits += sum(base != reference for base, reference in pairs)
    return edits


def _count(tally: _Tally, read: _Read) -> None:
    """Add one read that covers the allele to its sums."""
    seen, query = _support(tally, read)
    tally.depth += 1
    tally.low_mapping += read.mapping_quality < LOW_MAPPING_QUALITY
    if seen not in ("ref", "alt"):
        tally.others[seen] = tally.others.get(seen, 0) + 1
        return
    kind = ALT if seen == "alt" else REF
    (tally.reverse if read.reverse else tally.forward)[kind] += 1
    tally.base_quality[kind] += read.qualities[query]
    tally.mapping_quality[kind] += read.mapping_quality
    if kind == ALT:
        left, right = read.clips
        tally.end_distance += min(query - left, len(read.sequence) - right - 1 - query)
        tally.soft_clipped += left > 0 or right > 0
        size = abs(tally.allele.indel_length) if tally.allele.simple_indel else len(tally.allele.alt)
        tally.mismatches += max(0, read.edits - size)
        tally.improper += read.improper


def _support(tally: _Tally, read: _Read) -> tuple[str, int]:
    """``ref``, ``alt`` or another allele's text, and the read's base index to take qualities from."""
    allele = tally.allele
    if allele.simple_indel:
        return _indel_support(tally, read)
    query = read.query_at(allele.start)
    if len(allele.ref) == len(allele.alt) == 1:
        if query < 0:
            return "deleted", query
        base = read.sequence[query]
        return ("ref" if base == allele.ref else "alt" if base == allele.alt else base), query
    last = read.query_at(allele.end - 1)
    if query < 0 or last < 0:
        return "deleted", query
    text = read.sequence[query : last + 1]
    return ("ref" if text == allele.ref else "alt" if text == allele.alt else text), query


def _indel_support(tally: _Tally, read: _Read) -> tuple[str, int]:
    """As `_support`: any indel of the read within the stretch where the allele can be written decides."""
    allele = tally.allele
    query = read.query_at(allele.start)
    last = max(allele.start, tally.rightmost - max(0, -allele.indel_length) - 1)
    for anchor, (length, inserted) in read.indels.items():
        if allele.start <= anchor <= last:
            turn = (anchor - allele.start) % max(1, len(tally.inserted))
            same = inserted == tally.inserted[turn:] + tally.inserted[:turn]
            if length == allele.indel_length and same:
                return "alt", max(query, 0)
            return f"{length}{inserted}", max(query, 0)
    return ("ref" if query >= 0 else "deleted"), query


def _evidence(tally: _Tally) -> list[float]:
    """The numbers of EVIDENCE for one allele."""
    ref, alt = (tally.forward[kind] + tally.reverse[kind] for kind in (REF, ALT))

    def mean(total: float, count: int) -> float:
        return total / count if count else np.nan

    return [
        tally.depth,
        tally.forward[ALT],
        tally.reverse[ALT],
        tally.forward[REF],
        tally.reverse[REF],
        mean(tally.base_quality[ALT], alt),
        mean(tally.base_quality[REF], ref),
        mean(tally.mapping_quality[ALT], alt),
        mean(tally.mapping_quality[REF], ref),
        mean(tally.low_mapping, tally.depth),
        mean(tally.end_distance, alt),
        mean(tally.soft_clipped, alt),
        mean(tally.mismatches, alt),
        sum(count >= 2 for count in tally.others.values()),
        mean(tally.improper, alt),
    ]


def nothing(rows: int) -> dict[str, NDArray[np.float64]]:
    """The evidence of no reads at all, for a contig that the alignments do not have."""
    empty = _evidence(_Tally(Allele(0, "N", "N"), 0, ""))
    return {name: np.full(rows, value) for name, value in zip(EVIDENCE, empty, strict=True)}
