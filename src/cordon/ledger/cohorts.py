"""Whose budget the reservations of the site ledgers in one folder spend.

A reservation names the cohort that takes part by the SHA-256 of a key and of its patients' keyed digests
(`cordon.ledger.pseudonyms`), which lie beside the rows. The key is one of the ledger and the run: whoever
sees the rows alone can tell neither who took part nor whether the same patients did in two runs.

Adding or removing one person changes the rounds in which that person takes part and no others, so what a
patient has spent is the composition of those rounds alone: disjoint cohorts compose in parallel. Under which
name of a site it was makes no difference. Patients who took part in the same reservations have one history,
and there are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordon.errors import UserError
from cordon.ledger import database
from cordon.ledger.hash_chain import RESTORE, Chain, read_private_key
from cordon.ledger.log import head_of, key_path, read_rows, refuse_without_file, refuse_without_key
from cordon.ledger.pseudonyms import COHORT_KEY, DIGEST
from cordon.ledger.rows import Kind, ReservedRow
from cordon.privacy.events import Event

LEDGER_SUFFIX = ".sqlite"
# The digests that a patient goes by: of one id, or of several that were found to be one person's.
Ids = tuple[bytes, ...]


@dataclass(frozen=True)
class Reservation:
    """A round's cost in the ledger called ``ledger``; equal ones are one release there, at most."""

    ledger: str
    run: str
    round: int
    unit: str
    event: Event
    grouping: str


@dataclass(frozen=True)
class History:
    """The ``reservations`` that some patients took part in; of those asked about, who they are (bool [n])."""

    reservations: tuple[Reservation, ...]
    patients: NDArray[np.bool_]

    @property
    def events(self) -> list[Event]:
        """What the reservations cost one of them (`counted`)."""
        return counted(self.reservations)


class Beside:
    """The other site ledgers in the folder of ``own``, read as far as they are whenever that is asked."""

    def __init__(self, own: Path) -> None:
        self._own = own
        self._chains: dict[Path, Chain] = {}

    def chains(self) -> list[Chain]:
        """Their rows, all verified; UserError names the ledger that does not verify, or lacks a file."""
        paths = [path for path in _ledgers(self._own.parent) if path.name != self._own.name]
        return [self._caught_up(path) for path in paths if not _unmade(path)]

    def _caught_up(self, path: Path) -> Chain:
        if path not in self._chains:
            self._chains[path] = Chain(path, read_private_key(key_path(path)).public_key())
        chain = self._chains[path]
        head = head_of(path)
        with database.snapshot(path) as connection:
            read_rows(chain, connection)
        chain.check_head(head)
        return chain


def _ledgers(folder: Path) -> list[Path]:
    """The ledgers of a folder, also those of which some file is not there any more."""
    keys = filter(_of_ledger, folder.glob("*.key"))
    left = {path.with_suffix(LEDGER_SUFFIX) for path in (*folder.glob("*.head"), *keys)}
    return sorted(left | {*folder.glob(f"*{LEDGER_SUFFIX}")})


def _of_ledger(key: Path) -> bool:
    """Whether this is a ledger's key, and not one by which the site connects."""
    try:
        read_private_key(key)
    except UserError:
        return False
    return True


def _unmade(path: Path) -> bool:
    """Whether another process is just making this ledger, which then holds nothing yet."""
    refuse_without_file(path)
    if key_path(path).exists():
        return False
    with database.snapshot(path) as connection:
        refuse_without_key(path, connection)
    return True


def salts_named(chains: Iterable[Chain]) -> set[str]:
    """The salts under which the ledgers' cohorts were written."""
    return {row["salt"] for chain in chains for row in _reserved(chain) if "salt" in row}


def salts_of(folder: Path) -> set[str]:
    """`salts_named` by the site ledgers in ``folder``."""
    return salts_named(Beside(folder / "none").chains())


def written(digests: Iterable[bytes], key: bytes) -> bytes:
    """A cohort as a ledger has it attached: ``key`` (COHORT_KEY bytes), and its patients' digests, sorted."""
    return key + b"".join(sorted(set(digests)))


@lru_cache(maxsize=256)
def _read(cohort: bytes) -> frozenset[bytes]:
    # The first ledgers had no key before the digests.
    first = COHORT_KEY if len(cohort) % DIGEST else 0
    return frozenset(cohort[at : at + DIGEST] for at in range(first, len(cohort), DIGEST))


def members(chain: Chain, row: ReservedRow) -> frozenset[bytes] | None:
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

    Without patients, the one history of somebody whom no cohort names.
    """
    holders: dict[frozenset[bytes] | None, list[Reservation]] = {}
    for chain in chains:
        for row in _reserved(chain):
            holders.setdefault(members(chain, row), []).append(_reservation(chain, row))
    common = holders.pop(None, [])
    if not patients or not holders:
        return [_history(common, np.ones(len(patients), dtype=bool))]
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
        found.append(_history([*common, *own], which.ravel() == number))
    return found


def counted(reservations: Iterable[Reservation]) -> list[Event]:
    """What ``reservations`` cost one person who takes part in all of them, as events at one site each.

    Each ledger releases its own update of a round. A person may be at as many sites as the events say, in
    every round, and ledgers of one folder are some of these: what they hold of a round counts, and for each
    of the sites that is in none of them, what any of them holds of it.
    """
    held = list(dict.fromkeys(reservations))
    sites = max((one.event.sites for one in held), default=1)
    rounds: dict[tuple[str, int], dict[str, Counter[Event]]] = {}
    for one in held:
        ledgers = rounds.setdefault((one.run, one.round), {})
        ledgers.setdefault(one.ledger, Counter())[replace(one.event, sites=1)] += 1
    events: list[Event] = []
    for ledgers in rounds.values():
        for found in ledgers.values():
            events += found.elements()
        elsewhere = reduce(or_, ledgers.values())
        events += [*elsewhere.elements()] * max(0, sites - len(ledgers))
    return events


def of_all(chain: Chain) -> History:
    """The history of somebody who took part in everything that a ledger holds."""
    return _history((_reservation(chain, row) for row in _reserved(chain)), np.zeros(0, dtype=bool))


def _history(reservations: Iterable[Reservation], patients: NDArray[np.bool_]) -> History:
    return History(tuple(dict.fromkeys(reservations)), patients)


def _reservation(chain: Chain, row: ReservedRow) -> Reservation:
    name = Path(str(chain.name)).stem
    about = row["run"], row["round"], row["unit"], Event(**row["event"]), row.get("grouping", "")
    return Reservation(name, *about)


def _reserved(chain: Chain) -> Iterable[ReservedRow]:
    return (row for row in chain.rows if row["kind"] == Kind.RESERVED)
