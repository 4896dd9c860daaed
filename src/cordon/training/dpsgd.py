"""DP-SGD on a site's own rows, grouped by privacy unit (`cordon.training.units`).

A unit's rows travel together, and its whole gradient (`cordon.privacy.gradients`) is clipped as one vector
(`cordon.privacy.clipping`), whatever the number of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cordon.errors import UserError
from cordon.model.architectures import (
    Parameters,
    build,
    check_parameters,
    features_of,
    flattened,
    load_parameters,
    parameters_of,
)
from cordon.model.devices import device, thread_count
from cordon.privacy.mechanisms import Randomness, fresh_bytes
from cordon.training.settings import DPSGD
from cordon.training.units import Units

if TYPE_CHECKING:
    from torch import nn

    from cordon.privacy.clipping import Clip, PrivateMean
    from cordon.privacy.gradients import Block, UnitGradients

    # What makes the gradients of a module whose rows are so wide.
    Gradients = Callable[[nn.Module, int], UnitGradients]

# Processors work on so many numbers at once: of a multiple of it, none is left to be rounded otherwise.
LANES = 16


@dataclass(frozen=True)
class Trained:
    """What came of a round: the noisy ``update``, and the clip norm that the run's next round starts from.

    Both are functions of private releases alone. The clip norm stays at the site all the same. ``seeded``:
    the randomness was another than the operating system's, so nothing of it is private.
    """

    update: Parameters
    clip_norm: float
    seeded: bool = False


def train(
    architecture: str, start: Parameters, units: Units, settings: DPSGD, *,
    clip_norm: float | None = None, threads: int | None = None,
) -> Trained:  # fmt: skip
    """The noisy change of the parameters after ``settings.steps`` steps of DP-SGD from ``start``.

    The result is private for one unit at the cost of ``settings.event`` (Abadi et al. 2016,
    arXiv:1607.00133, with Poisson sampling and a fixed normaliser), against whoever chose ``start``
    too. ``clip_norm`` is the one that the run's last round ended with (None: its first round; used
    where clipping is adaptive). ``threads``: CPU threads, by default CORDON_THREADS or what torch takes.
    Momentum and Adam's moments start anew. Raises UserError where ``start`` are no finite parameters of
    ``architecture``, or the settings cannot be accounted.
    """
    _ = settings.event  # refuses what cannot be accounted
    with thread_count(threads):
        return descend(architecture, start, units, settings, Randomness(), clip_norm=clip_norm)


def descend(
    architecture: str, start: Parameters, units: Units, settings: DPSGD, random: Randomness, *,
    clip_norm: float | None = None, gradients: Gradients | None = None,
) -> Trained:  # fmt: skip
    """`train` with a given source of randomness, for tests: what comes of another one is not private.

    ``gradients`` is for audits, which plant gradients of their own (None:
    `cordon.privacy.gradients.unit_gradients`).
    """
    import torch

    from cordon.privacy.gradients import unit_gradients
    from cordon.training.optimisers import optimiser

    units.require(settings.unit)
    width = units.features.shape[1]
    module = build(architecture, features_of(architecture, width))
    try:
        check_parameters(start, expected=parameters_of(module))
    except ValueError as error:
        raise UserError(
            f"cannot train from this start: {error}. Use the same version of Cordon at sites and aggregator."
        ) from error
    load_parameters(module, start)
    module.to(device())
    mean = private_mean((gradients or unit_gradients)(module, width), settings, random, clip_norm=clip_norm)
    steps = optimiser(settings.optimiser, learning_rate=settings.learning_rate, momentum=settings.momentum)
    shape = block_shape(settings, mean.gradients.most_rows)
    position = flattened(module)
    first = position.double().cpu()
    moved = torch.zeros_like(first)
    for _ in range(settings.steps):
        release = mean.release(draw(units, settings, random, shape), len(moved))
        moved += steps.change(*release)
        # The module computes in float32; what has moved is not lost in its rounding.
        position.copy_(first + moved)
    update = {name: np.zeros_like(value) for name, value in start.items()}
    sizes = [parameter.numel() for parameter in module.parameters()]
    for (name, parameter), part in zip(module.named_parameters(), torch.split(moved, sizes), strict=True):
        update[name] = part.view(parameter.shape).float().numpy()
    return Trained(update, mean.clip.norm, seeded=random.source is not fresh_bytes)


def private_mean(
    gradients: UnitGradients, settings: DPSGD, random: Randomness, *, clip_norm: float | None = None
) -> PrivateMean:
    """What a round's steps release their gradients through; ``clip_norm`` as for `train`."""
    from cordon.privacy.clipping import PrivateMean

    return PrivateMean(
        gradients, _clip(settings, clip_norm), mechanism=settings.mechanism,
        expected_batch=settings.expected_batch, per_layer=settings.per_layer, random=random,
    )  # fmt: skip


