"""Tests of cordon.auditing.updates and additions: right code passes, and what is broken is found."""

import numpy as np
import pytest
import torch

from cordon import clipping
from cordon.accountants import LAPLACE
from cordon.auditing.additions import check_count, check_releases
from cordon.auditing.made_up_site import repeated
from cordon.auditing.updates import check_neighbours, check_noise, check_sampling
from cordon.clipping import AdaptiveClip, PrivateMean, Release
from cordon.federation.plan import Plan
from cordon.mechanisms import Randomness
from cordon.optimisers import SGD, Adam
from cordon.provenance import FAILED, PASSED, UNABLE, UNTRIED
from cordon.training import Trained, train
from cordon.units import Units

pytestmark = pytest.mark.statistical


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
    checks = [
        check(audited)
        for check in (check_noise, check_neighbours, check_releases, check_sampling, check_count)
    ]
    assert [check.reason for check in checks if not check.passed and check.name != "count"] == []
    noise, neighbours, releases, sampling, count = checks
    assert noise.figures["updates"] == 8
    assert noise.figures["variance"] == pytest.approx(1.0, abs=0.5)
    # The controls: what the hardest unit may do, it does; and what is compared differs by itself.
    assert 0.95 <= neighbours.figures["moved"] <= 1.05
    assert neighbours.figures["units"] == (8 if unit == "patient" else 32)
    assert releases.figures["differ"] == 0.0 < releases.figures["differ_by_releases"]
    assert sampling.figures["rate"] == pytest.approx(audited.sampling_rate, rel=0.2)
    if audited.clipping == "fixed":
        assert (count.verdict, count.reason) == (UNTRIED, "a fixed clip counts nothing")
    else:
        assert (count.verdict, count.figures["moved"]) == (PASSED, pytest.approx(0.5, abs=0.01))


def test_each_check_says_what_would_have_failed_it_and_what_cannot_fail_does_not_pass():
    """One unit in two thousand steps: a unit in every fifth step would be seen, one in twice as many not."""
    rare = plan(sampling_rate=1e-6)
    found = check_sampling(rare)
    assert found.verdict == UNABLE
    assert "of which 1e-06 are declared" in found.most
    assert "noise of less than 0.9" in check_noise(plan()).most
    assert "by more than 1.00" in check_neighbours(plan()).most


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
        update[name] = update[name] + np.float32(units.features[np.arange(len(units.labels))].mean())
    return Trained(update, trained.clip_norm)


def rows_as_units(features, labels, patients, *, unit):
    return Units(features, labels, np.arange(len(labels) + 1), unit)


def silent_count(clip, random):
    count = clip._within - clip._quantile * clip._sampled
    clip.norm *= float(np.exp(-clip._rate * count / clip._expected_batch))
    clip._within = clip._sampled = 0


def count_noise_once(move=AdaptiveClip.move):
    return lambda clip, random: move(clip, Randomness(repeated()))


def count_of_rows(clip, norms):
    """As if every one of four rows had a say."""
    clip._within += 4 * int((norms <= clip.norm).sum())
    clip._sampled += 4 * len(norms)


def whole_noise_twice(noise_multiplier, mechanism, share):
    """As if gradient and count each were the whole release."""
    return noise_multiplier, noise_multiplier / 2


class Kept:
    """What broken optimisers look at beside the release: the raw sum."""

    raw = None

    @classmethod
    def release(cls, release=PrivateMean.release, summed=PrivateMean.clipped_sum):
        def released(mean, blocks, parameters):
            held = list(blocks)
            cls.raw = sum((summed(mean, block).cpu() for block in held), torch.zeros(parameters).double())
            return release(mean, held, parameters)

        return released


def raw_momentum(optimiser, gradient, noise_variance):
    optimiser._velocity = 0.9 * (0.0 if optimiser._velocity is None else optimiser._velocity) + Kept.raw
    return -optimiser._learning_rate * (gradient + optimiser._velocity)


def raw_second_moment(optimiser, gradient, noise_variance):
    return -optimiser._learning_rate * gradient / (Kept.raw**2 + 1.0) ** 0.5


