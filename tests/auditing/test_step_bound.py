"""Tests of cordon.auditing.step_bound: right code keeps to its claim, every planted bug breaks it."""

import numpy as np
import pytest
from scipy import stats

from cordon.auditing import step_bound
from cordon.auditing.draws import noise_at_most, rate_at_least, shift_at_least
from cordon.auditing.gradient_canaries import layer_sizes
from cordon.auditing.step_bound import audit_step, observe_canaries, observe_noise
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.ledger.provenance import Verdict
from cordon.model.architectures import build
from cordon.privacy.accountants import epsilon_pld
from cordon.privacy.clipping import PrivateMean
from cordon.privacy.events import GAUSSIAN, LAPLACE, Event
from cordon.privacy.guarantee import ADJACENCY
from cordon.privacy.mechanisms import Randomness
from planted_bugs import BUGS
from trials import trials

pytestmark = pytest.mark.statistical

FEATURES = 30
MECHANISMS = (GAUSSIAN, LAPLACE)


def plan(unit="patient", **changes):
    """The demo's plan, and one of another unit and a smaller epsilon."""
    settings = {
        "model": "mlp", "unit": unit, "epsilon": 8.0 if unit == "patient" else 3.0, "delta": 1e-5,
        "rounds": 10, "local_steps": 10, "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0,
        "max_variants_per_patient": 256,
    }  # fmt: skip
    return Plan.calibrated(**(settings | changes))


@pytest.fixture(autouse=True)
def from_a_seed(monkeypatch):
    """The same noise in every run of a test, and each number of it no oftener than the trials ask for."""
    source = np.random.default_rng(5).bytes
    monkeypatch.setattr(step_bound, "LEAST_STEPS", 1)
    monkeypatch.setattr(step_bound, "Randomness", lambda: Randomness(source))


CHANGES = [
    {}, {"per_layer": True}, {"clipping": "adaptive"}, {"mechanism": LAPLACE},
    {"mechanism": LAPLACE, "per_layer": True}, {"mechanism": LAPLACE, "clipping": "adaptive"},
    {"model": "logistic"}, {"model": "pileup_cnn"}, {"sampling_rate": 0.05}, {"sampling_rate": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("unit", ["patient", "variant"])
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_right_code_keeps_to_its_claim(unit, changes):
    audited = plan(unit, **changes)
    bound = audit_step(audited, features=FEATURES, trials=30_000)
    assert not bound.exceeds
    assert bound.effective_noise >= bound.declared_noise
    assert bound.declared_noise >= audited.noise_multiplier


# What the declared noise and sampling cost by PLD, and the least of it that must be shown.
SHOWN = [
    ("patient", {}, 7.37, 7.0), ("patient", {"mechanism": LAPLACE}, 7.47, 7.0),
    ("variant", {"sampling_rate": 0.1}, 2.71, 2.5),
    ("variant", {"epsilon": 1.0, "local_steps": 20, "sampling_rate": 0.005}, 0.45, 0.40),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "changes", "declared", "least"), SHOWN)
def test_of_right_code_nearly_all_of_the_epsilon_is_shown(unit, changes, declared, least):
    bound = audit_step(plan(unit, **changes), features=FEATURES)
    assert declared <= bound.declared <= declared + 0.01
    assert least <= bound.epsilon_lower <= bound.declared < bound.claimed
    assert bound.declared_noise <= bound.effective_noise <= 1.03 * bound.declared_noise


@pytest.mark.parametrize(
    ("unit", "changes"),
    [(unit, changes) for unit, changes, *_ in SHOWN]
    + [
        ("patient", changes)
        for changes in ({"per_layer": True}, {"clipping": "adaptive"}, {"model": "logistic"})
    ],
)
def test_a_tenth_less_noise_is_found(monkeypatch, unit, changes):
    monkeypatch.setattr(*BUGS["a tenth less noise"])
    assert audit_step(plan(unit, **changes), features=FEATURES).exceeds


def test_the_bound_is_wrong_no_more_often_than_its_confidence_says(monkeypatch):
    """Audits at confidence 0.8: more wrong ones than these have a probability below 0.001, 48 of 150."""
    monkeypatch.setattr(step_bound, "_epsilon", lambda plan, noise, rate: 0.0)
    audited, wrong, audits = plan(), 0, trials(150)
    most = int(stats.binom.isf(1e-3, audits, 0.2))
    for _ in range(audits):
        bound = audit_step(audited, features=FEATURES, confidence=0.8, trials=2_000)
        wrong += bound.effective_noise < bound.declared_noise or bound.sampling_rate > 0.5
    assert stats.binom.sf(48, 150, 0.2) < 1e-3
    assert stats.binom.sf(most, audits, 0.2) < 1e-3
    assert wrong <= most


# A variant has one row: clipped by rows, it is clipped right.
FOUND = [
    (bug, unit) for bug in BUGS for unit in ("patient", "variant")
    if (bug, unit) != ("rows clipped, not patients", "variant")
]  # fmt: skip


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("bug", "unit"), FOUND)
def test_planted_bugs_are_found(monkeypatch, bug, unit, mechanism):
    monkeypatch.setattr(*BUGS[bug])
    bound = audit_step(plan(unit, mechanism=mechanism), features=FEATURES, trials=20_000)
    assert bound.exceeds
    assert bound.effective_noise < bound.declared_noise or bound.sampling_rate > 0.9


