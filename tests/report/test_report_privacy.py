"""Where a run stands between privacy and accuracy, drawn from figures that docs/utility.md has, too."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

import pytest

from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import GAUSSIAN, LAPLACE, Event
from cordon.privacy.guarantee import ADJACENCY, three_digits
from cordon.report.figures.privacy import benchmark
from report_lab import LEDGER, certificate, evaluation, federation, page, specs, spent

ROOT = Path(__file__).parents[2]


def run(**plan: Any) -> dict[str, Any]:
    found = federation()
    found["plan"] |= plan
    return found


def tabled(way: str) -> dict[float, float]:
    """Epsilon -> AUROC of one way in HaplotypeCaller's table for one variant, as docs/utility.md has it."""
    text = (ROOT / "docs" / "utility.md").read_text(encoding="utf-8")
    table = text.split("### HaplotypeCaller, unit: one variant")[1].split("###")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+)", table, flags=re.MULTILINE)
    return {float(epsilon): float(auroc) for name, epsilon, auroc in rows if name.strip() == way}


@pytest.mark.parametrize(
    ("name", "way"), [("from nothing", "4 sites"), ("from a public start", "4 sites, warm")]
)
def test_the_curves_of_variants_are_those_of_the_documentation(name: str, way: str) -> None:
    (curve,) = [curve for curve in benchmark("variant", 8)["curves"] if curve["name"] == name]
    assert dict(zip(curve["epsilon"], curve["auroc"], strict=True)) == tabled(way)


def test_the_curves_of_patients_are_of_as_many_whole_ones_as_a_site_declared(tmp_path: Path) -> None:
    """tests/federation/test_expected.py holds the figures against the documentation."""
    record = run()
    for site in record["sites"]:
        site["declared_patients"] = 8
    written = page(tmp_path, federation=record, evaluation=evaluation())
    drawn = specs(written)["utility"]
    # What this run cost by itself, and not what all runs did.
    assert drawn["layer"][1]["data"]["values"] == [
        {"epsilon": 1.6875, "shown": "1.69", "auroc": 0.961234, "name": "this run"}
    ]
    points = drawn["layer"][0]["data"]["values"]
    assert [(row["epsilon"], row["auroc"]) for row in points if row["curve"] == "from nothing"] == [
        (1.0, 0.897), (3.0, 0.957), (8.0, 0.976),
    ]  # fmt: skip
    assert "a simulated cohort of 8 patients a site: 3 sites" in written.text


def test_more_patients_than_were_measured_are_drawn_as_the_most_that_were_at_every_epsilon() -> None:
    found = benchmark("patient", 10_000)
    assert found["data"] == "a simulated cohort of 30 patients a site"
    assert [curve["auroc"] for curve in found["curves"]] == [[0.963, 0.983, 0.988], [0.992, 0.993, 0.993]]


def test_without_an_accuracy_of_its_own_only_its_epsilon_is_marked(tmp_path: Path) -> None:
    written = page(tmp_path, federation=run())
    drawn = specs(written)["utility"]["layer"][1]
    assert drawn["data"]["values"][0]["auroc"] is None
    assert [layer["mark"]["type"] for layer in drawn["layer"]] == ["rule", "text"]
    assert "The upright line is this run." in written.text


@pytest.mark.parametrize("plan", [{"delta": 1e-6}, {"mechanism": "Poisson-sampled Laplace"}])
def test_other_guarantees_are_not_compared_with_it(tmp_path: Path, plan: dict[str, Any]) -> None:
    assert "utility" not in specs(page(tmp_path, federation=run(**plan)))


SEVERAL = "as one patient at each and in as many rounds, comes to more: at 2"


def test_what_a_person_at_two_sites_comes_to_is_computed_from_the_ledgers_events(tmp_path: Path) -> None:
    """Of the site that spent the most: two rounds, of the noise 1.375."""
    written = page(tmp_path, federation=run(), ledger=LEDGER)
    event = Event(1.375, 0.5, 10)
    twice = epsilon_rdp([event] * 4, 1e-5)
    told = f"{SEVERAL} sites epsilon {three_digits(twice, ROUND_CEILING)} by RDP"
    assert written.text.count(told) == 2  # in the summary and beside what epsilon means
    assert "by PLD (unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency" in written.text


