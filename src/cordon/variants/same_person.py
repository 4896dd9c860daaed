"""Whether patients of one site seem to be one person under several ids, by the genotypes in their own tables.

Compared is the share of a sample's heterozygous SNVs that are heterozygous in the other one, too. Of one
person it is nearly all. Of a parent and a child it is one half, whatever the alleles' frequencies; of two
siblings 5/8 at most (1/4 of the genome is the same in both copies, 1/2 in one, and elsewhere 2pq <= 1/2 are);
of unrelated people one half at most. Only alleles that a caller's own filter passes are looked at, and of
these a fixed sample by their hashes (bottom-k, Broder 1997), so that genomes and exomes compare on what both
cover. Nothing of this leaves the site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cordon.arrays import Ints
from cordon.calls.callers import CALLERS
from cordon.steps import Steps, silent
from cordon.variants.strata import SNV
from cordon.variants.table import VARIANTS, read_batches

# From this share on two samples seem to be one person's, and from the other on they are taken for one's:
# siblings have 5/8 at most on average, one person sequenced twice at 20x or more above 0.9 (docs/privacy.md).
LIKE_ONE, AS_ONE = 0.7, 0.8
# The most alleles of a sample that are compared, and the fewest that show anything.
MOST_ALLELES, LEAST_ALLELES = 1 << 14, 100
# Siblings may share all of a short stretch: alleles that make one person must lie in so many windows (bp).
WINDOW, LEAST_WINDOWS = 10_000_000, 20
_COLUMNS = 1 << 12
REMEDY = (
    "As two patients one person is two units, and protected less than epsilon says. Where it is one, give "
    "both rows of the samplesheet one patient's id"
)
# What is said where the one is merged, could be, and cannot be.
MERGED = "Their rows are one unit. If they are two people, as identical twins are, set --same_person warn."
UNMERGED = f"{REMEDY}, or set --same_person merge; identical twins are two people."
UNSURE = (
    f"{REMEDY}. They are not merged: that takes {100 * AS_ONE:.0f} %, in {LEAST_WINDOWS} stretches of "
    f"{WINDOW // 1_000_000} Mb."
)
# What `--same_person` may be.
WARN, MERGE = "warn", "merge"

Hashes = NDArray[np.uint64]
_EVERYTHING = np.uint64(2**64 - 1)
_NAMES = ("site", "patient", "contig", "position", "ref", "alt", "variant_type", "zygosity")
_NEEDED = pa.schema(
    [VARIANTS.field(name) for name in (*_NAMES, *(f"{caller}_pass" for caller in CALLERS))],
    metadata=VARIANTS.metadata,
)


@dataclass(frozen=True)
class SnvSketch:
    """One patient's heterozygous SNVs in one table: the least of their ``hashes`` [n], sorted, and where.

    ``windows`` [n] numbers the stretch of the genome that each lies in; ``limit`` is the hash up to which
    nothing was left out.
    """

    table: str
    site: str
    patient: str
    hashes: Hashes
    windows: Ints
    limit: np.uint64

    @classmethod
    def of(cls, table: str, site: str, patient: str, hashes: Hashes, windows: Ints) -> SnvSketch:
        """The sample whose heterozygous alleles have these ``hashes`` and ``windows`` [n], in any order."""
        hashes, windows = _least(hashes, windows, MOST_ALLELES + 1)
        limit = _EVERYTHING if len(hashes) <= MOST_ALLELES else hashes[MOST_ALLELES - 1]
        return cls(table, site, patient, hashes[:MOST_ALLELES], windows[:MOST_ALLELES], limit)


@dataclass(frozen=True)
class Alike:
    """Two patients of a site that seem to be one person: ``share`` of the ``alleles`` that were compared.

    Those in common lie in ``windows`` stretches of the genome.
    """

    first: SnvSketch
    second: SnvSketch
    share: float
    alleles: int
    windows: int

    @property
    def sure(self) -> bool:
        """Whether they may be made one unit: no siblings are so alike over so much of the genome."""
        return self.share >= AS_ONE and self.windows >= LEAST_WINDOWS

    def __str__(self) -> str:
        return (
            f"{self.first.table} and {self.second.table} seem to be of one person under two patients' ids: "
            f"{100 * self.share:.0f} % of the {self.alleles} heterozygous alleles compared are in both, and "
            f"siblings have 63 % at most on average."
        )


def read_samples(paths: Iterable[Path]) -> Iterator[SnvSketch]:
    """Each patient's sample in each of the variant tables at ``paths``, a row group in memory at a time."""
    for path in paths:
        kept: dict[tuple[str, str], tuple[Hashes, Ints]] = {}
        for batch in read_batches(path, _NEEDED):
            for owner, hashes, windows in _by_patient(_heterozygous(batch)):
                before, places = kept.get(owner, (np.empty(0, np.uint64), np.empty(0, np.int64)))
                # One more than is compared says that something was left out.
                kept[owner] = _least(
                    np.concatenate([before, hashes]), np.concatenate([places, windows]), MOST_ALLELES + 1
                )
        for (site, patient), (hashes, windows) in kept.items():
            yield SnvSketch.of(path.name, site, patient, hashes, windows)


