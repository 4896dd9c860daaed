"""Tests of cordon.privacy.accountants."""

import math
import tracemalloc
import warnings
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from cordon.errors import UserError
from cordon.privacy.accountants import epsilon_by, epsilon_pld, epsilon_rdp
from cordon.privacy.events import (
    GAUSSIAN,
    LAPLACE,
    LEAST_NOISE,
    MECHANISM,
    MECHANISMS,
    MOST_STEPS,
    NORMS,
    Event,
    at_sites,
    check_norm,
)
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.noise_calibration import calibrate_noise

EVENTS = st.builds(
    Event,
    st.floats(0.6, 20.0),
    st.one_of(st.floats(0.001, 0.5), st.just(1.0)),
    st.integers(1, 50),
    st.sampled_from(MECHANISMS),
)


def gaussian_delta(epsilon, noise):
    """Balle and Wang 2018 (arXiv:1805.06530), theorem 8: exact for one release of the Gaussian."""
    a, b = 1 / (2 * noise), epsilon * noise
    return norm.cdf(a - b) - math.exp(epsilon + log_ndtr(-a - b))


def laplace_delta(epsilon, noise):
    """Exact for one release of Laplace noise: the profile of a shift by 1 / noise scales."""
    if epsilon < -1 / noise:
        return 1 - math.exp(epsilon)
    return max(0.0, 1 - math.exp((epsilon - 1 / noise) / 2))


DELTA = {GAUSSIAN: gaussian_delta, LAPLACE: laplace_delta}


def one_step_delta(epsilon, mechanism, noise, rate):
    """Exact for one Poisson-sampled step: the worse of removing and of adding a unit.

    Of P and the mixture M = (1 - q) P + q Q: the hockey-stick divergences of M from P and of P from M,
    each rewritten as one between P and Q, which are mirror images.
    """
    grown = math.exp(epsilon)
    removing = rate * DELTA[mechanism](math.log1p((grown - 1) / rate), noise)
    left = 1 - grown * (1 - rate)
    adding = left * DELTA[mechanism](math.log(grown * rate / left), noise) if left > 0 else 0.0
    return max(removing, adding)


def solve(profile, delta):
    """The epsilon at which a decreasing privacy profile meets ``delta``."""
    return brentq(lambda epsilon: profile(epsilon) - delta, 1e-12, 200, xtol=1e-13)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    ("noise", "rate", "delta"),
    [(0.5, 1.0, 1e-5), (1.0, 1.0, 1e-5), (3.0, 1.0, 1e-6), (10.0, 1.0, 1e-3), (0.7, 0.01, 1e-5),
     (1.0, 0.2, 1e-7), (2.0, 0.5, 1e-9), (5.0, 0.9, 1e-5)],
)  # fmt: skip
def test_one_step_costs_at_least_the_exact_epsilon_and_little_more(mechanism, noise, rate, delta):
    exact = solve(lambda epsilon: one_step_delta(epsilon, mechanism, noise, rate), delta)
    event = Event(noise, rate, 1, mechanism)
    assert exact <= epsilon_pld([event], delta) <= 1.001 * exact
    assert exact <= epsilon_rdp([event], delta)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(
    ("noise", "steps"), [(3.0, 9), (1.0, 100), (30.0, 1000), (100.0, 10_000), (1000.0, MOST_STEPS)]
)
def test_many_gaussian_steps_cost_at_least_the_exact_epsilon_and_little_more(noise, steps, delta):
    # Without sampling, n releases of noise sigma * sqrt(n) are one of sigma, exactly.
    exact = solve(lambda epsilon: gaussian_delta(epsilon, noise / math.sqrt(steps)), delta)
    assert exact <= epsilon_pld([Event(noise, 1.0, steps)], delta) <= 1.001 * exact
    # At a rate a hair below 1 the steps are composed numerically, which rounding must not lower.
    assert exact - 1e-9 <= epsilon_pld([Event(noise, 1.0 - 1e-13, steps)], delta) <= 1.001 * exact


