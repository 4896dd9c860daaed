"""Every release of real rounds, recorded where it is made: an update may be made of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cordon.arrays import Floats
from cordon.model.architectures import Parameters, build
from cordon.training.settings import DPSGD

if TYPE_CHECKING:
    from torch import Tensor

    from cordon.auditing.gradient_canaries import CanaryGradients
    from cordon.privacy.gradients import Block


@dataclass(frozen=True)
class Recorded:
    """One release: the parameters [P] that its gradients were taken at, and what came of it.

    ``mean`` [P] and ``next_clip`` are what the code released, by the clip norm ``clip``; ``used`` [P] and
    ``used_clip`` are what training went on with. ``marks`` are the canaries in it, by the first input of
    their rows.
    """

    position: Floats
    clip: float
    mean: Floats
    noise_variance: float
    next_clip: float
    used: Floats
    used_clip: float
    marks: npt.NDArray[np.int64]


# What takes the place of a round's n-th release, from 0 on, of so many numbers: its mean, and the clip norm
# after it.
Instead = Callable[[int, int], tuple[Floats, float]]


@dataclass
class Recorder:
    """What `cordon.training.dpsgd.descend` released in this process, and was not yet asked for."""

    releases: list[Recorded] = field(default_factory=list)

    def taken(self) -> list[Recorded]:
        """What was released since this was asked last."""
        found, self.releases = self.releases, []
        return found


@contextmanager
def recording(planted: CanaryGradients | None = None, instead: Instead | None = None) -> Iterator[Recorder]:
    """Record what is released in this process meanwhile.

    ``planted`` gradients take the place of the units' own, and what ``instead`` gives that of releases.
    """
    from cordon.privacy import clipping, gradients

    recorder, modules = Recorder(), list[Any]()
    unit_gradients, release = gradients.unit_gradients, clipping.PrivateMean.release

    def found(module: Any, width: int) -> Any:
        modules.append(module)
        return unit_gradients(module, width) if planted is None else planted

    def released(mean: Any, blocks: Iterable[Block], parameters: int) -> Any:
        import torch

        position, clip = _flat(modules[-1].parameters()), float(mean.clip.norm)
        marks = [np.zeros(0, np.int64)]
        real = release(mean, _noted(blocks, marks), parameters)
        own = used = real.mean.numpy().copy()
        next_clip = float(mean.clip.norm)
        if instead is not None:
            used, mean.clip.norm = instead(len(recorder.releases), parameters)
        recorder.releases.append(
            Recorded(
                position, clip, own, float(real.noise_variance), next_clip, used, float(mean.clip.norm),
                np.concatenate(marks),
            )
        )  # fmt: skip
        return real._replace(mean=torch.from_numpy(used.copy()))

    vars(gradients)["unit_gradients"] = found
    clipping.PrivateMean.release = released  # type: ignore[assignment, method-assign]
    try:
        yield recorder
    finally:
        vars(gradients)["unit_gradients"] = unit_gradients
        clipping.PrivateMean.release = release  # type: ignore[method-assign]


def marks_of(block: Block) -> npt.NDArray[np.int64]:
    """The first inputs of the units in ``block``, by which an auditor knows its own."""
    marks: npt.NDArray[np.int64] = block.features[: block.units, 0, 0].long().cpu().numpy()
    return marks


def _noted(blocks: Iterable[Block], marks: list[npt.NDArray[np.int64]]) -> Iterator[Block]:
    for block in blocks:
        marks.append(marks_of(block))
        yield block


def _flat(parameters: Iterable[Tensor]) -> Floats:
    import torch

    flat: Floats = torch.cat([value.detach().flatten() for value in parameters]).double().cpu().numpy()
    return flat


def in_order(architecture: str, features: int, values: Parameters) -> Floats:
    """The ``values`` of a model's parameters by name as one vector, in the order of its module."""
    names = [name for name, _ in build(architecture, features).named_parameters()]
    return np.concatenate([values[name].ravel() for name in names]).astype(np.float64)


def span(settings: DPSGD) -> float:
    """What an adaptive clip's count is divided by, so that one unit's part in it is 1/2 at most."""
    return 2.0 * max(settings.clip_quantile, 1.0 - settings.clip_quantile)


def counted(release: Recorded, settings: DPSGD) -> float:
    """The noisy count that moved the clip, as `cordon.privacy.clipping.AdaptiveClip` is described."""
    batch = settings.expected_batch / (settings.clip_rate * span(settings))
    return -math.log(release.next_clip / release.clip) * batch


def made_of_releases(
    releases: Sequence[Recorded], start: Floats, update: Floats, settings: DPSGD
) -> Iterator[str]:
    """What of a round from ``start`` [P] to its ``update`` [P] does not follow from its releases alone."""
    import torch

    from cordon.training.optimisers import optimiser

    if len(releases) != settings.steps:
        yield f"a round of {settings.steps} steps makes {len(releases)} releases"
        return
    steps = optimiser(settings.optimiser, learning_rate=settings.learning_rate, momentum=settings.momentum)
    moved = torch.zeros(len(start), dtype=torch.float64)
    for release in releases:
        if not np.array_equal(release.position, (torch.from_numpy(start) + moved).float().double().numpy()):
            yield "gradients are taken elsewhere than where the releases before them lead"
            return
        moved = moved + steps.change(torch.from_numpy(release.used.copy()), release.noise_variance)
    if not np.array_equal(update, moved.float().double().numpy()):
        yield "an update is not what the optimiser makes of its releases"
