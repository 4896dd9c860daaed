"""How much the gate lets one client, and all clients together, ask for."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
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
    evidence_rate: float = 20.0
    evidence_burst: float = 200.0
    evidence_at_once: int = 2
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
