"""Tests of cordon.privacy.clipping: what a step releases, measured; and that broken mechanisms are caught."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cordon.errors import UserError
from cordon.model.architectures import build
from cordon.privacy.clipping import (
    MOST_DRAWS,
    REACH,
    AdaptiveClip,
    Clip,
    NoiseStream,
    PrivateMean,
    clip_factors,
    split_noise,
)
from cordon.privacy.events import GAUSSIAN, LAPLACE, NORMS
from cordon.privacy.gradients import Block, DenseGradients, unit_gradients
from cordon.privacy.mechanisms import GRID_BITS, Randomness

F, CLIP, NOISE, EXPECTED = 20, 0.3, 1.7, 12.0
PARAMETERS = 16 * F + 16 + 16 + 1
# Every check below fails a sound mechanism with this probability, and its source of bytes is fixed.
SIGNIFICANCE = 1e-3
MECHANISMS = (GAUSSIAN, LAPLACE)


class Silent(Randomness):
    """Noise of nothing."""

    def normal(self, size):
        return np.zeros(size)

    def laplace(self, size):
        return np.zeros(size)


def seeded(seed):
    return Randomness(np.random.default_rng(seed).bytes)


def block(units, rows=3, seed=0, scale=1.0):
    source = torch.Generator().manual_seed(seed)
    labels = (torch.rand(units, rows, generator=source) > 0.5).float()
    features = scale * torch.randn(units, rows, F, generator=source)
    return Block(features, labels, torch.full_like(labels, 1 / rows), units)


def joined(first, second):
    parts = [torch.cat(pair) for pair in zip(fields(first), fields(second), strict=True)]
    return Block(*parts, first.units + second.units)


def fields(batch):
    return batch.features, batch.labels, batch.weights


def mlp(seed=0):
    torch.manual_seed(seed)
    module = build("mlp", F)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return unit_gradients(module, F)


def mean_of(kind, mechanism, random, clip=None, per_layer=False):
    return kind(
        mlp(), clip or Clip(CLIP, NOISE), mechanism=mechanism, expected_batch=EXPECTED, per_layer=per_layer,
        random=random,
    )  # fmt: skip


def check_noise(kind, mechanism):
    """The noise of an empty batch has the shape and the scale that the accounting is for."""
    mean = mean_of(kind, mechanism, seeded(4))
    released = [mean.release([], PARAMETERS) for _ in range(30)]
    noise = torch.cat([release.mean for release in released]).numpy()
    shape = stats.norm if mechanism == GAUSSIAN else stats.laplace
    assert stats.kstest(noise, shape(scale=NOISE * CLIP / EXPECTED).cdf).pvalue > SIGNIFICANCE
    assert noise.var() == pytest.approx(released[0].noise_variance, rel=0.1)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_step_gets_noise_that_another_got_before(mechanism):
    """Steps beyond those that are drawn at a time, and of two streams, from the real generator."""
    for size in (5, PARAMETERS, 3 * MOST_DRAWS):
        streams = [NoiseStream(Randomness(), mechanism) for _ in range(2)]
        steps = [stream.take(size) for _ in range(2 * MOST_DRAWS // size + 2) for stream in streams]
        drawn = torch.cat(steps)
        assert len(drawn.unique()) == len(drawn)
        assert {len(step) for step in steps} == {size}


@pytest.fixture(autouse=True)
def before_the_grid(request):
    """Only the test of the grid sees it."""
    if "on_the_grid" not in request.node.name:
        request.getfixturevalue("unrounded")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_is_released_lies_on_the_grid(mechanism):
    made = mean_of(PrivateMean, mechanism, Randomness())
    step = 2.0 ** (math.floor(math.log2(made.noise_scale())) - GRID_BITS)
    steps = made.release([block(9)], PARAMETERS).mean * EXPECTED / step
    assert torch.allclose(steps, steps.round(), rtol=0, atol=1e-6)
    assert len(steps.round().unique()) > PARAMETERS / 2


def check_sensitivity(kind, mechanism):
    """One unit more, whatever its gradient, moves the release by at most the clip over the normaliser."""
    for scale in (0.1, 1.0, 100.0):
        others = block(9)
        both = joined(others, block(1, seed=8, scale=scale))
        without, released = (
            mean_of(kind, mechanism, Silent()).release([batch], PARAMETERS).mean for batch in (others, both)
        )
        assert float((released - without).norm(NORMS[mechanism])) <= CLIP / EXPECTED


def check_normaliser(kind, mechanism):
    """Twice the units give twice the mean: nothing divides by how many were sampled."""
    once = mean_of(kind, mechanism, Silent()).release([block(9)], PARAMETERS).mean
    twice = mean_of(kind, mechanism, Silent()).release([block(9)] * 2, PARAMETERS).mean
    assert torch.allclose(twice, 2 * once)


CHECKS = (check_noise, check_sensitivity, check_normaliser)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_release_is_what_is_accounted_for(check, mechanism):
    check(PrivateMean, mechanism)


class NoNoise(PrivateMean):
    def noise_scale(self):
        return 0.0


class HalfNoise(PrivateMean):
    def noise_scale(self):
        return super().noise_scale() / 2


class NoClip(PrivateMean):
    def summed(self, layers, norms, whole):
        return torch.cat([layer.summed(torch.ones_like(whole)) for layer in layers])


class ClippedByRow(PrivateMean):
    """Each row of a unit to the clip, as if it were a unit."""

    def clipped_sum(self, batch):
        parts = [x.flatten(0, 1)[:, None] for x in fields(batch)]
        return super().clipped_sum(Block(parts[0], parts[1], torch.ones_like(parts[2]), len(parts[0])))


class LayersClippedToTheWhole(PrivateMean):
    def summed(self, layers, norms, whole):
        clip = self.clip.norm
        return torch.cat(
            [layer.summed(clip_factors(n, clip)) for layer, n in zip(layers, norms, strict=True)]
        )


class ActualBatch(PrivateMean):
    def normaliser(self, sampled):
        return float(max(sampled, 1))


class OtherNorm(PrivateMean):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.order = 3 - self.order


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (NoNoise, check_noise),
        (HalfNoise, check_noise),
        (NoClip, check_sensitivity),
        (ClippedByRow, check_sensitivity),
        (LayersClippedToTheWhole, check_sensitivity),
        (ActualBatch, check_normaliser),
    ],
)
def test_a_broken_mechanism_is_caught(broken, check, mechanism):
    with pytest.raises(AssertionError):
        check(broken, mechanism)


def test_an_l2_clip_under_laplace_noise_is_caught():
    with pytest.raises(AssertionError):
        check_sensitivity(OtherNorm, LAPLACE)


def test_a_mechanism_that_cannot_be_accounted_is_refused():
    with pytest.raises(UserError, match="cannot be accounted"):
        mean_of(PrivateMean, "uniform", Silent())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_by_layer_every_layer_is_clipped_to_its_part_and_the_whole_to_the_clip(mechanism):
    order = NORMS[mechanism]
    mean = mean_of(PrivateMean, mechanism, Silent(), clip=Clip(0.01, NOISE), per_layer=True)
    released = mean.release([block(1)], PARAMETERS).mean * EXPECTED
    layers = released.split([16 * F + 16, 17])
    for layer in layers:
        assert float(layer.norm(order)) == pytest.approx(0.01 / 2 ** (1 / order), rel=1e-5)
    assert float(released.norm(order)) <= 0.01


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_gradient_and_count_together_cost_what_the_noise_multiplier_says(share):
    gradient, count = split_noise(1.3, GAUSSIAN, share)
    assert gradient**-2 + (2 * count) ** -2 == pytest.approx(1.3**-2)
    assert (2 * count) ** -2 == pytest.approx(share * 1.3**-2)
    gradient, count = split_noise(1.3, LAPLACE, share)
    assert 1 / gradient + 1 / (2 * count) == pytest.approx(1 / 1.3)
    assert 1 / (2 * count) == pytest.approx(share / 1.3)


def adaptive(norm=1.0, *, quantile=0.9, mechanism=GAUSSIAN, noise=1.0, expected=500.0, rate=0.2, first=1.0):
    gradient, count = split_noise(noise, mechanism, 0.1)
    return AdaptiveClip(
        norm, first=first, quantile=quantile, rate=rate, noise_multiplier=gradient, count_noise=count,
        mechanism=mechanism, expected_batch=expected,
    )  # fmt: skip


@pytest.mark.parametrize("held", [1.0, 0.3], ids=["as declared", "a third of what is declared"])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_adaptive_clip_converges_to_the_quantile(mechanism, quantile, held):
    source, random = np.random.default_rng(0), seeded(1)
    clip, seen = adaptive(0.05, quantile=quantile, mechanism=mechanism), []
    for _ in range(400):
        clip.observe(torch.from_numpy(source.lognormal(1.0, 0.7, source.poisson(500 * held))))
        clip.move(random)
        seen.append(clip.norm)
    expected = stats.lognorm(0.7, scale=math.e).ppf(quantile)
    assert np.median(seen[-150:]) == pytest.approx(expected, rel=0.1)


def check_count_noise(kind):
    """On empty batches the clip's logarithm walks by the rate times the noise of the count."""
    random, walked = seeded(5), []
    for _ in range(1000):
        clip = kind(1.0, first=1.0, quantile=0.5, rate=0.2, noise_multiplier=1.0, count_noise=4.0,
                    mechanism=GAUSSIAN, expected_batch=500.0)  # fmt: skip
        clip.move(random)
        walked.append(math.log(clip.norm))
    assert stats.kstest(walked, stats.norm(scale=0.2 * 4.0 / 500).cdf).pvalue > SIGNIFICANCE


