"""The files that a report is made from, read and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cordon.auditing import certificate
from cordon.errors import UserError
from cordon.files import parse_json
from cordon.ledger.rows import Row
from cordon.ledger.spending import charged
from cordon.privacy.events import Event, all_mechanisms
from cordon.privacy.guarantee import Guarantee
from cordon.report.sources import (
    EqualEvents,
    Federation,
    Ledger,
    OwnSpending,
    Round,
    SiteOutcome,
    SiteRound,
)

SiteRow = TypeVar("SiteRow", SiteRound, SiteOutcome)


def read_federation(path: Path) -> Federation:
    """Read federation.json; UserError names what it lacks."""
    raw = read_object(path)
    try:
        plan, guarantee = raw["plan"], Guarantee.of(raw["plan"])
        sites = tuple(_pick(SiteOutcome, item) for item in raw["sites"])
        used = [guarantee.mechanism, *(site.mechanism for site in sites if site.epsilon_rdp)]
        return Federation(
            run=str(raw["run"]),
            plan=plan,
            guarantee=guarantee,
            lifetime=replace(guarantee, mechanism=all_mechanisms(used)),
            budget=float(plan.get("lifetime_epsilon") or plan["epsilon"]),
            model_hash=str(raw["model_hash"]),
            seconds=float(raw["seconds"]),
            rounds=tuple(_round(item) for item in raw["rounds"]),
            sites=sites,
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


def read_spent(path: Path) -> OwnSpending:
    """Read SITE.spent.json; UserError names what it lacks."""
    raw = read_object(path)
    try:
        plan = raw["plan"]
        rdp, run_rdp = float(raw["epsilon_rdp"]), float(raw["run_epsilon_rdp"])
        pld, run_pld = (
            None if raw[name] is None else float(raw[name]) for name in ("epsilon_pld", "run_epsilon_pld")
        )
        lifetime = Guarantee.of(raw)
        in_run = replace(lifetime, mechanism=str(raw["run_mechanism"]))
        return OwnSpending(
            str(raw["site"]), rdp, pld, run_rdp, run_pld, float(raw["budget"]), lifetime, in_run, plan,
            tuple(raw.get("at_more_sites", ())),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a SITE.spent.json ({error}). Give the one train_site wrote.") from error


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read evaluation.json; UserError names what it lacks."""
    return _with(path, ("samples", "alleles", "scores", "filters"), writer="evaluate_scores")


def read_versions(path: Path) -> list[tuple[str, str, str]]:
    """Read versions.yml (process, then indented ``tool: version``) as rows (process, tool, version)."""
    try:
        whole = yaml.compose(text_of(path), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}). Correct it.") from error
    return sorted(
        {
            (process.value, tool.value, version.value)
            for process, tools in _pairs(whole, path)
            for tool, version in _pairs(tools, path)
            if _scalar(version, path)
        }
    )


def _pairs(node: Any, path: Path) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping, and of a key that comes again: tasks of one process may differ."""
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise _no_versions(node, path)
    return [(key, value) for key, value in node.value if _scalar(key, path)]


def _scalar(node: Any, path: Path) -> bool:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _no_versions(node, path)
    return True


def _no_versions(node: Any, path: Path) -> UserError:
    line = node.start_mark.line + 1
    return UserError(f"{path}, line {line}: not `PROCESS:` or an indented `tool: version`. Correct it.")


def read_callset(path: Path) -> dict[str, Any]:
    """Read callset.json; UserError names what it lacks."""
    return _with(path, ("samples", "alleles", "callers", "filters"), writer="describe_calls")


def read_duplicates(path: Path) -> dict[str, Any]:
    """Read SAMPLE.reads.json; UserError names what it lacks."""
    needed = ("sample", "marking", "reads", "duplicates", "duplicate_rate", "warning")
    return _with(path, needed, writer="normalise_reads")


def read_ledger(path: Path) -> Ledger:
    """Read a ledger (JSON lines): its rows, the last one's hash, its events; it is not verified here."""
    rows: list[Any] = []
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        try:
            row = parse_json(line)
            _ = row["hash"], _events([row])  # where a row cannot be read, it is named
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(
                f"{path}, row {number}: not a ledger row ({error}). Give the file unchanged."
            ) from error
        rows.append(row)
    head = str(rows[-1]["hash"]) if rows else ""
    events = Counter(_events(rows))
    spent = [EqualEvents(site, **event.to_dict(), rounds=count) for (site, event), count in events.items()]
    return Ledger(len(rows), head, tuple(spent))


def _events(rows: Sequence[Row]) -> list[tuple[str, Event]]:
    return [(str(row["site"]), event) for row, events in charged(rows) for event in events]


def read_certificate(path: Path) -> dict[str, Any]:
    """Read certificate.json, to be shown: `cordon certificate verify` says whether it holds."""
    return certificate.read(path)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object; UserError says why it is not one."""
    try:
        value = parse_json(text_of(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). Make the file again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object. Make the file again.")
    return value


def _with(path: Path, keys: Sequence[str], *, writer: str) -> dict[str, Any]:
    """The JSON object at ``path``, which has ``keys`` if ``writer`` wrote it."""
    raw = read_object(path)
    lacking = [key for key in keys if key not in raw]
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}. Give the file that {writer} wrote.")
    return raw


def _round(item: Mapping[str, Any]) -> Round:
    sites = tuple(_pick(SiteRound, site) for site in item["sites"])
    return Round(int(item["round"]), float(item["seconds"]), sites)


def _pick(kind: type[SiteRow], item: Mapping[str, Any]) -> SiteRow:
    """Build a dataclass from the keys that it has; keys beyond them are left out."""
    given = {field.name for field in fields(kind) if field.name in item or field.default is MISSING}
    return kind(**{name: item[name] for name in given})


def text_of(path: Path) -> str:
    """The file's text; UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Give a readable text file.") from error
