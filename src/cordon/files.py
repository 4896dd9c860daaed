"""Files read and written safely: a whole file or none, gzip or not, JSON objects."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from cordon.errors import UserError


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the target's folder, moved onto the target when the block ends well.

    The temporary name keeps the target's suffixes, because writers choose the format by them.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        try:
            yield temporary
        except OSError as error:
            if error.filename is None:  # a full disk, for example, is not told with the file's name
                error.filename = os.fspath(target)
            raise
        for made in sorted(Path(folder).iterdir(), key=lambda file: file == temporary):
            os.replace(made, target.parent / made.name)


def write_durably(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, for its owner alone, all at once, and wait until it is on disk."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def parse_json(text: str | bytes) -> Any:
    """What JSON says, which may be anybody's; ValueError where it is none, however deep it is nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: StrPath) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError naming the file and the place where it is none."""
    try:
        content = parse_json(Path(path).read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error}). Mend it, or write it anew.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object. Give an object of parameters, {{...}}.")
    return content


GZIP_MAGIC = b"\x1f\x8b"

StrPath = str | os.PathLike[str]


def opened(path: StrPath) -> BinaryIO:
    """The bytes of a plain, gzip or bgzip file, decompressed."""
    with open(path, "rb") as raw:
        compressed = raw.read(2) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if compressed else open(path, "rb")
