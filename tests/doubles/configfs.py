"""The kernel's configfs-tsm folder, as far as `cordon.attestation.guest` relies on it.

Contract (Linux, Documentation/ABI/testing/configfs-tsm): making a folder below the root fills it with
attributes; writing `inblob` raises `generation`; reading `outblob` and `auxblob` gives report and
certificate table for the last `inblob`; removing the folder takes the attributes with it. Not kept:
`privlevel`, `service_provider`, and EWOULDBLOCK for a read in between two writes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest


class Configfs:
    """A root folder in which ``os.mkdir`` makes an entry that answers with ``report`` and ``table``.

    ``meddle`` so many times: another writer asks for a report in between, which raises `generation`.
    """

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, report: Callable[[bytes], bytes],
        table: bytes = b"", provider: str = "sev_guest", meddle: int = 0,
    ) -> None:  # fmt: skip
        self.root, self.report, self.table, self.provider, self.meddle = root, report, table, provider, meddle
        self.made: list[Path] = []
        root.mkdir()
        mkdir, rmdir = os.mkdir, os.rmdir

        def make(path: os.PathLike[str], mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            mkdir(path, mode, dir_fd=dir_fd)
            if Path(path).parent == root:
                self._serve(Path(path))

        def remove(path: os.PathLike[str], *, dir_fd: int | None = None) -> None:
            if Path(path).parent == root:
                for attribute in Path(path).iterdir():
                    attribute.unlink()
            rmdir(path, dir_fd=dir_fd)

        monkeypatch.setattr(os, "mkdir", make)
        monkeypatch.setattr(os, "rmdir", remove)

    def _serve(self, entry: Path) -> None:
        self.made.append(entry)
        (entry / "provider").write_text(f"{self.provider}\n")
        (entry / "auxblob").write_bytes(self.table)
        for name in ("inblob", "generation", "outblob"):
            os.mkfifo(entry / name)
        threading.Thread(target=self._answer, args=(entry,), daemon=True).start()

    def _answer(self, entry: Path) -> None:
        """Each opening of a pipe waits for the client's, so the order is the client's."""
        try:
            asked = (entry / "inblob").read_bytes()
        except FileNotFoundError:
            return  # removed before anything was asked
        (entry / "generation").write_text("1\n")
        (entry / "outblob").write_bytes(self.report(asked))
        (entry / "generation").write_text("2\n" if self.meddle else "1\n")
        self.meddle = max(0, self.meddle - 1)
