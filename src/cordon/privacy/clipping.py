"""Clipped, noisy means of units' gradients: the one place where a site's data become a release.

Gaussian noise goes with an L2 clip and Laplace noise with an L1 clip
(`cordon.privacy.events.NORMS`): noise hides a change as long as it is in the norm that the noise is
for.

Formal guarantee (adjacency: add or remove one unit, with all its rows): where each unit is in the blocks by
an independent coin of probability q, `PrivateMean.release` costs what ``Event(noise_multiplier, q, steps=1,
mechanism)`` does: one unit, whatever its rows and parameters are like, moves the sum by at most the clip norm
in the mechanism's norm, and an adaptive clip's count by at most 1/2, beside fresh noise of the scales of
`split_noise`. The normaliser, the grid and the clip's move are post-processing. It rests on `MARGIN` for
floating point and on `cordon.privacy.mechanisms` for the noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cordon.privacy.events import DEVIATIONS, GAUSSIAN, LAPLACE, NORMS, check_norm
from cordon.privacy.gradients import Block, LayerGradients, UnitGradients
from cordon.privacy.mechanisms import REACH, Randomness, on_grid

# Units are clipped so much (relative) below the clip that the noise is scaled by. A sum of n float64 numbers
# is off by at most n 2^-53 times the sum of their sizes (Higham 2002, eq. 4.4); with blocks of k rows that is
# (k + n / k) 2^-53 n clips, for two neighbouring sums below 6e-7 of one clip at a million sampled units in
# blocks of 2,048. So what one unit moves is at most the clip in floating point as well
# (Casacuberta et al. 2022, arXiv:2207.10635), for the sum as it is computed and in whatever order.
MARGIN = 1e-6
# Numbers of noise that are drawn at a time, where a step needs fewer.
MOST_DRAWS = 8192


def split_noise(noise_multiplier: float, mechanism: str, share: float) -> tuple[float, float]:
    """The gradient's noise multiplier g and the count's noise scale s under adaptive clipping.

    Gradient (sensitivity one clip) and count (sensitivity 1/2) of a step cost together what
    ``noise_multiplier`` m alone does: Gaussian g^-2 + (2 s)^-2 = m^-2 (Andrew et al. 2021,
    arXiv:1905.03871, theorem 1), Laplace g^-1 + (2 s)^-1 = m^-1; ``share`` in (0, 1) goes to the count.
    """
    if mechanism == GAUSSIAN:
        return noise_multiplier / math.sqrt(1 - share), noise_multiplier / (2 * math.sqrt(share))
    return noise_multiplier / (1 - share), noise_multiplier / (2 * share)


def draw_noise(random: Randomness, mechanism: str, size: int) -> Tensor:
    """``size`` draws of scale 1 (standard deviation of the Gaussian, b of the Laplace), float64."""
    return torch.from_numpy(random.laplace(size) if mechanism == LAPLACE else random.normal(size))


class NoiseStream:
    """Noise of scale 1 for one step after the other, each number drawn afresh and given out once.

    Several steps' are drawn at a time, which takes half the time of as many small draws. A stream belongs
    to one round's training, in one process: a copy of it in a forked child would give the same noise.
    """

    def __init__(self, random: Randomness, mechanism: str) -> None:
        self._random, self._mechanism = random, mechanism
        self._drawn: Iterator[Tensor] = iter(())

    def take(self, size: int) -> Tensor:
        """The next step's ``size`` draws, float64; the same size every time."""
        step = next(self._drawn, None)
        if step is None:
            steps = max(1, MOST_DRAWS // size)
            self._drawn = iter(draw_noise(self._random, self._mechanism, steps * size).view(steps, size))
            step = next(self._drawn)
        return step


@dataclass
class Clip:
    """A fixed clip norm, and the noise multiplier that is left for the gradient."""

    norm: float
    noise_multiplier: float

    def observe(self, norms: Tensor) -> None:
        """Take note of the norms (float64) of sampled units."""

    def move(self, random: Randomness) -> None:
        """End the step."""


class AdaptiveClip(Clip):
    """A clip norm that follows a private quantile of the gradients' norms (Andrew et al. 2021).

    Every sampled unit adds (1 - quantile) where its norm is at most the clip and -quantile where not, so
    that the sum is zero at the quantile whatever the number of sampled units is: a site may declare more
    units than it holds, and Andrew et al.'s count less one half, over the declared number, would then
    drive the clip upwards for ever. Scaled to [-1/2, 1/2], it costs what theirs does.
    """

    def __init__(
        self, norm: float, *, first: float, quantile: float, rate: float, noise_multiplier: float,
        count_noise: float, mechanism: str, expected_batch: float,
    ) -> None:  # fmt: skip
        self._range = first / REACH, first * REACH
        super().__init__(min(max(norm, self._range[0]), self._range[1]), noise_multiplier)
        self._quantile, self._rate = quantile, rate
        self._count_noise, self._mechanism, self._expected_batch = count_noise, mechanism, expected_batch
        self._within = self._sampled = 0

    def observe(self, norms: Tensor) -> None:
        self._within += int((norms <= self.norm).sum())
        self._sampled += len(norms)

    def move(self, random: Randomness) -> None:
        # Twice the most that a unit can add: what scales its part to [-1/2, 1/2].
        span = 2.0 * max(self._quantile, 1.0 - self._quantile)
        count = (self._within - self._quantile * self._sampled) / span
        noise = float(draw_noise(random, self._mechanism, 1)) * self._count_noise
        noisy = float(on_grid(np.array([count + noise]), self._count_noise)[0])
        error = noisy * span / self._expected_batch
        # A large draw over a small batch may ask for a leap that no floating-point number holds.
        leap = math.exp(min(max(-self._rate * error, -math.log(REACH)), math.log(REACH)))
        lowest, highest = self._range
        self.norm = min(max(self.norm * leap, lowest), highest)
        self._within = self._sampled = 0


class Release(NamedTuple):
    """A private mean gradient, float64 [parameters], and the variance of its noise in each number."""

    mean: Tensor
    noise_variance: float


class PrivateMean:
    """The noisy mean of clipped unit gradients over a Poisson sample.

    One unit, whatever its rows, moves the sum before the noise by at most the clip norm (L2 under Gaussian
    noise, L1 under Laplace noise), and the noise is the multiplier times it. The normaliser is public.
    Raises UserError for a mechanism that cannot be accounted.
    """

    def __init__(
        self, gradients: UnitGradients, clip: Clip, *,
        mechanism: str, expected_batch: float, per_layer: bool, random: Randomness,
    ) -> None:  # fmt: skip
        self.gradients, self.clip, self.random = gradients, clip, random
        self.mechanism, self.order = mechanism, NORMS.get(mechanism, 0)
        check_norm(mechanism, self.order)
        self.expected_batch, self.per_layer = expected_batch, per_layer
        self._noise = NoiseStream(random, mechanism)

    def release(self, blocks: Iterable[Block], parameters: int) -> Release:
        """The mean over the sampled units in ``blocks`` (none: noise alone), and the clip's next step."""
        total: Tensor | float = 0.0
        sampled = 0
        for block in blocks:
            total = total + self.clipped_sum(block).cpu()
            sampled += block.units
        scale = self.noise_scale()
        noisy = on_grid((self._noise.take(parameters) * scale + total).numpy(), scale)
        normaliser = self.normaliser(sampled)
        self.clip.move(self.random)
        deviation = scale / normaliser * DEVIATIONS[self.mechanism]
        return Release(torch.from_numpy(noisy / normaliser), deviation**2)

    @torch.inference_mode()
    def clipped_sum(self, block: Block) -> Tensor:
        """The sum of the block's clipped unit gradients, float64 [parameters].

        A unit whose gradient is not finite adds nothing: parameters and features can be such that it
        overflows, and no noise would hide a NaN.
        """
        layers = self.gradients.of(block)
        norms = [layer.norms(self.order) for layer in layers]
        whole = _joined(norms, self.order)
        self.clip.observe(whole[: block.units])
        if not math.isfinite(float(whole.sum())):
            finite = whole.isfinite()
            for layer in layers:
                layer.keep(finite)
            norms = [torch.where(finite, norm, 0.0) for norm in norms]
            whole = torch.where(finite, whole, 0.0)
        return self.summed(layers, norms, whole)

    def summed(self, layers: Sequence[LayerGradients], norms: Sequence[Tensor], whole: Tensor) -> Tensor:
        """The layers' gradients, by the factors that bring the units, or their layers, to the clip."""
        if not self.per_layer:
            factors = clip_factors(whole, self.clip.norm)
            return torch.cat([layer.summed(factors) for layer in layers])
        # Together the layers are within the clip: sqrt(L (C / sqrt(L))^2) in L2, L (C / L) in L1.
        part = self.clip.norm / len(layers) ** (1 / self.order)
        by_layer = [clip_factors(norm, part) for norm in norms]
        return torch.cat([layer.summed(factors) for layer, factors in zip(layers, by_layer, strict=True)])

    def noise_scale(self) -> float:
        """The scale of the sum's noise."""
        return self.clip.noise_multiplier * self.clip.norm

    def normaliser(self, sampled: int) -> float:
        """What the sum is divided by: the public expected batch, never the number ``sampled``."""
        return self.expected_batch


def _joined(norms: Sequence[Tensor], order: int) -> Tensor:
    """The units' norms over all layers, from those in each."""
    whole = torch.zeros_like(norms[0])
    for norm in norms:
        whole += norm if order == 1 else norm * norm
    return whole if order == 1 else whole.sqrt()


def clip_factors(norms: Tensor, clip: float) -> Tensor:
    """The factors, float64, that bring gradients of these norms within ``clip``, less MARGIN."""
    within = clip * (1.0 - MARGIN)
    return within / norms.clamp(min=within)
