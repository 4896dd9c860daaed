"""Tests of cordon.accountants."""

import math
import tracemalloc
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from cordon.accountants import (
    LEAST_NOISE,
    MOST_STEPS,
    Event,
    calibrate_noise,
    epsilon_pld,
    epsilon_rdp,
)
from cordon.errors import UserError

EVENTS = st.builds(
    Event, st.floats(0.6, 20.0), st.one_of(st.floats(0.001, 0.5), st.just(1.0)), st.integers(1, 50)
)


def analytic_gaussian_epsilon(noise_multiplier, delta):
    """Balle and Wang 2018 (arXiv:1805.06530), theorem 8: exact for one release of the Gaussian."""

    def excess(epsilon):
        a, b = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 100, xtol=1e-12)


@pytest.mark.parametrize(("noise", "delta"), [(0.5, 1e-5), (1.0, 1e-5), (3.0, 1e-6), (10.0, 1e-3)])
def test_pld_equals_the_analytic_gaussian_mechanism_and_rdp_bounds_it(noise, delta):
    exact = analytic_gaussian_epsilon(noise, delta)
    event = Event(noise, 1.0, 1)
    assert epsilon_pld([event], delta) == pytest.approx(exact, rel=1e-3)
    assert exact <= epsilon_rdp([event], delta) <= 1.15 * exact + 0.05


def test_the_epsilons_of_the_literature():
    # One Gaussian of sigma 1 at delta 1e-5, by Balle and Wang's theorem 8.
    assert epsilon_pld([Event(1.0, 1.0, 1)], 1e-5) == pytest.approx(4.37718, abs=1e-4)
    # dp-accounting's own rdp_privacy_accountant_test, test_compute_epsilon_delta_gaussian.
    assert epsilon_rdp([Event(4.530877117, 1.0, 1)], 1e-6) == pytest.approx(1.0, abs=1e-4)
    # dp-accounting's own pld_privacy_accountant_test, test_poisson_subsampled_gaussian and
    # test_gaussian_basic.
    assert epsilon_pld([Event(0.5, 0.2, 3)], 0.15594) == pytest.approx(1.0, abs=1e-3)
    assert epsilon_pld([Event(math.sqrt(3), 1.0, 3)], 0.126936) == pytest.approx(1.0, abs=1e-3)
    # n releases of noise sigma * sqrt(n) are one of sigma, exactly.
    assert epsilon_pld([Event(1.0 * 3, 1.0, 9)], 1e-5) == pytest.approx(4.37718, abs=1e-2)
    assert epsilon_rdp([Event(1.0 * 3, 1.0, 9)], 1e-5) == pytest.approx(
        epsilon_rdp([Event(1.0, 1.0, 1)], 1e-5), rel=1e-9
    )


def test_the_mnist_tutorials_epsilon_and_opacus_agree():
    """256 of 60000 at noise 1.1 over 60 epochs, delta 1e-5: "epsilon 3.0" in the DP-SGD tutorials.

    The tutorials' 3.01 is the conversion of Abadi et al. 2016, theorem 2; the same Rényi curve gives
    2.5966 by Canonne, Kamath and Steinke 2020 (arXiv:2004.00010, proposition 12), which both use now.
    """
    from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import RDPAccountant

    rate, steps, delta = 256 / 60000, 60 * 60000 // 256, 1e-5
    ours = epsilon_rdp([Event(1.1, rate, steps)], delta)
    assert ours == pytest.approx(2.5966, abs=1e-3)
    assert epsilon_pld([Event(1.1, rate, steps)], delta) == pytest.approx(2.3817, abs=5e-3)
    opacus = RDPAccountant()
    opacus.history = [(1.1, rate, steps)]
    assert ours == pytest.approx(opacus.get_epsilon(delta), rel=1e-4)
    curve = RdpAccountant().compose(PoissonSampledDpEvent(rate, GaussianDpEvent(1.1)), steps)
    older = min(
        rdp + math.log(1 / delta) / (order - 1)
        for order, rdp in zip(curve._orders, curve._rdp, strict=True)
        if order > 1
    )
    assert older == pytest.approx(3.01, abs=0.01)


def test_the_moments_accountants_example_is_an_upper_bound():
    # Abadi et al. 2016 (arXiv:1607.00133), section 3.2: q 0.01, sigma 4, 10000 steps, delta 1e-5: 1.26.
    event = Event(4.0, 0.01, 10_000)
    assert epsilon_rdp([event], 1e-5) == pytest.approx(1.0355, abs=1e-3)
    assert epsilon_pld([event], 1e-5) < epsilon_rdp([event], 1e-5) < 1.26


