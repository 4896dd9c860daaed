"""DNA as arrays of codes (A, C, G, T, N = 0..4): conversion, composition, divergence and tandem repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Ints

Codes = NDArray[np.uint8]

UNKNOWN = 4
_LETTERS = np.frombuffer(b"ACGTN", dtype=np.uint8)
_CODES = np.full(256, UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(b"ACGT"):
    _CODES[_letter] = _CODES[_letter + 32] = _code

LONGEST_UNIT = 4
# A transition (A<->G, C<->T) is this many times as likely as both transversions together.
TRANSITION_RATIO = 2.1


def encode(text: str) -> Codes:
    """Return the codes of a sequence; anything but A, C, G and T in either case becomes N."""
    return _CODES[np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)]


def decode(codes: Codes) -> str:
    """Return the sequence that codes stand for, in capitals."""
    return _LETTERS[codes].tobytes().decode("ascii")


def complement(codes: Codes) -> Codes:
    """Return the complementary codes, in the same order."""
    return np.where(codes == UNKNOWN, UNKNOWN, codes ^ 3).astype(np.uint8)


def composed(length: int, gc: float, rng: np.random.Generator) -> Codes:
    """Return random sequence of a GC share, with the CpG dinucleotides depleted as in vertebrates."""
    at = (1 - gc) / 2
    codes = rng.choice(4, size=length, p=[at, gc / 2, gc / 2, at]).astype(np.uint8)
    cpg = np.flatnonzero((codes[:-1] == 1) & (codes[1:] == 2))
    decayed = cpg[rng.random(cpg.size) < 0.75]
    to_tg = rng.random(decayed.size) < 0.5
    codes[decayed[to_tg]] = 3
    codes[decayed[~to_tg] + 1] = 0
    return codes


def substitutes(codes: Codes, rng: np.random.Generator) -> Codes:
    """Return for each base another one, transitions preferred by TRANSITION_RATIO."""
    transition = rng.random(codes.size) < TRANSITION_RATIO / (1 + TRANSITION_RATIO)
    # With A, C, G, T = 0..3, ^2 is the transition and ^1 and ^3 are the transversions.
    flips = np.where(transition, 2, 1 + 2 * rng.integers(0, 2, codes.size))
    return (codes ^ flips).astype(np.uint8)


def diverge(codes: Codes, rate: float, rng: np.random.Generator) -> Codes:
    """Return a copy with substitutions at ``rate`` a base, and deletions of 1-3 bp at a tenth of it."""
    copy = codes.copy()
    hit = np.flatnonzero((rng.random(codes.size) < rate) & (codes != UNKNOWN))
    copy[hit] = substitutes(copy[hit], rng)
    gone = np.flatnonzero(rng.random(codes.size) < rate / 10)
    keep = np.ones(codes.size, dtype=np.bool_)
    for start, size in zip(gone, rng.integers(1, 4, gone.size), strict=True):
        keep[start : start + size] = False
    return copy[keep]


@dataclass(frozen=True)
class Repeats:
    """Tandem repeats of a sequence, sorted by start: [start, end) in bp, and the unit's size in bp."""

    start: Ints
    end: Ints
    unit: Ints

    @property
    def length(self) -> Ints:
        """Return the repeats' lengths in bp."""
        return self.end - self.start


def tandem_repeats(codes: Codes, shortest: int = 6) -> Repeats:
    """Find the runs of units of 1 to LONGEST_UNIT bp that are at least ``shortest`` bp and 3 units long."""
    found: list[NDArray[np.int64]] = []
    covered = np.zeros(codes.size, dtype=np.bool_)
    for unit in range(1, LONGEST_UNIT + 1):
        same = (codes[unit:] == codes[:-unit]) & (codes[unit:] != UNKNOWN) & ~covered[unit:]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        start, end = edges[::2], edges[1::2] + unit
        long = (end - start) >= max(shortest, 3 * unit)
        start, end = start[long], end[long]
        found.append(np.stack([start, end, np.full(start.size, unit)]))
        for a, b in zip(start, end, strict=True):
            covered[a:b] = True
    table = np.concatenate(found, axis=1)
    table = table[:, np.argsort(table[0], kind="stable")]
    return Repeats(table[0], table[1], table[2])