def _clip(settings: DPSGD, norm: float | None) -> Clip:
    """The clip that a round starts with."""
    from cordon.privacy.clipping import AdaptiveClip, Clip, split_noise

    if settings.clipping == "fixed":
        if norm not in (None, settings.clip_norm):
            raise UserError(
                f"a clip norm of {norm} carried over beside the fixed {settings.clip_norm}. Leave it out."
            )
        return Clip(settings.clip_norm, settings.noise_multiplier)
    if norm is not None and not 0 < norm < math.inf:
        raise UserError(f"{norm} is no clip norm to go on from. Give what the run's last round ended with.")
    gradient_noise, count_noise = split_noise(
        settings.noise_multiplier, settings.mechanism, settings.quantile_share
    )
    return AdaptiveClip(
        settings.clip_norm if norm is None else norm, first=settings.clip_norm,
        quantile=settings.clip_quantile, rate=settings.clip_rate, noise_multiplier=gradient_noise,
        count_noise=count_noise, mechanism=settings.mechanism, expected_batch=settings.expected_batch,
    )  # fmt: skip


def block_shape(settings: DPSGD, most_rows: int) -> tuple[int, int]:
    """The units and rows of every block of a round: public, and the same whoever is sampled.

    Nearly always one block holds the whole sample, where ``most_rows`` allows.
    """
    expected = settings.expected_batch + 4 * math.sqrt(settings.expected_batch)
    units = max(1, min(math.ceil(expected), most_rows // settings.max_variants))
    whole = least_block(settings) // settings.max_variants
    return math.ceil(units / whole) * whole, settings.max_variants


def least_block(settings: DPSGD) -> int:
    """The rows that a block has at least, however few were wanted."""
    return math.lcm(LANES, settings.max_variants)


def draw(units: Units, settings: DPSGD, random: Randomness, shape: tuple[int, int]) -> Iterator[Block]:
    """A Poisson sample of units in padded blocks of ``shape`` (units, rows); none where it is empty.

    A unit's weights sum to one over the rows drawn from it and are zero on the padding, so its loss
    is the mean over those rows.
    """
    import torch

    from cordon.privacy.gradients import Block

    units.require(settings.unit)
    sampled = random.poisson_sample(len(units), settings.sampling_rate)
    for first in range(0, len(sampled), shape[0]):
        owners = sampled[first : first + shape[0]]
        rows = np.zeros(shape, dtype=np.int64)
        weights = np.zeros(shape, dtype=np.float32)
        starts, sizes = units.offsets[owners], np.diff(units.offsets)[owners]
        drawn = np.minimum(sizes, shape[1])
        taken = np.arange(shape[1]) < drawn[:, None]
        # Padding is the unit's own first row, and weighs nothing.
        rows[: len(owners)] = starts[:, None] + np.where(taken, np.arange(shape[1]), 0)
        weights[: len(owners)] = np.where(taken, 1.0 / drawn[:, None], 0.0)
        for place in np.flatnonzero(sizes > shape[1]):
            rows[place] = starts[place] + random.subset(int(sizes[place]), shape[1])
        arrays = (units.features[rows], units.labels[rows], weights)
        features, labels, weighed = (torch.from_numpy(array).to(device()) for array in arrays)
        yield Block(features, labels, weighed, units=len(owners))
