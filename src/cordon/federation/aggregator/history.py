"""An aggregator's ledger by identity: what was decided on each, and who was enrolled, banned and released."""

from __future__ import annotations

from collections import defaultdict

from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import IdentityRow, Kind


class IdentityRows:
    """The rows on each identity, in their order; only rows that are new are looked at."""

    def __init__(self, ledger: ChainedLog) -> None:
        self._ledger = ledger
        self._rows: dict[str, list[IdentityRow]] = defaultdict(list)
        self._seen = 0

    def of(self, key: str) -> list[IdentityRow]:
        """The rows that are known of the identity ``key``."""
        if len(self._ledger) < self._seen:  # rows that were not written after all
            self._rows.clear()
            self._seen = 0
        for row in self._ledger.since(self._seen):
            if row["kind"] in (Kind.ASKED, Kind.DECISION, Kind.ENROLLED, Kind.BANNED, Kind.RELEASED):
                self._rows[row["identity"]].append(row)
        self._seen = len(self._ledger)
        return self._rows.get(key, [])