@pytest.mark.parametrize(("gaussian", "laplace"), [(1.0, 1.0), (2.0, 0.5), (0.8, 3.0)])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_a_gaussian_and_a_laplace_step_together_cost_the_exact_epsilon(gaussian, laplace, delta):
    shift = 1 / laplace

    def profile(epsilon):  # the Gaussian's, over the law of the Laplace loss: two atoms and a density
        def rest(loss):
            return gaussian_delta(epsilon - loss, gaussian)

        between = quad(
            lambda loss: math.exp((loss - shift) / 2) / 4 * rest(loss), -shift, shift, epsabs=1e-14
        )
        return rest(shift) / 2 + math.exp(-shift) / 2 * rest(-shift) + between[0]

    exact = solve(profile, delta)
    events = [Event(gaussian, 1.0, 1), Event(laplace, 1.0, 1, LAPLACE)]
    assert exact <= epsilon_pld(events, delta) <= 1.001 * exact
    assert exact <= epsilon_rdp(events, delta) <= 1.2 * exact + 0.05


def test_the_epsilons_of_the_literature():
    # One Gaussian of sigma 1 at delta 1e-5, by Balle and Wang's theorem 8.
    assert epsilon_pld([Event(1.0, 1.0, 1)], 1e-5) == pytest.approx(4.37718, abs=1e-4)
    # dp-accounting's own rdp_privacy_accountant_test, test_compute_epsilon_delta_gaussian.
    assert epsilon_rdp([Event(4.530877117, 1.0, 1)], 1e-6) == pytest.approx(1.0, abs=1e-4)
    # dp-accounting's own pld_privacy_accountant_test, test_poisson_subsampled_gaussian and
    # test_gaussian_basic.
    assert epsilon_pld([Event(0.5, 0.2, 3)], 0.15594) == pytest.approx(1.0, abs=1e-3)
    assert epsilon_pld([Event(math.sqrt(3), 1.0, 3)], 0.126936) == pytest.approx(1.0, abs=1e-3)
    # The same file's test_poisson_subsampled_laplace: 3 steps have no loss beyond this one.
    assert epsilon_pld([Event(0.5, 0.2, 3, LAPLACE)], 1e-14) == pytest.approx(2.46964, abs=1e-3)
    assert epsilon_pld([Event(0.5, 0.2, 3, LAPLACE)], 1e-14) <= 3 * (math.log1p(0.2 * math.expm1(2)) + 1e-4)
    # dp-accounting's pld accountant_test, test_get_smallest_laplace_noise.
    for queries, scale in [(20, 13.6), (500, 71.0)]:
        assert calibrate_noise(
            epsilon=1, delta=1e-4, sampling_rate=1.0, steps=queries, mechanism=LAPLACE, accountant="pld"
        ) == pytest.approx(scale, abs=0.1)
    # n releases of noise sigma * sqrt(n) are one of sigma, exactly.
    assert epsilon_pld([Event(1.0 * 3, 1.0, 9)], 1e-5) == pytest.approx(4.37718, abs=1e-2)
    assert epsilon_rdp([Event(1.0 * 3, 1.0, 9)], 1e-5) == pytest.approx(
        epsilon_rdp([Event(1.0, 1.0, 1)], 1e-5), rel=1e-9
    )


@pytest.mark.stress
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
    # The tutorials' table, and figure 4 of Bu et al. 2020 (arXiv:1911.11607), by the older conversion.
    for noise, epochs, published in [
        (1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10), (1.3, 20, 1.34), (0.7, 70, 8.68)
    ]:  # fmt: skip
        steps = epochs * 60000 // 256
        curve = RdpAccountant().compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
        older = (curve.rdp + math.log(1 / delta) / (curve.orders - 1)).min()
        assert older == pytest.approx(published, abs=0.01)
        event = Event(noise, rate, steps)
        assert epsilon_pld([event], delta) < epsilon_rdp([event], delta) < published


def test_the_moments_accountants_example_is_an_upper_bound():
    # Abadi et al. 2016 (arXiv:1607.00133), section 3.2: q 0.01, sigma 4, 10000 steps, delta 1e-5: 1.26.
    event = Event(4.0, 0.01, 10_000)
    assert epsilon_rdp([event], 1e-5) == pytest.approx(1.0355, abs=1e-3)
    assert epsilon_pld([event], 1e-5) < epsilon_rdp([event], 1e-5) < 1.26


