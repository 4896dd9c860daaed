"""Groups of alleles in which accuracy is told apart: how rare, of which type and size, in which context.

Every boundary here is fixed and public. A stratum never takes part in training and never leaves the site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from cordon.arrays import Bools
from cordon.errors import UserError

Names = NDArray[np.str_]
Bins = NDArray[np.int8]

SNV, INSERTION, DELETION, COMPLEX = TYPES = ("SNV", "insertion", "deletion", "complex")
# What is calibrated, filtered and judged apart: all types but SNV together are indels.
INDEL = "indel"
KINDS = (SNV, INDEL)

# Shares of the population's chromosomes at which the next bin begins. Below 1 % is what is called rare and
# from 5 % on common; 0.1 % and 0.01 % part the rare ones by a power of ten each.
FREQUENCY_EDGES = (0.0001, 0.001, 0.01, 0.05)
FREQUENCIES = ("absent or below 0.01 %", "0.01-0.1 %", "0.1-1 %", "1-5 %", "5 % or more")
# Without a resource zygosity stands in for frequency: a carrier of an allele of frequency q is homozygous
# with probability q / (2 - q) under Hardy-Weinberg proportions, so a rare allele is seldom homozygous. The
# reverse does not hold: many heterozygous alleles are common.
ZYGOSITIES = ("heterozygous", "homozygous", "unknown")

# bp inserted or deleted at which the next bin begins: one base, up to 5 bp (the first class of hap.py's
# report of indels), up to 20 bp, and longer ones.
SIZE_EDGES = (2, 6, 21)
SIZES = ("1 bp", "2-5 bp", "6-20 bp", "over 20 bp")

# bp of one base in a row; our choice, between GIAB's classes of 4-6 bp and of 7-11 bp.
LONG_HOMOPOLYMER = 6
# bp of one unit, and copies of it: a short tandem repeat of at least three copies; our choice.
REPEAT_UNITS = (2, 6)
REPEAT_COPIES = 3
# Shares of G and C: GIAB's stratification "below 25 % or above 65 %", whose windows are 100 bp (Dwarshuis et
# al. 2024, Nature Communications 15:9029).
GC_RICH, AT_RICH = 0.65, 0.25
HOMOPOLYMER, REPEAT, GC, AT, PLAIN = CONTEXTS = (
    "homopolymer",
    "tandem repeat",
    "GC-rich",
    "AT-rich",
    "plain",
)
# The share of reads with a heterozygous allele below which few of them are: half of it is expected. As
# f_alt_fraction has it (`cordon.variants.features.read_features`).
LOW_SHARE, LOW_FRACTION = 0.25, -1.0
# What a filter must not lose unseen, though real alleles of it score low: by name, as a site gives them.
LOW_BALANCE, RARE, HOMOPOLYMERS, REPEATS = GUARDED = ("low_balance", "rare", "homopolymer", "tandem_repeat")


def contexts(
    homopolymer: ArrayLike, repeat_unit: ArrayLike, repeat_length: ArrayLike, gc: ArrayLike
) -> Names:
    """The sequence context [n] of alleles, the first of CONTEXTS that holds.

    All arguments are [n] as of ``context.CONTEXT``: longest run of one base, unit and whole length of the
    longest tandem repeat (bp), and the share of G and C.
    """
    unit, share = np.asarray(repeat_unit), np.asarray(gc)
    short = (unit >= REPEAT_UNITS[0]) & (unit <= REPEAT_UNITS[1])
    holds = [
        np.asarray(homopolymer) >= LONG_HOMOPOLYMER,
        short & (np.asarray(repeat_length) >= REPEAT_COPIES * unit),
        share >= GC_RICH,
        share <= AT_RICH,
    ]
    return np.select(holds, [np.array(name) for name in CONTEXTS[:-1]], np.array(PLAIN))


def variant_types(refs: Sequence[str], alts: Sequence[str]) -> Names:
    """The type [n], one of TYPES, of normalised alleles; sequences or arrow arrays of upper-case bases.

    An insertion or deletion has one anchor base; several substituted bases, or an indel with a
    substitution, are complex.
    """
    ref, alt = _arrow(refs), _arrow(alts)
    ref_length, alt_length = _lengths(ref), _lengths(alt)
    anchored = _numpy(pc.equal(pc.utf8_slice_codeunits(ref, 0, 1), pc.utf8_slice_codeunits(alt, 0, 1)))
    holds = [
        (ref_length == 1) & (alt_length == 1),
        (ref_length == 1) & (alt_length > 1) & anchored,
        (ref_length > 1) & (alt_length == 1) & anchored,
    ]
    return np.select(holds, [np.array(name) for name in TYPES[:-1]], np.array(COMPLEX))


def size_bins(refs: Sequence[str], alts: Sequence[str]) -> Bins:
    """The index [n] in SIZES of the bp inserted or deleted, -1 where there are none."""
    change = np.abs(_lengths(_arrow(alts)) - _lengths(_arrow(refs)))
    bins: Bins = np.where(change > 0, np.searchsorted(SIZE_EDGES, change, side="right"), -1).astype(np.int8)
    return bins


def frequency_bins(allele_frequency: ArrayLike) -> Bins:
    """The index [n] in FREQUENCIES of shares of the population's chromosomes, -1 where NaN."""
    # The edges in the shares' own precision: 0.01 in float32 lies below 0.01 in float64.
    share = np.asarray(allele_frequency, dtype=np.float32)
    edges = np.array(FREQUENCY_EDGES, dtype=np.float32)
    bins: Bins = np.where(np.isnan(share), -1, np.searchsorted(edges, share, side="right")).astype(np.int8)
    return bins


