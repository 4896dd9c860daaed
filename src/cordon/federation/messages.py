"""Every message between a site and the aggregator: built here, and taken apart here, by allow-list.

A site's reply holds what ``Reply`` names and nothing else. Whoever wants another field on the wire
adds it here, where a reviewer looks; a message with anything more is refused by the receiver.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from cordon import foreign
from cordon.errors import FederationError, UserError
from cordon.federation.plan import Plan
from cordon.ledger.log import Tip
from cordon.ledger.provenance import Provenance, installed
from cordon.model.architectures import Parameters
from cordon.privacy.events import MECHANISMS, Event

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

HASH = re.compile(r"[0-9a-f]{1,64}")
UPDATE_KEYS = {"declaration", "update"}


class ReplyStatus(StrEnum):
    """What a site did with what it was sent."""

    TRAINED = "trained"
    STOPPED = "stopped"  # by itself: its own budget allows no further round
    ANSWERED = "answered"  # before, and that answer was lost
    RECEIVED = "received"  # the outcome, which asks for nothing


class SiteStatus(StrEnum):
    """How a site's part in a run ended."""

    FINISHED = "finished"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"  # by itself
    MISSING = "missing"
    FAILED = "failed"  # for everybody: the run has no model


DECLARATION: dict[str, set[str]] = {
    ReplyStatus.TRAINED: {
        "status", "run", "round", "mechanism", "noise_multiplier", "sampling_rate", "steps", "sites",
        "provenance",
    },
    ReplyStatus.STOPPED: {"status", "run", "round"},
    ReplyStatus.ANSWERED: {"status", "run", "round"},
    ReplyStatus.RECEIVED: {"status", "run", "round"},
}  # fmt: skip


class MalformedMessage(FederationError):
    """A message that holds anything but what the allow-list names."""


@dataclass(frozen=True)
class Task:
    """The aggregator's request: train ``round`` of ``plan`` from ``parameters``; its ledger is at ``tip``."""

    plan: Plan
    round: int
    declared_patients: int
    parameters: Parameters
    tip: Tip

    def to_records(self) -> RecordDict:
        from flwr.app import ConfigRecord, RecordDict

        round_ = ConfigRecord({"round": self.round, "declared_patients": self.declared_patients})
        return RecordDict(
            {
                "plan": ConfigRecord(self.plan.to_dict()), "round": round_, "model": _arrays(self.parameters),
                "ledger": ConfigRecord(asdict(self.tip)),
            }
        )  # fmt: skip

    @classmethod
    def from_records(cls, content: RecordDict) -> Task:
        known = {"plan", "round", "model", "ledger"}
        _require(set(content) == known, f"a task with records {foreign.names(content)}")
        round_ = _config(content, "round")
        _require(
            set(round_) == {"round", "declared_patients"} and all(type(v) is int for v in round_.values()),
            "a task without round and declared_patients",
        )
        plan, parameters = Plan.from_dict(_config(content, "plan")), _parameters(content, "model")
        _require(
            all(np.isfinite(array).all() for array in parameters.values()),
            "a task whose model holds NaN or infinity",
        )
        return cls(plan, round_["round"], round_["declared_patients"], parameters, _tip(content))


@dataclass(frozen=True)
class Outcome:
    """The aggregator's last word to a site: how its part in ``plan`` ended, and the final model if any."""

    run: str
    status: str
    reason: str
    privacy: str
    architecture: str
    plan: Plan
    parameters: Parameters
    tip: Tip

    def to_records(self) -> RecordDict:
        from flwr.app import ConfigRecord, RecordDict

        words: dict[str, Any] = {
            "run": self.run, "status": str(self.status), "reason": self.reason, "privacy": self.privacy,
            "architecture": self.architecture,
        }  # fmt: skip
        return RecordDict(
            {
                "outcome": ConfigRecord(words), "plan": ConfigRecord(self.plan.to_dict()),
                "model": _arrays(self.parameters), "ledger": ConfigRecord(asdict(self.tip)),
            }
        )  # fmt: skip

    @classmethod
    def from_records(cls, content: RecordDict) -> Outcome:
        known = {"outcome", "plan", "model", "ledger"}
        _require(set(content) == known, f"an outcome with records {foreign.names(content)}")
        words = _config(content, "outcome")
        _require(
            set(words) == {"run", "status", "reason", "privacy", "architecture"}
            and all(type(word) is str for word in words.values()),
            "an outcome without its words",
        )
        plan = Plan.from_dict(_config(content, "plan"))
        return cls(**words, plan=plan, parameters=_parameters(content, "model"), tip=_tip(content))


