"""Tests of cordon.auditing.step_bound: right code keeps to its claim, every planted bug breaks it."""

import numpy as np
import pytest
from scipy import stats

from cordon.accountants import ADJACENCY, GAUSSIAN, LAPLACE, Event, epsilon_pld
from cordon.auditing import step_bound
from cordon.auditing.gradient_canaries import layer_sizes
from cordon.auditing.step_bound import audit_step, observe, shown_shift
from cordon.clipping import PrivateMean
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.mechanisms import Randomness
from cordon.model import build
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
    """The same noise in every run of a test."""
    source = np.random.default_rng(5).bytes
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


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_of_right_code_most_of_the_epsilon_is_shown(mechanism):
    """At the demo's plan: three quarters of what it claims, which is by RDP and above what it costs."""
    bound = audit_step(plan(mechanism=mechanism), features=FEATURES)
    assert 6.0 <= bound.epsilon_lower <= 8.0
    assert bound.declared_noise <= bound.effective_noise <= 1.2 * bound.declared_noise


def test_the_bound_is_wrong_no_more_often_than_its_confidence_says(monkeypatch):
    """Audits at confidence 0.8: more wrong ones than these have a probability below 0.001, 48 of 150."""
    monkeypatch.setattr(step_bound, "_epsilon", lambda plan, shift: 0.0)
    audited, wrong, audits = plan(), 0, trials(150)
    most = int(stats.binom.isf(1e-3, audits, 0.2))
    for _ in range(audits):
        bound = audit_step(audited, features=FEATURES, confidence=0.8, trials=2_000)
        wrong += bound.effective_noise < bound.declared_noise
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
    bound = audit_step(plan(unit, mechanism=mechanism), features=FEATURES, trials=trials(300_000))
    assert bound.exceeds
    assert bound.effective_noise < bound.declared_noise


@pytest.mark.parametrize("bug", ["half of the noise", "no clip", "rows clipped, not patients"])
@pytest.mark.parametrize("changes", [{"per_layer": True}, {"clipping": "adaptive"}])
def test_planted_bugs_are_found_under_other_clips(monkeypatch, bug, changes):
    monkeypatch.setattr(*BUGS[bug])
    assert audit_step(plan(**changes), features=FEATURES, trials=trials(100_000)).exceeds


def test_a_layer_clipped_to_the_whole_clip_is_found(monkeypatch):
    """Two layers, each to the whole clip, move the sum by sqrt(2) clips."""
    right = PrivateMean.summed

    def wrong(mean, layers, norms, whole):
        return right(mean, layers, [norm / 2**0.5 for norm in norms], whole) * 2**0.5

    monkeypatch.setattr(PrivateMean, "summed", wrong)
    assert audit_step(
        plan(per_layer=True, sampling_rate=1.0), features=FEATURES, trials=trials(100_000)
    ).exceeds


def test_a_step_releases_canaries_at_the_clip_and_the_declared_noise():
    audited = plan(sampling_rate=1.0)
    with_unit, without = observe(audited, FEATURES, 60_000)
    assert with_unit.size == without.size >= 60_000
    noise = audited.noise_multiplier
    assert with_unit.mean() == pytest.approx(1.0, abs=5 * noise / with_unit.size**0.5)
    assert stats.kstest(without.ravel(), stats.norm(scale=noise).cdf).pvalue > 1e-3
    # Five deviations of the correlation of independent draws: one in 2e6, for each of 127.
    assert np.corrcoef(without.T)[0, 1:] == pytest.approx(0.0, abs=5 / len(without) ** 0.5)


def test_half_of_the_sampled_units_are_in_a_step():
    with_unit, _ = observe(plan(sampling_rate=0.5, epsilon=1000.0), FEATURES, 60_000)
    assert (with_unit > 0.5).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_shift_is_what_explains_the_power(mechanism, rate):
    """At the exact probabilities of any threshold, it is the shift itself."""
    noise = stats.norm if mechanism == GAUSSIAN else stats.laplace
    for shift in (0.1, 0.7, 3.0):
        thresholds = np.linspace(-2, 4, 13)
        without, moved = noise.sf(thresholds), noise.sf(thresholds - shift)
        power = (1 - rate) * without + rate * moved
        assert shown_shift(mechanism, rate, without, power) == pytest.approx(shift, rel=1e-6)


def test_no_power_shows_no_shift_and_too_much_shows_any():
    assert shown_shift(GAUSSIAN, 0.5, 0.3, 0.3) == -np.inf
    assert shown_shift(GAUSSIAN, 0.5, 0.1, 0.7) == np.inf


def test_proportions_are_bounded_as_scipy_bounds_them():
    for count in (0, 3, 50, 100):
        for place, alternative in enumerate(("greater", "less")):
            interval = stats.binomtest(count, 100, alternative=alternative).proportion_ci(0.99, "exact")
            assert step_bound._proportion(count, 100, 0.01)[place] == pytest.approx(interval[place])


def test_only_trials_that_did_not_choose_the_threshold_are_judged(monkeypatch):
    """A first half that tells all, before a second one that tells nothing, shows nothing."""
    source = np.random.default_rng(0)
    noise = source.normal(size=(2, 1000, 4))
    noise[0, :500] += 100.0
    monkeypatch.setattr(step_bound, "observe", lambda *arguments: (noise[0], noise[1]))
    bound = audit_step(plan(), features=FEATURES)
    assert bound.effective_noise == np.inf
    assert bound.epsilon_lower == 0.0
    assert bound.trials == 2000


def test_the_plans_epsilon_is_that_of_all_its_steps():
    """At the declared noise, what PLD gives, less what it may have rounded up."""
    audited = plan()
    exact = epsilon_pld([Event(audited.noise_multiplier, 0.5, 100)], 1e-5)
    assert step_bound._epsilon(audited, 1 / audited.noise_multiplier) == pytest.approx(exact, rel=2e-3)
    assert step_bound._epsilon(audited, 1 / audited.noise_multiplier) < exact
    assert step_bound._epsilon(audited, -np.inf) == 0.0
    assert step_bound._epsilon(audited, np.inf) > 1000


def test_a_canary_lies_in_as_many_layers_as_are_clipped_apart():
    for per_layer, parts in ((False, 1), (True, 2)):
        gradients, directions = step_bound._canaries(plan(per_layer=per_layer), FEATURES)
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
