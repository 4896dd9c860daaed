"""The tab of variants: scores, filters, groups of alleles, and calls without truth, as the JSON has them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cordon.reads.duplicates import Duplicates
from cordon.scoring.calibration import Curve, for_both
from report_lab import (
    STRATA,
    Page,
    callset,
    evaluation,
    everything,
    federation,
    page,
    score,
    specs,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Page:
    return everything()


def test_scores_and_filters_are_those_of_the_evaluation(whole: Page) -> None:
    scores = whole.table("Scores")
    assert list(scores)[1:] == ["Cordon", "HaplotypeCaller QUAL", "HaplotypeCaller QD"]
    assert scores["Cordon"] == ["0.961", "0.961"]
    filters = whole.table("Filters")
    assert filters["HaplotypeCaller its own filter"] == ["1,711", "39", "0.925", "0.978", "0.951"]
    assert filters["Cordon PASS"] == ["1,722", "39", "0.925", "0.978", "0.951"]
    exact = {attrs["value"] for attrs in whole.values("")}
    assert {"0.961234", "0.783456", "0.701777", "0.924865", "0.977714"} <= exact


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


def test_groups_of_alleles_are_shown_by_kind_with_those_of_rare_alleles_first(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation={**evaluation(), "strata": STRATA})
    table = written.table("AUROC by group of alleles")
    assert list(table)[1:] == [
        "Allele frequency in the resource", "0.01–0.1 %",
        "Zygosity, where no allele frequency is known", "heterozygous",
        "Type", "SNV", "Sequence around it", "GC-rich", "Site", "north-0",
    ]  # fmt: skip
    assert table["0.01–0.1 %"] == ["100", "50", "0.875", "0.700", "0.450"]
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


def test_without_held_out_truth_the_page_says_so(tmp_path: Path) -> None:
    written = page(tmp_path, federation=federation())
    assert "No held-out sample has a truth set, so accuracy was not measured." in written.text
    assert "Software versions were not recorded." in written.text


def test_one_class_only_leaves_out_the_curves_and_says_why(tmp_path: Path) -> None:
    one = {**evaluation(), "scores": [score("cordon", None)], "alleles": {"true": 5, "false": 0, "truth": 5}}
    written = page(tmp_path, evaluation=one)
    assert "alleles of one class only, so no ROC curve can be drawn" in written.text
    assert written.table("Scores")["Cordon"] == ["–", "–"]


def test_a_worse_model_is_called_worse(tmp_path: Path) -> None:
    bad = {**evaluation(), "scores": [score("cordon", 0.7), score("haplotypecaller QUAL", 0.8)]}
    told = "worse than HaplotypeCaller QUAL does. Do not use this filter here: sort by HaplotypeCaller QUAL."
    assert told in page(tmp_path, evaluation=bad).text
    assert "Do not use" not in page(tmp_path, evaluation=evaluation()).text


def calibration(**changes: Any) -> dict[str, Any]:
    """A site's calibration as calibrate_scores writes it."""
    cost = {
        "unit": "patient", "epsilon": 0.5, "delta": 1e-5, "mechanism": "Poisson-sampled Gaussian",
        "adjacency": "add or remove one unit", "accountant": "PLD", "sites_per_patient": 2,
        "spent_by_site": 4.125, "spent_mechanism": "Poisson-sampled Gaussian and Poisson-sampled Laplace",
    }  # fmt: skip
    whole = for_both(Curve.line(0.75, 0.125), {"0.99": -1.5}, "private", "north", margin=0.0123, cost=cost)
    return asdict(whole) | changes


SCORED = {"truth_sensitivity": 0.99, "epsilon": 8}
STATED = "unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove one unit"
BY_PLD = "by PLD, of a person at up to 2 sites"


def test_exact_calibrations_are_told_to_be_not_private(tmp_path: Path) -> None:
    exact = calibration(mode="site", cost={}, margin=None)
    told = page(tmp_path, parameters=SCORED, calibration=exact)
    row = told.table("Calibration of each site")["north"]
    assert row[0] == "exact figures of site north's labelled samples, not private"
    assert row[1:3] == ["a 0.75, b 0.75, c 0.125"] * 2
    assert row[4] == "–"
    assert row[3].startswith(
        "-1.5, the threshold that keeps 0.99 of the real alleles, among those of site nor"
    )
    assert "The scored VCFs hold exact figures of north's labelled samples" in " ".join(told.text.split())
    assert "so it spent no privacy" in told.text


def test_private_calibrations_are_told_with_cost_noise_and_what_the_ledger_holds(tmp_path: Path) -> None:
    told = page(tmp_path, parameters=SCORED, calibration=calibration())
    row = told.table("Calibration of each site")["north"]
    alone = f"epsilon 0.5 ({STATED}; scope: this calibration), {BY_PLD}"
    assert row[0] == f"private figures of site north's labelled samples, at {alone}"
    assert "keeps 0.99 of the real alleles, give or take 0.012 by its noise" in row[3]
    both = STATED.replace("Gaussian", "Gaussian and Poisson-sampled Laplace")
    assert told.table("Private calibrations")["north"] == [
        alone, f"epsilon 4.13 ({both}; scope: all runs in the ledger), {BY_PLD.replace('PLD', 'RDP')}",
    ]  # fmt: skip
    assert "so it spent no privacy" not in told.text
    assert "so no site spent any privacy" not in told.text


def test_scores_without_calibration_promise_no_share(tmp_path: Path) -> None:
    none = calibration(mode="none", cost={}, margin=None)
    told = page(tmp_path, parameters=SCORED, calibration=none)
    row = told.table("Calibration of each site")["north"]
    assert row[0] == "none (the model's own scores)"
    assert "promises no share of the real alleles" in row[3]
    assert "Scores are the model's own for north" in " ".join(told.text.split())


def test_duplicates_stand_by_sample_with_a_warning_where_most_reads_are(tmp_path: Path) -> None:
    found = Duplicates("marked", 120, 118)
    told = {"sample": "s1", **asdict(found), "duplicate_rate": found.share, "warning": found.warning}
    shown = page(tmp_path, duplicates=told)
    assert shown.table("Duplicates of each sample")["s1"] == ["marked", "120", "118", "98.3 %"]
    assert "118 of 120 mapped reads (98%) are duplicates" in shown.text
