"""Tests of cordon.federation.plan."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon.accountants import Event, epsilon_rdp
from cordon.errors import InputProblems, UserError
from cordon.federation.plan import Plan, Site, find_site, read_enrolment, read_sites, write_enrolment

PLAN = Plan(
    run="r", model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=10, local_steps=2,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=256,
)  # fmt: skip


def test_a_plan_comes_back_from_its_dictionary_and_from_json():
    assert Plan.from_dict(PLAN.to_dict()) == PLAN
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


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
     ("max_variants_per_patient", 0), ("max_variants_per_patient", 10**9)],
)  # fmt: skip
def test_a_site_refuses_a_plan_that_no_honest_aggregator_sends(name, value):
    with pytest.raises(UserError):
        Plan.from_dict(PLAN.to_dict() | {name: value})


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


def test_a_delta_of_one_over_the_units_or_more_is_refused():
    replace(PLAN, delta=1e-5).check_delta("h1", 99_999)
    for patients in (100_000, 200_000):
        with pytest.raises(UserError, match="site h1: delta 1e-05 is not below one over its"):
            replace(PLAN, delta=1e-5).check_delta("h1", patients)


def test_by_variant_the_units_are_the_variants_that_patients_may_bring():
    plan = replace(PLAN, unit="variant")
    assert plan.declared_units(10) == 2560
    plan.check_delta("h1", 390)
    with pytest.raises(UserError, match="100096 declared units"):
        plan.check_delta("h1", 391)


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
        "adjacency: add or remove one unit)"
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
