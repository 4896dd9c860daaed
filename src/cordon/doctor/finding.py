"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How what was looked at is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """``what`` was looked at, how it is, what was ``found``, and what to do about it."""

    what: str
    status: Health
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding(what, Health.OK, found)


def warning(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, Health.WARNING, found, remedy)


def failed(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, Health.FAILED, found, remedy)
