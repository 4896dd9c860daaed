"""DP-SGD as it is specified, written out once more and plainly: what the code that trains is held against.

With that code it shares the architectures alone, and with the other audits what they say of a plan's noise:
rows are grouped, drawn and weighed, gradients taken by torch's own autograd in float64, clipped, summed and
hidden here. Random bytes are used in the same order, so that from the same bytes, parameters and clip norm
each release must be the same, but for what float32 gradients are rounded to.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from typing import Any

import numpy as np
import pyarrow as pa

from cordon.arrays import Floats, Indices
from cordon.auditing.recorder import span
from cordon.auditing.step_bound import declared_count_noise, declared_noise
from cordon.model.architectures import build
from cordon.privacy.events import DEVIATIONS, LAPLACE, NORMS
from cordon.training.settings import DPSGD
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import WITH_IMAGES
from cordon.variants.table import PILEUP

# As in `cordon.privacy.clipping` and `cordon.privacy.mechanisms`: how far below the clip a unit ends, the
# numbers of noise that are drawn at a time, the digits of the noise that are kept, and an adaptive clip's
# range. Written out: what is changed there is not changed here.
BELOW, DRAWN, DIGITS, REACH = 1e-6, 8192, 12, 100.0
# How far from a row's probability float32's may be: four of its steps near 1, which are 2^-24.
PROBABILITY = 2.0**-22
# The rows [n, F] and labels [n] of each unit.
Rows = Sequence[tuple[Floats, Floats]]


class Stream:
    """Bytes that follow from a ``name``, one after the other: the same for whoever asks for as many."""

    def __init__(self, name: str) -> None:
        self._name, self._block, self._left = name, 0, b""

    def __call__(self, size: int) -> bytes:
        while len(self._left) < size:
            self._left += shake_256(f"{self._name} {self._block}".encode()).digest(1 << 16)
            self._block += 1
        given, self._left = self._left[:size], self._left[size:]
        return given

    def uniform(self, size: int) -> Floats:
        """Numbers in (0, 1) of 52 bits each."""
        bits = np.frombuffer(self(8 * size), "<u8") >> 12
        drawn: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-52
        return drawn

    def noise(self, mechanism: str, size: int) -> Floats:
        """Of scale 1: half the sum of four Box-Muller draws, or the sum of two exponentials times cosines."""
        if mechanism == LAPLACE:
            exponentials, angles = -np.log(self.uniform(2 * size)), np.pi * self.uniform(2 * size)
            products: Floats = (exponentials * np.cos(angles)).reshape(2, size)
            both: Floats = products[0] + products[1]
            return both
        half = (4 * size + 1) // 2
        radii, angles = np.sqrt(-2.0 * np.log(self.uniform(half))), 2.0 * np.pi * self.uniform(half)
        draws = np.concatenate([radii * np.cos(angles), radii * np.sin(angles)])[: 4 * size]
        total: Floats = draws.reshape(4, size).sum(axis=0) / 2.0
        return total


@dataclass(frozen=True)
class Step:
    """What a step should release: the ``sum`` [P] and ``count`` behind an adaptive clip, on their grids.

    Their noise is of ``noise_scale`` and ``count_scale``. ``doubtful`` units have norms so near to the clip
    that they may count or not. ``float32`` is by how much float32 may move the sum, of rows whose labels are
    foretold nearly surely: it matters where a clip has come down to little.
    """

    sum: Floats
    noise_scale: float
    float32: float
    count: float = 0.0
    count_scale: float = 1.0
    doubtful: int = 0


class Reference:
    """One round of a site that holds ``units``, from the random bytes of ``stream``."""

    def __init__(self, settings: DPSGD, units: Rows, stream: Stream) -> None:
        self._settings, self._units, self._stream = settings, units, stream
        self._noise: list[Floats] = []

    def step(self, module: Any, position: Floats, clip: float) -> Step:
        """The next step's, from the parameters ``position`` [P] by ``clip``."""
        settings, order = self._settings, NORMS[self._settings.mechanism]
        _set(module, position)
        total, count, doubtful, float32 = np.zeros(len(position)), 0.0, 0, 0.0
        sampled = np.flatnonzero(self._stream.uniform(len(self._units)) < settings.sampling_rate)
        for rows in [self._drawn(int(number)) for number in sampled]:
            by_layer, of_scores = self._gradient(module, *rows)
            norms = [float(np.linalg.norm(layer, order)) for layer in by_layer]
            whole = float(np.linalg.norm(norms, order))
            doubtful += abs(whole - clip) <= 1e-5 * clip
            count += float(whole <= clip) - settings.clip_quantile
            if not math.isfinite(whole):
                continue
            share = clip / len(by_layer) ** (1.0 / order) if settings.per_layer else clip
            lengths = norms if settings.per_layer else [whole] * len(by_layer)
            factors = [min(1.0, share * (1.0 - BELOW) / length) if length else 1.0 for length in lengths]
            total += np.concatenate([f * layer for f, layer in zip(factors, by_layer, strict=True)])
            # A probability that float32 rounds to the label itself leaves nothing of the gradient.
            float32 += max(factors) * min(PROBABILITY * of_scores, whole)
        scale = declared_noise(settings) * clip
        released = _rounded(total + scale * self._of_step(len(position)), scale)
        if settings.clipping == "fixed":
            return Step(released, scale, float32)
        count_noise = declared_count_noise(settings)
        noise = count_noise * self._stream.noise(settings.mechanism, 1)
        hidden = float(_rounded(count / span(settings) + noise, count_noise)[0])
        return Step(released, scale, float32, hidden, count_noise, doubtful)

    def _drawn(self, number: int) -> tuple[Floats, Floats]:
        """A unit's rows in a step: all, or as many as one may have, by its own draw."""
        features, labels = self._units[number]
        if len(labels) <= self._settings.max_variants:
            return features, labels
        rows: Indices = np.argsort(self._stream.uniform(len(labels)))[: self._settings.max_variants]
        return features[rows], labels[rows]

    def _gradient(self, module: Any, features: Floats, labels: Floats) -> tuple[list[Floats], float]:
        """Of the mean log loss of a unit's rows, by layer (a weight and its bias are one); and of their
        mean score the gradient's norm.
        """
        import torch

        scores = module(torch.from_numpy(features))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.from_numpy(labels))
        parameters = list(module.parameters())
        of_scores = torch.autograd.grad(scores.mean(), parameters, retain_graph=True)
        parts = torch.autograd.grad(loss, parameters)
        layers: dict[str, list[Floats]] = {}
        for (name, _), part in zip(module.named_parameters(), parts, strict=True):
            layers.setdefault(name.rpartition(".")[0], []).append(part.numpy().ravel())
        norm = math.sqrt(sum(float(part.square().sum()) for part in of_scores))
        return [np.concatenate(layer) for layer in layers.values()], norm

    def _of_step(self, size: int) -> Floats:
        """A step's noise, of those that were drawn together."""
        if not self._noise:
            steps = max(1, DRAWN // size)
            drawn = self._stream.noise(self._settings.mechanism, steps * size)
            self._noise = list(drawn.reshape(steps, size))
        return self._noise.pop(0)


def module_of(architecture: str, features: int) -> Any:
    """A module in float64."""
    return build(architecture, features).double()


def units_of(
    tables: Sequence[pa.Table],
    unit: str,
    architecture: str,
    one_id: Mapping[str, str],
    without: Collection[str],
) -> Rows:
    """The rows and labels of each unit: those of a patient by name, or each labelled row, as they come.

    The patients ``without`` room in their budget have none.
    """
    rows: dict[str, list[tuple[Floats, float]]] = {}
    for table in tables:
        values = _inputs(table, architecture)
        for number, (patient, label) in enumerate(
            zip(table["patient"].to_pylist(), table["label"].to_pylist(), strict=True)
        ):
            name = one_id.get(patient, patient)
            if label is not None and name not in without:
                whose = name if unit == "patient" else f"{len(rows):09d}"
                rows.setdefault(whose, []).append((values[number], float(label)))
    return [
        (np.stack([row for row, _ in rows[name]]), np.array([label for _, label in rows[name]]))
        for name in sorted(rows)
    ]


def _inputs(table: pa.Table, architecture: str) -> Floats:
    """A model's inputs [rows, F]: the features, and behind them an image's pixels over 255, in float32."""
    columns = [np.array(table[name].to_pylist(), np.float32) for name in FEATURES]
    if architecture in WITH_IMAGES:
        images = np.array([list(image) for image in table[PILEUP.name].to_pylist()], np.float32)
        columns += list((images * np.float32(1 / 255)).T)
    return np.stack(columns, axis=1).astype(np.float64)


def deviation_of(step: Step, settings: DPSGD) -> float:
    """The deviation of the noise in a step's mean."""
    return step.noise_scale / settings.expected_batch * DEVIATIONS[settings.mechanism]


def grid(scale: float) -> float:
    """The step of the public grid for noise of such a scale."""
    return float(2.0 ** (math.floor(math.log2(scale)) - DIGITS))


def _rounded(values: Floats, scale: float) -> Floats:
    rounded: Floats = np.round(values / grid(scale)) * grid(scale)
    return rounded


def _set(module: Any, position: Floats) -> None:
    import torch

    with torch.no_grad():
        first = 0
        for parameter in module.parameters():
            part = position[first : first + parameter.numel()]
            parameter.copy_(torch.from_numpy(part).view_as(parameter))
            first += parameter.numel()
