"""Assemble a root file system that holds Python, given trees and programs, and the libraries they load.

``rootfs.py ROOT PATH...`` copies each PATH, file or folder, to the same place below ROOT, then every shared
library that what was copied is linked to. Modes are made plain: no setuid, nothing writable but by root.
``rootfs.py --packages ROOT`` prints the Debian packages that its files are from: name, version, architecture.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")
ABSENT = re.compile(r"(\S+) => not found")
# What no aggregator imports; the lib2to3, idlelib and tkinter of the standard library, and tests.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data",
    "config-3*", "*.pyi", "*.h", "sitecustomize.py",
)  # fmt: skip


def copy(source: Path, root: Path) -> Path:
    """Copy a file (what it links to) or a folder to the same place below ``root``."""
    # /lib and /bin are links to /usr/lib and /usr/bin, here and below the new root.
    place = root / Path(os.path.realpath(source.parent), source.name).relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, symlinks=True, ignore=LEFT_OUT, dirs_exist_ok=True)
    elif not place.exists():
        shutil.copyfile(source, place)
        place.chmod(stat.S_IMODE(source.stat().st_mode))
    return place


def libraries(root: Path) -> Iterator[Path]:
    """The shared libraries that the programs and libraries below ``root`` load from outside of it.

    Wheels bring libraries that only find one another once they are loaded together.
    """
    held = {path.name for path in root.rglob("*.so*")}
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.open("rb").read(4) != b"\x7fELF":
            continue
        run = subprocess.run(["ldd", path], text=True, capture_output=True)
        if absent := {*ABSENT.findall(run.stdout)} - held:
            raise SystemExit(f"{path} lacks {', '.join(sorted(absent))}")
        for name in LINKED.findall(run.stdout):
            if not Path(name).is_relative_to(root):
                yield Path(name)


def assemble(root: Path, paths: Iterable[Path]) -> None:
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for path in paths:
        copy(path, root)
    for library in {*libraries(root)}:
        copy(library, root)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)


def packages(root: Path, database: Path = Path("/var/lib/dpkg/info")) -> list[str]:
    """Name, version and architecture of the Debian packages that own a file below ``root``."""
    held = {path.relative_to(root) for path in root.rglob("*") if not path.is_dir()}
    owners = set()
    for listing in database.glob("*.list"):
        for line in listing.read_text().splitlines():
            # dpkg knows files by their old places: /lib for /usr/lib.
            place = Path(os.path.realpath(os.path.dirname(line)), os.path.basename(line))
            if place.relative_to("/") in held:
                owners.add(listing.stem)
                break
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n", *sorted(owners)]
    return subprocess.run(query, check=True, text=True, capture_output=True).stdout.splitlines()


if __name__ == "__main__":
    if sys.argv[1] == "--packages":
        print(*packages(Path(sys.argv[2])), sep="\n")
        raise SystemExit
    assemble(Path(sys.argv[1]), map(Path, sys.argv[2:]))