def compared(samples: Sequence[SnvSketch]) -> tuple[NDArray[np.float64], Ints]:
    """The share that every two of n samples have in common, and of how many alleles [n, n]; 0 of none."""
    limits = np.array([sample.limit for sample in samples], dtype=np.uint64)
    below = np.stack([np.searchsorted(sample.hashes, limits, side="right") for sample in samples])
    alleles = np.minimum(below, below.T)
    share: NDArray[np.float64] = _common([sample.hashes for sample in samples]) / np.maximum(alleles, 1)
    return share, alleles


def alike(samples: Sequence[SnvSketch]) -> list[Alike]:
    """Every two samples of a site's different patients that have LIKE_ONE or more in common.

    Pairs of which fewer than LEAST_ALLELES can be compared are left out.
    """
    found = []
    for site in sorted({sample.site for sample in samples}):
        own = [sample for sample in samples if sample.site == site]
        share, alleles = compared(own)
        for one, other in np.argwhere(np.triu((alleles >= LEAST_ALLELES) & (share >= LIKE_ONE), k=1)):
            first, second = own[one], own[other]
            if first.patient != second.patient:
                windows = _windows(first, second)
                found.append(
                    Alike(first, second, float(share[one, other]), int(alleles[one, other]), windows)
                )
    return found


def one_id(pairs: Iterable[Alike]) -> dict[str, str]:
    """The id that each patient of the ``sure`` pairs goes by when they are one unit."""
    ids: dict[str, str] = {}

    def of(patient: str) -> str:
        while (other := ids.get(patient, patient)) != patient:
            patient = other
        return patient

    for pair in pairs:
        if pair.sure:
            first, second = sorted((of(pair.first.patient), of(pair.second.patient)))
            ids |= {first: first, second: first}
    return {patient: of(patient) for patient in ids}


def same_people(
    paths: Sequence[Path], *, merge: bool, say: Callable[[str], None], steps: Steps = silent
) -> dict[str, str]:
    """Say who, in the variant tables at ``paths``, seems to be one person; with ``merge``, by `one_id`.

    What is said names tables, and stays at the site. Without ``merge`` nothing has another id.
    """
    samples: list[SnvSketch] = []
    with steps("comparing patients", len(paths), "tables") as tick:
        for path in paths:
            samples += read_samples([path])
            tick()
    pairs = alike(samples)
    for pair in pairs:
        say(f"{pair} {(MERGED if merge else UNMERGED) if pair.sure else UNSURE}")
    return one_id(pairs) if merge else {}


def _least(hashes: Hashes, windows: Ints, most: int) -> tuple[Hashes, Ints]:
    order = np.argsort(hashes)[:most]
    return hashes[order], windows[order]


def _heterozygous(batch: pa.Table) -> pa.Table:
    """The rows of single bases that are heterozygous and that some caller's own filter passes."""
    passed = [pc.fill_null(batch[f"{caller}_pass"], False) for caller in CALLERS]
    kind = pc.and_(pc.equal(batch["variant_type"], SNV), pc.equal(batch["zygosity"], "heterozygous"))
    return batch.filter(pc.and_(reduce(pc.or_, passed), kind))


def _by_patient(rows: pa.Table) -> Iterator[tuple[tuple[str, str], Hashes, Ints]]:
    """Each patient's site and id, and hashes and windows of its rows."""
    hashes, windows = _hashed(rows)
    (sites, site), (patients, patient) = _coded(rows["site"]), _coded(rows["patient"])
    owners = site * len(patients) + patient
    for owner in np.unique(owners).tolist():
        one, other = divmod(owner, len(patients))
        yield (sites[one], patients[other]), hashes[owners == owner], windows[owners == owner]


def _hashed(rows: pa.Table) -> tuple[Hashes, Ints]:
    """A hash of each row's allele, by SplitMix64 (Steele et al. 2014), and the number of its window."""
    names, contig = _coded(rows["contig"])
    contigs = np.array([crc32(name.encode()) for name in names], dtype=np.uint64)[contig]
    position = rows["position"].to_numpy()
    value = _mixed(contigs) ^ (position.astype(np.uint64) << np.uint64(16))
    for name, shift in (("ref", 8), ("alt", 0)):
        letters, base = _coded(rows[name])
        value ^= np.array([ord(letter) for letter in letters], dtype=np.uint64)[base] << np.uint64(shift)
    return _mixed(value), (contigs.astype(np.int64) << 16) + position // WINDOW


def _coded(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct values of a column, and the number [n] of each row's."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)


def _mixed(value: Hashes) -> Hashes:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _common(sets: Sequence[Hashes]) -> NDArray[np.float32]:
    """How many hashes every two of n sets have in common [n, n]."""
    owners = np.repeat(np.arange(len(sets)), [len(own) for own in sets])
    _, columns, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    shared = counts > 1  # what only one has is common to no two
    renumbered = np.cumsum(shared) - 1
    several = shared[columns]
    owners, columns = owners[several], renumbered[columns[several]]
    order = np.argsort(columns, kind="stable")
    owners, columns = owners[order], columns[order]
    found = np.zeros((len(sets), len(sets)), dtype=np.float32)
    for first in range(0, int(shared.sum()), _COLUMNS):
        start, end = np.searchsorted(columns, (first, first + _COLUMNS))
        held = np.zeros((len(sets), _COLUMNS), dtype=np.float32)
        held[owners[start:end], columns[start:end] - first] = 1.0
        found += held @ held.T
    return found


def _windows(one: SnvSketch, other: SnvSketch) -> int:
    _, places, _ = np.intersect1d(one.hashes, other.hashes, assume_unique=True, return_indices=True)
    return len(np.unique(one.windows[places]))
