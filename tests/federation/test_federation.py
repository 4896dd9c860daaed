"""The federation for real: a SuperLink, SuperNodes, TLS, keys; sites as processes on this machine."""

from __future__ import annotations

import json

import numpy as np
import pytest

from consortium import Consortium, plan
from cordon.auditing.claims import check_claims
from cordon.errors import Unreachable
from cordon.federation.aggregator import exchange
from cordon.federation.aggregator import run as aggregator
from cordon.federation.gate.start import gated_superlink
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import key_path, read_log
from cordon.model import released as models
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]


@pytest.fixture
def consortium(tmp_path):
    made = []

    def make(*sites: str) -> Consortium:
        made.append(Consortium(tmp_path, list(sites)))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_honest_sites_all_get_the_model_and_send_nothing_beyond_the_allow_list(consortium, monkeypatch):
    """The messages are those that crossed the wire, taken at the aggregator before they are read."""
    seen, after = [], []
    read, combine = exchange.read, aggregator.combine
    monkeypatch.setattr(exchange, "read", lambda message: seen.append(message) or read(message))
    monkeypatch.setattr(aggregator, "combine", lambda *a, **k: after.append(combine(*a, **k)) or after[-1])
    three = consortium("north", "south", "west")
    for site in ("north", "south", "west"):
        three.start(site)
    model, record = three.aggregate(plan(3, averaged_rounds=2))

    assert [three.finish(site) for site in ("north", "south", "west")] == [0, 0, 0]
    assert len(after) == 3
    for name, value in model.parameters.items():
        assert value == pytest.approx((after[1][name] + after[2][name]) / 2, rel=1e-6)
        assert not np.allclose(value, after[2][name], rtol=1e-3)
    assert [site["status"] for site in record.sites] == ["finished"] * 3
    assert [len(entry["sites"]) for entry in record.rounds] == [3, 3, 3]
    for site in record.sites:
        assert 7.9 < site["epsilon_rdp"] <= 8.0
        assert site["epsilon_pld"] < site["epsilon_rdp"]
    for site in ("north", "south", "west"):
        assert models.load(three.folder / site / "model.safetensors").hash == model.hash
        spent = json.loads((three.folder / site / "spent.json").read_text())
        assert {"unit", "delta", "mechanism", "adjacency"} <= spent.keys()
        assert spent["epsilon_rdp"] == pytest.approx(record.sites[0]["epsilon_rdp"])
        assert spent["privacy"]["unit"] == "patient"

    place = {"status", "run", "round"}
    event = {"mechanism", "noise_multiplier", "sampling_rate", "steps", "sites"}
    statuses = [message.content["declaration"]["status"] for message in seen]
    assert statuses == ["trained"] * 9 + ["received"] * 3
    for message in seen[:9]:
        assert set(message.content) == {"declaration", "update"}
        assert set(message.content["update"]) == {"0.weight", "0.bias"}
        assert set(message.content["declaration"]) == place | event | {"provenance"}
    for message in seen[9:]:
        assert set(message.content) == {"declaration"}
        assert set(message.content["declaration"]) == place
    # Warm processes: a round is far shorter than the imports of torch and Opacus that it does without.
    assert len(three.ledger()) == 9


def test_over_budget_is_quarantined_poison_refused_and_a_site_stops_at_its_own_budget(consortium):
    five = consortium("north", "south", "greedy", "poison", "frugal")
    five.start("north")
    five.start("south")
    five.start("greedy", behaviour="little_noise")
    five.start("poison", behaviour="NaN")
    five.start("frugal", epsilon=6.0)
    model, record = five.aggregate(plan(3))

    codes = {site: five.finish(site) for site in ("north", "south", "greedy", "poison", "frugal")}
    assert codes == {"north": 0, "south": 0, "greedy": 5, "poison": 5, "frugal": 0}
    by_site = {site["site"]: site for site in record.sites}
    assert by_site["greedy"]["status"] == "quarantined"
    assert "over budget: epsilon" in by_site["greedy"]["reason"]
    assert by_site["greedy"]["epsilon_rdp"] > 8.0
    assert by_site["poison"]["status"] == "quarantined"
    assert "NaN" in by_site["poison"]["reason"]
    assert by_site["frugal"]["status"] == "stopped"
    assert by_site["frugal"]["epsilon_rdp"] <= 6.0
    assert "stops by itself" in five.log("frugal")
    assert "quarantined this site: over budget" in five.log("greedy")
    assert [row["decision"] for row in five.ledger() if row["site"] == "greedy"] == ["quarantined"]
    assert model.privacy["sites"] == 3
    assert model.privacy["epsilon"] <= 8.0
    # The greedy update is a million in every weight, the poisoned one NaN: neither is in the average.
    weights = np.concatenate([array.ravel() for array in model.parameters.values()])
    assert np.isfinite(weights).all()
    assert np.abs(weights).max() < 100
    # Who keeps to the rules gets the model; who does not, does not.
    for site in ("north", "south", "frugal"):
        assert models.load(five.folder / site / "model.safetensors").hash == model.hash
    for site in ("greedy", "poison"):
        assert not (five.folder / site / "model.safetensors").exists()


