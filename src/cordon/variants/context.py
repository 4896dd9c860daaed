"""The sequence around an allele: repeats, composition, and where else its indel could be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Bytes

# Bases (bp) of reference looked at on each side of an allele.
FLANK = 150
GC_WINDOW = 50
LONGEST_UNIT = 6
TRANSITIONS = ("AG", "GA", "CT", "TC")
BEYOND = 0  # stands for N and for bases beyond the contig's ends; equal to no base

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


@dataclass(frozen=True)
class Alleles:
    """n normalised biallelic alleles of one contig, sorted: ``starts`` int64 [n], 0-based, of ``refs``."""

    starts: NDArray[np.int64]
    refs: Sequence[str]
    alts: Sequence[str]

    @cached_property
    def ref_lengths(self) -> NDArray[np.int64]:
        return np.fromiter(map(len, self.refs), dtype=np.int64, count=len(self.refs))

    @cached_property
    def alt_lengths(self) -> NDArray[np.int64]:
        return np.fromiter(map(len, self.alts), dtype=np.int64, count=len(self.alts))

    @property
    def ends(self) -> NDArray[np.int64]:
        """0-based, past the last reference base of each allele."""
        return self.starts + self.ref_lengths

    @property
    def indel_lengths(self) -> NDArray[np.int64]:
        """Inserted bases (positive) or deleted bases (negative), 0 for a substitution."""
        return self.alt_lengths - self.ref_lengths

    @cached_property
    def simple_indels(self) -> NDArray[np.bool_]:
        """Which are one insertion or deletion after one anchor base."""
        anchored = np.array([r[0] == a[0] for r, a in zip(self.refs, self.alts, strict=True)], dtype=np.bool_)
        lengths = np.stack([self.ref_lengths, self.alt_lengths])
        simple: NDArray[np.bool_] = (lengths.min(axis=0) == 1) & (lengths.max(axis=0) > 1) & anchored
        return simple

    @property
    def snvs(self) -> NDArray[np.bool_]:
        """Which are one substituted base."""
        snvs: NDArray[np.bool_] = (self.ref_lengths == 1) & (self.alt_lengths == 1)
        return snvs


def shift_room(start: int, ref: str, alt: str, sequence: bytes, offset: int) -> int:
    """How many bp to the right a left-aligned simple indel can be moved without changing the result.

    ``sequence`` is the reference from 0-based ``offset`` on; the answer never looks past its end.
    """
    insertion = len(alt) > len(ref)
    moved = (alt if insertion else ref)[1:].encode()
    at = start + 1 - offset + (0 if insertion else len(moved))
    room = 0
    while at + room < len(sequence) and sequence[at + room] == moved[room % len(moved)]:
        room += 1
    return room


def describe(
    sequence: bytes, alleles: Alleles, before: float = -np.inf, after: float = np.inf
) -> dict[str, NDArray[np.float64]]:
    """The context of alleles on one contig, of which ``sequence`` is the whole, in upper case.

    ``before`` and ``after`` are the 0-based starts of the candidates next to these on the contig.
    """
    # The base after the anchor is the first one that an indel touches.
    at = alleles.starts + alleles.simple_indels
    window = _windows(sequence, at)
    unit, length = _longest_repeats(window)
    near = np.arange(-FLANK, FLANK + 1)
    inside = (near >= (alleles.starts - GC_WINDOW - at)[:, None]) & (
        near < (alleles.ends + GC_WINDOW - at)[:, None]
    )
    bases = {base: ((window == ord(base)) & inside).sum(axis=1) for base in "ACGT"}
    known = sum(bases.values())
    snvs = alleles.snvs
    return {
        "homopolymer": _homopolymers(window),
        "repeat_unit": unit,
        "repeat_length": length,
        "gc": np.where(known > 0, (bases["G"] + bases["C"]) / np.maximum(known, 1), 0.5),
        "indel_length": alleles.indel_lengths.astype(np.float64),
        "snv": snvs.astype(np.float64),
        "transition": np.array(
            [
                snv and ref + alt in TRANSITIONS
                for snv, ref, alt in zip(snvs, alleles.refs, alleles.alts, strict=True)
            ],
            dtype=np.float64,
        ),
        "nearest_candidate": _distances(alleles.starts, before, after),
    }


def _windows(sequence: bytes, at: NDArray[np.int64]) -> Bytes:
    """The bases from FLANK before to FLANK after each place: uint8 [n, 2 FLANK + 1]."""
    if not at.size:
        return np.zeros((0, 2 * FLANK + 1), dtype=np.uint8)
    first, last = int(at.min()) - FLANK, int(at.max()) + FLANK + 1
    bases = np.frombuffer(sequence[max(0, first) : last], dtype=np.uint8)
    known = np.where(bases == ord("N"), BEYOND, bases).astype(np.uint8)
    left = max(0, -first)
    stretch = np.pad(known, (left, last - first - left - len(known)), constant_values=BEYOND)
    windows: Bytes = np.lib.stride_tricks.sliding_window_view(stretch, 2 * FLANK + 1)[at - first - FLANK]
    return windows


def _longest_repeats(window: Bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The tandem repeat around each window's middle: unit and length in bp, the unit 1 to 6 bp long.

    A run counts from two whole units on; of equally long ones the shortest unit wins. 0 without one.
    """
    units, lengths = np.zeros(len(window)), np.zeros(len(window))
    for unit in range(1, LONGEST_UNIT + 1):
        same = (window[:, :-unit] == window[:, unit:]) & (window[:, unit:] != BEYOND)
        length = _run(same[:, FLANK - 1 :: -1]) + _run(same[:, FLANK:]) + unit
        better = (length >= 2 * unit) & (length > lengths)
        units[better], lengths[better] = unit, length[better]
    return units, lengths


def _homopolymers(window: Bytes) -> NDArray[np.float64]:
    """Length of the longest run of one base that holds or touches each window's middle."""
    same = (window[:, :-1] == window[:, 1:]) & (window[:, 1:] != BEYOND)
    runs = [
        np.where(window[:, place] == BEYOND, 0, 1 + _run(same[:, place - 1 :: -1]) + _run(same[:, place:]))
        for place in (FLANK - 1, FLANK, FLANK + 1)
    ]
    longest: NDArray[np.float64] = np.max(runs, axis=0).astype(np.float64)
    return longest


def _run(same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the first columns are true in each row."""
    count: NDArray[np.int64] = np.where(same.all(axis=1), same.shape[1], np.argmin(same, axis=1))
    return count


def _distances(starts: NDArray[np.int64], before: float, after: float) -> NDArray[np.float64]:
    """Distance in bp from each allele to the nearest one that starts elsewhere; infinite when alone."""
    places = np.unique(starts).astype(np.float64)
    padded = np.concatenate([[before], places, [after]])
    index = np.searchsorted(places, starts) + 1
    nearest: NDArray[np.float64] = np.minimum(starts - padded[index - 1], padded[index + 1] - starts)
    return nearest