@pytest.mark.stress
@settings(max_examples=8, deadline=None)
@given(EVENTS, st.floats(1e-8, 1e-3))
def test_pld_is_never_above_rdp(event, delta):
    assert 0 <= epsilon_pld([event], delta) <= epsilon_rdp([event], delta)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.5, 100), (0.05, 400), (0.02, 2000)])
def test_pld_is_well_below_rdp_on_the_plans_of_the_benchmark(mechanism, epsilon, rate, steps):
    settings = {"epsilon": epsilon, "delta": 1e-6, "sampling_rate": rate, "steps": steps}
    noise = calibrate_noise(**settings, mechanism=mechanism)
    assert epsilon_pld([Event(noise, rate, steps, mechanism)], 1e-6) < 0.95 * epsilon


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_many_small_losses_are_not_overstated_by_the_grid(mechanism):
    # On dp-accounting's own grid of 1e-4 the Gaussian came to 0.211, above RDP's 0.182.
    event = Event(20.0, 0.001, MOST_STEPS, mechanism)
    pld, rdp = epsilon_pld([event], 1e-5), epsilon_rdp([event], 1e-5)
    assert pld == pytest.approx({GAUSSIAN: 0.1605, LAPLACE: 0.1586}[mechanism], abs=5e-4)
    assert rdp == pytest.approx({GAUSSIAN: 0.1817, LAPLACE: 0.1804}[mechanism], abs=5e-4)


def test_a_delta_that_floating_point_cannot_resolve_is_left_to_rdp():
    events = [Event(30.0, 0.5, 10_000)]
    assert epsilon_pld(events, 1e-12) == epsilon_rdp(events, 1e-12)
    assert epsilon_pld(events, 1e-10) < 0.98 * epsilon_rdp(events, 1e-10)


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
        Event(event.noise_multiplier, event.sampling_rate, part, event.mechanism),
        Event(event.noise_multiplier, event.sampling_rate, event.steps - part, event.mechanism),
    ]
    assert epsilon_rdp(halves, 1e-5) == epsilon_rdp([event], 1e-5)
    assert epsilon_pld(halves, 1e-5) == epsilon_pld([event], 1e-5)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rounds_runs_and_changed_settings_compose(mechanism):
    first, second = Event(2.0, 0.1, 40, mechanism), Event(3.0, 0.3, 40, mechanism)
    for of_events in (epsilon_rdp, epsilon_pld):
        apart = of_events([first], 1e-5), of_events([second], 1e-5)
        both = of_events([first, second], 1e-5)
        assert max(apart) < both < sum(apart)
        assert of_events([first] * 3, 1e-5) == of_events([Event(2.0, 0.1, 120, mechanism)], 1e-5)


def test_the_mechanisms_of_one_site_are_told_apart_when_composed():
    gaussian, laplace = Event(1.0, 0.1, 10), Event(1.0, 0.1, 10, LAPLACE)
    for of_events in (epsilon_rdp, epsilon_pld):
        alike = of_events([gaussian] * 2, 1e-5), of_events([laplace] * 2, 1e-5)
        assert min(alike) < of_events([gaussian, laplace], 1e-5) < max(alike)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("noise", [0.8, 2.0])
