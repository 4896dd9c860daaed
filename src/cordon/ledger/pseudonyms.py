"""Names for patients and samples that say nothing without the site's own salt.

The salt lies beside the sites' ledgers, which know by its digests whose budget was spent: it must stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cordon.errors import UserError
from cordon.files import StrPath

SALT_FILE = "pseudonym.salt"
_BYTES = 32
# 64 bits: among a million names two are the same with probability 3e-8.
_DIGITS = 16
# Bytes of a patient's digest in a ledger. Were two the same, each would be charged for the other as well.
DIGEST = 16
# Bytes of the key before a cohort's digests; no multiple of DIGEST, so that cohorts without one are told.
COHORT_KEY = 24


@dataclass(frozen=True)
class Salt:
    """A site's secret key (32 bytes), which never leaves its state folder."""

    key: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What ledgers call the key by, in hexadecimal; it tells nothing of it."""
        return hashlib.sha256(b"cordon salt\0" + self.key).hexdigest()

    def patient(self, patient: str) -> str:
        """The patient's pseudonym, 16 hex digits, the same for all samples and under all names of a site."""
        return self._pseudonym("patient", patient)

    def sample(self, site: str, sample: str) -> str:
        """The sample's pseudonym, 16 hex digits."""
        return self._pseudonym("sample", site, sample)

    def digest(self, patient: str) -> bytes:
        """What a ledger knows a patient of a table (by the name that is there) by, DIGEST bytes."""
        return hmac.digest(self.key, b"ledger\0" + patient.encode(), "sha256")[:DIGEST]

    def cohort_key(self, ledger: str, run: str) -> bytes:
        """What hides cohorts behind their hashes in the rows of ``run`` in ``ledger``, COHORT_KEY bytes."""
        return hmac.digest(self.key, "\0".join(("cohort", ledger, run)).encode(), "sha256")[:COHORT_KEY]

    def _pseudonym(self, *parts: str) -> str:
        """HMAC-SHA256 (RFC 2104): without the key no list of names can be tried against it."""
        digest = hmac.new(self.key, "\0".join(parts).encode(), hashlib.sha256)
        return digest.hexdigest()[:_DIGITS]


def read_salt(folder: StrPath, named: Iterable[str] = ()) -> Salt:
    """The salt in ``folder``, made when there is none (file mode 0600).

    Raises UserError where the file is no salt, the folder cannot be written to, or the ledgers beside it have
    ``named`` a salt that is not there: under another one every patient would seem to be new.
    """
    path, names = Path(folder) / SALT_FILE, set(named)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            if names:
                raise UserError(f"{path}: missing, and the ledgers beside it name it. {_BRING_BACK}")
            _make(path)
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read or made ({error}). Check --state_dir.") from error
    if not re.fullmatch(f"[0-9a-f]{{{2 * _BYTES}}}", text):
        raise UserError(
            f"{path}: is no salt of {2 * _BYTES} hex digits. Bring back the file that was there, so that "
            "pseudonyms stay as they are."
        )
    salt = Salt(bytes.fromhex(text))
    if names - {salt.name}:
        raise UserError(f"{path}: not the salt that the ledgers beside it name. {_BRING_BACK}")
    return salt


_BRING_BACK = (
    "Bring back the file that was there, from the backup of the ledgers: under another one their patients "
    "cannot be told, and would seem to have spent nothing."
)


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
