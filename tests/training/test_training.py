"""Tests of cordon.training.dpsgd: what DP-SGD releases, measured and not read off the code."""

import inspect
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import cordon.training.dpsgd
from conftest import table_row
from cordon.errors import UserError
from cordon.model.architectures import build, load_parameters
from cordon.model.devices import thread_count
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.clipping import PrivateMean
from cordon.privacy.events import GAUSSIAN, LAPLACE, NORMS, Event
from cordon.privacy.grouping import UNITS
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import block_shape, descend, draw, train
from cordon.training.settings import DPSGD
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table

pytestmark = pytest.mark.usefixtures("unrounded")
F = 3


class Silent(Randomness):
    """Noise of nothing; sampling and subsets as they are."""

    def normal(self, size):
        return np.zeros(size)

    def laplace(self, size):
        return np.zeros(size)


SILENT = Silent()


def seeded(seed):
    return Randomness(np.random.default_rng(seed).bytes)


def dpsgd(**changes):
    values = {
        "noise_multiplier": 0.1, "sampling_rate": 1.0, "steps": 1, "clip_norm": 1.0, "learning_rate": 1.0,
        "expected_batch": 1.0, "max_variants": 64,
    }  # fmt: skip
    return DPSGD(**(values | changes))


def patients(*counts, seed=0, features=F):
    """Units of so many rows each, with features and labels at random."""
    source = np.random.default_rng(seed)
    rows = sum(counts)
    return Units.group(
        source.normal(size=(rows, features)).astype(np.float32),
        source.integers(0, 2, rows).astype(np.float32),
        [f"p{number}" for number, count in enumerate(counts) for _ in range(count)],
        unit="patient",
    )


def random_start(architecture, seed=1, features=F, scale=1.0):
    source = np.random.default_rng(seed)
    start = initial_parameters(architecture, features)
    return {n: (scale * source.normal(size=v.shape)).astype(np.float32) for n, v in start.items()}


def flat(parameters):
    return np.concatenate([parameters[name].ravel().astype(np.float64) for name in sorted(parameters)])


def update(*arguments):
    return descend(*arguments).update


def released(units, start, architecture="logistic", **changes):
    """The clipped sum over all units that one step releases, without its noise."""
    changes = {"expected_batch": 1.0, "learning_rate": 1.0} | changes
    return -flat(update(architecture, start, units, dpsgd(**changes), SILENT))


@pytest.mark.parametrize("architecture", ["logistic", "mlp"])
def test_a_units_gradient_is_that_of_the_mean_loss_over_its_rows(architecture):
    units, start = patients(5), random_start(architecture)
    module = build(architecture, F)
    load_parameters(module, start)
    scores = module(torch.from_numpy(units.features))
    torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.from_numpy(units.labels)).backward()
    expected = flat({name: value.grad.numpy() for name, value in module.named_parameters()})
    assert released(units, start, architecture, clip_norm=100.0) == pytest.approx(expected, abs=2e-6)


def test_a_large_gradient_is_scaled_to_the_clip_norm_and_keeps_its_direction():
    units, start = patients(4), random_start("mlp")
    whole = released(units, start, "mlp", clip_norm=100.0)
    clipped = released(units, start, "mlp", clip_norm=0.01)
    assert np.linalg.norm(whole) > 0.01
    assert clipped == pytest.approx(whole * 0.01 / np.linalg.norm(whole), abs=1e-6)


