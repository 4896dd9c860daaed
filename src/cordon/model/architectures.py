"""The architectures of the variant-scoring model, and parameters by name.

A score is the natural-log odds that an allele is real. torch is imported only to build a module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cordon import foreign
from cordon.errors import UserError
from cordon.variants.pileup_images import SIZE, WITH_IMAGES

if TYPE_CHECKING:
    from torch import Tensor, nn


ARCHITECTURES = ("logistic", "mlp", "pileup_cnn")

HIDDEN = 16

# Natural-log odds that a raw call is real before anything is known of it: about four in five are. Starting
# there, the first gradients point at what tells real from false, not at how many are real.
PRIOR_LOG_ODDS = 1.386

# Numbers of a model's inputs that are scored at a time (256 MiB).
MOST_NUMBERS = 2**26

Parameters = dict[str, npt.NDArray[np.float32]]


def width(architecture: str, features: int) -> int:
    """The numbers of one row that ``architecture`` takes, with so many features."""
    return features + SIZE if architecture in WITH_IMAGES else features


def features_of(architecture: str, width: int) -> int:
    """The features in rows of ``width`` numbers; UserError where ``architecture`` takes no such rows."""
    features = width - SIZE if architecture in WITH_IMAGES else width
    if features < 1:
        raise UserError(
            f"rows of {width} numbers are no inputs of {architecture}. Read the tables for this model."
        )
    return features


def slices(rows: int, width: int) -> Iterator[slice]:
    """Stretches of ``rows`` rows of ``width`` numbers that are few enough to be computed with at once."""
    step = max(1, MOST_NUMBERS // width)
    return (slice(first, first + step) for first in range(0, rows, step))


def build(architecture: str, features: int) -> nn.Module:
    """A fresh module that maps float32 [..., width(architecture, features)] to float32 [...] log odds.

    Its start is public and the same everywhere: every score is PRIOR_LOG_ODDS; the layers before the last
    come from a generator with a fixed seed. No layer mixes examples.
    """
    import torch
    from torch import nn

    if architecture == "pileup_cnn":
        from cordon.model.pileup_cnn import PileupCNN

        network = PileupCNN(features, HIDDEN)
        network.start(torch.Generator().manual_seed(0))
        _start_output(network.output)
        return network

    if architecture == "logistic":
        layers: list[nn.Module] = [nn.Linear(features, 1)]
    elif architecture == "mlp":
        hidden = nn.Linear(features, HIDDEN)
        start = torch.Generator().manual_seed(0)
        with torch.no_grad():
            hidden.weight.normal_(0.0, features**-0.5, generator=start)
            hidden.bias.zero_()
        layers = [hidden, nn.Tanh(), nn.Linear(HIDDEN, 1)]
    else:
        raise UserError(f"no model is called {architecture!r}. Choose one of: {', '.join(ARCHITECTURES)}.")
    output = layers[-1]
    assert isinstance(output, nn.Linear)
    _start_output(output)
    return nn.Sequential(*layers, nn.Flatten(-2))


def _start_output(output: nn.Linear) -> None:
    from torch import nn

    nn.init.zeros_(output.weight)
    nn.init.constant_(output.bias, PRIOR_LOG_ODDS)


def parameters_of(module: nn.Module) -> Parameters:
    """A copy of the module's parameters, by name."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32, copy=True)
        for name, tensor in module.state_dict().items()
    }


def load_parameters(module: nn.Module, parameters: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Set the module's parameters; names and shapes must be its own."""
    import torch

    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})


def flattened(module: nn.Module) -> Tensor:
    """The module's parameters as one float32 vector, whose parts they are from now on: set it to set them."""
    import torch

    parameters = list(module.parameters())
    vector = torch.cat([parameter.detach().flatten() for parameter in parameters])
    parts = torch.split(vector, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    return vector


def check_parameters(
    parameters: Mapping[str, npt.NDArray[Any]], *, expected: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """ValueError where names, shapes or dtype differ from ``expected``, or a value is not finite."""
    if set(parameters) != set(expected):
        raise ValueError(f"parameters {foreign.names(parameters)} instead of {', '.join(sorted(expected))}")
    for name, value in parameters.items():
        if value.dtype != np.float32:
            raise ValueError(f"{name} is {value.dtype} instead of float32")
        if value.shape != expected[name].shape:
            raise ValueError(f"{name} has shape {value.shape} instead of {expected[name].shape}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")