@settings(max_examples=8, deadline=None)
@given(EVENTS, st.floats(1e-8, 1e-3))
def test_pld_is_never_above_rdp(event, delta):
    pld, rdp = epsilon_pld([event], delta), epsilon_rdp([event], delta)
    # PLD rounds losses up to a grid of 1e-4.
    assert 0 <= pld <= rdp + 1e-4 * event.steps


@settings(max_examples=12, deadline=None)
@given(st.lists(EVENTS, min_size=2, max_size=4), st.randoms())
def test_the_order_of_composition_does_not_matter(events, random):
    shuffled = events[:]
    random.shuffle(shuffled)
    assert epsilon_rdp(shuffled, 1e-5) == epsilon_rdp(events, 1e-5)


@settings(max_examples=12, deadline=None)
@given(EVENTS.filter(lambda event: event.steps > 1), st.data())
def test_an_event_split_in_two_costs_the_same(event, data):
    part = data.draw(st.integers(1, event.steps - 1))
    halves = [
        Event(event.noise_multiplier, event.sampling_rate, part),
        Event(event.noise_multiplier, event.sampling_rate, event.steps - part),
    ]
    assert epsilon_rdp(halves, 1e-5) == epsilon_rdp([event], 1e-5)
    assert epsilon_pld(halves, 1e-5) == epsilon_pld([event], 1e-5)


@settings(max_examples=12, deadline=None)
@given(EVENTS, EVENTS)
def test_another_event_never_lowers_epsilon(first, second):
    both = epsilon_rdp([first, second], 1e-5)
    assert both >= max(epsilon_rdp([first], 1e-5), epsilon_rdp([second], 1e-5)) - 1e-9


def test_no_events_cost_nothing():
    assert epsilon_rdp([], 1e-5) == epsilon_pld([], 1e-5) == 0


def test_more_steps_in_all_than_one_event_may_declare_are_still_accounted():
    events = [Event(100.0, 0.01, MOST_STEPS)] * 3
    assert epsilon_rdp(events, 1e-5) > epsilon_rdp(events[:1], 1e-5)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.1, 20.0), st.floats(0.005, 1.0), st.integers(5, 2000), st.floats(1e-8, 1e-5))
def test_calibrated_noise_spends_the_budget_within_1_percent_and_never_more(epsilon, rate, steps, delta):
    noise = calibrate_noise(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps)
    spent = epsilon_rdp([Event(noise, rate, steps)], delta)
    assert spent <= epsilon
    assert spent >= 0.99 * epsilon or noise == LEAST_NOISE


def test_calibration_gives_the_least_noise_where_even_that_costs_less():
    assert calibrate_noise(epsilon=1000, delta=1e-5, sampling_rate=0.001, steps=1) == LEAST_NOISE


def test_calibration_refuses_a_budget_that_no_noise_keeps():
    with pytest.raises(UserError, match=r"no noise keeps 1000000 steps within epsilon 0\.0001"):
        calibrate_noise(epsilon=1e-4, delta=1e-12, sampling_rate=1.0, steps=MOST_STEPS)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epsilon", 0.0), ("epsilon", -1.0), ("epsilon", math.nan), ("delta", 0.0), ("delta", 1.0),
     ("delta", math.nan), ("sampling_rate", 0.0), ("steps", 0)],
)  # fmt: skip
def test_calibration_refuses_what_is_no_budget(setting, value):
    settings = {"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 0.1, "steps": 10} | {setting: value}
    with pytest.raises(UserError, match=r"Use|Give"):
        calibrate_noise(**settings)


@pytest.mark.parametrize(
    "changes",
    [{"noise_multiplier": value} for value in (0.0, -1.0, math.nan, math.inf, 1e7, 0.01)]
    + [{"sampling_rate": value} for value in (0.0, -0.1, 1.1, math.nan)]
    + [{"steps": value} for value in (0, -1, MOST_STEPS + 1, 1.5, math.nan)]
    + [{"mechanism": value} for value in ("Laplace", "Gaussian", "")],
)
def test_what_cannot_be_accounted_is_refused(changes):
    with pytest.raises(UserError, match="Use"):
        Event(**({"noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 1} | changes))


def test_no_event_that_may_be_declared_takes_the_accountants_unbounded_memory():
    # At noise 0.01 and rate 1e-300, which cost nothing by RDP, the PLD accountant took all there was.
    tracemalloc.start()
    assert epsilon_pld([Event(LEAST_NOISE, 1e-300, MOST_STEPS)], 1e-5) == 0
    assert tracemalloc.get_traced_memory()[1] < 2**29
    tracemalloc.stop()


def test_the_accountants_are_quiet(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epsilon_rdp([Event(0.123, 0.01, 7)], 1e-5)
    assert not caplog.records
