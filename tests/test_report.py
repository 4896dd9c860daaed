"""The report says what the JSON says, explains every epsilon, and needs no network."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from report_lab import (
    BESIDE,
    GUARANTEE,
    LEDGER,
    OVER,
    STRATA,
    TRACE,
    VERSIONS,
    Page,
    callset,
    certificate,
    evaluation,
    federation,
    page,
    score,
    spent,
    write,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(
        tmp_path_factory.mktemp("report"),
        federation=federation(),
        evaluation=evaluation(),
        callset=callset(),
        trace=TRACE,
        versions=VERSIONS,
        ledger=LEDGER,
    )


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


def test_epsilon_by_site_and_round_is_that_of_the_federation(whole: Page) -> None:
    sites = whole.table("ε spent by each site")
    assert sites["north"] == ["finished", "3.38", "3.12", "84 %", "40", "0.25"]
    assert sites["rogue"][:4] == ["quarantined", "9.50", "9.25", "238 %"]
    rounds = whole.table("ε spent so far after each round")
    assert rounds["late"] == ["2.121.88", "missing"]
    assert rounds["rogue"] == ["9.509.25quarantined", "–"]
    exact = {attrs["value"] for attrs in whole.values("epsilon")}
    assert {"2.125", "1.875", "3.375", "3.125", "9.5", "9.25", "4.0"} == exact


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


def test_a_spend_without_bound_is_infinite_and_drawn_nowhere(tmp_path: Path) -> None:
    endless = federation()
    for row in (endless["rounds"][0]["sites"][3], endless["sites"][3]):
        row["epsilon_rdp"], row["epsilon_pld"] = float("inf"), None
    written = page(tmp_path, federation=endless)
    assert written.table("ε spent by each site")["rogue"][:4] == ["quarantined", "∞", "–", "∞ %"]


def test_a_site_that_stopped_by_itself_is_told_once(tmp_path: Path) -> None:
    reason = "its own budget allows no further round"
    stopped = federation()
    stopped["rounds"][1]["sites"][2]["reason"] = reason
    stopped["sites"][2] |= {"status": "stopped", "reason": reason}
    written = page(tmp_path, federation=stopped)
    decisions = written.table("Updates that were not taken")
    assert decisions["late"] == ["missing", "2", reason]
    assert "late stopped early: its own budget allows no further round." in written.text


def test_decisions_are_told_with_rounds_and_reasons(whole: Page) -> None:
    decisions = whole.table("Updates that were not taken")
    assert decisions["rogue"] == ["quarantined", "1", OVER]
    assert decisions["late"] == ["missing", "2", "no update before the deadline"]
    assert "5 rows" in re.sub(r"\s+", " ", whole.text)
    assert "bb78" in whole.text


def test_scores_and_filters_are_those_of_the_evaluation(whole: Page) -> None:
    scores = whole.table("Scores")
    assert list(scores)[1:] == ["Cordon", "north alone", "HaplotypeCaller QUAL"]
    assert scores["Cordon"] == ["0.961", "0.961"]
    filters = whole.table("Filters")
    assert filters["HaplotypeCaller its own filter"] == ["1,711", "39", "0.925", "0.978", "0.951"]
    assert filters["Cordon PASS"] == ["1,722", "39", "0.925", "0.978", "0.951"]
    exact = {attrs["value"] for attrs in whole.values("")}
    assert {"0.961234", "0.783456", "0.901777", "0.924865", "0.977714"} <= exact


def specs(written: Page) -> dict[str, Any]:
    """The figures' specifications by name."""
    found = re.findall(r'<script type="application/json" id="spec-(\w+)">(.*?)</script>', written.html, re.S)
    return {name: json.loads(content) for name, content in found}


