"""The variant-scoring model: its architectures, and the file in which a trained one travels.

A score is the natural-log odds that an allele is real. torch is imported only to build a module, and to run
one that looks at images: dense layers are a few products of matrices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cordon.devices import device
from cordon.errors import UserError
from cordon.images import SIZE, WITH_IMAGES

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
        from cordon.pileup_cnn import PileupCNN

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


def initial_parameters(architecture: str, features: int) -> Parameters:
    """The public start of ``architecture``, as named float32 arrays; without torch for Cordon's features."""
    from cordon.starts import shipped

    return shipped(architecture, features) or parameters_of(build(architecture, features))


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


@dataclass(frozen=True)
class Model:
    """A trained model and what everyone who receives it should know about it.

    ``features`` are the names of its inputs in order; ``privacy`` holds unit, epsilon, delta,
    mechanism, adjacency, accountant, rounds and sites.
    """

    architecture: str
    features: tuple[str, ...]
    parameters: Parameters
    privacy: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 over architecture, feature names and parameters, in hex."""
        digest = hashlib.sha256(json.dumps([self.architecture, *self.features]).encode())
        for name in sorted(self.parameters):
            array = np.ascontiguousarray(self.parameters[name], dtype="<f4")
            digest.update(json.dumps([name, array.shape]).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Log odds (nats) for the float32 inputs ``features`` [n, width(...)], as float64 [n].

        Dense layers are computed in float64, without torch; images are looked at on a GPU where there is one.
        """
        found = features_of(self.architecture, features.shape[-1])
        if features.ndim != 2 or found != len(self.features):
            raise UserError(
                f"the model takes {len(self.features)} features, the table has {found}. "
                "Encode the variants with the version of Cordon that trained the model."
            )
        scores = np.empty(len(features))
        score = self._looking() if self.architecture in WITH_IMAGES else self._dense
        for part in slices(*features.shape):
            scores[part] = score(features[part])
        return scores

    def _dense(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What `build`'s dense layers say of ``features`` [n, F], tanh between them."""
        values = features.astype(np.float64)
        layers = sorted({int(name.partition(".")[0]) for name in self.parameters})
        for layer in layers:
            weight, bias = (self.parameters[f"{layer}.{part}"] for part in ("weight", "bias"))
            values = values @ weight.T.astype(np.float64) + bias
            if layer != layers[-1]:
                values = np.tanh(values)
        return values[:, 0]

    def _looking(self) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]:
        """The module that `build` makes, as a function of rows [n, width(...)]: made once for all of them."""
        import torch

        where = device()
        module = build(self.architecture, len(self.features))
        load_parameters(module, self.parameters)
        module.to(where)

        @torch.no_grad()
        def score(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            found: npt.NDArray[np.float64] = module(torch.from_numpy(rows).to(where)).double().cpu().numpy()
            return found

        return score

    def save(self, path: Path) -> None:
        """Write the model to ``path`` (safetensors, metadata as JSON), whole or not at all."""
        from safetensors.numpy import save_file

        described = {"architecture": self.architecture, "features": self.features, "privacy": self.privacy}
        temporary = path.with_name(path.name + ".part")
        # safetensors writes an array's memory as it lies, whatever its order.
        arrays = {name: np.ascontiguousarray(value) for name, value in self.parameters.items()}
        save_file(arrays, temporary, metadata={"cordon": json.dumps(described)})
        temporary.replace(path)


def load(path: Path) -> Model:
    """Read a model; UserError where the file is no model of Cordon's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            described = json.loads((handle.metadata() or {})["cordon"])
            if not isinstance(described["privacy"], dict):
                raise TypeError("its privacy is no statement")
            parameters = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        model = Model(
            described["architecture"], tuple(described["features"]), parameters, described["privacy"]
        )
        check_parameters(parameters, expected=initial_parameters(model.architecture, len(model.features)))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{path}: not a model written by Cordon ({error}). Give a model.safetensors."
        ) from error
    return model


def check_parameters(
    parameters: Mapping[str, npt.NDArray[Any]], *, expected: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """ValueError where names, shapes or dtype differ from ``expected``, or a value is not finite."""
    if set(parameters) != set(expected):
        raise ValueError(f"parameters {_names(parameters)} instead of {_names(expected)}")
    for name, value in parameters.items():
        if value.dtype != np.float32:
            raise ValueError(f"{name} is {value.dtype} instead of float32")
        if value.shape != expected[name].shape:
            raise ValueError(f"{name} has shape {value.shape} instead of {expected[name].shape}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _names(parameters: Mapping[str, Any]) -> Sequence[str]:
    return sorted(parameters)
