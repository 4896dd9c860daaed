"""Tests of cordon.federation.aggregator.judge."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from consortium import random_updates
from cordon.errors import UserError
from cordon.federation.aggregator.judge import Auditor
from cordon.federation.aggregator.noise_checks import reference
from cordon.federation.averaging import average
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site, identity
from cordon.foreign import LONGEST
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import Judgement
from cordon.ledger.spending import accounts
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import MOST_STEPS, Event

PLAN = Plan(
    run="run-1", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=3, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
)  # fmt: skip
START = initial_parameters("logistic", 3)
UPDATE = {"0.weight": np.array([[0.3, 0.0, 0.4]], np.float32), "0.bias": np.zeros(1, np.float32)}
SITE = Site("h1", 40, 1.0, "-----BEGIN PUBLIC KEY-----\nh1\n-----END PUBLIC KEY-----\n")
OTHER = Site("h2", 40, 1.0, "-----BEGIN PUBLIC KEY-----\nh2\n-----END PUBLIC KEY-----\n")


@pytest.fixture
def log(tmp_path):
    return ChainedLog(tmp_path / "ledger.sqlite")


class OneByOne(Auditor):
    """An auditor that is given one reply at a time."""

    def judge(self, site, round_number, reply, fault=""):
        return super().judge(round_number, {site: (reply, fault)})[0]


def auditor(log, plan=PLAN):
    return OneByOne(plan, log, expected=START)


def reply(number=1, **changes):
    # No two rounds of noise are alike.
    update = {name: value * np.float32(1 + number / 100) for name, value in UPDATE.items()}
    return Reply(**({"status": ReplyStatus.TRAINED, "run": "run-1", "round": number, "event": PLAN.event,
                     "update": update} | changes))  # fmt: skip


def test_a_sound_reply_is_accepted_with_its_epsilons_norm_and_size(log):
    decision = auditor(log).judge(SITE, 1, reply())
    assert (decision.site, decision.decision, decision.reason) == ("h1", Judgement.ACCEPTED, "")
    assert decision.epsilon_rdp == epsilon_rdp([PLAN.event], 1e-5)
    assert decision.epsilon_pld == epsilon_pld([PLAN.event], 1e-5)
    assert decision.update_norm == pytest.approx(0.505)
    assert decision.update_norm < decision.ceiling
    assert decision.bytes == 16


def test_epsilon_composes_over_the_rounds_of_a_run(log):
    judge = auditor(log)
    decisions = [judge.judge(SITE, number, reply(number)) for number in (1, 2, 3)]
    assert [d.decision for d in decisions] == [Judgement.ACCEPTED] * 3
    assert decisions[-1].epsilon_rdp == epsilon_rdp([Event(2.0, 0.3, 6)], 1e-5)
    assert judge.charges.spent(SITE) == (decisions[-1].epsilon_rdp, decisions[-1].epsilon_pld)
    assert judge.charges.spent(OTHER) == (0.0, 0.0)


def budget_for(rounds):
    return epsilon_rdp([PLAN.event] * rounds, PLAN.delta)


def test_the_round_over_budget_is_quarantined_and_the_one_at_it_is_not(log):
    judge = auditor(log, replace(PLAN, epsilon=budget_for(2)))
    assert judge.judge(SITE, 1, reply(1)).decision == Judgement.ACCEPTED
    assert judge.judge(SITE, 2, reply(2)).decision == Judgement.ACCEPTED
    decision = judge.judge(SITE, 3, reply(3))
    assert decision.decision == Judgement.QUARANTINED
    assert decision.reason.startswith("over budget: epsilon")
    for part in ("one patient", "delta 1e-05", "Poisson-sampled Gaussian", "add or remove one unit"):
        assert part in decision.reason
    assert decision.epsilon_pld is None
    assert judge.judge(OTHER, 3, reply(3)).decision == Judgement.ACCEPTED


@pytest.mark.parametrize("name", ["h1", "another name"])
def test_earlier_runs_of_the_same_key_count_under_whatever_name(log, name):
    plan = replace(PLAN, epsilon=budget_for(2))
    for number in (1, 2):
        auditor(log, plan).judge(SITE, number, reply(number))
    later = auditor(ChainedLog(log.path), replace(plan, run="run-2"))
    renamed = replace(SITE, name=name, public_key=SITE.public_key.replace("\n", "\r\n"))
    decision = later.judge(renamed, 1, reply(run="run-2"))
    assert (decision.decision, decision.site) == (Judgement.QUARANTINED, name)
    assert "over budget" in decision.reason
    assert later.judge(OTHER, 1, reply(run="run-2")).decision == Judgement.ACCEPTED


@pytest.mark.parametrize(
    "event",
    [Event(0.5, 0.3, 2), Event(2.0, 0.3, 2000), Event(2.0, 1.0, 200)],
    ids=["less noise", "more steps", "every patient"],
)
def test_a_declaration_over_budget_is_quarantined_and_stays_in_the_account(log, event):
    judge = auditor(log)
    decision = judge.judge(SITE, 1, reply(event=event))
    assert decision.decision == Judgement.QUARANTINED
    assert "over budget" in decision.reason
    assert judge.charges.spent(SITE)[0] == epsilon_rdp([PLAN.event, event], 1e-5) > PLAN.epsilon
    assert "over budget" in auditor(log).judge(SITE, 2, reply(2)).reason


@pytest.mark.parametrize(
    "event", [Event(3.0, 0.3, 2), Event(2.0, 0.2, 2), Event(2.0, 0.3, 1), Event(2.0, 0.3, 2, sites=2)]
)
def test_another_declaration_than_the_plans_is_quarantined_too(log, event):
    decision = auditor(log).judge(SITE, 1, reply(event=event))
    assert (decision.decision, decision.reason) == (
        Judgement.QUARANTINED,
        "declared events that are not the plan's",
    )


@pytest.mark.parametrize(
    "changes", [{}, {"run": "run-0"}, {"round": 7}, {"status": ReplyStatus.ANSWERED}], ids=str
)
@pytest.mark.parametrize("event", [Event(1e6, 1e-6, 1), Event(3.0, 0.3, 2)])
def test_a_site_that_was_asked_is_charged_what_it_was_asked_for_whatever_it_declares(log, event, changes):
    judge = auditor(log)
    judge.charges.ask(1, [SITE])
    decision = judge.judge(SITE, 1, reply(event=event, **changes))
    assert decision.decision != Judgement.ACCEPTED
    asked = epsilon_rdp([PLAN.event, event], 1e-5)
    assert judge.charges.spent(SITE)[0] == decision.epsilon_rdp == asked >= epsilon_rdp([PLAN.event], 1e-5)
    (account,) = accounts(log)
    assert account.rounds[-1].epsilon_rdp == asked


@pytest.mark.parametrize("changes", [{"run": "run-0"}, {"round": 7}], ids=str)
def test_a_reply_to_another_round_at_the_plans_cost_is_one_release(log, changes):
    judge = auditor(log)
    judge.charges.ask(1, [SITE])
    assert judge.judge(SITE, 1, reply(**changes)).epsilon_rdp == epsilon_rdp([PLAN.event], 1e-5)


@pytest.mark.parametrize("changes", [{"run": "run-0"}, {"round": 1}, {"round": 3}, {"round": -2}], ids=str)
def test_a_reply_to_another_round_or_run_is_quarantined(log, changes):
    decision = auditor(log).judge(SITE, 2, reply(2, **changes))
    assert decision.decision == Judgement.QUARANTINED
    assert "stale or replayed" in decision.reason


def test_a_second_reply_to_a_round_is_quarantined_also_after_a_restart(log):
    auditor(log).judge(SITE, 1, reply())
    for restarted in (False, True):
        held = ChainedLog(log.path) if restarted else log
        decision = auditor(held).judge(SITE, 1, reply())
        assert decision.decision == Judgement.QUARANTINED
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
    assert decision.decision == Judgement.QUARANTINED
    assert decision.reason.startswith("not an update of this model: ")
    assert reason in decision.reason
    assert judge.charges.spent(SITE)[0] == epsilon_rdp([PLAN.event], 1e-5)


def test_silence_is_missing_a_fault_is_quarantined_and_a_site_may_stop_by_itself(log):
    judge = auditor(log)
    silent = judge.judge(SITE, 1, None)
    assert (silent.decision, silent.epsilon_rdp, silent.update_norm, silent.bytes) == (
        Judgement.MISSING,
        0.0,
        None,
        0,
    )
    assert "deadline" in silent.reason
    fault = judge.judge(SITE, 1, None, "refused: a reply with records ['loss']")
    assert (fault.decision, fault.reason) == (Judgement.QUARANTINED, "refused: a reply with records ['loss']")
    stopped = judge.judge(SITE, 1, Reply(ReplyStatus.STOPPED, "run-1", 1))
    assert stopped.decision == Judgement.MISSING
    assert "stopped by itself" in stopped.reason
    received = judge.judge(SITE, 1, Reply(ReplyStatus.RECEIVED, "run-1", 1))
    assert received.decision == Judgement.QUARANTINED
    # What cannot be read may have held the round's release.
    assert judge.charges.spent(SITE)[0] == epsilon_rdp([PLAN.event], 1e-5)


def test_an_answer_that_was_lost_is_missing_and_counts_as_spent(log):
    judge = auditor(log)
    lost = judge.judge(SITE, 1, Reply(ReplyStatus.ANSWERED, "run-1", 1))
    assert lost.decision == Judgement.MISSING
    assert "lost on its way" in lost.reason
    assert judge.charges.spent(SITE)[0] == epsilon_rdp([PLAN.event], 1e-5)


@pytest.mark.parametrize("lost", [None, Reply(ReplyStatus.ANSWERED, "run-1", 2), "fault"], ids=str)
def test_a_site_that_was_asked_is_charged_once_also_where_nothing_arrived(log, lost):
    """Whether its reply is late or lost: it may have trained, and its update may be anywhere."""
    judge = auditor(log)
    for number in (1, 2, 3):
        judge.charges.ask(number, [SITE])
        given = lost if number == 2 else reply(number)
        decision = judge.judge(SITE, number, *((None, "broken") if given == "fault" else (given,)))
        assert decision.epsilon_rdp == epsilon_rdp([PLAN.event] * number, 1e-5)
        assert decision.decision == (
            Judgement.ACCEPTED
            if number != 2
            else Judgement.QUARANTINED
            if lost == "fault"
            else Judgement.MISSING
        )
    assert (
        judge.charges.spent(SITE)[0] == judge.charges.of_model()[0][0] == epsilon_rdp([PLAN.event] * 3, 1e-5)
    )
    (account,) = accounts(log)
    assert account.rounds[-1].epsilon_rdp == epsilon_rdp([PLAN.event] * 3, 1e-5)
    assert [row.round for row in account.rounds] == [1, 2, 3]


def test_a_site_that_was_missing_is_not_over_budget_in_the_rounds_that_were_planned(log):
    judge = auditor(log, replace(PLAN, epsilon=budget_for(3)))
    for number in (1, 2, 3):
        assert judge.charges.has_room(SITE)
        judge.charges.ask(number, [SITE])
        decision = judge.judge(SITE, number, None if number == 1 else reply(number))
        assert decision.decision == (Judgement.MISSING if number == 1 else Judgement.ACCEPTED)
    assert not judge.charges.has_room(SITE)


def test_a_site_that_was_sent_nothing_or_says_that_it_stopped_is_charged_nothing(log):
    judge = auditor(log)
    judge.charges.ask(1, [SITE])
    assert judge.judge(OTHER, 1, None).decision == Judgement.MISSING
    assert judge.judge(SITE, 1, Reply(ReplyStatus.STOPPED, "run-1", 1)).decision == Judgement.MISSING
    assert judge.charges.spent(SITE) == judge.charges.spent(OTHER) == (0.0, 0.0)
    # It says so of another round: of this one it says nothing.
    judge.charges.ask(2, [SITE])
    assert judge.judge(SITE, 2, Reply(ReplyStatus.STOPPED, "run-1", 1)).decision == Judgement.QUARANTINED
    assert judge.charges.spent(SITE)[0] == epsilon_rdp([PLAN.event], 1e-5)


def test_what_was_asked_is_charged_once_whatever_became_of_the_aggregator(log):
    """It asks, ends, asks again when it is back, and finds the site answered or gone."""
    auditor(log).charges.ask(1, [SITE, OTHER])
    again = auditor(ChainedLog(log.path))
    once = epsilon_rdp([PLAN.event], 1e-5)
    # Even if nobody ever judges it.
    assert (
        again.charges.spent(SITE)[0]
        == again.charges.spent(OTHER)[0]
        == again.charges.of_model()[0][0]
        == once
    )
    assert {a.rounds[-1].state: a.rounds[-1].epsilon_rdp for a in accounts(again._ledger)} == {"asked": once}
    again.charges.ask(1, [SITE])
    assert again.judge(SITE, 1, reply()).epsilon_rdp == once
    assert again.judge(OTHER, 1, None).epsilon_rdp == once
    assert again.charges.spent(SITE)[0] == again.charges.spent(OTHER)[0] == once
    assert [row["kind"] for row in ChainedLog(log.path)] == ["asked", "asked", "decision", "decision"]


def test_spending_for_one_unit_is_refused_for_another_from_the_first_task_on(log):
    auditor(log).charges.ask(1, [SITE])
    with pytest.raises(UserError, match="accounts for one patient, the plan for one variant"):
        auditor(ChainedLog(log.path), replace(PLAN, unit="variant"))


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
    assert [len(row["events"]) for row in rows] == [1, 0, 2, 1]
    assert {(row["run"], row["delta"], row["unit"]) for row in rows} == {("run-1", 1e-5, "patient")}


def test_a_reason_that_quotes_a_site_is_short_and_on_one_line(log):
    decision = auditor(log).judge(SITE, 1, reply(run="x\n\x1b[31m" * 10_000))
    assert len(decision.reason) < LONGEST
    assert decision.reason.startswith("a reply to round 1 of run x")
    assert decision.reason.isprintable()


def test_spending_for_one_unit_is_not_composed_with_that_for_another(log):
    auditor(log).judge(SITE, 1, reply())
    with pytest.raises(UserError, match="accounts for one patient, the plan for one variant"):
        auditor(log, replace(PLAN, unit="variant"))


@pytest.mark.stress
def test_the_account_goes_on_beyond_the_most_steps_of_one_event(log):
    judge = auditor(log)
    for number in (1, 2, 3):
        decision = judge.judge(SITE, number, reply(number, event=Event(1000.0, 0.01, MOST_STEPS)))
        assert decision.decision == Judgement.QUARANTINED
    declared = [PLAN.event, Event(1000.0, 0.01, MOST_STEPS)]
    assert judge.charges.spent(SITE)[0] == epsilon_rdp(declared * 3, 1e-5)


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
        st.sampled_from(
            [ReplyStatus.TRAINED, ReplyStatus.STOPPED, ReplyStatus.ANSWERED, ReplyStatus.RECEIVED, "?"]
        ),
        st.one_of(st.just("run-1"), st.text(max_size=5)),
        st.one_of(st.just(1), st.integers(-(2**62), 2**62)),
        st.one_of(st.none(), st.just(PLAN.event), EVENTS),
        st.one_of(st.none(), st.just(UPDATE), UPDATES),
    ),
)


@pytest.mark.stress
@settings(max_examples=80, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=3), st.text(max_size=8))
def test_whatever_a_site_sends_is_a_decision_and_only_the_sound_is_accepted(replies, fault):
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "ledger.sqlite")
        judge = auditor(log)
        decisions = [judge.judge(SITE, 1, one, fault) for one in replies]
        assert [row["decision"] for row in ChainedLog(log.path)] == [d.decision for d in decisions]
        for one, decision in zip(replies, decisions, strict=True):
            if decision.decision == Judgement.ACCEPTED:
                assert (one.status, one.run, one.round, one.event) == (
                    ReplyStatus.TRAINED,
                    "run-1",
                    1,
                    PLAN.event,
                )
                assert all(one.update[name].shape == value.shape for name, value in START.items())
                assert all(np.isfinite(value).all() for value in one.update.values())
        assert sum(d.decision == Judgement.ACCEPTED for d in decisions) <= 1


def test_a_quarantined_update_changes_nothing(log):
    judge = auditor(log)
    honest = random_updates(START, 1, 2)
    poison = {name: np.full_like(value, 1e30) for name, value in START.items()}
    sent = {"h1": reply(update=honest["h1"]), "h2": reply(update=honest["h2"]),
            "h3": reply(update=poison, event=Event(0.5, 0.3, 2))}  # fmt: skip
    accepted = {
        name: one.update
        for name, one in sent.items()
        if judge.judge(Site(name, 40, 1.0, f"key of {name}"), 1, one).decision == Judgement.ACCEPTED
    }
    weights = dict.fromkeys(sent, 1.0)
    with_it, without = average(START, accepted, weights), average(START, honest, weights)
    assert all(np.array_equal(with_it[name], without[name]) for name in START)


def noisy(seed, plan=PLAN, size=4, signal=0.0):
    """An update as the plan's noise makes it for a site like SITE, float32."""
    deviation = reference(plan, SITE.declared_patients).deviation
    return (np.random.default_rng(seed).normal(scale=deviation, size=size) + signal).astype(np.float32)


