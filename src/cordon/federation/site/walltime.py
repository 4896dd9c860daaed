"""How long a site's task may take part before its scheduler ends it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cordon.errors import UserError

# The next round may take so many times the longest one so far.
ROUND_MARGIN = 1.5
# Left for the last reply to be delivered and for everything to end (seconds).
RESERVE = 40.0


class Stay:
    """A stay of ``walltime`` seconds from now on (0: as long as it takes), which SIGTERM cuts short.

    UserError where the walltime has no room for a round.
    """

    def __init__(self, walltime: float = 0.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        if 0 < walltime < 2 * RESERVE:
            raise UserError(
                f"a walltime of {walltime:g} s has no room for a round. Give the task more time, at least "
                f"{2 * RESERVE:g} s and several times what a round takes."
            )
        self._clock = clock
        self.ends = clock() + walltime if walltime else math.inf
        self._longest = 0.0
        self._in_round = self.told = False

    @property
    def over(self) -> str:
        """Why the site must not begin another round; empty where it may."""
        if self.told:
            return "it was told to end (SIGTERM)"
        left = self.ends - self._clock()
        needed = ROUND_MARGIN * self._longest + RESERVE
        if left >= needed:
            return ""
        return f"{max(left, 0):.0f} s of its walltime are left, and a round may need {needed:.0f} s"

    @contextmanager
    def round(self) -> Iterator[None]:
        """A round's work, which SIGTERM ends at once."""
        began, self._in_round = self._clock(), True
        if self.told:
            _end_at_once()
        try:
            yield
        finally:
            self._in_round = False
            self._longest = max(self._longest, self._clock() - began)

    def heed_sigterm(self) -> None:
        """Take SIGTERM, by which a scheduler warns, as the end of the stay."""

        def heed(number: int, frame: FrameType | None) -> None:
            self.told = True
            if self._in_round:
                _end_at_once()

        signal.signal(signal.SIGTERM, heed)


def _end_at_once() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
