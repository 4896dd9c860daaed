"""The report says what the JSON says, explains every epsilon, and needs no network."""

from __future__ import annotations

import itertools
import math
import re
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

import pytest

from cordon.privacy.events import Event
from cordon.privacy.guarantee import three_digits
from cordon.privacy.tradeoff import percent, risk, tradeoff
from report_lab import (
    BESIDE,
    GUARANTEE,
    Page,
    certificate,
    evaluation,
    everything,
    federation,
    page,
    specs,
    spent,
    write,
)  # fmt: skip

# What the laboratory's plan releases, and what its ledger charges the site that it charges most.
PLANNED = [Event(3.0, 0.5, 10)] * 2
CHARGED = [Event(1.375, 0.5, 10)] * 2


def epsilons(events: list[Event]) -> tuple[str, str]:
    found = risk(events, unit="patient", delta=1e-5)
    return str(found.epsilon_rdp), str(found.epsilon_pld)


@pytest.fixture(scope="module")
def whole() -> Page:
    return everything()


@pytest.mark.stress
def test_the_headline_says_who_trained_and_what_it_brought(whole: Page) -> None:
    assert (
        "Three sites trained one model in two rounds; it tells real alleles from false ones better"
        in whole.text
    )
    assert "went from 0.783 (HaplotypeCaller QUAL) to 0.961 (Cordon)" in re.sub(
        r" (?=\))|(?<=\() ", "", whole.text
    )
    assert "2 of 4 sites finished." in whole.text
    assert (
        "rogue was quarantined: ε = 9.5 after this round is above the budget of 4 (per patient" in whole.text
    )


@pytest.mark.parametrize("simulated", [3, 0])
def test_the_first_screen_says_that_simulated_patients_are_simulated(tmp_path: Path, simulated: int) -> None:
    told = "These patients are simulated."
    own = page(tmp_path, federation=federation(), parameters={"simulate_sites": simulated, "epsilon": 4})
    shared = Page((tmp_path / "shareable.html").read_text())
    for seen in (own, shared):
        assert (told in seen.text) == bool(simulated)
        if simulated:
            assert seen.text.index(told) < seen.text.index("In plain words")


def test_epsilon_by_site_and_round_is_that_of_the_federation(whole: Page) -> None:
    sites = whole.table("ε spent by each site")
    assert sites["north"] == ["finished", "3.38", "3.13", "1.69", "1.57", "84 %", "40", "0.25"]
    assert sites["rogue"][:6] == ["quarantined", "9.5", "9.25", "4.75", "4.63", "238 %"]
    rounds = whole.table("ε spent so far after each round")
    assert rounds["late"] == ["2.131.88", "missing"]
    assert rounds["rogue"] == ["9.59.25quarantined", "–"]
    exact = {attrs["value"] for attrs in whole.values("epsilon")}
    in_run = {"1.0625", "0.9375", "1.6875", "1.5625", "4.75", "4.625"}
    at_stake = {value for found in (PLANNED, CHARGED) for value in epsilons(found)}
    assert {"2.125", "1.875", "3.375", "3.125", "9.5", "9.25", "4.0"} | at_stake | in_run == exact


def test_the_run_and_all_runs_stand_side_by_side_in_terms_that_people_decide_by(whole: Page) -> None:
    table = whole.table("What an attacker can decide about one patient")
    for scope, events in (("this run", PLANNED), ("all runs in the ledger", CHARGED)):
        found = risk(events, unit="patient", delta=1e-5)
        alone = (found.epsilon_rdp, found.epsilon_pld, found.mu)
        single, together = (
            [three_digits(value, ROUND_CEILING) for value in values]
            for values in (alone, (found.groups[2], found.groups[3]))
        )
        assert table[scope] == [*single, percent(found.guess), percent(found.tpr), *together]
        assert 0.5 < found.guess < 0.9 < 1 / (1 + math.exp(-found.epsilon_pld))
    drawn = specs(whole)["tradeoff"]["layer"][1]["data"]["values"]
    curve = tradeoff(PLANNED, 1e-5)
    points = [(row["fpr"], row["tpr"]) for row in drawn if row["scope"] == "this run"]
    assert points == [(round(fpr, 4), round(tpr, 4)) for fpr, tpr in zip(curve.fpr, curve.tpr, strict=True)]
    for said in ("99.9", "factor of"):
        assert said not in whole.text
    assert {attrs["data-size"] for attrs in whole.values("epsilon of-group")} == {"2", "3"}
    for attrs in whole.values("epsilon of-group"):
        assert {key: attrs[f"data-{key}"] for key in GUARANTEE} == {k: str(v) for k, v in GUARANTEE.items()}


def test_a_ledger_that_holds_no_other_run_adds_no_second_scope(tmp_path: Path) -> None:
    assert list(page(tmp_path, federation=federation()).table("What an attacker can decide")) == [
        "Scope", "this run",
    ]  # fmt: skip


