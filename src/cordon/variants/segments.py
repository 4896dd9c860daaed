"""Aligned reads laid out in flat arrays, so that questions about them are answered for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from zlib import crc32

import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.arrays import Bytes, Ints

# CIGAR operations by what they use up (SAM specification, section 1.4.6), in the order MIDNSHP=X.
USES_REFERENCE = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1], dtype=np.int64)
USES_QUERY = np.array([1, 1, 0, 0, 1, 0, 0, 1, 1], dtype=np.int64)
ALIGNS = (USES_REFERENCE & USES_QUERY).astype(np.bool_)


class AlignedReads:
    """n aligned reads of one contig, each with bases, a CIGAR and maybe qualities. Positions are 0-based.

    ``starts``, ``ends`` (past the last base), ``lengths`` (bases), ``mapping_qualities``, ``edits`` (edit
    distance as the NM tag counts it) and the soft-clipped bases at either end ``left_clips``,
    ``right_clips`` are int64 [n]; ``reverse`` and ``improper`` (paired, but not properly) are bool [n].
    """

    def __init__(self, segments: Sequence[pysam.AlignedSegment], sequence: bytes) -> None:
        segments = [segment for segment in segments if segment.query_sequence]
        count = len(segments)
        texts = [segment.query_sequence for segment in segments]
        flags = _ints((segment.flag for segment in segments), count)
        self.starts = _ints((segment.reference_start for segment in segments), count)
        self.mapping_qualities = _ints((segment.mapping_quality for segment in segments), count)
        self.reverse = (flags & 0x10) != 0
        self.improper = ((flags & 0x1) != 0) & ((flags & 0x2) == 0)
        self.lengths = _ints(map(len, texts), count)
        self.offsets = np.cumsum(self.lengths) - self.lengths
        self.bases = np.frombuffer("".join(texts).encode(), dtype=np.uint8)
        scores = [segment.query_qualities_str for segment in segments]
        if None in scores:  # a read without qualities counts as of phred 0
            scores = [told or "!" * len(text) for told, text in zip(scores, texts, strict=True)]
        self.qualities = np.frombuffer("".join(scores).encode(), dtype=np.uint8) - ord("!")
        self._segments = segments
        self._lay_out([segment.cigartuples for segment in segments])
        self.edits = self._edit_distances(segments, sequence)

    def query_at(self, reads: Ints, positions: Ints) -> Ints:
        """Index within each read of the base aligned to a position [m], -1 where there is none."""
        block = np.searchsorted(self._block_keys, self._key(reads, positions), side="right") - 1
        found = np.maximum(block, 0)
        into = positions - self._block_starts[found]
        holds = (block >= 0) & (self._block_reads[found] == reads) & (into < self._block_lengths[found])
        return np.where(holds, self._block_queries[found] + into, -1)

    def indel_within(self, reads: Ints, first: Ints, last: Ints) -> Ints:
        """The read's first indel whose anchor base lies in [first, last], -1 where there is none [m]."""
        place = np.searchsorted(self._indel_keys, self._key(reads, first), side="left")
        after = np.searchsorted(self._indel_keys, self._key(reads, last), side="right")
        return np.where(place < after, place, -1)

    def indel(self, index: int) -> tuple[int, int, str]:
        """Anchor, signed length and inserted bases of an indel that `indel_within` found."""
        length = int(self._indel_lengths[index])
        begin = int(self.offsets[self._indel_reads[index]] + self._indel_queries[index])
        inserted = self.bases[begin : begin + max(length, 0)].tobytes().decode()
        return int(self._indel_anchors[index]), length, inserted

    def text(self, read: int, first: int, last: int) -> str:
        """The bases ``first`` to ``last`` (both of them) of a read."""
        begin = int(self.offsets[read])
        return self.bases[begin + first : begin + last + 1].tobytes().decode()

    @cached_property
    def checksums(self) -> Ints:
        """CRC-32 of each read's name: an order of the reads that nothing else about them decides."""
        names = (crc32((segment.query_name or "").encode()) for segment in self._segments)
        return _ints(names, len(self._segments))

    def along_reference(self, sequence: bytes) -> tuple[Ints, Bytes, Bytes, NDArray[np.bool_]]:
        """What each read has at every reference base from its start to its end, all reads one after another.

        Where each read begins in them [n]; then bases (ASCII) and qualities (phred), both 0 where the read
        has none; and whether it differs: another base, none, or an indel after this one.
        """
        spans = self.ends - self.starts
        offsets = np.cumsum(spans) - spans
        reads, queries, positions = self._aligned(np.ones(len(spans), dtype=np.bool_))
        at = offsets[reads] + positions - self.starts[reads]
        bases, qualities = (np.zeros(int(spans.sum()), dtype=np.uint8) for _ in range(2))
        bases[at], qualities[at] = self.bases[queries], self.qualities[queries]
        differs = np.ones(len(bases), dtype=np.bool_)
        differs[at] = bases[at] != np.frombuffer(sequence, dtype=np.uint8)[positions]
        within = self._indel_anchors - self.starts[self._indel_reads]
        anchored = (within >= 0) & (within < spans[self._indel_reads])
        differs[(offsets[self._indel_reads] + within)[anchored]] = True
        return offsets, bases, qualities, differs

    def _aligned(self, wanted: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
        """Every aligned base of the ``wanted`` reads [n]: read, place in ``bases``, reference position."""
        blocks = wanted[self._block_reads]
        reads, lengths = self._block_reads[blocks], self._block_lengths[blocks]
        into = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        queries = np.repeat(self.offsets[reads] + self._block_queries[blocks], lengths) + into
        positions = np.repeat(self._block_starts[blocks], lengths) + into
        return np.repeat(reads, lengths), queries, positions

    def _lay_out(self, cigars: Sequence[Sequence[tuple[int, int]]]) -> None:
        """Walk all CIGARs at once: blocks of aligned bases, and indels by the reference base before them."""
        counts = _ints(map(len, cigars), len(cigars))
        flat = _ints(chain.from_iterable(chain.from_iterable(cigars)), 2 * int(counts.sum()))
        kinds, sizes = flat[0::2], flat[1::2]
        reads = np.repeat(np.arange(len(cigars)), counts)
        first = np.cumsum(counts) - counts
        steps = [sizes * uses[kinds] for uses in (USES_REFERENCE, USES_QUERY)]
        # Bases used up before each operation, counted within its own read.
        before = [np.cumsum(step) - step for step in steps]
        before = [total - np.repeat(total[first], counts) for total in before]
        positions, queries = self.starts[reads] + before[0], before[1]
        self.ends = self.starts + np.bincount(reads, steps[0], minlength=len(cigars)).astype(np.int64)
        self._base = int(self.starts.min(initial=0)) - 2
        self._span = int(self.ends.max(initial=0)) - self._base + 2

        aligned = ALIGNS[kinds]
        self._block_reads, self._block_starts = reads[aligned], positions[aligned]
        self._block_queries, self._block_lengths = queries[aligned], sizes[aligned]
        self._block_keys = self._key(self._block_reads, self._block_starts)

        indel = (kinds == pysam.CINS) | (kinds == pysam.CDEL)
        self._indel_reads, self._indel_anchors = reads[indel], positions[indel] - 1
        self._indel_queries = queries[indel]
        self._indel_lengths = np.where(kinds[indel] == pysam.CINS, sizes[indel], -sizes[indel])
        self._indel_keys = self._key(self._indel_reads, self._indel_anchors)

        last = first + counts - 1
        self.left_clips = self._clips(kinds, sizes, first, 1)
        self.right_clips = self._clips(kinds, sizes, last, -1)

    @staticmethod
    def _clips(kinds: Ints, sizes: Ints, at: Ints, inwards: int) -> Ints:
        """Soft-clipped bases at one end of each CIGAR; a hard clip may lie outside."""
        inner = np.clip(at + inwards, 0, max(0, len(kinds) - 1))
        at = np.where(kinds[at] == pysam.CHARD_CLIP, inner, at)
        return np.where(kinds[at] == pysam.CSOFT_CLIP, sizes[at], 0)

    def _key(self, reads: Ints, positions: Ints) -> Ints:
        """One number that sorts by read, then by position."""
        return reads * self._span + (positions - self._base)

    def _edit_distances(self, segments: Sequence[pysam.AlignedSegment], sequence: bytes) -> Ints:
        """The NM tags; for reads without one, inserted, deleted and mismatched bases counted here."""
        edits = np.array([_tag(segment, "NM") for segment in segments], dtype=np.int64)
        untold = edits < 0
        if untold.any():
            counted = np.bincount(
                self._indel_reads, np.abs(self._indel_lengths), minlength=len(edits)
            ).astype(np.int64)
            reads, queries, positions = self._aligned(untold)
            mismatched = self.bases[queries] != np.frombuffer(sequence, dtype=np.uint8)[positions]
            counted += np.bincount(reads, mismatched, minlength=len(edits)).astype(np.int64)
            edits = np.where(untold, counted, edits)
        return edits


def _ints(values: object, count: int) -> Ints:
    return np.fromiter(values, dtype=np.int64, count=count)  # type: ignore[call-overload, no-any-return]


def _tag(segment: pysam.AlignedSegment, name: str) -> int:
    try:
        return int(segment.get_tag(name))
    except KeyError:
        return -1
