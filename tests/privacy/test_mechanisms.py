"""Tests of cordon.privacy.mechanisms."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cordon.privacy.mechanisms import GRID_BITS, STREAM_FROM, Randomness, fresh_bytes, on_grid


def seeded(seed):
    return Randomness(np.random.default_rng(seed).bytes)


# One pass over the mapping from bytes to numbers, repeatable: a failure is the mapping's.
DRAWS = 100_000


def test_normal_draws_follow_the_standard_normal_distribution():
    draws = seeded(1).normal(DRAWS)
    assert draws.dtype == np.float64
    assert draws.shape == (DRAWS,)
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert abs(draws.mean()) < 4 / np.sqrt(DRAWS)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * DRAWS)
    assert abs(stats.kurtosis(draws)) < 4 * np.sqrt(24 / DRAWS)


def test_normal_draws_of_one_call_are_independent_of_one_another():
    # Each sums a cosine and a sine of the same pairs: none of a pair may serve two draws.
    draws = seeded(2).normal(DRAWS)
    for lag in (1, 2, DRAWS // 2):
        assert abs(np.corrcoef(draws, np.roll(draws, lag))[0, 1]) < 4 / np.sqrt(DRAWS)


def test_each_normal_draw_spends_four_uniform_ones():
    # Of fewer, the gaps of the floating-point grid can be solved for the noise.
    asked = []
    Randomness(lambda count: asked.append(count) or os.urandom(count)).normal(10)
    assert sum(asked) == 10 * 4 * 8


def test_laplace_draws_follow_the_laplace_distribution_of_scale_1():
    draws = seeded(8).laplace(DRAWS)
    assert draws.dtype == np.float64
    assert draws.shape == (DRAWS,)
    assert stats.kstest(draws, "laplace").pvalue > 1e-3
    assert abs(draws.mean()) < 4 * np.sqrt(2 / DRAWS)
    # The mean distance from 0 is the scale, and varies by as much.
    assert abs(np.abs(draws).mean() - 1) < 4 / np.sqrt(DRAWS)
    assert abs(np.abs(draws).std() - 1) < 4 * np.sqrt(2 / DRAWS)
    assert abs(stats.skew(draws)) < 4 * np.sqrt(90 / DRAWS)
    # Half of another scale, or a Gaussian of the same variance, would not pass for it.
    assert stats.kstest(draws / 1.02, "laplace").pvalue < 1e-3
    assert stats.kstest(draws, "norm", args=(0, np.sqrt(2))).pvalue < 1e-3


def test_laplace_draws_of_one_call_are_independent_of_one_another():
    draws = seeded(9).laplace(DRAWS)
    for lag in (1, 2, DRAWS // 2):
        other = np.roll(draws, lag)
        assert abs(np.corrcoef(draws, other)[0, 1]) < 4 / np.sqrt(DRAWS)
        assert abs(np.corrcoef(np.abs(draws), np.abs(other))[0, 1]) < 4 / np.sqrt(DRAWS)


def test_each_laplace_draw_spends_four_uniform_ones():
    # Of one, the gaps of the floating-point grid can be solved for the noise (Mironov 2012).
    asked = []
    Randomness(lambda count: asked.append(count) or os.urandom(count)).laplace(10)
    assert sum(asked) == 10 * 4 * 8


def test_the_tails_of_laplace_noise_are_not_cut():
    draws = np.abs(seeded(10).laplace(1_000_000))
    for distance in (5, 8, 10):
        expected = 1_000_000 * np.exp(-distance)  # 6738, 335, 45
        assert abs((draws > distance).sum() - expected) < 4 * np.sqrt(expected)


def test_the_noise_of_each_mechanism_hides_a_unit_as_its_profile_says():
    """Of the events "above t", none may tell data of 0 from data of 1 by more than delta(epsilon)."""
    draws, epsilon = 400_000, 0.5
    for noise, scale, delta in (("normal", 1.0, 0.2384), ("laplace", 1.0, 0.2212)):
        without = scale * getattr(seeded(11), noise)(draws)
        with_unit = 1 + scale * getattr(seeded(12), noise)(draws)
        told = [
            (with_unit > threshold).mean() - np.exp(epsilon) * (without > threshold).mean()
            for threshold in np.linspace(-2, 3, 51)
        ]
        assert max(told) == pytest.approx(delta, abs=6 / np.sqrt(draws))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_what_is_released_lies_on_a_public_grid_and_moves_less_than_its_step(value, scale):
    released = on_grid(np.array([value]), scale)[0]
    step = 2.0 ** (np.floor(np.log2(scale)) - GRID_BITS)
    assert step <= scale * 2.0**-GRID_BITS
    assert (released / step).is_integer()
    assert abs(released - value) <= step / 2


@pytest.mark.stress
def test_the_grid_hides_the_low_bits_of_the_data_and_of_the_noise():
    # Noise near 0 is finer than any float near 1: unrounded, such a value could only come of data of 0.
    noise = seeded(13).laplace(10_000) * 1e-3
    grid = 2.0**-22 * np.arange(-(2**20), 2**23)
    for data in (0.0, 1.0, 1 / 3):
        assert np.isin(on_grid(data + noise, 1e-3), grid).all()
    assert not np.isin(noise, grid).any()


def test_the_grid_keeps_the_noises_shape_and_what_float32_can_hold():
    draws = seeded(14).normal(DRAWS)
    released = on_grid(draws, 1.0)
    assert stats.kstest(released, "norm").pvalue > 1e-3
    assert np.var(released - draws) < 1e-8
    far = on_grid(4000 * draws / np.abs(draws).max(), 1.0)
    assert np.array_equal(far.astype(np.float32).astype(np.float64), far)


def test_the_tails_of_the_noise_are_not_cut():
    draws = np.abs(seeded(3).normal(1_000_000))
    expected = 1_000_000 * 2 * stats.norm.sf(4)  # 63
    assert abs((draws > 4).sum() - expected) < 4 * np.sqrt(expected)


@given(
    st.sampled_from(
        [b"\x00", b"\xff", b"\x00\x00\x00\x00\x00\x00\x00\x80", b"\xff\xff\xff\xff\xff\xff\xff\x7f"]
    )
)
def test_uniform_draws_lie_strictly_between_0_and_1_for_the_most_extreme_bytes(pattern):
    draws = Randomness(lambda count: (pattern * count)[:count]).uniform(4)
    assert (draws > 0).all()
    assert (draws < 1).all()
    assert np.isfinite(Randomness(lambda count: (pattern * count)[:count]).normal(3)).all()
    assert np.isfinite(Randomness(lambda count: (pattern * count)[:count]).laplace(3)).all()


@given(st.binary(min_size=8, max_size=64).filter(lambda content: len(content) % 8 == 0))
def test_uniform_draws_lie_strictly_between_0_and_1(content):
    draws = Randomness(lambda count: content[:count]).uniform(len(content) // 8)
    assert ((draws > 0) & (draws < 1)).all()


def test_uniform_draws_are_uniform():
    assert stats.kstest(seeded(4).uniform(DRAWS), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_a_poisson_sample_takes_each_unit_with_the_rate_and_independently(rate):
    random, runs, population = seeded(5), 2000, 40
    taken = np.zeros((runs, population), dtype=bool)
    for run in range(runs):
        taken[run, random.poisson_sample(population, rate)] = True
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], runs, rate)
    assert ((taken.sum(axis=0) >= low) & (taken.sum(axis=0) <= high)).all()
    # Sizes vary as a binomial's do: a sampler of a fixed size would have no variance.
    sizes = taken.sum(axis=1)
    assert sizes.var() == pytest.approx(population * rate * (1 - rate), rel=0.2)


def test_a_poisson_sample_at_rate_1_takes_every_unit_and_may_be_empty_below():
    assert list(Randomness(lambda count: b"\xff" * count).poisson_sample(3, 1.0)) == [0, 1, 2]
    assert any(len(seeded(6).poisson_sample(3, 0.01)) == 0 for _ in range(5))


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 2**32))
def test_a_subset_holds_distinct_indices_of_the_population(population, size, seed):
    chosen = seeded(seed).subset(population, size)
    assert len(chosen) == min(population, size)
    assert len(set(chosen.tolist())) == len(chosen)
    assert all(0 <= index < population for index in chosen)


def test_a_subset_takes_each_element_equally_often():
    random, runs = seeded(7), 3000
    counts = np.zeros(12)
    for _ in range(runs):
        counts[random.subset(12, 5)] += 1
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], runs, 5 / 12)
    assert ((counts >= low) & (counts <= high)).all()


def test_the_default_source_is_cryptographic_and_never_repeats(monkeypatch):
    assert Randomness().source is fresh_bytes
    for size in (16, STREAM_FROM, 5000):
        first, second = fresh_bytes(size), fresh_bytes(size)
        assert len(first) == len(second) == size
        assert first != second
    # A long stream is AES in counter mode under a key of the operating system's.
    monkeypatch.setattr("os.urandom", lambda size: bytes(size))
    assert fresh_bytes(STREAM_FROM)[:16].hex() == "dc95c078a2408989ad48a21492842087"
    monkeypatch.undo()
    first, second = Randomness(), Randomness()
    draws = np.concatenate([first.normal(50), second.normal(50), first.normal(50), Randomness().normal(50)])
    assert len(np.unique(draws)) == 200


def test_a_seed_of_numpy_or_python_changes_nothing(monkeypatch):
    import random

    def draw():
        np.random.seed(0)
        random.seed(0)
        return Randomness().normal(8)

    assert not np.intersect1d(draw(), draw()).size


def test_a_forked_child_draws_other_noise_than_its_parent():
    randomness = Randomness()
    randomness.normal(4)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:  # the child may only write and leave
        os.write(theirs, randomness.normal(4).tobytes())
        os._exit(0)
    os.close(theirs)
    drawn = np.frombuffer(os.read(ours, 32))
    os.close(ours)
    os.waitpid(child, 0)
    assert len(drawn) == 4
    assert not np.intersect1d(drawn, randomness.normal(4)).size


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_the_same_bytes_give_the_same_draws(seed):
    assert np.array_equal(seeded(seed).normal(9), seeded(seed).normal(9))
    assert np.array_equal(seeded(seed).laplace(9), seeded(seed).laplace(9))
    assert np.array_equal(seeded(seed).poisson_sample(50, 0.3), seeded(seed).poisson_sample(50, 0.3))
