"""The kinds of rows that ledgers hold, and what a decision can be."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a row is of; no other kind is known to this version."""

    # In a site's ledger: its budget; what a round costs, before it trains; its answer, before it leaves; that
    # a run ended here because nobody had room; how far the aggregator's ledger was; and what checks of the
    # training code found before a run reserved anything.
    BUDGET = "budget"
    RESERVED = "reserved"
    SENT = "sent"
    STOPPED = "stopped"
    FOLLOWED = "followed"
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
