"""Bugs for audits to find, each as the arguments of pytest's ``monkeypatch.setattr``."""

from __future__ import annotations

import inspect
import textwrap
from pkgutil import resolve_name
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

from cordon.privacy.clipping import NoiseStream, PrivateMean
from cordon.privacy.gradients import Block
from cordon.privacy.mechanisms import Randomness


def silent(stream, size):
    return torch.zeros(size, dtype=torch.float64)


def by_row(mean, block):
    """Each row of a unit to the clip, as if it were a unit; padding is none."""
    real = block.weights[: block.units] > 0
    parts = [x[: block.units][real][:, None] for x in (block.features, block.labels)]
    rows = Block(*parts, torch.ones(len(parts[0]), 1), len(parts[0]))
    return CLIPPED_SUM(mean, rows)


def half(mean):
    return NOISE_SCALE(mean) / 2


def nine_tenths(mean):
    return NOISE_SCALE(mean) * 0.9


CLIPPED_SUM, NOISE_SCALE = PrivateMean.clipped_sum, PrivateMean.noise_scale
BUGS = {
    "no noise": (NoiseStream, "take", silent),
    "half of the noise": (PrivateMean, "noise_scale", half),
    "a tenth less noise": (PrivateMean, "noise_scale", nine_tenths),
    "no clip": ("cordon.privacy.clipping.clip_factors", lambda norms, clip: torch.ones_like(norms)),
    "rows clipped, not patients": (PrivateMean, "clipped_sum", by_row),
    "no sampling": (Randomness, "poisson_sample", lambda random, units, rate: np.arange(units)),
}


def rewritten(place: str, *changes: tuple[str, str]) -> tuple[FunctionType, str, CodeType]:
    """The code of the function or method at ``place``, each old piece of its source replaced by a new one.

    As ``monkeypatch.setattr`` takes it: the function stays, whoever has imported it. AssertionError where an
    old piece is not there any more.
    """
    owner, name = place.rsplit(".", 1)
    plain = _plain(inspect.getattr_static(resolve_name(owner), name))
    source = textwrap.dedent(inspect.getsource(plain))
    for old, new in changes:
        assert old in source, (place, old)
        source = source.replace(old, new)
    made: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + source, plain.__globals__, made)
    return plain, "__code__", _plain(made[name]).__code__


def _plain(function: Any) -> FunctionType:
    return inspect.unwrap(getattr(function, "__func__", function))