def variance_of_the_sample(release=PrivateMean.release):
    """Adam is told of the noise by how many units were sampled."""

    def released(mean, blocks, parameters):
        held = list(blocks)
        found = release(mean, held, parameters)
        return Release(found.mean, found.noise_variance / max(1, sum(block.units for block in held)) ** 2)

    return released


def each_layer_to_the_whole_clip(mean, layers, norms, whole):
    factors = [clipping.clip_factors(norm, mean.clip.norm) for norm in norms]
    return torch.cat([layer.summed(own) for layer, own in zip(layers, factors, strict=True)])


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
    assert found.verdict == FAILED, found.reason


ADDED = {
    "a count without noise": (
        check_count, {"clipping": "adaptive"}, [(AdaptiveClip, "move", silent_count)],
        "of the declared noise",
    ),
    "a count whose noise comes again": (
        check_count, {"clipping": "adaptive"}, [(AdaptiveClip, "move", count_noise_once())],
        "share their noise",
    ),
    "a count of rows": (
        check_count, {"clipping": "adaptive"}, [(AdaptiveClip, "observe", count_of_rows)],
        "moves the count by 2",
    ),
    "gradient and count for the price of one": (
        check_count, {"clipping": "adaptive"}, [("cordon.clipping.split_noise", whole_noise_twice)],
        "times what the plan accounts for",
    ),
    "a count without noise, of variants that are rarely sampled": (
        check_count, {"clipping": "adaptive", "unit": "variant", "sampling_rate": 0.005},
        [(AdaptiveClip, "move", silent_count)], "of the declared noise",
    ),
    "momentum of raw gradients": (
        check_releases, {"momentum": 0.9},
        [(PrivateMean, "release", Kept.release()), (SGD, "change", raw_momentum)],
        "where releases are the same",
    ),
    "a second moment of raw gradients": (
        check_releases, {"optimiser": "adam"},
        [(PrivateMean, "release", Kept.release()), (Adam, "change", raw_second_moment)],
        "where releases are the same",
    ),
    "a noise variance by the sample": (
        check_releases, {"optimiser": "adam"}, [(PrivateMean, "release", variance_of_the_sample())],
        "where releases are the same",
    ),
    "the mean of raw rows, under Adam and an adaptive clip": (
        check_releases, {"optimiser": "adam", "clipping": "adaptive"},
        [("cordon.federation.site.train", with_raw_mean)], "where releases are the same",
    ),
    "every layer to the whole clip": (
        check_neighbours, {"per_layer": True}, [(PrivateMean, "summed", each_layer_to_the_whole_clip)],
        "moves an update by 1.4",
    ),
    "the mean of raw rows of images": (
        check_neighbours, {"model": "pileup_cnn"}, [("cordon.federation.site.train", with_raw_mean)],
        "moves an update by",
    ),
    "no clip on images": (
        check_neighbours, {"model": "pileup_cnn"},
        [("cordon.clipping.clip_factors", lambda norms, clip: torch.ones_like(norms))], "moves an update by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("epsilon", [8.0, 2.0])
@pytest.mark.parametrize("bug", ADDED)
def test_what_is_broken_in_what_a_plan_adds_is_refused(monkeypatch, bug, epsilon):
    check, changes, patches, said = ADDED[bug]
    audited = plan(**changes, epsilon=epsilon)
    assert check(audited).passed
    for patch in patches:
        monkeypatch.setattr(*patch)
    found = check(audited)
    assert found.verdict == FAILED, found.reason
    assert said in found.reason


def test_half_of_the_noise_in_whole_updates_is_refused(monkeypatch):
    real = PrivateMean.noise_scale
    monkeypatch.setattr(PrivateMean, "noise_scale", lambda mean: real(mean) / 2)
    found = check_noise(plan())
    assert found.verdict == FAILED
    assert found.figures["variance"] == pytest.approx(0.25, abs=0.05)


def test_the_repeated_source_gives_a_longer_answers_beginning_to_a_shorter_question():
    first, second = repeated(), repeated()
    assert first(16) == second(32)[:16]
    assert first(16) != second(16)[:8] + first(8)