@pytest.mark.stress
def test_a_certificate_and_a_sites_own_ledger_say_it_where_there_is_no_other(tmp_path: Path) -> None:
    about = {"unit": "patient", "delta": 1e-5, "mechanism": GAUSSIAN, "adjacency": ADJACENCY}
    more = [{"sites": 2, "epsilon_rdp": 5.5, "epsilon_pld": 5.25, **about}]
    own = spent("north") | {"at_more_sites": more}
    assert f"{SEVERAL} sites epsilon 5.5 by RDP and 5.25 by PLD" in page(tmp_path, spent=own).text
    held = certificate()
    held["guarantee"]["at_more_sites"] = more
    assert f"{SEVERAL} sites epsilon 5.5 by RDP" in page(tmp_path, certificate=held).text
    assert "Counted is a person" not in page(tmp_path, certificate=certificate()).text


def other(federation: dict[str, Any]) -> dict[str, Any]:
    """The record of sites that released something by Laplace noise in an earlier run."""
    for outcome in federation["sites"]:
        outcome["mechanism"] = BOTH
    return federation


BOTH = f"{GAUSSIAN} and {LAPLACE}"


def test_figures_of_all_runs_name_their_mechanisms_and_those_of_the_run_the_plans(tmp_path: Path) -> None:
    written = page(tmp_path, federation=other(federation()))
    caption = next(
        table["caption"] for table in written.tables if table["caption"].startswith("ε spent by each site")
    )
    assert f"over all runs: per patient, δ = 10⁻⁵, {BOTH} mechanisms, adjacency: " in caption
    assert f"in this run: per patient, δ = 10⁻⁵, {GAUSSIAN} mechanism, adjacency: " in caption
    shown = {attrs["value"]: attrs["data-mechanism"] for attrs in written.values("epsilon")}
    assert (shown["3.375"], shown["1.6875"]) == (BOTH, GAUSSIAN)


@pytest.mark.stress
def test_an_attackers_table_is_of_the_mechanisms_of_each_scope(tmp_path: Path) -> None:
    ledger = LEDGER + LEDGER.splitlines()[3].replace(GAUSSIAN, LAPLACE).replace('"r"', '"r2"') + "\n"
    written = page(tmp_path, federation=other(federation()), ledger=ledger)
    caption = next(
        table["caption"] for table in written.tables if table["caption"].startswith("What an attacker")
    )
    assert f"this run: per patient, δ = 10⁻⁵, {GAUSSIAN} mechanism, " in caption
    assert f"all runs in the ledger: per patient, δ = 10⁻⁵, {BOTH} mechanisms, " in caption


def test_a_sites_own_figures_are_told_at_the_delta_that_they_were_computed_at(tmp_path: Path) -> None:
    """Its budget's, which may be above the plan's: at that of the plan epsilon is more."""
    written = page(tmp_path, spent=spent("north") | {"delta": 0.01, "mechanism": BOTH})
    caption = next(
        table["caption"] for table in written.tables if table["caption"].startswith("Sites' own ledgers")
    )
    assert f"north, over all runs: per patient, δ = 0.01, {BOTH} mechanisms, adjacency" in caption
    assert f"north, in this run: per patient, δ = 0.01, {GAUSSIAN} mechanism, adjacency" in caption
    shown = {
        attrs["data-delta"] for attrs in written.values("epsilon") if attrs["value"] in ("3.875", "1.875")
    }
    assert shown == {"0.01"}


def test_no_epsilon_of_the_report_is_shown_as_less_than_it_is(tmp_path: Path) -> None:
    record = federation()
    for outcome, epsilon in zip(record["sites"], (8.0049, 0.0049, 1234.5, float("inf")), strict=True):
        outcome |= {"epsilon_rdp": epsilon, "epsilon_pld": epsilon, "status": "finished"}
        outcome |= {"run_epsilon_rdp": 1.00001}
    record["rounds"][0]["sites"][0]["epsilon_rdp"] = 2.1201
    written = page(tmp_path, federation=record, evaluation=evaluation())
    rows = written.table("ε spent by each site")
    assert [row[1] for row in list(rows.values())[1:]] == ["8.01", "0.0049", "1240", "∞"]
    assert [row[3] for row in list(rows.values())[1:]] == ["1.01"] * 4
    drawn = specs(written)
    assert drawn["epsilon"]["layer"][0]["data"]["values"][0]["shown"] == "2.13"
    assert drawn["utility"]["layer"][1]["data"]["values"][0]["shown"] == "1.01"
    assert "This run stands at 1.01 with 0.961" in written.html
