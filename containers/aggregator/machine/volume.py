"""The aggregator's state on a LUKS2 volume whose key only this image on this chip can have.

The host holds the disk, and may write whatever it likes to it. LUKS2's header is not authenticated: a header
that names the null cipher opens with any key, and the guest would then write in the clear (CVE-2025-59054).
So the header is copied to memory, and what the copy says is compared with what `make` writes before it is
used; the one on the disk is not read again.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from cordon.errors import CordonError

HEADER_BYTES = 16 * 2**20
MAGIC = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
CIPHER = "aes-xts-plain64"
KEY_BITS = 512
EXT4_MAGIC, EXT4_PLACE = b"\x53\xef", 1024 + 56
MAPPED = Path("/dev/mapper/state")
REMEDY = "Give the disk that this image made on this machine, or an empty one."
# No device manager runs here.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin", "DM_DISABLE_UDEV": "1"}


class VolumeError(CordonError):
    """The state's volume is not one that this image made on this chip."""


def _run(*command: str | Path, key: bytes = b"") -> bytes:
    done = subprocess.run([*map(str, command)], input=key, capture_output=True, env=ENVIRONMENT)
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise VolumeError(f"{command[0]} {command[1]} failed: {words}")
    return done.stdout


def is_empty(disk: Path) -> bool:
    """Whether a header's worth of bytes at the start of ``disk`` are all zero, as a new disk's are."""
    with disk.open("rb") as handle:
        content = handle.read(HEADER_BYTES)
    return content == bytes(len(content))


def make(disk: Path, key: bytes) -> None:
    """A fresh LUKS2 volume on ``disk``. The key is random: it needs no slow derivation."""
    _run(
        "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--cipher", CIPHER,
        "--key-size", str(KEY_BITS), "--hash", "sha256", "--sector-size", "4096",
        "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", disk, key=key,
    )  # fmt: skip


def check_header(metadata: dict[str, Any]) -> None:
    """VolumeError unless LUKS2's ``metadata`` is what `make` writes: one segment, one slot, our cipher."""

    def sole(name: str) -> dict[str, Any]:
        held = metadata[name]
        if len(held) != 1:
            raise ValueError(f"{len(held)} {name}")
        return dict(held["0"])

    try:
        segment, slot, digest = sole("segments"), sole("keyslots"), sole("digests")
        found = {
            "segment": (segment["type"], segment["encryption"], segment["offset"], segment["size"]),
            "slot": (slot["type"], slot["key_size"], slot["area"]["type"], slot["area"]["encryption"]),
            "digest": (digest["type"], digest["segments"], digest["keyslots"]),
            "others": (metadata["tokens"], "integrity" in segment, "flags" in segment),
            "config": metadata["config"].keys() - {"json_size", "keyslots_size"},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(f"the state's LUKS2 header is not this image's: {error!r}. {REMEDY}") from None
    expected = {
        "segment": ("crypt", CIPHER, str(HEADER_BYTES), "dynamic"),
        "slot": ("luks2", KEY_BITS // 8, "raw", CIPHER),
        "digest": ("pbkdf2", ["0"], ["0"]),
        "others": ({}, False, False),
        "config": set(),
    }
    for name, value in expected.items():
        if found[name] != value:
            raise VolumeError(
                f"the state's LUKS2 header is not this image's: its {name} is {found[name]!r} instead of "
                f"{value!r}. {REMEDY}"
            )


def open_volume(disk: Path, key: bytes, header: Path) -> Path:
    """Open the volume on ``disk``, which is made if the disk is empty; the device of what it holds.

    ``header`` is a place in memory. Raises VolumeError where the disk holds anything else.
    """
    fresh = is_empty(disk)
    if fresh:
        make(disk, key)
    with disk.open("rb") as handle:
        content = handle.read(HEADER_BYTES)
    if content[:6] not in MAGIC:
        raise VolumeError(f"{disk}: neither empty nor a state's volume. {REMEDY}")
    descriptor = os.open(header, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
    check_header(json.loads(_run("cryptsetup", "luksDump", "--dump-json-metadata", header)))
    try:
        _run("cryptsetup", "open", "--header", header, "--key-file", "-", disk, MAPPED.name, key=key)
    except VolumeError as error:
        raise VolumeError(
            f"{disk}: the state cannot be opened ({error}). Its key belongs to the image, the launch policy "
            f"and the chip that made it. {REMEDY}"
        ) from None
    if fresh:
        _run("mkfs.ext4", "-q", "-m", "0", MAPPED)
    with MAPPED.open("rb") as handle:
        if handle.read(EXT4_PLACE + 2)[EXT4_PLACE:] != EXT4_MAGIC:
            raise VolumeError(f"{disk}: the state's volume holds no file system. {REMEDY}")
    return MAPPED


def close() -> None:
    _run("cryptsetup", "close", MAPPED.name)
