"""The library: a patient's molecules, and the fragments of them that are sequenced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats, Ints
from cordon.simulation.platforms import Platform
from cordon.simulation.sequence import UNKNOWN, Codes

_SHORTEST_BP = 60
_WAVE_BP = 700
_GC_WINDOW_BP = 300


@dataclass(frozen=True)
class Molecules:
    """All molecules of a patient, one behind the other.

    ``origin`` is each base's position in the reference, or the reference's length where it has
    none; ``last`` is the end of the molecule that the base is in.
    """

    codes: Codes
    origin: Ints
    last: Ints
    reference_size: int


def join(parts: list[tuple[Codes, Ints | None]], reference_size: int) -> Molecules:
    """Join molecules; those without origins stem from sequence that the reference lacks."""
    sizes = np.array([codes.size for codes, _ in parts])
    origins = [
        origin if origin is not None else np.full(codes.size, reference_size) for codes, origin in parts
    ]
    return Molecules(
        codes=np.concatenate([codes for codes, _ in parts]),
        origin=np.concatenate(origins),
        last=np.repeat(np.cumsum(sizes), sizes),
        reference_size=reference_size,
    )


@dataclass(frozen=True)
class Fragments:
    """Sequenced fragments: start in the molecules, size in bp, and whether read 1 is on the left end.

    ``original`` is the fragment's own index, or that of the one it is a PCR duplicate of.
    """

    start: Ints
    size: Ints
    first_left: NDArray[np.bool_]
    original: Ints


def _abundance(molecules: Molecules, platform: Platform, rng: np.random.Generator) -> Floats:
    """Return how readily a fragment starts at each base: smooth waves along the genome, and GC."""
    knots = rng.normal(0, platform.coverage_sd, molecules.reference_size // _WAVE_BP + 3)
    wave = np.interp(molecules.origin / _WAVE_BP, np.arange(knots.size), knots)
    strong = (molecules.codes == 1) | (molecules.codes == 2)
    summed = np.concatenate([[0], np.cumsum(strong)])
    ahead = np.minimum(np.arange(molecules.codes.size) + _GC_WINDOW_BP, molecules.codes.size)
    gc = (summed[ahead] - summed[:-1]) / _GC_WINDOW_BP
    abundance: Floats = np.exp(wave - platform.gc_slope * np.abs(gc - 0.42))
    return abundance


def shear(molecules: Molecules, platform: Platform, coverage: float, rng: np.random.Generator) -> Fragments:
    """Draw the fragments for a mean ``coverage`` of a diploid genome, PCR duplicates included."""
    chance = np.cumsum(_abundance(molecules, platform, rng))
    wanted = coverage * platform.coverage_factor * molecules.codes.size / 2 / (2 * platform.read_length)
    count = int(rng.poisson(wanted))
    start = np.searchsorted(chance, rng.random(count) * chance[-1])
    size = rng.normal(platform.insert_mean, platform.insert_sd, count)
    size += rng.exponential(0.25 * platform.insert_sd, count)
    size = np.maximum(size, _SHORTEST_BP).astype(np.int64)
    unknown = np.concatenate([[0], np.cumsum(molecules.codes == UNKNOWN)])
    end = np.minimum(start + size, molecules.codes.size)
    whole = (start + size <= molecules.last[start]) & (unknown[end] == unknown[start])
    start, size = start[whole], size[whole]
    first_left = rng.random(start.size) < 0.5
    copied = np.flatnonzero(rng.random(start.size) < platform.duplicates)
    original = np.concatenate([np.arange(start.size), copied])
    return Fragments(start[original], size[original], first_left[original], original)
