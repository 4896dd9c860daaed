"""Tests of cordon.federation.aggregator.run with real participants and ledgers, and without a network."""

import errno
from dataclasses import replace

import numpy as np
import pytest

import killed_aggregation as room
from cordon.auditing.claims import check_claims
from cordon.federation.aggregator import run as aggregator
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.flower.tasks import LinkLost
from cordon.federation.site import participate
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import ChainedLog, key_path, read_log
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event
from rounds_lab import Room

EVENT = room.AGREED.event
NORTH, SOUTH, WEST = room.SITES


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(participate.Participant, "answer_grid", 0.001)


def aggregation(folder, plan=None):
    ledger = ChainedLog(folder / "ledger.sqlite")
    limits = aggregator.RoundLimits(1, 1.0, 1.0)
    setup = aggregator.RunSetup(plan or room.AGREED.started(), room.SITES, room.FEATURES, limits)
    checkpoints = Checkpoints(folder, ledger)
    return aggregator.Aggregation(setup, ledger=ledger, checkpoints=checkpoints, say=lambda line: None)


def own_events(folder, one):
    """What the site's own ledger reserved."""
    rows = ChainedLog(folder / "sites" / f"{one.name}.sqlite").of_kind("reserved")
    return [Event(**row["event"]) for row in rows]


def claims(folder, one, model, plan):
    """The check of a site that audits the model with its own ledger."""
    path = folder / "sites" / f"{one.name}.sqlite"
    return check_claims(model, plan, read_log(path, read_private_key(key_path(path)).public_key())[0])


@pytest.mark.stress
def test_a_lost_answer_is_charged_and_the_sites_own_audit_passes(tmp_path):
    run = aggregation(tmp_path)
    model = run.run(Room(tmp_path, lost={2: "n", 3: "s"}))
    whole = epsilon_rdp([EVENT] * 3, 1e-5)
    for one in room.SITES:
        assert own_events(tmp_path, one) == [EVENT] * 3
        found = claims(tmp_path, one, model, run.plan)
        assert found.passed, found.reason
    assert model.privacy["epsilon"] == whole
    assert [row["epsilon_rdp"] for row in run.record.sites] == [whole] * 3
    decided = {(d["site"], r["round"]): d["decision"] for r in run.record.rounds for d in r["sites"]}
    assert [place for place, what in decided.items() if what == "missing"] == [("n", 2), ("s", 3)]


def test_a_site_whose_every_answer_is_lost_counts_in_what_the_model_states(tmp_path):
    run = aggregation(tmp_path)
    model = run.run(Room(tmp_path, lost=dict.fromkeys((1, 2, 3), "n"), away={2: "sw"}))
    assert own_events(tmp_path, NORTH) == [EVENT] * 3
    assert own_events(tmp_path, SOUTH) == own_events(tmp_path, WEST) == [EVENT] * 2
    assert model.privacy["epsilon"] == epsilon_rdp([EVENT] * 3, 1e-5)
    assert model.privacy["sites"] == 2
    assert claims(tmp_path, NORTH, model, run.plan).passed


@pytest.mark.stress
def test_who_is_away_is_asked_for_nothing_and_charged_nothing(tmp_path):
    run, exchange = aggregation(tmp_path), Room(tmp_path, away={1: "w", 2: "w"})
    run.run(exchange)
    assert [number for number, name in exchange.asked if name == "w"] == [3]
    spent = {row["site"]: row["epsilon_rdp"] for row in run.record.sites}
    assert spent["w"] == epsilon_rdp([EVENT], 1e-5) < spent["n"] == epsilon_rdp([EVENT] * 3, 1e-5)
    first = {d["site"]: d["reason"] for d in run.record.rounds[0]["sites"]}
    assert "not connected when the round began, and was sent nothing" in first["w"]


@pytest.mark.stress
def test_a_link_that_breaks_in_a_round_charges_it_once_also_to_who_does_not_come_back(tmp_path):
    first = aggregation(tmp_path)
    with pytest.raises(LinkLost):
        first.run(Room(tmp_path, fails=2))
    run = aggregation(tmp_path, replace(first.plan, run=""))
    exchange = Room(tmp_path, away={2: "w"})
    exchange.round = 2
    model = run.run(exchange)
    assert run.plan.run == first.plan.run
    for one in room.SITES:
        assert own_events(tmp_path, one) == [EVENT] * 3
    whole = epsilon_rdp([EVENT] * 3, 1e-5)
    assert model.privacy["epsilon"] == whole
    assert {row["site"]: row["epsilon_rdp"] for row in run.record.sites} == dict.fromkeys("nsw", whole)
    kinds = [(row["kind"], row["site"], row["round"]) for row in ChainedLog(tmp_path / "ledger.sqlite")]
    assert len(kinds) == len(set(kinds)) == 2 * 9


@pytest.mark.stress
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_no_end_of_the_federation_leaves_a_run_that_goes_on(tmp_path, error):
    """A full disk and Ctrl-C: the sites have spent on it."""
    first, told = aggregation(tmp_path), Room(tmp_path, fails=2, error=error)
    with pytest.raises(type(error)):
        first.run(told)
    run = aggregation(tmp_path, replace(first.plan, run=""))
    exchange = Room(tmp_path)
    exchange.round = 2
    run.run(exchange)
    assert run.plan.run == first.plan.run
    assert [row["status"] for row in run.record.sites] == ["finished"] * 3
    for one in room.SITES:
        assert own_events(tmp_path, one) == [EVENT] * 3


def test_a_run_whose_only_round_was_lost_ends_with_the_model_that_it_began_with(tmp_path):
    """The link broke after the answers of a run of one round: they are charged, and nothing moved."""
    plan = replace(room.AGREED, rounds=1, averaged_rounds=1).started()
    first = aggregation(tmp_path, plan)
    with pytest.raises(LinkLost):
        first.run(Room(tmp_path, fails=1))
    run = aggregation(tmp_path, replace(plan, run=""))
    model = run.run(Room(tmp_path))
    assert model.privacy["epsilon"] == epsilon_rdp([EVENT], 1e-5)
    assert {row["epsilon_rdp"] for row in run.record.sites} == {epsilon_rdp([EVENT], 1e-5)}
    for name, value in model.parameters.items():
        assert np.array_equal(value, first.parameters[name])


@pytest.mark.stress
def test_whose_account_has_no_room_for_a_round_is_asked_for_nothing(tmp_path):
    """What it would answer would be refused: its patients would pay for nothing."""
    plan = replace(room.AGREED, epsilon=epsilon_rdp([EVENT] * 4, 1e-5))
    earlier = aggregation(tmp_path, replace(plan, rounds=2).started())
    earlier.run(Room(tmp_path, away={1: "sw", 2: "sw"}))
    Checkpoints(tmp_path, ChainedLog(tmp_path / "ledger.sqlite")).discard()
    run, exchange = aggregation(tmp_path, plan.started()), Room(tmp_path)
    model = run.run(exchange)
    assert [number for number, name in exchange.asked if name == "n"] == [1, 2]
    assert own_events(tmp_path, NORTH) == [EVENT] * 4
    rows = {row["site"]: row for row in run.record.sites}
    assert rows["n"]["status"] == "stopped"
    assert "leaves no room for a round" in rows["n"]["reason"]
    assert model.privacy["epsilon"] == rows["n"]["epsilon_rdp"] == epsilon_rdp([EVENT] * 4, 1e-5)
    assert rows["s"]["status"] == rows["w"]["status"] == "finished"