def test_a_sum_and_a_count_that_share_a_step_cost_one_event(noise, share):
    """Adaptive clipping's two releases: the gradients' sum and a count of sensitivity one half.

    Gaussian shifts add in squares and Laplace shifts add: without sampling, two Gaussian releases
    composed are exactly the one event, and two Laplace releases never cost more than it.
    """
    gradients, count = noise / math.sqrt(1 - share), noise / (2 * math.sqrt(share))
    events = [Event(gradients, 1.0, 1), Event(2 * count, 1.0, 1)]
    assert epsilon_rdp(events, 1e-5) == pytest.approx(epsilon_rdp([Event(noise, 1.0, 1)], 1e-5), rel=1e-9)
    gradients, count = noise / (1 - share), noise / (2 * share)
    events = [Event(gradients, 1.0, 1, LAPLACE), Event(2 * count, 1.0, 1, LAPLACE)]
    one = [Event(noise, 1.0, 1, LAPLACE)]
    assert epsilon_rdp(events, 1e-5) <= epsilon_rdp(one, 1e-5)
    assert epsilon_pld(events, 1e-5) <= epsilon_pld(one, 1e-5)


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
@given(
    st.floats(0.1, 20.0),
    st.floats(0.005, 1.0),
    st.integers(5, 2000),
    st.floats(1e-8, 1e-5),
    st.sampled_from(MECHANISMS),
    st.sampled_from([("rdp", epsilon_rdp), ("pld", epsilon_pld)]),
)
@pytest.mark.stress
def test_calibrated_noise_spends_the_budget_within_1_percent_and_never_more(
    epsilon, rate, steps, delta, mechanism, accountant
):
    name, of_events = accountant
    noise = calibrate_noise(
        epsilon=epsilon,
        delta=delta,
        sampling_rate=rate,
        steps=steps,
        mechanism=mechanism,
        accountant=name,
    )
    spent = of_events([Event(noise, rate, steps, mechanism)], delta)
    assert spent <= epsilon
    assert spent >= 0.99 * epsilon or noise == LEAST_NOISE


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_pld_calibrates_to_less_noise_than_rdp(mechanism):
    budget = {"epsilon": 1.0, "delta": 1e-6, "sampling_rate": 0.1, "steps": 200, "mechanism": mechanism}
    assert calibrate_noise(**budget, accountant="pld") < 0.97 * calibrate_noise(**budget)


def test_calibration_refuses_an_accountant_it_does_not_know():
    with pytest.raises(UserError, match="Use one of: rdp, pld"):
        calibrate_noise(epsilon=1.0, delta=1e-5, sampling_rate=0.1, steps=10, accountant="sum")


def test_calibration_gives_the_least_noise_where_even_that_costs_less():
    assert calibrate_noise(epsilon=1000, delta=1e-5, sampling_rate=0.001, steps=1) == LEAST_NOISE


