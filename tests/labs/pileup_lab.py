"""Reads with and without an allele, for tests."""

from __future__ import annotations


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def snv(lab, position):
    ref = lab.sequences["chr1"][position - 1]
    return ref, other(ref)


def with_alt(lab, position, start, length=100):
    sequence = lab.sequences["chr1"]
    changed = sequence[: position - 1] + other(sequence[position - 1]) + sequence[position:]
    return changed[start : start + length]
