"""Rounds, decisions, updates, events and resources in the report, as record, ledger and trace have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from report_lab import (
    LEDGER,
    OVER,
    Page,
    everything,
    federation,
    page,
    specs,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Page:
    return everything()


def test_decisions_are_told_with_rounds_and_reasons(whole: Page) -> None:
    decisions = whole.table("Updates that were not taken")
    assert decisions["rogue"] == ["quarantined", "1", OVER]
    assert decisions["late"] == ["missing", "2", "no update before the deadline"]
    assert "5 rows" in re.sub(r"\s+", " ", whole.text)
    assert "bb78" in whole.text


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
    assert events["north"] == ["Poisson-sampled Gaussian", "1.375", "0.500", "10", "1", "2"]
    assert events["south"] == ["Poisson-sampled Gaussian", "1.375", "0.500", "10", "1", "1"]
    assert "late" not in events


def test_a_round_that_was_asked_and_never_judged_is_among_the_events(tmp_path: Path) -> None:
    event = {"mechanism": "Poisson-sampled Gaussian", "noise_multiplier": 1.375, "sampling_rate": 0.5,
             "steps": 10}  # fmt: skip
    asked = [
        {"kind": "asked", "site": site, "identity": f"of {site}", "run": "r", "round": number, "event": event,
         "hash": "aa"}
        for site, number in (("north", 2), ("north", 3), ("late", 1), ("late", 2))
    ]  # fmt: skip
    written = page(
        tmp_path, federation=federation(), ledger=LEDGER + "".join(f"{json.dumps(r)}\n" for r in asked)
    )
    events = written.table("Events that the ledger holds")
    assert events["north"][-1] == "3"
    assert events["late"][-1] == "1"


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
    assert "Released:" not in page(tmp_path, federation=federation()).text


def test_a_site_that_stopped_by_itself_is_told_once(tmp_path: Path) -> None:
    reason = "its own budget allows no further round"
    stopped = federation()
    stopped["rounds"][1]["sites"][2]["reason"] = reason
    stopped["sites"][2] |= {"status": "stopped", "reason": reason}
    written = page(tmp_path, federation=stopped)
    decisions = written.table("Updates that were not taken")
    assert decisions["late"] == ["missing", "2", reason]
    assert "late stopped early: its own budget allows no further round." in written.text


def test_a_spend_without_bound_is_infinite_and_drawn_nowhere(tmp_path: Path) -> None:
    endless = federation()
    for row in (endless["rounds"][0]["sites"][3], endless["sites"][3]):
        row["epsilon_rdp"], row["epsilon_pld"] = float("inf"), None
    written = page(tmp_path, federation=endless)
    assert written.table("ε spent by each site")["rogue"][:6] == [
        "quarantined", "∞", "–", "4.75", "4.63", "∞ %",
    ]  # fmt: skip
