"""What a site has spent, on disk before it is spent; and the chained, signed log under it.

A ledger is a file of JSON lines. Each row carries the SHA-256 of the row before it and an Ed25519
signature, so a row can be neither changed, removed nor put in between unnoticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cordon.accountants import Event, epsilon_rdp, statement
from cordon.errors import BudgetExceeded, UserError

FIRST = "0" * 64


class ChainedLog:
    """Append-only JSON lines at ``path``, hash-chained and signed with the key beside them.

    The key file (``.key``) is made on first use, readable by its owner alone. Rows already there
    are verified on opening; UserError names the first row that does not verify. What it cannot show is
    that rows are missing at its end: whoever restores an old copy of the file takes spending back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._key = _load_or_make_key(path)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        self._rows: list[dict[str, Any]] = []
        self.head = FIRST
        self._size = 0
        if path.exists():
            self._read()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def append(self, row: dict[str, Any]) -> None:
        """Write ``row`` and wait until it is on disk; UserError where another process wrote since."""
        body = {**row, "previous": self.head}
        digest = _digest(body)
        line = _line({**body, "hash": digest, "signature": self._key.sign(bytes.fromhex(digest)).hex()})
        with self.path.open("ab", buffering=0) as handle:
            with suppress(OSError):  # some cluster file systems have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if handle.seek(0, os.SEEK_END) != self._size:
                raise UserError(
                    f"{self.path}: another process wrote to this ledger. Run one command at a time on it."
                )
            try:
                if handle.write(line) != len(line):
                    raise OSError(f"{self.path}: the row was written in part")
                os.fsync(handle.fileno())
            except OSError:
                handle.truncate(self._size)
                raise
        self._rows.append(row)
        self.head = digest
        self._size += len(line)

    def _read(self) -> None:
        *lines, rest = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            self._rows.append(self._verified(line, number))
            self._size += len(line) + 1
        if rest:
            self._recover(rest, len(lines) + 1)

    def _recover(self, rest: bytes, number: int) -> None:
        """A crash while a row was being written: nothing was done on the strength of half a row."""
        try:
            json.JSONDecoder().raw_decode(rest.decode(errors="replace"))
        except ValueError:
            keep = b""
        else:  # the row is whole, but for its end of line
            self._rows.append(self._verified(rest, number))
            keep = rest + b"\n"
        with self.path.open("r+b") as handle:
            handle.seek(self._size)
            handle.write(keep)
            handle.truncate()
            os.fsync(handle.fileno())
        self._size += len(keep)

    def _verified(self, line: bytes, number: int) -> dict[str, Any]:
        where = f"{self.path}, row {number}"
        try:
            row: dict[str, Any] = json.loads(line)
            if _line(row) != line + b"\n":
                raise ValueError("not in the form in which rows are written")
            signature, digest = row.pop("signature"), row.pop("hash")
            if signature != (signed := bytes.fromhex(signature)).hex():
                raise ValueError("not in lower case")
            self._key.public_key().verify(signed, bytes.fromhex(digest))
        except (ValueError, KeyError, AttributeError, TypeError, InvalidSignature) as error:
            raise UserError(f"{where}: the row's signature does not verify. {_RESTORE}") from error
        if digest != _digest(row) or row.pop("previous") != self.head:
            raise UserError(f"{where}: the row does not follow the one before it. {_RESTORE}")
        self.head = digest
        return row


_RESTORE = "Restore the ledger from a backup; a ledger that was edited cannot be trusted."


class SiteLedger:
    """A site's privacy spending, over all runs on the same patients.

    A round's cost is reserved before the round trains, and marked as sent before its update leaves:
    a crash can waste budget but never spend it unrecorded.
    """

    def __init__(self, path: Path, *, epsilon: float, delta: float) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise UserError(
                f"no budget: epsilon {epsilon}, delta {delta}. Give epsilon above 0 and delta in (0, 1)."
            )
        self._log = ChainedLog(path)
        self.epsilon = epsilon
        self.delta = delta

    def events(self) -> list[Event]:
        """Every event reserved so far, sent or not."""
        return [_event(row) for row in self._log if row["kind"] == "reserved"]

    def spent(self) -> float:
        """Epsilon reserved so far, by RDP at the ledger's delta."""
        return epsilon_rdp(self.events(), self.delta)

    def sent(self, run: str, round_number: int) -> bool:
        return self._holds("sent", run, round_number)

    def reserve(self, run: str, round_number: int, event: Event, *, unit: str) -> None:
        """Record that ``event`` will be spent; BudgetExceeded (nothing recorded) where it may not be.

        A reservation of the same round is used again if nothing was sent on it. UserError where the
        ledger holds the spending of another privacy ``unit``: the two do not compose into one epsilon.
        """
        others = {row["unit"] for row in self._log if row["kind"] == "reserved"} - {unit}
        if others:
            raise UserError(
                f"{self._log.path} holds what was spent per {others.pop()}; this run counts per {unit}. "
                "Use the same --privacy_unit, or another --state_dir for other patients."
            )
        if self._holds("sent", run, round_number):
            raise UserError(
                f"round {round_number} of run {run} was answered before; a second answer would be a second "
                "release. Start a new run."
            )
        held = [
            row
            for row in self._log
            if row["kind"] == "reserved" and (row["run"], row["round"]) == (run, round_number)
        ]
        if held and _event(held[-1]) == event:
            return
        after = epsilon_rdp([*self.events(), event], self.delta)
        if after > self.epsilon:
            reached = statement(after, unit=unit, delta=self.delta, mechanism=event.mechanism)
            raise BudgetExceeded(
                f"round {round_number} would bring epsilon to more than the site's budget of "
                f"{self.epsilon:.4g}: {reached}, by RDP. Nothing was spent; {self._log.path} holds what was."
            )
        place = {"kind": "reserved", "run": run, "round": round_number}
        self._log.append({**place, "unit": unit, "event": event.to_dict()})

    def mark_sent(self, run: str, round_number: int) -> None:
        """Record that the round's update leaves now; call it before it does."""
        self._log.append({"kind": "sent", "run": run, "round": round_number})

    def _holds(self, kind: str, run: str, round_number: int) -> bool:
        return any(
            row["kind"] == kind and row["run"] == run and row["round"] == round_number for row in self._log
        )


def _event(row: dict[str, Any]) -> Event:
    return Event(**row["event"])


def _digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def _load_or_make_key(ledger: Path) -> Ed25519PrivateKey:
    path = ledger.with_suffix(".key")
    if path.exists():
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not a private key. Restore the ledger's own key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UserError(f"{path}: not an Ed25519 key. Restore the ledger's own key.")
        return key
    if ledger.exists() and ledger.stat().st_size:
        raise UserError(f"{path}: the key of {ledger.name} is missing. Restore the ledger's own key.")
    key = Ed25519PrivateKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key
