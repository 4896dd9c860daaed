"""How the package tells of long steps; it knows nothing of terminals (`cordon.progress` does)."""

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
