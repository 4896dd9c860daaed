"""Processes of a federation, killed outright at random moments: the run goes on, and nothing is forgotten.

A few kills by default; CORDON_CHAOS=20 makes twenty. Whoever dies as a whole task (the aggregator, a site) is
started again with the same command, as a workflow engine does it.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from consortium import Consortium, children, plan
from cordon.ledger.log import ChainedLog
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event

KILLS = int(os.environ.get("CORDON_CHAOS", "5"))
SITES = ("north", "south", "west")
VICTIMS = ("superlink", "aggregator", "supernode", "site", "gate")
ROUNDS, BUDGET = 8, 16.0

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300 + 120 * KILLS)]


class Chaos:
    """One run under a killer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.consortium = Consortium(folder, list(SITES), cold=(*SITES, "aggregator"))
        self.plan = plan(ROUNDS)
        self.killed: list[str] = []

    def begin(self, task: str) -> None:
        if task == "aggregator":
            self.aggregator = self.consortium.start_aggregator(self.plan, round_deadline=20.0)
        else:
            # A site that dies in a round has spent it in vain: it needs more than the plan's budget.
            self.consortium.start(task, epsilon=BUDGET, deadline=120.0)

    def pid(self, victim: str, site: str) -> int | None:
        """The process of ``victim`` now, if it runs."""
        if victim in ("aggregator", "site"):
            process = self.consortium._processes["aggregator" if victim == "aggregator" else site]
            return process.pid if process.poll() is None else None
        if victim == "supernode":
            found = re.findall(r"SuperNode (\d+) connects", self.consortium.log(site))
            return int(found[-1]) if found and Path(f"/proc/{found[-1]}").exists() else None
        module = {"superlink": "cordon.federation.flower.superlink", "gate": "cordon.federation.gate.app"}[
            victim
        ]
        return next(iter(children(self.aggregator.pid, module)), None)

    def kill(self, victim: str) -> None:
        site = self.random.choice(SITES)
        pid = self.pid(victim, site)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.killed.append(victim)

    def revive(self) -> None:
        """Start again what died before its time."""
        for task in ("aggregator", *SITES):
            status = self.consortium._processes[task].poll()
            if status not in (None, 0):
                assert status == -signal.SIGKILL, f"{task} ended with {status}: {self.tail(task)}"
                self.begin(task)

    def tail(self, task: str) -> str:
        return self.consortium.log("work" if task == "aggregator" else task)[-2000:]

    def run(self, kills: list[str]) -> None:
        """The whole run; every few seconds one of ``kills``, while rounds are trained."""
        for task in ("aggregator", *SITES):
            self.begin(task)
        due = list(kills)
        next_kill = time.monotonic() + 15
        deadline = time.monotonic() + 240 + 60 * len(kills)
        while self.aggregator.poll() != 0:
            assert time.monotonic() < deadline, self.tail("aggregator")
            if due and time.monotonic() > next_kill:
                self.kill(due.pop(0))
                next_kill = time.monotonic() + self.random.uniform(3, 14)
            self.revive()
            time.sleep(0.2)


def batches() -> list[list[str]]:
    """So many kills, every kind as often as the others, in runs of at most five."""
    order = [VICTIMS[number % len(VICTIMS)] for number in range(KILLS)]
    return [order[first : first + 5] for first in range(0, len(order), 5)]


@pytest.mark.parametrize("number", range(len(batches())))
def test_a_run_survives_kills_and_no_ledger_forgets(number, tmp_path):
    chaos = Chaos(tmp_path, seed=number)
    try:
        chaos.run(batches()[number])
    finally:
        chaos.consortium.stop()
    assert chaos.killed, "nobody was there to be killed"
    record = json.loads((tmp_path / "work" / "federation.json").read_text())
    assert [entry["round"] for entry in record["rounds"]] == list(range(1, ROUNDS + 1))
    assert not (tmp_path / "aggregator" / "run.checkpoint").exists()

    # Opening a ledger verifies every row of it.
    judged = [
        row for row in ChainedLog(tmp_path / "aggregator" / "ledger.sqlite") if row["kind"] == "decision"
    ]
    assert {row["run"] for row in judged} == {record["run"]}
    accepted = Counter((row["site"], row["round"]) for row in judged if row["decision"] == "accepted")
    assert set(accepted.values()) == {1}
    assert sum(accepted.values()) > ROUNDS
    assert not [row for row in judged if row["decision"] == "quarantined"]
    print(f"{len(chaos.killed)} killed: {', '.join(chaos.killed)}; {sum(accepted.values())} updates averaged")
    in_record = {
        (site["site"], entry["round"])
        for entry in record["rounds"] for site in entry["sites"] if site["decision"] == "accepted"
    }  # fmt: skip
    assert in_record == set(accepted)
    for site in SITES:
        own = list(ChainedLog(tmp_path / "state" / f"{site}.sqlite"))
        sent = [row["round"] for row in own if row["kind"] == "sent"]
        reserved = [row["round"] for row in own if row["kind"] == "reserved"]
        assert len(sent) == len(set(sent))
        assert set(sent) <= set(reserved)
        # What the aggregator averaged stands in the site's own ledger, and all of that one at the aggregator,
        # which also charges what it asked for and does not know to be unspent.
        counted = [Event(**event) for row in judged if row["site"] == site for event in row["events"]]
        assert {number for name, number in accepted if name == site} <= set(sent)
        spent = [Event(**row["event"]) for row in own if row["kind"] == "reserved"]
        assert epsilon_rdp(spent, 1e-5) <= epsilon_rdp(counted, 1e-5) <= BUDGET
        assert len(counted) >= sum(name == site for name, _ in accepted)
