"""Membership attacks where the answer is known: by overfitting, by construction, and by the bound of DP.

DP noise is always fresh, so what is held of it is held at a confidence of 0.999.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordon.auditing.attack_scores import advantage, area, judge, proportion, rate_at
from cordon.auditing.membership import ATTACKS, MembershipResult, attack, threshold_attack
from cordon.auditing.shadows import (
    VIEWS,
    Shadowing,
    Trace,
    alignment,
    clipped,
    confidences,
    kept,
    lira,
    members_of,
    unit_gradients_of,
    unprotected,
)
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.devices import thread_count
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.training.pretrain import fit
from cordon.training.units import Units

pytestmark = pytest.mark.statistical

FEATURES = 12
SURE = 0.999
# The area under TPR = min(e FPR + delta, 1 - (1 - delta - FPR) / e), the most that epsilon 1 allows.
MOST_AREA = math.e / (1 + math.e) + 1e-5
START = initial_parameters("mlp", FEATURES)


def plan(unit: str = "variant", *, epsilon: float = 1.0, **settings: object) -> Plan:
    chosen = {
        "model": "mlp", "unit": unit, "epsilon": epsilon, "delta": 1e-5, "rounds": 4, "local_steps": 5,
        "sampling_rate": 0.5, "clip_norm": 1.0, "learning_rate": 0.02, "optimiser": "adam",
        "max_variants_per_patient": 8 if unit == "patient" else 1,
    }  # fmt: skip
    return Plan.calibrated(**(chosen | settings))


def rows(number: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features without any bearing on the labels: a model can learn rows only by heart."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(number, FEATURES)).astype(np.float32)
    return features, (rng.random(number) < 0.5).astype(np.float32)


def variants(number: int, *, seed: int = 0) -> Units:
    return Units.group(*rows(number, seed=seed), [""] * number, unit="variant")


def patients(number: int, each: int = 4, *, seed: int = 0) -> Units:
    names = [f"p{n % number:03d}" for n in range(number * each)]
    return Units.group(*rows(number * each, seed=seed), names, unit="patient")


def by_heart(units: Units) -> Trace:
    """The non-private fit, as a run of one round."""
    with thread_count(1):
        model = fit("mlp", units.features, units.labels, start=START)
    return Trace([START, model], [{name: model[name] - START[name] for name in START}], model)


def found(results: list[MembershipResult], name: str, view: str = "model") -> MembershipResult:
    return next(result for result in results if (result.attack, result.view) == (name, view))


# What the measures measure.


def test_area_counts_pairs_and_half_of_ties():
    score = np.array([[3.0, 1.0, 2.0, 2.0]])
    member = np.array([[True, False, True, False]])
    assert area(score, member).value == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_area_without_clusters_has_delongs_variance():
    rng = np.random.default_rng(5)
    inside, outside = rng.normal(0.8, 1, 300), rng.normal(0, 1, 200)
    estimate = area(np.concatenate([inside, outside])[None], np.repeat([[True, False]], [300, 200], axis=1))
    wins = (inside[:, None] > outside).astype(float)
    deviation = math.sqrt(wins.mean(1).var(ddof=1) / 300 + wins.mean(0).var(ddof=1) / 200)
    assert (estimate.high - estimate.low) / (2 * 1.965) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("targets", "units", "shift"), [(8, 60, 0.0), (8, 60, 1.0), (1, 200, 0.5)])
def test_intervals_of_areas_hold_for_pairs_that_share_targets_and_units(targets, units, shift):
    rng = np.random.default_rng(3)
    estimates = []
    for _ in range(300):
        member = rng.random((targets, units)) < 0.5
        shared = 0.7 * rng.normal(size=(targets, 1)) + 0.7 * rng.normal(size=units)
        score = rng.normal(size=(targets, units)) + shared + shift * member * rng.exponential(size=units)
        estimates.append(area(score, member))
    truth = np.mean([estimate.value for estimate in estimates])
    assert np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]) >= 0.93


def test_intervals_of_rates_hold_where_all_units_of_a_target_go_together():
    rng = np.random.default_rng(4)
    held = naive = 0
    for _ in range(300):
        hit = rng.random((12, 80)) < np.repeat(rng.beta(2, 6, size=(12, 1)), 80, axis=1)
        everyone = np.ones((12, 80), dtype=bool)
        own = proportion(hit, everyone)
        single = proportion(hit.reshape(1, -1), everyone.reshape(1, -1))
        held += own.low <= 0.25 <= own.high
        naive += single.low <= 0.25 <= single.high
    assert held >= 0.9 * 300
    assert naive < 0.7 * 300  # pairs taken for independent ones would claim too much


def test_a_single_models_rate_has_clopper_and_pearsons_interval():
    hit = np.zeros((1, 50), dtype=bool)
    hit[0, :10] = True
    everyone = np.ones((1, 50), dtype=bool)
    found = proportion(hit, everyone)
    assert (found.low, found.high) == pytest.approx((0.1003, 0.3372), abs=1e-4)
    # The rule of three, from all 50: nothing seen is not nothing there.
    assert proportion(np.zeros_like(hit), everyone).high == pytest.approx(0.0711, abs=1e-4)


def test_perfect_separation_is_not_certainty():
    member = np.repeat([[True, False]], 10, axis=1)
    estimate = area(member.astype(float), member)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.025**0.1)


def test_a_rate_that_too_few_non_members_can_show_is_none_with_its_reason():
    rng = np.random.default_rng(0)
    member = np.repeat([[True, False]], 500, axis=1)
    score = rng.normal(size=(1, 1000))
    missing = rate_at(0.001, score, member)
    assert missing.tpr is None
    assert missing.reached is None
    assert "500 non-members" in missing.reason
    shown = rate_at(0.01, score, member)
    assert shown.tpr is not None
    assert shown.reached is not None
    assert shown.reached.value == 0.01  # 5 of 500


def test_tied_scores_pass_no_threshold():
    member = np.repeat([[True, False]], 200, axis=1)
    rate = rate_at(0.01, np.zeros((1, 400)), member)
    assert rate.tpr is not None
    assert rate.tpr.value == 0.0


def test_advantage_is_at_a_threshold_fixed_beforehand_and_within_its_interval():
    member = np.repeat([[True, False]], 100, axis=1)
    score = np.where(member, 1.0, -1.0)
    score[0, :20] = -1.0
    score[0, -10:] = 1.0
    estimate = advantage(score, member)
    assert estimate.value == pytest.approx(0.8 - 0.1)
    assert estimate.low < 0.7 < estimate.high


def test_scores_without_members_or_numbers_are_refused():
    with pytest.raises(UserError, match="members and others"):
        judge(np.zeros((2, 4)), np.ones((2, 4), dtype=bool))
    with pytest.raises(UserError, match="one number for each"):
        judge(np.full((1, 4), np.nan), np.array([[True, False, True, False]]))


# What shadows see.


def test_rows_that_are_kept_stay_with_their_unit_and_empty_units_go():
    units = patients(3, each=2)
    rest = kept(units, np.array([True, False, False, False, True, True]))
    assert rest.offsets.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(rest.features, units.features[[0, 4, 5]])
    whole = members_of(units, np.array([False, True, True]))
    np.testing.assert_array_equal(whole.features, units.features[2:])
    assert whole.offsets.tolist() == [0, 2, 4]


def test_confidence_is_the_log_odds_of_the_right_label_and_loss_its_log_loss():
    units = Units.group(*rows(6), ["a", "a", "b", "b", "b", "c"], unit="patient")
    model = by_heart(variants(40)).model
    score = Model("mlp", tuple(map(str, range(FEATURES))), model).score(units.features)
    right = np.where(units.labels == 1, score, -score)
    odds, loss = confidences("mlp", model, units)
    for number, own in enumerate((slice(0, 2), slice(2, 5), slice(5, 6))):
        assert odds[number] == pytest.approx(right[own].mean())
        assert loss[number] == pytest.approx(np.log(1 / (1 + np.exp(-right[own]))).mean())


def test_unit_gradients_are_the_slopes_of_the_units_losses():
    units = Units.group(*rows(6), ["a", "a", "b", "b", "b", "c"], unit="patient")
    model = by_heart(variants(40)).model
    gradients = unit_gradients_of("mlp", model, units)
    direction = {name: np.random.default_rng(1).normal(size=value.shape) for name, value in model.items()}
    flat = np.concatenate([value.ravel() for value in direction.values()])

    def loss(step: float) -> np.ndarray:
        moved = {name: (model[name] + step * direction[name]).astype(np.float32) for name in model}
        return -confidences("mlp", moved, units)[1]

    np.testing.assert_allclose(gradients @ flat, (loss(1e-3) - loss(-1e-3)) / 2e-3, rtol=0.02, atol=1e-3)


def test_clipped_gradients_are_within_the_norm_and_short_ones_as_they_were():
    gradients = np.array([[3.0, 4.0], [0.3, 0.4]])
    np.testing.assert_allclose(clipped(gradients, 1.0, 2), [[0.6, 0.8], [0.3, 0.4]])
    np.testing.assert_allclose(np.abs(clipped(gradients, 1.0, 1)).sum(1), [1.0, 0.7])


def test_the_matched_filter_has_noise_of_one_variance_whatever_the_directions_length():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(3, 50)) * np.array([[0.1], [1.0], [30.0]])
    seen = []
    for _ in range(2000):
        updates: list[Parameters] = [{"w": rng.normal(size=50).astype(np.float32)} for _ in range(2)]
        starts: list[Parameters] = [{"w": np.zeros(50, np.float32)}] * 3
        seen.append(alignment(Trace(starts, updates, starts[0]), lambda _: wide))
    np.testing.assert_allclose(np.std(seen, axis=0), 1.0, atol=0.06)


@pytest.mark.parametrize("shadows", [8, 64])
@pytest.mark.parametrize("online", [False, True])
def test_a_targets_own_membership_moves_none_of_its_scores(online, shadows):
    rng = np.random.default_rng(2)
    member = rng.random((shadows, 30)) < 0.5
    statistic = rng.normal(size=member.shape) + member
    score = lira(statistic, member, online=online)
    assert area(score, member).value > 0.6
    turned = member.copy()
    turned[3] = ~turned[3]
    other = lira(statistic, turned, online=online)
    np.testing.assert_allclose(other[3], score[3], rtol=1e-6, atol=1e-9)
    assert not np.allclose(other[4], score[4])


@pytest.mark.parametrize("online", [False, True])
def test_lira_of_statistics_that_say_nothing_finds_nothing(online):
    rng = np.random.default_rng(6)
    areas = []
    for _ in range(60):
        member = rng.random((10, 60)) < 0.5
        statistic = rng.normal(size=member.shape) + rng.normal(size=60)
        areas.append(area(lira(statistic, member, online=online), member).value)
    assert np.mean(areas) == pytest.approx(0.5, abs=4 * np.std(areas) / math.sqrt(60))


def test_lira_undoes_what_makes_units_differ_and_a_threshold_cannot():
    rng = np.random.default_rng(7)
    member = rng.random((32, 50)) < 0.5
    statistic = 0.3 * rng.normal(size=member.shape) + 0.6 * member + 5 * rng.normal(size=50)
    assert area(statistic, member).value < 0.6
    for online in (False, True):
        assert area(lira(statistic, member, online=online), member).value > 0.85


def test_a_unit_without_a_shadow_on_one_side_scores_nothing():
    member = np.array([[True, True], [True, False], [False, True], [True, False], [True, True]])
    statistic = np.arange(10.0).reshape(5, 2)
    assert lira(statistic, member, online=True)[2, 0] == 0.0  # the only one without unit 0
    with pytest.raises(UserError, match="4 or more shadows"):
        lira(statistic[:3], member[:3], online=True)


# Attacks on trainings.


def test_a_model_that_knows_its_variants_by_heart_gives_them_away():
    results = attack(
        plan(), variants(60), None, START, Shadowing(shadows=24, trainer=by_heart, confidence=SURE)
    )
    assert [(result.view, result.attack) for result in results] == [(v, a) for v in VIEWS for a in ATTACKS]
    for name in ATTACKS:
        assert found(results, name).score.auc.low > 0.7
    online = found(results, "lira_online").score
    assert online.auc.low > MOST_AREA  # so the test of the bound, below, can fail
    assert online.rates[0].tpr is None  # about 720 non-members show no rate of 0.1 %
    assert online.rates[1].tpr is not None
    assert online.rates[1].reached is not None
    assert online.rates[1].tpr.low > online.rates[1].reached.high
    assert found(results, "lira_online", "updates").score.auc.low > 0.6
    assert results[0].privacy == {}


def test_patients_are_attacked_with_all_their_rows():
    results = attack(
        plan("patient"), patients(40), None, START, Shadowing(shadows=16, trainer=by_heart, confidence=SURE)
    )
    online = found(results, "lira_online")
    assert online.unit == "patient"
    assert online.score.units == 40
    assert online.score.auc.low > 0.8


def test_training_without_noise_and_clip_leaks_through_model_and_updates():
    bare = plan("patient", rounds=20, local_steps=10)
    trainer = unprotected(bare, 20, START)
    results = attack(bare, patients(40), None, START, Shadowing(shadows=12, trainer=trainer, confidence=SURE))
    for view in VIEWS:
        assert max(found(results, name, view).score.auc.low for name in ATTACKS) > 0.6


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_training_on_others_alone_tells_nothing_of_the_units(unit):
    units = variants(60) if unit == "variant" else patients(60)
    seeds = iter(range(100, 200))

    def elsewhere(_: Units) -> Trace:
        """Models that differ, but not by who is in."""
        return by_heart(variants(50, seed=next(seeds)))

    for result in attack(
        plan(unit), units, None, START, Shadowing(shadows=12, trainer=elsewhere, confidence=SURE)
    ):
        auc = result.score.auc
        assert auc.low <= 0.5 <= auc.high, (result.attack, result.view)


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_under_dp_no_attack_passes_the_bound_of_epsilon_and_delta(unit):
    private = plan(unit)
    units = variants(80) if unit == "variant" else patients(80)
    ticks: list[tuple[int, int]] = []
    results = attack(
        private,
        units,
        None,
        START,
        Shadowing(shadows=30, confidence=SURE, tick=lambda *done: ticks.append(done)),
    )
    assert ticks == [(done, 30) for done in range(1, 31)]
    for result in results:
        assert result.privacy == {
            "unit": unit, "epsilon": 1.0, "delta": 1e-5, "mechanism": private.mechanism,
            "adjacency": private.adjacency,
        }  # fmt: skip
        for rate in result.score.rates:
            assert rate.tpr is not None
            assert rate.reached is not None
            assert rate.tpr.low <= math.e * rate.reached.high + 1e-5
        assert result.score.auc.low <= MOST_AREA


def test_shuffled_membership_is_found_by_no_attack():
    units = variants(60)
    rng = np.random.default_rng(8)
    member = rng.random((16, 60)) < 0.5
    statistic = np.stack(
        [confidences("mlp", by_heart(members_of(units, own)).model, units)[0] for own in member]
    )
    shuffled = rng.permuted(member, axis=1)
    assert area(lira(statistic, member, online=True), member, confidence=SURE).low > 0.8
    for online in (False, True):
        estimate = area(lira(statistic, shuffled, online=online), shuffled, confidence=SURE)
        assert estimate.low <= 0.5 <= estimate.high


def test_a_released_model_is_attacked_without_shadows():
    members, others = variants(60, seed=1), variants(60, seed=2)
    stated = {
        "unit": "variant",
        "epsilon": 3.0,
        "delta": 1e-5,
        "mechanism": "m",
        "adjacency": "a",
        "rounds": 2,
    }
    model = Model("mlp", tuple(map(str, range(FEATURES))), by_heart(members).model, stated)
    result = threshold_attack(model, members, others, unit="variant", confidence=SURE)
    assert result.score.auc.low > 0.6
    assert result.score.targets == 1
    assert "rounds" not in result.privacy
    described = result.to_dict()
    assert described["privacy"]["epsilon"] == 3.0
    assert described["rates"][0] == {
        "fpr": 0.001, "tpr": None, "reached": None, "reason": "60 non-members cannot show a rate of 0.001",
    }  # fmt: skip
    assert described["auc"]["low"] == result.score.auc.low


def test_what_cannot_be_attacked_is_refused():
    with pytest.raises(UserError, match="too few to attack"):
        attack(plan(), variants(5), None, START)
    with pytest.raises(UserError, match="Use: model, updates"):
        attack(plan(), variants(20), None, START, Shadowing(views=("gradients",)))
