"""Tests of cordon.ledger.rows: the keys that a row's type names are those that are written."""

import json
from dataclasses import fields
from typing import NotRequired, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from composition import DELTA
from cordon.auditing.attempts import Attempt
from cordon.auditing.checks import Check
from cordon.errors import BudgetExceeded
from cordon.federation.aggregator.judge import Auditor, Decision
from cordon.federation.aggregator.registry import Registry
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog, Tip
from cordon.ledger.provenance import Provenance, Verdict, installed
from cordon.ledger.rows import DecisionFields, Judgement, Kind, ProvenanceFields, Row
from cordon.ledger.site import SiteLedger, follow_anew
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping

EVENT = Event(2.0, 0.1, 10)
PATIENTS = Grouping("patient", "mlp", 256, 40)
PLAN = Plan(
    run="run", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=3, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
)  # fmt: skip
NORTH = Site("north", 40, 1.0, "key of north")


def of_a_site(path):
    held = SiteLedger(path, epsilon=8.0, delta=DELTA)
    held.note_test("run", "a" * 64, installed().to_dict())
    held.follow("run", Tip("b" * 64, 1, "c" * 64))
    follow_anew(path, "b" * 64, "restored of Monday")
    held.reserve("run", 1, EVENT, PATIENTS, ["p", "q"], accountant="rdp")
    held.mark_sent("run", 1, {"threshold": 0.5})
    held.reserve("run", 2, EVENT, PATIENTS, accountant="rdp")
    held.mark_sent("run", 2)
    with pytest.raises(BudgetExceeded):
        held.reserve("run", 3, Event(0.1, 1.0, 100), PATIENTS, ["p"], accountant="rdp")


def of_an_aggregator(path):
    log = ChainedLog(path)
    registry = Registry(log)
    registry.enrol(NORTH)
    registry.ban("north", "sent noise")
    registry.release("north", "mended")
    start = initial_parameters("logistic", 3)
    judge = Auditor(PLAN, log, expected=start)
    for number in (1, 2):
        judge.charges.ask(number, [NORTH])
        update = {name: np.full_like(value, 0.1 * number) for name, value in start.items()}
        trained = Reply(ReplyStatus.TRAINED, "run", number, PLAN.event, update)
        judge.judge(number, {NORTH: (trained, "")})
    judge.judge(3, {NORTH: (None, "")})


def of_an_audit(path):
    ChainedLog(path)
    attempt = Attempt(path, "d" * 64, {"limits": {}, "trainings": 1, "canaries": 1, "confidence": {}})
    attempt.done([Check("noise", "Is there noise?", Verdict.PASSED, "there is")])


def types():
    """By kind: the keys that a row must have, and those that it may have."""
    found = {}
    for row in get_args(Row):
        hints = get_type_hints(row, include_extras=True)
        needed = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
        found |= dict.fromkeys(get_args(hints["kind"]), (needed, set(hints)))
    return found


def test_rows_of_every_kind_have_the_keys_that_their_types_name(tmp_path):
    written = {}
    for name, write in (("site", of_a_site), ("aggregator", of_an_aggregator), ("audit", of_an_audit)):
        write(tmp_path / f"{name}.sqlite")
        for line in ChainedLog(tmp_path / f"{name}.sqlite").chain.lines:
            row = json.loads(line)
            written.setdefault(row["kind"], []).append(set(row) - {"previous", "hash", "signature"})
    assert set(written) == set(Kind) == set(types())
    for kind, (needed, known) in types().items():
        for keys in written[kind]:
            assert needed <= keys <= known, kind


@pytest.mark.parametrize(
    ("typed", "held"), [(DecisionFields, Decision), (ProvenanceFields, Provenance)], ids=["decision", "code"]
)
def test_the_dictionary_of_a_class_has_its_fields(typed, held):
    assert list(get_type_hints(typed)) == [field.name for field in fields(held)]


def test_a_decision_comes_back_from_its_dictionary_with_its_type():
    said = Decision("north", Judgement.MISSING, "no reply", 0.5, None)
    again = Decision.from_dict(json.loads(json.dumps(said.to_dict())))
    assert again == said
    assert isinstance(again.decision, Judgement)
