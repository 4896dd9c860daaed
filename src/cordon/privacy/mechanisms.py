"""Noise and sampling from a cryptographic generator.

Nothing here keeps a state that could be seeded, forked or replayed: every number comes from
``os.urandom``, or from AES under a key that ``os.urandom`` gave for that one call. Another source of bytes
is for tests alone: no command, and nothing that makes a result (``cordon.training.dpsgd.train``), takes one.

Two attacks read data off the low bits of a noisy float. One solves the gaps between the values that the
noise can take (Mironov 2012): each draw here therefore spends several uniform ones. The other looks for
values finer than the data's own precision allows (Haney et al. 2022, arXiv:2207.13793), which no sum of
draws prevents: what is released goes through `on_grid`.

Formal guarantee: from independent uniform bytes, `Randomness.normal` and `Randomness.laplace` are independent
draws of the standard Gaussian and of the Laplace distribution of scale 1, but for what float64 rounds, and
`Randomness.poisson_sample` takes each index by a coin of its own. For the operating system's bytes, or
AES-256 in counter mode under its keys, that holds against whoever cannot tell AES from a random permutation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# Gaussians that are summed into one sample, see Randomness.normal.
SUMMANDS = 4
# Binary digits of the noise's scale that a released value keeps, see on_grid.
GRID_BITS = 12

# How far, as a factor, an adaptive clip may move from the run's first one, down and up.
REACH = 100.0

# Bytes from which on a key stream is faster than asking the operating system.
STREAM_FROM = 1024

# Angles from which on torch computes their cosines.
TORCH_FROM = 1024

# The bits of a float64 that are no fraction, and those of 1.0.
_EXPONENT_BITS, _ONE = np.uint64(12), np.uint64(0x3FF0000000000000)

BytesSource = Callable[[int], bytes]


def fresh_bytes(size: int) -> bytes:
    """Unpredictable bytes: the operating system's, or many at once by AES-256 in counter mode.

    The key comes from ``os.urandom`` and lives for this call alone, so the counter may begin at 0. As an
    approved generator does between reseeds (NIST SP 800-90A, CTR_DRBG), several times faster than asking
    the operating system for every byte.
    """
    if size < STREAM_FROM:
        return os.urandom(size)
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    return stream.update(bytes(size))


@dataclass(frozen=True)
class Randomness:
    """Uniform, normal, Laplace and subset draws from a source of random bytes."""

    source: BytesSource = fresh_bytes

    def uniform(self, size: int) -> npt.NDArray[np.float64]:
        """``size`` draws from the open interval (0, 1) with 52 random bits each.

        They are the fraction of a float between 1 and 2, less 1, and half a step more, which keeps 0 out;
        with 53 bits that half would round the largest draws up to 1.
        """
        fraction = np.frombuffer(self.source(8 * size), dtype=np.uint64) >> _EXPONENT_BITS
        drawn: npt.NDArray[np.float64] = (fraction | _ONE).view(np.float64)
        drawn -= 1.0
        drawn += 2.0**-53
        return drawn

    def normal(self, size: int) -> npt.NDArray[np.float64]:
        """``size`` standard normal draws.

        Each is the scaled sum of four Box-Muller draws, so that the gaps of the floating-point grid
        cannot be solved for the noise (Mironov 2012; the remedy of Holohan and Braghin 2021,
        arXiv:2107.10138, as in Opacus' secure mode).
        """
        half = (SUMMANDS * size + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(half)))
        cosine, sine = _turn(2.0 * np.pi * self.uniform(half))
        draws = np.concatenate([radius * cosine, radius * sine])
        total: npt.NDArray[np.float64] = draws[: SUMMANDS * size].reshape(SUMMANDS, size).sum(axis=0)
        return np.divide(total, np.sqrt(SUMMANDS), dtype=np.float64)

    def laplace(self, size: int) -> npt.NDArray[np.float64]:
        """``size`` draws of the Laplace distribution of mean 0 and scale 1 (variance 2).

        Each is the sum of two products of independent normals, whose characteristic function is
        1 / (1 + t^2), and by Box-Muller such a product is an exponential times a cosine. Inverting the
        distribution function of one uniform draw would be shorter, and is what Mironov 2012 breaks;
        with four, searching for them takes exponential time (Holohan and Braghin 2021, arXiv:2107.10138).
        """
        exponential = -np.log(self.uniform(2 * size)).reshape(2, size)
        cosine = _turn(np.pi * self.uniform(2 * size))[0].reshape(2, size)
        total: npt.NDArray[np.float64] = (exponential * cosine).sum(axis=0)
        return total

    def poisson_sample(self, population: int, rate: float) -> npt.NDArray[np.intp]:
        """Indices of a Poisson sample: each of ``population`` units is in with probability ``rate``."""
        return np.flatnonzero(self.uniform(population) < rate)

    def subset(self, population: int, size: int) -> npt.NDArray[np.intp]:
        """``size`` distinct indices below ``population``, uniformly at random (all when fewer)."""
        if population <= size:
            return np.arange(population)
        return np.argsort(self.uniform(population))[:size]


def _turn(angle: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine and sine; of many by torch, which takes a fifth of numpy's time, and seconds to import."""
    if angle.size < TORCH_FROM:
        return np.cos(angle), np.sin(angle)
    import torch

    angles = torch.from_numpy(angle)
    return angles.cos().numpy(), angles.sin().numpy()


def on_grid(noisy: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    """``noisy`` values, rounded to multiples of a public power of two, at most 2^-GRID_BITS of ``scale``.

    ``scale`` is the public scale of the noise in them, above 0. Rounding after the noise is
    post-processing; it hides the low bits, which alone tell a sum of floats from one of real numbers
    (Mironov 2012's snapping). It adds less than 1e-8 of the noise's variance, and float32 holds the
    result exactly up to 2^12 times ``scale``.
    """
    step = 2.0 ** (math.floor(math.log2(scale)) - GRID_BITS)
    rounded: npt.NDArray[np.float64] = np.round(noisy / step) * step
    return rounded