EXTREME = st.one_of(
    st.floats(-3, 3, width=32),
    st.sampled_from([0.0, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.sampled_from(["logistic", "mlp"]),
    st.sampled_from([1.0, 1e10, 1e38]),
    st.floats(0.01, 5.0),
    st.integers(1, 12),
    st.sampled_from([GAUSSIAN, LAPLACE]),
    st.booleans(),
)
def test_one_patient_moves_what_is_released_by_at_most_the_clip_norm(
    data, architecture, scale, clip, rows, mechanism, per_layer
):
    """Sensitivity in the mechanism's norm, whatever the patient's rows and the start are."""
    others = patients(3, 1, 6)
    added = data.draw(arrays(np.float32, (rows, F), elements=EXTREME))
    both = Units(
        np.concatenate([others.features, added]),
        np.concatenate([others.labels, (np.arange(rows) % 2).astype(np.float32)]),
        np.append(others.offsets, others.offsets[-1] + rows),
        "patient",
    )
    start = random_start(architecture, scale=scale)
    start = {name: np.clip(np.nan_to_num(value), -3e38, 3e38) for name, value in start.items()}
    changes = {"clip_norm": clip, "mechanism": mechanism, "per_layer": per_layer}
    without = released(others, start, architecture, **changes)
    changed = released(both, start, architecture, **changes)
    # The update is rounded to float32 after the noise, where it costs nothing.
    assert np.linalg.norm(changed - without, NORMS[mechanism]) <= clip * (1 + 1e-5)


def test_a_start_that_overflows_for_one_patient_shows_nothing_of_that_patient():
    # inf - inf in the score of whoever has both features: without care, one NaN tells that they took part.
    start = {
        "0.weight": np.array([[3e38, -3e38, 0.0]], np.float32),
        "0.bias": np.zeros(1, np.float32),
    }
    rows = np.array([[0, 0, 0.5], [3, 3, 0.5]], np.float32)
    units = Units.group(rows, np.array([0.0, 1.0], np.float32), ["a", "b"], unit="patient")
    assert np.isfinite(flat(update("logistic", start, units, dpsgd(), seeded(0)))).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_refused(value):
    start = initial_parameters("logistic", F) | {"0.bias": np.array([value], np.float32)}
    with pytest.raises(UserError, match=r"cannot train from this start: 0\.bias holds NaN or infinity"):
        train("logistic", start, patients(2), dpsgd())


def test_a_start_of_another_model_is_refused():
    with pytest.raises(UserError, match="cannot train from this start"):
        train("logistic", initial_parameters("logistic", F + 1), patients(2), dpsgd())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10**6))
def test_however_rows_move_between_two_patients_each_stays_within_the_clip(moved, seed):
    source = np.random.default_rng(seed)
    features = (10 * source.normal(size=(10, F))).astype(np.float32)
    labels = source.integers(0, 2, 10).astype(np.float32)
    owners = ["a" if number < moved else "b" for number in range(10)]
    start = random_start("logistic")
    for patient in "ab":
        own = [owner == patient for owner in owners]
        units = Units.group(features[own], labels[own], ["x"] * sum(own), unit="patient")
        assert np.linalg.norm(released(units, start, clip_norm=0.5)) <= 0.5 + 1e-5
    whole = Units.group(features, labels, owners, unit="patient")
    assert np.linalg.norm(released(whole, start, clip_norm=0.5)) <= 1.0 + 1e-5


def test_rows_stay_with_their_patient_in_whatever_order_they_come():
    units, start = patients(4, 3, 5), random_start("logistic")
    owners = np.repeat(["p0", "p1", "p2"], [4, 3, 5])
    order = np.random.default_rng(3).permutation(12)
    mixed = Units.group(units.features[order], units.labels[order], list(owners[order]), unit="patient")
    assert len(mixed) == 3
    for unit in range(3):
        own = slice(*mixed.offsets[unit : unit + 2])
        expected = units.features[units.offsets[unit] : units.offsets[unit + 1]]
        assert {tuple(row) for row in mixed.features[own]} == {tuple(row) for row in expected}
    assert released(mixed, start) == pytest.approx(released(units, start), abs=1e-6)


def test_rows_grouped_by_one_unit_are_never_trained_on_under_the_name_of_another():
    rows, start = np.ones((4, F), np.float32), initial_parameters("logistic", F)
    by = {unit: Units.group(rows, np.ones(4, np.float32), ["p"] * 4, unit=unit) for unit in UNITS}
    for unit, other in (("patient", "variant"), ("variant", "patient")):
        with pytest.raises(UserError, match=f"grouped by {other}, and one {unit} is to be protected"):
            train("logistic", start, by[other], dpsgd(unit=unit))
        with pytest.raises(UserError, match=f"grouped by {other}"):
            next(draw(by[other], dpsgd(unit=unit), seeded(1), (1, 1)))
    with pytest.raises(UserError, match="4 rows in 1 units: with the unit variant each row is one"):
        replace(by["patient"], unit="variant")


