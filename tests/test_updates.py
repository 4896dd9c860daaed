"""Tests of cordon.auditing.updates: right code passes, and what is broken between the steps is found."""

import numpy as np
import pytest
import torch

from cordon import clipping
from cordon.accountants import LAPLACE
from cordon.auditing import updates
from cordon.auditing.updates import check_neighbours, check_noise, check_sampling
from cordon.clipping import AdaptiveClip, PrivateMean
from cordon.federation import site
from cordon.federation.plan import Plan
from cordon.mechanisms import Randomness
from cordon.training import Trained, train
from cordon.units import Units

pytestmark = pytest.mark.statistical


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Answers need no grid of seconds here."""
    monkeypatch.setattr(site, "ANSWER_GRID", 1e-9)


def plan(unit="patient", **changes):
    settings = {
        "model": "mlp", "unit": unit, "epsilon": 8.0, "delta": 1e-5, "rounds": 10, "local_steps": 10,
        "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0, "max_variants_per_patient": 256,
    }  # fmt: skip
    return Plan.calibrated(**(settings | changes))


PLANS = [
    ("patient", {}), ("patient", {"epsilon": 2.0}),
    ("patient", {"mechanism": LAPLACE, "clipping": "adaptive"}),
    ("variant", {"sampling_rate": 0.005, "local_steps": 200, "clipping": "adaptive"}),
    ("patient", {"model": "logistic", "per_layer": True, "optimiser": "adam"}),
    ("variant", {"model": "logistic", "mechanism": LAPLACE, "sampling_rate": 0.1, "momentum": 0.9}),
    ("patient", {"sampling_rate": 1.0, "local_steps": 1, "rounds": 1}), ("patient", {"model": "pileup_cnn"}),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "changes"), PLANS)
def test_right_code_passes(unit, changes):
    audited = plan(unit, **changes)
    checks = [check(audited) for check in (check_noise, check_neighbours, check_sampling)]
    assert [check.reason for check in checks if not check.passed] == []
    assert [check.name for check in checks if not check.tried] == (
        ["neighbours"] if audited.model == "pileup_cnn" else []
    )
    noise, neighbours, sampling = checks
    assert noise.figures["updates"] == 8
    assert noise.figures["variance"] == pytest.approx(1.0, abs=0.5)
    if neighbours.tried:
        # The control: what the hardest unit may do, it does.
        assert 0.95 <= neighbours.figures["moved"] <= 1.05
        assert neighbours.figures["units"] == (8 if unit == "patient" else 32)
    assert sampling.figures["rate"] == pytest.approx(audited.sampling_rate, rel=0.2)


class Sampler:
    """Samples of a population by a rule that remembers, for each source of randomness of its own."""

    def __init__(self, rule):
        self.rule, self.held = rule, {}

    def __call__(self, random, population, rate):
        _, state = self.held.setdefault(id(random), (random, {}))
        return self.rule(state, random, population, rate)


def one_sample(state, random, population, rate):
    if "sample" not in state:
        state["sample"] = np.flatnonzero(random.uniform(population) < rate)
    return state["sample"]


def shuffled(state, random, population, rate):
    """Batches of a fixed size out of one shuffled order after the other."""
    size = max(1, round(population * rate))
    if len(state.get("order", ())) < size:
        state["order"] = np.argsort(random.uniform(population))
    batch, state["order"] = state["order"][:size], state["order"][size:]
    return np.sort(batch)


def drawn_once(draw=clipping.draw_noise, held={}):  # noqa: B006  it is there to remember
    def again(random, mechanism, size):
        return held.setdefault((mechanism, size), draw(random, mechanism, size))

    return again


def with_raw_mean(architecture, start, units, settings, **named):
    trained = train(architecture, start, units, settings, **named)
    update = dict(trained.update)
    name = next(iter(update))
    if len(units):
        update[name] = update[name] + np.float32(np.asarray(units.features).mean())
    return Trained(update, trained.clip_norm)


def rows_as_units(features, labels, patients, *, unit):
    return Units(features, labels, np.arange(len(labels) + 1), unit)


def silent_count(clip, random):
    count = clip._within - clip._quantile * clip._sampled
    clip.norm *= float(np.exp(-clip._rate * count / clip._expected_batch))
    clip._within = clip._sampled = 0


def weaker_in_one(take=clipping.NoiseStream.take):
    def taken(stream, size):
        step = take(stream, size).clone()
        step[3] = 0.0
        return step

    return taken


def first_step_alone(take=clipping.NoiseStream.take):
    def taken(stream, size):
        steps = stream.__dict__.setdefault("steps", 0)
        stream.steps = steps + 1
        return take(stream, size) if not steps else torch.zeros(size, dtype=torch.float64)

    return taken


def seeded():
    return Randomness(np.random.default_rng(0).bytes)


def bugs():
    return {
        "noise drawn once and used again": (check_noise, "cordon.clipping.draw_noise", drawn_once(held={})),
        "noise from a constant seed": (check_noise, "cordon.training.Randomness", seeded),
        "a number without noise": (check_noise, "cordon.clipping.NoiseStream.take", weaker_in_one()),
        "noise in one step": (check_noise, "cordon.clipping.NoiseStream.take", first_step_alone()),
        "the mean of raw rows": (check_neighbours, "cordon.federation.site.train", with_raw_mean),
        "rows as units": (check_neighbours, "cordon.units.Units.group", rows_as_units),
        "the batch's own size": (
            check_neighbours, "cordon.clipping.PrivateMean.normaliser", lambda mean, sampled: max(sampled, 1),
        ),
        "no clip": (
            check_neighbours, "cordon.clipping.clip_factors", lambda norms, clip: torch.ones_like(norms)
        ),
        "one sample a round": (check_sampling, "cordon.mechanisms.Randomness.poisson_sample", one_sample),
        "shuffled batches": (check_sampling, "cordon.mechanisms.Randomness.poisson_sample", shuffled),
        "all units": (
            check_sampling, "cordon.mechanisms.Randomness.poisson_sample", lambda state, r, n, q: np.arange(n)
        ),
        "halves of the units": (
            check_sampling, "cordon.mechanisms.Randomness.poisson_sample",
            lambda state, random, n, q: np.arange(n) if random.uniform(1)[0] < q else np.arange(0),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("epsilon", [8.0, 2.0])
@pytest.mark.parametrize("bug", bugs())
def test_what_is_broken_between_the_steps_is_refused(monkeypatch, bug, epsilon):
    check, place, wrong = bugs()[bug]
    if check is check_sampling:
        sampler = Sampler(wrong)
        monkeypatch.setattr(place, lambda random, n, q: sampler(random, n, q))
    else:
        monkeypatch.setattr(place, wrong)
    found = check(plan(epsilon=epsilon))
    assert not found.passed, found.reason


def test_a_count_without_noise_is_refused(monkeypatch):
    audited = plan(clipping="adaptive")
    assert check_noise(audited).passed
    monkeypatch.setattr(AdaptiveClip, "move", silent_count)
    found = check_noise(audited)
    assert "the count behind the adaptive clip" in found.reason
    assert not found.passed


def test_half_of_the_noise_in_whole_updates_is_refused(monkeypatch):
    real = PrivateMean.noise_scale
    monkeypatch.setattr(PrivateMean, "noise_scale", lambda mean: real(mean) / 2)
    found = check_noise(plan())
    assert not found.passed
    assert found.figures["variance"] == pytest.approx(0.25, abs=0.05)


def test_the_repeated_source_gives_a_longer_answers_beginning_to_a_shorter_question():
    first, second = updates._repeated(), updates._repeated()
    assert first(16) == second(32)[:16]
    assert first(16) != second(16)[:8] + first(8)
