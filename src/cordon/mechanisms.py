"""Noise and sampling from the operating system's cryptographic generator.

Nothing here keeps a state that could be seeded, forked or replayed: every number comes from
``os.urandom``. Another source of bytes is for tests alone: no command, and nothing that makes a
result (``cordon.training.train``), takes one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Gaussians that are summed into one sample, see Randomness.normal.
SUMMANDS = 4

BytesSource = Callable[[int], bytes]


@dataclass(frozen=True)
class Randomness:
    """Uniform, normal and subset draws from a source of random bytes."""

    source: BytesSource = os.urandom

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """``size`` draws from the open interval (0, 1) with 52 random bits each.

        With 53 bits, the half that keeps 0 out would round the largest draws up to 1.
        """
        bits = np.frombuffer(self.source(8 * size), dtype=np.uint64) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, size: int) -> npt.NDArray[np.float64]:
        """``size`` standard normal draws.

        Each is the scaled sum of four Box-Muller draws, so that the gaps of the floating-point grid
        cannot be solved for the noise (Mironov 2012; the remedy of Holohan and Braghin 2021,
        arXiv:2107.10138, as in Opacus' secure mode).
        """
        half = (SUMMANDS * size + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        total: npt.NDArray[np.float64] = draws[: SUMMANDS * size].reshape(SUMMANDS, size).sum(axis=0)
        return np.divide(total, np.sqrt(SUMMANDS), dtype=np.float64)

    def poisson_sample(self, population: int, rate: float) -> npt.NDArray[np.intp]:
        """Indices of a Poisson sample: each of ``population`` units is in with probability ``rate``."""
        return np.flatnonzero(self.uniform(population) < rate)

    def subset(self, population: int, size: int) -> npt.NDArray[np.intp]:
        """``size`` distinct indices below ``population``, uniformly at random (all when fewer)."""
        if population <= size:
            return np.arange(population)
        return np.argsort(self.uniform(population))[:size]
