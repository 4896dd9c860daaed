"""Collapsed duplications: copies that the patients' genomes have and the reference lacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.simulation.population import random_variants
from cordon.simulation.reference import Reference
from cordon.simulation.sequence import UNKNOWN, Codes, composed
from cordon.simulation.variants import Variant, haplotype

_FLANK_BP = 450
_EDGE_BP = 1_000
# One in this many long ones is not confident, as benchmark makers leave out the worst places.
EXCLUDED_SHARE = 4


@dataclass(frozen=True)
class Kind:
    """A class of duplications: one per ``spacing`` bp, with ranges of size (bp) and divergence."""

    spacing: int
    size: tuple[int, int]
    divergence: tuple[float, float]


# Recent long duplications, and old short ones whose reads align with many mismatches and clipped ends.
LONG = Kind(spacing=28_000, size=(600, 1_200), divergence=(0.002, 0.007))
SHORT = Kind(spacing=40_000, size=(200, 340), divergence=(0.01, 0.035))


@dataclass(frozen=True)
class Paralog:
    """An extra copy of reference [start, end): its differences with their frequencies among such copies.

    ``presence`` is the share of haplotypes that have the copy; the flanks are unique sequence.
    """

    start: int
    end: int
    variants: tuple[Variant, ...]
    frequencies: Floats
    presence: float
    flanks: tuple[Codes, Codes]
    confident: bool

    def copies(self, reference: Reference, rng: np.random.Generator) -> list[Codes]:
        """Draw what a patient has: none, one or two copies, each with its own differences."""
        drawn: list[Codes] = []
        for _ in range(2):
            present = rng.random() < self.presence
            carried = rng.random(len(self.variants)) < self.frequencies
            if present:
                own = [variant for variant, has in zip(self.variants, carried, strict=True) if has]
                body, _ = haplotype(reference.codes[self.start : self.end], own)
                drawn.append(np.concatenate([self.flanks[0], body, self.flanks[1]]))
        return drawn


def draw_paralogs(reference: Reference, rng: np.random.Generator) -> tuple[Paralog, ...]:
    """Draw the collapsed duplications of a consortium, none overlapping another."""
    taken = reference.codes == UNKNOWN
    found: list[Paralog] = []
    for kind in (LONG, SHORT):
        count = max(1, reference.codes.size // kind.spacing)
        # Evenly spread over the ranges, so that cohorts of different seeds are about equally hard.
        sizes = rng.permutation(np.linspace(*kind.size, count + 2)[1:-1]).astype(np.int64)
        divergences = rng.permutation(np.linspace(*kind.divergence, count + 2)[1:-1])
        for number, (size, divergence) in enumerate(zip(sizes.tolist(), divergences.tolist(), strict=True)):
            start = _free_place(taken, size, rng)
            if start is None:
                continue
            taken[start - _FLANK_BP : start + size + _FLANK_BP] = True
            confident = kind is SHORT or number % EXCLUDED_SHARE != 1
            found.append(_paralog(reference, start, size, divergence, confident, rng))
    return tuple(sorted(found, key=lambda paralog: paralog.start))


def _free_place(taken: NDArray[np.bool_], size: int, rng: np.random.Generator) -> int | None:
    for _ in range(200):
        start = int(rng.integers(_EDGE_BP, taken.size - size - _EDGE_BP))
        if not taken[start - _FLANK_BP : start + size + _FLANK_BP].any():
            return start
    return None


def _paralog(
    reference: Reference, start: int, size: int, divergence: float, confident: bool, rng: np.random.Generator
) -> Paralog:
    segment = Reference(reference.contig, reference.codes[start : start + size])
    variants = random_variants(segment, round(size * divergence), rng)
    # Most differences are fixed; gene conversion and young mutations leave some at lower frequency.
    frequencies = np.where(rng.random(len(variants)) < 0.6, 1.0, rng.random(len(variants)))
    flanks = (composed(_FLANK_BP, 0.42, rng), composed(_FLANK_BP, 0.42, rng))
    presence = float(rng.choice([1.0, 0.7, 0.4], p=[0.3, 0.4, 0.3]))
    return Paralog(start, start + size, variants, frequencies, presence, flanks, confident)
