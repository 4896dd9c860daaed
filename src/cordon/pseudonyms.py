"""Names for patients and samples that say nothing without the site's own salt."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cordon.errors import UserError

StrPath = str | os.PathLike[str]

FILE = "pseudonym.salt"
_BYTES = 32
# 64 bits: among a million names two are the same with probability 3e-8.
_DIGITS = 16


@dataclass(frozen=True)
class Salt:
    """A site's secret key (32 bytes), which never leaves its state folder."""

    key: bytes = field(repr=False)

    def patient(self, site: str, patient: str) -> str:
        """The patient's pseudonym, 16 hex digits, the same for all of the patient's samples."""
        return self._pseudonym("patient", site, patient)

    def sample(self, site: str, sample: str) -> str:
        """The sample's pseudonym, 16 hex digits."""
        return self._pseudonym("sample", site, sample)

    def _pseudonym(self, *parts: str) -> str:
        """HMAC-SHA256 (RFC 2104): without the key no list of names can be tried against it."""
        digest = hmac.new(self.key, "\0".join(parts).encode(), hashlib.sha256)
        return digest.hexdigest()[:_DIGITS]


def read_salt(state: StrPath) -> Salt:
    """The salt in the folder ``state``, made when there is none (file mode 0600).

    Raises UserError where the file is no salt, or the folder cannot be written to.
    """
    path = Path(state) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read or made ({error}). Check --state_dir.") from error
    if not re.fullmatch(f"[0-9a-f]{{{2 * _BYTES}}}", text):
        raise UserError(
            f"{path}: is no salt of {2 * _BYTES} hex digits. Bring back the file that was there, so that "
            "pseudonyms stay as they are, or remove it for new ones."
        )
    return Salt(bytes.fromhex(text))


def _make(path: Path) -> None:
    """Write a new salt; of two processes that do so at once, the first one's stays."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()
