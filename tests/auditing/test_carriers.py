"""Probes for carriers of rare alleles: certain without DP, bounded with it, and chance where no row moves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cordon.auditing.carriers import CARRIER_ATTACKS, CarrierResult, probe, rarest
from cordon.auditing.shadows import VIEWS, Shadowing, Trace, unprotected
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.devices import thread_count
from cordon.model.initial_weights import initial_parameters
from cordon.training.pretrain import fit
from cordon.training.units import Units

pytestmark = pytest.mark.statistical

COMMON, RARE = 8, 32
FEATURES = COMMON + RARE
SURE = 0.999
START = initial_parameters("mlp", FEATURES)


def site(unit: str, *, seed: int = 0) -> Units:
    """120 rows whose labels can be learnt, of 40 patients; the first row of the first 32 is far from others.

    A rare row has a feature of its own, and the label that the features of all would not give it.
    """
    rng = np.random.default_rng(seed)
    features = np.zeros((120, FEATURES))
    features[:, :COMMON] = 0.5 * rng.normal(size=(120, COMMON))
    labels = features[:, 0] > 0
    labels[:RARE] = ~labels[:RARE]
    features[np.arange(RARE), COMMON + np.arange(RARE)] = 2.5
    patients = [f"p{n % 40:02d}" for n in range(120)]
    return Units.group(features.astype(np.float32), labels.astype(np.float32), patients, unit=unit)


def plan(unit: str) -> Plan:
    return Plan.calibrated(
        model="mlp", unit=unit, epsilon=1.0, delta=1e-5, rounds=4, local_steps=5,
        sampling_rate=0.5, clip_norm=1.0, learning_rate=0.02, optimiser="adam",
        max_variants_per_patient=8 if unit == "patient" else 1,
    )  # fmt: skip


def found(results: list[CarrierResult], name: str, view: str) -> CarrierResult:
    return next(result for result in results if (result.attack, result.view) == (name, view))


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_outlying_rows_of_different_units_are_the_rarest(unit):
    units = site(unit)
    chosen = rarest(units, RARE)
    owners = np.repeat(np.arange(len(units)), np.diff(units.offsets))
    assert len(set(owners[chosen])) == RARE
    assert (units.features[chosen].max(1) == 2.5).all()


def test_rows_are_rarest_by_frequency_where_there_is_one():
    frequency = np.full(120, 0.3)
    frequency[[7, 50, 49]] = [1e-4, 1e-5, 0.0]
    assert rarest(site("variant"), 3, frequency=frequency).tolist() == [7, 49, 50]
    # Rows 48 to 50 are of one patient: its rarest counts, then the first of the others.
    assert rarest(site("patient"), 3, frequency=frequency).tolist() == [0, 7, 49]


def test_patients_of_a_single_row_carry_no_probe():
    units = Units.group(
        np.eye(3, FEATURES, dtype=np.float32), np.ones(3, np.float32), ["a", "b", "b"], unit="patient"
    )
    assert rarest(units, 1, frequency=np.array([0.0, 0.1, 0.2])).tolist() == [1]
    with pytest.raises(UserError, match="only 1 units"):
        rarest(units, 2)


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_without_dp_a_carrier_is_found(unit):
    """Often all of them are: of so many rows, an interval then begins at 0.025^(1/16) = 0.79."""
    bare = plan(unit)
    units = site(unit)
    trainer = unprotected(bare, len(units), START)
    results = probe(bare, units, rarest(units, RARE), None, START, Shadowing(shadows=24, trainer=trainer))
    assert [(result.view, result.attack) for result in results] == [
        (v, a) for v in VIEWS for a in CARRIER_ATTACKS
    ]
    for view in VIEWS:
        online = found(results, "lira_online", view)
        assert online.score.auc.value > 0.9
        assert online.score.auc.low > 1 / (1 + math.exp(-1))  # so the test of the bound, below, can fail
        assert online.advantage is not None
        assert online.advantage.low > 0.3
        assert online.accuracy is not None
        assert online.accuracy.low > 0.65
    assert results[0].privacy == {}


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_under_dp_no_probe_passes_the_bound(unit):
    private, units = plan(unit), site(unit)
    results = probe(private, units, rarest(units, RARE), None, START, Shadowing(shadows=30, confidence=SURE))
    # Exchanging a patient's data costs twice the epsilon, and its delta grows by e^epsilon.
    epsilon = 1.0 if unit == "variant" else 2.0
    delta = 1e-5 if unit == "variant" else (1 + math.e) * 1e-5
    for result in results:
        assert result.privacy["epsilon"] == 1.0
        assert result.score.auc.low <= 1 / (1 + math.exp(-epsilon)) + delta
        for rate in result.score.rates:
            if rate.tpr is not None and rate.reached is not None:
                assert rate.tpr.low <= math.exp(epsilon) * rate.reached.high + delta
        if result.advantage is not None:
            assert result.advantage.low <= math.tanh(epsilon / 2) + delta


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_a_training_that_never_saw_the_rows_gives_no_carrier_away(unit):
    units = site(unit)
    seeds = iter(range(1, 100))

    def elsewhere(_: Units) -> Trace:
        other = site("variant", seed=next(seeds))
        with thread_count(1):
            model = fit("mlp", other.features, other.labels, start=START, length=100)
        return Trace([START, model], [{name: model[name] - START[name] for name in START}], model)

    rows = rarest(units, RARE)
    for result in probe(
        plan(unit), units, rows, None, START, Shadowing(shadows=12, trainer=elsewhere, confidence=SURE)
    ):
        assert result.score.auc.low <= 0.5 <= result.score.auc.high
        if result.advantage is not None:
            assert result.advantage.low <= 0.0 <= result.advantage.high


def test_a_result_says_all_that_belongs_to_it():
    units = site("variant")
    rows = rarest(units, RARE)[::-1]  # in any order
    result = probe(plan("variant"), units, rows, 120, START, Shadowing(shadows=6, views=("model",)))[-1]
    described = result.to_dict()
    assert described["privacy"] == {
        "unit": "variant", "epsilon": 1.0, "delta": 1e-5, "mechanism": "Poisson-sampled Gaussian",
        "adjacency": "add or remove one unit",
    }  # fmt: skip
    assert result.advantage is not None
    assert described["accuracy"]["value"] == pytest.approx((1 + result.advantage.value) / 2)
    assert described["rates"][0]["reason"].endswith("non-members cannot show a rate of 0.001")
    assert (described["rows"], described["targets"]) == (RARE, 6)


def test_what_cannot_be_probed_is_refused():
    units = site("patient")
    with pytest.raises(UserError, match="different units"):
        probe(plan("patient"), units, [0, 1], None, START)
    with pytest.raises(UserError, match="different units"):
        probe(plan("patient"), units, [], None, START)
    with pytest.raises(UserError, match="Use: model, updates"):
        probe(plan("patient"), units, [0], None, START, Shadowing(views=()))
