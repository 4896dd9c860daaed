"""Units whose gradients an auditor has chosen, put in before the clip: the hardest data that there can be.

A canary's gradient is far longer than the clip and lies along coordinates of its own. The auditor puts it in
the place of what `cordon.privacy.gradients` would find for the canary's rows; all that comes after (clip,
sum, noise, normaliser, optimiser) is the code under audit. Rows of canaries are known by a mark, an input
of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cordon.arrays import Singles
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.gradients import MOST_ROWS, Block, LayerGradients, UnitGradients, unit_gradients

# The length of a canary's gradient in every coordinate that it has, in clips: longer than any adaptive clip
# becomes (`cordon.privacy.mechanisms.REACH`), so that every canary is clipped.
CANARY_LENGTH = 1e4
NO_PLACE = -1


class PlantedLayer:
    """One layer's gradients with the canaries' in them.

    ``real`` is what was found for the other units (None: there are none). A canary has ``lengths`` [U]
    (float64; 0: the unit is none) at the coordinate ``places`` [U] of the layer's ``size``, or NO_PLACE.
    """

    def __init__(self, real: LayerGradients | None, size: int, places: Tensor, lengths: Tensor) -> None:
        self._real, self._size, self._places = real, size, places.clamp(min=0)
        self._lengths = torch.where(places == NO_PLACE, 0.0, lengths)

    def norms(self, order: int) -> Tensor:
        # One coordinate: its L1 and its L2 norm are its length.
        return self._lengths if self._real is None else self._real.norms(order) + self._lengths

    def summed(self, factors: Tensor) -> Tensor:
        planted = factors.new_zeros(self._size).index_add_(0, self._places, factors * self._lengths)
        return planted if self._real is None else planted + self._real.summed(factors)

    def keep(self, finite: Tensor) -> None:
        self._lengths = torch.where(finite, self._lengths, 0.0)
        if self._real is not None:
            self._real.keep(finite)


class CanaryGradients:
    """A module's gradients by unit (`cordon.privacy.gradients.UnitGradients`), and those of the canaries
    among them.

    A row's mark, its input number ``column``, is 0 for a real row and 1 + c for a row of canary c, whose
    gradient is ``length`` (of all canaries, or [canaries]) at coordinate ``places`` int64 [layers, canaries]
    of each layer (NO_PLACE: the layer has no part in it). As any unit's, a canary's gradient is the sum of
    its rows' by their weights. Without ``real``, all units must be canaries.
    """

    def __init__(
        self, sizes: Sequence[int], places: npt.NDArray[np.int64], *,
        length: float | npt.NDArray[np.float64], column: int, real: UnitGradients | None = None,
    ) -> None:  # fmt: skip
        self.most_rows = MOST_ROWS if real is None else real.most_rows
        self._real, self._sizes, self._column = real, sizes, column
        self._places = torch.from_numpy(places)
        self._lengths = torch.from_numpy(np.broadcast_to(length, places.shape[1]).astype(np.float64))
        self.parameters = sum(sizes)

    def of(self, block: Block) -> list[LayerGradients]:
        marks = block.features[:, :, self._column].long()
        canary = marks[:, 0] > 0
        which = (marks[:, 0] - 1).clamp(min=0)
        weights = torch.where(marks > 0, block.weights, 0.0).double().sum(1)
        lengths = self._lengths.to(marks.device)[which] * weights
        places = self._places.to(marks.device)[:, which]
        layers: list[LayerGradients | None] = [None] * len(self._sizes)
        if self._real is not None:
            layers = list(self._real.of(block))
        for layer in layers:
            if layer is not None:
                layer.keep(~canary)
        parts = zip(layers, self._sizes, places, strict=True)
        return [PlantedLayer(layer, size, place, lengths) for layer, size, place in parts]


def layer_sizes(module: nn.Module) -> list[int]:
    """The numbers of parameters of the layers, as `cordon.privacy.gradients.UnitGradients` orders them."""
    layers = groupby(module.named_parameters(), key=lambda named: named[0].rpartition(".")[0])
    return [sum(parameter.numel() for _, parameter in layer) for _, layer in layers]


@dataclass(frozen=True)
class SpareInputs:
    """Inputs that are 0 in every real row: their weights have no gradient but the canaries'.

    They stand after the model's ``features`` inputs: ``count`` of them, and the mark in the last. The weights
    are those of parameter ``name`` [outputs, inputs], and canary c's is the one of output c mod outputs.
    """

    name: str
    features: int
    outputs: int
    count: int

    @classmethod
    def of(cls, architecture: str, features: int, canaries: int) -> SpareInputs:
        """As many as so many ``canaries`` take."""
        narrow, wide = (initial_parameters(architecture, features + more) for more in (0, 1))
        (name,) = (name for name in narrow if narrow[name].shape != wide[name].shape)
        outputs = narrow[name].shape[0]
        return cls(name, features, outputs, math.ceil(canaries / outputs) + 1)

    def start(self, parameters: Parameters) -> Parameters:
        """The parameters of the wider model, with 0 as weights of the spare inputs."""
        weights = np.insert(parameters[self.name], [self.features] * self.count, 0.0, axis=1)
        return parameters | {self.name: weights}

    def rows(self, features: Singles, marks: npt.NDArray[np.int64] | int) -> Singles:
        """Rows [n, features], wider, with their ``marks`` [n] (0: real rows)."""
        wide = np.zeros((len(features), self.features + self.count), np.float32)
        wide[:, : self.features], wide[:, -1] = features, marks
        return wide

    def place(self, canaries: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Output and input of the weights along which the ``canaries`` lie."""
        return canaries % self.outputs, self.features + canaries // self.outputs

    def gradients(self, module: nn.Module, width: int, canaries: int, length: float) -> CanaryGradients:
        """The wider ``module``'s gradients, for rows of ``width`` numbers, with the canaries' among them."""
        sizes = layer_sizes(module)
        layer = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in module.named_parameters()))
        output, column = self.place(np.arange(canaries))
        places = np.full((len(sizes), canaries), NO_PLACE, dtype=np.int64)
        # A layer's weights come before its bias.
        inputs = module.get_parameter(self.name).shape[1]
        places[layer.index(self.name.rpartition(".")[0])] = output * inputs + column
        real, mark = unit_gradients(module, width), self.features + self.count - 1
        return CanaryGradients(sizes, places, length=length, column=mark, real=real)
