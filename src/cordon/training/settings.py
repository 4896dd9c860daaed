"""The public settings of a round's training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cordon.errors import UserError
from cordon.privacy.events import GAUSSIAN, Event

CLIPPINGS = ("fixed", "adaptive")

OPTIMISERS = ("sgd", "adam")


@dataclass(frozen=True)
class DPSGD:
    """The public settings of one round's training at a site; UserError where they do not go together.

    ``expected_batch`` normalises every step: sampling rate times the units that the site declared,
    never the number that it holds. ``max_variants`` bounds the rows drawn from a unit. ``clip_norm`` is L2
    under Gaussian, L1 under Laplace noise; the run's first one where ``clipping`` is adaptive, which
    moves it towards the ``clip_quantile`` of the units' gradient norms by ``clip_rate`` a step, for
    ``quantile_share`` of the privacy cost. ``per_layer`` clips each layer to its part of the norm. ``unit``
    is what the event's cost protects: only units of that kind are trained on.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip_norm: float
    learning_rate: float
    expected_batch: float
    max_variants: int
    mechanism: str = GAUSSIAN
    clipping: str = "fixed"
    clip_quantile: float = 0.9
    clip_rate: float = 0.2
    quantile_share: float = 0.1
    optimiser: str = "sgd"
    momentum: float = 0.0
    per_layer: bool = False
    unit: str = "patient"

    def __post_init__(self) -> None:
        faults = [
            f"{name} {getattr(self, name)!r} (use {use})"
            for name, holds, use in (
                ("clip_norm", 0 < self.clip_norm < math.inf, "a finite number above 0"),
                ("expected_batch", 0 < self.expected_batch < math.inf, "a finite number above 0"),
                ("max_variants", self.max_variants >= 1, "1 or more"),
                ("clipping", self.clipping in CLIPPINGS, " or ".join(CLIPPINGS)),
                ("clip_quantile", 0 < self.clip_quantile < 1, "a number in (0, 1)"),
                ("clip_rate", 0 < self.clip_rate <= 1, "a number in (0, 1]"),
                ("quantile_share", 0 < self.quantile_share < 1, "a number in (0, 1)"),
                ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            )
            if not holds
        ]
        if faults:
            raise UserError(f"these settings cannot be trained with: {'; '.join(faults)}. Set them so.")

    @property
    def event(self) -> Event:
        """What one run of these steps costs, the adaptive clip's counts included."""
        return Event(self.noise_multiplier, self.sampling_rate, self.steps, self.mechanism)