def strata(table: pa.Table) -> Iterator[tuple[str, str, Bools]]:
    """(kind, name, rows [n]) of every stratum of a variant table that holds a row, in a fixed order.

    Kinds are ``type`` (SNV, then all others as indel, then each of TYPES that is no SNV), ``frequency``,
    ``zygosity`` in its place for the rows whose allele frequency is not known, ``balance`` (heterozygous and
    in less than LOW_SHARE of the reads), ``size``, ``context``, and ``callers``: which called the allele.
    """
    frequency = frequency_bins(table["allele_frequency"].to_numpy())
    size = size_bins(table["ref"], table["alt"])
    snv = _equal(table, "variant_type", SNV)
    found = [("type", SNV, snv), ("type", INDEL, ~snv)]
    found += [("type", name, _equal(table, "variant_type", name)) for name in TYPES if name != SNV]
    found += [("frequency", name, frequency == place) for place, name in enumerate(FREQUENCIES)]
    found += [("zygosity", name, (frequency < 0) & _equal(table, "zygosity", name)) for name in ZYGOSITIES]
    found += [("balance", "heterozygous, few reads", low_balance(table))]
    found += [("size", name, size == place) for place, name in enumerate(SIZES)]
    found += [("context", name, _equal(table, "context", name)) for name in CONTEXTS]
    found += [("callers", name, _equal(table, "callers", name)) for name in agreements(table)]
    return ((kind, name, rows) for kind, name, rows in found if rows.any())


def indels(table: pa.Table) -> Bools:
    """Which alleles [n] are no SNVs."""
    return ~_equal(table, "variant_type", SNV)


def low_balance(table: pa.Table) -> Bools:
    """Which alleles [n] are heterozygous and in few of the reads."""
    few: Bools = table["f_alt_fraction"].to_numpy() < LOW_FRACTION
    return few & _equal(table, "zygosity", "heterozygous")


def guarded(table: pa.Table) -> dict[str, Bools]:
    """Which alleles [n] are in each of GUARDED; rare is below 1 % in the population, where that is known."""
    rare = frequency_bins(table["allele_frequency"].to_numpy())
    return {
        LOW_BALANCE: low_balance(table),
        RARE: (rare >= 0) & (rare < FREQUENCY_EDGES.index(0.01) + 1),
        HOMOPOLYMERS: _equal(table, "context", HOMOPOLYMER),
        REPEATS: _equal(table, "context", REPEAT),
    }


def strata_named(text: str) -> tuple[str, ...]:
    """The strata in ``text``, with commas between; of KINDS, too. UserError where there is no such one."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in (*GUARDED, *KINDS):
            raise UserError(f"no stratum is called {name!r}. Use of: {', '.join((*GUARDED, *KINDS))}.")
    return names


def agreements(table: pa.Table) -> list[str]:
    """Every combination of callers that called an allele of the table, fewer callers first."""
    return fewer_first(name for name in pc.unique(table["callers"]).to_pylist() if name)


def fewer_first(combinations: Iterable[str]) -> list[str]:
    """Combinations of callers, those of fewer callers first."""
    return sorted(combinations, key=lambda name: (name.count(";"), name))


def _equal(table: pa.Table, column: str, name: str) -> Bools:
    rows: Bools = pc.equal(table[column], name).fill_null(False).to_numpy()
    return rows


def _arrow(values: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=pa.string())


def _lengths(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    return _numpy(pc.binary_length(values)).astype(np.int64)


def _numpy(values: pa.Array | pa.ChunkedArray) -> NDArray[np.generic]:
    chunks = isinstance(values, pa.ChunkedArray)
    array: NDArray[np.generic] = values.to_numpy() if chunks else values.to_numpy(zero_copy_only=False)
    return array