def test_each_patient_adds_the_gradient_of_its_own_rows():
    units, start = patients(4, 1, 7), random_start("mlp")
    alone = [
        released(
            Units(units.features[own], units.labels[own], np.array([0, own.stop - own.start]), "patient"),
            start,
            "mlp",
        )
        for own in (slice(*units.offsets[unit : unit + 2]) for unit in range(3))
    ]
    assert released(units, start, "mlp") == pytest.approx(sum(alone), abs=1e-6)


def noise_of(units, count, seed, **changes):
    """``count`` updates with noise, less the one without."""
    start = random_start("mlp", features=20)
    settings = dpsgd(**changes)
    without = flat(update("mlp", start, units, settings, SILENT)) if settings.sampling_rate == 1 else 0.0
    random = seeded(seed)
    return np.concatenate(
        [flat(update("mlp", start, units, settings, random)) - without for _ in range(count)]
    )


NOISY = {"noise_multiplier": 1.7, "clip_norm": 0.3, "learning_rate": 0.5, "expected_batch": 12.0}


@pytest.mark.parametrize("rate", [1.0, 1e-12], ids=["all units", "empty batch"])
def test_the_noise_is_noise_multiplier_times_clip_norm_also_on_an_empty_batch(rate):
    noise = noise_of(patients(2, 5, 30, features=20), 20, seed=4, sampling_rate=rate, **NOISY)
    deviation = 1.7 * 0.3 * 0.5 / 12.0
    assert len(noise) > 5000
    assert noise.std() == pytest.approx(deviation, rel=0.04)
    assert abs(noise.mean()) < 5 * deviation / np.sqrt(len(noise))


def test_every_step_adds_its_own_noise():
    noise = noise_of(patients(2, features=20), 20, seed=5, sampling_rate=1e-12, steps=4, **NOISY)
    assert noise.std() == pytest.approx(2 * 1.7 * 0.3 * 0.5 / 12.0, rel=0.04)


def test_the_noise_of_different_parameters_is_independent():
    noise = noise_of(patients(2, features=20), 40, seed=6, sampling_rate=1e-12, **NOISY).reshape(40, -1)
    correlation = np.corrcoef(noise, rowvar=False)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.85  # 40 runs of 353 parameters; a shared draw would give 1
    assert abs(correlation.mean()) < 0.01


def test_the_normaliser_is_the_expected_batch_whatever_number_of_patients_is_held():
    one, start = patients(4), random_start("logistic")
    twice = Units(np.tile(one.features, (2, 1)), np.tile(one.labels, 2), np.array([0, 4, 8]), "patient")
    alone = released(one, start)
    assert released(twice, start) == pytest.approx(2 * alone, abs=1e-6)
    assert released(one, start, expected_batch=10.0) == pytest.approx(alone / 10, abs=1e-7)


def test_the_step_descends_by_the_learning_rate():
    units, start = patients(4), initial_parameters("logistic", F)
    assert released(units, start, learning_rate=0.25) == pytest.approx(
        0.25 * released(units, start), abs=1e-7
    )
    label_one = Units(np.ones((1, F), np.float32), np.ones(1, np.float32), np.array([0, 1]), "patient")
    assert (update("logistic", start, label_one, dpsgd(), SILENT)["0.weight"] > 0).all()


