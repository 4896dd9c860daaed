"""Tests of service: a SuperLink or a gate that dies under a run, with real processes."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

from consortium import Consortium, children, plan
from cordon.model import released as models

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]
ROUNDS = 4


@pytest.mark.parametrize("module", ["cordon.federation.flower.superlink", "cordon.federation.gate.app"])
def test_a_run_goes_on_after_its_last_round_when_what_carries_it_is_killed_in_the_next(module, tmp_path):
    two = Consortium(tmp_path, ["north", "south"], cold=("aggregator",))
    killed = []

    def kill() -> None:
        killed.extend(children(os.getpid(), module))
        os.kill(killed[0], signal.SIGKILL)

    def kill_in_the_third_round(line: str) -> None:
        if line.startswith("round 2 of") and not killed:
            threading.Timer(0.7, kill).start()

    try:
        # A lost answer costs its round, so the sites' own budgets must bear one more than the plan's.
        for site in ("north", "south"):
            two.start(site, epsilon=16.0)
        began = time.monotonic()
        model, record = two.aggregate(plan(ROUNDS), say=kill_in_the_third_round, round_deadline=30.0)
        assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    finally:
        two.stop()
    assert killed
    # It is noticed at once, not at a deadline, and rounds that are over are not done again.
    assert time.monotonic() - began < 150
    assert two.said.count("the SuperLink, the gate or the relay ended; starting them again") == 1
    assert two.said.count(f"run {record.plan.run} goes on after round 2") == 1
    assert [entry["round"] for entry in record.rounds] == list(range(1, ROUNDS + 1))
    assert sum(line.startswith("round 1 of") for line in two.said) == 1
    decided = [row for row in two.ledger() if row["kind"] == "decision"]
    assert set(Counter((row["site"], row["round"]) for row in decided).values()) == {1}
    assert {row["decision"] for row in decided} <= {"accepted", "missing"}
    assert not (tmp_path / "aggregator" / "run.checkpoint").exists()
    for site in ("north", "south"):
        assert models.load(tmp_path / site / "model.safetensors").hash == model.hash
