"""Tests of cordon.variants.haplotypes: equal haplotypes are found as an exhaustive search finds them."""

from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cordon.variants import haplotypes
from cordon.variants.haplotypes import Edit, Undecided, by_start, equal_from, replay

FLANK = "GATTACAGGC"


def subsets(indices):
    return (frozenset(some) for size in range(len(indices) + 1) for some in combinations(indices, size))


def exhaustive(edits, first, second, sequence):
    """Every pair of sets that spell the same and is not put together of two such pairs."""
    spelled = {some: replay([edits[i] for i in some], sequence) for some in subsets(range(len(edits)))}
    equal = {
        (one, other)
        for one in subsets(first)
        for other in subsets(second)
        if spelled[one] is not None and spelled[one] == spelled[other] and (one or other)
    }
    return {
        pair
        for pair in equal
        if all(pair)
        and not any(
            part != pair and part[0] <= pair[0] and part[1] <= pair[1]
            and (pair[0] - part[0], pair[1] - part[1]) in equal
            for part in equal
        )
    }  # fmt: skip


def found(edits, first, second, sequence):
    starts = sorted({edits[i].start for i in (*first, *second)})
    one, other = by_start(edits, first), by_start(edits, second)
    return {pair for place in starts for pair in equal_from(place, one, other, edits, sequence)}


@st.composite
def regions(draw):
    """A few bases, of which some repeat, and two sets of alleles of them."""
    middle = draw(st.text("AC", min_size=3, max_size=7))
    sequence = FLANK + middle + FLANK
    edits = []
    for _ in range(draw(st.integers(2, 7))):
        start = draw(st.integers(len(FLANK), len(FLANK) + len(middle)))
        end = draw(st.integers(start, min(start + 3, len(FLANK) + len(middle))))
        alt = draw(st.text("AC", max_size=3))
        edit = Edit.of(start + 1, sequence[start:end], alt)
        if edit.alt or edit.end > edit.start:
            edits.append(edit)
    side = draw(st.lists(st.booleans(), min_size=len(edits), max_size=len(edits)))
    first = [i for i, here in enumerate(side) if here]
    return sequence, edits, first, [i for i in range(len(edits)) if i not in first]


# The case of a substitution of two bases, and of a deletion and a substitution in a repeat.
MNP = (FLANK + "CAC" + FLANK, [Edit(10, 13, "AAA"), Edit(10, 11, "A"), Edit(12, 13, "A")], [0], [1, 2])


@settings(max_examples=400, deadline=None)
@given(region=regions())
@example(region=MNP)
def test_pairs_of_spellings_are_those_of_an_exhaustive_search(region):
    sequence, edits, first, second = region
    assert found(edits, first, second, sequence) == exhaustive(edits, first, second, sequence)


def test_an_allele_is_what_is_left_without_the_bases_that_stay():
    assert Edit.of(100, "CTC", "GTG") == Edit(99, 102, "GTG")
    assert Edit.of(100, "A", "ACC") == Edit(100, 100, "CC")
    assert Edit.of(100, "ACC", "A") == Edit(100, 102, "")
    assert Edit.of(100, "ACT", "AGT") == Edit(100, 101, "G")
    atoms = Edit(99, 102, "GTG").atoms("T" * 99 + "CTC")
    assert atoms == [Edit(99, 100, "G"), Edit(101, 102, "G")]


def test_what_has_too_many_ways_is_not_decided(monkeypatch):
    monkeypatch.setattr(haplotypes, "MOST_STATES", 3)
    sequence, edits, first, second = MNP
    with pytest.raises(Undecided):
        found(edits, first, second, sequence)
