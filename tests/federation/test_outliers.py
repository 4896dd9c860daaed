"""Tests of cordon.federation.aggregator.outliers: who is named, who is not, and with how few sites."""

from dataclasses import replace

import numpy as np
import pytest

from cordon.federation.aggregator.noise_checks import reference
from cordon.federation.aggregator.outliers import Outliers, medians_of_others
from cordon.federation.plan import Plan, Site

PLAN = Plan(
    run="r", model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=10, local_steps=10,
    sampling_rate=0.5, noise_multiplier=3.3, clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=64,
)  # fmt: skip
N = 753
DIRECTION = np.random.default_rng(0).normal(size=N) / np.sqrt(N)


def sites(count, patients=20):
    return {f"h{n}": Site(f"h{n}", patients, 1.0, f"key {n}") for n in range(count)}


def updates(seed, enrolled, signal=5.0):
    """Honest updates: a common signal, so many deviations of an ordinary site's noise, and own noise."""
    source = np.random.default_rng(seed)
    found = {}
    for name, site in enrolled.items():
        deviation = reference(PLAN, site.declared_patients).deviation
        found[name] = reference(PLAN, 20).deviation * signal * DIRECTION + source.normal(0, deviation, N)
    return found


def named(outliers, enrolled, vectors):
    return outliers.faults(enrolled, {name: {"w": v.astype(np.float32)} for name, v in vectors.items()})


@pytest.mark.parametrize("count", [3, 4, 5, 10])
@pytest.mark.parametrize("signal", [0.0, 5.0, 100.0])
def test_honest_sites_are_not_named(count, signal):
    enrolled = sites(count)
    # A small site's noise is larger than the others', and it is no outlier for that.
    enrolled["h0"] = replace(enrolled["h0"], declared_patients=5)
    for run in range(10):
        outliers = Outliers(PLAN)
        for number in range(10):
            assert named(outliers, enrolled, updates(100 * run + number, enrolled, signal)) == {}


@pytest.mark.parametrize("count", [3, 5, 7])
@pytest.mark.parametrize("factor", [5.0, 100.0, -5.0])
def test_one_scaled_update_is_named_and_it_alone(count, factor):
    enrolled = sites(count)
    vectors = updates(1, enrolled)
    vectors["h1"] = factor * vectors["h1"]
    found = named(Outliers(PLAN), enrolled, vectors)
    assert list(found) == ["h1"]
    assert found["h1"].startswith("an outlier: ")


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_site_that_turns_its_updates_is_named_after_some_rounds_and_it_alone(count):
    enrolled, outliers = sites(count), Outliers(PLAN)
    for number in range(20):
        vectors = updates(number, enrolled)
        vectors["h1"] = -vectors["h1"]
        if found := named(outliers, enrolled, vectors):
            break
    assert list(found) == ["h1"]
    assert "turned against the other sites' median" in found["h1"]
    # The others were held against a median that it had a part in: they begin anew.
    del enrolled["h1"]
    for number in range(20, 40):
        assert named(outliers, enrolled, updates(number, enrolled)) == {}


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_two_of_seven_that_send_the_same_are_named_also_within_the_noise(jitter):
    enrolled = sites(7)
    vectors = updates(3, enrolled)
    deviation = reference(PLAN, 20).deviation
    source = np.random.default_rng(8)
    common = source.normal(size=N)
    for name in ("h2", "h5"):
        vectors[name] = deviation * (common + jitter * source.normal(size=N))
    found = named(Outliers(PLAN), enrolled, vectors)
    assert set(found) == {"h2", "h5"}
    assert "alike" in found["h2"]


def test_with_two_sites_nobody_can_say_who_is_right_and_more_than_a_minority_is_never_named():
    two = sites(2)
    vectors = updates(1, two)
    vectors["h1"] = 100 * vectors["h1"]
    assert named(Outliers(PLAN), two, vectors) == {}
    three = sites(3)
    vectors = updates(1, three)
    vectors["h1"], vectors["h2"] = 100 * vectors["h1"], -90 * vectors["h2"]
    assert len(named(Outliers(PLAN), three, vectors)) <= 1


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
def test_the_medians_of_the_others_are_numpys(count):
    vectors = np.random.default_rng(count).normal(size=(count, 50)).round(1)  # with ties
    expected = [np.median(np.delete(vectors, n, axis=0), axis=0) for n in range(count)]
    assert np.allclose(medians_of_others(vectors), expected)
