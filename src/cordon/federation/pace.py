"""How often whoever waits for a message looks whether it is there."""

from __future__ import annotations

import time
from collections.abc import Callable

# Between two looks at what another process of this machine does (seconds).
POLL = 0.1


class Pace:
    """Pauses that grow with the time waited, since each look costs both sides some hundredths of a second.

    A pause is ``share`` of what was waited already, ``soonest`` at least and ``longest`` at most (seconds): a
    message is late by no more than that share of the time that it took to come, and who answers slowly is
    asked less.
    """

    def __init__(
        self, *, soonest: float, longest: float, share: float, sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._soonest, self._longest, self._share = soonest, longest, share
        self._sleep, self._clock = sleep, clock
        self._since: float | None = None

    def wait(self) -> None:
        """Sleep until it is time to look again."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self._sleep(min(max(self._share * (now - self._since), self._soonest), self._longest))

    def found(self) -> None:
        """What was waited for is there: the next pause is the shortest again."""
        self._since = None


def brisk() -> Pace:
    """For what comes within a round: late by a fifth of the time that it took, and by a second at most."""
    return Pace(soonest=0.1, longest=1.0, share=0.2)
