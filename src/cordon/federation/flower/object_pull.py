"""Waiting for the content of a message that has been announced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.proto.message_pb2 import PullObjectResponse

    Pull = Callable[..., PullObjectResponse]

# How soon it is asked again (seconds), how much later each time, and after which pause Flower is told.
FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 0.05, 1.5, 0.5


def awaiting(
    pull: Pull, late: Callable[[], bool] = lambda: False, sleep: Callable[[float], None] = time.sleep
) -> Pull:
    """Flower's ``pull`` of one object, as soon as it is there, and no more once it is ``late``.

    A message's arrays follow it by some hundredths of a second. Flower itself asks again after a second,
    then after two and more, for minutes: that was most of a small model's round, and whoever announces a
    reply and never sends it would hold up everyone.
    """

    def waiting(*request: object) -> PullObjectResponse:
        pause = FIRST_PAUSE
        while True:
            response = pull(*request)
            if response.object_available or not response.object_found:
                return response
            if late():
                response.object_found = False
                return response
            if pause > LONGEST_PAUSE:
                return response
            sleep(pause)
            pause *= PAUSE_GROWTH

    return waiting
