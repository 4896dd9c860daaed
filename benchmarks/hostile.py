"""How a dishonest site behaves, in training or in what it sends; for the attacks benchmark and for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cordon.model.architectures import Parameters
from cordon.privacy.events import LEAST_NOISE
from cordon.training.settings import DPSGD

# The settings that it trains with instead of the plan's; noise is a multiple of the clip.
TRAINING: dict[str, Callable[[DPSGD], DPSGD]] = {
    "no noise": lambda s: replace(s, noise_multiplier=LEAST_NOISE),
    "half noise": lambda s: replace(s, noise_multiplier=s.noise_multiplier / 2),
    "no clip": lambda s: replace(
        s, clip_norm=s.clip_norm * 1000, noise_multiplier=max(LEAST_NOISE, s.noise_multiplier / 1000)
    ),
}


def _all(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Parameters, Parameters | None], Parameters]:
    return lambda update, first: {name: change(value).astype(np.float32) for name, value in update.items()}


def _chosen(update: Parameters, first: Parameters | None) -> Parameters:
    """What colluding sites agreed on: a direction of their own, as long as an honest update, and noise."""
    length = np.sqrt(sum(float(np.square(value).sum()) for value in update.values()))
    size = sum(value.size for value in update.values())
    agreed = np.random.default_rng(7)
    return {
        name: (
            length / np.sqrt(size) * agreed.normal(size=value.shape) + 0.1 * value
        ).astype(np.float32)
        for name, value in update.items()
    }  # fmt: skip


# What it makes of its update and of the first one that it made in the run.
UPDATES: dict[str, Callable[[Parameters, Parameters | None], Parameters]] = {
    "scaled x100": _all(lambda value: 100 * value),
    "scaled x5": _all(lambda value: 5 * value),
    "sign flipped": _all(lambda value: -value),
    "sign flipped x5": _all(lambda value: -5 * value),
    "NaN": _all(lambda value: np.full_like(value, np.nan)),
    "wrong shape": _all(lambda value: value[..., None]),
    "replayed": lambda update, first: first or update,
    "colluding": _chosen,
}
