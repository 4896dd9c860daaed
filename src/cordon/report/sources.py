"""What a report is made from: the run's JSON files, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from cordon.auditing import certificate
from cordon.errors import UserError


@dataclass(frozen=True)
class Guarantee:
    """What every epsilon of the run means; it is printed beside each of them."""

    unit: str
    delta: float
    mechanism: str
    adjacency: str


@dataclass(frozen=True)
class SiteRound:
    """One site in one round; epsilons are the site's spend so far, this round included."""

    site: str
    decision: str
    reason: str
    epsilon_rdp: float | None
    epsilon_pld: float | None
    update_norm: float | None
    bytes: int


@dataclass(frozen=True)
class Round:
    """One round of the federation; ``seconds`` is its wall time."""

    round: int
    seconds: float
    sites: tuple[SiteRound, ...]


@dataclass(frozen=True)
class SiteOutcome:
    """How a site ended the run and what it spent in all."""

    site: str
    weight: float
    declared_patients: int
    status: str
    reason: str
    epsilon_rdp: float | None
    epsilon_pld: float | None


Row = TypeVar("Row", SiteRound, SiteOutcome)


@dataclass(frozen=True)
class Federation:
    """federation.json: the plan, every decision of every round, and each site's outcome."""

    run: str
    plan: Mapping[str, Any]
    guarantee: Guarantee
    budget: float
    model_hash: str
    seconds: float
    rounds: tuple[Round, ...]
    sites: tuple[SiteOutcome, ...]
    # The public model that the run started from, and how it compared with the refined one; empty without.
    start: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ledger:
    """The aggregator's ledger: how many rows it holds and the hash of the last."""

    rows: int
    head: str


@dataclass(frozen=True)
class Sources:
    """Everything a report may be made from; None where the run has no such thing."""

    parameters: Mapping[str, Any]
    federation: Federation | None = None
    evaluation: Mapping[str, Any] | None = None
    versions: Sequence[tuple[str, str, str]] = ()
    ledger: Ledger | None = None
    certificate: Mapping[str, Any] | None = None

    @property
    def guarantee(self) -> Guarantee | None:
        """What every epsilon of the report means; None where there is none."""
        if self.federation is not None:
            return self.federation.guarantee
        if self.certificate is None:
            return None
        said = self.certificate["guarantee"]
        return Guarantee(said["unit"], said["delta"], said["mechanism"], said["adjacency"])


def read_federation(path: Path) -> Federation:
    """Read federation.json; UserError names what it lacks."""
    raw = read_object(path)
    try:
        plan = raw["plan"]
        return Federation(
            run=str(raw["run"]),
            plan=plan,
            guarantee=Guarantee(
                str(plan["unit"]), float(plan["delta"]), str(plan["mechanism"]), str(plan["adjacency"])
            ),
            budget=float(plan["epsilon"]),
            model_hash=str(raw["model_hash"]),
            seconds=float(raw["seconds"]),
            rounds=tuple(_round(item) for item in raw["rounds"]),
            sites=tuple(_pick(SiteOutcome, item) for item in raw["sites"]),
            start=dict(raw.get("start", {})),
        )
    except KeyError as error:
        raise UserError(
            f"{path}: lacks {error}. Give the federation.json that the aggregator wrote."
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a federation.json ({error}). Give the one the aggregator wrote."
        ) from error


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read evaluation.json; UserError names what it lacks."""
    raw = read_object(path)
    lacking = [key for key in ("samples", "alleles", "scores", "filters") if key not in raw]
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}. Give the file that evaluate_scores wrote.")
    return raw


def read_versions(path: Path) -> list[tuple[str, str, str]]:
    """Read versions.yml (process, then indented ``tool: version``) as rows (process, tool, version)."""
    rows: list[tuple[str, str, str]] = []
    process = ""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, value = line.partition(": ") if not line.rstrip().endswith(":") else line.rpartition(":")
        name, value = name.strip().strip("\"'"), value.strip().strip("\"'")
        if not colon or bool(value) != line.startswith((" ", "\t")):
            raise UserError(
                f"{path}, line {number}: not `PROCESS:` or an indented `tool: version`. Correct it."
            )
        if value:
            rows.append((process, name, value))
        else:
            process = name
    return sorted(set(rows))


def read_ledger(path: Path) -> Ledger:
    """Count the rows of a ledger (JSON lines) and find the last row's hash; it is not verified here."""
    rows = 0
    head = ""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            head = str(json.loads(line)["hash"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, row {number}: not a ledger row ({error}). Give the file unchanged."
            ) from error
        rows = number
    return Ledger(rows, head)


def read_certificate(path: Path) -> dict[str, Any]:
    """Read certificate.json, to be shown: `cordon certificate verify` says whether it holds."""
    return certificate.read(path)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object; UserError says why it is not one."""
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). Make the file again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object. Make the file again.")
    return value


def _round(item: Mapping[str, Any]) -> Round:
    sites = tuple(_pick(SiteRound, site) for site in item["sites"])
    return Round(int(item["round"]), float(item["seconds"]), sites)


def _pick(kind: type[Row], item: Mapping[str, Any]) -> Row:
    """Build a dataclass from the keys that it has; keys beyond them are left out."""
    return kind(**{field.name: item[field.name] for field in fields(kind)})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Give a readable text file.") from error