def check_count_sensitivity(kind):
    """One unit moves the clip by at most what one half moves the count, whatever its norm."""
    for quantile in (0.1, 0.5, 0.9):
        span = 2 * max(quantile, 1 - quantile)
        for norm in (0.0, 0.5, 2.0, math.inf, math.nan):
            norms = torch.tensor([0.3, 0.7, 1.5], dtype=torch.float64)
            moved = []
            for seen in (norms, torch.cat([norms, torch.tensor([norm], dtype=torch.float64)])):
                clip = kind(
                    1.0, first=1.0, quantile=quantile, rate=0.2, noise_multiplier=1.0, count_noise=4.0,
                    mechanism=GAUSSIAN, expected_batch=500.0,
                )  # fmt: skip
                clip.observe(seen)
                clip.move(Silent())
                moved.append(math.log(clip.norm) / (-0.2 * span / 500))
            assert abs(moved[1] - moved[0]) <= 0.5 + 1e-9


def test_the_clip_moves_by_what_is_accounted_for():
    check_count_noise(AdaptiveClip)
    check_count_sensitivity(AdaptiveClip)


class QuietCount(AdaptiveClip):
    def move(self, random):
        super().move(Silent())


class CountedTwice(AdaptiveClip):
    def observe(self, norms):
        super().observe(norms)
        super().observe(norms)