def test_every_epsilon_has_its_unit_delta_mechanism_and_adjacency(whole: Page) -> None:
    shown = whole.values("epsilon")
    assert len(shown) > 15
    for attrs in shown:
        assert {key: attrs[f"data-{key}"] for key in GUARANTEE} == {k: str(v) for k, v in GUARANTEE.items()}
    for table in whole.tables:
        cells = " ".join(cell for row in table["rows"] for cell in row)
        if "ε" in cells or "epsilon" in cells:
            assert BESIDE in table["caption"], table["caption"]
    captions = re.findall(r'<p class="note">(Solid: .*?)</p>', whole.html, flags=re.S)
    assert [BESIDE in caption.replace("\xa0", " ") for caption in captions] == [True]


def test_every_epsilon_with_a_number_in_running_text_is_followed_by_what_it_means(whole: Page) -> None:
    text = re.sub(r"<(script|style|table|data)\b.*?</\1>", "#", whole.html, flags=re.S)
    text = " ".join(re.sub(r"<[^>]+>", "", text).replace("&nbsp;", " ").replace("\xa0", " ").split())
    places = [match.end() for match in re.finditer(r"ε = [\d#]", text)]
    assert len(places) >= 3
    for place in places:
        assert BESIDE in text[place : place + 140], text[place : place + 140]


def test_the_figures_hold_the_numbers_of_the_json(whole: Page) -> None:
    drawn = specs(whole)
    assert set(drawn) == {
        "tradeoff", "epsilon", "utility", "norms", "floors", "roc", "pr", "sensitivity", "reliability",
        "overlap", "ratios",
    }  # fmt: skip
    spent = drawn["epsilon"]["layer"][0]["data"]["values"]
    rdp = [(row["sites"], row["round"], row["epsilon"]) for row in spent if row["accountant"] == "RDP"]
    assert ("north, south", 2, 3.375) in rdp
    assert ("late", 1, 2.125) in rdp
    curve = drawn["roc"]["layer"][0]["data"]["values"]
    assert [(row["x"], row["y"]) for row in curve if row["score"] == "Cordon"] == [(0, 0), (0.1, 0.9), (1, 1)]
    points = drawn["roc"]["layer"][1]["data"]["values"]
    assert [(row["name"], row["x"], row["y"]) for row in points] == [
        ("haplotypecaller", 39 / 450, 1711 / 1801),
        ("cordon", 39 / 450, 1722 / 1801),
    ]


def test_the_summary_tells_in_plain_words_what_happened(whole: Page, certified: Page) -> None:
    assert "A model was trained, of kind mlp, on patients of four sites." in whole.text
    assert "Updates were quarantined of rogue; none of it is in the model." in whole.text
    assert "The model was not audited, so it has no certificate." in whole.text
    assert "area under the ROC curve 0.783 with HaplotypeCaller QUAL, 0.961 with Cordon." in whole.text
    assert (
        "The model was attacked before it left, and of the checks one passed and one was not able to refute."
        in certified.text
    )


def test_settings_and_versions_are_listed(whole: Page) -> None:
    assert whole.table("Settings") == {
        "input": ["sheet.csv"],
        "epsilon": ["4"],
        "callers": ["haplotypecaller"],
    }
    assert whole.table("Software")["CORDON:CALL"] == ["gatk4", "4.6.2.0"]


def test_nothing_is_loaded_from_the_network(whole: Page) -> None:
    for tag, attrs in whole.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    assert not any(tag in ("link", "iframe", "object", "embed", "base", "img") for tag, _ in whole.elements)
    assert not re.search(r"url\(\s*['\"]?(?!#)", whole.html.split("</style>")[0])
    assert "@import" not in whole.html.split("</style>")[0]
    policy = next(
        attrs["content"] for tag, attrs in whole.elements if tag == "meta" and "http-equiv" in attrs
    )
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert len(whole.html.encode()) < 5_000_000
    assert whole.html.count("window.vegaEmbed=") == 1


def test_no_sample_is_named_and_names_are_escaped(whole: Page) -> None:
    assert "secret-sample-name" not in whole.html
    assert "run &lt;7&gt;" in whole.html
    assert "run <7>" not in whole.html


def test_headings_tables_and_figures_can_be_read_aloud(whole: Page) -> None:
    levels = [int(tag[1]) for tag, _ in whole.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(table["caption"].strip() for table in whole.tables)
    assert all("scope" in attrs for tag, attrs in whole.elements if tag == "th")
    figures = [attrs for _, attrs in whole.elements if "data-figure" in attrs]
    assert len(figures) == 11
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in figures)
    assert len(re.findall(r'<div class="still" aria-hidden="true"><svg viewBox', whole.html)) == 11


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_contrast_of_at_least_4_5_and_lines_of_at_least_3(whole: Page, scheme: int) -> None:
    colours = dict(
        re.findall(r"--([\w-]+): (#\w{6});", whole.html.split(":root {")[scheme + 1].split("}")[0])
    )

    def contrast(front: str, back: str) -> float:
        dark, light = sorted((luminance(colours[front]), luminance(colours[back])))
        return (light + 0.05) / (dark + 0.05)

    for front in ("ink", "soft", "good", "alarm"):
        for back in ("paper", "card", "wash"):
            assert contrast(front, back) >= 4.5, (front, back)
    assert contrast("alarm", "alarm-wash") >= 4.5
    assert contrast("caution", "caution-wash") >= 4.5
    for line in ("muted-line", *(f"series-{number}" for number in range(1, 7))):
        assert contrast(line, "card") >= 3, line