def test_at_most_max_variants_rows_are_drawn_from_a_unit_and_over_time_all_of_them():
    rows = 10
    units = Units(np.eye(rows, dtype=np.float32), np.zeros(rows, np.float32), np.array([0, rows]), "patient")
    start, seen = initial_parameters("logistic", rows), np.zeros(rows, dtype=int)
    random, runs = seeded(7), 120
    settings = dpsgd(noise_multiplier=1e-9, max_variants=3, clip_norm=100.0)
    for _ in range(runs):
        drawn = np.abs(update("logistic", start, units, settings, random)["0.weight"][0]) > 1e-3
        assert drawn.sum() == 3
        seen += drawn
    assert (seen > runs * 0.3 / 3).all()
    assert (seen < runs * 0.3 * 2).all()


def test_a_patient_with_few_rows_is_not_changed_by_the_padding():
    units, start = patients(2), random_start("logistic")
    assert released(units, start, max_variants=64) == pytest.approx(released(units, start, max_variants=2))


def test_two_trainings_never_share_noise_and_take_no_source_of_it():
    units, start = patients(3), initial_parameters("mlp", F)
    first, second = (flat(train("mlp", start, units, dpsgd(noise_multiplier=2.0)).update) for _ in range(2))
    assert (first != second).all()
    # A result that is sent or saved cannot have been made with a seed: there is no way to give one.
    assert list(inspect.signature(train).parameters) == [
        "architecture", "start", "units", "settings", "clip_norm", "threads",
    ]  # fmt: skip


def test_the_start_is_left_as_it_was():
    start = random_start("mlp")
    before = flat(start)
    train("mlp", start, patients(3), dpsgd())
    assert np.array_equal(flat(start), before)


def test_a_little_noise_still_learns():
    source = np.random.default_rng(8)
    features = source.normal(size=(2000, F)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.float32)
    owners = [f"p{number % 50}" for number in range(2000)]
    units = Units.group(features, labels, owners, unit="patient")
    settings = dpsgd(steps=30, sampling_rate=0.5, expected_batch=25.0, noise_multiplier=1.0)
    weight = update("logistic", initial_parameters("logistic", F), units, settings, seeded(9))["0.weight"][0]
    assert weight[0] > 5 * np.abs(weight[1:]).max()


def test_settings_state_what_they_cost():
    assert dpsgd(noise_multiplier=1.5, sampling_rate=0.2, steps=7).event == Event(1.5, 0.2, 7)


def test_by_variant_each_row_is_a_unit_of_its_own():
    features, labels = np.zeros((4, F), np.float32), np.zeros(4, np.float32)
    assert len(Units.group(features, labels, ["a", "a", "a", "b"], unit="variant")) == 4
    assert len(Units.group(features, labels, ["a", "a", "a", "b"], unit="patient")) == 2


def test_no_labelled_rows_and_other_units_are_refused():
    nothing = np.empty((0, F), np.float32), np.empty(0, np.float32)
    with pytest.raises(UserError, match="no labelled variants to train on"):
        Units.group(*nothing, [], unit="patient")
    with pytest.raises(UserError, match="no labelled variants to train on"):
        Units.read([], unit="patient")
    with pytest.raises(UserError, match="no privacy unit is called 'sample'"):
        Units.group(np.zeros((1, F), np.float32), np.zeros(1, np.float32), ["a"], unit="sample")


def table(path, patient, sample, labels):
    rows = [table_row(patient=patient, sample=sample, label=label) for label in labels]
    write_table(pa.Table.from_pylist(rows, schema=LABELLED), path)
    return path


def test_the_samples_of_a_patient_are_one_unit_and_unlabelled_rows_are_left_out(tmp_path):
    paths = [
        table(tmp_path / "a1.parquet", "a", "a1", [1, None, 0]),
        table(tmp_path / "b1.parquet", "b", "b1", [1]),
        table(tmp_path / "a2.parquet", "a", "a2", [0, 0]),
    ]
    units = Units.read(paths, unit="patient")
    assert units.offsets.tolist() == [0, 4, 5]
    assert units.labels.tolist() == [1, 0, 0, 0, 1]
    assert units.features.shape == (5, len(FEATURES))
    assert len(Units.read(paths, unit="variant")) == 5
    with pytest.raises(UserError, match="no labelled variants"):
        Units.read([table(tmp_path / "c.parquet", "c", "c1", [None])], unit="patient")


