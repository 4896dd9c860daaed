"""Tests of cordon.federation.plan."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon.errors import InputProblems, UserError
from cordon.federation.plan import (
    CHOICES,
    RANGES,
    Plan,
    Site,
    find_site,
    read_enrolment,
    read_sites,
    write_enrolment,
)
from cordon.model.architectures import width
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import MOST_STEPS, Event
from cordon.privacy.grouping import MOST_DELTA, USUAL_DELTA, check_delta
from cordon.training.dpsgd import block_shape
from cordon.variants.features import FEATURES

PLAN = Plan(
    run="r", model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=10, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=256,
)  # fmt: skip


def test_a_plan_comes_back_from_its_dictionary_and_from_json():
    assert Plan.from_dict(PLAN.to_dict()) == PLAN
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN
    whole = replace(PLAN, epsilon=8, learning_rate=2)
    assert Plan.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


@pytest.mark.parametrize("name", sorted(PLAN.to_dict()))
def test_a_missing_setting_is_refused(name):
    values = PLAN.to_dict()
    del values[name]
    with pytest.raises(UserError, match="the plan has settings"):
        Plan.from_dict(values)


@given(st.text())
def test_an_extra_setting_is_refused(name):
    if name not in PLAN.to_dict():
        with pytest.raises(UserError, match="the plan has settings"):
            Plan.from_dict(PLAN.to_dict() | {name: 1})


@pytest.mark.parametrize("name", sorted(PLAN.to_dict()))
@pytest.mark.parametrize("value", [None, True, b"1", [1.0], {}, 1 + 0j], ids=repr)
def test_a_setting_of_another_type_is_refused_and_named(name, value):
    if type(value) is type(PLAN.to_dict()[name]):
        value = 1.0  # no setting has every type
    with pytest.raises(UserError, match=f"the plan's {name} is"):
        Plan.from_dict(PLAN.to_dict() | {name: value})


def test_an_integer_is_no_float_and_a_float_no_integer():
    # Two spellings of a number would be two plans to whoever compares them.
    with pytest.raises(UserError, match="epsilon is 8, not a float"):
        Plan.from_dict(PLAN.to_dict() | {"epsilon": 8})
    with pytest.raises(UserError, match=r"rounds is 10\.0, not a int"):
        Plan.from_dict(PLAN.to_dict() | {"rounds": 10.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimiser", "lbfgs"), ("momentum", 1.0), ("momentum", math.nan), ("clipping", "none"),
     ("clip_quantile", 1.0), ("clip_rate", 0.0), ("quantile_share", 0.0),
     ("model", "forest"), ("unit", "sample"), ("mechanism", "Laplace"), ("adjacency", "replace one unit"),
     ("epsilon", 0.0), ("epsilon", math.nan), ("epsilon", math.inf), ("delta", 0.0), ("delta", 1.0),
     ("delta", math.nan), ("delta", -1.0), ("rounds", 0), ("local_steps", 0), ("sampling_rate", 0.0),
     ("averaged_rounds", 0), ("sampling_rate", 1.5), ("noise_multiplier", 0.0),
     ("noise_multiplier", math.nan), ("clip_norm", 0.0),
     ("clip_norm", math.nan), ("clip_norm", math.inf), ("learning_rate", -0.1), ("learning_rate", math.inf),
     ("max_variants_per_patient", 0), ("max_variants_per_patient", 10**9),
     ("clip_norm", 1e300), ("clip_norm", 1e-300), ("sampling_rate", 1e-300), ("noise_multiplier", 1e300),
     ("learning_rate", 1e300), ("learning_rate", 1e-300), ("epsilon", 1e300), ("delta", 1e-300),
     ("delta", 0.2), ("rounds", 2**62), ("local_steps", 2**62), ("averaged_rounds", 2**62),
     ("malicious_sites", 2**62), ("clip_quantile", 1e-300), ("clip_rate", 1e-300),
     ("sites_per_patient", 0), ("sites_per_patient", 101), ("sites_per_patient", 2**62),
     ("quantile_share", 1 - 1e-16), ("run", "r" * 101), ("run", "r\x1b[31m"), ("run", "../r"),
     ("start", "0" * 63), ("start", "0" * 10**6)],
)  # fmt: skip
def test_a_site_refuses_a_plan_that_no_honest_aggregator_sends(name, value):
    with pytest.raises(UserError):
        Plan.from_dict(PLAN.to_dict() | {name: value})


def test_a_message_holds_only_the_beginning_of_a_setting_that_is_huge():
    for changes in (
        {"model": "m" * 10**6},
        {"start": "0" * 10**6},
        {"rounds": "1" * 10**6},
        {"m" * 10**6: 1},
    ):
        with pytest.raises(UserError) as refused:
            Plan.from_dict(PLAN.to_dict() | changes)
        assert len(str(refused.value)) < 2000


def test_a_run_has_no_more_steps_than_can_be_accounted():
    assert replace(PLAN, rounds=10_000, local_steps=100).event.steps == 100
    with pytest.raises(UserError, match=r"local_steps 101 \(use at most 1000000 in all rounds"):
        replace(PLAN, rounds=10_000, local_steps=101)


@pytest.mark.parametrize(
    ("model", "variants", "refused"),
    [("pileup_cnn", 256, ""), ("pileup_cnn", 6720, ""), ("pileup_cnn", 6848, "0.27 GB"),
     ("pileup_cnn", 99_999, "63 GB"), ("pileup_cnn", 425, ""), ("pileup_cnn", 427, "0.27 GB"),
     ("mlp", 100_000, ""), ("mlp", 99_999, "0.29 GB")],
)  # fmt: skip
def test_a_step_takes_no_more_memory_than_is_said(model, variants, refused):
    """A block is padded to whole vectors, so that an odd number of variants makes it 16 times as large."""
    if not refused:
        settings_ = replace(PLAN, model=model, max_variants_per_patient=variants).settings_for(10**6)
        units, rows = block_shape(settings_, 1)
        assert 4 * units * rows * width(model, len(FEATURES)) <= 2**28
        return
    with pytest.raises(
        UserError, match=rf"max_variants_per_patient {variants} takes {refused}.*multiple of 16"
    ):
        replace(PLAN, model=model, max_variants_per_patient=variants)


ANY_VALUE = {
    float: st.one_of(st.floats(), st.floats(1e-9, 1e6), st.sampled_from([1e300, -1e300, 1e-300, 5e-324])),
    int: st.one_of(st.integers(), st.integers(0, 20_000), st.sampled_from([2**63, -(2**63)])),
    str: st.one_of(
        st.text(), st.sampled_from(["0" * 64, "r" * 5000, *(v for c in CHOICES.values() for v in c)])
    ),
    bool: st.booleans(),
}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_an_aggregator_sends_is_refused_or_within_what_a_site_bears(data):
    """Several settings at once: no product of those that are accepted leaves what float32 holds."""
    values = PLAN.to_dict()
    for name in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=4, unique=True)):
        values[name] = data.draw(ANY_VALUE[type(values[name])], label=name)
    try:
        plan = Plan.from_dict(values)
    except UserError:
        return
    for name, (least, most) in RANGES.items():
        assert least <= getattr(plan, name) <= most
    assert plan.rounds * plan.local_steps <= MOST_STEPS
    training = plan.settings_for(1)
    units, rows = block_shape(training, 1)
    assert 4 * units * rows * width(plan.model, len(FEATURES)) <= 2**28
    # The longest that a round's noise can be, by ten deviations in each step.
    farthest = 10 * plan.local_steps * plan.learning_rate * plan.noise_multiplier * plan.clip_norm
    farthest *= math.sqrt(2) / training.expected_batch / (1 - plan.momentum)
    assert farthest < float(np.finfo(np.float32).max)
    assert math.isfinite(epsilon_rdp([plan.event] * min(plan.rounds, 3), plan.delta))


def test_all_that_is_out_of_range_is_named_at_once():
    with pytest.raises(UserError, match=r"epsilon -1\.0 .*; rounds 0 .*; clip_norm nan"):
        replace(PLAN, epsilon=-1.0, rounds=0, clip_norm=math.nan)


@settings(max_examples=4, deadline=None)
@given(st.floats(0.5, 10.0), st.integers(1, 20), st.integers(1, 5), st.floats(0.05, 1.0))
@pytest.mark.stress
def test_a_calibrated_plan_spends_its_epsilon_in_all_its_rounds_and_never_more(epsilon, rounds, steps, rate):
    values = PLAN.to_dict() | {
        "epsilon": epsilon, "rounds": rounds, "local_steps": steps, "sampling_rate": rate,
    }  # fmt: skip
    del values["noise_multiplier"]
    plan = Plan.calibrated(**values)
    spent = epsilon_rdp([plan.event] * rounds, plan.delta)
    assert 0.99 * epsilon <= spent <= epsilon


def test_one_round_costs_its_local_steps():
    assert PLAN.event == Event(2.0, 0.3, 2)


def test_a_delta_above_a_tenth_of_one_over_the_units_is_refused_and_above_a_thousandth_told():
    plan = replace(PLAN, delta=1e-5)
    assert [plan.check_delta("h1", patients) for patients in (1, 99)] == ["", ""]
    for patients, most in ((101, "9.9e-06"), (150, "6.6e-06"), (9_999, "1e-07")):
        assert plan.check_delta("h1", patients) == (
            f"site h1: delta 1e-05 is above 0.001 over its {patients} declared units: with that probability "
            f"a whole unit may be released. Use at most {most}."
        )
        assert replace(plan, delta=float(most)).check_delta("h1", patients) == ""
    for patients in (10_001, 200_000):
        with pytest.raises(UserError, match=r"site h1: delta 1e-05 is above 0\.1 over its"):
            plan.check_delta("h1", patients)
    with pytest.raises(UserError, match=r"delta 0\.09 is above 0\.1 over its 11 declared units"):
        replace(PLAN, delta=0.09).check_delta("h1", 11)


@pytest.mark.parametrize("units", [1, 7, 100, 519, 1038, 33153])
def test_a_delta_at_a_limit_exactly_is_not_above_it(units):
    # 1e-3 / 519 * 519 is above 1e-3, as numbers are rounded.
    assert check_delta("h1", USUAL_DELTA / units, units) == ""
    assert "is above 0.001" in check_delta("h1", MOST_DELTA / units, units)
    assert "is above 0.001" in check_delta("h1", USUAL_DELTA * (1 + 1e-6) / units, units)
    with pytest.raises(UserError, match=r"is above 0\.1"):
        check_delta("h1", MOST_DELTA * (1 + 1e-6) / units, units)


def test_by_variant_the_units_are_the_variants_that_patients_may_bring():
    plan = replace(PLAN, unit="variant")
    assert plan.declared_units(10) == 2560
    plan.check_delta("h1", 39)
    with pytest.raises(UserError, match="10240 declared units"):
        plan.check_delta("h1", 40)


def test_a_sites_settings_come_from_what_it_declared():
    settings_ = PLAN.settings_for(40)
    assert settings_.expected_batch == pytest.approx(0.3 * 40)
    assert settings_.max_variants == 256
    assert settings_.event == PLAN.event
    by_variant = replace(PLAN, unit="variant").settings_for(40)
    assert by_variant.expected_batch == pytest.approx(0.3 * 40 * 256)
    assert by_variant.max_variants == 1


def test_a_statement_says_what_epsilon_means():
    assert PLAN.statement(2.5) == (
        "epsilon 2.5 (unit: one patient; delta 1e-05; Poisson-sampled Gaussian; "
        "adjacency: add or remove one unit; scope: this run)"
    )
    assert "one variant" in replace(PLAN, unit="variant").statement(1.0)


def sheet(tmp_path, text):
    path = tmp_path / "sites.csv"
    path.write_text(text)
    return path


def test_a_sites_sheet_is_read(tmp_path):
    path = sheet(tmp_path, "\ufeffsite,declared_patients,weight\nh1,40,1.5\n\n h-2.b ,7,1\n")
    assert read_sites(path) == [Site("h1", 40, 1.5), Site("h-2.b", 7, 1.0)]
    assert find_site(path, "h1").declared_patients == 40
    with pytest.raises(UserError, match=r"sites\.csv: no site 'h3' among h-2\.b, h1\. Add its row\."):
        find_site(path, "h3")


def test_every_bad_row_of_a_sites_sheet_is_named_at_once(tmp_path):
    rows = [
        "h1,40,1", ",40,1", "h2,0,1", "h3,many,1", "h4,4.5,1", "h5,4,0", "h6,4,-1", "h7,4,nan", "h8,4,inf",
        "h9,4", "h1,40,1", "", "../h10,4,1", "h11/x,4,1", "..,4,1", "h12,4,1",
    ]  # fmt: skip
    with pytest.raises(InputProblems) as refusal:
        read_sites(sheet(tmp_path, "\n".join(["site,declared_patients,weight", *rows]) + "\n"))
    named = [problem.where.removeprefix("sites.csv, row ") for problem in refusal.value.problems]
    assert [int(row) for row in named] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16]
    assert "site h1 stands twice. Keep one row." in str(refusal.value)


@pytest.mark.parametrize("text", ["", "site,declared_patients,weight\n", "name,patients\nh1,4\n"])
def test_a_sheet_without_sites_is_refused(tmp_path, text):
    with pytest.raises(InputProblems, match=r"sites\.csv"):
        read_sites(sheet(tmp_path, text))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_other_file_is_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "odd.csv"
    path.write_bytes(b"site,declared_patients,weight\nh1,0,1\n" + content)
    with pytest.raises(InputProblems, match=r"odd\.csv, row 2"):
        read_sites(path)


def test_an_enrolment_comes_back_and_a_broken_one_is_named(tmp_path):
    sites = [Site("h1", 40, 1.0, "-----BEGIN PUBLIC KEY-----\nAAAA\n"), Site("h2", 2, 0.5)]
    write_enrolment(sites, tmp_path / "enrolment.json")
    assert read_enrolment(tmp_path / "enrolment.json") == sites
    for text in ("", "{", "[1]", '[{"name": "h1"}]'):
        (tmp_path / "enrolment.json").write_text(text)
        with pytest.raises(UserError, match=r"enrolment\.json: not an enrolment"):
            read_enrolment(tmp_path / "enrolment.json")


def test_a_stated_epsilon_is_never_below_what_was_spent():
    assert PLAN.statement(8.0004).startswith("epsilon 8.01 ")
    assert PLAN.statement(7.99999).startswith("epsilon 8 ")
    assert PLAN.statement(math.inf).startswith("epsilon inf ")


DEMO = {
    "model": "mlp", "unit": "patient", "epsilon": 8.0, "delta": 1e-5, "rounds": 10, "local_steps": 10,
    "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0, "max_variants_per_patient": 256,
}  # fmt: skip


def test_a_plan_for_two_sites_of_a_person_has_the_noise_that_keeps_both_within_epsilon():
    one, two = Plan.calibrated(**DEMO), Plan.calibrated(**DEMO, sites_per_patient=2)
    assert two.event.sites == 2
    assert two.noise_multiplier > 1.3 * one.noise_multiplier
    at_each = [replace(two.event, sites=1)] * two.rounds
    assert 7.92 <= epsilon_rdp(at_each + at_each, 1e-5) <= 8.0
    # What an attack on one site may find is less.
    assert two.epsilon_at_site == epsilon_rdp(at_each, 1e-5) == pytest.approx(5.36, abs=0.01)
    assert one.epsilon_at_site == 8.0
    assert replace(two, epsilon=4.0).epsilon_at_site == 4.0


def test_a_person_has_no_more_steps_at_all_sites_than_can_be_accounted():
    assert replace(PLAN, rounds=10_000, local_steps=50, sites_per_patient=2).event.sites == 2
    with pytest.raises(UserError, match="local_steps 51"):
        replace(PLAN, rounds=10_000, local_steps=51, sites_per_patient=2)
