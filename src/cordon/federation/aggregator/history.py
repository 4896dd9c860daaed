"""An aggregator's ledger by identity: what was decided on each, and who was enrolled, banned and released."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from cordon.ledger.log import ChainedLog


class IdentityRows:
    """The rows on each identity, in their order; only rows that are new are looked at."""

    def __init__(self, ledger: ChainedLog) -> None:
        self._ledger = ledger
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._seen = 0

    def of(self, key: str, *kinds: str) -> list[dict[str, Any]]:
        """The rows of ``kinds`` that are known of the identity ``key``."""
        if len(self._ledger) < self._seen:  # rows that were not written after all
            self._rows.clear()
            self._seen = 0
        for row in self._ledger.since(self._seen):
            if "identity" in row:
                self._rows[row["identity"]].append(row)
        self._seen = len(self._ledger)
        return [row for row in self._rows.get(key, ()) if row["kind"] in kinds]
