"""A session's two files in a shared folder, and the frames in them.

Network file systems promise little: whoever opens a file sees what was in it when its writer last flushed,
while a new name may stay unseen for a minute. So a session is one folder that appears at once, with a file
for each direction. Each file has one writer, who appends and flushes, and one reader, who opens it anew each
time. A last frame that is not whole yet is waited for.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cordon.errors import FederationError, UserError

# What a frame does to its connection, whose number is above 0; the last two are about the session itself.
OPEN, DATA, CLOSE, ALIVE, END = range(1, 6)
KINDS = frozenset((OPEN, DATA, CLOSE, ALIVE, END))
HEAD = struct.Struct(">IBI")
MOST_PAYLOAD = 2**16
# One reading takes at most so much into memory.
MOST_READ = 2**20
# No site lets a session's file grow so far; who does is no site.
MOST_BYTES = 2**30
TO_RELAY, TO_SITE = "to_relay", "to_site"
SUFFIX = ".session"


class BadMailbox(FederationError):
    """What stands in a mailbox is not what its writer would write; its session ends."""


@dataclass(frozen=True)
class Frame:
    """``payload`` bytes (of DATA alone) for a connection; connection 0 is the session itself."""

    connection: int
    kind: int
    payload: bytes = b""

    def encoded(self) -> bytes:
        return HEAD.pack(self.connection, self.kind, len(self.payload)) + self.payload


def frames(content: bytes) -> Iterator[Frame]:
    """The whole frames at the start of ``content``; BadMailbox where there is something else."""
    at = 0
    while at + HEAD.size <= len(content):
        connection, kind, size = HEAD.unpack_from(content, at)
        of_session = kind in (ALIVE, END)
        if (
            kind not in KINDS
            or of_session != (connection == 0)
            or size > (MOST_PAYLOAD if kind == DATA else 0)
        ):
            raise BadMailbox(f"no frame: connection {connection}, kind {kind}, {size} bytes")
        if at + HEAD.size + size > len(content):
            return
        yield Frame(connection, kind, content[at + HEAD.size : at + HEAD.size + size])
        at += HEAD.size + size


class Inbox:
    """Reads a file that another process, perhaps on another machine, appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0

    def read(self) -> list[Frame]:
        """The whole frames that came since, some of them where they are many.

        OSError where the file is gone, BadMailbox where it holds something else.
        """
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            content = os.pread(handle, MOST_READ, self.position)
        finally:
            os.close(handle)
        found = list(frames(content))
        self.position += sum(HEAD.size + len(frame.payload) for frame in found)
        if self.position > MOST_BYTES:
            raise BadMailbox(f"more than {MOST_BYTES} bytes")
        return found

    def rest(self) -> Iterator[Frame]:
        """The whole frames that are there now."""
        while found := self.read():
            yield from found


class Outbox:
    """Appends to a file; what `append` returned from is on its way to a reader elsewhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

    def append(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            written = os.write(self._handle, view)
            self.size += written
            view = view[written:]
        os.fsync(self._handle)

    def cut(self, size: int) -> None:
        """Drop what a writer that was killed began to write after ``size`` whole bytes."""
        os.ftruncate(self._handle, size)
        self.size = size

    def close(self) -> None:
        os.close(self._handle)


@dataclass(frozen=True)
class Session:
    """The folder of one session."""

    path: Path

    @classmethod
    def begin(cls, folder: Path, name: str) -> Self:
        """A new session in ``folder``, which appears there whole."""
        unseen = folder / f".{name}-{secrets.token_hex(8)}{SUFFIX}"
        unseen.mkdir(mode=0o700)
        for file in (TO_RELAY, TO_SITE):
            os.close(os.open(unseen / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return cls(unseen.rename(folder / unseen.name[1:]))

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    @classmethod
    def all_in(cls, folder: Path) -> list[Self]:
        """The sessions in ``folder`` now."""
        with os.scandir(folder) as entries:
            return [
                cls(folder / entry.name)
                for entry in entries
                if entry.name.endswith(SUFFIX)
                and entry.name[0] != "."
                and entry.is_dir(follow_symlinks=False)
            ]

    def remove(self) -> None:
        """Remove it; whichever of the two ends comes second finds nothing left to do."""
        for file in (TO_RELAY, TO_SITE):
            (self.path / file).unlink(missing_ok=True)
        try:
            self.path.rmdir()
        except OSError:
            # A network file system keeps a file that is open somewhere under another name for a while.
            return


def shared_folder(path: Path) -> Path:
    """The folder for sessions, made where it is missing; UserError where others could write to it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.stat()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be used ({error.strerror}). Give a folder as --transport_dir."
        ) from None
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise UserError(
            f"{path}: belongs to another user, or others can write to it. Give a folder of your own as "
            "--transport_dir (chmod 700)."
        )
    return path
