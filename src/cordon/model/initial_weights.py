"""The models' public starts as a file, for the aggregator, which sends them to the sites and has no torch.

``python -m cordon.model.initial_weights`` writes the file anew, as it must be where FEATURES or an
architecture changes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cordon.model.architectures import Parameters, build, parameters_of
from cordon.variants.features import FEATURES

if TYPE_CHECKING:
    from cordon.model.architectures import Parameters

WEIGHTS_FILE = Path(__file__).parent / "initial_weights.safetensors"


def shipped(architecture: str, features: int) -> Parameters | None:
    """A copy of the start of ``architecture`` for the features that Cordon has; None for another number."""
    if features != len(FEATURES):
        return None
    prefix = f"{architecture}/"
    return {
        name.removeprefix(prefix): value.copy() for name, value in _held().items() if name.startswith(prefix)
    } or None


@cache
def _held() -> Parameters:
    from safetensors.numpy import load_file

    return load_file(WEIGHTS_FILE)


def write(path: Path = WEIGHTS_FILE) -> None:
    """Write the start of every architecture to ``path``, as torch draws it on this machine."""
    from safetensors.numpy import save_file

    from cordon.model.architectures import ARCHITECTURES, build, parameters_of

    save_file(
        {
            f"{architecture}/{name}": value
            for architecture in ARCHITECTURES
            for name, value in parameters_of(build(architecture, len(FEATURES))).items()
        },
        path,
    )


if __name__ == "__main__":
    write()


def initial_parameters(architecture: str, features: int) -> Parameters:
    """The public start of ``architecture``, as named float32 arrays; without torch for Cordon's features."""

    return shipped(architecture, features) or parameters_of(build(architecture, features))