@pytest.mark.parametrize("bug", ["half of the noise", "no clip", "rows clipped, not patients"])
@pytest.mark.parametrize("changes", [{"per_layer": True}, {"clipping": "adaptive"}])
def test_planted_bugs_are_found_under_other_clips(monkeypatch, bug, changes):
    monkeypatch.setattr(*BUGS[bug])
    assert audit_step(plan(**changes), features=FEATURES, trials=20_000).exceeds


def test_a_layer_clipped_to_the_whole_clip_is_found(monkeypatch):
    """Two layers, each to the whole clip, move the sum by sqrt(2) clips."""
    right = PrivateMean.summed

    def wrong(mean, layers, norms, whole):
        return right(mean, layers, [norm / 2**0.5 for norm in norms], whole) * 2**0.5

    monkeypatch.setattr(PrivateMean, "summed", wrong)
    assert audit_step(plan(per_layer=True, sampling_rate=1.0), features=FEATURES, trials=20_000).exceeds


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_step_releases_the_declared_noise_where_no_canary_is(mechanism):
    audited = plan(mechanism=mechanism)
    first, second = observe_noise(audited, FEATURES, 60_000)
    parameters = sum(layer_sizes(build("mlp", FEATURES)))
    assert first.shape[1] == second.shape[1] == parameters - step_bound.MOST_CANARIES
    assert first.size + second.size >= 60_000
    family = stats.norm if mechanism == GAUSSIAN else stats.laplace
    for numbers in (first, second):
        scaled = family(scale=audited.noise_multiplier)
        assert stats.kstest(numbers.ravel(), scaled.cdf).pvalue > 1e-3


def test_a_step_moves_by_the_clip_along_canaries_that_are_in_it():
    seen = observe_canaries(plan(sampling_rate=0.5), FEATURES, 60_000)
    assert seen.shape[1] == step_bound.MOST_CANARIES
    assert seen.size >= 60_000
    assert (seen > 0.5).mean() == pytest.approx(0.5, abs=0.01)
    assert seen[seen > 0.5] == pytest.approx(1.0, abs=0.01)
    assert seen[seen <= 0.5] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_noises_bound_is_wrong_as_often_as_it_says_and_near(mechanism):
    """Of 400 bounds at 5 %, more wrong ones than 38 have a probability below 1e-4."""
    source = np.random.default_rng(3)
    draw = source.normal if mechanism == GAUSSIAN else source.laplace
    bounds = np.array([noise_at_most([draw(scale=2.0, size=(50, 40))], mechanism, 0.05) for _ in range(400)])
    assert (bounds < 2.0).sum() <= 38 == stats.binom.isf(1e-4, 400, 0.05)
    assert np.median(bounds) < 2.0 * 1.08


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_one_number_with_less_noise_bounds_it(mechanism):
    draw = np.random.default_rng(3).normal if mechanism == GAUSSIAN else np.random.default_rng(3).laplace
    numbers = draw(size=(200, 500))
    numbers[:, 7] *= 0.3
    assert 0.3 < noise_at_most([numbers], mechanism, 1e-3) < 0.5


