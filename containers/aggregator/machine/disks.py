"""The VM's disks, by the serial numbers that the host gives them; the host sees and may change them all.

Nothing that a host wrote is mounted unless it was encrypted by us: the configuration comes as a tar file that
is the whole disk, and the results leave in the same way.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from cordon.errors import UserError

MOST_BYTES = 64 * 2**20


def find(serial: str, blocks: Path = Path("/sys/block"), devices: Path = Path("/dev")) -> Path | None:
    """The disk with this serial number; None where there is none."""
    for block in sorted(blocks.glob("vd*")):
        held = block / "serial"
        if held.exists() and held.read_text().strip() == serial:
            return devices / block.name
    return None


def read(disk: Path) -> bytes:
    """All of a small disk; UserError where it is larger than MOST_BYTES."""
    with disk.open("rb") as handle:
        content = handle.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{disk}: has more than {MOST_BYTES} bytes. Give a tar file as a raw disk.")
    return content


def unpack(content: bytes) -> dict[str, bytes]:
    """The files in a tar file by name; UserError where it holds anything but files, or is none."""
    held: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isdir():
                    continue
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or name in held or ".." in Path(name).parts or name.startswith("/"):
                    raise UserError(f"the tar file holds {member.name!r}, no plain file, or twice.")
                held[name] = stream.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"not a tar file ({error}). Make it with: tar -cf FILE NAMES") from None
    return held


def write(disk: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` to ``disk`` as a tar file; UserError where they do not fit."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with disk.open("rb+") as handle:
        room = handle.seek(0, os.SEEK_END)
        if len(stream.getvalue()) > room:
            raise UserError(
                f"{disk}: {room} bytes are too few for {len(stream.getvalue())} bytes of results."
            )
        handle.seek(0)
        handle.write(stream.getvalue())
        handle.flush()
        os.fsync(handle.fileno())
