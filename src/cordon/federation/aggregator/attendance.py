"""Who is there: how long an aggregator waits for sites, before a run and in the midst of it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from cordon.console.progress import Say
from cordon.errors import Unreachable
from cordon.federation.aggregator.exchange import Exchange
from cordon.federation.aggregator.registry import BAN_AFTER
from cordon.federation.pace import brisk
from cordon.federation.plan import Site

# A SuperNode that was cut off is let in again when its last heartbeat, of one minute, has lapsed. A round
# that lacks its quorum waits for sites for so long, or for --round_deadline where that is longer.
RETURN_DEADLINE = 90.0


@dataclass(frozen=True)
class RoundLimits:
    """When to stop waiting (seconds), the fewest sites that a round may average, and when a site is banned.

    That is after it was quarantined in ``ban_after`` runs.
    """

    min_sites: int
    join_deadline: float
    round_deadline: float
    ban_after: int = BAN_AFTER


class Attendance:
    """Waits for a run's sites, within ``limits``."""

    def __init__(self, limits: RoundLimits, say: Say) -> None:
        self._limits, self._say = limits, say

    @property
    def patience(self) -> float:
        """Seconds in which a site that was cut off may come back."""
        return max(RETURN_DEADLINE, self._limits.round_deadline)

    def gather(self, exchange: Exchange, active: Collection[Site], left: int) -> None:
        """Wait for all ``active`` sites of a run that has so many rounds ``left``.

        After the deadline, go on with a quorum; Unreachable where fewer joined.
        """
        # A run that only lacks its end waits no longer than sites take to come back: some may have heard it.
        patience = self._limits.join_deadline if left else min(RETURN_DEADLINE, self._limits.join_deadline)
        deadline, pace = time.monotonic() + patience, brisk()
        shown = -1
        while (online := len(exchange.online().keys() & set(active))) < len(active):
            if online != shown:
                self._say(f"waiting for sites: {online} of {len(active)} are here")
                shown = online
            if time.monotonic() > deadline:
                break
            pace.wait()
        if left and online < self._limits.min_sites:
            raise Unreachable(
                f"{online} of {len(active)} sites joined within {self._limits.join_deadline:g} s, and "
                f"{self._limits.min_sites} are needed. Start the missing sites, or lower --min_sites."
            )
        self._say(f"{online} of {len(active)} sites are here; {left} rounds to go")

    def has_quorum(self, exchange: Exchange, active: Collection[Site], quorum: int) -> bool:
        """Whether as many sites as a round needs are connected, at the latest when patience ends."""
        needed = min(quorum, len(active))
        deadline, pace = time.monotonic() + self.patience, brisk()
        told = False
        while (online := len(exchange.online().keys() & set(active))) < needed:
            if not told:
                self._say(f"{online} of the {needed} sites that a round needs are here; others may return")
                told = True
            if time.monotonic() > deadline:
                return False
            pace.wait()
        return True