def test_rates_are_bounded_as_scipy_bounds_them_and_shifts_by_what_is_in():
    for count in (0, 3, 50, 100):
        seen = np.array([1.0] * count + [0.0] * (100 - count))
        interval = stats.binomtest(count, 100, alternative="greater").proportion_ci(0.99, "exact")
        assert rate_at_least(count, 100, 0.01) == pytest.approx(interval.low)
        assert shift_at_least(seen[:, None], 1e-3, 0.01) == pytest.approx(1.0 if count > 1 else 0.0, abs=2e-3)


def test_a_step_is_moved_as_far_as_the_unit_that_moves_it_farthest():
    """Of three units one is in two steps and moves each by 2, one by 1, and one is in no step."""
    seen = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    assert shift_at_least(seen, 1e-3, 0.01) == pytest.approx(2.0, abs=3e-3)


def test_what_right_code_shows_must_be_shown(monkeypatch):
    """More noise than declared hides nothing of a patient, and would hide what is wrong beside it."""
    real = PrivateMean.noise_scale
    monkeypatch.setattr(PrivateMean, "noise_scale", lambda mean: 4 * real(mean))
    found = step_bound.check_step(plan(model="logistic"), trials=2_000)
    assert found.failed
    assert "of right code half of the noise would have been refuted, of this one not" in found.reason


def test_a_bound_that_no_code_could_exceed_is_no_fault():
    """Of variants that are in one of a thousand steps; and where delta is too small it is not tried."""
    rare = plan("variant", model="logistic", sampling_rate=0.001, rounds=2, local_steps=2)
    assert step_bound.check_step(rare, trials=2_000).verdict == Verdict.UNABLE
    assert step_bound.check_step(plan(delta=1e-14)).verdict == Verdict.UNTRIED


def test_the_plans_epsilon_is_that_of_all_its_steps():
    audited = plan()
    exact = epsilon_pld([Event(audited.noise_multiplier, 0.5, 100)], 1e-5)
    assert step_bound._epsilon(audited, audited.noise_multiplier, 0.5) == exact
    assert step_bound._epsilon(audited, np.inf, 0.5) == step_bound._epsilon(audited, 1.0, 0.0) == 0.0
    assert step_bound._epsilon(audited, 0.0, 0.5) > 1000


def test_a_canary_lies_in_as_many_layers_as_are_clipped_apart():
    for per_layer, parts in ((False, 1), (True, 2)):
        gradients, directions = step_bound.canaries_of(plan(per_layer=per_layer), FEATURES)
        assert directions.shape[1] == parts
        assert len(np.unique(directions)) == directions.size
        assert directions.max() < gradients.parameters == sum(layer_sizes(build("mlp", FEATURES)))


def test_a_result_says_everything_that_must_stand_beside_an_epsilon():
    bound = audit_step(plan(), features=FEATURES, trials=10_000)
    written = bound.to_dict()
    assert written["unit"] == "patient"
    assert written["mechanism"] == GAUSSIAN
    assert written["adjacency"] == ADJACENCY
    assert (written["delta"], written["claimed"], written["confidence"]) == (1e-5, 8.0, 0.999)
    assert "independent" in written["assumptions"]
    for word in ("unit: one patient", "delta 1e-05", GAUSSIAN, ADJACENCY, "0.999", "at least epsilon"):
        assert word in bound.statement()


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(UserError, match="trials"):
        audit_step(plan(), features=FEATURES, trials=10)
    with pytest.raises(UserError, match="confidence"):
        audit_step(plan(), features=FEATURES, confidence=1.0)
    with pytest.raises(UserError, match="delta"):
        audit_step(plan(delta=1e-14), features=FEATURES)
