"""Tests of cordon.federation.checkpoint: which of two counts, and that what went back is refused."""

from dataclasses import replace

import numpy as np
import pytest

from cordon.errors import UserError
from cordon.federation.checkpoint import NAME, Checkpoint, Checkpoints
from cordon.federation.plan import Plan
from cordon.ledger import ChainedLog
from cordon.model import initial_parameters

PLAN = Plan(
    run="run-1", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=3, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
)  # fmt: skip
START = initial_parameters("logistic", 3)


@pytest.fixture
def log(tmp_path):
    return ChainedLog(tmp_path / "ledger.sqlite")


def after(log, number, run="run-1"):
    """The checkpoint after a round whose row the ledger has."""
    parameters = {name: value + np.float32(number) for name, value in START.items()}
    rounds = [{"round": n} for n in range(1, number + 1)]
    return Checkpoint(replace(PLAN, run=run), number, parameters, [START, parameters], {"h1": {"site": "h1"}},
                      rounds, log.head)  # fmt: skip


def judged(log, number, run="run-1"):
    log.append({"kind": "decision", "run": run, "round": number})


def same(first, second):
    assert replace(first, parameters={}, late=[]) == replace(second, parameters={}, late=[])
    for one, other in zip([first.parameters, *first.late], [second.parameters, *second.late], strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_checkpoint_comes_back_as_it_was(tmp_path, log):
    held = Checkpoints(tmp_path, log)
    assert held.resume(PLAN) is None
    judged(log, 1)
    held.prepare(after(log, 1))
    held.settle()
    # The plan of a run to come has no name, or another one.
    for plan in (replace(PLAN, run=""), replace(PLAN, run="run-2")):
        same(held.resume(plan), after(log, 1))
    held.discard()
    assert held.resume(PLAN) is None


def die_in_round_2(log, held):
    with log.locked():
        judged(log, 2)
        held.prepare(after(log, 2))
        raise RuntimeError("killed")


@pytest.mark.parametrize("written", [False, True], ids=["died before the ledger", "died after it"])
def test_the_ledger_says_which_of_two_counts(written, tmp_path, log):
    held = Checkpoints(tmp_path, log)
    judged(log, 1)
    held.prepare(after(log, 1))
    held.settle()
    if written:
        judged(log, 2)
        held.prepare(after(log, 2))
    else:
        with pytest.raises(RuntimeError):
            die_in_round_2(log, held)
    again = Checkpoints(tmp_path, ChainedLog(log.path))
    assert again.resume(PLAN).round == (2 if written else 1)


def test_an_older_checkpoint_and_an_older_ledger_are_refused(tmp_path, log):
    held = Checkpoints(tmp_path, log)
    judged(log, 1)
    held.prepare(after(log, 1))
    held.settle()
    older = (tmp_path / NAME).read_bytes()
    judged(log, 2)
    held.prepare(after(log, 2))
    held.settle()
    newer = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(older)
    with pytest.raises(UserError, match="an older copy, after round 1, where the ledger has round 2"):
        held.resume(PLAN)
    (tmp_path / NAME).write_bytes(newer)
    assert held.resume(PLAN).round == 2
    with pytest.raises(UserError, match="lacks the last row that this unfinished run wrote"):
        Checkpoints(tmp_path, ChainedLog(tmp_path / "other.sqlite")).resume(PLAN)


def test_another_plan_does_not_go_on_with_it(tmp_path, log):
    held = Checkpoints(tmp_path, log)
    judged(log, 1)
    held.prepare(after(log, 1))
    held.settle()
    with pytest.raises(UserError, match=r"run run-1 of another plan is not finished \(1 of 3 rounds\)"):
        held.resume(replace(PLAN, epsilon=4.0))


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"{}" * 40, b"\xff" * 64], ids=repr)
def test_what_is_no_checkpoint_is_refused_by_name(content, tmp_path, log):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UserError, match=f"{NAME}: not a checkpoint"):
        Checkpoints(tmp_path, log).resume(PLAN)


def test_a_checkpoint_cut_anywhere_or_of_other_words_is_refused(tmp_path, log):
    judged(log, 1)
    whole = after(log, 1).to_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / NAME).write_bytes(whole[:length])
        with pytest.raises(UserError, match="not a checkpoint"):
            Checkpoints(tmp_path, log).resume(PLAN)
    (tmp_path / NAME).write_bytes(whole.replace(b"rounds", b"sounds"))
    with pytest.raises(UserError, match="not a checkpoint"):
        Checkpoints(tmp_path, log).resume(PLAN)
