"""What events let anybody decide about one unit, against closed forms, published values and simulation."""

import math
import re
from decimal import ROUND_CEILING
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from cordon.federation.plan import Plan
from cordon.privacy.accountants import epsilon_pld
from cordon.privacy.events import GAUSSIAN, LAPLACE, Event
from cordon.privacy.groups import mixture_losses
from cordon.privacy.guarantee import three_digits
from cordon.privacy.noise_calibration import calibrate_noise
from cordon.privacy.profiles import epsilon_group, privacy_profile
from cordon.privacy.tradeoff import FPR, percent, risk, tradeoff

DELTA = 1e-5
# The demo's plan, as nextflow.config has it.
DEMO = Plan.calibrated(
    model="logistic", unit="patient", epsilon=8.0, delta=DELTA, rounds=10, local_steps=10, sampling_rate=0.5,
    clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=256,
)  # fmt: skip
DEMOS = [DEMO.event] * DEMO.rounds
EVENTS = st.builds(
    Event, st.floats(1.0, 20.0), st.one_of(st.floats(0.01, 0.5), st.just(1.0)), st.integers(1, 30),
    st.sampled_from([GAUSSIAN, LAPLACE]),
)  # fmt: skip


def test_the_demos_promise_in_terms_that_people_decide_by():
    found = risk(DEMOS, unit="patient", delta=DELTA)
    assert 1.55 < found.mu <= 1.58
    assert found.guess == pytest.approx(0.774, abs=5e-4)
    assert found.tpr == pytest.approx(0.211, abs=5e-4)
    assert found.groups == {2: pytest.approx(17.5, abs=0.05), 3: pytest.approx(30.2, abs=0.05)}
    assert (found.delta, found.unit, found.mechanism) == (DELTA, "patient", GAUSSIAN)


@pytest.mark.stress
def test_the_documented_figures_are_those_that_are_computed():
    text = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
    table = text.split("## What an attacker can decide")[1].split("## ")[0]
    rows = re.findall(
        r"^\| (\d+), ([\d.]+) \| (.*?) \| (.*?) \| (.*?) \| (.*?), (.*?) \|$", table, re.MULTILINE
    )
    assert len(rows) == 5
    for epsilon, *shown in rows:
        noise = calibrate_noise(epsilon=float(epsilon), delta=DELTA, sampling_rate=0.5, steps=100)
        found = risk([Event(noise, 0.5, 100)], unit="patient", delta=DELTA)
        numbers = [three_digits(value, ROUND_CEILING) for value in (found.mu, *found.groups.values())]
        pld = three_digits(found.epsilon_pld, ROUND_CEILING)
        assert shown == [pld, percent(found.guess), percent(found.tpr), *numbers]


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 1), (10.0, 100), (50.0, 1000)])
def test_without_sampling_the_curve_is_the_gaussians(noise, steps):
    """mu is sqrt(steps) / noise exactly (Dong, Roth and Su 2022, theorem 2.7 and corollary 3.3)."""
    curve, mu = tradeoff([Event(noise, 1.0, steps)], DELTA), math.sqrt(steps) / noise
    assert mu <= curve.mu <= 1.001 * mu
    assert curve.advantage == pytest.approx(2 * norm.cdf(mu / 2) - 1, rel=1e-3)
    assert curve.area == pytest.approx(norm.cdf(mu / math.sqrt(2)), rel=1e-3)
    for fpr in (0.001, 0.01, 0.1, 0.5):
        true = norm.cdf(norm.ppf(fpr) + mu)
        assert true <= curve.most(fpr) <= 1.005 * true


def test_without_sampling_the_curve_is_laplaces():
    """e^epsilon is the slope up to its corner, at delta 0 (Dong, Roth and Su 2022, proposition A.6)."""
    curve = tradeoff([Event(1.0, 1.0, 1, LAPLACE)], DELTA)
    for fpr in (0.001, 0.01, 0.1, math.exp(-1) / 2):
        assert math.e * fpr <= curve.most(fpr) <= 1.005 * math.e * fpr + DELTA
    assert curve.guess == pytest.approx(1 - math.exp(-0.5) / 2, rel=1e-3)


