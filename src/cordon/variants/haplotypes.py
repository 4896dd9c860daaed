"""Two sets of alleles are one haplotype where they spell one sequence, whatever alleles they are made of.

Both are replayed over the reference side by side, base by base, and a pair of sets ends where both are at one
place of the reference again with equal bases behind them (J. G. Cleary et al., "Comparing variant call files
for performance benchmarking of next-generation sequencing variant calling pipelines", bioRxiv 023754, 2015).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

# How far (bp) one spelling may reach: alleles beyond it are never compared with one another.
REACH = 100
# States looked at from one place. What needs more is not decided.
MOST_STATES = 5_000
# Alleles of a pair of which every part is compared; beyond it, a pair is taken to have none.
MOST_COMPARED = 12

Members = frozenset[int]


class Undecided(Exception):
    """More ways to put the alleles together than are looked at."""


@dataclass(frozen=True)
class Edit:
    """The bases [start, end) of the reference (0-based) replaced by ``alt``: an allele without its anchor."""

    start: int
    end: int
    alt: str

    @classmethod
    def of(cls, position: int, ref: str, alt: str) -> Edit:
        """The allele ``ref`` > ``alt`` at a 1-based position."""
        start, end = position - 1, position - 1 + len(ref)
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt, end = ref[:-1], alt[:-1], end - 1
        while ref and alt and ref[0] == alt[0]:
            ref, alt, start = ref[1:], alt[1:], start + 1
        return cls(start, end, alt)

    def atoms(self, sequence: str) -> list[Edit]:
        """The substitutions of single bases that it is made of; none but where it is several."""
        if len(self.alt) != self.end - self.start or len(self.alt) < 2:
            return []
        places = range(self.start, self.end)
        pairs = zip(places, sequence[self.start : self.end], self.alt, strict=True)
        return [Edit(at, at + 1, base) for at, ref, base in pairs if ref != base]


def replay(edits: Iterable[Edit], sequence: str) -> str | None:
    """The sequence with the edits made; None where two of them overlap, or are inserted at one place."""
    made, reached, inserted = [], 0, -1
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < reached or (edit.start == edit.end == inserted):
            return None
        made += [sequence[reached : edit.start], edit.alt]
        reached, inserted = edit.end, edit.start if edit.start == edit.end else -1
    return "".join([*made, sequence[reached:]])


def equal_from(
    place: int, first: Mapping[int, Sequence[int]], second: Mapping[int, Sequence[int]],
    edits: Sequence[Edit], sequence: str,
) -> Iterator[tuple[Members, Members]]:  # fmt: skip
    """Pairs of sets, none of them empty, that spell the same from ``place`` (0-based) on and nowhere before.

    ``first`` and ``second`` have, by where it starts, the indices in ``edits`` that each set may be made of.
    No pair has a part that is a pair itself, and none where one side spells the reference. Raises Undecided.
    """
    nothing: Members = frozenset()
    # For each side: its place in the reference, its members, and where it inserted last; then the bases by
    # which one side is ahead, and which.
    stack = [((place, nothing, -1), (place, nothing, -1), "", 0)]
    limit, states = min(len(sequence), place + 3 * REACH), 0
    while stack:
        *sides, ahead, leader = stack.pop()
        states += 1
        if states > MOST_STATES:
            raise Undecided
        behind = 1 - leader if ahead else int(sides[1][0] < sides[0][0])
        at, members, inserted = sides[behind]
        choices = [(at + 1, members, -1, sequence[at])] if at < limit else []
        for index in (first, second)[behind].get(at, ()):
            edit = edits[index]
            if edit.end == at == inserted:
                continue
            now = at if edit.end == at else -1
            choices.append((edit.end, members | {index}, now, edit.alt))
        for reached, chosen, now, bases in choices:
            common = min(len(ahead), len(bases))
            if ahead[:common] != bases[:common]:
                continue
            other = sides[1 - behind]
            rest, front = (ahead[common:], leader) if len(ahead) > common else (bases[common:], behind)
            pair = ((reached, chosen, now), other) if behind == 0 else (other, (reached, chosen, now))
            if not rest and pair[0][0] == pair[1][0]:
                made = pair[0][1], pair[1][1]
                if all(made) and not _divides(*made, edits, sequence):
                    yield made
                continue
            stack.append((*pair, rest, front))


def _divides(one: Members, other: Members, edits: Sequence[Edit], sequence: str) -> bool:
    """Whether the pair is two pairs side by side, of which one may spell the reference on both sides."""
    if len(one) + len(other) <= 2 or len(one) + len(other) > MOST_COMPARED:
        return False
    start = min(edits[index].start for index in one | other)
    end = max(edits[index].end for index in one | other)
    window = sequence[start:end]
    for part, counterpart in product(_parts(one), _parts(other)):
        if (part or counterpart) and (part != one or counterpart != other):
            rests = one - part, other - counterpart
            if all(
                _spelled(left, edits, window, start) == _spelled(right, edits, window, start)
                for left, right in ((part, counterpart), rests)
            ):
                return True
    return False


def _spelled(members: Members, edits: Sequence[Edit], window: str, start: int) -> str | None:
    moved = (Edit(edits[i].start - start, edits[i].end - start, edits[i].alt) for i in members)
    return replay(moved, window)


def _parts(members: Members) -> Iterator[Members]:
    for size in range(len(members) + 1):
        yield from map(frozenset, combinations(sorted(members), size))


def by_start(edits: Sequence[Edit], indices: Iterable[int]) -> dict[int, list[int]]:
    """The indices of ``edits`` by where each starts."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for index in indices:
        found[edits[index].start].append(index)
    return dict(found)
