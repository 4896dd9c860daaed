"""Chained, signed rows on disk, which only grow.

A ledger is an SQLite file of rows (see cordon.ledger.hash_chain), with its key and its head record beside it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cordon.errors import UserError
from cordon.files import write_durably
from cordon.ledger import database
from cordon.ledger.hash_chain import RESTORE, Chain, hexadecimal, new_key, read_private_key
from cordon.ledger.rows import Row, TipFields

SCHEMA = "CREATE TABLE rows (number INTEGER PRIMARY KEY, line TEXT NOT NULL)"
# What is too large for a row, or must not be in an export of them. A row names it by its SHA-256.
ATTACHMENTS = "CREATE TABLE attachments (number INTEGER PRIMARY KEY, content BLOB NOT NULL)"


@dataclass(frozen=True)
class Tip:
    """How far a ledger is: its public key, its number of rows, and the last one's hash, signed by the key.

    Without the signature it is anybody's word.
    """

    key: str
    rows: int
    digest: str
    signature: str = ""

    @classmethod
    def signed(cls, rows: int, digest: str, key: Ed25519PrivateKey) -> Tip:
        tip = cls(hexadecimal(key.public_key()), rows, digest)
        return replace(tip, signature=key.sign(tip._said).hex())

    @property
    def genuine(self) -> bool:
        """Whether the signature is by the key."""
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            public.verify(bytes.fromhex(self.signature), self._said)
        except (ValueError, InvalidSignature):
            return False
        return True

    @property
    def _said(self) -> bytes:
        return f"cordon ledger tip v1 {self.key} {self.rows} {self.digest}".encode()

    def to_dict(self) -> TipFields:
        return {"key": self.key, "rows": self.rows, "digest": self.digest}


class ChainedLog:
    """Append-only rows at ``path``, hash-chained and signed with the key beside them.

    The key (``.key``) is made on first use, readable by its owner alone, and with it the head record
    (``.head``): how many rows there were, written after each. All rows are verified on opening, new ones
    whenever the log is locked; UserError names the first row that does not verify or is missing. What
    this cannot show: that an old copy of the file was put back together with its head record, or that
    all three files are gone; and the last rows may be missing unnoticed where the process that wrote
    them died before the head record followed. Whoever holds the key can write whatever history.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if key_path(path).exists():
            refuse_without_file(path)
        if (kind := database.file_system(path)) not in database.LOCAL:
            logging.getLogger(__name__).warning(
                "%s: on a file system of %s SQLite's write-ahead log cannot be used; a rollback journal is, "
                "which is slower, and needs the file system's locks to work.",
                path, f"type {kind}" if kind else "unknown type",
            )  # fmt: skip
        with database.transaction(path) as connection:
            if not (database.schema(connection) or key_path(path).exists()):
                connection.execute(SCHEMA)
                path.chmod(0o600)  # who else reads the machine's disks need not know who took part
        with database.transaction(path) as connection:
            self._key = _key(path, connection)
            self._chain = Chain(path, self._key.public_key())
            self._catch_up(connection)
        self.public_key = hexadecimal(self._chain.key)

    @property
    def head(self) -> str:
        """The hash of the last row known here."""
        return self._chain.head

    @property
    def tip(self) -> Tip:
        """How far the ledger is, as known here."""
        return Tip.signed(len(self._chain), self._chain.head, self._key)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._chain.rows)

    def __len__(self) -> int:
        return len(self._chain)

    def since(self, number: int) -> list[Row]:
        """The rows after the first ``number``."""
        return self._chain.rows[number:]

    def holds(self, digest: str) -> bool:
        """Whether a row known here has the hash ``digest``, or ``digest`` is what stands before the first."""
        return self._chain.holds(digest)

    def of_kind(self, kind: str) -> list[Row]:
        return [row for row in self if row["kind"] == kind]

    @property
    def chain(self) -> Chain:
        """The rows known here, and what is attached to them."""
        return self._chain

    def attach(self, content: bytes) -> str:
        """Keep ``content`` beside the rows, once, within ``locked``; its SHA-256, for a row to name."""
        assert self._connection is not None
        known = len(self._chain.attached)
        digest = self._chain.attach(content)
        if len(self._chain.attached) > known:
            if len(database.schema(self._connection)) == 1:
                self._connection.execute(ATTACHMENTS)
            self._connection.execute("INSERT INTO attachments (content) VALUES (?)", (content,))
        return digest

    def append(self, row: Row) -> None:
        """Write ``row`` and wait until it is on disk, or, within ``locked``, until the block ends.

        UserError (nothing written) where another process wrote since this log was last read: what was
        decided on the rows known here may not hold with the new ones, which are known here from then on.
        """
        if self._connection is None:
            known = len(self._chain)
            with self.locked():
                if len(self._chain) != known:
                    raise UserError(
                        f"{self.path}: another process wrote to this ledger. Run one command at a time on it."
                    )
                self.append(row)
            return
        line = self._chain.signed(row, self._key)
        number = len(self._chain) + 1
        self._connection.execute("INSERT INTO rows VALUES (?, ?)", (number, line.decode()))
        self._chain.add(line)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing, with what they wrote read in; waits for them.

        Rows appended within are written all together when the block ends, or none of them.
        """
        assert self._connection is None
        known = attached = -1
        try:
            with database.transaction(self.path) as connection:
                self._catch_up(connection)
                known, attached = len(self._chain), len(self._chain.attached)
                self._connection = connection
                yield
        except BaseException:
            if known >= 0:
                self._chain.cut(known, attached)
            raise
        finally:
            self._connection = None
        if len(self._chain) > known:
            # Locked once more, so that no process puts an older head record over another's newer one.
            with database.transaction(self.path) as connection:
                self._catch_up(connection)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Read in the rows that are on disk, and bring the head record up to them."""
        read_rows(self._chain, connection)
        self._chain.check_head(before := _head(self.path))
        if before != (record := self._chain.head_record(self._key)):
            write_durably(head_path(self.path), record)


