"""Tests of checkpoint: where a run goes on, and which copies it does not go on from."""

import json
import multiprocessing
import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import killed_aggregation as killed
from cordon.errors import UserError
from cordon.federation.aggregator.checkpoint import NAME, Checkpoint, Checkpoints
from cordon.federation.averaging import combine, mean_of
from cordon.federation.plan import Plan
from cordon.ledger.log import ChainedLog
from cordon.model import released as models
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event

PLAN = Plan(
    run="run-7", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=4, local_steps=1,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
    averaged_rounds=2,
)  # fmt: skip
# The same plan as its file has it, before a run has a name.
AGREED = replace(PLAN, run="")


def model(seed):
    random = np.random.default_rng(seed)
    shapes = {"0.weight": (1, 3), "0.bias": (1,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


class State:
    """An aggregator's state folder, and rounds that are noted in it as a run does it."""

    def __init__(self, folder):
        self.folder = folder
        self.open()

    def open(self):
        self.ledger = ChainedLog(self.folder / "ledger.sqlite")
        self.checkpoints = Checkpoints(self.folder, self.ledger)

    def begin(self):
        """Note that a run has its name, before its first round."""
        self.checkpoints.prepare(Checkpoint(PLAN, 0, model(0), head=self.ledger.head))
        self.checkpoints.settle()

    def note(self, number, *, until="settled"):
        """Note round ``number``; end after it is ``prepared`` or ``written``, as a crash would."""
        with pytest.raises(KeyboardInterrupt) if until == "prepared" else self.ledger.locked():
            if until == "prepared":
                with self.ledger.locked():
                    self._prepare(number)
                    raise KeyboardInterrupt
            self._prepare(number)
        if until == "settled":
            self.checkpoints.settle()

    def _prepare(self, number):
        self.ledger.append({"kind": "decision", "run": PLAN.run, "round": number})
        late = [model(each) for each in range(max(1, number - 1), number + 1)]
        rounds = [{"round": each, "seconds": 0.5, "sites": []} for each in range(1, number + 1)]
        self.checkpoints.prepare(
            Checkpoint(PLAN, number, model(number), late, {"s": {"site": "s"}}, rounds, self.ledger.head)
        )

    def resume(self, plan=AGREED):
        self.open()
        return self.checkpoints.resume(plan)


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state")


def same(first, second):
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)
    assert all(array.dtype == np.float32 for array in second.values())


def test_a_run_goes_on_under_its_name_where_the_last_round_left_it(state):
    assert state.resume() is None
    state.begin()
    for number in (1, 2, 3):
        state.note(number)
    held = state.resume()
    assert (held.plan, held.round, held.ended, held.head) == (
        PLAN,
        3,
        {"s": {"site": "s"}},
        state.ledger.head,
    )
    assert [entry["round"] for entry in held.rounds] == [1, 2, 3]
    same(model(3), held.parameters)
    assert len(held.late) == 2
    for expected, late in zip((model(2), model(3)), held.late, strict=True):
        same(expected, late)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=0, max_size=5),
    st.sampled_from([(1,), (1, 5), (5, 1)]),
    st.integers(0, 3),
    st.text(max_size=6),
)
def test_a_checkpoint_reads_back_as_it_was_written(values, shape, late, text):
    array = np.resize(np.array([0.0, *values], np.float32), shape)
    arrays = {"0.weight": array.T, "/odd/name": array}
    before = Checkpoint(PLAN, 2, arrays, [arrays] * late, {text: {"reason": text}}, [{"round": 1}], "ab")
    after = Checkpoint.from_bytes(before.to_bytes())
    same(before.parameters, after.parameters)
    for expected, found in zip(before.late, after.late, strict=True):
        same(expected, found)
    assert replace(before, parameters={}, late=[]) == replace(after, parameters={}, late=[])


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize(("until", "counts"), [("prepared", False), ("written", True), ("settled", True)])
def test_a_crash_around_a_rounds_decisions_loses_the_round_or_keeps_all_of_it(state, before, until, counts):
    """Prepared: the ledger has no row of it, and it is asked again. Written: it is over."""
    state.begin()
    for number in range(1, before + 1):
        state.note(number)
    state.note(before + 1, until=until)
    held = state.resume()
    over = before + counts
    assert held.round == over
    same(model(over), held.parameters)
    # And the run goes on from there to its end.
    for number in range(over + 1, PLAN.rounds + 1):
        state.note(number)
    assert state.resume().round == PLAN.rounds
    assert [row["round"] for row in state.ledger] == list(range(1, PLAN.rounds + 1))


def test_a_finished_run_leaves_nothing_to_go_on_from(state):
    state.note(1)
    state.note(2, until="written")
    state.checkpoints.discard()
    assert state.resume() is None
    assert sorted(file.name for file in state.folder.iterdir()) == [
        "ledger.head", "ledger.key", "ledger.sqlite",
    ]  # fmt: skip


def test_a_checkpoint_put_back_from_a_copy_is_refused(state):
    state.note(1)
    copy = (state.folder / NAME).read_bytes()
    state.note(2)
    (state.folder / NAME).write_bytes(copy)
    with pytest.raises(UserError, match="an older copy, after round 1, where the ledger has round 2"):
        state.resume()


def test_a_ledger_put_back_from_a_copy_is_refused(state, tmp_path):
    state.note(1)
    shutil.copytree(state.folder, tmp_path / "copy")
    state.note(2)
    for file in (tmp_path / "copy").glob("ledger.*"):
        shutil.copy(file, state.folder)
    with pytest.raises(UserError, match="the ledger beside it lacks the last row"):
        state.resume()