def test_a_curve_bounds_the_best_attack_on_a_sampled_gaussian_and_is_reached():
    """One step: a unit that is in with rate q moves the sum by a clip. The best test is a threshold."""
    noise, rate = 1.5, 0.4
    curve = tradeoff([Event(noise, rate, 1)], DELTA)
    thresholds = np.linspace(-3, 8, 200)
    others = norm.sf(thresholds / noise)
    members = (1 - rate) * others + rate * norm.sf((thresholds - 1) / noise)
    # Of the two directions, telling by "out" whose absence is looked for: the mirror image.
    for fpr, tpr in [*zip(others, members, strict=True), *zip(1 - members, 1 - others, strict=True)]:
        assert tpr <= curve.most(fpr) + 1e-9
    near = members[np.argmin(abs(others - 0.1))]
    assert curve.most(others[np.argmin(abs(others - 0.1))]) <= near + 2e-3


@pytest.mark.stress
@settings(max_examples=15, deadline=None)
@given(EVENTS)
def test_mu_bounds_the_whole_curve_apart_from_delta(event):
    curve = tradeoff([event], DELTA)
    if curve.mu is None:
        assert curve.most(0.01) == curve.guess == curve.area == 1.0
        return
    fpr = np.geomspace(1e-12, 1.0, 500)
    most = np.array([curve.most(rate) for rate in fpr])
    assert (most <= norm.cdf(norm.ppf(fpr) + curve.mu) + DELTA + 1e-9).all()
    assert (most >= fpr - 1e-12).all()
    assert (np.diff(most) >= -1e-12).all()


@settings(max_examples=10, deadline=None)
@given(EVENTS)
def test_no_curve_is_above_what_epsilon_alone_would_allow(event):
    curve, epsilon = tradeoff([event], DELTA), epsilon_pld([event], DELTA)
    if curve.mu is not None:
        for fpr in (0.0, 1e-4, 0.01, 0.1):
            assert curve.most(fpr) <= math.exp(min(1.002 * epsilon + 1e-3, 700)) * fpr + DELTA + 1e-9


def test_mixed_events_compose_to_more_than_each_alone():
    laplace = [Event(30.0, 0.5, 10, LAPLACE)]
    found, alone = (risk(events, unit="patient", delta=DELTA) for events in (DEMOS + laplace, DEMOS))
    assert found.mechanism == "Poisson-sampled Gaussian and Poisson-sampled Laplace"
    assert found.mu > alone.mu
    assert found.tpr > alone.tpr
    assert found.groups[2] > alone.groups[2]


def test_nothing_released_is_a_guess_and_too_much_is_no_bound():
    found = risk([], unit="patient", delta=DELTA)
    assert (found.epsilon_rdp, found.mu, found.guess, found.tpr) == (0.0, 0.0, 0.5, FPR)
    assert found.groups == {2: 0.0, 3: 0.0}
    found = risk([Event(0.3, 0.5, 10)], unit="patient", delta=DELTA)
    assert (found.epsilon_pld, found.mu, found.guess, found.tpr) == (None, None, 1.0, 1.0)
    assert found.groups == {2: None, 3: None}
    assert found.to_dict()["groups"] == {"2": None, "3": None}


def test_a_profile_holds_delta_at_epsilon():
    epsilons, deltas = privacy_profile(DEMOS, DELTA, 33)
    assert epsilons[-1] == pytest.approx(epsilon_pld(DEMOS, DELTA), rel=1e-3)
    assert deltas[-1] == pytest.approx(DELTA, rel=1e-6)
    assert (np.diff(deltas) < 0).all()