WIDE = replace(PLAN, model="mlp", local_steps=3)
WIDE_START = initial_parameters("mlp", 45)


def wide(seed, signal=0.0, scale=1.0):
    numbers = scale * noisy(seed, WIDE, sum(a.size for a in WIDE_START.values()), signal)
    parts = np.split(numbers, np.cumsum([a.size for a in WIDE_START.values()])[:-1])
    return {name: p.reshape(a.shape) for (name, a), p in zip(WIDE_START.items(), parts, strict=True)}


def judged(log, round_number, updates, plan=WIDE):
    """The decisions on updates by site of one round, all by one auditor."""
    sites = {name: replace(SITE, name=name, public_key=f"key of {name}") for name in updates}
    answers = {
        sites[name]: (Reply(ReplyStatus.TRAINED, plan.run, round_number, plan.event, update), "")
        for name, update in updates.items()
    }
    found = Auditor(plan, log, expected=WIDE_START).judge(round_number, answers)
    return {decision.site: (decision.decision, decision.reason) for decision in found}


def test_honest_noise_is_accepted_and_updates_that_no_honest_site_makes_are_not(log):
    found = judged(
        log, 1,
        {
            "honest": wide(1), "strong": wide(2, signal=0.05), "half": wide(3, scale=0.5),
            "none": wide(4, scale=1e-3), "scaled": wide(5, scale=100.0),
        },
    )  # fmt: skip
    assert found["honest"] == found["strong"] == (Judgement.ACCEPTED, "")
    for site, reason in (
        ("half", "less noise"),
        ("none", "less noise"),
        ("scaled", "were not clipped"),
    ):
        assert found[site][0] == Judgement.QUARANTINED
        assert reason in found[site][1]


