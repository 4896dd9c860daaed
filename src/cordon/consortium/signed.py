"""Papers that are passed on by hand, each signed by whoever answers for it.

A paper is a JSON file: its kind, the version of Cordon that made it, its content, the signer's public key,
and an ECDSA P-384 signature (SHA-384) over kind, version and content. Whether the key is the right one is not
said by the paper: its fingerprint has to come by another way, such as a telephone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from cordon import __version__
from cordon.errors import UserError
from cordon.federation.credentials import checked_public_pem, read_private
from cordon.federation.plan import fingerprint
from cordon.files import written_beside

# A paper of a thousand sites has half a megabyte.
MOST_BYTES = 4 * 1024 * 1024
FIELDS = {"cordon", "version", "content", "public_key", "signature"}


@dataclass(frozen=True)
class Paper:
    """The ``content`` of a paper that was signed with ``public_key`` (PEM), by a ``version`` of Cordon."""

    content: Mapping[str, Any]
    public_key: str
    version: str

    @property
    def fingerprint(self) -> str:
        """By which people know the signer's key."""
        return fingerprint(self.public_key)


def write_paper(kind: str, content: Mapping[str, Any], key: Path, path: Path) -> str:
    """Sign ``content`` with the private ``key`` and write the paper, whole; returns the key's fingerprint."""
    private = read_private(key)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    signature = private.sign(_signed(kind, __version__, content), ec.ECDSA(hashes.SHA384()))
    paper = {
        "cordon": kind, "version": __version__, "content": content, "public_key": pem,
        "signature": base64.b64encode(signature).decode(),
    }  # fmt: skip
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(paper, indent=2) + "\n")
    return fingerprint(pem)


def read_paper(kind: str, path: Path) -> Paper:
    """The paper of this ``kind`` in a file; UserError where it is none, or was changed since."""
    raw = path.read_bytes()[: MOST_BYTES + 1]
    if len(raw) > MOST_BYTES:
        raise UserError(f"{path}: too long to be a {kind}. Ask for it again.")
    try:
        found = json.loads(raw)
        known = isinstance(found, dict) and set(found) == FIELDS and isinstance(found["content"], dict)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a {kind} (no JSON). Ask for it again, as a file.") from error
    if not known or found["cordon"] != kind:
        other = (
            f"a {found['cordon']}" if known and found["cordon"] in ("request", "kit") else "something else"
        )
        raise UserError(f"{path}: not a {kind}, but {other}. Give the file that Cordon wrote.")
    try:
        pem = checked_public_pem(str(found["public_key"]).encode(), path)
        key = load_pem_public_key(pem.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        signature = base64.b64decode(found["signature"], validate=True)
        signed = _signed(kind, str(found["version"]), found["content"])
        key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, binascii.Error, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: its signature does not hold: it was changed after it was signed, or damaged. Ask for "
            "it again."
        ) from error
    return Paper(found["content"], pem, str(found["version"]))


def expect_signer(paper: Paper, told: str, what: str) -> None:
    """UserError unless ``what`` was signed by the key whose fingerprint somebody was ``told``."""
    if "".join(told.split()).lower() != paper.fingerprint:
        raise UserError(
            f"{what} was signed by the key {paper.fingerprint}, and not by the one of the fingerprint given. "
            "Ask the signer again, by another way than the file came."
        )


def _signed(kind: str, version: str, content: Mapping[str, Any]) -> bytes:
    body = json.dumps([kind, version, content], sort_keys=True, separators=(",", ":"))
    return f"cordon paper\n{body}".encode()
