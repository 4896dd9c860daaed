"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Finding:
    """``what`` was looked at, how it is (one of the above), what was ``found``, and what to do about it."""

    what: str
    status: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding(what, OK, found)


def warning(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, WARNING, found, remedy)


def failed(what: str, found: str, remedy: str) -> Finding:
    return Finding(what, FAILED, found, remedy)
