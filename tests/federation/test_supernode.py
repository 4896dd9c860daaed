"""The SuperNode waits less than Flower's own, and asks no more often than that needs."""

from __future__ import annotations

import inspect
import re

import pytest
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supernode import cli, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient

from cordon.federation.flower import supernode
from cordon.federation.flower.object_pull import FIRST_PAUSE, LONGEST_PAUSE, awaiting
from cordon.federation.flower.supernode import LONGEST_IDLE, POLL, SOONEST, Paced


class Clock:
    """Time that passes by sleeping, and ``slow`` seconds with each question to the SuperLink."""

    def __init__(self, slow: float = 0.0) -> None:
        self.now, self.slow = 100.0, slow
        self.slept: list[float] = []

    def __call__(self) -> float:
        self.now += self.slow
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_an_idle_supernode_waits_as_long_again_as_it_has_waited():
    clock = Clock()
    pace = Paced(clock.sleep, clock)
    for _ in range(7):
        pace.sleep(LONGEST_IDLE)
    assert clock.slept == [
        SOONEST,
        SOONEST,
        2 * SOONEST,
        4 * SOONEST,
        8 * SOONEST,
        LONGEST_IDLE,
        LONGEST_IDLE,
    ]


def test_what_it_waits_for_its_own_answer_is_short_and_then_it_asks_soon_again():
    clock = Clock()
    pace = Paced(clock.sleep, clock)
    for seconds in (LONGEST_IDLE, LONGEST_IDLE, LONGEST_IDLE, 0.5, 0.01, LONGEST_IDLE):
        pace.sleep(seconds)
    assert clock.slept[3:] == [POLL, 0.01, SOONEST]


def test_a_slow_superlink_is_asked_less():
    clock = Clock(slow=1.0)
    pace = Paced(clock.sleep, clock)
    for _ in range(3):
        pace.sleep(LONGEST_IDLE)
    assert clock.slept == [SOONEST, 1 + SOONEST, LONGEST_IDLE]


def test_flowers_loop_sleeps_where_the_pace_expects_it():
    """A Flower that waits otherwise needs another pace."""
    source = inspect.getsource(start_client_internal)
    assert sorted(map(float, re.findall(r"time\.sleep\((.+?)\)", source))) == [0.5, 0.5, LONGEST_IDLE]
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"sleep"}


def test_flower_runs_at_this_pace(monkeypatch):
    found = {}

    def run() -> None:
        found["pace"] = start_client_internal.time
        found["pull"] = FleetHttpClient.PullObject

    own = FleetHttpClient.PullObject
    monkeypatch.setattr(start_client_internal, "time", start_client_internal.time)
    monkeypatch.setattr(FleetHttpClient, "PullObject", own)
    monkeypatch.setattr(cli, "flower_supernode", run)
    supernode.main()
    assert isinstance(found["pace"], Paced)
    assert found["pull"] is not own


class Object:
    """An object that is there when it is asked for the ``comes``-th time."""

    def __init__(self, comes: int, *, found: bool = True) -> None:
        self.comes, self.found, self.asked = comes, found, 0

    def __call__(self, request: str) -> PullObjectResponse:
        assert request == "what is asked for"
        self.asked += 1
        there = self.found and self.asked >= self.comes
        return PullObjectResponse(object_found=self.found, object_available=there)


def test_what_was_announced_is_there_as_soon_as_it_comes():
    slept: list[float] = []
    thing = Object(3)
    answer = awaiting(thing, sleep=slept.append)("what is asked for")
    assert answer.object_available
    assert (thing.asked, slept) == (3, pytest.approx([FIRST_PAUSE, 1.5 * FIRST_PAUSE]))


def test_what_does_not_come_is_flowers_to_ask_for_again():
    slept: list[float] = []
    answer = awaiting(Object(1000), sleep=slept.append)("what is asked for")
    assert (answer.object_found, answer.object_available) == (True, False)
    assert max(slept) <= LONGEST_PAUSE
    assert 1 < sum(slept) < 2


def test_what_is_late_or_unknown_is_given_up_at_once():
    slept: list[float] = []
    late, unknown = Object(1000), Object(1, found=False)
    assert not awaiting(late, lambda: True, slept.append)("what is asked for").object_found
    assert not awaiting(unknown, sleep=slept.append)("what is asked for").object_found
    assert (late.asked, unknown.asked, slept) == (1, 1, [])