def test_the_figures_hold_the_numbers_of_the_json(whole: Page) -> None:
    drawn = specs(whole)
    assert set(drawn) == {
        "epsilon", "norms", "floors", "roc", "pr", "sensitivity", "reliability", "overlap", "ratios",
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


def test_truth_sensitivity_is_drawn_over_all_truth_against_the_number_of_false_calls(whole: Page) -> None:
    drawn = specs(whole)["sensitivity"]
    curve = [(row["x"], row["y"]) for row in drawn["layer"][0]["data"]["values"] if row["score"] == "Cordon"]
    assert curve == [(45.0, pytest.approx(0.9 * 1801 / 1850)), (450, pytest.approx(1801 / 1850))]
    points = drawn["layer"][1]["data"]["values"]
    assert (points[0]["x"], points[0]["y"]) == (39, pytest.approx(1711 / 1850))
    assert "No filter can find the 49 truth alleles that no caller proposed." in whole.text


def test_calibration_is_drawn_as_it_was_measured(whole: Page) -> None:
    marks = specs(whole)["reliability"]["layer"][2]["data"]["values"]
    assert [(row["stated"], row["real"], row["alleles"]) for row in marks] == [
        (0.25, 0.2, 450), (0.95, 0.975, 1801),
    ]  # fmt: skip
    assert "Mean distance 0.030 (expected calibration error), Brier score 0.042" in whole.text


def test_updates_are_drawn_beside_their_ceiling_and_their_floor(whole: Page) -> None:
    drawn = specs(whole)
    norms, ceilings = (layer["data"]["values"] for layer in drawn["norms"]["layer"])
    assert [row["norm"] for row in norms] == [1.25] * 6
    assert [(row["site"], row["round"], row["ceiling"]) for row in ceilings] == [
        ("north", 1, 5.0), ("south", 1, 5.0), ("late", 1, 5.0), ("north", 2, 5.0), ("south", 2, 5.0),
    ]  # fmt: skip
    floors = drawn["floors"]["layer"][0]["data"]["values"]
    assert [(row["small"], row["most"], row["share"]) for row in floors] == [(30, 40, 0.75)] * 5
    label = next(attrs["aria-label"] for _, attrs in whole.elements if attrs.get("data-figure") == "norms")
    assert "The longest is 25% of its ceiling." in label


def test_events_are_those_of_the_ledger(whole: Page) -> None:
    events = whole.table("Events that the ledger holds")
    assert events["north"] == ["Poisson-sampled Gaussian", "1.375", "0.500", "10", "2"]
    assert events["south"] == ["Poisson-sampled Gaussian", "1.375", "0.500", "10", "1"]
    assert "late" not in events


def test_calls_are_shown_before_and_after_without_truth(whole: Page) -> None:
    agreement = whole.table("Agreement")
    assert agreement["bcftools alone"] == ["403", "13", "0.032"]
    assert agreement["bcftools + HaplotypeCaller"] == ["2,500", "2,401", "0.960"]
    left = whole.table("What each filter leaves")
    assert left["no filter"] == ["2,903", "1.81", "1.38", "2,900", "1", "2", "0", "2", "1", "0", "0"]
    assert left["Cordon PASS"][:4] == ["2,414", "2.06", "1.38", "2,411"]
    ratios = specs(whole)["ratios"]["data"]["values"]
    assert {(row["filter"], row["ratio"], row["value"]) for row in ratios} == {
        ("no filter", "Ti/Tv", 1.8125), ("no filter", "het/hom", 1.375),
        ("Cordon PASS", "Ti/Tv", 2.0625), ("Cordon PASS", "het/hom", 1.375),
    }  # fmt: skip
    bars = specs(whole)["overlap"]["data"]["values"]
    assert sum(row["alleles"] for row in bars) == callset()["alleles"]


def test_resources_are_summed_by_process_and_name_no_sample(whole: Page) -> None:
    taken = whole.table("Resources")
    assert list(taken)[1:] == ["TRAIN_SITE", "NORMALISE_READS"]
    assert taken["NORMALISE_READS"] == ["2", "1", "4.0", "2.5", "1.0", "97"]
    assert taken["TRAIN_SITE"] == ["1", "0", "60.0", "60.0", "0.0", "0"]
    assert "north-secret" not in whole.html


def test_who_took_part_is_told_by_site(whole: Page) -> None:
    sites = whole.table("Sites: in which rounds")
    assert sites["north"] == ["finished", "1–2", "–", "–", "40", "0.25", "2,468"]
    assert sites["late"] == ["missing", "1", "2", "–", "40", "0.25", "1,234"]
    assert sites["rogue"] == ["quarantined", "–", "–", "1", "40", "0.25", "1,234"]
    assert "the aggregator received 7,404 bytes" in re.sub(r"\s+", " ", whole.text)


def test_the_summary_tells_in_plain_words_what_happened(whole: Page, certified: Page) -> None:
    assert "A model was trained, of kind mlp, on patients of four sites." in whole.text
    assert "Updates were quarantined of rogue; none of it is in the model." in whole.text
    assert "The model was not audited, so it has no certificate." in whole.text
    assert "area under the ROC curve 0.783 with HaplotypeCaller QUAL, 0.961 with Cordon." in whole.text
    assert "The model was attacked before it left, and passed two checks." in certified.text


def test_groups_of_alleles_are_shown_by_kind_with_those_of_rare_alleles_first(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation={**evaluation(), "strata": STRATA})
    table = written.table("AUROC by group of alleles")
    assert list(table)[1:] == [
        "Allele frequency in the resource", "0.01–0.1 %",
        "Zygosity, where no allele frequency is known", "heterozygous",
        "Type", "SNV", "Sequence around it", "GC-rich", "Site", "north-0",
    ]  # fmt: skip
    assert table["0.01–0.1 %"] == ["100", "50", "0.875", "0.700", "0.875"]
    assert table["north-0"] == ["100", "50", "–", "–", "–"]
    assert written.table("Filters by group of alleles")["GC-rich"] == ["0.7500.500"] * 2
    assert "zygosity stands in for it" in written.text
    assert all("scope" in attrs for tag, attrs in written.elements if tag == "th")


def test_small_groups_and_groups_without_an_auroc_are_not_drawn(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation={**evaluation(), "strata": STRATA})
    marks = specs(written)["strata"]["layer"][1]["data"]["values"]
    assert [(row["group"], row["auroc"]) for row in marks if row["score"] == "Cordon"] == [
        ("Frequency: 0.01–0.1 %", 0.875),
        ("Zygosity: heterozygous", 0.75),
        ("Type: SNV", 0.97),
    ]
    label = next(attrs["aria-label"] for _, attrs in written.elements if attrs.get("data-figure") == "strata")
    assert "in 3 groups; Cordon's is higher in 2" in label


def test_labels_that_come_of_known_sites_are_said_to(tmp_path: Path) -> None:
    said = "not of a truth set"
    assert said in page(tmp_path, evaluation={**evaluation(), "truth_source": "known sites"}).text
    assert said not in page(tmp_path, evaluation=evaluation()).text


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
    assert len(figures) == 9
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in figures)
    assert len(re.findall(r'<div class="still" aria-hidden="true"><svg viewBox', whole.html)) == 9


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


