"""A site's task whose time is over leaves between rounds; the next one goes on with the run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from consortium import ROOT, Consortium, plan
from cordon.errors import Leaving, UserError
from cordon.federation.site.walltime import RESERVE, ROUND_MARGIN, Stay
from cordon.ledger.log import ChainedLog
from cordon.model import released as models
from cordon.privacy.accountants import epsilon_rdp


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_stay_is_over_when_a_round_like_the_longest_one_no_longer_fits():
    clock = Clock()
    stay = Stay(200, clock=clock)
    for seconds in (10, 20, 5):
        with stay.round():
            clock.now += seconds
    assert not stay.over
    clock.now = 1000 + 200 - RESERVE - ROUND_MARGIN * 20
    assert not stay.over
    clock.now += 1
    assert "69 s of its walltime are left, and a round may need 70 s" in stay.over


def test_without_a_walltime_a_stay_lasts_and_one_without_room_for_a_round_is_refused():
    clock = Clock()
    stay = Stay(clock=clock)
    clock.now += 1e9
    assert not stay.over
    with pytest.raises(UserError, match="no room for a round"):
        Stay(2 * RESERVE - 1)


SIGNALLED = """
import os, signal, sys
from cordon.federation.site.walltime import Stay
stay = Stay()
stay.heed_sigterm()
if sys.argv[1] == "between":
    os.kill(os.getpid(), signal.SIGTERM)
    print(stay.over)
    with stay.round():
        print("began a round")
else:
    with stay.round():
        os.kill(os.getpid(), signal.SIGTERM)
        print("went on")
"""


@pytest.mark.parametrize(("when", "said"), [("between", "it was told to end (SIGTERM)\n"), ("within", "")])
def test_sigterm_ends_a_round_at_once_and_a_stay_before_the_next(when, said):
    run = subprocess.run([sys.executable, "-uc", SIGNALLED, when], capture_output=True, text=True)
    assert run.returncode == -signal.SIGTERM
    assert run.stdout == said


@pytest.mark.federation
@pytest.mark.timeout(240)
def test_a_site_told_to_end_while_it_waits_leaves_with_the_status_that_is_tried_again(tmp_path):
    one = Consortium(tmp_path, ["north"])
    try:
        one.start("north")
        deadline = time.monotonic() + 100
        while "SuperNode" not in one.log("north"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(one._processes["north"].pid, signal.SIGTERM)
        assert one.finish("north") == Leaving.exit_code == 75
    finally:
        one.stop()
    assert "it was told to end" in one.log("north")


@pytest.mark.federation
@pytest.mark.timeout(300)
def test_a_site_leaves_before_its_walltime_and_rejoins_with_nothing_counted_twice(tmp_path):
    rounds, deadline = 12, 90
    three = Consortium(tmp_path, ["north", "south", "west"])
    codes = []

    def start_again(line: str) -> None:
        if line.startswith("round") and not codes and three._processes["west"].poll() is not None:
            codes.append(three.finish("west"))
            three.start("west", deadline=150)
            # No round goes by until it is back: how long it needs for that is each machine's own matter.
            patience = time.monotonic() + 60
            while three.log("west").count("connects to") < 2 and time.monotonic() < patience:
                time.sleep(0.2)

    try:
        for site in ("north", "south"):
            three.start(site, deadline=150)
        three.start("west", deadline=150, leave_after=3)
        model, record = three.aggregate(
            plan(rounds), say=start_again, join_deadline=150, round_deadline=deadline
        )
        assert [three.finish(site) for site in ("north", "south", "west")] == [0, 0, 0]
    finally:
        three.stop()

    assert codes == [75]
    assert re.search("west leaves between rounds: .* walltime are left", three.log("west"))
    assert len(record.rounds) == rounds
    taken = [
        entry["round"]
        for entry in record.rounds
        for site in entry["sites"]
        if site["site"] == "west" and site["decision"] == "accepted"
    ]
    assert taken[:3] == [1, 2, 3]
    assert 4 not in taken
    assert taken[-1] == rounds
    # It had said that it left: no round was open for it until its deadline.
    assert max(entry["seconds"] for entry in record.rounds) < deadline
    # Each round stands once in its ledger, and none that was for nothing.
    assert [row["round"] for row in three.reserved("west")] == taken
    expected = epsilon_rdp([plan(rounds).event] * len(taken), 1e-5)
    spent = json.loads((three.folder / "west" / "spent.json").read_text())
    by_site = {site["site"]: site for site in record.sites}
    assert spent["epsilon_rdp"] == pytest.approx(expected)
    # The aggregator charges each round that it was asked for, the one too that it left before.
    rows = ChainedLog(three.folder / "aggregator" / "ledger.sqlite").of_kind("asked")
    asked = [row["round"] for row in rows if row["site"] == "west"]
    assert {*taken} <= {*asked}
    charged = epsilon_rdp([plan(rounds).event] * len(asked), 1e-5)
    assert charged >= expected
    assert by_site["west"]["epsilon_rdp"] == pytest.approx(charged)
    assert by_site["west"]["status"] == "finished"
    assert by_site["north"]["epsilon_rdp"] > expected
    assert models.load(three.folder / "west" / "model.safetensors").hash == model.hash


LEAVING = """
process TRAIN_SITE {
    label 'process_federation'

    input:
    val ends

    script:
    \"\"\"
    echo "${task.attempt} ${task.memory.toGiga()} GB ${task.time.toHours()} h" >> ${launchDir}/starts
    status=\\$(cut -d ' ' -f \\$(wc -l < ${launchDir}/starts) <<< "${ends}")
    exit \\$status
    \"\"\"
}

workflow {
    TRAIN_SITE(params.ends)
}
"""


@pytest.mark.pipeline
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("ends", "finished"),
    [
        (["75"] * 12 + ["0"], True),
        (["75"] * 4 + ["137", "75", "143", "75", "0"], True),
        (["137"] * 11, False),
        (["75", "4"], False),
    ],
    ids=["leaves often", "is also killed", "is killed each time", "fails"],
)
def test_nextflow_starts_a_site_again_that_left_however_often(ends, finished, tmp_path):
    from pipeline_lab import environment

    (tmp_path / "main.nf").write_text(LEAVING)
    (tmp_path / "nextflow.config").write_text(
        f"params.federation_slots = 1\nincludeConfig '{ROOT}/conf/base.config'\n"
    )
    run = subprocess.run(
        ["nextflow", "run", "main.nf", "-ansi-log", "false", "--ends", " ".join(ends)],
        cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert (run.returncode == 0) == finished, run.stdout
    starts = (tmp_path / "starts").read_text().splitlines()
    # It asks for more memory at first, and never for more time than a queue may give.
    memory = [2, 4, *[6] * len(ends)]
    assert starts == [f"{n} {memory[n - 1]} GB 24 h" for n in range(1, len(ends) + 1)]
