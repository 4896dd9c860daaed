"""Print the entries of a lock file for the packages that a list names.

``pinned.py LOCK LIST [--without LIST...]``: a LIST is a text file of names, one a line; a lock file, all of
it; or pyproject.toml, the project's dependencies and what they need in turn, without its extras, or with one
of them: pyproject.toml[train].
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


def chosen(lock: str, source: str) -> list[str]:
    """The names that a LIST stands for."""
    path, _, extra = source.removesuffix("]").partition("[")
    text = Path(path).read_text()
    if path.endswith(".lock"):
        return [*entries(text)]
    if not path.endswith(".toml"):
        return listed(text)
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    return needed(lock, [NAME.match(line)[0] for line in wanted])  # type: ignore[index]


def main(lock_file: str, source: str, *without: str) -> None:
    lock = Path(lock_file).read_text()
    left_out = {name for unwanted in without[1:] for name in chosen(lock, unwanted)}
    names = [name for name in chosen(lock, source) if name not in left_out]
    print("\n".join(pinned(lock, names)))


if __name__ == "__main__":
    main(*sys.argv[1:])
