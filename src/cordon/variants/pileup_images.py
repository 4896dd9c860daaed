"""Pileup images: the reads at a candidate allele as a small picture, in fixed public numbers.

An image is uint8 [channels, reads, width]: a row for each read in the order of their starts, columns along
the reference with the allele's first base in the middle, 0 where there is no read. It depends on the sample's
own reads at the allele and on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from cordon.arrays import Bytes, Ints

if TYPE_CHECKING:
    from cordon.variants.segments import AlignedReads


CHANNELS = (
    "base",  # A, C, G, T in even steps; 32 for N, 0 for a deleted base
    "base_quality",  # 6 a phred, capped at 40
    "mapping_quality",  # 4 a phred, capped at 60, the highest of bwa and minimap2
    "strand",  # 120 forward, 240 reverse
    "support",  # 240 the allele, 120 the reference, 60 something else
    "difference",  # 240 where the read has another base than the reference, none, or an indel after it
)
READS = 32
WIDTH = 51  # bp
SHAPE = (len(CHANNELS), READS, WIDTH)
SIZE = prod(SHAPE)
# The models that look at them: a row's inputs are its features and behind them its image, flattened.
WITH_IMAGES = ("pileup_cnn",)

_BASES = np.zeros(256, dtype=np.uint8)
_BASES[np.frombuffer(b"NACGT", dtype=np.uint8)] = [32, 64, 128, 192, 255]
_BASE_QUALITIES = (np.minimum(np.arange(256), 40) * 6).astype(np.uint8)
_MAPPING_QUALITIES = (np.minimum(np.arange(256), 60) * 4).astype(np.uint8)
_STRANDS = np.array([120, 240], dtype=np.uint8)
_SUPPORT = np.array([120, 240, 60], dtype=np.uint8)  # by `cordon.variants.pileup`'s REF, ALT, OTHER
_DIFFERENCES = np.array([0, 240], dtype=np.uint8)
_COLUMNS = np.arange(WIDTH) - WIDTH // 2


@dataclass(frozen=True)
class _Pairs:
    """Pairs of read and allele [m]: the allele, the read's checksum and number, and its row of the image."""

    row: Ints
    checksum: Ints
    number: Ints
    drawn: Bytes

    def take(self, which: Ints) -> _Pairs:
        return _Pairs(self.row[which], self.checksum[which], self.number[which], self.drawn[which])

    def joined(self, other: _Pairs) -> _Pairs:
        return _Pairs(
            np.concatenate([self.row, other.row]),
            np.concatenate([self.checksum, other.checksum]),
            np.concatenate([self.number, other.number]),
            np.concatenate([self.drawn, other.drawn]),
        )


class Images:
    """The images of n alleles that begin at ``starts`` (int64 [n], 0-based, ascending).

    Of more than READS reads those with the lowest checksums of their names are shown: an even choice, the
    same on every run. Reads must come in the order of their starts.
    """

    def __init__(self, starts: Ints, sequence: bytes) -> None:
        self._starts, self._sequence = starts, sequence
        self._pixels: Bytes = np.zeros((len(starts), *SHAPE), dtype=np.uint8)
        # Of alleles that a later read may cover: only such rows are kept outside the pixels.
        none = np.empty(0, dtype=np.int64)
        self._waiting = _Pairs(none, none, none, np.empty((0, len(CHANNELS), WIDTH), dtype=np.uint8))
        self._read = 0

    def add(self, reads: AlignedReads, read: Ints, row: Ints, support: Ints) -> None:
        """Show the pairs of ``read`` and allele ``row`` [m]; ``support`` is REF, ALT or OTHER."""
        if not len(reads.starts):
            return
        shown = _lowest(row, reads.checksums[read])
        read, row, support = read[shown], row[shown], support[shown]
        drawn = self._draw(reads, read, row, support)
        pairs = self._waiting.joined(_Pairs(row, reads.checksums[read], self._read + read, drawn))
        self._read += len(reads.starts)
        pairs = pairs.take(_lowest(pairs.row, pairs.checksum))
        # No later read begins before the last one, so none covers an allele before it.
        complete = self._starts[pairs.row] < reads.starts[-1]
        self._write(pairs.take(np.flatnonzero(complete)))
        self._waiting = pairs.take(np.flatnonzero(~complete))

    def pixels(self) -> Bytes:
        """All images, uint8 [n, channels, reads, width]."""
        self._write(self._waiting)
        return self._pixels

    def _write(self, pairs: _Pairs) -> None:
        pairs = pairs.take(np.lexsort((pairs.number, pairs.row)))
        self._pixels[pairs.row, :, _ranks(pairs.row)] = pairs.drawn

    def _draw(self, reads: AlignedReads, read: Ints, row: Ints, support: Ints) -> Bytes:
        """The image row of each pair, uint8 [m, channels, width]."""
        offsets, bases, qualities, differs = reads.along_reference(self._sequence)
        columns = self._starts[row][:, None] + _COLUMNS
        starts = reads.starts[read][:, None]
        inside = (columns >= starts) & (columns < reads.ends[read][:, None])
        place = np.where(inside, columns - starts + offsets[read][:, None], 0)
        drawn = np.empty((len(read), len(CHANNELS), WIDTH), dtype=np.uint8)
        drawn[:, 0] = _BASES[bases][place]
        drawn[:, 1] = _BASE_QUALITIES[qualities][place]
        drawn[:, 2] = _MAPPING_QUALITIES[reads.mapping_qualities[read]][:, None]
        drawn[:, 3] = _STRANDS[reads.reverse[read].astype(np.int64)][:, None]
        drawn[:, 4] = _SUPPORT[support][:, None]
        drawn[:, 5] = _DIFFERENCES[differs.astype(np.int64)][place]
        drawn *= inside[:, None]
        return drawn


def _lowest(row: Ints, checksum: Ints) -> Ints:
    """Indices of the pairs that are among the READS lowest of their row."""
    order = np.lexsort((checksum, row))
    kept: Ints = order[_ranks(row[order]) < READS]
    return kept


def _ranks(row: Ints) -> Ints:
    """The place of each entry within its own run of equal rows [m]."""
    first = np.flatnonzero(np.diff(row, prepend=-1))
    return np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))