def test_a_broken_clip_is_caught():
    with pytest.raises(AssertionError):
        check_count_noise(QuietCount)
    with pytest.raises(AssertionError):
        check_count_sensitivity(CountedTwice)


def test_the_adaptive_clip_stays_within_its_public_range_whatever_happens():
    for norms, bound in (
        (torch.full((900,), 1e300, dtype=torch.float64), 2 * REACH),
        (torch.zeros(900), 2 / REACH),
    ):
        clip = adaptive(2.0, first=2.0, rate=1.0, expected=1.0)
        for _ in range(5):
            clip.observe(norms)
            clip.move(Silent())
        assert clip.norm == pytest.approx(bound)


def test_padding_of_a_block_is_not_counted():
    clip = adaptive()
    whole = block(16)
    padded = Block(whole.features, whole.labels, whole.weights.clone(), 6)
    padded.weights[6:] = 0.0
    mean = mean_of(PrivateMean, GAUSSIAN, Silent(), clip=clip)
    mean.clipped_sum(padded)
    assert clip._sampled == 6


def test_in_a_step_gradients_are_clipped_before_the_clip_moves():
    clip = adaptive(0.1, first=0.1, expected=EXPECTED)
    mean = mean_of(PrivateMean, GAUSSIAN, Silent(), clip=clip)
    released = mean.release([block(1, scale=50.0)], PARAMETERS)
    assert float(released.mean.norm()) * EXPECTED == pytest.approx(0.1, rel=1e-5)
    assert released.noise_variance == pytest.approx((clip.noise_multiplier * 0.1 / EXPECTED) ** 2)
    assert clip.norm > 0.1


def test_a_batch_may_come_in_any_number_of_blocks():
    assert isinstance(mlp(), DenseGradients)
    batch = block(64)
    parts = [Block(*(x[n : n + 16] for x in fields(batch)), 16) for n in range(0, 64, 16)]
    once, apart = (
        mean_of(PrivateMean, GAUSSIAN, Silent()).release(blocks, PARAMETERS).mean
        for blocks in ([batch], parts)
    )
    assert torch.allclose(once, apart, atol=1e-9)
