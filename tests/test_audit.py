"""Tests of cordon.federation.audit."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cordon.accountants import MOST_STEPS, Event, epsilon_pld, epsilon_rdp
from cordon.errors import UserError
from cordon.federation.audit import (
    ACCEPTED,
    LONGEST_REASON,
    MISSING,
    QUARANTINED,
    Auditor,
    average,
    identity,
)
from cordon.federation.messages import RECEIVED, STOPPED, TRAINED, Reply
from cordon.federation.plan import Plan, Site
from cordon.ledger import ChainedLog
from cordon.model import initial_parameters

PLAN = Plan(
    run="run-1", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=3, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
)  # fmt: skip
START = initial_parameters("logistic", 3)
UPDATE = {"0.weight": np.array([[3.0, 0.0, 4.0]], np.float32), "0.bias": np.zeros(1, np.float32)}
SITE = Site("h1", 40, 1.0, "-----BEGIN PUBLIC KEY-----\nh1\n-----END PUBLIC KEY-----\n")
OTHER = Site("h2", 40, 1.0, "-----BEGIN PUBLIC KEY-----\nh2\n-----END PUBLIC KEY-----\n")


@pytest.fixture
def log(tmp_path):
    return ChainedLog(tmp_path / "ledger.sqlite")


def auditor(log, plan=PLAN):
    return Auditor(plan, log, expected=START)


def reply(number=1, **changes):
    return Reply(**({"status": TRAINED, "run": "run-1", "round": number, "event": PLAN.event,
                     "update": UPDATE} | changes))  # fmt: skip


def test_a_sound_reply_is_accepted_with_its_epsilons_norm_and_size(log):
    decision = auditor(log).judge(SITE, 1, reply())
    assert (decision.site, decision.decision, decision.reason) == ("h1", ACCEPTED, "")
    assert decision.epsilon_rdp == epsilon_rdp([PLAN.event], 1e-5)
    assert decision.epsilon_pld == epsilon_pld([PLAN.event], 1e-5)
    assert decision.update_norm == 5.0
    assert decision.bytes == 16


def test_epsilon_composes_over_the_rounds_of_a_run(log):
    judge = auditor(log)
    decisions = [judge.judge(SITE, number, reply(number)) for number in (1, 2, 3)]
    assert [d.decision for d in decisions] == [ACCEPTED] * 3
    assert decisions[-1].epsilon_rdp == epsilon_rdp([Event(2.0, 0.3, 6)], 1e-5)
    assert judge.spent(SITE) == (decisions[-1].epsilon_rdp, decisions[-1].epsilon_pld)
    assert judge.spent(OTHER) == (0.0, 0.0)


def budget_for(rounds):
    return epsilon_rdp([PLAN.event] * rounds, PLAN.delta)


def test_the_round_over_budget_is_quarantined_and_the_one_at_it_is_not(log):
    judge = auditor(log, replace(PLAN, epsilon=budget_for(2)))
    assert judge.judge(SITE, 1, reply(1)).decision == ACCEPTED
    assert judge.judge(SITE, 2, reply(2)).decision == ACCEPTED
    decision = judge.judge(SITE, 3, reply(3))
    assert decision.decision == QUARANTINED
    assert decision.reason.startswith("over budget: epsilon")
    for part in ("one patient", "delta 1e-05", "Poisson-sampled Gaussian", "add or remove one unit"):
        assert part in decision.reason
    assert decision.epsilon_pld is None
    assert judge.judge(OTHER, 3, reply(3)).decision == ACCEPTED


@pytest.mark.parametrize("name", ["h1", "another name"])
def test_earlier_runs_of_the_same_key_count_under_whatever_name(log, name):
    plan = replace(PLAN, epsilon=budget_for(2))
    for number in (1, 2):
        auditor(log, plan).judge(SITE, number, reply(number))
    later = auditor(ChainedLog(log.path), replace(plan, run="run-2"))
    renamed = replace(SITE, name=name, public_key=SITE.public_key.replace("\n", "\r\n"))
    decision = later.judge(renamed, 1, reply(run="run-2"))
    assert (decision.decision, decision.site) == (QUARANTINED, name)
    assert "over budget" in decision.reason
    assert later.judge(OTHER, 1, reply(run="run-2")).decision == ACCEPTED


@pytest.mark.parametrize(
    "event",
    [Event(0.5, 0.3, 2), Event(2.0, 0.3, 2000), Event(2.0, 1.0, 200)],
    ids=["less noise", "more steps", "every patient"],
)
def test_a_declaration_over_budget_is_quarantined_and_stays_in_the_account(log, event):
    judge = auditor(log)
    decision = judge.judge(SITE, 1, reply(event=event))
    assert decision.decision == QUARANTINED
    assert "over budget" in decision.reason
    assert judge.spent(SITE)[0] == epsilon_rdp([event], 1e-5) > PLAN.epsilon
    assert "over budget" in auditor(log).judge(SITE, 2, reply(2)).reason


@pytest.mark.parametrize("event", [Event(3.0, 0.3, 2), Event(2.0, 0.2, 2), Event(2.0, 0.3, 1)])
def test_a_cheaper_declaration_than_the_plans_is_quarantined_too(log, event):
    decision = auditor(log).judge(SITE, 1, reply(event=event))
    assert (decision.decision, decision.reason) == (QUARANTINED, "declared events that are not the plan's")


@pytest.mark.parametrize("changes", [{"run": "run-0"}, {"round": 1}, {"round": 3}, {"round": -2}], ids=str)
def test_a_reply_to_another_round_or_run_is_quarantined(log, changes):
    decision = auditor(log).judge(SITE, 2, reply(2, **changes))
    assert decision.decision == QUARANTINED
    assert "stale or replayed" in decision.reason


def test_a_second_reply_to_a_round_is_quarantined_also_after_a_restart(log):
    auditor(log).judge(SITE, 1, reply())
    for restarted in (False, True):
        held = ChainedLog(log.path) if restarted else log
        decision = auditor(held).judge(SITE, 1, reply())
        assert decision.decision == QUARANTINED
        assert decision.reason == "a second reply to round 1 of run run-1: replayed"


WEIGHT, BIAS = UPDATE["0.weight"], UPDATE["0.bias"]


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"0.weight": WEIGHT}, "parameters"),
        ({"0.weight": WEIGHT, "0.bias": BIAS, "more": BIAS}, "parameters"),
        ({}, "parameters"),
        ({"0.weight": WEIGHT.T, "0.bias": BIAS}, "shape"),
        ({"0.weight": WEIGHT[:, :2], "0.bias": BIAS}, "shape"),
        ({"0.weight": WEIGHT.astype(np.float64), "0.bias": BIAS}, "float64"),
        ({"0.weight": WEIGHT, "0.bias": np.array([np.nan], np.float32)}, "NaN or infinity"),
        ({"0.weight": WEIGHT, "0.bias": np.array([-np.inf], np.float32)}, "NaN or infinity"),
    ],
)
def test_an_update_of_another_model_is_quarantined_and_its_cost_counts(log, update, reason):
    judge = auditor(log)
    decision = judge.judge(SITE, 1, reply(update=update))
    assert decision.decision == QUARANTINED
    assert decision.reason.startswith("not an update of this model: ")
    assert reason in decision.reason
    assert judge.spent(SITE)[0] == epsilon_rdp([PLAN.event], 1e-5)


def test_silence_is_missing_a_fault_is_quarantined_and_a_site_may_stop_by_itself(log):
    judge = auditor(log)
    silent = judge.judge(SITE, 1, None)
    assert (silent.decision, silent.epsilon_rdp, silent.update_norm, silent.bytes) == (MISSING, 0.0, None, 0)
    assert "deadline" in silent.reason
    fault = judge.judge(SITE, 1, None, "refused: a reply with records ['loss']")
    assert (fault.decision, fault.reason) == (QUARANTINED, "refused: a reply with records ['loss']")
    stopped = judge.judge(SITE, 1, Reply(STOPPED, "run-1", 1))
    assert stopped.decision == MISSING
    assert "stopped by itself" in stopped.reason
    received = judge.judge(SITE, 1, Reply(RECEIVED, "run-1", 1))
    assert received.decision == QUARANTINED
    assert judge.spent(SITE) == (0.0, 0.0)


def test_every_decision_is_one_row_that_still_verifies(log):
    judge = auditor(log)
    decisions = [
        judge.judge(SITE, 1, reply()),
        judge.judge(OTHER, 1, None),
        judge.judge(SITE, 2, reply(2, event=Event(3.0, 0.3, 2))),
        judge.judge(OTHER, 2, None, "refused"),
    ]
    rows = list(ChainedLog(log.path))
    assert [(r["site"], r["round"], r["decision"], r["reason"]) for r in rows] == [
        (d.site, n, d.decision, d.reason) for d, n in zip(decisions, (1, 1, 2, 2), strict=True)
    ]
    assert [row["identity"] for row in rows] == [identity(s) for s in (SITE, OTHER, SITE, OTHER)]
    assert [len(row["events"]) for row in rows] == [1, 0, 1, 0]
    assert {(row["run"], row["delta"], row["unit"]) for row in rows} == {("run-1", 1e-5, "patient")}


def test_a_reason_that_quotes_a_site_is_short_and_on_one_line(log):
    decision = auditor(log).judge(SITE, 1, reply(run="x\n\x1b[31m" * 10_000))
    assert len(decision.reason) == LONGEST_REASON
    assert decision.reason.isprintable()


def test_spending_for_one_unit_is_not_composed_with_that_for_another(log):
    auditor(log).judge(SITE, 1, reply())
    with pytest.raises(UserError, match="accounts for one patient, the plan for one variant"):
        auditor(log, replace(PLAN, unit="variant"))


def test_the_account_goes_on_beyond_the_most_steps_of_one_event(log):
    judge = auditor(log)
    for number in (1, 2, 3):
        decision = judge.judge(SITE, number, reply(number, event=Event(1000.0, 0.01, MOST_STEPS)))
        assert decision.decision == QUARANTINED
    assert judge.spent(SITE)[0] == epsilon_rdp([Event(1000.0, 0.01, MOST_STEPS)] * 3, 1e-5)


EVENTS = st.builds(
    Event, st.sampled_from([0.1, 2.0, 1e6]), st.sampled_from([1e-300, 0.3, 1.0]),
    st.sampled_from([1, 2, MOST_STEPS]),
)  # fmt: skip
UPDATES = st.dictionaries(
    st.one_of(st.sampled_from(["0.weight", "0.bias"]), st.text(max_size=4)),
    arrays(
        np.float32,
        st.one_of(st.sampled_from([(1, 3), (1,)]), array_shapes(min_dims=0, min_side=0, max_side=3)),
        elements=st.floats(width=32),
    ),
    max_size=3,
)
REPLIES = st.one_of(
    st.none(),
    st.builds(
        Reply,
        st.sampled_from([TRAINED, STOPPED, RECEIVED, "?"]),
        st.one_of(st.just("run-1"), st.text(max_size=5)),
        st.one_of(st.just(1), st.integers(-(2**62), 2**62)),
        st.one_of(st.none(), st.just(PLAN.event), EVENTS),
        st.one_of(st.none(), st.just(UPDATE), UPDATES),
    ),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=3), st.text(max_size=8))
def test_whatever_a_site_sends_is_a_decision_and_only_the_sound_is_accepted(replies, fault):
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "ledger.sqlite")
        judge = auditor(log)
        decisions = [judge.judge(SITE, 1, one, fault) for one in replies]
        assert [row["decision"] for row in ChainedLog(log.path)] == [d.decision for d in decisions]
        for one, decision in zip(replies, decisions, strict=True):
            if decision.decision == ACCEPTED:
                assert (one.status, one.run, one.round, one.event) == (TRAINED, "run-1", 1, PLAN.event)
                assert all(one.update[name].shape == value.shape for name, value in START.items())
                assert all(np.isfinite(value).all() for value in one.update.values())
        assert sum(d.decision == ACCEPTED for d in decisions) <= 1


def updates(*seeds):
    return {
        f"h{seed}": {
            name: np.random.default_rng(seed).normal(size=value.shape).astype(np.float32)
            for name, value in START.items()
        }
        for seed in seeds
    }


def test_the_average_is_weighted_by_what_sites_declared():
    one = {"w": np.array([1.0], np.float32)}
    four = {"w": np.array([4.0], np.float32)}
    start = {"w": np.array([10.0], np.float32)}
    moved = average(start, {"a": one, "b": four}, {"a": 2.0, "b": 1.0})
    assert moved["w"].tolist() == [12.0]
    assert moved["w"].dtype == np.float32
    assert start["w"].tolist() == [10.0]


def test_a_site_that_is_not_in_the_round_is_normalised_out():
    weights = {"h1": 1.0, "h2": 3.0, "h3": 96.0}
    two = average(START, updates(1, 2), weights)
    assert all(
        np.array_equal(two[n], average(START, updates(1, 2), {"h1": 10.0, "h2": 30.0})[n]) for n in two
    )
    alone = average(START, updates(1), weights)
    assert alone["0.bias"] == pytest.approx(START["0.bias"] + updates(1)["h1"]["0.bias"])


def test_a_quarantined_update_changes_nothing(log):
    judge = auditor(log)
    honest = updates(1, 2)
    poison = {name: np.full_like(value, 1e30) for name, value in START.items()}
    sent = {"h1": reply(update=honest["h1"]), "h2": reply(update=honest["h2"]),
            "h3": reply(update=poison, event=Event(0.5, 0.3, 2))}  # fmt: skip
    accepted = {
        name: one.update
        for name, one in sent.items()
        if judge.judge(Site(name, 40, 1.0, f"key of {name}"), 1, one).decision == ACCEPTED
    }
    weights = dict.fromkeys(sent, 1.0)
    with_it, without = average(START, accepted, weights), average(START, honest, weights)
    assert all(np.array_equal(with_it[name], without[name]) for name in START)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_the_order_of_the_sites_does_not_matter_to_the_last_bit(seed, values):
    sent = updates(seed, seed + 1, seed + 2, seed + 3)
    weights = dict(zip(sent, values, strict=True))
    expected = average(START, sent, weights)
    for order in permutations(sent):
        moved = average(START, {site: sent[site] for site in order}, weights)
        assert all(np.array_equal(moved[name], expected[name]) for name in START)


def test_the_order_of_updates_that_cancel_does_not_matter_either():
    sent = {"a": 1e25, "b": -1e25, "c": 3.0}
    moved = {
        float(
            average(
                {"w": np.zeros(1, np.float32)},
                {site: {"w": np.array([sent[site]], np.float32)} for site in order},
                dict.fromkeys(sent, 1.0),
            )["w"][0]
        )
        for order in permutations(sent)
    }
    assert len(moved) == 1


def test_no_update_at_all_leaves_the_model_as_it_was():
    assert all(np.array_equal(average(START, {}, {"h1": 1.0})[name], START[name]) for name in START)