@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
def test_a_row_that_moves_from_one_patient_to_another_moves_the_release_by_what_two_patients_may(mechanism):
    """Two units change, each by at most twice the clip; and both together never pass two clips."""
    units, start = patients(5, 5, seed=2), random_start("mlp")
    owners = ["a"] * 5 + ["b"] * 5
    changes = {"clip_norm": 0.2, "mechanism": mechanism}
    before = released(units, start, "mlp", **changes)
    for moved in range(5):
        others = [*owners[:moved], "b", *owners[moved + 1 :]]
        regrouped = Units.group(units.features, units.labels, others, unit="patient")
        assert np.diff(regrouped.offsets).tolist() == [4, 6]
        after = released(regrouped, start, "mlp", **changes)
        assert 0 < np.linalg.norm(after - before, NORMS[mechanism]) <= 4 * 0.2
        assert np.linalg.norm(after, NORMS[mechanism]) <= 2 * 0.2 * (1 + 1e-6)


def drawn_units(units, settings, random, steps):
    """How often each unit was drawn, and how many at a time; a unit's first feature is its number."""
    often, sizes = np.zeros(len(units), dtype=int), []
    for _ in range(steps):
        blocks = draw(units, settings, random, block_shape(settings, 2048))
        numbers = [block.features[: block.units, 0, 0].numpy().astype(int) for block in blocks]
        together = np.concatenate(numbers) if numbers else np.empty(0, dtype=int)
        assert len(set(together)) == len(together)
        often[together] += 1
        sizes.append(len(together))
    return often, np.array(sizes)


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_units_are_drawn_by_poisson_sampling_at_the_rate_that_is_accounted_for(rate):
    count, steps = 60, 1500
    numbers = np.repeat(np.arange(count, dtype=np.float32)[:, None], F, axis=1)
    units = Units(numbers, np.zeros(count, np.float32), np.arange(count + 1), "patient")
    settings = dpsgd(sampling_rate=rate, expected_batch=rate * count, max_variants=1)
    often, sizes = drawn_units(units, settings, seeded(11), steps)
    # How often each unit is drawn, and how many at a time, are binomial (significance 1 in 1,000).
    spread = steps * rate * (1 - rate)
    assert 1e-3 / 2 < stats.chi2(count).cdf(((often - steps * rate) ** 2 / spread).sum()) < 1 - 1e-3 / 2
    variance = count * rate * (1 - rate)
    assert 1e-3 / 2 < stats.chi2(steps).cdf(((sizes - count * rate) ** 2 / variance).sum()) < 1 - 1e-3 / 2
    assert abs(sizes.mean() - count * rate) < 3.3 * np.sqrt(variance / steps)


def test_blocks_have_one_public_shape_and_hold_every_sampled_unit_once():
    units = patients(*[3] * 300)
    settings = dpsgd(expected_batch=100.0, max_variants=4)
    shape = block_shape(settings, 256)
    blocks = list(draw(units, settings, SILENT, shape))
    assert {block.features.shape for block in blocks} == {(*shape, F)}
    assert shape[0] * shape[1] % 16 == 0
    assert sum(block.units for block in blocks) == 300
    assert all((block.weights[block.units :] == 0).all() for block in blocks)
    assert block_shape(dpsgd(expected_batch=1e9, max_variants=100_000), 256) == (1, 100_000)


class HalfNoise(PrivateMean):
    def noise_scale(self):
        return super().noise_scale() / 2


class ActualBatch(PrivateMean):
    def normaliser(self, sampled):
        return float(max(sampled, 1))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (HalfNoise, test_every_step_adds_its_own_noise),
        (ActualBatch, test_the_normaliser_is_the_expected_batch_whatever_number_of_patients_is_held),
    ],
)
def test_training_with_a_broken_mechanism_is_caught(monkeypatch, broken, check):
    monkeypatch.setattr("cordon.privacy.clipping.PrivateMean", broken)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
