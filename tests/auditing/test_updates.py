"""Tests of the checks on made-up rows: right code passes them, and what an adversary planted is refused.

They are those of cordon.auditing.updates, additions, sampling, specified, reserving, self_test (egress) and
step_bound; the bugs stand in bugs_in_noise.py, bugs_in_training.py and bugs_told_by_reference.py.
"""

from functools import cache
from itertools import cycle, product

import numpy as np
import opacus  # noqa: F401  once, and not in each process that is forked for a model with hooks
import pytest
import torch

from bugs_in_noise import NOISE
from bugs_in_training import EGRESS, NEIGHBOURS, SAMPLING, STEP_BOUND
from bugs_told_by_reference import TOLD_BY_REFERENCE
from cordon.auditing import updates
from cordon.auditing.additions import ADDITION_IMAGE_STEPS, RATE, check_neighbours, coupled
from cordon.auditing.made_up_rows import LONG_ROWS, ROWS
from cordon.auditing.made_up_site import MOST_PLAYED_STEPS, repeated
from cordon.auditing.sampling import check_sampling
from cordon.auditing.self_test import CHECKS
from cordon.auditing.updates import check_noise
from cordon.federation.plan import Plan
from cordon.ledger.provenance import Verdict
from cordon.privacy import clipping
from cordon.privacy.events import LAPLACE
from cordon.privacy.mechanisms import Randomness
from trials import FULL

pytestmark = pytest.mark.statistical


@cache
def calibrated(settings):
    return Plan.calibrated(**dict(settings))


def plan(unit="patient", **changes):
    settings = {
        "model": "logistic", "unit": unit, "epsilon": 8.0, "delta": 1e-5, "rounds": 10, "local_steps": 5,
        "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0, "max_variants_per_patient": 256,
    }  # fmt: skip
    return calibrated(tuple((settings | changes).items()))


