"""Flower's SuperNode, which waits less: ``python -m cordon.federation.flower.supernode OPTIONS``.

The options are flower-supernode's. Flower's own asks every 3 s whether there is something to do, and most of
a small model's round would be that. Here what follows soon is found soon, and who waits long asks as seldom.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cordon.console.commands import collect_seldom
from cordon.federation.flower.object_pull import awaiting
from cordon.federation.pace import Pace

# What Flower sleeps (seconds) where the SuperLink has nothing for it. Its shorter sleeps wait for our answer.
IDLE = 3.0
SOONEST = 0.25
POLL = 0.1


class Paced:
    """Takes the place of ``time`` in Flower's loop, whose sleeps it shortens.

    Without a message the SuperNode waits as long again as it has waited already, and what Flower would at
    most. When a site asks tells nothing of what it holds.
    """

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep = sleep
        self._idle = Pace(soonest=SOONEST, longest=IDLE, share=1.0, sleep=sleep, clock=clock)

    def sleep(self, seconds: float) -> None:
        """Wait where Flower would for ``seconds``."""
        if seconds < IDLE:
            self._idle.found()
            self._sleep(min(seconds, POLL))
        else:
            self._idle.wait()


def main() -> None:
    """Run flower-supernode at this pace."""
    collect_seldom()
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode
    from flwr.supernode.fleet_http_client import FleetHttpClient

    # Flower has no options for it.
    start_client_internal.time = Paced()  # type: ignore[assignment, attr-defined]
    FleetHttpClient.PullObject = awaiting(FleetHttpClient.PullObject)  # type: ignore[method-assign]
    flower_supernode()


if __name__ == "__main__":
    main()
