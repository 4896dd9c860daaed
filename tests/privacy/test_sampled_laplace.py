"""Tests of cordon.privacy.sampled_laplace."""

import math
from itertools import pairwise

import mpmath
import pytest
from dp_accounting import LaplaceDpEvent
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon.privacy.sampled_laplace import renyi_divergence

SETTINGS = [(0.1, 0.01), (0.5, 0.2), (1.0, 0.001), (1.0, 0.5), (5.0, 0.1), (100.0, 1e-3)]
ORDERS = [1.1, 1.5, 2.0, 3.7, 10.9, 11.0, 63.0, 1024.0]


def integrated(noise, rate, order, *, adding=False):
    """The Rényi divergence of the one-dimensional pair by integration in 30 digits."""
    shift, rate = mpmath.mpf(1) / mpmath.mpf(noise), mpmath.mpf(rate)
    power = 1 - mpmath.mpf(order) if adding else mpmath.mpf(order)

    def moment(loss):
        return (1 - rate + rate * mpmath.exp(loss)) ** power

    between = mpmath.quad(
        lambda loss: mpmath.exp(-(loss + shift) / 2) / 4 * moment(loss), mpmath.linspace(-shift, shift, 17)
    )
    expectation = moment(-shift) / 2 + mpmath.exp(-shift) / 2 * moment(shift) + between
    return float(mpmath.log(expectation) / (mpmath.mpf(order) - 1))


@pytest.mark.parametrize(("noise", "rate"), SETTINGS)
def test_the_divergence_is_the_integral_and_never_below_it(noise, rate):
    with mpmath.workdps(30):
        for order in ORDERS:
            exact = integrated(noise, rate, order)
            assert exact * (1 - 1e-12) <= renyi_divergence(noise, rate, order) <= exact * (1 + 1e-8)


@pytest.mark.parametrize(("noise", "rate"), SETTINGS)
def test_adding_a_unit_costs_no_more_than_removing_one(noise, rate):
    with mpmath.workdps(30):
        for order in ORDERS:
            assert integrated(noise, rate, order, adding=True) <= renyi_divergence(noise, rate, order)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 100.0), st.floats(1e-6, 0.99), st.integers(2, 10))
def test_whole_and_other_orders_agree_where_they_meet(noise, rate, order):
    assert renyi_divergence(noise, rate, order + 1e-9) == pytest.approx(
        renyi_divergence(noise, rate, order), rel=1e-6
    )


@pytest.mark.parametrize("noise", [0.1, 1.0, 30.0])
def test_at_a_rate_of_almost_1_it_is_the_laplace_mechanisms(noise):
    known = RdpAccountant(ORDERS).compose(LaplaceDpEvent(noise)).rdp
    for order, expected in zip(ORDERS, known, strict=True):
        assert renyi_divergence(noise, 1 - 1e-12, order) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 1e6), st.floats(1e-6, 0.999))
def test_it_grows_with_the_order_up_to_the_greatest_loss(noise, rate):
    curve = [renyi_divergence(noise, rate, order) for order in ORDERS]
    assert all(low <= high * (1 + 1e-3) for low, high in pairwise(curve))
    assert curve[0] > 0
    assert curve[-1] <= math.log1p(rate * math.expm1(1 / noise)) * (1 + 1e-9)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("shift", [0.2, 1.0, 4.0])
def test_a_shift_spread_over_coordinates_is_dominated_by_one_of_a_single_coordinate(shift, part):
    """The hockey-stick divergence of two coordinates against one of the same L1 norm."""

    def profile(epsilon, length):
        if epsilon < -length:
            return 1 - math.exp(epsilon)
        return max(0.0, 1 - math.exp((epsilon - length) / 2))

    first, second = part * shift, (1 - part) * shift
    for epsilon in (-0.9 * shift, 0.0, 0.2 * shift, 0.5 * shift, 0.9 * shift):
        between = mpmath.quad(
            lambda loss, at=epsilon: mpmath.exp((loss - first) / 2) / 4 * profile(at - float(loss), second),
            mpmath.linspace(-first, first, 33),
        )
        spread = (
            profile(epsilon - first, second) / 2
            + math.exp(-first) / 2 * profile(epsilon + first, second)
            + float(between)
        )
        assert spread <= profile(epsilon, shift) + 1e-6