def test_a_supernode_killed_in_a_round_does_not_stop_the_others(consortium):
    three = consortium("north", "south", "west")
    for site in ("north", "south", "west"):
        three.start(site)
    killed = []

    def kill_after_the_first_round(line: str) -> None:
        if line.startswith("round 1 of") and not killed:
            killed.append(three.kill_supernode("west"))

    model, record = three.aggregate(plan(3), say=kill_after_the_first_round, round_deadline=15.0)

    assert [three.finish(site) for site in ("north", "south")] == [0, 0]
    decisions = [{site["site"]: site["decision"] for site in entry["sites"]} for entry in record.rounds]
    assert decisions[0] == dict.fromkeys(("north", "south", "west"), "accepted")
    assert decisions[1] == {"north": "accepted", "south": "accepted", "west": "missing"}
    assert all(entry["seconds"] < 20 for entry in record.rounds)
    assert any("west missing: no reply before the round's deadline" in line for line in three.said)
    assert f"SuperNode {killed[0]} ended with status -9; trying again" in three.log("west")
    assert models.load(three.folder / "north" / "model.safetensors").hash == model.hash


def test_an_answer_that_is_lost_is_charged_and_the_sites_own_audit_passes(consortium, monkeypatch):
    """One of round 2's answers arrives and is not read: it may be with whoever took it."""
    lost, read = [], exchange.read

    def lose_one(message: object) -> exchange.Answer:
        reply, fault = read(message)
        if reply is None or reply.round != 2 or lost:
            return reply, fault
        lost.append(message)
        return None, ""

    monkeypatch.setattr(exchange, "read", lose_one)
    three = consortium("north", "south", "west")
    for site in ("north", "south", "west"):
        three.start(site)
    model, record = three.aggregate(plan(3))

    assert [three.finish(site) for site in ("north", "south", "west")] == [0, 0, 0]
    assert [row["decision"] for row in three.ledger()].count("missing") == 1
    for site in ("north", "south", "west"):
        events = [Event(**row["event"]) for row in three.reserved(site)]
        assert len(events) == 3
        assert model.privacy["epsilon"] == epsilon_rdp(events, 1e-5)
        path = three.folder / "state" / f"{site}.sqlite"
        own, _ = read_log(path, read_private_key(key_path(path)).public_key())
        found = check_claims(models.load(three.folder / site / "model.safetensors"), record.plan, own)
        assert found.passed, found.reason
    spent = {site["site"]: site["epsilon_rdp"] for site in record.sites}
    assert spent == dict.fromkeys(("north", "south", "west"), model.privacy["epsilon"])


def test_a_site_that_is_cancelled_and_started_again_does_not_end_a_run_that_needs_it(consortium):
    """Of two sites, of which a round needs both: the SuperLink lets the one in again when it has lapsed."""
    two = consortium("north", "south")
    for site in ("north", "south"):
        two.start(site, deadline=200)
    cancelled = []

    def cancel_after_the_first_round(line: str) -> None:
        if line.startswith("round 1 of") and not cancelled:
            two._processes["south"].kill()
            cancelled.append(two._processes["south"].wait())
            two.start("south", deadline=200)

    model, record = two.aggregate(plan(4), say=cancel_after_the_first_round, round_deadline=200.0)

    assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    decisions = [{site["site"]: site["decision"] for site in entry["sites"]} for entry in record.rounds]
    both = dict.fromkeys(("north", "south"), "accepted")
    assert decisions[0] == decisions[-1] == both
    # What a site gave in a round that lacked its quorum is spent; it gives nothing for that round again.
    lost = [round for round in decisions if round != both]
    assert len(lost) <= 2
    assert all(round["south"] == "missing" for round in lost)
    rounds = [row["round"] for row in two.reserved("north")]
    assert sorted(set(rounds)) == rounds
    assert models.load(two.folder / "south" / "model.safetensors").hash == model.hash


