"""The sequence around an allele: repeats, composition, and where else its indel could be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Bases (bp) of reference looked at on each side of an allele.
FLANK = 150
GC_WINDOW = 50
LONGEST_UNIT = 6
PURINES = frozenset("AG")
PYRIMIDINES = frozenset("CT")

# What `describe` returns, all float64 [n]: lengths in bp, `gc` a share, `snv` and `transition` 0 or 1.
CONTEXT = (
    "homopolymer",
    "repeat_unit",
    "repeat_length",
    "gc",
    "indel_length",
    "snv",
    "transition",
    "nearest_candidate",
)


@dataclass(frozen=True, slots=True)
class Allele:
    """One normalised biallelic allele: 0-based ``start`` of ``ref`` on its contig."""

    start: int
    ref: str
    alt: str

    @property
    def end(self) -> int:
        """0-based, past the last reference base of the allele."""
        return self.start + len(self.ref)

    @property
    def indel_length(self) -> int:
        """Inserted bases (positive) or deleted bases (negative), 0 for a substitution."""
        return len(self.alt) - len(self.ref)

    @property
    def simple_indel(self) -> bool:
        """Whether it is one insertion or deletion after one anchor base."""
        shorter, longer = sorted((self.ref, self.alt), key=len)
        return len(shorter) == 1 < len(longer) and shorter[0] == longer[0]


def shift_room(allele: Allele, sequence: str, offset: int) -> int:
    """How many bp to the right a left-aligned simple indel can be moved without changing the result.

    ``sequence`` is the reference from 0-based ``offset`` on; the answer never looks past its end.
    """
    moved = allele.alt[1:] if allele.indel_length > 0 else allele.ref[1:]
    at = allele.start + 1 - offset + (0 if allele.indel_length > 0 else len(moved))
    room = 0
    while at + room < len(sequence) and sequence[at + room] == moved[room % len(moved)]:
        room += 1
    return room


def longest_repeat(sequence: str, at: int) -> tuple[int, int]:
    """The tandem repeat around ``sequence[at]``: unit and length in bp, the unit 1 to 6 bp long.

    A run counts from two whole units on; of equally long ones the shortest unit wins. (0, 0) without one.
    """
    best = (0, 0)
    for unit in range(1, LONGEST_UNIT + 1):
        left = at
        while (
            left > 0 and left - 1 + unit < len(sequence) and sequence[left - 1] == sequence[left - 1 + unit]
        ):
            left -= 1
        right = at
        while right + unit < len(sequence) and sequence[right] == sequence[right + unit]:
            right += 1
        length = right + unit - left
        if length >= 2 * unit and length > best[1]:
            best = (unit, length)
    return best


def describe(contig: str, alleles: Sequence[Allele]) -> dict[str, NDArray[np.float64]]:
    """The context of alleles sorted by start on one contig, of which ``contig`` is the whole sequence."""
    columns = {name: np.zeros(len(alleles)) for name in CONTEXT}
    for row, allele in enumerate(alleles):
        offset = max(0, allele.start - FLANK)
        window = contig[offset : allele.end + FLANK]
        # The base after the anchor is the first one that an indel touches.
        at = min(allele.start - offset + (1 if allele.simple_indel else 0), len(window) - 1)
        columns["homopolymer"][row] = _homopolymer(window, at)
        columns["repeat_unit"][row], columns["repeat_length"][row] = longest_repeat(window, at)
        near = contig[max(0, allele.start - GC_WINDOW) : allele.end + GC_WINDOW]
        known = len(near) - near.count("N")
        columns["gc"][row] = (near.count("G") + near.count("C")) / known if known else 0.5
        columns["indel_length"][row] = allele.indel_length
        snv = len(allele.ref) == len(allele.alt) == 1
        pair = {allele.ref, allele.alt}
        columns["snv"][row] = snv
        columns["transition"][row] = snv and (pair <= PURINES or pair <= PYRIMIDINES)
    columns["nearest_candidate"] = _distances(alleles)
    return columns


def _homopolymer(window: str, at: int) -> int:
    """Length of the longest run of one base that holds or touches ``window[at]``."""
    runs = []
    for start in (at - 1, at, at + 1):
        if 0 <= start < len(window):
            left = right = start
            while left > 0 and window[left - 1] == window[start]:
                left -= 1
            while right + 1 < len(window) and window[right + 1] == window[start]:
                right += 1
            runs.append(right - left + 1)
    return max(runs, default=0)


def _distances(alleles: Sequence[Allele]) -> NDArray[np.float64]:
    """Distance in bp from each allele to the nearest one that starts elsewhere; infinite when alone."""
    starts = np.array([allele.start for allele in alleles], dtype=np.float64)
    places = np.unique(starts)
    padded = np.concatenate([[-np.inf], places, [np.inf]])
    index = np.searchsorted(places, starts) + 1
    nearest: NDArray[np.float64] = np.minimum(starts - padded[index - 1], padded[index + 1] - starts)
    return nearest