def test_the_unfinished_run_of_another_plan_is_kept_and_named(state):
    state.note(2)
    before = (state.folder / NAME).read_bytes()
    with pytest.raises(UserError, match=r"run run-7 of another plan is not finished \(2 of 4 rounds\)"):
        state.resume(replace(AGREED, learning_rate=0.25))
    assert (state.folder / NAME).read_bytes() == before
    assert state.resume(replace(PLAN, run="another-name")).round == 2


@pytest.mark.stress
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_that_is_no_checkpoint_is_refused_and_never_another_error(tmp_path_factory, data):
    state = State(tmp_path_factory.mktemp("state"))
    state.note(1)
    content = bytearray((state.folder / NAME).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
        expected = pytest.raises(UserError, match="not a checkpoint")
    else:
        # Within the header: what stands in it decides what is read, and how much.
        size = 8 + int.from_bytes(content[:8], "little")
        place = data.draw(st.integers(0, size - 1))
        content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
        expected = None
    (state.folder / NAME).write_bytes(content)
    if expected:
        with expected:
            state.resume()
        return
    try:
        held = state.resume()
    except UserError:
        return
    assert json.dumps(held.plan.to_dict())


@pytest.fixture(scope="module")
def attempt():
    """Run `killed_aggregation.attempt` in a process of its own; the exit status."""
    server = multiprocessing.get_context("forkserver")
    # A fork of a process that has imported these takes milliseconds; their threads have not started there.
    server.set_forkserver_preload(
        ["killed_aggregation", "torch", "opacus", "flwr.app", "cordon.training.dpsgd"]
    )

    def run(*given):
        process = server.Process(target=killed.attempt, args=given)
        process.start()
        process.join(60)
        return process.exitcode

    return run


# Every line of the aggregator's code is as likely as any other, and so is each time that it is run.
DEATHS = int(os.environ.get("CORDON_CHAOS", "10"))


@pytest.mark.stress
def test_killed_at_any_line_the_run_goes_on_and_every_update_counts_once(attempt, tmp_path):
    lines = tmp_path / "lines"
    assert attempt(tmp_path / "whole", None, lines) == 0
    files = {Path(place.rpartition("/")[2]).name for place in killed.MORTAL}
    assert {line.partition(":")[0] for line in lines.read_text().split()} == files
    check(tmp_path / "whole")
    times: dict[str, list[int]] = {}
    for number, line in enumerate(lines.read_text().split(), start=1):
        times.setdefault(line, []).append(number)
    seeded = random.Random(0)
    # The end is where a run that is over could be forgotten: its last lines are always among them.
    last = sorted(times, key=lambda line: times[line][-1])[-3:]
    chosen = seeded.sample(sorted(times), min(DEATHS, len(times))) + last
    died = 0
    for death, line in enumerate(chosen):
        folder = tmp_path / f"death{death}"
        status = attempt(folder, times[line][-1] if line in last else seeded.choice(times[line]))
        # Noise decides how many lines a run has: one that was shorter than the first has ended by then.
        assert status == killed.KILLED or over(folder)
        died += status == killed.KILLED
        # It may die again, at some line of what is left; where less is left than that, it ends.
        while not over(folder):
            point = seeded.randrange(1, 2 * len(lines.read_text().split()))
            assert attempt(folder, point) in (0, killed.KILLED), line
        check(folder, line)
    assert died >= len(chosen) - len(last)


def over(folder: Path) -> bool:
    """Whether the run's results were written and nothing is left to go on from."""
    return (folder / "record.json").exists() and not (folder / NAME).exists()


def check(folder: Path, line: str = "") -> None:
    """That the run in ``folder`` counted each update once, forgot none, and made the model that they make."""
    assert not (folder / NAME).exists(), line
    record = json.loads((folder / "record.json").read_text())
    rounds = range(1, killed.AGREED.rounds + 1)
    assert [entry["round"] for entry in record["rounds"]] == list(rounds), line
    judged = [row for row in ChainedLog(folder / "ledger.sqlite") if row["kind"] == "decision"]
    assert {row["run"] for row in judged} == {record["run"]}, line
    places = Counter((row["site"], row["round"]) for row in judged)
    assert set(places.values()) == {1}, line
    accepted = {(row["site"], row["round"]) for row in judged if row["decision"] == "accepted"}
    assert accepted == {
        (site["site"], entry["round"])
        for entry in record["rounds"] for site in entry["sites"] if site["decision"] == "accepted"
    }, line  # fmt: skip
    for site in killed.SITES:
        own = list(ChainedLog(folder / "sites" / f"{site.name}.sqlite"))
        sent = [row["round"] for row in own if row["kind"] == "sent"]
        assert len(sent) == len(set(sent)), line
        # Whatever left the site, the aggregator counts, and the site has it in its own ledger.
        mine = [row for row in judged if row["site"] == site.name]
        assert {row["round"] for row in mine if row["events"]} == set(sent), line
        reserved = [Event(**row["event"]) for row in own if row["kind"] == "reserved"]
        counted = [Event(**event) for row in mine for event in row["events"]]
        assert epsilon_rdp(counted, 1e-5) == epsilon_rdp(reserved, 1e-5), line
    now, after = initial_parameters("logistic", len(killed.FEATURES)), []
    for number in rounds:
        updates = {
            site: dict(np.load(folder / "sent" / f"{site}-{number}.npz"))
            for site, when in accepted if when == number
        }  # fmt: skip
        if len(updates) >= 2:
            weights = {site.name: site.weight for site in killed.SITES}
            now = combine("mean", now, updates, weights, malicious=0)
        after.append(now)
    final = mean_of(after[-killed.AGREED.averaged_rounds :])
    released = models.load(folder / "model.safetensors").parameters
    assert all(np.array_equal(final[name], released[name]) for name in final), line