def test_the_adaptive_clip_goes_on_from_round_to_round(mechanism):
    units, start = patients(*[4] * 200, features=20), random_start("mlp", features=20)
    settings = dpsgd(
        clipping="adaptive", clip_norm=0.5, noise_multiplier=1.0, sampling_rate=0.5, expected_batch=100.0,
        steps=10, learning_rate=1e-9, mechanism=mechanism, clip_quantile=0.7,
    )  # fmt: skip
    clip, random, seen = None, seeded(3), []
    for _ in range(20):
        clip = descend("mlp", start, units, settings, random, clip_norm=clip).clip_norm
        seen.append(clip)
    alone = (
        Units(units.features[n : n + 4], units.labels[n : n + 4], np.array([0, 4]), "patient")
        for n in range(0, 800, 4)
    )
    norms = [np.linalg.norm(released(u, start, "mlp", clip_norm=1e3), NORMS[mechanism]) for u in alone]
    assert seen[0] < seen[1]
    assert np.median(seen[-10:]) == pytest.approx(np.quantile(norms, 0.7), rel=0.15)


def test_a_fixed_clip_comes_back_as_it_went_in_and_takes_no_other():
    units, start = patients(3), initial_parameters("logistic", F)
    assert train("logistic", start, units, dpsgd(clip_norm=0.7)).clip_norm == 0.7
    with pytest.raises(UserError, match=r"a clip norm of 0\.5 carried over beside the fixed 0\.7"):
        train("logistic", start, units, dpsgd(clip_norm=0.7), clip_norm=0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_carried_clip_that_is_no_norm_is_refused(value):
    start, settings = initial_parameters("logistic", F), dpsgd(clipping="adaptive")
    with pytest.raises(UserError, match="no clip norm"):
        train("logistic", start, patients(3), settings, clip_norm=value)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("clipping", ["fixed", "adaptive"])
@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
def test_every_mechanism_clipping_and_optimiser_learns(mechanism, clipping, optimiser):
    source = np.random.default_rng(8)
    features = source.normal(size=(4000, F)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.float32)
    units = Units.group(features, labels, [""] * 4000, unit="variant")
    settings = dpsgd(
        unit="variant", steps=40, sampling_rate=0.25, expected_batch=1000.0, noise_multiplier=2.0,
        max_variants=1,
        mechanism=mechanism, clipping=clipping, optimiser=optimiser,
        learning_rate=0.05 if optimiser == "adam" else 0.5, momentum=0.5 if optimiser == "sgd" else 0.0,
    )  # fmt: skip
    weight = update("logistic", initial_parameters("logistic", F), units, settings, seeded(9))["0.weight"][0]
    assert weight[0] > 3 * np.abs(weight[1:]).max()


def test_what_cannot_be_accounted_or_trained_with_is_refused():
    units, start = patients(3), initial_parameters("logistic", F)
    for changes, words in (
        ({"noise_multiplier": 0.0}, "noise multiplier 0"),
        ({"sampling_rate": 1.5}, r"sampling rate 1\.5"),
        ({"mechanism": "Shuffled Gaussian"}, "cannot be accounted"),
        ({"optimiser": "lion"}, "no optimiser is called"),
    ):
        with pytest.raises(UserError, match=words):
            train("logistic", start, units, dpsgd(**changes))
    for changes in ({"clipping": "none"}, {"clip_quantile": 1.0}, {"quantile_share": 0.0}, {"momentum": 1.0}):
        with pytest.raises(UserError, match=rf"cannot be trained with: {next(iter(changes))}"):
            dpsgd(**changes)


def test_a_thread_count_is_kept_to_and_given_back(monkeypatch):
    before = torch.get_num_threads()
    with thread_count(1):
        assert torch.get_num_threads() == 1
    monkeypatch.setenv("CORDON_THREADS", "3")
    with thread_count(None):
        assert torch.get_num_threads() == 3
    with thread_count(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("CORDON_THREADS", wrong)
        with pytest.raises(UserError, match="no number of threads"), thread_count(None):
            pass


def test_importing_training_stays_light():
    assert "torch" not in vars(cordon.training.dpsgd)