PLANS = [
    ("patient", {"model": "mlp", "local_steps": 10}), ("patient", {"epsilon": 2.0}),
    ("patient", {"model": "mlp", "mechanism": LAPLACE, "clipping": "adaptive", "per_layer": True}),
    ("variant", {"sampling_rate": 0.005, "local_steps": 200, "clipping": "adaptive"}),
    ("patient", {"per_layer": True, "optimiser": "adam", "learning_rate": 50.0, "clip_norm": 3.0}),
    ("variant", {"mechanism": LAPLACE, "sampling_rate": 0.1, "momentum": 0.9, "epsilon": 2.0}),
    ("patient", {"sampling_rate": 1.0, "local_steps": 1, "rounds": 1}),
    ("patient", {"epsilon": 900.0, "rounds": 2, "clipping": "adaptive", "quantile_share": 0.999}),
    ("patient", {"epsilon": 0.01, "clipping": "adaptive", "clip_quantile": 0.001, "clip_rate": 1.0}),
    ("variant", {"model": "pileup_cnn", "per_layer": True, "local_steps": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "changes"), PLANS)
def test_right_code_passes(unit, changes):
    audited = plan(unit, **changes)
    names = ("noise", "neighbours", "sampling", "specified", "reserving")
    checks = [CHECKS[name][1](audited) for name in names]
    assert [check.reason for check in checks if not check.passed] == []
    noise, neighbours, sampling, specified, reserving = (check.figures for check in checks)
    assert noise["releases"] >= 100
    assert noise["scale"] == pytest.approx(1.0, abs=0.1)
    # The controls: what the hardest unit may do, it does.
    assert 0.95 <= neighbours["moved"] <= 1.05
    assert sampling["rate"] == pytest.approx(audited.sampling_rate, rel=0.2)
    assert specified["sites"] == reserving["rounds"] == 3
    assert specified["releases"] >= 3 * min(audited.rounds, 2) * min(audited.local_steps, 2)
    if audited.clipping == "adaptive":
        assert noise["counts"] == noise["releases"]
        # A unit that is longer than the clip adds -quantile to a count, over what makes the most of it 1/2.
        most = audited.clip_quantile / (2 * max(audited.clip_quantile, 1 - audited.clip_quantile))
        assert 0.9 * most <= neighbours["count"] <= 0.501


@pytest.mark.parametrize(("clip_norm", "learning_rate"), [(5e-4, 200.0), (5e-5, 2e4), (1e-5, 1e5)])
def test_what_float32_rounds_is_no_other_mechanism(clip_norm, learning_rate):
    """A step leads to where labels are foretold nearly surely, and the clip is as small as gradients."""
    found = CHECKS["specified"][1](
        plan("variant", sampling_rate=0.005, local_steps=10, clip_norm=clip_norm, learning_rate=learning_rate)
    )
    assert found.passed, found.reason


def test_each_check_says_what_would_have_failed_it_and_what_cannot_fail_does_not_pass():
    """Of units that are in one of a million steps, twice as many would not be seen in 20,000."""
    found = check_sampling(plan(sampling_rate=1e-6))
    assert found.verdict == Verdict.UNABLE
    assert "of which 1e-06 are declared" in found.most
    assert "noise of less than 0.9" in check_noise(plan(clipping="adaptive")).most
    assert "in counts, would have failed it" in check_noise(plan(clipping="adaptive")).most
    assert "by more than 1.00" in check_neighbours(plan()).most


def planted(names):
    """A test of each bug, at a high and a low epsilon by turns; at both where all trials are asked for."""
    epsilons = (8.0, 2.0)
    cases = product(names, epsilons) if FULL else zip(names, cycle(epsilons), strict=False)
    return pytest.mark.parametrize(("name", "epsilon"), list(cases))


def refused(monkeypatch, bug, epsilon):
    audited = plan(epsilon=epsilon, **bug.plan)
    monkeypatch.setattr(updates, "RELEASES", bug.releases)
    bug.plant(monkeypatch)
    found = CHECKS[bug.check][1](audited)
    assert found.verdict == Verdict.FAILED, found.reason
    assert bug.said in found.reason


@planted(NOISE)
def test_noise_that_is_not_as_declared_and_updates_of_anything_else_are_refused(monkeypatch, name, epsilon):
    refused(monkeypatch, NOISE[name], epsilon)


@planted(NEIGHBOURS)
def test_units_that_move_more_than_a_releases_clip_are_refused(monkeypatch, name, epsilon):
    refused(monkeypatch, NEIGHBOURS[name], epsilon)


@planted(SAMPLING)
def test_units_without_a_coin_of_their_own_are_refused(monkeypatch, name, epsilon):
    refused(monkeypatch, SAMPLING[name], epsilon)


@pytest.mark.parametrize("name", TOLD_BY_REFERENCE)
def test_what_is_not_as_specified_and_rounds_that_are_not_reserved_are_refused(monkeypatch, name):
    refused(monkeypatch, TOLD_BY_REFERENCE[name], 8.0)


@planted([*EGRESS, *STEP_BOUND])
def test_more_in_a_message_and_clips_that_some_escape_are_refused(monkeypatch, name, epsilon):
    refused(monkeypatch, (EGRESS | STEP_BOUND)[name], epsilon)


def drawn_once(draw=clipping.draw_noise, held={}):  # noqa: B006  it is there to remember
    return lambda random, mechanism, size: held.setdefault((mechanism, size), draw(random, mechanism, size))


REPLACED = {
    "noise drawn once and used again": ("cordon.privacy.clipping.draw_noise", drawn_once()),
    "noise from a constant seed": (
        "cordon.training.dpsgd.Randomness", lambda: Randomness(np.random.default_rng(0).bytes)
    ),
    "no clip": ("cordon.privacy.clipping.clip_factors", lambda norms, clip: torch.ones_like(norms)),
}  # fmt: skip


@planted(REPLACED)
def test_what_two_processes_share_is_refused(monkeypatch, name, epsilon):
    monkeypatch.setattr(*REPLACED[name])
    assert check_noise(plan(epsilon=epsilon)).verdict == Verdict.FAILED


def test_half_of_the_noise_is_told_by_how_much_is_left(monkeypatch):
    real = clipping.PrivateMean.noise_scale
    monkeypatch.setattr(clipping.PrivateMean, "noise_scale", lambda mean: real(mean) / 2)
    found = check_noise(plan())
    assert found.verdict == Verdict.FAILED
    assert found.figures["scale"] == pytest.approx(0.5, abs=0.05)


def test_what_goes_wrong_later_in_a_round_than_is_played_is_said(monkeypatch):
    """A plan of 200 steps is played for MOST_PLAYED_STEPS of them."""
    releases = check_noise(plan(local_steps=200)).figures["releases"]
    assert releases in [rounds * MOST_PLAYED_STEPS for rounds in (12, 13, 14, 15)]


def test_the_repeated_source_gives_a_longer_answers_beginning_to_a_shorter_question():
    first, second = repeated(), repeated()
    assert first(16) == second(32)[:16]
    assert first(16) != second(16)[:8] + first(8)
    assert repeated("a")(16) != repeated("b")(16)


def test_the_last_unit_is_in_some_of_the_steps_that_are_played_and_not_in_all():
    """Of the fewest that there are, with every table: so right code always shows what the checks must see."""
    for units in (len(ROWS) + 1, sum(ROWS.values()) + 1, sum(ROWS.values()) + LONG_ROWS):
        random = coupled([])
        last = [units - 1 in random.poisson_sample(units, RATE) for _ in range(ADDITION_IMAGE_STEPS)]
        assert 0 < sum(last) < ADDITION_IMAGE_STEPS


def test_one_more_unit_shifts_no_other_draw():
    """Neither the samples nor the rows of the others nor the noise, though rows of the last one are drawn."""
    samples = []
    one, more = coupled(samples), coupled(samples[1:])
    for _ in range(4):
        first, second = one.poisson_sample(9, 0.5), more.poisson_sample(10, 0.5)
        assert second[second < 9].tolist() == first.tolist()
        more.subset(70, 4)
        assert one.subset(7, 4).tolist() == more.subset(7, 4).tolist()
        assert one.normal(5).tolist() == more.normal(5).tolist()
