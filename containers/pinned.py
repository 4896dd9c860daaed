"""Print the entries of a lock file for the packages that a list names.

``pinned.py LOCK LIST [--without LIST]``: a LIST is a text file of names, one a line, or pyproject.toml, which
names the project's dependencies and what they need in turn, without its extras.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ENTRY = re.compile(r"([A-Za-z0-9._-]+)==")
NAME = re.compile(r"[A-Za-z0-9._-]+")
VIA = re.compile(r" +# +(?:via )?([A-Za-z0-9._-]+)$")


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


def needed(lock: str, names: Iterable[str]) -> list[str]:
    """``names`` and all that the lock file's comments ("via") say came with them, in its order."""
    found = {*names}
    wanted_by: dict[str, set[str]] = {}
    for line in lock.splitlines():
        if match := ENTRY.match(line):
            parents = wanted_by.setdefault(match[1], set())
        elif match := VIA.match(line):
            parents.add(match[1])
    while more := {name for name, parents in wanted_by.items() if parents & found} - found:
        found |= more
    return [name for name in wanted_by if name in found]


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


def chosen(lock: str, source: Path) -> list[str]:
    """The names that a LIST stands for."""
    if source.suffix != ".toml":
        return listed(source.read_text())
    dependencies = tomllib.loads(source.read_text())["project"]["dependencies"]
    return needed(lock, [NAME.match(line)[0] for line in dependencies])  # type: ignore[index]


if __name__ == "__main__":
    lock_text = Path(sys.argv[1]).read_text()
    left_out = chosen(lock_text, Path(sys.argv[4])) if len(sys.argv) > 4 else []
    names = [name for name in chosen(lock_text, Path(sys.argv[2])) if name not in left_out]
    print("\n".join(pinned(lock_text, names)))
