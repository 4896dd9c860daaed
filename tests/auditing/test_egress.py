"""The egress check on the site's real code, and on code that leaks."""

import numpy as np
import pytest

from cordon.auditing.egress import check_egress, other
from cordon.federation import messages
from cordon.federation.plan import Plan
from cordon.federation.site import participate
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import Trained, train
from cordon.training.units import Units
from cordon.variants.features import FEATURES

START = initial_parameters("logistic", len(FEATURES))
PLAN = Plan.calibrated(
    model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=2, local_steps=3, sampling_rate=0.5,
    clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def units() -> Units:
    source = np.random.default_rng(3)
    features = source.normal(size=(90, len(FEATURES))).astype(np.float32)
    labels = (source.random(90) < 0.8).astype(np.float32)
    return Units.group(features, labels, [f"p{n % 6}" for n in range(90)], unit="patient")


def leaking(monkeypatch, change) -> None:
    """Let `change` have every reply's records before they leave."""
    real = messages.Reply.to_records

    def to_records(reply):
        return change(reply, real(reply))

    monkeypatch.setattr(messages.Reply, "to_records", to_records)


def test_nothing_but_the_update_depends_on_the_rows(units):
    found = check_egress(PLAN, START, units, 8)
    assert found.passed, found.reason
    declared = [f"declaration.{name}" for name in messages.DECLARATION["trained"]]
    assert found.figures["fields"] == sorted(["update.0.weight", "update.0.bias", *declared])


def test_a_raw_loss_in_a_message_is_found_whatever_it_is_called(units, monkeypatch):
    seen: list[float] = []

    def observed(architecture, start, own, *args, **kwargs):
        seen.append(float(own.labels.mean()))
        return train(architecture, start, own, *args, **kwargs)

    def change(reply, records):
        records["declaration"]["loss"] = seen[-1]
        return records

    monkeypatch.setattr(participate, "train", observed)
    leaking(monkeypatch, change)
    monkeypatch.setitem(messages.DECLARATION, "trained", messages.DECLARATION["trained"] | {"loss"})
    found = check_egress(PLAN, START, units, 8)
    assert not found.passed
    assert "declaration.loss depends on the site's rows" in found.reason


def test_an_exact_number_of_rows_under_an_allowed_name_is_found(units, monkeypatch):
    held: list[int] = []

    def observed(architecture, start, own, *args, **kwargs):
        held.append(len(own.labels))
        return train(architecture, start, own, *args, **kwargs)

    def change(reply, records):
        records["declaration"]["steps"] = held[-1]
        return records

    monkeypatch.setattr(participate, "train", observed)
    leaking(monkeypatch, change)
    found = check_egress(PLAN, START, units, 8)
    assert "declaration.steps depends on the site's rows" in found.reason


def test_a_field_that_the_receiver_would_refuse_is_named(units, monkeypatch):
    def change(reply, records):
        records["more"] = records["declaration"]
        return records

    leaking(monkeypatch, change)
    found = check_egress(PLAN, START, units, 8)
    assert not found.passed


def test_noise_that_comes_twice_is_none(units, monkeypatch):
    from cordon.training import dpsgd

    def seeded(architecture, start, own, settings, **kwargs) -> Trained:
        kwargs.pop("threads", None)
        return dpsgd.descend(
            architecture, start, own, settings, Randomness(np.random.default_rng(1).bytes), **kwargs
        )

    monkeypatch.setattr(participate, "train", seeded)
    found = check_egress(PLAN, START, units, 8)
    assert "their noise is not fresh" in found.reason


def test_a_site_that_cannot_answer_is_a_fault_and_no_crash(units):
    found = check_egress(PLAN, {"other": np.zeros(3, np.float32)}, units, 8)
    assert not found.passed
    assert "cannot answer" in found.reason


def test_the_other_rows_differ_in_number_and_in_every_label(units):
    made = other(units)
    assert len(made) == len(units) // 2
    assert not np.any(made.labels == units.labels[: len(made.labels)])
