"""The evidence of `cordon.variants.pileup` the plain way: a pysam pileup at each allele, read by read.

What one would write first; the benchmark's baseline, and what the tests compare the fast pass with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pysam

from cordon.variants.context import FLANK, Alleles, shift_room
from cordon.variants.pileup import EVIDENCE, LOW_MAPPING_QUALITY, SKIPPED_FLAGS

ALL_READS = {
    "truncate": True, "stepper": "nofilter", "min_base_quality": 0, "ignore_overlaps": False,
    "ignore_orphans": False, "max_depth": 1_000_000,
}  # fmt: skip


@dataclass
class Tally:
    """Sums over the reads at one allele; pairs are by kind, ref and alt."""

    depth: int = 0
    low_mapping: int = 0
    forward: dict[str, int] = field(default_factory=lambda: {"ref": 0, "alt": 0})
    reverse: dict[str, int] = field(default_factory=lambda: {"ref": 0, "alt": 0})
    base_quality: dict[str, float] = field(default_factory=lambda: {"ref": 0.0, "alt": 0.0})
    mapping_quality: dict[str, float] = field(default_factory=lambda: {"ref": 0.0, "alt": 0.0})
    alt: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("end", "clip", "edit", "pair"), 0.0))
    others: dict[str, int] = field(default_factory=dict)


def gather(
    alignments: pysam.AlignmentFile, contig: str, sequence: bytes, alleles: Alleles
) -> dict[str, np.ndarray]:
    """As `cordon.variants.pileup.gather`."""
    rows = []
    for start, ref, alt in zip(alleles.starts.tolist(), alleles.refs, alleles.alts, strict=True):
        tally = Tally()
        for column in alignments.pileup(contig, start, start + 1, **ALL_READS):
            for seen in column.pileups:
                count(tally, seen.alignment, start, ref, alt, sequence)
        rows.append(evidence(tally))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(EVIDENCE))
    return {name: values[:, place] for place, name in enumerate(EVIDENCE)}


def count(
    tally: Tally, segment: pysam.AlignedSegment, start: int, ref: str, alt: str, sequence: bytes
) -> None:
    simple = min(len(ref), len(alt)) == 1 < max(len(ref), len(alt)) and ref[0] == alt[0]
    end = start + len(ref)
    rightmost = end - 1
    if simple:
        room = shift_room(start, ref, alt, sequence[start : end + FLANK], start)
        rightmost = min(end + room, len(sequence) - 1)
    if segment.flag & SKIPPED_FLAGS or rightmost >= segment.reference_end:
        return
    pairs = {place: query for query, place in segment.get_aligned_pairs(matches_only=True)}
    query = pairs.get(start, -1)
    bases = segment.query_sequence
    if simple:
        last = max(start, rightmost - max(0, len(ref) - len(alt)) - 1)
        kind = indel_kind(segment, start, last, ref, alt, query)
    elif query < 0 or end - 1 not in pairs:
        kind = "deleted"
    else:
        text = bases[query : pairs[end - 1] + 1]
        kind = "ref" if text == ref else "alt" if text == alt else text
    tally.depth += 1
    tally.low_mapping += segment.mapping_quality < LOW_MAPPING_QUALITY
    if kind not in ("ref", "alt"):
        tally.others[kind] = tally.others.get(kind, 0) + 1
        return
    (tally.reverse if segment.is_reverse else tally.forward)[kind] += 1
    query = max(query, 0)
    tally.base_quality[kind] += segment.query_qualities[query]
    tally.mapping_quality[kind] += segment.mapping_quality
    if kind == "alt":
        left, right = segment.query_alignment_start, len(bases) - segment.query_alignment_end
        tally.alt["end"] += min(query - left, len(bases) - right - 1 - query)
        tally.alt["clip"] += left > 0 or right > 0
        size = abs(len(alt) - len(ref)) if simple else len(alt)
        edits = segment.get_tag("NM") if segment.has_tag("NM") else edit_distance(segment, sequence)
        tally.alt["edit"] += max(0, edits - size)
        tally.alt["pair"] += segment.is_paired and not segment.is_proper_pair


def indel_kind(segment: pysam.AlignedSegment, start: int, last: int, ref: str, alt: str, query: int) -> str:
    place, index, wanted = segment.reference_start, 0, alt[1:] if len(alt) > len(ref) else ""
    for operation, length in segment.cigartuples:
        if operation in (pysam.CINS, pysam.CDEL) and start <= place - 1 <= last:
            inserted = segment.query_sequence[index : index + length] if operation == pysam.CINS else ""
            signed = length if operation == pysam.CINS else -length
            turn = (place - 1 - start) % max(1, len(wanted))
            if signed == len(alt) - len(ref) and inserted == wanted[turn:] + wanted[:turn]:
                return "alt"
            return f"{signed}{inserted}"
        place += length if operation in (0, 2, 3, 7, 8) else 0
        index += length if operation in (0, 1, 4, 7, 8) else 0
    return "ref" if query >= 0 else "deleted"


def edit_distance(segment: pysam.AlignedSegment, sequence: bytes) -> int:
    gaps = sum(size for kind, size in segment.cigartuples if kind in (pysam.CINS, pysam.CDEL))
    pairs = segment.get_aligned_pairs(matches_only=True)
    return gaps + sum(ord(segment.query_sequence[query]) != sequence[place] for query, place in pairs)


def evidence(tally: Tally) -> list[float]:
    ref, alt = (tally.forward[kind] + tally.reverse[kind] for kind in ("ref", "alt"))

    def mean(total: float, number: int) -> float:
        return total / number if number else np.nan

    return [
        tally.depth,
        tally.forward["alt"],
        tally.reverse["alt"],
        tally.forward["ref"],
        tally.reverse["ref"],
        mean(tally.base_quality["alt"], alt),
        mean(tally.base_quality["ref"], ref),
        mean(tally.mapping_quality["alt"], alt),
        mean(tally.mapping_quality["ref"], ref),
        mean(tally.low_mapping, tally.depth),
        mean(tally.alt["end"], alt),
        mean(tally.alt["clip"], alt),
        mean(tally.alt["edit"], alt),
        sum(number >= 2 for number in tally.others.values()),
        mean(tally.alt["pair"], alt),
    ]
