"""Candidates that are one haplotype written in several ways, by each other and by a truth set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pysam

from cordon.arrays import Bools, Ints
from cordon.calls.callers import PREFERENCE
from cordon.variants.haplotypes import REACH, Edit, Members, Undecided, by_start, equal_from

Allele = tuple[int, str, str]  # 1-based position, ref, alt
# Rows of a table that hold one haplotype twice: those that stand for it, and those that repeat them.
Repeat = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Respelled:
    """Of a contig's candidates that are no truth alleles: which are real, and of which that is not known.

    ``found`` are the indices of the truth alleles that such candidates spell.
    """

    real: frozenset[Allele]
    unknown: frozenset[Allele]
    found: frozenset[int]


def respelled(
    candidates: Sequence[Allele], truth: Sequence[Allele], found: Bools, sequence: str
) -> Respelled:
    """The ``candidates``, none of them a truth allele, by whether sets of them spell sets of truth alleles.

    ``truth`` are one contig's, sorted; those ``found`` [n] are candidates as they are, and may take part. A
    truth allele of several substitutions may be spelled by some of them. Unknown is a candidate in what is
    not decided, or in a truth allele that is neither substitutions nor insertion nor deletion alone.
    """
    real, unknown, spelled = set[Allele](), set[Allele](), set[int]()
    positions = np.array([allele[0] for allele in truth], dtype=np.int64)
    for group in _groups(sorted(candidates)):
        low, high = group[0][0] - REACH, max(at + len(ref) for at, ref, _ in group) + REACH
        near = range(*np.searchsorted(positions, [low - REACH, high]).tolist())
        edits = [Edit.of(*allele) for allele in group] + [Edit.of(*truth[at]) for at in near]
        own, real_ones = range(len(group)), range(len(group), len(edits))
        atoms = [atom for at in real_ones for atom in edits[at].atoms(sequence)]
        mixed = [edits[at] for at in real_ones if not _plain(edits[at]) and not edits[at].atoms(sequence)]
        unknown |= {group[at] for at in own if any(_overlap(edits[at], other) for other in mixed)}
        edits += atoms
        first = [*own, *(at for at in real_ones if found[near[at - len(group)]])]
        second = range(len(group), len(edits))
        pairs, undecided = _pairs(edits, first, second, list(own), sequence)
        for spelling, truths in pairs:
            real |= {group[at] for at in spelling if at in own}
            spelled |= {near[at - len(group)] for at in truths if at in real_ones}
        unknown |= {group[at] for at in own if any(p <= edits[at].start <= p + 3 * REACH for p in undecided)}
    return Respelled(frozenset(real), frozenset(unknown - real), frozenset(spelled))


def repeats(alleles: Sequence[Allele], callers: Sequence[str], sequence: str) -> list[Repeat]:
    """Which of one contig's alleles, sorted, write the haplotype of others once more; pairs of row indices.

    The spelling stands that most callers have, then the first of PREFERENCE, then that of more records: each
    of ``callers`` is one row's, with semicolons between. No row is repeated that repeats, and none twice.
    """
    rows: list[Repeat] = []
    taken: set[int] = set()
    start = 0
    for group in _groups(alleles):
        edits, offset, start = [Edit.of(*allele) for allele in group], start, start + len(group)
        everyone = range(len(group))
        asked = [at for at in everyone if not _single(edits[at])]
        pairs, _ = _pairs(edits, everyone, everyone, asked, sequence) if asked else ([], [])
        held = [set(callers[offset + at].split(";")) for at in everyone]
        for one, other in sorted(pairs, key=lambda pair: (min(pair[0] | pair[1]), *map(sorted, pair))):
            if one.isdisjoint(other) and taken.isdisjoint(offset + at for at in one | other):
                parts = sorted((one, other), key=lambda members: _rank(members, held))
                stands, again = (tuple(sorted(offset + at for at in part)) for part in parts)
                taken.update(again)
                rows.append((stands, again))
    return rows


def whole_haplotypes(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of ``batches`` cut anew, where alleles are far apart: no haplotype lies in two."""
    held: pa.Table | None = None
    for batch in batches:
        table = batch if held is None else pa.concat_tables([held, batch])
        cut = _last_gap(table)
        if cut:
            yield table.slice(0, cut)
        held = table.slice(cut)
    if held is not None:
        yield held


