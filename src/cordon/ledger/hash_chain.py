"""Rows that are chained by their hashes and signed, wherever they are kept.

A row is one line of JSON. It carries the SHA-256 of the row before it and an Ed25519 signature, so it
can be neither changed, removed nor put in between unnoticed. A head record, signed too and kept apart,
says how many rows there were, so that rows missing at the end are noticed as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cordon.errors import UserError
from cordon.ledger.rows import Row

FIRST = "0" * 64
RESTORE = "Restore the ledger from a backup; a ledger that was edited cannot be trusted."
BROKEN = (ValueError, KeyError, AttributeError, TypeError, RecursionError, InvalidSignature)


class Chain:
    """Rows in their order, each verified with ``key`` as it is added; ``name`` is theirs in messages.

    ``attached`` has, by its SHA-256, what is kept beside the rows: it is as sound as the row that names it.
    """

    def __init__(self, name: object, key: Ed25519PublicKey) -> None:
        self.name = name
        self.key = key
        self.rows: list[Row] = []
        self.lines: list[bytes] = []
        self.attached: dict[str, bytes] = {}
        self._hashes = [FIRST]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def head(self) -> str:
        """The last row's hash, in hexadecimal; zeros before the first."""
        return self._hashes[-1]

    def holds(self, digest: str) -> bool:
        """Whether one of the rows has the hash ``digest``."""
        return digest in self._hashes

    def add(self, line: bytes) -> None:
        """Add a row as it was written; UserError, which names the row, where it does not verify."""
        where = f"{self.name}, row {len(self) + 1}"
        try:
            row, digest = opened(line, self.key)
        except BROKEN as error:
            raise UserError(f"{where}: the row's signature does not verify. {RESTORE}") from error
        if row.pop("previous", None) != self.head:
            raise UserError(f"{where}: the row does not follow the one before it. {RESTORE}")
        self.rows.append(cast(Row, row))
        self.lines.append(line)
        self._hashes.append(digest)

    def attach(self, content: bytes) -> str:
        """Keep ``content`` beside the rows; its SHA-256, for a row to name."""
        digest = hashlib.sha256(content).hexdigest()
        self.attached[digest] = content
        return digest

    def signed(self, row: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
        """``row`` as the line that ``add`` takes next."""
        return sealed({**row, "previous": self.head}, key)

    def cut(self, length: int, attached: int) -> None:
        """Forget the rows after the first ``length``, and what was attached after the first ``attached``."""
        del self.rows[length:], self.lines[length:], self._hashes[length + 1 :]
        for digest in list(self.attached)[attached:]:
            del self.attached[digest]

    def head_record(self, key: Ed25519PrivateKey) -> bytes:
        """How many rows there are, and the last one's hash, signed."""
        return sealed({"head": self.head, "rows": len(self)}, key)

    def check_head(self, record: bytes | None) -> None:
        """Hold the rows against a head record made earlier; UserError where rows are missing or others."""
        if record is None:
            return
        try:
            said, _ = opened(record, self.key)
            count, head = said.pop("rows"), said.pop("head")
            if said:
                raise ValueError("a row of the ledger, not its head record")
        except BROKEN as error:
            raise UserError(f"{self.name}: its head record does not verify. {RESTORE}") from error
        if count > len(self):
            raise UserError(
                f"{self.name}, row {len(self) + 1}: missing. The ledger ends before it, and its head record "
                f"has seen {count} rows. {RESTORE}"
            )
        if self._hashes[count] != head:
            raise UserError(f"{self.name}, row {count}: not the row that its head record has seen. {RESTORE}")


def sealed(body: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """``body`` with its hash and the signature of it, as one line of JSON."""
    digest = _digest(body)
    return _line({**body, "hash": digest, "signature": key.sign(bytes.fromhex(digest)).hex()})


def opened(line: bytes, key: Ed25519PublicKey) -> tuple[dict[str, Any], str]:
    """What ``line`` says and its hash; one of BROKEN where it is not in the form written, or not signed."""
    body: dict[str, Any] = json.loads(line)
    if _line(body) != line:
        raise ValueError("not in the form in which rows are written")
    signature, digest = body.pop("signature"), body.pop("hash")
    if signature != (raw := bytes.fromhex(signature)).hex():
        raise ValueError("not in lower case")
    if digest != _digest(body):
        raise ValueError("not the row's hash")
    key.verify(raw, bytes.fromhex(digest))
    return body, digest


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(_line(body)).hexdigest()


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def new_key() -> tuple[Ed25519PrivateKey, bytes]:
    """A new signing key, and its PEM."""
    key = Ed25519PrivateKey.generate()
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key (PEM) at ``path``; UserError where it is none."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: not a private key. Restore the ledger's own key.") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Run as the owner of the ledger.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path}: not an Ed25519 key. Restore the ledger's own key.")
    return key


def public_key(text: str) -> Ed25519PublicKey:
    """A public key given as 64 hexadecimal digits, or as a file of those or of PEM (the private key too)."""
    try:
        path = Path(text)
        content = path.read_text(encoding="ascii").strip() if path.is_file() else text.strip()
        if "PRIVATE KEY" in content:
            return read_private_key(path).public_key()
        if not content.startswith("-----"):
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(content))
        if isinstance(key := load_pem_public_key(content.encode()), Ed25519PublicKey):
            return key
    except (ValueError, OSError, UnsupportedAlgorithm) as error:
        raise UserError(f"{text}: not an Ed25519 public key. {_GIVE_KEY}") from error
    raise UserError(f"{text}: not an Ed25519 public key. {_GIVE_KEY}")


_GIVE_KEY = "Give its 64 hexadecimal digits, as `cordon ledger verify` prints them, or a file that holds it."


def hexadecimal(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
