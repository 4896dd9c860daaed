"""What the reads say of each candidate allele, from one pass over the reads near the candidates.

Reads are decoded by pysam and laid out in flat arrays some thousand at a time; what they say of the
candidates is then worked out for all of them at once. Memory grows with neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.arrays import Floats, Ints
from cordon.variants.context import FLANK, Alleles, shift_room
from cordon.variants.pileup_images import Images
from cordon.variants.segments import AlignedReads

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
# Candidates nearer than this (bp) share a fetch: reading on is cheaper than another look into the index.
SAME_FETCH = 5000
# Reads laid out at once: enough to make up for numpy's calls, few enough to stay in the processor's cache.
READS = 2_000
REF, ALT, OTHER = 0, 1, 2
COUNTS = ("depth", "alt_forward", "alt_reverse", "ref_forward", "ref_reverse")
SUMS = (*(name for name in EVIDENCE if name not in ("low_mapping_quality", "other_alleles")), "low_mapping")


def gather(
    alignments: pysam.AlignmentFile, contig: str, sequence: bytes, alleles: Alleles,
    images: Images | None = None,
) -> dict[str, Floats]:  # fmt: skip
    """Evidence of the reads for alleles on one contig of the given whole sequence, in upper case.

    Every read near a candidate is read once; duplicates, secondary and supplementary alignments do not
    count. A read supports an indel when it holds the same indel anywhere in the repeat where that can be
    written; it counts for or against only when it covers that whole repeat. ``images`` of the same alleles
    are drawn from the reads that count.
    """
    tally = _Tally(alleles, sequence, images)
    for first, last in _fetches(alleles.starts):
        end = min(int(tally.rightmost[first:last].max()) + 1, len(sequence))
        starts = [*alleles.starts[first:last].tolist(), end]
        place = 0  # of the first allele that no read so far begins after
        batch: list[pysam.AlignedSegment] = []
        for segment in alignments.fetch(contig, starts[0], end):
            start = segment.reference_start
            while starts[place] < start:
                place += 1
            # Most reads cover no allele and are not looked at further; one without a CIGAR has no end.
            if starts[place] >= (segment.reference_end or 0) or segment.flag & SKIPPED_FLAGS:
                continue
            batch.append(segment)
            if len(batch) == READS:
                tally.add(batch)
                batch = []
        if batch:
            tally.add(batch)
    return tally.evidence()


def nothing(rows: int, depth: float = 0.0) -> dict[str, Floats]:
    """The evidence of no reads at all; ``depth`` NaN says that none were given."""
    empty = dict.fromkeys(EVIDENCE, np.nan)
    empty |= dict.fromkeys(("alt_forward", "alt_reverse", "ref_forward", "ref_reverse"), 0.0)
    empty |= {"depth": depth, "other_alleles": 0.0}
    return {name: np.full(rows, empty[name]) for name in EVIDENCE}


def _fetches(starts: Ints) -> Iterator[tuple[int, int]]:
    """Slices of alleles whose reads come from one fetch."""
    cuts = [0, *(np.flatnonzero(np.diff(starts) > SAME_FETCH) + 1).tolist(), len(starts)]
    return ((first, last) for first, last in pairwise(cuts) if first < last)


class _Tally:
    """Sums over the reads at n alleles."""

    def __init__(self, alleles: Alleles, sequence: bytes, images: Images | None = None) -> None:
        self.alleles, self.sequence, self.images = alleles, sequence, images
        # The last reference base that a read must cover to tell ref from alt, and the last base before
        # which the indel can be written.
        self.rightmost, self.last_anchors = alleles.ends - 1, alleles.starts.copy()
        for row in np.flatnonzero(alleles.simple_indels).tolist():
            start, ref, alt = int(alleles.starts[row]), alleles.refs[row], alleles.alts[row]
            end = start + len(ref)
            room = shift_room(start, ref, alt, sequence[start : end + FLANK], start)
            self.rightmost[row] = min(end + room, len(sequence) - 1)
            self.last_anchors[row] = max(start, self.rightmost[row] - max(0, len(ref) - len(alt)) - 1)
        self.sizes = np.where(alleles.simple_indels, np.abs(alleles.indel_lengths), alleles.alt_lengths)
        self.ref_bases, self.alt_bases = (
            np.frombuffer("".join(side[0] for side in sides).encode(), dtype=np.uint8)
            for sides in (alleles.refs, alleles.alts)
        )
        self.sums = {name: np.zeros(len(alleles.starts)) for name in SUMS}
        self.names: dict[str, int] = {}
        self.others: list[Ints] = []

    def add(self, segments: list[pysam.AlignedSegment]) -> None:
        """Add what the reads say of the alleles that they cover."""
        reads = AlignedReads(segments, self.sequence)
        begin = np.searchsorted(self.alleles.starts, reads.starts, side="left")
        counts = np.searchsorted(self.alleles.starts, reads.ends, side="left") - begin
        read = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(read)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begin, counts)
        covered = self.rightmost[row] < reads.ends[read]
        read, row = read[covered], row[covered]
        query = reads.query_at(read, self.alleles.starts[row])
        seen, name = self._support(reads, read, row, query)
        if self.images is not None:
            self.images.add(reads, read, row, seen)
        other = seen == OTHER
        self.others.append(row[other] << 32 | name[other])
        self._sum("depth", row)
        self._sum("low_mapping", row, reads.mapping_qualities[read] < LOW_MAPPING_QUALITY)
        for kind, label in ((REF, "ref"), (ALT, "alt")):
            which = seen == kind
            at, by, base = row[which], read[which], np.maximum(query[which], 0)
            self._sum(f"{label}_reverse", at, reads.reverse[by])
            self._sum(f"{label}_forward", at, ~reads.reverse[by])
            self._sum(f"{label}_base_quality", at, reads.qualities[reads.offsets[by] + base])
            self._sum(f"{label}_mapping_quality", at, reads.mapping_qualities[by])
            if kind == ALT:
                left, right = reads.left_clips[by], reads.right_clips[by]
                distance = np.minimum(base - left, reads.lengths[by] - right - 1 - base)
                self._sum("alt_end_distance", at, distance)
                self._sum("alt_soft_clipped", at, (left > 0) | (right > 0))
                self._sum("alt_mismatches", at, np.maximum(0, reads.edits[by] - self.sizes[at]))
                self._sum("improper_pairs", at, reads.improper[by])

    def evidence(self) -> dict[str, Floats]:
        """The sums as EVIDENCE."""
        sums = self.sums
        ref, alt = (sums[f"{label}_forward"] + sums[f"{label}_reverse"] for label in ("ref", "alt"))
        found = {name: sums[name] for name in EVIDENCE if name in COUNTS}
        for name in EVIDENCE:
            if name in sums and name not in COUNTS:
                found[name] = sums[name] / _nonzero(ref if name.startswith("ref") else alt)
        found["low_mapping_quality"] = sums["low_mapping"] / _nonzero(sums["depth"])
        alleles, reads = np.unique(np.concatenate([np.empty(0, np.int64), *self.others]), return_counts=True)
        rows = (alleles >> 32)[reads >= 2]
        found["other_alleles"] = np.bincount(rows, minlength=len(ref)).astype(np.float64)
        return {name: found[name] for name in EVIDENCE}

    def _sum(self, name: str, rows: Ints, values: NDArray[np.generic] | None = None) -> None:
        if rows.size:
            first = int(rows.min())
            added = np.bincount(rows - first, values)
            self.sums[name][first : first + len(added)] += added

    def _support(self, reads: AlignedReads, read: Ints, row: Ints, query: Ints) -> tuple[Ints, Ints]:
        """REF, ALT or OTHER for each pair of read and allele, and a number for the other allele."""
        base = np.where(query >= 0, reads.bases[reads.offsets[read] + np.maximum(query, 0)], 0)
        snv = self.alleles.snvs[row]
        seen = np.select(
            [snv & (base == self.ref_bases[row]), snv & (base == self.alt_bases[row])], [REF, ALT], OTHER
        )
        name = base.astype(np.int64)
        simple = self.alleles.simple_indels[row]
        indel = reads.indel_within(read, self.alleles.starts[row], self.last_anchors[row])
        seen[simple & (indel < 0) & (query >= 0)] = REF
        for pair in np.flatnonzero(simple & (indel >= 0)).tolist():
            seen[pair], name[pair] = self._indel_support(reads, int(row[pair]), int(indel[pair]))
        for pair in np.flatnonzero(~snv & ~simple & (query >= 0)).tolist():
            seen[pair], name[pair] = self._block_support(
                reads, int(read[pair]), int(row[pair]), int(query[pair])
            )
        return seen, name

    def _indel_support(self, reads: AlignedReads, row: int, indel: int) -> tuple[int, int]:
        """Any indel of the read within the stretch where the allele can be written decides."""
        anchor, length, inserted = reads.indel(indel)
        wanted = self.alleles.alts[row][1:] if length > 0 else ""
        turn = (anchor - int(self.alleles.starts[row])) % max(1, len(wanted))
        same = inserted == wanted[turn:] + wanted[:turn]
        if same and length == len(self.alleles.alts[row]) - len(self.alleles.refs[row]):
            return ALT, 0
        return OTHER, self._named(f"{length}{inserted}")

    def _block_support(self, reads: AlignedReads, read: int, row: int, query: int) -> tuple[int, int]:
        """A substitution of several bases is compared whole."""
        end = np.array([self.alleles.starts[row] + len(self.alleles.refs[row]) - 1])
        last = int(reads.query_at(np.array([read]), end)[0])
        if last < 0:
            return OTHER, 0
        text = reads.text(read, query, last)
        for kind, allele in ((REF, self.alleles.refs[row]), (ALT, self.alleles.alts[row])):
            if text == allele:
                return kind, 0
        return OTHER, self._named(text)

    def _named(self, text: str) -> int:
        """A number of its own for another allele, above those that stand for one base."""
        return self.names.setdefault(text, 256 + len(self.names))


def _nonzero(counts: Floats) -> Floats:
    """NaN in place of 0, so that a mean over no read is NaN."""
    return np.where(counts > 0, counts, np.nan)