def test_the_numbers_of_an_earlier_round_are_a_replay(log):
    assert judged(log, 1, {"h1": wide(1)})["h1"][0] == Judgement.ACCEPTED
    assert judged(log, 2, {"h1": wide(1)})["h1"] == (
        Judgement.QUARANTINED, "the same numbers as in an earlier round: replayed",
    )  # fmt: skip


def test_an_outlier_among_sound_updates_is_quarantined_with_the_rounds_other_decisions(log):
    sites = {f"h{n}": wide(n, signal=0.05) for n in range(6)}
    found = judged(log, 1, sites | {"turned": wide(9, signal=-0.2)})
    assert [found[f"h{n}"] for n in range(6)] == [(Judgement.ACCEPTED, "")] * 6
    assert found["turned"][0] == Judgement.QUARANTINED
    assert found["turned"][1].startswith("an outlier: turned against the other sites' median")
    rows = [row for row in ChainedLog(log.path) if row["site"] == "turned"]
    assert [(row["decision"], len(row["events"])) for row in rows] == [(Judgement.QUARANTINED, 1)]


def test_where_the_checkpoint_cannot_be_written_no_decision_is(log):
    def keep(decisions):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        Auditor(PLAN, log, expected=START).judge(1, {SITE: (reply(), "")}, keep=keep)
    assert list(ChainedLog(log.path)) == []
    judge = auditor(log)
    assert judge.judge(SITE, 1, reply()).decision == Judgement.ACCEPTED


def test_a_person_at_two_sites_is_charged_for_both(log):
    plan = replace(PLAN, sites_per_patient=2)
    judge = auditor(log, plan)
    decision = judge.judge(SITE, 1, reply(event=plan.event))
    assert decision.decision == Judgement.ACCEPTED
    assert decision.epsilon_rdp == epsilon_rdp([PLAN.event] * 2, 1e-5)
    assert log.of_kind("decision")[0]["events"][0]["sites"] == 2
    cheaper = judge.judge(OTHER, 1, reply(event=PLAN.event))
    assert (cheaper.decision, cheaper.reason) == (
        Judgement.QUARANTINED,
        "declared events that are not the plan's",
    )
