"""The double that lets tests compare two runs: the same model under one seed, whatever else differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stress

ROOT = Path(__file__).resolve().parents[2]
SEEDED = ROOT / "tests" / "doubles" / "seeded"
# One round by `cordon.training.dpsgd.train`, from a start that the first argument scales; prints the
# update's hash.
ROUND = """
import hashlib, sys
import numpy as np
from cordon.model.initial_weights import initial_parameters
from cordon.training.dpsgd import DPSGD, train
from cordon.training.units import Units
random = np.random.default_rng(1)
units = Units.group(
    random.normal(size=(60, 4)).astype("float32"), np.ones(60, dtype="float32"),
    [f"p{row % 6}" for row in range(60)], unit="patient",
)
settings = DPSGD(
    noise_multiplier=1.0, sampling_rate=0.5, steps=2, clip_norm=0.1, learning_rate=1.0, expected_batch=3.0,
    max_variants=8,
)
start = initial_parameters("logistic", 4)
for _ in range(int(sys.argv[1])):
    update = train("logistic", start, units, settings).update
    start = {name: value + update[name] for name, value in start.items()}
print(hashlib.sha256(b"".join(value.tobytes() for value in start.values())).hexdigest())
"""


PLAN = """
import sys
from cordon.federation.plan import Plan
plan = Plan.calibrated(
    model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=1, local_steps=1, sampling_rate=0.5,
    clip_norm=0.05, learning_rate=1.0, max_variants_per_patient=8,
)
"""
# The same as an aggregator asks for it: from one start, rounds of the numbers that the first argument lists.
TASKS = (
    ROUND.split("for _ in")[0]
    + PLAN
    + """
from cordon.federation.messages import Task
from cordon.auditing.made_up_site import TIP
for number in sys.argv[1]:
    asked = Task(plan, int(number), 6, start, TIP).to_records()
    update = train("logistic", Task.from_records(asked).parameters, units, settings).update
    print(hashlib.sha256(b"".join(value.tobytes() for value in update.values())).hexdigest())
"""
)


def rounds(*arguments: str, seed: str = "7", start: str = ROUND) -> tuple[str, str]:
    """What the rounds print, and what the double says."""
    paths = [str(SEEDED), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "CORDON_TEST_SEED": seed}
    run = subprocess.run(
        [sys.executable, "-c", start, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip(), run.stderr


def test_a_site_draws_the_same_under_one_seed_and_other_numbers_under_another_name_or_seed():
    first, said = rounds("2", "--site", "north")
    assert rounds("2", "--site=north")[0] == first
    assert rounds("2", "--site", "south")[0] != first
    assert rounds("2", "--site", "north", seed="8")[0] != first
    assert "NOTHING IS PRIVATE" in said


def test_another_round_from_the_same_start_draws_other_numbers_and_the_same_round_the_same():
    """After a round with too few answers a run goes on from where it was, and its updates are no replays."""
    first, second, again = rounds("121", "--site", "north", start=TASKS)[0].split()
    assert first == again != second


def test_without_a_seed_or_a_site_noise_is_real():
    for arguments, seed in ((["1"], "7"), (["1", "--site", "north"], "")):
        (first, said), (second, _) = rounds(*arguments, seed=seed), rounds(*arguments, seed=seed)
        assert first != second
        assert "TEST ONLY" not in said


def test_runs_and_pseudonyms_are_called_after_the_seed(tmp_path):
    names = (
        PLAN
        + """
from cordon.ledger.pseudonyms import read_salt
print(plan.started().run, read_salt(sys.argv[1]).patient("p1"))
"""
    )
    first, second = (rounds(str(tmp_path / folder), start=names)[0] for folder in ("a", "b"))
    assert first == second
    assert first.startswith("seeded-7 ")
    assert rounds(str(tmp_path / "c"), start=names, seed="8")[0].split()[1] != first.split()[1]
