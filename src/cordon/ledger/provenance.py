"""What computed a result: the code, the software beneath it, and what checks of it found before.

All of it is public and the same whatever rows there are.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from cordon.errors import UserError

# What reading, training and accounting compute with.
SOFTWARE = (
    "cordon", "torch", "opacus", "dp-accounting", "flwr", "numpy", "scipy", "pyarrow", "cryptography",
)  # fmt: skip
SOURCES = Path(__file__).parents[1]
# What a site may say: it goes into ledgers and certificates, and a site may send anything.
LONGEST = 4000
CODE = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[0-9A-Za-z.+_-]{1,60}")
CHECK = re.compile(r"[a-z ]{1,30}")


class Verdict(StrEnum):
    """What a check can say (`cordon.auditing.checks`)."""

    PASSED = "passed"
    FAILED = "failed"
    UNABLE = "not able to refute"
    UNTRIED = "not tried"


class ProvenanceFields(TypedDict):
    """The fields of a `Provenance`."""

    code: str
    versions: Mapping[str, str]
    verdicts: Mapping[str, Verdict]
    seeded: bool


@dataclass(frozen=True)
class Provenance:
    """The ``code`` (`code_digest`), ``versions`` by package, and the ``verdicts`` of its checks by name.

    No verdicts: nothing was checked. ``seeded``: noise and sampling came of another source than the operating
    system's generator, so that nothing is private.
    """

    code: str
    versions: Mapping[str, str]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    seeded: bool = False

    def to_dict(self) -> ProvenanceFields:
        return {
            "code": self.code, "versions": dict(self.versions), "verdicts": dict(self.verdicts),
            "seeded": self.seeded,
        }  # fmt: skip

    def to_text(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, in hexadecimal."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    @property
    def faults(self) -> list[str]:
        """Why what it computed is not private, by what it says itself."""
        failed = [
            f"its check of {name} failed" for name, said in self.verdicts.items() if said == Verdict.FAILED
        ]
        return (["seeded: not private"] if self.seeded else []) + failed

    @classmethod
    def from_dict(cls, said: Any) -> Provenance:
        """UserError where ``said`` is no such thing."""
        kinds = {"code": str, "versions": dict, "verdicts": dict, "seeded": bool}
        if not isinstance(said, dict) or {name: type(value) for name, value in said.items()} != kinds:
            raise UserError(f"a provenance needs {', '.join(kinds)}. Use this version of Cordon.")
        pairs = [
            (CODE.fullmatch(said["code"]) is not None, "code"),
            (set(said["versions"]) <= {*SOFTWARE, "python"}, "versions"),
            (all(_matches(VERSION, value) for value in said["versions"].values()), "versions"),
            (all(_matches(CHECK, value) for value in said["verdicts"]), "verdicts"),
            (all(value in [*Verdict] for value in said["verdicts"].values()), "verdicts"),
        ]
        for holds, name in pairs:
            if not holds:
                raise UserError(f"a provenance whose {name} are none. Use this version of Cordon.")
        verdicts = {name: Verdict(verdict) for name, verdict in said["verdicts"].items()}
        return cls(said["code"], said["versions"], verdicts, said["seeded"])

    @classmethod
    def from_text(cls, text: str) -> Provenance:
        """UserError where ``text`` is not what `to_text` makes."""
        try:
            said = json.loads(text) if len(text) <= LONGEST else None
        except (ValueError, RecursionError):
            said = None
        return cls.from_dict(said)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def installed() -> Provenance:
    """What is installed here, of which nothing was checked."""
    return Provenance(code_digest(), software())


@cache
def code_digest() -> str:
    """SHA-256, in hexadecimal, over every Python file of this package: its path and its content, in order."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py"), key=lambda path: path.relative_to(SOURCES).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


@cache
def software() -> dict[str, str]:
    """The versions of SOFTWARE, where it is installed, and of Python."""
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # the aggregator's image has no PyTorch
    return found | {"python": platform.python_version()}
