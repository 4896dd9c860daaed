"""Each privacy unit's own gradient of the log loss: its norm, and sums of all of them by weights.

Stacks of dense layers go the fast way (`DenseGradients`): a layer's gradient for one row is the outer
product of what the layer received and what comes back to it, so norms and weighted sums need no gradient
of a single unit in memory. Every other module goes through Opacus' hooks (`HookedGradients`), row by row.

What one unit's gradient is should not depend on who else was sampled, not even in its last bit. A matrix
product may round otherwise for another number of rows, so the caller cuts batches into blocks of one public
shape (`cordon.training.dpsgd`); with layers as wide as those of `cordon.model.released` (1 or 16) a
unit's float32 gradient is then the same wherever it stands. A test holds that for the processor and
library that it runs on; for other widths, and for convolutions, some libraries round by position, which
moves a gradient by parts in 10^7 of itself. Sums run in float64, see `cordon.privacy.clipping.MARGIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cordon.errors import UserError

# Rows of a block: few enough to take little memory, enough that the calls cost little beside the work.
MOST_ROWS = 4096
# Numbers that Opacus may hold at a time, one for each row and parameter (16 MiB).
MOST_GRADIENT_NUMBERS = 2**22

# Element-wise layers: the output; and the gradient before one, from that after it and the output.
# tanh by the logistic function, which torch computes several times faster (2e-7 off at most).
_FORWARD: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: lambda values: torch.sigmoid(values + values).mul_(2.0).sub_(1.0),
    nn.Sigmoid: torch.sigmoid,
    nn.ReLU: torch.relu,
}
_BACKWARD: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    nn.Tanh: torch.ops.aten.tanh_backward,
    nn.Sigmoid: torch.ops.aten.sigmoid_backward,
    nn.ReLU: lambda gradient, output: torch.ops.aten.threshold_backward(gradient, output, 0),
}


@dataclass(frozen=True)
class Block:
    """Sampled units, padded to a public shape: features float32 [U, R, F], labels and weights [U, R].

    A unit's loss is the sum of its rows' log losses (nats) by ``weights``; padding weighs nothing. The first
    ``units`` are real.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    units: int


class LayerGradients(Protocol):
    """The gradients of one layer's parameters for the U units of a block.

    Not finite where a unit's rows or the parameters overflow: `keep` makes such units zero.
    """

    def norms(self, order: int) -> Tensor:
        """Each unit's L1 or L2 norm (``order`` 1 or 2), float64 [U]."""

    def summed(self, factors: Tensor) -> Tensor:
        """The sum over units of factor (float64 [U]) times gradient, float64 [parameters of the layer]."""

    def keep(self, finite: Tensor) -> None:
        """Set to zero every unit that is not in ``finite``, bool [U]."""


class Outer:
    """Units of one row: the gradient delta (a, 1)^T of a weight and its bias, never formed.

    |delta (a, 1)^T| = |delta| |(a, 1)|, in L2 as in L1 (Goodfellow 2015, arXiv:1510.01799, for L2).
    """

    def __init__(self, inputs: Tensor, deltas: Tensor, width: int, bias: bool) -> None:
        # In float64: squares of float32 numbers, and products of two, are finite there.
        self._inputs, self._deltas = inputs, deltas.double()
        self._width, self._bias = width, bias

    def norms(self, order: int) -> Tensor:
        inputs, deltas = (torch.linalg.vector_norm(x, order, dim=1) for x in (self._inputs, self._deltas))
        product: Tensor = inputs * deltas
        return product

    def summed(self, factors: Tensor) -> Tensor:
        summed = (self._deltas * factors[:, None]).T @ self._inputs
        weight = summed[:, : self._width].flatten()
        return torch.cat([weight, summed[:, self._width]]) if self._bias else weight

    def keep(self, finite: Tensor) -> None:
        self._inputs = torch.where(finite[:, None], self._inputs, 0.0)
        self._deltas = torch.where(finite[:, None], self._deltas, 0.0)


