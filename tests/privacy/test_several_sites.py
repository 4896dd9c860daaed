"""Tests of cordon.privacy.several_sites."""

import json

import pytest

from certificate_lab import PLAN, SITES, Lab
from conftest import ROOT
from cordon.auditing.reviewer_questions import answers
from cordon.ledger.site import SiteLedger
from cordon.ledger.spending import accounts
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import GAUSSIAN, Event, at_sites
from cordon.privacy.grouping import Grouping
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.noise_calibration import calibrate_noise
from cordon.privacy.several_sites import at_more_sites, told

ABOUT = Guarantee("patient", 1e-5, GAUSSIAN)


@pytest.fixture(scope="module")
def demos():
    """The events of the demo's plan: 8 at one site."""
    noise = calibrate_noise(epsilon=8.0, delta=1e-5, sampling_rate=0.5, steps=100)
    return [Event(noise, 0.5, 10)] * 10


def test_what_a_person_comes_to_is_told_with_all_that_must_stand_beside_it(demos):
    found = at_more_sites(demos, ABOUT)
    assert [(item["sites"], round(item["epsilon_rdp"], 1)) for item in found] == [(2, 12.0), (3, 15.6)]
    assert round(found[0]["epsilon_pld"], 2) == 11.15
    assert told(found) == (
        "Counted is a person at one site. Who takes part at more, as one patient at each and in as many "
        "rounds, comes to more: at 2 sites epsilon 12 by RDP and 11.2 by PLD, at 3 sites epsilon 15.6 by RDP "
        "and 14.4 by PLD (unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove "
        "one unit)."
    )


def test_sites_that_are_counted_are_not_told_as_more():
    found = at_more_sites([Event(4.0, 0.5, 10, sites=2)] * 10, ABOUT)
    assert [item["sites"] for item in found] == [3, 4]
    assert told(found).startswith("Counted is a person at up to 2 sites. Who takes part at more")


def test_nothing_is_told_without_events_and_where_no_more_sites_can_be_counted():
    assert at_more_sites([], ABOUT) == []
    assert at_more_sites([Event(1e3, 0.1, 1, sites=100)], ABOUT) == []
    assert told([]) == ""


def test_an_epsilon_that_promises_nothing_is_told_by_rdp_alone():
    found = at_more_sites([Event(0.3, 0.5, 100)], ABOUT)
    assert found[0]["epsilon_rdp"] > 50
    assert found[0]["epsilon_pld"] is None
    assert "PLD" not in told(found)


def test_the_certificate_states_it_from_the_ledgers_events(tmp_path):
    lab = Lab(tmp_path)
    content = json.loads(lab.issue(tmp_path).read_text())
    said = content["guarantee"]
    twice = [PLAN.event] * 6
    assert said["sites_per_patient"] == 1
    assert [item["sites"] for item in said["at_more_sites"]] == [2, 3]
    assert said["at_more_sites"][0]["epsilon_rdp"] == epsilon_rdp(twice, 1e-5)
    assert said["at_more_sites"][0]["epsilon_pld"] == epsilon_pld(twice, 1e-5)
    assert {"unit", "delta", "mechanism", "adjacency"} <= set(said["at_more_sites"][0])
    unit = next(item["answer"] for item in content["questions"] if item["question"].startswith("Unit"))
    assert told(said["at_more_sites"]) in unit


def test_answers_without_figures_say_nothing_of_them(tmp_path):
    guarantee = {"epsilon": 4.0, **Lab(tmp_path).claims().figures, "at_more_sites": []}
    texts = [item["answer"] for item in answers(PLAN, guarantee, SITES, [])]
    assert not any("Counted is" in text or "{" in text for text in texts)


@pytest.mark.stress
def test_a_ledgers_account_has_it_for_people_and_machines(tmp_path, demos):
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8.0, delta=1e-5)
    for number, event in enumerate(demos, start=1):
        ledger.reserve("run", number, event, Grouping("patient", "mlp", 256, 40), accountant="rdp")
    rows = [json.loads(line) for line in (json.dumps(row) for row in ledger._log)]
    (account,) = accounts(rows)
    said = account.to_dict()["at_more_sites"]
    assert [round(item["epsilon_rdp"], 1) for item in said] == [12.0, 15.6]
    assert {"unit", "delta", "mechanism", "adjacency"} <= set(said[0])


def test_the_guides_figures_are_those_of_the_default_plan(demos):
    docs = ROOT / "docs"
    figures = {}
    for sites in (1, 2, 3):
        events = at_sites(demos, sites)
        rdp, pld = f"{epsilon_rdp(events, 1e-5):.1f}", f"{epsilon_pld(events, 1e-5):.2f}"
        assert f"  | {sites} | {rdp} | {pld} |\n" in (docs / "limits.md").read_text()
        figures[sites] = rdp, pld
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"who is a patient at two comes to {figures[2][0]}" in readme
    assert f"at three to {figures[3][0]} (by RDP" in readme
    reviewer = (docs / "privacy_reviewer.md").read_text()
    assert f"{figures[2][0]} by RDP ({figures[2][1]} by PLD)" in reviewer
    assert f"at three {figures[3][0]} (unit: one patient at each of these sites" in reviewer