HOSTILE = {
    "no-noise": ("no noise", "less noise than declared"),
    "no-clip": ("no clip", "its gradients were not clipped"),
    "scaled": ("scaled x100", "its gradients were not clipped, or it was scaled"),
    "flipped": ("sign flipped x5", "its gradients were not clipped, or it was scaled"),
    "shape": ("wrong shape", "not an update of this model"),
    "replayed": ("replayed", "the same numbers as in an earlier round: replayed"),
}
COLLUDING = {
    "agreed-1": ("colluding", "are alike by"),
    "agreed-2": ("colluding", "are alike by"),
    "half": ("half noise", "less noise than declared"),
}


@pytest.mark.parametrize("hostile", [HOSTILE, COLLUDING], ids=["each alone", "two that collude"])
def test_hostile_sites_are_quarantined_and_not_in_the_average(hostile, consortium, monkeypatch):
    averaged, combine = [], aggregator.combine
    monkeypatch.setattr(
        aggregator, "combine", lambda *given, **named: averaged.append(given[2]) or combine(*given, **named)
    )
    honest = ("north", "south", "west", "east", "centre")[: 3 if hostile is HOSTILE else 5]
    many = consortium(*honest, *hostile)
    for site in honest:
        many.start(site)
    for site, (behaviour, _) in hostile.items():
        many.start(site, behaviour=behaviour)
    model, record = many.aggregate(plan(3, model="mlp", local_steps=5), join_deadline=120.0)

    assert [many.finish(site) for site in honest] == [0] * len(honest)
    assert [many.finish(site) for site in hostile] == [5] * len(hostile)
    by_site = {site["site"]: site for site in record.sites}
    for site, (_, reason) in hostile.items():
        assert by_site[site]["status"] == "quarantined"
        assert reason in by_site[site]["reason"]
    # A replay is an honest update the first time; what else a hostile site sent is in no average.
    assert [set(updates) for updates in averaged] == [
        {*honest, *({"replayed"} & set(hostile))}, set(honest), set(honest),
    ]  # fmt: skip
    weights = np.concatenate([array.ravel() for array in model.parameters.values()])
    assert np.isfinite(weights).all()
    for site in honest:
        assert models.load(many.folder / site / "model.safetensors").hash == model.hash


def test_sites_that_stop_at_their_own_budgets_end_the_run_with_its_model(consortium):
    two = consortium("north", "south")
    two.start("north", epsilon=6.0)
    two.start("south", epsilon=8.0)
    model, record = two.aggregate(plan(3))

    assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    decisions = [{site["site"]: site["decision"] for site in entry["sites"]} for entry in record.rounds]
    assert decisions[0] == {"north": "accepted", "south": "accepted"}
    assert decisions[-1] == {"north": "missing", "south": "accepted"}
    assert len(decisions) == 2
    assert any("the run ends after round 2 of 3" in line for line in two.said)
    assert model.privacy["rounds"] == 2
    assert [models.load(two.folder / site / "model.safetensors").hash for site in ("north", "south")] == [
        model.hash, model.hash,
    ]  # fmt: skip


def test_without_a_quorum_the_run_ends_with_the_reason_and_the_sites_are_told(consortium):
    two = consortium("north", "south")
    two.start("north")
    with pytest.raises(Unreachable, match=r"1 of 2 sites joined within 15 s, and 2 are needed"):
        two.aggregate(plan(2), join_deadline=15.0)
    assert two.finish("north") == 4
    assert "the run failed at the aggregator: 1 of 2 sites joined" in two.log("north")


def test_without_an_aggregator_a_site_ends_at_its_deadline_and_says_where_to_look(consortium):
    one = consortium("north")
    one.start("north", deadline=5.0)
    assert one.finish("north") == 6
    assert f"no task from the aggregator at 127.0.0.1:{one.port} within 5 s" in one.log("north")
    assert "where tasks run on several nodes, give --transport files" in one.log("north")
    assert not (one.folder / "north" / "model.safetensors").exists()


def test_a_taken_port_is_named_with_its_remedy(consortium, tmp_path):
    one = consortium("north")
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.port))
        taken.listen()
        with (
            pytest.raises(Unreachable, match=f"cannot listen on 127.0.0.1:{one.port}.*--aggregator_port"),
            gated_superlink(tmp_path / "run" / "aggregator", "127.0.0.1", one.port, tmp_path),
        ):
            pass
