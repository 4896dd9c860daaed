"""What stands beside an epsilon is of what was composed: its delta, its mechanisms, its scope."""

from dataclasses import replace

import pytest

import killed_aggregation as room
from cordon.auditing.certificate import Subject, certificate
from cordon.auditing.claims import check_claims
from cordon.federation.aggregator import run as aggregator
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.judge import Auditor
from cordon.federation.aggregator.record import spent_by
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan
from cordon.federation.site import participate
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import ChainedLog, key_path, read_log
from cordon.ledger.provenance import installed
from cordon.ledger.site import SiteLedger
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import GAUSSIAN, LAPLACE, Event
from cordon.privacy.guarantee import LIFETIME, RUN, composed_statement, three_digits
from rounds_lab import Room

BOTH = f"{GAUSSIAN} and {LAPLACE}"
DELTA = 1e-5
NORTH = room.SITES[0]
LAPLACE_PLAN = replace(room.AGREED, mechanism=LAPLACE, noise_multiplier=30.0)
TERMS = {
    "model": "mlp", "unit": "patient", "delta": DELTA, "rounds": 10, "local_steps": 10, "sampling_rate": 0.5,
    "clip_norm": 1.0, "learning_rate": 0.5, "max_variants_per_patient": 256,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(participate.Participant, "answer_grid", 0.001)


def play(folder, plan, *, delta=DELTA, **lost):
    """A run of three sites whose budgets are at ``delta``: the aggregation, its model, and what was said."""
    said = []
    ledger = ChainedLog(folder / "ledger.sqlite")
    limits = aggregator.RoundLimits(1, 1.0, 1.0)
    setup = aggregator.RunSetup(plan.started(), room.SITES, room.FEATURES, limits)
    checkpoints = Checkpoints(folder, ledger)
    run = aggregator.Aggregation(setup, ledger=ledger, checkpoints=checkpoints, say=said.append)
    exchange = Room(folder, **lost)
    for one, participant in exchange._participants.items():
        participant._say = said.append
        participant._ledger = SiteLedger(own_ledger(folder, one.name), epsilon=50.0, delta=delta)
    model = run.run(exchange)
    run._checkpoints.discard()
    return run, model, said


def own_ledger(folder, name):
    """Of a site alone in its folder: those of ``room`` have patients of the same names."""
    return folder / name / f"{name}.sqlite"


def chain_of(path):
    return read_log(path, read_private_key(key_path(path)).public_key())[0]


def stated(events, scope=LIFETIME, delta=DELTA):
    return composed_statement(events, unit="patient", delta=delta, scope=scope)


class TestWords:
    def test_an_epsilon_names_the_mechanisms_of_its_events_and_its_scope(self):
        events = [Event(2.0, 0.5, 1), Event(30.0, 0.5, 1, LAPLACE), Event(2.0, 0.5, 1)]
        shown = three_digits(epsilon_rdp(events, DELTA), "ROUND_CEILING")
        assert stated(events).startswith(
            f"epsilon {shown} (unit: one patient; delta 1e-05; {BOTH}; adjacency: add or remove one unit; "
            "scope: all runs in the ledger), by RDP; "
        )
        assert room.AGREED.stated_of(events) == stated(events)

    def test_a_plans_own_figures_are_of_the_run_and_its_mechanism(self):
        for plan in (room.AGREED, LAPLACE_PLAN):
            assert plan.stated() == stated(plan.events(), RUN)
            assert f"{plan.mechanism}; adjacency: add or remove one unit; scope: this run)" in plan.stated()
            assert plan.statement(3.0).endswith("one unit; scope: this run)")


def test_a_site_states_epsilon_at_the_delta_of_its_budget(tmp_path):
    """The plan's is 1e-5, at which the same events come to three times as much."""
    _, _, said = play(tmp_path, room.AGREED, delta=1e-2)
    told = [line for line in said if line.startswith("n, round 3 of 3: trained; ")]
    events = [room.AGREED.event] * 3
    assert told == [f"n, round 3 of 3: trained; {stated(events, delta=1e-2)}, reserved of a lifetime's 50"]
    assert "delta 0.01; " in told[0]
    assert epsilon_rdp(events, DELTA) > 2 * epsilon_rdp(events, 1e-2)


@pytest.mark.stress
def test_what_a_lifetime_holds_of_another_mechanism_is_named_wherever_it_is_composed(tmp_path):
    play(tmp_path, LAPLACE_PLAN)
    run, model, said = play(tmp_path, room.AGREED)
    events = [LAPLACE_PLAN.event] * 3 + [room.AGREED.event] * 3
    privacy = model.privacy
    assert privacy["epsilon"] == epsilon_rdp(events, DELTA)
    assert (privacy["mechanism"], privacy["run_mechanism"], privacy["scope"]) == (BOTH, GAUSSIAN, LIFETIME)
    assert [row["mechanism"] for row in run.record.sites] == [BOTH] * 3
    assert {row["mechanism"] for row in run.record.rounds[0]["sites"]} == {BOTH}
    assert f"at most {stated(events)}, spent of a lifetime's 50" in next(
        line for line in said if line.startswith("round 3 of 3: 3 of 3 updates")
    )
    assert any(line.startswith(f"n, round 3 of 3: trained; {stated(events)}, reserved") for line in said)
    own = spent_by("n", SiteLedger(own_ledger(tmp_path, "n"), epsilon=50.0, delta=DELTA), run.plan)
    assert (own["mechanism"], own["run_mechanism"]) == (BOTH, GAUSSIAN)
    assert own["at_more_sites"][0]["mechanism"] == BOTH
    for path in (tmp_path / "ledger.sqlite", own_ledger(tmp_path, "n")):
        chain = chain_of(path)
        found = check_claims(model, run.plan, chain)
        assert found.passed, found.reason
        assert (
            f"the ledger's events come to {stated(events)}, in this one to {run.plan.stated()}"
            in found.reason
        )
        subject = Subject(model, run.plan, run.record.sites, ChainedLog(path).tip, [], {})
        said = certificate(subject, [], found.figures)["guarantee"]
        assert (said["mechanism"], said["lifetime_mechanism"], said["run_mechanism"]) == (
            BOTH,
            BOTH,
            GAUSSIAN,
        )
        for wrong in (GAUSSIAN, LAPLACE, "none", None):
            other = replace(model, privacy=privacy | {"mechanism": wrong})
            assert "composes events of" in check_claims(other, run.plan, chain).reason
        other = replace(model, privacy=privacy | {"scope": RUN})
        assert "states scope 'this run'" in check_claims(other, run.plan, chain).reason


def test_what_is_over_budget_is_told_by_the_mechanisms_that_were_charged(tmp_path):
    play(tmp_path, LAPLACE_PLAN)
    plan = replace(room.AGREED, run="later", epsilon=0.5)
    expected = initial_parameters(plan.model, len(room.FEATURES))
    judge = Auditor(plan, ChainedLog(tmp_path / "ledger.sqlite"), expected=expected)
    judge.charges.ask(1, [NORTH])
    reply = Reply(ReplyStatus.TRAINED, "later", 1, plan.event, expected, installed())
    (decision,) = judge.judge(1, {NORTH: (reply, "")})
    assert decision.mechanism == BOTH
    assert decision.reason.startswith("over budget: epsilon ")
    assert f"; {BOTH}; adjacency: add or remove one unit; scope: all runs in the ledger)" in decision.reason


def test_a_round_of_which_nothing_arrived_is_told_at_what_it_costs(tmp_path):
    _, _, said = play(tmp_path, room.AGREED, lost={2: "nsw"})
    told = next(line for line in said if line.startswith("round 2 of 3: 0 of 3 updates"))
    assert f"at most {stated([room.AGREED.event] * 2)}, spent of a lifetime's 50" in told


def test_a_person_at_more_sites_is_counted_by_what_whoever_spent_most_spent(tmp_path):
    """Two cohorts of which nobody is in both: each spent one run, and no one two."""
    plan = Plan.calibrated(epsilon=3.0, lifetime_epsilon=8.0, **TERMS)
    ledger = SiteLedger(tmp_path / "n.sqlite", epsilon=8.0, delta=DELTA)
    for run, cohort in (("R1", "ab"), ("R2", "cd")):
        for number in range(1, plan.rounds + 1):
            after = plan.rounds - number
            ledger.reserve(
                run, number, plan.event, plan.grouping(50), list(cohort), after=after, accountant="rdp"
            )
            ledger.mark_sent(run, number)
    spent = spent_by("n", ledger, replace(plan, run="R2"))
    assert spent["epsilon_rdp"] == spent["run_epsilon_rdp"] == epsilon_rdp(plan.events(), DELTA) <= 3.0
    twice, thrice = (epsilon_rdp(plan.events() * sites, DELTA) for sites in (2, 3))
    assert [item["epsilon_rdp"] for item in spent["at_more_sites"]] == [twice, thrice]
    assert round(twice, 2) == 4.43