def test_without_held_out_truth_the_page_says_so(tmp_path: Path) -> None:
    written = page(tmp_path, federation=federation())
    assert "No held-out sample has a truth set, so accuracy was not measured." in written.text
    assert "Software versions were not recorded." in written.text


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


def test_one_class_only_leaves_out_the_curves_and_says_why(tmp_path: Path) -> None:
    one = {**evaluation(), "scores": [score("cordon", None)], "alleles": {"true": 5, "false": 0, "truth": 5}}
    written = page(tmp_path, evaluation=one)
    assert "alleles of one class only, so no ROC curve can be drawn" in written.text
    assert written.table("Scores")["Cordon"] == ["–", "–"]


def test_a_worse_model_is_called_worse(tmp_path: Path) -> None:
    bad = {**evaluation(), "scores": [score("cordon", 0.7), score("haplotypecaller QUAL", 0.8)]}
    assert "worse than HaplotypeCaller QUAL does" in page(tmp_path, evaluation=bad).text


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"federation": {**federation(), "plan": {}}}, "federation: lacks 'unit'"),
        ({"federation": "{"}, "federation: not JSON"),
        ({"evaluation": {"samples": []}}, "evaluation: lacks alleles, scores, filters"),
        ({"versions": "tool: 1\n"}, "versions, line 1: not `PROCESS:` or an indented `tool: version`"),
        ({"ledger": '{"hash": "a"}\n{"ha'}, "ledger, row 2: not a ledger row"),
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


@pytest.mark.parametrize(
    ("decision", "released"), [("refine", "the refined model"), ("keep", "the public start")]
)
def test_a_public_start_is_compared_with_what_came_of_it(
    tmp_path: Path, decision: str, released: str
) -> None:
    start = {"rows": 1234, "pretrained_auroc": 0.9512, "refined_auroc": 0.9498, "decision": decision}
    written = page(tmp_path, federation={**federation(), "start": start})
    assert (
        "AUROC on 1,234 held-out public alleles: 0.9512 at the start, 0.9498 after training" in written.text
    )
    assert f"Released: {released}." in written.text
    assert "public start" not in page(tmp_path, federation=federation()).text


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("certified"), federation=federation(), certificate=certificate())


def test_the_audit_is_told_check_by_check_with_what_the_certificate_says(certified: Page) -> None:
    assert certified.table("What the audit asked")["membership"] == ["Who?", "passed", "AUC <0.6>"]
    told = certified.table("How well attackers told")["lira online"]
    assert told == [
        "updates", "0.512 (0.401 to 0.623)", "too few others", "0.512 (0.401 to 0.623)",
    ]  # fmt: skip
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
    assert written.table("What the audit asked")["claims"] == ["Borne out?", "passed", "yes"]
    assert {attrs["value"] for attrs in written.values("epsilon")} == {"3.375"}


def test_a_site_whose_aggregator_is_elsewhere_tells_what_its_own_ledger_holds(tmp_path: Path) -> None:
    written = page(tmp_path, spent=spent("north"), certificate=certificate(), evaluation=evaluation())
    assert (
        "north trained one model with other sites; it tells real alleles from false ones better"
        in written.text
    )
    assert "on patients of one site here and of others elsewhere" in written.text
    assert written.table("Sites' own ledgers")["north"] == ["3.88", "4.00"]
    assert written.table("Training plan")["noise_multiplier"] == ["1.3"]
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