@dataclass(frozen=True)
class Reply:
    """All that a site ever sends: what it did, what that cost, and the private update if it trained.

    With an update goes what computed it, which is public: code, versions, and verdicts on made-up rows.
    """

    status: ReplyStatus
    run: str
    round: int
    event: Event | None = None
    update: Parameters | None = None
    provenance: Provenance = field(default_factory=installed)

    def to_records(self) -> RecordDict:
        from flwr.app import ConfigRecord, RecordDict

        declared: dict[str, Any] = {"status": self.status.value, "run": self.run, "round": self.round}
        records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
        if self.status == ReplyStatus.TRAINED:
            assert self.event is not None
            assert self.update is not None
            declared |= self.event.to_dict() | {"provenance": self.provenance.to_text()}
            records["update"] = _arrays(self.update)
        records["declaration"] = ConfigRecord(declared)
        return RecordDict(records)

    @classmethod
    def from_records(cls, content: RecordDict) -> Reply:
        """The reply in ``content``; MalformedMessage where it holds more, less or other than a reply."""
        declared = _config(content, "declaration")
        status = declared.get("status")
        _require(
            isinstance(status, str) and set(declared) == DECLARATION.get(status),
            f"a declaration with {foreign.names(declared)}",
        )
        trained = status == ReplyStatus.TRAINED
        _require(
            set(content) == (UPDATE_KEYS if trained else {"declaration"}),
            f"a reply with records {foreign.names(content)}",
        )
        _require(
            type(declared["run"]) is str and type(declared["round"]) is int, "a declaration of other types"
        )
        if not trained:
            return cls(ReplyStatus(str(status)), declared["run"], declared["round"])
        return cls(
            ReplyStatus.TRAINED, declared["run"], declared["round"], _event(declared),
            _parameters(content, "update"), _provenance(declared),
        )  # fmt: skip


def _tip(content: RecordDict) -> Tip:
    said = _config(content, "ledger")
    types = {"key": str, "rows": int, "digest": str, "signature": str}
    _require({name: type(value) for name, value in said.items()} == types, "a ledger's tip of other fields")
    hashes = all(HASH.fullmatch(said[name]) for name in ("key", "digest"))
    _require(hashes and said["rows"] >= 0, "a ledger's tip that no ledger has")
    # Else another aggregator could say of an honest one's ledger that it is longer than it is.
    _require((tip := Tip(**said)).genuine, "a ledger's tip that is not signed by the ledger's key")
    return tip


def _event(declared: dict[str, Any]) -> Event:
    numbers = {name: declared[name] for name in ("noise_multiplier", "sampling_rate")}
    _require(
        all(type(number) is float for number in numbers.values())
        and all(type(declared[name]) is int for name in ("steps", "sites")),
        "an event of other types",
    )
    told = foreign.name(declared["mechanism"])
    _require(declared["mechanism"] in MECHANISMS, f"an event of another mechanism, {told}")
    try:
        return Event(**numbers, **{name: declared[name] for name in ("steps", "mechanism", "sites")})
    except UserError as error:
        raise MalformedMessage(foreign.words(error)) from error


def _provenance(declared: dict[str, Any]) -> Provenance:
    _require(type(declared["provenance"]) is str, "a provenance of another type")
    try:
        return Provenance.from_text(declared["provenance"])
    except UserError as error:
        raise MalformedMessage(f"refused: {foreign.words(error)}") from error


def _arrays(parameters: Parameters) -> ArrayRecord:
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array.from_numpy_ndarray(value) for name, value in parameters.items()})


def _parameters(content: RecordDict, key: str) -> Parameters:
    from flwr.app import ArrayRecord

    record = content.get(key)
    _require(isinstance(record, ArrayRecord), f"{key} is no array record")
    assert isinstance(record, ArrayRecord)
    try:
        # Flower deserialises with numpy's allow_pickle off.
        parameters = {name: array.numpy() for name, array in record.items()}
    except Exception as error:  # numpy has many: of an archive, of a header that asks for terabytes
        raise MalformedMessage(f"refused: {key} cannot be read as arrays") from error
    _require(
        all(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in parameters.values()),
        f"{key} is not float32",
    )
    return parameters


def _config(content: RecordDict, key: str) -> dict[str, Any]:
    from flwr.app import ConfigRecord

    record = content.get(key)
    _require(isinstance(record, ConfigRecord), f"no {key}")
    assert isinstance(record, ConfigRecord)
    return dict(record)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedMessage(f"refused: {what}")
