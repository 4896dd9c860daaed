"""Tests of cordon.federation.aggregator.noise_checks: false alarms, power, and what real training makes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cordon.federation.aggregator import noise_checks
from cordon.federation.aggregator.noise_checks import ceiling, reference, small_coordinates, without_noise
from cordon.federation.aggregator.outliers import flat
from cordon.federation.plan import Plan
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.training.dpsgd import train
from cordon.training.units import Units

PLAN = Plan(
    run="r", model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=10, local_steps=10,
    sampling_rate=0.5, noise_multiplier=3.3, clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=64,
)  # fmt: skip
PATIENTS, F, N = 20, 45, 16 * 45 + 16 + 16 + 1
PLANS = {
    "sgd": PLAN,
    "momentum": replace(PLAN, momentum=0.7, learning_rate=1.0),
    "laplace": replace(PLAN, mechanism=LAPLACE),
    "adam": replace(PLAN, optimiser="adam", learning_rate=0.02),
}


def units(seed=0, rows=64):
    source = np.random.default_rng(seed)
    features = source.normal(size=(PATIENTS * rows, F)).astype(np.float32)
    labels = (features @ np.random.default_rng(9).normal(size=F) > 0).astype(np.float32)
    return Units.group(features, labels, [f"p{n // rows}" for n in range(len(labels))], unit="patient")


def trained(plan, **changes):
    settings = replace(plan.settings_for(PATIENTS), **changes)
    return flat(train("mlp", initial_parameters("mlp", F), units(), settings).update)


def test_the_noise_of_a_round_of_sgd_is_as_the_algebra_has_it():
    # Ten steps of deviation (noise multiplier x clip / batch) times the learning rate.
    found = reference(PLAN, PATIENTS)
    expected = 2.0 * 3.3 * 0.05 / 10 * np.sqrt(10)
    assert found.deviation == pytest.approx(expected, rel=0.01)
    assert found.small == pytest.approx(expected * stats.norm.ppf(0.8), rel=0.02)
    laplace = reference(replace(PLAN, mechanism=LAPLACE), PATIENTS)
    assert laplace.deviation == pytest.approx(expected * np.sqrt(2), rel=0.01)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_real_training_passes_both_checks_with_room(plan):
    for _ in range(5):
        update = trained(plan)
        assert np.linalg.norm(update) < ceiling(plan, PATIENTS, N)
        small = small_coordinates(plan, PATIENTS, update)
        assert small / N == pytest.approx(0.6, abs=0.08)
        assert not without_noise(plan, PATIENTS, small, N)


@pytest.mark.parametrize("name", ["sgd", "momentum", "laplace"])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_training_with_less_noise_than_the_plan_says_is_seen_in_one_round(name, share):
    plan = PLANS[name]
    update = trained(plan, noise_multiplier=share * plan.noise_multiplier)
    assert without_noise(plan, PATIENTS, small_coordinates(plan, PATIENTS, update), N)


def test_a_few_numbers_need_several_rounds_to_show_half_the_noise():
    plan = replace(PLAN, model="logistic")
    source, deviation = np.random.default_rng(1), reference(plan, PATIENTS).deviation
    counts = [
        small_coordinates(plan, PATIENTS, source.normal(scale=deviation / 2, size=46)) for _ in range(6)
    ]
    seen = [without_noise(plan, PATIENTS, sum(counts[:n]), 46 * n) for n in range(1, 7)]
    assert seen[-1]
    assert seen == sorted(seen)


def test_an_update_without_clipping_or_scaled_is_above_the_ceiling():
    most = ceiling(PLAN, PATIENTS, N)
    assert np.linalg.norm(trained(PLAN)) < most
    unclipped = {"clip_norm": 100 * PLAN.clip_norm, "noise_multiplier": PLAN.noise_multiplier / 30}
    assert np.linalg.norm(trained(PLAN, **unclipped)) > most
    assert np.linalg.norm(10 * trained(PLAN)) > most


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_ceiling_holds_for_the_longest_clipped_sums(plan):
    """Each unit at the clip and in one direction, twice as many units as declared, and the noise."""
    import torch

    from cordon.training.optimisers import optimiser

    settings = plan.settings_for(PATIENTS)
    source = np.random.default_rng(3)
    direction = np.zeros(N)
    direction[0] = 1.0
    scale = plan.noise_multiplier * plan.clip_norm / settings.expected_batch
    for _ in range(20):
        steps = optimiser(plan.optimiser, learning_rate=plan.learning_rate, momentum=plan.momentum)
        moved = np.zeros(N)
        for _ in range(plan.local_steps):
            sampled = source.binomial(2 * PATIENTS, plan.sampling_rate)
            noise = source.normal(0, scale, N) if plan.mechanism == GAUSSIAN else source.laplace(0, scale, N)
            gradient = direction * sampled * plan.clip_norm / settings.expected_batch + noise
            variance = scale**2 * (1.0 if plan.mechanism == GAUSSIAN else 2.0)
            moved += steps.change(torch.from_numpy(gradient), variance).numpy()
        assert np.linalg.norm(moved) < ceiling(plan, PATIENTS, N)


@pytest.mark.parametrize("size", [46, N])
def test_false_alarms_are_as_rare_as_stated(size, monkeypatch):
    """At a rate that can be measured; damping left out, so that the test is at its limit."""
    monkeypatch.setattr(noise_checks, "FALSE_ALARM", 0.02)
    monkeypatch.setattr(noise_checks, "DAMPING", 0.0)
    reference.cache_clear()
    ceiling.cache_clear()
    try:
        source, deviation = np.random.default_rng(5), reference(PLAN, PATIENTS).deviation
        draws = source.normal(scale=deviation, size=(4000, size))
        most = ceiling(PLAN, PATIENTS, size)
        alarms = sum(without_noise(PLAN, PATIENTS, small_coordinates(PLAN, PATIENTS, d), size) for d in draws)
        assert stats.binomtest(alarms, 4000, 0.02, alternative="greater").pvalue > 1e-3
        assert alarms > 0
        assert sum(np.linalg.norm(d) > most for d in draws) == 0
    finally:
        reference.cache_clear()
        ceiling.cache_clear()


def test_an_adaptive_clip_leaves_room_for_the_clips_that_it_may_reach():
    plan = replace(PLAN, clipping="adaptive")
    assert reference(plan, PATIENTS).deviation == pytest.approx(reference(PLAN, PATIENTS).deviation / 100)
    update = trained(plan)
    assert np.linalg.norm(update) < ceiling(plan, PATIENTS, N)
    assert not without_noise(plan, PATIENTS, small_coordinates(plan, PATIENTS, update), N)