def test_calibration_refuses_a_budget_that_no_noise_keeps():
    about = r"\(unit: one patient; delta 1e-12; Poisson-sampled Gaussian; adjacency: add or remove one unit\)"
    with pytest.raises(
        UserError, match=rf"no noise keeps 1000000 steps within epsilon 0\.0001 {about}, by RDP\. Raise"
    ):
        calibrate_noise(epsilon=1e-4, delta=1e-12, sampling_rate=1.0, steps=MOST_STEPS, unit="patient")


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
    + [{"sites": value} for value in (0, -1, 101, 1.5, math.nan)]
    + [{"mechanism": value} for value in ("Laplace", "Gaussian", "", "shuffled Gaussian")],
)
def test_what_cannot_be_accounted_is_refused(changes):
    with pytest.raises(UserError, match="Use"):
        Event(**({"noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 1} | changes))


def test_an_event_names_its_mechanism_and_the_gaussian_is_the_default():
    assert MECHANISM == GAUSSIAN == Event(1.0, 0.1, 1).mechanism
    assert Event(1.0, 0.1, 1, LAPLACE).to_dict() == {
        "noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 1, "mechanism": "Poisson-sampled Laplace",
        "sites": 1,
    }  # fmt: skip
    assert Guarantee("patient", 1e-6, LAPLACE).statement(1.0) == (
        "epsilon 1 (unit: one patient; delta 1e-06; Poisson-sampled Laplace; "
        "adjacency: add or remove one unit)"
    )


def test_each_mechanism_takes_the_clip_of_its_own_norm_alone():
    assert NORMS == {GAUSSIAN: 2, LAPLACE: 1}
    check_norm(GAUSSIAN, 2)
    check_norm(LAPLACE, 1)
    with pytest.raises(
        UserError, match=r"Laplace noise on an L2 clip .* number of parameters\. Use an L1 clip"
    ):
        check_norm(LAPLACE, 2)
    with pytest.raises(UserError, match=r"Gaussian noise on an L1 clip .* Use an L2 clip"):
        check_norm(GAUSSIAN, 1)
    with pytest.raises(UserError, match="mechanism 'Gaussian' cannot be accounted"):
        check_norm("Gaussian", 2)


@pytest.mark.stress
def test_no_event_that_may_be_declared_takes_the_accountants_unbounded_memory():
    # At noise 0.01 and rate 1e-300, which cost nothing by RDP, the PLD accountant took all there was.
    # Without sampling, a thousand steps took 5 GB and 40 s.
    for rate in (1e-300, 0.001, 1.0):
        for mechanism in MECHANISMS:
            event = Event(LEAST_NOISE, rate, MOST_STEPS, mechanism)
            tracemalloc.start()
            assert epsilon_pld([event], 1e-5) <= epsilon_rdp([event], 1e-5)
            assert tracemalloc.get_traced_memory()[1] < 2**29
            tracemalloc.stop()


def test_the_accountants_are_quiet(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mechanism in MECHANISMS:
            epsilon_rdp([Event(0.123, 0.01, 7, mechanism)], 1e-5)
            epsilon_pld([Event(0.623, 1e-300, 7, mechanism)], 1e-5)
    assert not caplog.records


@pytest.mark.stress
@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_noise_is_calibrated_on_what_earlier_events_leave(accountant):
    """By composition with each history, never by subtracting epsilons; the costliest decides."""
    spent = [[Event(3.0, 0.5, 100)], [Event(9.0, 0.5, 100)], []]
    terms = {"epsilon": 12.0, "delta": 1e-5, "sampling_rate": 0.5, "steps": 100, "accountant": accountant}
    noise = calibrate_noise(**terms, spent=spent, budget=12.0)
    after = [epsilon_by(accountant, [*events, Event(noise, 0.5, 100)], 1e-5) for events in spent]
    left = 12.0 - epsilon_by(accountant, spent[0], 1e-5)
    assert 12.0 - 0.01 * left < max(after) == after[0] <= 12.0
    assert epsilon_by(accountant, [Event(noise, 0.5, 100)], 1e-5) > left  # epsilons do not add
    assert noise > calibrate_noise(**terms)
    # Where the run's own bound is the lower one, it decides.
    bound = {**terms, "epsilon": 2.0}
    alone = pytest.approx(calibrate_noise(**bound), rel=1e-4)
    assert calibrate_noise(**bound, spent=spent, budget=50.0) == alone
    with pytest.raises(UserError, match="beside what was spent before"):
        calibrate_noise(**terms, spent=[[Event(1.0, 0.5, 100)]], budget=12.0)


def the_demos(sites=1):
    """The events of the demo's plan at epsilon 8: ten rounds of ten steps, rate 0.5, delta 1e-5."""
    noise = calibrate_noise(epsilon=8.0, delta=1e-5, sampling_rate=0.5, steps=100, sites=sites)
    return [Event(noise, 0.5, 10, sites=sites)] * 10


def test_a_person_at_two_sites_comes_to_12_and_at_three_to_15_6():
    """Sites draw their own noise and samples, so a person's releases at all of them compose."""
    events = the_demos()
    both, all_three = at_sites(events, 2), at_sites(events, 3)
    assert epsilon_rdp(both, 1e-5) == epsilon_rdp([*events, *events], 1e-5) == pytest.approx(12.0, abs=0.05)
    assert epsilon_pld(both, 1e-5) == epsilon_pld([*events, *events], 1e-5) == pytest.approx(11.15, abs=0.02)
    assert epsilon_rdp(all_three, 1e-5) == pytest.approx(15.6, abs=0.05)


@pytest.mark.parametrize(("sites", "least", "most"), [(2, 4.5, 4.7), (3, 5.5, 5.8)])
def test_noise_calibrated_for_so_many_sites_keeps_a_person_at_all_of_them_within_epsilon(sites, least, most):
    (event, *_) = events = the_demos(sites)
    assert least < event.noise_multiplier < most
    assert 7.92 <= epsilon_rdp(events, 1e-5) <= 8.0
    assert epsilon_rdp(at_sites(events, 1) * sites, 1e-5) == epsilon_rdp(events, 1e-5)


def test_who_is_at_two_sites_now_may_have_been_in_earlier_runs():
    before, now = Event(2.0, 0.1, 100), Event(3.0, 0.1, 100, sites=2)
    assert epsilon_rdp([before, now], 1e-5) == epsilon_rdp(at_sites([before, now], 2), 1e-5)
    assert epsilon_rdp([before, now], 1e-5) > epsilon_rdp([before, replace(now, sites=1)] * 2, 1e-5) * 0.999
