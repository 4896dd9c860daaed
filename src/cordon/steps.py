"""How the package tells of long steps; it knows nothing of terminals (`cordon.console.progress` does)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Tick(Protocol):
    """Called after every ``done`` of a step's units; once a chunk, not once a row."""

    def __call__(self, done: int = 1, /) -> None: ...


class Steps(Protocol):
    """Begins a step: ``total`` (None where nobody knows it) of ``unit``, a plural such as "candidates".

    Without a unit, nothing is counted in it.
    """

    def __call__(self, what: str, total: int | None, unit: str, /) -> AbstractContextManager[Tick]: ...


@contextmanager
def silent(what: str, total: int | None, unit: str) -> Iterator[Tick]:
    """Nobody is told."""
    yield lambda done=1: None


def rate(a_second: float) -> str:
    """``a_second`` units in words; slow ones as the time that each takes."""
    if a_second < 1:
        return f"{duration(1 / a_second)} each"
    return f"{a_second:,.0f} a second" if a_second >= 10 else f"{a_second:.1f} a second"


def duration(seconds: float) -> str:
    """Seconds in words: 4.5 s, 35 s, 2 min 5 s, 12 min, 3 h 20 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
