"""A run whose aggregator proves itself before a site connects; the evidence is the emulator's, TEST ONLY."""

import pytest

from consortium import Consortium, plan
from cordon.attestation.emulator import Emulator
from cordon.model import released as models

pytestmark = [pytest.mark.federation, pytest.mark.timeout(240)]


def test_sites_train_with_the_attested_aggregator_and_with_no_other(tmp_path):
    machine = Emulator.at(tmp_path / "machine")
    good = machine.write_policy(tmp_path / "policy.toml")
    wrong = machine.write_policy(tmp_path / "wrong.toml", measurements=f'["{"00" * 48}"]')
    three = Consortium(tmp_path, ["north", "south", "wary"], host=None)
    try:
        three.start("north", policy=good)
        three.start("south", policy=good)
        three.start("wary", policy=wrong)
        model, _ = three.aggregate(plan(2), join_deadline=40.0, evidence=f"emulator:{tmp_path / 'machine'}")
        assert [three.finish(site) for site in ("north", "south")] == [0, 0]
        assert three.finish("wary") == 7
    finally:
        three.stop()
    assert "measurement" in three.log("wary")
    assert "SuperNode" not in three.log("wary")
    assert "is attested: " in three.log("north")
    assert {row["site"]: row["decision"] for row in three.ledger()} == {
        "north": "accepted", "south": "accepted", "wary": "missing",
    }  # fmt: skip
    assert not (tmp_path / "state" / "wary.sqlite").exists() or not three.reserved("wary")
    assert models.load(three.folder / "north" / "model.safetensors").hash == model.hash
