"""Simulated variants: left alignment, and haplotypes that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cordon.arrays import Ints
from cordon.simulation.sequence import Codes, encode


@dataclass(frozen=True, order=True)
class Variant:
    """One allele against a sequence: 0-based position, and REF and ALT as in a VCF."""

    position: int
    ref: str
    alt: str

    @property
    def end(self) -> int:
        """Return the position behind the last REF base."""
        return self.position + len(self.ref)


def left_aligned(variant: Variant, sequence: str) -> Variant:
    """Return the parsimonious, left-aligned form (Tan, Abecasis and Kang 2015, algorithm 1)."""
    position, ref, alt = variant.position, variant.ref, variant.alt
    while ref[-1] == alt[-1] and (len(ref) > 1 or len(alt) > 1):
        if min(len(ref), len(alt)) == 1:
            if position == 0:
                break
            position -= 1
            ref, alt = sequence[position] + ref, sequence[position] + alt
        ref, alt = ref[:-1], alt[:-1]
    while min(len(ref), len(alt)) > 1 and ref[0] == alt[0]:
        position, ref, alt = position + 1, ref[1:], alt[1:]
    return Variant(position, ref, alt)


def reach(variant: Variant, sequence: str) -> int:
    """Return the position behind the last base that an equivalent form of the variant could touch."""
    if len(variant.ref) == len(variant.alt):
        return variant.end
    longer = max(variant.ref, variant.alt, key=len)
    moved = longer[1:]
    at = variant.end
    step = 0
    while at < len(sequence) and sequence[at] == moved[step % len(moved)]:
        at, step = at + 1, step + 1
    return at


def compatible(variants: Sequence[Variant], sequence: str) -> list[int]:
    """Return the indices of the sorted variants to keep so that no two could be written in another way.

    Neighbours that touch each other's possible positions would have several equally right VCF
    forms; the later one is left out.
    """
    kept: list[int] = []
    free_from = 0
    for index, variant in enumerate(variants):
        if variant.position >= free_from:
            kept.append(index)
            free_from = reach(variant, sequence) + 1
    return kept


def haplotype(codes: Codes, variants: Iterable[Variant]) -> tuple[Codes, Ints]:
    """Apply sorted, non-overlapping variants; return the codes and each base's position in the old ones."""
    parts: list[Codes] = []
    origins: list[Ints] = []
    at = 0
    for variant in variants:
        parts += [codes[at : variant.position], encode(variant.alt)]
        offsets = np.minimum(np.arange(len(variant.alt)), len(variant.ref) - 1)
        origins += [np.arange(at, variant.position), variant.position + offsets]
        at = variant.end
    parts.append(codes[at:])
    origins.append(np.arange(at, codes.size))
    return np.concatenate(parts), np.concatenate(origins)
