"""The one app bundle that Cordon's SuperLink starts runs with, and that sites answer: pinned by its hash.

Flower runs the code of whatever bundle a run was submitted with. Ours holds no code, only a name; any other
is refused where a run is submitted, at the SuperLink, where the ServerApp's task is taken, and at each site.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from cordon.errors import FederationError

BUNDLE_FOLDER = Path(__file__).parent / "bundle"
# Changes with the bundle, so with Cordon's version: tests/federation/test_bundle.py tells the new one.
SHA256 = "b430ed8172af326d5e71f183fe70adc5da6c5c22aeb4e51028a76da72ff8673a"


@cache
def bundle() -> tuple[bytes, str]:
    """The app bundle that a run carries, and its SHA-256 in hex; FederationError where it was changed."""
    from flwr.cli.build import build_fab_from_disk

    content = build_fab_from_disk(BUNDLE_FOLDER)
    digest = hashlib.sha256(content).hexdigest()
    check(digest, f"the bundle in {BUNDLE_FOLDER}")
    return content, digest


def check(digest: str, what: str) -> None:
    """FederationError where ``digest`` is not the pinned SHA-256; ``what`` says whose it is."""
    if digest != SHA256:
        raise FederationError(
            f"refused a bundle with the unknown hash {digest[:64]!r} ({what}): this version of Cordon runs "
            f"{SHA256} alone. Install Cordon's release anew, the same at sites and aggregator."
        )
