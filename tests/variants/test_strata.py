"""The bins in which accuracy is told apart: their edges, and which rows each holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordon.variants.strata import (
    CONTEXTS,
    FREQUENCIES,
    SIZES,
    TYPES,
    contexts,
    frequency_bins,
    size_bins,
    strata,
    variant_types,
)

BASES = st.text("ACGT", min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("A", "C", "SNV"),
        ("A", "AT", "insertion"),
        ("AT", "A", "deletion"),
        ("AT", "GC", "complex"),
        ("A", "CT", "complex"),
        ("AT", "C", "complex"),
        ("ATT", "AT", "complex"),
    ],
)
def test_types_are_told_by_length_and_anchor_base(ref: str, alt: str, kind: str) -> None:
    assert variant_types([ref], [alt]).tolist() == [kind]


@given(st.lists(st.tuples(BASES, BASES)))
def test_every_allele_has_a_type_whatever_holds_the_strings(alleles: list[tuple[str, str]]) -> None:
    refs, alts = [ref for ref, _ in alleles], [alt for _, alt in alleles]
    found = variant_types(refs, alts).tolist()
    assert set(found) <= set(TYPES)
    chunked = [pa.chunked_array([side[:1], side[1:]], pa.string()) for side in (refs, alts)]
    assert variant_types(*chunked).tolist() == found
    assert variant_types(*(chunk.combine_chunks() for chunk in chunked)).tolist() == found


@pytest.mark.parametrize(
    ("inserted", "name"),
    [
        (0, None),
        (1, "1 bp"),
        (2, "2-5 bp"),
        (5, "2-5 bp"),
        (6, "6-20 bp"),
        (20, "6-20 bp"),
        (21, "over 20 bp"),
    ],
)
def test_the_edges_of_the_size_bins(inserted: int, name: str | None) -> None:
    short, long = "A", "A" + "C" * inserted
    for ref, alt in ((short, long), (long, short)):
        place = size_bins([ref], [alt])[0]
        assert (SIZES[place] if place >= 0 else None) == name
    assert size_bins(["AC"], ["GT"]).tolist() == [-1]


@pytest.mark.parametrize(
    ("share", "name"),
    [
        (0.0, "absent or below 0.01 %"),
        (0.000099, "absent or below 0.01 %"),
        (0.0001, "0.01-0.1 %"),
        (0.001, "0.1-1 %"),
        (0.0099999, "0.1-1 %"),
        (0.01, "1-5 %"),
        (0.05, "5 % or more"),
        (1.0, "5 % or more"),
    ],
)
def test_the_edges_of_the_frequency_bins_in_single_and_double_precision(share: float, name: str) -> None:
    for precision in (np.float32, np.float64):
        assert FREQUENCIES[frequency_bins(np.array([share], dtype=precision))[0]] == name
    assert frequency_bins([np.nan]).tolist() == [-1]


def test_contexts_hold_at_their_thresholds_and_in_their_order() -> None:
    rows = [  # homopolymer, unit, length of the repeat, GC; what it is
        (6, 2, 6, 0.9, "homopolymer"),
        (5, 2, 6, 0.9, "tandem repeat"),
        (5, 2, 5, 0.9, "GC-rich"),
        (5, 6, 18, 0.5, "tandem repeat"),
        (5, 1, 5, 0.65, "GC-rich"),
        (1, 0, 0, 0.649, "plain"),
        (1, 0, 0, 0.25, "AT-rich"),
        (1, 0, 0, 0.251, "plain"),
    ]
    homopolymer, unit, length, gc, names = zip(*rows, strict=True)
    assert contexts(homopolymer, unit, length, gc).tolist() == list(names)
    assert set(names) == set(CONTEXTS)
    assert contexts([], [], [], []).tolist() == []


def table(rows: list[tuple[str, str, float | None, str, str]]) -> pa.Table:
    refs, alts, shares, zygosities, around = zip(*rows, strict=True)
    return pa.table(
        {
            "ref": refs,
            "alt": alts,
            "variant_type": variant_types(refs, alts).tolist(),
            "allele_frequency": pa.array(shares, pa.float32()),
            "zygosity": zygosities,
            "f_alt_fraction": pa.array([-1.5, 0.0, -1.5][: len(rows)], pa.float32()),
            "context": around,
            "callers": ["", "other;deepvariant", "deepvariant"][: len(rows)],
        }
    )


def test_strata_of_a_table_name_only_what_is_there() -> None:
    found = strata(
        table(
            [
                ("A", "C", 0.0, "heterozygous", "plain"),
                ("A", "AGG", 0.02, "heterozygous", "homopolymer"),
                ("AT", "A", None, "homozygous", "plain"),
            ]
        )
    )
    assert [(kind, name, np.flatnonzero(rows).tolist()) for kind, name, rows in found] == [
        ("type", "SNV", [0]),
        ("type", "indel", [1, 2]),
        ("type", "insertion", [1]),
        ("type", "deletion", [2]),
        ("frequency", "absent or below 0.01 %", [0]),
        ("frequency", "1-5 %", [1]),
        ("zygosity", "homozygous", [2]),
        ("balance", "heterozygous, few reads", [0]),
        ("size", "1 bp", [2]),
        ("size", "2-5 bp", [1]),
        ("context", "homopolymer", [1]),
        ("context", "plain", [0, 2]),
        ("callers", "deepvariant", [2]),
        ("callers", "other;deepvariant", [1]),
    ]


def test_without_a_resource_zygosity_stands_in_for_frequency() -> None:
    rows = [("A", "C", None, zygosity, "plain") for zygosity in ("heterozygous", "homozygous", "unknown")]
    kinds = [(kind, name) for kind, name, _ in strata(table(rows)) if kind in ("frequency", "zygosity")]
    assert kinds == [("zygosity", "heterozygous"), ("zygosity", "homozygous"), ("zygosity", "unknown")]
