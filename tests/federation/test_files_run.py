"""A whole run through a shared folder: attested, and with a relay that is killed in the middle of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from consortium import Consortium, plan
from cordon.attestation.emulator import Emulator
from cordon.model import released as models

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]


def test_attested_sites_train_through_the_folder_that_the_aggregator_serves(tmp_path):
    machine = Emulator.at(tmp_path / "machine")
    policy = machine.write_policy(tmp_path / "policy.toml")
    shared = tmp_path / "shared"
    two = Consortium(tmp_path, ["north", "south"], host=None)
    try:
        for site in ("north", "south"):
            two.start(site, policy=policy, transport=shared, deadline=150)
        model, record = two.aggregate(
            plan(2), evidence=f"emulator:{tmp_path / 'machine'}", transport=shared, join_deadline=150
        )
        assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    finally:
        two.stop()
    assert [[site["decision"] for site in entry["sites"]] for entry in record.rounds] == [
        ["accepted"] * 2
    ] * 2
    assert models.load(two.folder / "north" / "model.safetensors").hash == model.hash
    assert [path.name for path in shared.iterdir()] == ["relay.lock"]
    served = (tmp_path / "work" / "relay.log").read_text()
    for site in ("north", "south"):
        assert f"session {site}-" in served
        assert "is attested: " in two.log(site)
        # One SuperNode was enough; when the aggregator has ended, its relay has, too.
        assert two.log(site).count(" connects to ") == 1
        assert "Traceback" not in (tmp_path / site / "flower" / "transport.log").read_text()


def test_a_relay_killed_in_the_middle_and_started_again_costs_no_round_twice(tmp_path):
    rounds = 6
    two = Consortium(tmp_path, ["north", "south"])
    shared = tmp_path / "shared"
    relays: list[subprocess.Popen[bytes]] = []

    def start_relay() -> None:
        command = [sys.executable, "-m", "cordon.cli", "relay", str(shared), "--aggregator", two.address]
        with Path(tmp_path / "relay.log").open("ab") as log:
            relays.append(subprocess.Popen(command, stdout=log, stderr=log))

    def kill_and_start_again(line: str) -> None:
        if line.startswith("round 2 of") and len(relays) == 1:
            relays[0].kill()
            relays[0].wait()
            start_relay()

    try:
        start_relay()
        for site in ("north", "south"):
            two.start(site, transport=shared, deadline=150)
        model, record = two.aggregate(
            plan(rounds), say=kill_and_start_again, join_deadline=150, round_deadline=120, min_sites=1
        )
        assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    finally:
        two.stop()
        for relay in relays:
            relay.terminate()
            relay.wait(timeout=20)

    assert len(record.rounds) == rounds
    assert "served again" in (tmp_path / "relay.log").read_text()
    for site in ("north", "south"):
        taken = [
            entry["round"]
            for entry in record.rounds
            for row in entry["sites"]
            if row["site"] == site and row["decision"] == "accepted"
        ]
        assert taken[:2] == [1, 2]
        reserved = [row["round"] for row in two.reserved(site)]
        assert len(reserved) == len(set(reserved))
        assert set(taken) <= set(reserved)
        assert models.load(two.folder / site / "model.safetensors").hash == model.hash
