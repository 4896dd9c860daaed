"""What stands in ledgers: the kinds of rows, and what a row of each kind says.

Rows are dictionaries, as JSON has them; whoever looks at a row's kind knows its keys (``row["kind"] ==
Kind.SENT``), and so does mypy.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

from cordon.ledger.provenance import ProvenanceFields, Verdict


class Kind(StrEnum):
    """What a row is of; no other kind is known to this version."""

    # In a site's ledger: its budget; what a round costs, before it trains; its answer, before it leaves; that
    # a run ended here because nobody had room; how far the aggregator's ledger was, and that its owner took
    # that one back from an older copy; and what checks of the training code found before a run reserved
    # anything.
    BUDGET = "budget"
    RESERVED = "reserved"
    SENT = "sent"
    STOPPED = "stopped"
    FOLLOWED = "followed"
    ANEW = "followed anew"
    TESTED = "tested"
    # In an aggregator's: that a site is about to be sent a round's task, the decision on what came of it, and
    # those of its registry. The first two may cost.
    ASKED = "asked"
    DECISION = "decision"
    ENROLLED = "enrolled"
    BANNED = "banned"
    RELEASED = "released"
    # In whoever's ledger signs the certificate: that an audit of a model began, and what it found.
    AUDIT = "audit"
    AUDITED = "audited"


class Judgement(StrEnum):
    """What the aggregator decides on a site's part in a round."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    MISSING = "missing"


# An event's fields (`cordon.privacy.events.Event`).
EventFields = dict[str, Any]


class BudgetRow(TypedDict):
    """What a patient may spend in a lifetime, from here on; the first ledgers name no accountant."""

    kind: Literal[Kind.BUDGET]
    epsilon: float
    delta: float
    accountant: NotRequired[str]


class ReservedRow(TypedDict):
    """What a round costs those of a cohort, or everybody where it names none (`cordon.ledger.cohorts`)."""

    kind: Literal[Kind.RESERVED]
    run: str
    round: int
    unit: str
    event: EventFields
    declared_units: NotRequired[int]
    grouping: NotRequired[str]
    cohort: NotRequired[str]
    salt: NotRequired[str]


class SentRow(TypedDict):
    """That a round's answer leaves; ``released`` is what it says, where that is small."""

    kind: Literal[Kind.SENT]
    run: str
    round: int
    released: NotRequired[dict[str, Any]]


class StoppedRow(TypedDict):
    """That nobody had room for a round, which ended the run here."""

    kind: Literal[Kind.STOPPED]
    run: str
    round: int


class TipFields(TypedDict):
    """A tip's fields (`cordon.ledger.log.Tip`)."""

    key: str
    rows: int
    digest: str


class FollowedRow(TipFields):
    """How far the aggregator's ledger was."""

    kind: Literal[Kind.FOLLOWED]
    run: str


class AnewRow(TypedDict):
    """That the site's owner took back the aggregator's ledger of the key, wherever it is now."""

    kind: Literal[Kind.ANEW]
    key: str
    reason: str


class TestedFields(ProvenanceFields):
    """What trains by a plan of these settings (their digest), and what checks of it found."""

    plan: str


class TestedRow(TestedFields):
    """That it trains in a run; ``before`` says that the checks were made for an earlier one."""

    kind: Literal[Kind.TESTED]
    run: str
    before: bool


class OnRound(TypedDict):
    """Of whose part in which round a row is, and what the plan was then held against."""

    run: str
    round: int
    identity: str
    budget: float
    delta: float
    accountant: NotRequired[str]
    unit: str


class AskedRow(OnRound):
    """That a site is about to be sent a round's task, which costs ``event``; ``plan`` is its digest."""

    kind: Literal[Kind.ASKED]
    site: str
    event: EventFields
    plan: NotRequired[str]


class DecisionFields(TypedDict):
    """A decision's fields (`cordon.federation.aggregator.judge.Decision`)."""

    site: str
    decision: Judgement
    reason: str
    epsilon_rdp: float
    epsilon_pld: float | None
    update_norm: float | None
    bytes: int
    ceiling: float | None
    small: int
    most_small: int | None
    digest: str
    mechanism: str


class TrainedByFields(TypedDict):
    """The digest of what computed an update, and, in a run's first row with it, all of it."""

    trained_by: NotRequired[str]
    provenance: NotRequired[ProvenanceFields]


class DecisionRow(OnRound, DecisionFields, TrainedByFields):
    """The decision on a site's part in a round, and the events that it is charged for it."""

    kind: Literal[Kind.DECISION]
    events: list[EventFields]


class EnrolledRow(TypedDict):
    """What a site declares, and the key that it connects with."""

    kind: Literal[Kind.ENROLLED]
    identity: str
    site: str
    declared_patients: int
    weight: float
    public_key: str


class StandingRow(TypedDict):
    """That an identity takes no part from here on, or may again, and who says so (aggregator, operator)."""

    kind: Literal[Kind.BANNED, Kind.RELEASED]
    identity: str
    reason: str
    by: str


class AuditSettings(TypedDict):
    """What an audit holds attacks against, how often it tries, and how sure its verdicts are."""

    limits: Mapping[str, float]
    trainings: int
    canaries: int
    confidence: Mapping[str, float]


class OnAudit(AuditSettings):
    """Which audit of which model, by what code."""

    attempt: int
    model: str
    code: str


class AuditRow(OnAudit):
    """That an audit of a model began."""

    kind: Literal[Kind.AUDIT]


class AuditedRow(OnAudit):
    """What it found, by check."""

    kind: Literal[Kind.AUDITED]
    verdicts: dict[str, Verdict]


ChargedRow = AskedRow | DecisionRow
IdentityRow = ChargedRow | EnrolledRow | StandingRow
Row = (
    BudgetRow | ReservedRow | SentRow | StoppedRow | FollowedRow | AnewRow | TestedRow
    | IdentityRow | AuditRow | AuditedRow
)  # fmt: skip
