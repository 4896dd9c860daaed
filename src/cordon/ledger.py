"""What a site has spent, on disk before it is spent; and the chained, signed log under it.

A ledger is an SQLite file of rows (see cordon.chain), with its key and its head record beside it.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cordon import database
from cordon.accountants import Event, epsilon_rdp, statement
from cordon.chain import RESTORE, Chain, hexadecimal, new_key, read_private_key, write_durably
from cordon.errors import BudgetExceeded, FederationError, UserError

SCHEMA = "CREATE TABLE rows (number INTEGER PRIMARY KEY, line TEXT NOT NULL)"
# Kinds of a site's rows: its budget, a round's cost before it trains, a round's answer before it leaves, and
# how far the aggregator's ledger was.
BUDGET, RESERVED, SENT, FOLLOWED = "budget", "reserved", "sent", "followed"


@dataclass(frozen=True)
class Tip:
    """How far a ledger is: its public key, its number of rows, and the hash of the last one."""

    key: str
    rows: int
    digest: str


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
        path.parent.mkdir(parents=True, exist_ok=True)
        if key_path(path).exists() and not path.exists():
            raise UserError(
                f"{path}: missing, but its key {key_path(path).name} is there. Restore the ledger from a "
                "backup: without it, what was spent would be forgotten."
            )
        if (kind := database.file_system(path)) not in database.LOCAL:
            logging.getLogger(__name__).warning(
                "%s: on a file system of %s SQLite's write-ahead log cannot be used; a rollback journal is, "
                "which is slower, and needs the file system's locks to work.",
                path, f"type {kind}" if kind else "unknown type",
            )  # fmt: skip
        with database.transaction(path) as connection:
            if not (database.schema(connection) or key_path(path).exists()):
                connection.execute(SCHEMA)
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
        return Tip(self.public_key, len(self._chain), self._chain.head)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._chain.rows)

    def __len__(self) -> int:
        return len(self._chain)

    def since(self, number: int) -> list[dict[str, Any]]:
        """The rows after the first ``number``."""
        return self._chain.rows[number:]

    def holds(self, digest: str) -> bool:
        """Whether a row known here has the hash ``digest``, or ``digest`` is what stands before the first."""
        return self._chain.holds(digest)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self if row["kind"] == kind]

    def append(self, row: dict[str, Any]) -> None:
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
        known = -1
        try:
            with database.transaction(self.path) as connection:
                self._catch_up(connection)
                known = len(self._chain)
                self._connection = connection
                yield
        except BaseException:
            if known >= 0:
                self._chain.cut(known)
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
    """Add the rows that ``chain`` does not hold yet; UserError where the file holds anything beside them."""
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
    if total != len(chain):
        raise UserError(f"{chain.name}: {len(chain)} rows were read before, and {total} are there. {RESTORE}")


def _check_schema(name: object, connection: sqlite3.Connection) -> None:
    if database.schema(connection) != [SCHEMA.encode()]:
        raise UserError(f"{name}: holds something else than a ledger. {RESTORE}")


def _key(path: Path, connection: sqlite3.Connection) -> Ed25519PrivateKey:
    """The key of the ledger at ``path``; for a new ledger it is made, after the head record of no rows."""
    if key_path(path).exists():
        if not head_path(path).exists():
            raise UserError(f"{path}: its head record {head_path(path).name} is missing. {RESTORE}")
        return read_private_key(key_path(path))
    _check_schema(path, connection)
    head = _head(path)
    if connection.execute("SELECT 1 FROM rows").fetchone() or (head is not None and b'"rows": 0' not in head):
        raise UserError(f"{key_path(path)}: the key of {path.name} is missing. Restore the ledger's own key.")
    key, pem = new_key()
    write_durably(head_path(path), Chain(path, key.public_key()).head_record(key))
    write_durably(key_path(path), pem)
    return key


def _head(path: Path) -> bytes | None:
    try:
        return head_path(path).read_bytes()
    except FileNotFoundError:
        return None


class SiteLedger:
    """A site's privacy spending, over all runs on the same patients.

    A round's cost is reserved before the round trains, and marked as sent before its update leaves:
    a crash can waste budget but never spend it unrecorded. Two processes may share a ledger: each one's
    reservations count for the other.
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
        return [_event(row) for row in self._log if row["kind"] == RESERVED]

    def spent(self) -> float:
        """Epsilon reserved so far, by RDP at the ledger's delta."""
        return epsilon_rdp(self.events(), self.delta)

    def sent(self, run: str, round_number: int) -> bool:
        return bool(self._rows(SENT, run, round_number))

    def answered(self, run: str) -> int:
        """The last round of ``run`` that was answered; 0 where none was."""
        return max(
            (row["round"] for row in self._log if row["kind"] == SENT and row["run"] == run), default=0
        )

    def follow(self, run: str, tip: Tip) -> None:
        """Record how far the aggregator's ledger is; FederationError where that ledger went back.

        It may only grow: a shorter one, another one of the same length, or one under another key in the
        middle of a run was put back from a copy, or begun anew.
        """
        with self._log.locked():
            seen = self._log.of_kind(FOLLOWED)
            same = [row for row in seen if row["key"] == tip.key][-1:]
            if any(row["run"] == run and row["key"] != tip.key for row in seen):
                fault = "has another key than earlier in this run"
            elif same and tip.rows < same[0]["rows"]:
                fault = f"has {tip.rows} rows, and had {same[0]['rows']}"
            elif same and tip.rows == same[0]["rows"] and tip.digest != same[0]["digest"]:
                fault = f"has another last row {tip.rows} than it had"
            else:
                if not same or tip.rows > same[0]["rows"] or same[0]["run"] != run:
                    self._log.append({"kind": FOLLOWED, "run": run, **asdict(tip)})
                return
        raise FederationError(
            f"the aggregator's ledger {fault}: an older copy was put back, or it was begun anew. Nothing was "
            "sent. Ask the operator to restore the newest ledger."
        )

    def reserve(self, run: str, round_number: int, event: Event, *, unit: str) -> None:
        """Record that ``event`` will be spent; BudgetExceeded (nothing recorded) where it may not be.

        A reservation of the same round is used again if nothing was sent on it. UserError where the
        ledger holds the spending of another privacy ``unit``: the two do not compose into one epsilon.
        """
        with self._log.locked():
            others = {row["unit"] for row in self._log if row["kind"] == RESERVED} - {unit}
            if others:
                raise UserError(
                    f"{self._log.path} holds what was spent per {others.pop()}; this run counts per {unit}. "
                    "Use the same --privacy_unit, or another --state_dir for other patients."
                )
            self._refuse_if_sent(run, round_number)
            held = self._rows(RESERVED, run, round_number)
            if held and _event(held[-1]) == event:
                return
            after = epsilon_rdp([*self.events(), event], self.delta)
            if after > self.epsilon:
                reached = statement(after, unit=unit, delta=self.delta, mechanism=event.mechanism)
                raise BudgetExceeded(
                    f"round {round_number} would bring epsilon to more than the site's budget of "
                    f"{self.epsilon:.4g}: {reached}, by RDP. Nothing was spent; {self._log.path} holds what "
                    "was."
                )
            self._note_budget()
            place = {"kind": RESERVED, "run": run, "round": round_number}
            self._log.append({**place, "unit": unit, "event": event.to_dict()})

    def mark_sent(self, run: str, round_number: int) -> None:
        """Record that the round's update leaves now; call it before it does.

        UserError (nothing may leave) where the round was not reserved, or was answered by another process.
        """
        with self._log.locked():
            self._refuse_if_sent(run, round_number)
            if not self._rows(RESERVED, run, round_number):
                raise UserError(
                    f"round {round_number} of run {run} was not reserved in {self._log.path}. Reserve it "
                    "first."
                )
            self._log.append({"kind": SENT, "run": run, "round": round_number})

    def _note_budget(self) -> None:
        """The budget in force is part of the record, and so is any change of it."""
        budget = {"kind": BUDGET, "epsilon": float(self.epsilon), "delta": self.delta}
        if budget not in [row for row in self._log if row["kind"] == BUDGET][-1:]:
            self._log.append(budget)

    def _refuse_if_sent(self, run: str, round_number: int) -> None:
        if self.sent(run, round_number):
            raise UserError(
                f"round {round_number} of run {run} was answered before; a second answer would be a second "
                "release. Start a new run."
            )

    def _rows(self, kind: str, run: str, round_number: int) -> list[dict[str, Any]]:
        place = (kind, run, round_number)
        return [row for row in self._log if (row["kind"], row.get("run"), row.get("round")) == place]


def _event(row: dict[str, Any]) -> Event:
    return Event(**row["event"])
