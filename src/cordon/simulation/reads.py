"""Reads off fragments: repeat-length errors, context-dependent base errors, and their qualities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats, Ints
from cordon.simulation.fragments import Fragments, Molecules
from cordon.simulation.platforms import ADAPTER, Artefacts, Platform
from cordon.simulation.sequence import Codes, Repeats, encode

_BEST_QUALITY = 41
_WORST_QUALITY = 2
# Floors of the quality bins of recent instruments, and what they report for each.
_BIN_FLOORS = np.array([0, 8, 20, 30])
_BIN_VALUES = np.array([2, 12, 23, 37])


@dataclass(frozen=True)
class ReadPairs:
    """Read pairs in the direction of sequencing; row 2i and 2i + 1 are read 1 and read 2 of fragment i.

    ``codes`` and ``qualities`` (phred) are [2 * fragments, read length], uint8.
    """

    codes: Codes
    qualities: NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """For each read: its first base in the molecules, direction (+1 or -1), and fragment; 1 if read 2."""

    anchor: Ints
    direction: Ints
    fragment: Ints
    second: Ints


def sequence_reads(
    molecules: Molecules,
    fragments: Fragments,
    repeats: Repeats,
    platform: Platform,
    artefacts: Artefacts,
    rng: np.random.Generator,
) -> ReadPairs:
    """Sequence both ends of every fragment; ``repeats`` are the tandem repeats of the molecules."""
    layout = _lay_out(fragments)
    shift = _slips(molecules, fragments, layout, repeats, platform, artefacts, rng)
    travelled = np.arange(platform.read_length) + shift
    index = layout.anchor[:, None] + layout.direction[:, None] * travelled
    beyond = travelled >= fragments.size[layout.fragment][:, None]
    np.clip(index, 0, molecules.codes.size - 1, out=index)
    codes = molecules.codes[index]
    backward = layout.direction < 0
    codes[backward] ^= 3
    _read_into_adapter(codes, beyond, travelled - fragments.size[layout.fragment][:, None], rng)
    _oxidise(codes, layout.second, platform, rng)
    _err_systematically(codes, molecules.origin[index], beyond, backward, artefacts, rng)
    qualities = _err_at_random(codes, layout.second, platform, rng)
    return ReadPairs(codes, qualities)


def _lay_out(fragments: Fragments) -> _Layout:
    number = np.arange(fragments.start.size)
    left = np.stack([fragments.first_left, ~fragments.first_left], axis=1).ravel()
    fragment = np.repeat(number, 2)
    start, size = fragments.start[fragment], fragments.size[fragment]
    return _Layout(
        anchor=np.where(left, start, start + size - 1),
        direction=np.where(left, 1, -1),
        fragment=fragment,
        second=np.tile([0, 1], number.size),
    )


def _slip_rate(repeats: Repeats, molecules: Molecules, platform: Platform, artefacts: Artefacts) -> Floats:
    """Return each repeat's share of molecules with a wrong length; it grows steeply with the length."""
    units = repeats.length / repeats.unit
    logarithm = np.log(0.004) + np.where(repeats.unit == 1, 0.42 * (units - 8), 0.35 * (units - 9))
    place = molecules.origin[(repeats.start + repeats.end) // 2]
    rate: Floats = platform.stutter * np.exp(logarithm + artefacts.slippage[place])
    return np.minimum(rate, 0.4)


def _slips(
    molecules: Molecules,
    fragments: Fragments,
    layout: _Layout,
    repeats: Repeats,
    platform: Platform,
    artefacts: Artefacts,
    rng: np.random.Generator,
) -> Ints:
    """Return [read, cycle]: how far repeat-length errors have moved the read along its molecule.

    The errors stem from PCR, so that duplicates and overlapping mates share them.
    """
    length = platform.read_length
    shift = np.zeros((layout.anchor.size, length + 1), dtype=np.int64)
    rate = _slip_rate(repeats, molecules, platform, artefacts)
    chosen = np.flatnonzero(rate > 1e-3)
    start, end, unit, rate = repeats.start[chosen], repeats.end[chosen], repeats.unit[chosen], rate[chosen]

    low = np.where(layout.direction > 0, layout.anchor, layout.anchor - length + 1)
    first = np.searchsorted(start, low + 2)
    count = np.maximum(np.searchsorted(end, low + length - 2, side="right") - first, 0)
    read = np.repeat(np.arange(low.size), count)
    repeat = np.arange(read.size) - np.repeat(np.cumsum(count) - count, count) + first[read]

    # One draw for each original fragment and repeat: a keyed table would be large, so a hash of both.
    key = fragments.original[layout.fragment[read]] * 1_000_003 + repeat
    draw = _hashed_uniform(key, int(rng.integers(2**63)))
    lengthens = draw < 0.4 * rate[repeat]
    hit = draw < rate[repeat]
    read, repeat, lengthens = read[hit], repeat[hit], lengthens[hit]
    ahead = layout.direction[read] > 0
    cycle = np.where(ahead, start[repeat] - layout.anchor[read], layout.anchor[read] - end[repeat] + 1)
    # A gained unit is read twice, a lost one is stepped over.
    at = np.where(lengthens, cycle + unit[repeat], cycle)
    np.add.at(shift, (read, np.clip(at, 0, length)), np.where(lengthens, -unit[repeat], unit[repeat]))
    return np.cumsum(shift[:, :length], axis=1)


def _hashed_uniform(key: Ints, salt: int) -> Floats:
    """Return a uniform draw in [0, 1) for each key (the finaliser of splitmix64)."""
    mixed = key.astype(np.uint64) + np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / 2.0**64


def _read_into_adapter(
    codes: Codes, beyond: NDArray[np.bool_], excess: Ints, rng: np.random.Generator
) -> None:
    """Replace what lies behind the fragment's end by the adapter, and by noise behind that."""
    adapter = encode(ADAPTER)
    rows, columns = np.nonzero(beyond)
    place = excess[rows, columns]
    noise = rng.integers(0, 4, rows.size).astype(np.uint8)
    codes[rows, columns] = np.where(place < adapter.size, adapter[np.minimum(place, adapter.size - 1)], noise)


def _oxidise(codes: Codes, second: Ints, platform: Platform, rng: np.random.Generator) -> None:
    """Read oxidised G as T: G>T in read 1 and C>A in read 2 (Costello et al. 2013)."""
    target = np.where(second == 1, 1, 2).astype(np.uint8)
    rows, columns = np.nonzero(codes == target[:, None])
    hit = rng.random(rows.size) < platform.oxidation
    rows, columns = rows[hit], columns[hit]
    codes[rows, columns] = np.where(second[rows] == 1, 0, 3)


def _err_systematically(
    codes: Codes,
    origin: Ints,
    beyond: NDArray[np.bool_],
    backward: NDArray[np.bool_],
    artefacts: Artefacts,
    rng: np.random.Generator,
) -> None:
    """Misread the platform's weak places; the qualities there stay good."""
    weak = (artefacts.forward > 0) | (artefacts.reverse > 0)
    rows, columns = np.nonzero(weak[origin] & ~beyond)
    place = origin[rows, columns]
    rate = np.where(backward[rows], artefacts.reverse[place], artefacts.forward[place])
    lateness = np.clip(4 * columns / codes.shape[1] - 2.2, 0, 1)
    rate = np.where(artefacts.late[place], rate * lateness, rate)
    hit = rng.random(rows.size) < rate
    rows, columns, place = rows[hit], columns[hit], place[hit]
    codes[rows, columns] = np.where(backward[rows], artefacts.wrong[place] ^ 3, artefacts.wrong[place])


def _err_at_random(
    codes: Codes, second: Ints, platform: Platform, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Put sequencing errors into ``codes``; return the reported qualities, which know them only roughly."""
    count, length = codes.shape
    cycle = np.arange(length, dtype=np.float32) / length
    decline = platform.quality_start - platform.quality_drop * cycle**2
    read_effect = rng.normal(0, 1.2, count) - rng.exponential(1.3, count) - 1.2 * second
    quality = decline[None, :] + read_effect[:, None].astype(np.float32)
    quality += 2.0 * rng.standard_normal((count, length), dtype=np.float32)
    # After G-rich stretches and within homopolymers the signal is weaker than the instrument believes.
    hard = np.zeros((count, length), dtype=np.bool_)
    hard[:, 3:] = (codes[:, 3:] == codes[:, 2:-1]) & (codes[:, 2:-1] == codes[:, 1:-2])
    hard[:, 2:] |= (codes[:, :-2] == 2) & (codes[:, 1:-1] == 2)
    chance = np.exp(-quality * np.float32(np.log(10) / 10)) * np.float32(platform.error_factor)
    chance[hard] *= 2.5
    rows, columns = np.nonzero(rng.random((count, length), dtype=np.float32) < chance)
    codes[rows, columns] = (codes[rows, columns] + rng.integers(1, 4, rows.size)) % 4
    # About a third of the errors show in the reported quality.
    seen = rng.random(rows.size) < 0.35
    quality[rows[seen], columns[seen]] -= rng.uniform(8, 25, int(seen.sum())).astype(np.float32)
    quality += 1.5 * rng.standard_normal((count, length), dtype=np.float32)
    reported: NDArray[np.uint8] = np.clip(np.rint(quality), _WORST_QUALITY, _BEST_QUALITY).astype(np.uint8)
    if platform.binned:
        reported = _BIN_VALUES[np.searchsorted(_BIN_FLOORS, reported, side="right") - 1].astype(np.uint8)
    return reported
