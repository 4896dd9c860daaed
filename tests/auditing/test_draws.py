"""Tests of cordon.auditing.draws: right draws fail a test as often as it says, and others are told."""

import numpy as np
import pytest
from scipy import stats

from cordon.auditing import draws
from cordon.privacy.events import GAUSSIAN, LAPLACE, MECHANISMS
from trials import trials

pytestmark = pytest.mark.statistical

ERROR, SETS = 0.05, trials(400)
SOURCE = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def often_wrong(monkeypatch):
    """Tests that are wrong once in twenty times, so that it can be counted."""
    monkeypatch.setattr(draws, "ERROR", ERROR)


def drawn(mechanism, shape):
    return SOURCE.normal(size=shape) if mechanism == GAUSSIAN else SOURCE.laplace(size=shape)


def not_more_often(wrong, tests=1):
    """More wrong ones than this have a probability below 1e-4, where each of ``tests`` is wrong by ERROR."""
    assert wrong <= stats.binom.isf(1e-4, SETS, tests * ERROR)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("numbers", [1, 4, 300])
def test_scales_of_right_noise_are_refused_as_often_as_said_of_few_numbers_too(mechanism, numbers):
    wrong = 0
    for _ in range(SETS):
        sizes = np.abs(drawn(mechanism, (numbers, 20))) ** draws.POWERS[mechanism]
        wrong += bool(list(draws.scale_faults(sizes.sum(0), numbers, mechanism, "here")))
    not_more_often(wrong)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("shape", [(3, 5), (40, 30)])
def test_right_noise_is_refused_as_often_as_said(mechanism, shape):
    """Four tests of its shape, and three of what it shares."""
    shaped = shared = 0
    for _ in range(SETS):
        noise = drawn(mechanism, shape)
        shaped += bool(list(draws.shape_faults(noise, mechanism)))
        shared += bool(list(draws.shared_faults(noise)))
    not_more_often(shaped, tests=4)
    not_more_often(shared, tests=3)


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3, 1, 5), (20, 10, 8)])
def test_right_coins_are_refused_as_often_as_said(rate, shape):
    """A rate, pairs and sums by each of three things, and the rate of all."""
    wrong = 0
    for _ in range(SETS):
        coins = SOURCE.random(shape) < rate
        wrong += bool(list(draws.coin_faults(coins, rate, ("rounds", "steps", "units"))))
    not_more_often(wrong, tests=10)


def test_noise_of_another_scale_is_told_by_how_much_is_left():
    for mechanism in MECHANISMS:
        sizes = np.abs(0.5 * drawn(mechanism, (500, 3))) ** draws.POWERS[mechanism]
        (said,) = draws.scale_faults(sizes.sum(0), 500, mechanism, "of one number")
        assert said.startswith("the noise of one number is 0.")
        assert float(said.split()[6]) == pytest.approx(0.5, abs=0.1)
        assert draws.least_scale(500, mechanism) == pytest.approx(0.93, abs=0.04)


def test_numbers_that_are_none_are_refused_by_every_test():
    none = np.full((10, 20), np.nan)
    assert list(draws.scale_faults((none**2).sum(0), 10, GAUSSIAN, "here"))
    assert list(draws.shape_faults(none, LAPLACE))


@pytest.mark.parametrize("gap", [1, 13, 19, 25])
def test_numbers_that_come_again_are_found_at_any_distance(gap):
    row = drawn(GAUSSIAN, 40 * 20)
    row[gap:] = np.where(SOURCE.random(len(row) - gap) < 0.5, row[:-gap], row[gap:])
    assert any("come again" in said for said in draws.shared_faults(row.reshape(40, 20)))
