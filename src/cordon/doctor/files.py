"""The files of a site: its reference, its key, and the folder that outlives runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cordon.doctor.finding import Finding, failed, ok, warning
from cordon.errors import UserError

ROOM = 1 << 30  # bytes


def reference(path: Path) -> Finding:
    """Whether ``path`` begins as FASTA."""
    from cordon.files import opened

    remedy = "Give the genome that the reads were aligned to, as FASTA: plain, gzip or bgzip."
    try:
        with opened(path) as content:
            first = content.readline(1000)
    except (OSError, EOFError) as error:
        return failed("reference", f"{path}: {error}", remedy)
    if not first.startswith(b">"):
        return failed("reference", f"{path}: no FASTA (it begins with {first[:20]!r})", remedy)
    return ok("reference", f"{path}: begins with contig {first[1:].split()[0].decode(errors='replace')}")


def settings(place: str) -> tuple[str, list[Finding]]:
    """What a site's configuration says without its comments, and why it cannot be looked at."""
    if "://" in place:
        remedy = "Fetch it, and give the file: nothing is fetched here."
        return "", [warning("site_config", f"{place} is not looked at", remedy)]
    try:
        text = Path(place).read_text()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give a file that is there, as plain text in UTF-8."
        return "", [failed("site_config", f"{place} cannot be read: {error}", remedy)]
    # Two slashes behind a colon are an address.
    return re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", text, flags=re.DOTALL), []


def site_config(written: str, profile: str) -> Iterator[Finding]:
    """What a site's file gives away, and where a platform's token goes (``written`` is the file's text)."""
    if re.search(r"://[^/\s'\"@:]+:[^/\s'\"@]+@", written):
        yield failed(
            "site_config",
            "holds a password in an address; Nextflow shows it to Seqera Platform with every task",
            "Keep it in a file of your own, and read that in process.beforeScript (docs/hpc.md).",
        )
    executor = re.search(r"\bexecutor\s*=\s*['\"]([\w-]+)['\"]", written)
    if executor and executor[1] not in ("local", *profile.split(",")) and "scheduler" not in written:
        yield failed(
            "site_config",
            f"sets process.executor to {executor[1]} alone",
            f"Start with -profile {executor[1]}, or add params.scheduler = '{executor[1]}' to it.",
        )
    if os.environ.get("TOWER_ACCESS_TOKEN") and not re.search(r"\bendpoint\s*=", written):
        yield warning(
            "Seqera Platform",
            "a token is set: a mere -with-tower sends it to the public cloud, past TOWER_API_ENDPOINT",
            "For a house's own: -with-tower \"$TOWER_API_ENDPOINT\", or tower.endpoint in the site's file.",
        )


def state(folder: Path) -> Iterator[Finding]:
    """Whether ledgers can be kept in ``folder``, which is made where it is missing."""
    remedy = "Give a folder of your own, on a disk that is backed up and that all nodes see (--state_dir)."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as tried:
            _write_a_ledger(Path(tried))
    except (OSError, UserError) as error:
        yield failed("ledger", f"{folder}: {error}", remedy)
        return
    yield ok("ledger", f"{folder}: a ledger was written there, read again and removed")
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warning("ledger", f"{folder}: others can write to it", f"chmod go-w {folder}")
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        yield warning(
            "ledger", f"{folder}: {free / 1e6:.0f} MB are free", "Make room: a full disk ends a run."
        )


def _write_a_ledger(folder: Path) -> None:
    from cordon.ledger.log import ChainedLog
    from cordon.ledger.rows import Kind

    path = folder / "ledger.sqlite"
    ChainedLog(path).append({"kind": Kind.STOPPED, "run": "doctor", "round": 0})
    if len(ChainedLog(path).of_kind(Kind.STOPPED)) != 1:
        raise UserError(
            "what was written is not there when it is read again. Keep the state on another file system."
        )


def site_key(path: Path) -> Finding:
    """Whether ``path`` is a SuperNode's key that its owner alone can read."""
    from cordon.federation.credentials import private_identity

    remedy = "Make one with `ssh-keygen -t ecdsa -b 384 -N '' -f site.key`, and have site.key.pub enrolled."
    try:
        found = private_identity(path)
        mode = os.stat(path).st_mode
    except (OSError, UserError) as error:
        return failed("site's key", str(error), remedy)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return failed(
            "site's key", f"{path}: others can read it", f"chmod 600 {path}; ask for a new enrolment"
        )
    return ok("site's key", f"{path}: identity {found[:16]}")
