"""One SQLite file whose commits are on disk, and whose second writer waits for the first."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from cordon.errors import UserError

WAIT = 60.0  # seconds that a writer waits for another
RETRY_PAUSE = 0.05
MOUNTS = Path("/proc/self/mountinfo")
# SQLite's write-ahead log needs memory that all processes share, which machines on one network file
# system do not. These belong to one machine; on any other, or an unknown one, the rollback journal is used.
LOCAL = frozenset(["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"])


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to ``path`` (made if missing) that holds its write lock.

    Leaving the block commits and waits for the disk; an exception rolls back. A process that dies in
    between leaves what was there before. The connection lives no longer than the block, so that between
    two of them the log is folded into the file. UserError where it cannot be read or written, or where
    another process holds it for more than WAIT seconds.
    """
    with _explained(path), closing(_begin(path)) as connection:
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads ``path`` as it is now, beside any writer, and cannot change what it holds."""
    with _explained(path), closing(_open_to_read(path)) as connection:
        connection.execute("BEGIN")
        yield connection


def is_database(path: Path) -> bool:
    """Whether an SQLite file begins here. Not while this process has it open: closing it drops the locks."""
    with path.open("rb") as handle:
        return handle.read(16) == b"SQLite format 3\0"


def schema(connection: sqlite3.Connection) -> list[bytes]:
    """The statements that made what the file holds."""
    return [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")]


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, as Linux names it; empty where it cannot be told."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, kind = -1, ""
    whole = path.resolve()
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        # Spaces and the like are written as octal numbers.
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4]))
        # Of two mounts on one point, the later one is what is seen.
        if whole.is_relative_to(point) and len(point.parts) >= found:
            found, kind = len(point.parts), after.split()[0]
    return kind


def _begin(path: Path) -> sqlite3.Connection:
    until = time.monotonic() + WAIT
    while True:
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
        connection.text_factory = bytes
        try:
            # FULL, and with the rollback journal also the folder: a commit survives a loss of power.
            connection.execute("PRAGMA synchronous=EXTRA")
            _set_journal(connection, "wal" if file_system(path) in LOCAL else "delete")
            connection.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            connection.close()
            # SQLite does not wait by itself while a journal is being changed or recovered.
            if not _is_busy(error) or time.monotonic() > until:
                raise
            time.sleep(RETRY_PAUSE)
        else:
            return connection


def _set_journal(connection: sqlite3.Connection, wanted: str) -> None:
    if _journal(connection) == wanted:
        return
    try:
        connection.execute(f"PRAGMA journal_mode={wanted}")
    except sqlite3.OperationalError as error:
        if wanted != "wal" or _is_busy(error):
            raise
        connection.execute("PRAGMA journal_mode=delete")


def _journal(connection: sqlite3.Connection) -> str:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    return str(mode, "ascii") if isinstance(mode, bytes) else str(mode)


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Made for reading, and never making a file.

    Who may write opens it as a writer does, since a read-only connection would leave an empty log behind.
    On a medium that cannot be written, a file with no log beside it is read as it lies.
    """
    log = Path(f"{path}-wal")
    for query in ("mode=rw",) if os.access(path, os.W_OK) else ("mode=ro", "mode=ro&immutable=1"):
        place = f"file:{quote(str(path.resolve()))}?{query}"
        connection = sqlite3.connect(place, timeout=WAIT, isolation_level=None, uri=True)
        connection.text_factory = bytes
        try:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            connection.close()
            unwritable = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if query != "mode=ro" or not unwritable or (log.exists() and log.stat().st_size):
                raise
        else:
            break
    return connection


def _is_busy(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if _is_busy(error):
            remedy = (
                f"Another process has held it for more than {WAIT:g} s. Run one command at a time on it; "
                "where none runs, the file system's locks do not work: use a folder on another one."
            )
        elif getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            remedy = "It is no ledger, or a damaged one: restore it from a backup."
        else:
            remedy = "Check the disk's space, the file's permissions and the file system's locks."
        raise UserError(f"{path}: {error}. {remedy}") from error
    except UnicodeDecodeError as error:
        # What SQLite says of a damaged schema quotes it, though it is no text any more.
        raise UserError(
            f"{path}: its schema cannot be read. It is no ledger, or a damaged one: restore it from a backup."
        ) from error
