"""Print the entries of a lock file for the packages that a list names: ``pinned.py LOCK LIST``."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ENTRY = re.compile(r"([A-Za-z0-9._-]+)==")


def entries(lock: str) -> dict[str, str]:
    """The lock file's entries by package: the pin and the hashes below it."""
    held: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in lock.splitlines():
        if match := ENTRY.match(line):
            lines = held.setdefault(match[1], [])
        if line.lstrip().startswith("#") or not line.strip():
            lines = []
            continue
        lines.append(line)
    return {name: "\n".join(text) for name, text in held.items()}


def pinned(lock: str, names: Iterable[str]) -> Iterator[str]:
    """The entries of ``names``; KeyError where the lock file lacks one, or has no hash for it."""
    held = entries(lock)
    for name in names:
        if "--hash=sha256:" not in held[name]:
            raise KeyError(f"{name} has no hash")
        yield held[name]


def listed(text: str) -> list[str]:
    """The names in a list, one a line, without its comments."""
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


if __name__ == "__main__":
    lock_file, list_file = map(Path, sys.argv[1:])
    print("\n".join(pinned(lock_file.read_text(), listed(list_file.read_text()))))