def test_without_a_federation_the_page_says_so_and_prints_no_epsilon(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation=evaluation())
    assert (
        "A released model tells real alleles from false ones better than HaplotypeCaller QUAL" in written.text
    )
    assert "Nothing was trained in this run" in written.text
    assert written.values("epsilon") == []
    assert written.table("Settings")["epsilon"] == ["not used: nothing was trained in this run"]


def test_parameters_alone_make_a_small_page_without_figures(tmp_path: Path) -> None:
    written = page(tmp_path)
    assert "Candidate alleles were scored with a released model." in written.text
    assert "vegaEmbed=" not in written.html
    assert len(written.html) < 40_000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"federation": {**federation(), "plan": {}}}, "federation: lacks 'unit'"),
        (
            {"federation": {**federation(), "plan": {**GUARANTEE, "epsilon": 4.0, "noise_multiplier": 3.0}}},
            "the plan of the run's record lacks 'sampling_rate'",
        ),
        ({"federation": "{"}, "federation: not JSON"),
        ({"evaluation": {"samples": []}}, "evaluation: lacks alleles, scores, filters"),
        ({"versions": "tool: 1\n"}, "versions, line 1: not `PROCESS:` or an indented `tool: version`"),
        ({"ledger": '{"hash": "a", "kind": "sent"}\n{"ha'}, "ledger, row 2: not a ledger row"),
        ({"callset": {"samples": 1}}, "callset: lacks alleles, callers, filters"),
        ({"trace": "name\tstatus\na\tCOMPLETED\n"}, "trace: not a trace with raw numbers"),
        ({"spent": {"site": "north"}}, "spent: not a SITE.spent.json ('plan')"),
        ({"parameters": []}, "parameters: holds no JSON object"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    tmp_path: Path, inputs: dict[str, Any], message: str
) -> None:
    result, path = write(tmp_path, **inputs)
    assert result.exit_code == 2
    assert message in result.output
    assert not path.exists()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("certified"), federation=federation(), certificate=certificate())


def test_the_audit_is_told_check_by_check_with_what_the_certificate_says(certified: Page) -> None:
    assert certified.table("What the audit asked")["membership"] == [
        "Who?", "not able to refute", "AUC <0.6>", "not even an attack that is always right",
    ]  # fmt: skip
    assert "SEEDED: NOT PRIVATE" in certified.table("Code, software and checks")["north"][0]
    assert "The model had been audited one time before." in certified.text
    told = certified.table("How well attackers told")["lira online"]
    assert told == [
        "updates", "0.512 (0.401 to 0.623)", "too few others", "0.512 (0.401 to 0.623)",
    ]  # fmt: skip
    assert "no attack passes an AUC of 0.857 , nor finds more than 21.09 % at 1 %." in certified.text
    assert "Sites <trust> themselves." in certified.text
    assert "No attack was run" not in certified.text
    assert "cd" * 32 in certified.text


def test_every_epsilon_beside_a_certificate_has_its_words_too(certified: Page) -> None:
    test_every_epsilon_with_a_number_in_running_text_is_followed_by_what_it_means(certified)
    for table in certified.tables:
        cells = " ".join(cell for row in table["rows"] for cell in row)
        if "ε" in cells or "epsilon" in cells:
            assert BESIDE in table["caption"], table["caption"]


def test_a_site_whose_aggregator_is_elsewhere_tells_of_its_certificate_alone(tmp_path: Path) -> None:
    written = page(tmp_path, certificate=certificate())
    assert written.table("What the audit asked")["claims"] == [
        "Borne out?", "passed", "yes", "any smaller epsilon",
    ]  # fmt: skip
    assert {attrs["value"] for attrs in written.values("epsilon")} == {"3.375", *epsilons(PLANNED)}


def test_a_site_whose_aggregator_is_elsewhere_tells_what_its_own_ledger_holds(tmp_path: Path) -> None:
    written = page(tmp_path, spent=spent("north"), certificate=certificate(), evaluation=evaluation())
    assert (
        "north trained one model with other sites; it tells real alleles from false ones better"
        in written.text
    )
    assert "on patients of one site here and of others elsewhere" in written.text
    assert written.table("Sites' own ledgers")["north"] == ["3.88", "3.63", "1.88", "1.75", "4"]
    assert written.table("Training plan")["noise_multiplier"] == ["3.0"]
    assert written.table("Settings")["epsilon"] == ["4"]
    assert "This run sent nothing" not in written.text
    shared = Page((tmp_path / "shareable.html").read_text(encoding="utf-8"))
    assert not any("own ledgers" in table["caption"] for table in shared.tables)


def test_a_run_without_an_audit_says_so(whole: Page) -> None:
    assert "The model was not audited" in whole.text
    assert "No attack was run" in whole.text


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    result, written = write(tmp_path, federation=federation(), certificate={"kind": "other"})
    assert result.exit_code == 2
    assert "no certificate of this version" in result.output
    assert not written.exists()