class TestGroups:
    @pytest.mark.parametrize("size", [2, 3])
    def test_without_sampling_a_group_is_one_unit_of_its_sizes_clips(self, size):
        """Theorem 2.14 of Dong, Roth and Su 2022: a group of k is k mu."""
        together = epsilon_group([Event(20.0, 1.0, 50)], DELTA, size)
        assert together == pytest.approx(epsilon_pld([Event(20.0 / size, 1.0, 50)], DELTA), rel=1e-3)

    def test_the_mixture_is_that_of_dp_accounting(self):
        from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism

        noise, rate, size, interval = 2.0, 0.3, 3, 5e-3
        weights = binom.pmf(range(size + 1), size, rate)
        theirs = from_mixture_gaussian_mechanism(noise, range(size + 1), weights, True, interval)
        ours = mixture_losses(noise, rate, size, interval)
        for epsilon in (0.0, 0.5, 2.0, 5.0):
            wanted = theirs.get_delta_for_epsilon(epsilon)
            assert ours.get_delta_for_epsilon(epsilon) == pytest.approx(wanted, rel=1e-3)
        steps = [losses.self_compose(20) for losses in (ours, theirs)]
        first, second = (losses.get_epsilon_for_delta(DELTA) for losses in steps)
        assert first == pytest.approx(second, rel=1e-4)

    def test_a_mixture_of_one_is_the_sampled_gaussian(self):
        event = Event(1.2, 0.1, 49)
        losses = mixture_losses(event.noise_multiplier, event.sampling_rate, 1, 1e-4).self_compose(49)
        assert losses.get_epsilon_for_delta(DELTA) == pytest.approx(epsilon_pld([event], DELTA), rel=1e-3)

    def test_no_test_on_a_step_of_a_group_passes_its_bound(self):
        """Drawn: two units, each in by a coin, and the best threshold on their sum."""
        noise, rate, epsilon = 1.5, 0.4, 1.0
        delta = mixture_losses(noise, rate, 2, 1e-3).get_delta_for_epsilon(epsilon)
        random = np.random.default_rng(7)
        moved = random.binomial(2, rate, 400_000) + noise * random.standard_normal(400_000)
        thresholds = np.linspace(-2, 8, 100)
        passed = np.array([(moved > threshold).mean() for threshold in thresholds])
        excess = (passed - math.exp(epsilon) * norm.sf(thresholds / noise)).max()
        assert excess == pytest.approx(delta, abs=3e-3)

    @pytest.mark.stress
    @settings(max_examples=10, deadline=None)
    @given(EVENTS)
    def test_a_group_costs_more_than_one_of_it_and_grows(self, event):
        one, two, three = (epsilon_group([event], DELTA, size) for size in (1, 2, 3))
        assert one <= two <= three
        assert one == pytest.approx(epsilon_pld([event], DELTA), rel=5e-3, abs=1e-4)

    def test_a_group_under_laplace_noise_costs_at_most_its_size_times_the_epsilon_at_delta_0(self):
        noise, rate, steps = 3.0, 0.5, 20
        pure = steps * math.log1p(rate * math.expm1(1 / noise))
        for size in (2, 3):
            found = epsilon_group([Event(noise, rate, steps, LAPLACE)], DELTA, size)
            assert epsilon_pld([Event(noise, rate, steps, LAPLACE)], DELTA) < found <= size * pure
        one = Event(1.0, 1.0, 1, LAPLACE)
        assert epsilon_group([one], DELTA, 2) == pytest.approx(2.0, rel=1e-3)

    def test_beyond_use_it_is_infinite(self):
        assert epsilon_group([Event(0.1, 0.5, 100)], DELTA, 3) == math.inf
        assert epsilon_group([], DELTA, 3) == 0.0


@pytest.mark.parametrize(
    ("share", "said"), [(0.7740971, "77.41 %"), (0.01, "1 %"), (0.21, "21 %"), (1.0, "100 %"), (0.5, "50 %")]
)
def test_shares_are_rounded_up(share, said):
    assert percent(share) == said
