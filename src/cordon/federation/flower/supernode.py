"""Flower's SuperNode, which waits less: ``python -m cordon.federation.flower.supernode OPTIONS``.

The options are flower-supernode's. Flower's own asks every 3 s whether there is something to do, and most of
a small model's round would be that. Here what follows soon is found soon, and who waits long asks as seldom.
A task that is larger than any model of Cordon's is not taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

from cordon.console.commands import collect_seldom
from cordon.federation.flower.bounds import ANY
from cordon.federation.flower.collecting import Pulls
from cordon.federation.flower.object_pull import awaiting
from cordon.federation.pace import POLL, Pace

# What Flower sleeps (seconds) where the SuperLink has nothing for it. Its shorter sleeps wait for our answer.
LONGEST_IDLE = 3.0
SOONEST = 0.25
ROOTS = "--root-certificates"


class Paced:
    """Takes the place of ``time`` in Flower's loop, whose sleeps it shortens.

    Without a message the SuperNode waits as long again as it has waited already, and what Flower would at
    most. When a site asks tells nothing of what it holds.
    """

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep = sleep
        self._idle = Pace(soonest=SOONEST, longest=LONGEST_IDLE, share=1.0, sleep=sleep, clock=clock)

    def sleep(self, seconds: float) -> None:
        """Wait where Flower would for ``seconds``."""
        if seconds < LONGEST_IDLE:
            self._idle.found()
            self._sleep(min(seconds, POLL))
        else:
            self._idle.wait()


def main() -> None:
    """Run flower-supernode at this pace."""
    collect_seldom()
    from flwr.supernode import fleet_http_connection, start_client_internal
    from flwr.supernode.cli import flower_supernode
    from flwr.supernode.fleet_http_client import FleetHttpClient

    from cordon.federation.flower.bound_auth import BoundAuth

    # Flower has no options for it.
    start_client_internal.time = Paced()  # type: ignore[assignment, attr-defined]
    if ROOTS in sys.argv:
        fleet_http_connection.NodeAuthHttpInterceptor = partial(  # type: ignore[attr-defined, assignment]
            BoundAuth, roots=sys.argv[sys.argv.index(ROOTS) + 1]
        )
    bounded = Pulls(ANY)
    FleetHttpClient.PullMessages = bounded.announcing(  # type: ignore[method-assign]
        FleetHttpClient.PullMessages
    )
    FleetHttpClient.PullObject = bounded.counting(  # type: ignore[method-assign]
        awaiting(FleetHttpClient.PullObject)
    )
    flower_supernode()


if __name__ == "__main__":
    main()
