"""Pack a root file system as an initial RAM file system whose bytes depend on its content alone.

``initrd.py ROOT OUTPUT --kernel KERNEL_ROOT MODULE...`` first puts the modules, and those they need, into
ROOT, in the order in which they must be loaded. The archive is cpio's "newc" (Linux,
Documentation/driver-api/early-userspace/buffer-format.rst), sorted, without times, owners or inode numbers of
this machine; of owners, the aggregator's own folder keeps its.
"""

import lzma
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MODULES = "usr/lib/cordon/modules"
CONSOLE = ("dev/console", stat.S_IFCHR | 0o600, (5, 1))


def add_modules(root: Path, kernel: Path, names: Sequence[str]) -> None:
    """Copy the modules ``names`` of the one kernel below ``kernel``, dependencies first, uncompressed."""
    (version,) = (path.name for path in (kernel / "lib" / "modules").iterdir())
    subprocess.run(["depmod", "-b", kernel, version], check=True)
    wanted: list[Path] = []
    for name in names:
        command = ["modprobe", "-d", str(kernel), "-S", version, "--show-depends", name]
        shown = subprocess.run(command, check=True, text=True, capture_output=True).stdout
        for line in shown.splitlines():
            kind, _, path = line.strip().partition(" ")
            if kind == "insmod" and Path(path.split()[0]) not in wanted:
                wanted.append(Path(path.split()[0]))
    (root / MODULES).mkdir(parents=True)
    for number, source in enumerate(wanted):
        name, _, packed = source.name.partition(".ko")
        content = lzma.decompress(source.read_bytes()) if packed else source.read_bytes()
        (root / MODULES / f"{number:02}.{name}.ko").write_bytes(content)


def entry(
    number: int, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0), owner: int = 0
) -> bytes:
    """One file of the archive: head, name and content, each filled up to four bytes."""
    links = 2 if stat.S_ISDIR(mode) else 1
    encoded = name.encode() + b"\0"
    numbers = (number, mode, owner, owner, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in numbers) + encoded
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def archive(root: Path) -> Iterator[bytes]:
    """The archive of ``root``, piece by piece."""
    paths = sorted(root.rglob("*"), key=lambda path: os.fsencode(path.relative_to(root)))
    number = 0
    for number, path in enumerate(paths, start=1):
        about = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif path.is_file():
            content = path.read_bytes()
        yield entry(number, str(path.relative_to(root)), about.st_mode, content, owner=about.st_uid)
    name, mode, device = CONSOLE
    yield entry(number + 1, name, mode, device=device)
    yield entry(0, "TRAILER!!!", 0)


def main() -> None:
    root, output, _, kernel, *modules = sys.argv[1:]
    add_modules(Path(root), Path(kernel), modules)
    with open(output, "wb") as handle:
        # One thread: the result must not depend on how many there are. Level 15 takes eight times as long
        # for 2 % less.
        command = ["zstd", "-9", "--single-thread", "--no-progress", "-c"]
        packer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=handle)
        assert packer.stdin is not None
        for piece in archive(Path(root)):
            packer.stdin.write(piece)
        packer.stdin.close()
        if packer.wait():
            raise SystemExit("zstd failed")


if __name__ == "__main__":
    main()