def repeats_of(table: pa.Table, reference: pysam.FastaFile) -> list[Repeat]:
    """`repeats` of a variant table, whose rows are sorted by contig and position."""
    rows: list[Repeat] = []
    contigs = table["contig"].to_numpy()
    bounds = [0, *(np.flatnonzero(contigs[1:] != contigs[:-1]) + 1).tolist(), table.num_rows]
    for first, last in pairwise(bounds):
        part = table.slice(first, last - first)
        columns = (part[name].to_pylist() for name in ("position", "ref", "alt"))
        alleles: list[Allele] = list(zip(*columns, strict=True))
        if all(len(ref) == len(alt) == 1 for _, ref, alt in alleles):
            continue
        before = alleles[0][0] - 1
        end = max(at + len(ref) for at, ref, _ in alleles) + 3 * REACH
        window = reference.fetch(str(contigs[first]), before, end).upper()
        near = [(at - before, ref, alt) for at, ref, alt in alleles]
        found = repeats(near, part["callers"].to_pylist(), window)
        rows += [(tuple(at + first for at in a), tuple(at + first for at in b)) for a, b in found]
    return rows


def _pairs(
    edits: Sequence[Edit], first: Iterable[int], second: Iterable[int], asked: Sequence[int], sequence: str
) -> tuple[list[tuple[Members, Members]], list[int]]:
    """Pairs of equal spellings near the edits ``asked`` for, and places from which that was not decided."""
    one, other = by_start(edits, first), by_start(edits, second)
    if all(map(_single, edits)):
        return [], []
    wanted: Ints = np.sort(np.array([edits[at].start for at in asked], dtype=np.int64))
    found: list[tuple[Members, Members]] = []
    undecided: list[int] = []
    for place in sorted({*one, *other}):
        nearest = int(np.searchsorted(wanted, place - REACH))
        if nearest == len(wanted) or wanted[nearest] > place + REACH:
            continue
        try:
            found += equal_from(place, one, other, edits, sequence)
        except Undecided:
            undecided.append(place)
    return found, undecided


def _groups(alleles: Sequence[Allele]) -> Iterator[list[Allele]]:
    """Sorted alleles cut where more than REACH bp lie between."""
    group: list[Allele] = []
    reached = 0
    for allele in alleles:
        if group and allele[0] > reached + REACH:
            yield group
            group = []
        group.append(allele)
        reached = max(reached, allele[0] + len(allele[1]))
    if group:
        yield group


def _last_gap(table: pa.Table) -> int:
    """The last row of a sorted table that is far from all before it; 0 where none is."""
    if table.num_rows < 2:
        return 0
    starts = table["position"].to_numpy()
    ends = starts + np.fromiter(map(len, table["ref"].to_pylist()), np.int64, table.num_rows)
    contigs = table["contig"].to_numpy()
    anew = contigs[1:] != contigs[:-1]
    furthest = np.maximum.accumulate(ends)[:-1]
    # On a new contig positions start again, and those of the one before reach nowhere.
    cuts = np.flatnonzero(anew | (starts[1:] > furthest + REACH)) + 1
    return int(cuts[-1]) if cuts.size else 0


def _rank(members: Members, held: Sequence[set[str]]) -> tuple[int, int, int, list[int]]:
    """Where a spelling stands among others of its haplotype, the first highest."""
    callers = set.intersection(*(held[at] for at in members))
    first = min((PREFERENCE.index(caller) for caller in callers), default=len(PREFERENCE))
    return -len(callers), first, -len(members), sorted(members)


def _single(edit: Edit) -> bool:
    return edit.end - edit.start == len(edit.alt) == 1


def _plain(edit: Edit) -> bool:
    return _single(edit) or edit.start == edit.end or not edit.alt


def _overlap(edit: Edit, other: Edit) -> bool:
    return edit.start < other.end and other.start < max(edit.end, edit.start + 1)
