"""How a site sequences: the platform's profile, and the places where it errs again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.simulation.reference import Reference
from cordon.simulation.sequence import Codes

# Reads end in this when their fragment is shorter than the read (Illumina TruSeq).
ADAPTER = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCAC"


@dataclass(frozen=True)
class Platform:
    """A sequencing set-up; sizes in bp, qualities in phred, the rest as factors or shares."""

    name: str
    read_length: int
    insert_mean: float
    insert_sd: float
    quality_start: float
    quality_drop: float
    binned: bool
    error_factor: float
    motif_share: float
    late_share: float
    stutter: float
    oxidation: float
    duplicates: float
    coverage_factor: float
    gc_slope: float
    coverage_sd: float


PLATFORMS = (
    Platform("NovaSeq", 150, 420, 90, 37.5, 7, True, 1.0, 0.0055, 1.8e-4, 0.7, 1.5e-4, 0.06, 1.05, 1.5, 0.22),
    Platform("HiSeq2500", 101, 310, 60, 36, 12, False, 1.3, 0.0075, 2.2e-4, 0.9, 4e-4, 0.09, 0.95, 3.0, 0.30),
    Platform("NextSeq", 150, 360, 80, 35.0, 10, True, 1.4, 0.0065, 2.0e-4, 0.9, 3e-4, 0.08, 1.0, 2.5, 0.32),
    Platform("HiSeqX", 150, 390, 70, 36.5, 9, False, 1.1, 0.0065, 2.0e-4, 0.5, 2e-4, 0.03, 1.0, 1.0, 0.20),
)


def platform_of(site: int, rng: np.random.Generator) -> Platform:
    """Return the platform of a site by its number, varied a little as no two laboratories are the same."""
    base = PLATFORMS[site % len(PLATFORMS)]

    def vary(value: float) -> float:
        return value * float(np.exp(rng.normal(0, 0.08)))

    return replace(
        base,
        insert_mean=vary(base.insert_mean),
        error_factor=vary(base.error_factor),
        motif_share=vary(base.motif_share),
        late_share=vary(base.late_share),
        stutter=vary(base.stutter),
        oxidation=vary(base.oxidation),
        duplicates=vary(base.duplicates),
    )


@dataclass(frozen=True)
class Artefacts:
    """Error-prone positions of the reference, one more element than it for bases that lie outside.

    ``forward`` and ``reverse`` are the shares of a strand's reads that err; where ``late`` is set
    the share holds at the read's end and falls to nothing in its first half. ``wrong`` is the base
    then read, on the forward strand, and ``slippage`` the log factor of repeat-length errors.
    """

    forward: Floats
    reverse: Floats
    late: NDArray[np.bool_]
    wrong: Codes
    slippage: Floats


def artefacts(reference: Reference, platform: Platform, rng: np.random.Generator) -> Artefacts:
    """Draw a site's error-prone positions.

    With one generator state, platforms share their weak places and differ in how many show.
    After GGC the polymerase stalls, which gives errors on one strand (Nakamura et al. 2011).
    """
    codes, size = reference.codes, reference.codes.size
    luck, rate, shift = rng.random(size), rng.beta(2.2, 2.2, size), rng.integers(1, 4, size)
    slippage = rng.normal(0, 0.7, size)
    late_luck, late_rate = rng.random(size), rng.uniform(0.5, 1.0, size)

    after_ggc = np.zeros(size, dtype=np.bool_)
    after_ggc[3:] = (codes[:-3] == 2) & (codes[1:-2] == 2) & (codes[2:-1] == 1)
    before_gcc = np.zeros(size, dtype=np.bool_)
    before_gcc[:-3] = (codes[1:-2] == 2) & (codes[2:-1] == 1) & (codes[3:] == 1)
    stalled = luck < platform.motif_share
    late = (late_luck < platform.late_share) & ~(stalled & (after_ggc | before_gcc))
    forward = np.where(stalled & after_ggc, rate, 0.0) + np.where(late, late_rate, 0.0)
    reverse = np.where(stalled & before_gcc, rate, 0.0) + np.where(late, late_rate, 0.0)
    wrong = ((codes + shift) % 4).astype(np.uint8)
    # Dephasing reads the motif's G again: G on the forward strand, C when the motif is on the reverse.
    wrong = np.where(after_ggc & (codes != 2), 2, wrong)
    wrong = np.where(before_gcc & (codes != 1), 1, wrong).astype(np.uint8)
    return Artefacts(
        forward=np.append(forward, 0.0),
        reverse=np.append(reverse, 0.0),
        late=np.append(late, False),
        wrong=np.append(wrong, np.uint8(0)),
        slippage=np.append(slippage, 0.0),
    )
