"""The variant-scoring model: its architectures, and the file in which a trained one travels.

A score is the natural-log odds that an allele is real. torch is imported only to build a module, and to run
one that looks at images: dense layers are a few products of matrices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cordon import foreign
from cordon.errors import UserError
from cordon.files import parse_json
from cordon.model.architectures import (
    Parameters,
    build,
    check_parameters,
    features_of,
    load_parameters,
    slices,
)
from cordon.model.devices import device
from cordon.model.initial_weights import initial_parameters
from cordon.model.statement import stated
from cordon.variants.pileup_images import WITH_IMAGES

# A model says some kilobytes about itself (characters of JSON).
MOST_DESCRIBED = 2**20


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
            described = parse_json((handle.metadata() or {})["cordon"][:MOST_DESCRIBED])
            privacy = stated(described["privacy"])
            names = (described["architecture"], *tuple(described["features"]))
            if not all(isinstance(name, str) for name in names):
                raise TypeError("its architecture and features are no names")
            parameters = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        model = Model(described["architecture"], tuple(described["features"]), parameters, privacy)
        check_parameters(parameters, expected=initial_parameters(model.architecture, len(model.features)))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{path}: not a model written by Cordon ({foreign.words(error)}). Give a model.safetensors."
        ) from error
    return model