class Whole:
    """Units whose gradients are formed: float32 [U, parameters of the layer]."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    def norms(self, order: int) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self._gradients, order, dim=1, dtype=torch.float64)
        return norms

    def summed(self, factors: Tensor) -> Tensor:
        summed: Tensor = factors @ self._gradients.double()
        return summed

    def keep(self, finite: Tensor) -> None:
        self._gradients = torch.where(finite[:, None], self._gradients, 0.0)


class UnitGradients(Protocol):
    """A module's gradients by unit and layer, layers in the order of the module's parameters.

    ``most_rows``: the rows that a block should have at most, a public number.
    """

    most_rows: int

    def of(self, block: Block) -> Sequence[LayerGradients]: ...


class DenseGradients:
    """For a stack of nn.Linear and element-wise layers that ends in one output; see `is_dense`.

    What `of` gives holds until its next call: blocks are of one shape, and share its memory.
    """

    most_rows = MOST_ROWS

    def __init__(self, module: nn.Sequential) -> None:
        self._layers = list(module)[:-1]
        self._first = next(n for n, layer in enumerate(self._layers) if isinstance(layer, nn.Linear))
        self._buffers: dict[tuple[int, int], Tensor] = {}

    @torch.inference_mode()
    def of(self, block: Block) -> list[LayerGradients]:
        units, rows, _ = block.features.shape
        values = [block.features.flatten(0, 1)]
        for layer in self._layers:
            values.append(_FORWARD.get(type(layer), layer)(values[-1]))
        delta = _score_gradients(values.pop(), block)
        found: list[LayerGradients] = []
        for place in reversed(range(len(self._layers))):
            layer = self._layers[place]
            if not isinstance(layer, nn.Linear):
                delta = _BACKWARD[type(layer)](delta, values[place + 1])
                continue
            bias = layer.bias is not None
            if rows == 1:
                found.append(
                    Outer(self._extended(values[place], place, bias), delta, layer.in_features, bias)
                )
            else:
                inputs, deltas = (x.unflatten(0, (units, rows)) for x in (values[place], delta))
                parts = [torch.bmm(deltas.mT, inputs).flatten(1)] + ([deltas.sum(1)] if bias else [])
                found.append(Whole(torch.cat(parts, dim=1)))
            if place == self._first:
                break
            delta = delta @ layer.weight
        return found[::-1]

    def _extended(self, inputs: Tensor, place: int, bias: bool) -> Tensor:
        """(a, 1, 0 ...) in float64: products are a third faster with a whole number of vectors a row."""
        rows, width = inputs.shape
        if (place, rows) not in self._buffers:
            buffer = inputs.new_zeros(rows, 8 * (width // 8 + 1), dtype=torch.float64)
            buffer[:, width] = float(bias)
            self._buffers[place, rows] = buffer
        self._buffers[place, rows][:, :width] = inputs
        return self._buffers[place, rows]


class HookedGradients:
    """For any module that maps float32 [n, F] to [n] without mixing rows, by Opacus' per-sample gradients."""

    def __init__(self, module: nn.Module, features: int) -> None:
        from opacus import GradSampleModule

        try:
            self._private = GradSampleModule(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise UserError(
                f"the model has a layer without gradients by unit ({error}). Use layers without buffers, "
                "such as nn.GroupNorm for a normalisation."
            ) from error
        self._refuse_mixing(features)
        numbers = sum(parameter.numel() for parameter in module.parameters())
        self.most_rows = max(1, min(MOST_ROWS, MOST_GRADIENT_NUMBERS // numbers))
        self._by_layer = [
            [parameter for _, parameter in layer]
            for _, layer in groupby(module.named_parameters(), key=lambda named: named[0].rpartition(".")[0])
        ]

    def of(self, block: Block) -> list[LayerGradients]:
        # Where a unit has more rows than fit, some of every unit's at a time.
        units, rows = block.labels.shape
        step = max(1, self.most_rows // units)
        arrays = (block.features, block.labels, block.weights)
        by_part = []
        for first in range(0, rows, step):
            features, labels, weights = (array[:, first : first + step] for array in arrays)
            by_part.append(self._by_layer_of(Block(features, labels, weights, block.units)))
        return [Whole(reduce(torch.add, layer)) for layer in zip(*by_part, strict=True)]

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _by_layer_of(self, block: Block) -> list[Tensor]:
        """Each layer's gradients, float32 [U, parameters of the layer]."""
        units, rows, _ = block.features.shape
        # The hooks see the gradient of a first layer only where its input has one too.
        scores = self._private(block.features.flatten(0, 1).detach().requires_grad_())
        scores.backward(_score_gradients(scores.detach(), block).view_as(scores))
        found = []
        for layer in self._by_layer:
            by_row: list[Any] = [parameter.grad_sample for parameter in layer]  # type: ignore[attr-defined]
            found.append(torch.cat([x.view(units, rows, -1).sum(1) for x in by_row], dim=1))
        self._private.zero_grad(set_to_none=True)
        return found

    def _refuse_mixing(self, features: int) -> None:
        """UserError where a row's score changes with the rows beside it, on public random rows."""
        device = next(self._private.parameters()).device
        rows = torch.randn(8, features, generator=torch.Generator().manual_seed(0)).to(device)
        with torch.no_grad():
            together = self._private(rows)
            alone = [self._private(row[None]) for row in rows]
        if together.shape != (8,):
            raise UserError(
                f"the model gives scores of shape {tuple(together.shape)} for 8 rows. Give one a row, [n]."
            )
        if not torch.allclose(together, torch.cat(alone), rtol=1e-3, atol=1e-4):
            raise UserError(
                "the model's score of a row depends on the other rows of the batch, so no unit's part in it "
                "can be bounded. Use statistics of the row itself (nn.LayerNorm, nn.GroupNorm) or public "
                "constants."
            )


def unit_gradients(module: nn.Module, features: int) -> UnitGradients:
    """The way to ``module``'s gradients by unit; it maps float32 [..., features] to [...].

    Raises UserError, by the layer's name, where a layer mixes examples.
    """
    refuse_mixing_layers(module)
    if isinstance(module, nn.Sequential) and is_dense(module):
        return DenseGradients(module)
    return HookedGradients(module, features)


def refuse_mixing_layers(module: nn.Module) -> None:
    """UserError for a layer with statistics over the batch: no unit's part in it can be bounded."""
    for name, layer in module.named_modules():
        tracked = isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or tracked:
            raise UserError(
                f"layer {name!r} ({type(layer).__name__}) computes statistics over the batch, so one unit "
                "changes every other's gradient and clipping bounds nothing. Use nn.GroupNorm or "
                "nn.LayerNorm."
            )


def is_dense(module: nn.Module) -> bool:
    """Whether `DenseGradients` knows ``module``: float32, every parameter used once, one output a row."""
    if not isinstance(module, nn.Sequential) or not len(module):
        return False
    *stack, last = module  # not its children(), which would name a layer that is used twice once
    linear = [layer for layer in stack if type(layer) is nn.Linear]
    parameters = [parameter for layer in linear for parameter in layer.parameters()]
    return (
        isinstance(last, nn.Flatten)
        and (last.start_dim, last.end_dim) == (-2, -1)
        and bool(stack)
        and all(type(layer) is nn.Linear or type(layer) in _BACKWARD for layer in stack)
        and type(stack[-1]) is nn.Linear
        and stack[-1].out_features == 1
        and len({*map(id, parameters)}) == len(parameters)
        and all(parameter.dtype == torch.float32 for parameter in parameters)
        and not _has_hooks(module)
    )


def _has_hooks(module: nn.Module) -> bool:
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def _score_gradients(scores: Tensor, block: Block) -> Any:
    """The gradient of the block's loss at its scores (log odds), [U * R, 1]."""
    labels, weights = (x.reshape(-1, 1) for x in (block.labels, block.weights))
    return (scores.reshape(-1, 1).sigmoid() - labels) * weights
