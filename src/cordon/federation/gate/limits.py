"""How much the gate lets one client, and all clients together, ask for."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

REMEMBERED = 10_000


@dataclass(frozen=True)
class Bounds:
    """Sizes in bytes, times in seconds, rates in requests a second.

    A hundred sites behind one address that each ask ten times a second stay below ``rate``; a SuperNode
    asks every three seconds, more often for a while after its last answer, and some fifty times while it
    works on a message.
    """

    # Flower cuts arrays into objects of 5 MiB, so a message's largest request does not grow with the model.
    body: int = 16 * 2**20
    head: int = 16 * 2**10
    rate: float = 1000.0
    burst: float = 5000.0
    # Evidence is the firmware's to make, some at a time. A site asks once for each SuperNode that it starts:
    # a whole consortium behind one address may do so at once, and waits in turn with other addresses.
    evidence_rate: float = 20.0
    evidence_burst: float = 1000.0
    evidence_at_once: int = 2
    evidence_waiting: int = 4000
    connections: int = 2048
    connections_per_client: int = 512
    upstream_connections: int = 256
    handshake_time: float = 10.0
    head_time: float = 15.0
    body_time: float = 120.0
    upstream_time: float = 60.0

    @property
    def request_time(self) -> float:
        """The longest that a request and its answer take: body, SuperLink, and the answer on its way."""
        return self.body_time + self.upstream_time + self.body_time


class TokenBucket:
    """A token bucket for each client: ``rate`` tokens a second, at most ``burst`` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether ``client`` may ask once more now."""
        now = self._clock()
        level, since = self._levels.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        self._levels[client] = (max(level - 1, 0.0) if level >= 1 else level, now)
        if len(self._levels) > REMEMBERED:
            self._levels.popitem(last=False)
        return level >= 1


class Turns:
    """So many at a time of what many clients wait for, each client in its turn: none waits for a crowd.

    A client with a thousand requests and one with a single one have the same share.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return sum(map(len, self._waiting.values())) >= self._most

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of ``client``'s, and give it on at the end of the block."""
        if self._free and not self._waiting:
            self._free -= 1
        else:
            mine = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(client, deque()).append(mine)
            try:
                await mine
            except BaseException:
                if mine.done() and not mine.cancelled():
                    self._give_on()
                raise
        try:
            yield
        finally:
            self._give_on()

    def _give_on(self) -> None:
        while self._waiting:
            client, queue = self._waiting.popitem(last=False)
            while queue and queue[0].done():
                queue.popleft()
            if queue:
                next_ = queue.popleft()
                if queue:
                    self._waiting[client] = queue
                next_.set_result(None)
                return
        self._free += 1


def client_of(peer: tuple[str, int] | None) -> str:
    """Whom a connection counts for: an IPv4 address, or an IPv6 network of 64 bits, all one customer's."""
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0]) if peer else None
    except ValueError:
        return "?"
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
