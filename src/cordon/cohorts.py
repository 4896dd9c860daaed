"""Whose budget the reservations of the site ledgers in one folder spend.

A reservation names the cohort that takes part by the SHA-256 of its patients' keyed digests
(`cordon.pseudonyms`), which lie beside the rows. Adding or removing one person changes the rounds in which
that person takes part and no others, so what a patient has spent is the composition of those rounds alone:
disjoint cohorts compose in parallel. Under which name of a site it was makes no difference. Patients who took
part in the same reservations have one history, and there are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordon import database
from cordon.accountants import Event
from cordon.chain import RESTORE, Chain, read_private_key
from cordon.errors import UserError
from cordon.ledger import head_path, key_path, read_rows
from cordon.pseudonyms import DIGEST

# The kind of a row that says what a round costs, before it trains.
RESERVED = "reserved"
SUFFIX = ".sqlite"
# The digests that a patient goes by: of one id, or of several that were found to be one person's.
Ids = tuple[bytes, ...]


@dataclass(frozen=True)
class Reservation:
    """A round's cost in the ledger called ``ledger``."""

    ledger: str
    run: str
    round: int
    unit: str
    event: Event


@dataclass(frozen=True)
class History:
    """The ``reservations`` that some patients took part in; of those asked about, who they are (bool [n])."""

    reservations: tuple[Reservation, ...]
    patients: NDArray[np.bool_]

    @property
    def events(self) -> list[Event]:
        return [reservation.event for reservation in self.reservations]

    def begun(self, ledger: str, run: str) -> bool:
        """Whether they took part in an earlier round of ``run`` there."""
        return any((held.ledger, held.run) == (ledger, run) for held in self.reservations)


class Beside:
    """The other site ledgers in the folder of ``own``, read as far as they are whenever that is asked."""

    def __init__(self, own: Path) -> None:
        self._own = own
        self._chains: dict[Path, Chain] = {}

    def chains(self) -> list[Chain]:
        """Their rows, all verified; UserError names the ledger that does not verify."""
        paths = sorted(self._own.parent.glob(f"*{SUFFIX}"))
        return [self._caught_up(path) for path in paths if path.name != self._own.name and not _unmade(path)]

    def _caught_up(self, path: Path) -> Chain:
        if path not in self._chains:
            self._chains[path] = Chain(path, read_private_key(key_path(path)).public_key())
        chain = self._chains[path]
        head = head_path(path).read_bytes() if head_path(path).exists() else None
        with database.snapshot(path) as connection:
            read_rows(chain, connection)
        chain.check_head(head)
        return chain


def _unmade(path: Path) -> bool:
    """Whether another process is just making this ledger, which then holds nothing yet."""
    if key_path(path).exists():
        return False
    with database.snapshot(path) as connection:
        if database.schema(connection) and connection.execute("SELECT 1 FROM rows").fetchone():
            raise UserError(
                f"{key_path(path)}: the key of {path.name} is missing. Restore the ledger's own key."
            )
    return True


def salts_named(chains: Iterable[Chain]) -> set[str]:
    """The salts under which the ledgers' cohorts were written."""
    return {str(row["salt"]) for chain in chains for row in chain.rows if "salt" in row}


def salts_of(folder: Path) -> set[str]:
    """`salts_named` by the site ledgers in ``folder``."""
    return salts_named(Beside(folder / "none").chains())


def written(digests: Iterable[bytes]) -> bytes:
    """A cohort as it is attached to a ledger: its patients' digests, sorted."""
    return b"".join(sorted(set(digests)))


@lru_cache(maxsize=256)
def _read(cohort: bytes) -> frozenset[bytes]:
    return frozenset(cohort[at : at + DIGEST] for at in range(0, len(cohort), DIGEST))


def members(chain: Chain, row: dict[str, Any]) -> frozenset[bytes] | None:
    """Who took part by a reservation; None where it names no cohort, and counts for everybody."""
    if "cohort" not in row:
        return None
    if row["cohort"] not in chain.attached:
        raise UserError(
            f"{chain.name}: the cohort {row['cohort'][:12]}, which a row names, is not in it. {RESTORE}"
        )
    return _read(chain.attached[row["cohort"]])


def everybody(chain: Chain, run: str | None = None) -> list[Ids]:
    """All patients whom a ledger's reservations name, or those of ``run``, each once and by one id."""
    rows = [row for row in _reserved(chain) if "cohort" in row and run in (None, row["run"])]
    cohorts = {row["cohort"]: members(chain, row) for row in rows}
    return [(digest,) for digest in sorted(frozenset().union(*(held or () for held in cohorts.values())))]


def histories(chains: Sequence[Chain], patients: Sequence[Ids]) -> list[History]:
    """The histories of ``patients`` [n] over all ``chains``, each patient in one of them.

    Without patients, the one history of somebody whom no cohort names. A round that several ledgers hold
    counts as often as it stands: each of them released its own update.
    """
    holders: dict[frozenset[bytes] | None, list[Reservation]] = {}
    for chain in chains:
        for row in _reserved(chain):
            holders.setdefault(members(chain, row), []).append(_reservation(chain, row))
    common = tuple(holders.pop(None, ()))
    if not patients or not holders:
        return [History(common, np.ones(len(patients), dtype=bool))]
    # [cohorts, n]: who is in which; equal columns are one history.
    cohorts = [cohort for cohort in holders if cohort is not None]
    present = np.array(
        [[not cohort.isdisjoint(ids) for ids in patients] for cohort in cohorts]
        if any(len(ids) > 1 for ids in patients)
        else [[digest in cohort for (digest,) in patients] for cohort in cohorts]
    )
    kinds, which = np.unique(present, axis=1, return_inverse=True)
    found = []
    for number, kind in enumerate(kinds.T):
        own = [held for cohort, taken in zip(cohorts, kind, strict=True) if taken for held in holders[cohort]]
        found.append(History((*common, *own), which.ravel() == number))
    return found


def of_all(chain: Chain) -> History:
    """The history of somebody who took part in everything that a ledger holds."""
    return History(tuple(_reservation(chain, row) for row in _reserved(chain)), np.zeros(0, dtype=bool))


def _reservation(chain: Chain, row: dict[str, Any]) -> Reservation:
    name = Path(str(chain.name)).stem
    return Reservation(name, row["run"], row["round"], row["unit"], Event(**row["event"]))


def _reserved(chain: Chain) -> Iterable[dict[str, Any]]:
    return (row for row in chain.rows if row["kind"] == RESERVED)