def key_path(path: Path) -> Path:
    return path.with_suffix(".key")


def head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def read_log(path: Path, key: Ed25519PublicKey) -> tuple[Chain, bool]:
    """The rows of the ledger at ``path``, or of its export as JSON lines, verified with ``key``.

    Also whether a ledger's head record was there to be held against them. UserError as for ChainedLog.
    """
    chain = Chain(path, key)
    if not database.is_database(path):
        for line in path.read_bytes().removesuffix(b"\n").split(b"\n"):
            chain.add(line)
        return chain, False
    head = _head(path)  # first: a row may be written in between
    with database.snapshot(path) as connection:
        read_rows(chain, connection)
    chain.check_head(head)
    return chain, head is not None


def read_rows(chain: Chain, connection: sqlite3.Connection) -> None:
    """Add the rows that ``chain`` does not hold yet, and what is attached to them.

    UserError where the file holds anything beside them.
    """
    _check_schema(chain.name, connection)
    known = len(chain)
    try:
        rows = connection.execute(
            "SELECT number, line FROM rows WHERE number > ? OR number < 1 ORDER BY number", (known,)
        )
        for number, line in rows:
            expected = len(chain) + 1
            if number != expected:
                fault = f"missing, and a row {number} is" if number > expected else f"a row {number} is"
                raise UserError(f"{chain.name}, row {expected}: {fault} there. {RESTORE}")
            chain.add(line)
        total = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise UserError(f"{chain.name}, row {len(chain) + 1}: cannot be read ({error}). {RESTORE}") from error
    if len(database.schema(connection)) > 1:
        _read_attachments(chain, connection)
    if total != len(chain):
        raise UserError(f"{chain.name}: {len(chain)} rows were read before, and {total} are there. {RESTORE}")


def _read_attachments(chain: Chain, connection: sqlite3.Connection) -> None:
    """Whatever is there, rows tell what counts of it."""
    known = len(chain.attached)
    try:
        for (content,) in connection.execute("SELECT content FROM attachments LIMIT -1 OFFSET ?", (known,)):
            if isinstance(content, bytes):
                chain.attach(content)
    except sqlite3.DatabaseError as error:
        raise UserError(f"{chain.name}: its attachments cannot be read ({error}). {RESTORE}") from error


def _check_schema(name: object, connection: sqlite3.Connection) -> None:
    if database.schema(connection) not in ([SCHEMA.encode()], [SCHEMA.encode(), ATTACHMENTS.encode()]):
        raise UserError(f"{name}: holds something else than a ledger. {RESTORE}")


def _key(path: Path, connection: sqlite3.Connection) -> Ed25519PrivateKey:
    """The key of the ledger at ``path``; for a new ledger it is made, after the head record of no rows."""
    if key_path(path).exists():
        head_of(path)
        return read_private_key(key_path(path))
    _check_schema(path, connection)
    refuse_without_key(path, connection)
    key, pem = new_key()
    write_durably(head_path(path), Chain(path, key.public_key()).head_record(key))
    write_durably(key_path(path), pem)
    return key


def refuse_without_key(path: Path, connection: sqlite3.Connection) -> None:
    """UserError where the ledger at ``path``, whose key is not there, holds rows, or held some."""
    head = _head(path)
    rows = database.schema(connection) and connection.execute("SELECT 1 FROM rows").fetchone()
    if rows or (head is not None and b'"rows": 0' not in head):
        raise UserError(f"{key_path(path)}: the key of {path.name} is missing. Restore the ledger's own key.")


def refuse_without_file(path: Path) -> None:
    """UserError where the ledger at ``path``, whose key or head record is there, is not."""
    if not path.exists():
        beside = next(file.name for file in (key_path(path), head_path(path)) if file.exists())
        raise UserError(
            f"{path}: missing, but its {beside} is there. Restore the ledger from a backup: without it, what "
            "was spent would be forgotten."
        )


def head_of(path: Path) -> bytes:
    """The head record of the ledger at ``path``, whose key is there; UserError where it is missing."""
    if (head := _head(path)) is None:
        raise UserError(f"{path}: its head record {head_path(path).name} is missing. {RESTORE}")
    return head


def _head(path: Path) -> bytes | None:
    try:
        return head_path(path).read_bytes()
    except FileNotFoundError:
        return None
