"""The report that may leave the site tells nothing that did not leave it before, by the wire's allow-list."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cordon.federation.messages import DECLARATION, UPDATE_KEYS, ReplyStatus
from cordon.privacy.events import Event
from cordon.report.sources import PUBLIC, Federation, SiteRound, Sources
from cordon.variants.strata import KINDS
from report_lab import (
    LEDGER,
    TRACE,
    VERSIONS,
    Page,
    callset,
    certificate,
    evaluation,
    federation,
    write,
)  # fmt: skip

# What the record tells of a site in a round, and where it comes from: the update and the declaration that
# crossed the wire, what the site had registered with, or the plan that the aggregator itself sends.
ORIGIN = {
    "site": "registered", "decision": "aggregator", "reason": "aggregator", "epsilon_rdp": "declaration",
    "epsilon_pld": "declaration", "update_norm": "update", "bytes": "update", "ceiling": "plan",
    "small": "update", "most_small": "plan",
}  # fmt: skip
SECRETS = (
    "/data/hospital/sheet.csv",
    "north-secret",
    "secret-sample-name",
    "NORMALISE_READS",
    "4.6.2.0",
    "-1.441",
)


def given(**changed: Any) -> dict[str, Any]:
    """All that a site's own report is made from."""
    return {
        "federation": federation(), "ledger": LEDGER, "certificate": certificate(), "trace": TRACE,
        "evaluation": evaluation(), "callset": callset(), "versions": VERSIONS,
        "calibration": {
            "curves": {kind: {"a": 1.0, "b": 1.0, "c": 0.0} for kind in KINDS},
            "thresholds": {kind: {"0.99": -1.441} for kind in KINDS}, "mode": "site",
            "site": "north-secret",
        },
        "parameters": {
            "input": "/data/hospital/sheet.csv", "aggregator_evidence": "emulator", "truth_sensitivity": 0.99,
        }, **changed,
    }  # fmt: skip


def both(folder: Path, **inputs: Any) -> tuple[str, str]:
    """The site's own report and the one that may leave it."""
    folder.mkdir()
    result, own = write(folder, **inputs)
    assert result.exit_code == 0, result.output
    return own.read_text(encoding="utf-8"), (folder / "shareable.html").read_text(encoding="utf-8")


def test_it_is_the_same_whatever_the_site_holds(tmp_path: Path) -> None:
    """Every file that is the site's is another: names, counts, scores, times, programs."""
    other = evaluation()
    other["alleles"] = {"true": 7, "false": 9, "truth": 11}
    other["scores"] = other["scores"][:2]
    calls = callset() | {"samples": 99}
    own, shared = both(tmp_path / "one", **given())
    changed, same = both(
        tmp_path / "other",
        **given(
            evaluation=other,
            callset=calls,
            trace=TRACE.replace("1500", "99999"),
            versions='"P":\n    tool: 9.9\n',
            calibration=given()["calibration"] | {"thresholds": {kind: {"0.9": -2.5} for kind in KINDS}},
            parameters={
                "input": "elsewhere.csv",
                "aggregator_evidence": "emulator",
                "epsilon": 1,
                "truth_sensitivity": 0.9,
            },
        ),
    )
    assert own != changed
    assert shared == same
    without = {name: given()[name] for name in ("federation", "ledger", "certificate")}
    public = {"aggregator_evidence": "emulator"}
    assert both(tmp_path / "less", **without, parameters=public)[1] == shared


def test_what_differs_between_records_does_reach_it(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    record = federation()
    record["rounds"][0]["sites"][0]["update_norm"] = 3.75
    assert both(tmp_path / "one", **given())[1] != both(tmp_path / "other", **given(federation=record))[1]


def test_no_secret_is_in_it_and_each_is_in_the_sites_own(tmp_path: Path) -> None:
    own, shared = both(tmp_path / "run", **given())
    for secret in SECRETS:
        assert secret not in shared
    for told in ("/data/hospital/sheet.csv", "NORMALISE_READS", "4.6.2.0", "1801", "0.961234"):
        assert told in own
    for exact in ("1801", "1,801", "0.961234", "0.783456", "2903", "2,903"):
        assert exact not in shared


def test_only_what_the_allow_list_lets_out_is_taken_over() -> None:
    everything = Sources(
        parameters={"aggregator_evidence": "guest", "simulate_sites": 3, "input": "sheet.csv"},
        federation=None,
        evaluation={"a": 1},
        callset={"a": 1},
        versions=(("a", "b", "c"),),
        resources=(),
        certificate={"a": 1},
    )
    shared = everything.to_share()
    kept = {field.name for field in dataclasses.fields(Sources) if getattr(shared, field.name)}
    assert kept == {"parameters", "certificate", "shareable"}
    assert set(shared.parameters) == set(PUBLIC)


def test_the_record_tells_of_a_site_what_came_over_the_wire() -> None:
    """Whoever adds a field to the record says here where it comes from."""
    assert {field.name for field in dataclasses.fields(SiteRound)} == set(ORIGIN)
    assert set(ORIGIN.values()) <= UPDATE_KEYS | {"registered", "aggregator", "plan"}
    assert {field.name for field in dataclasses.fields(Event)} <= DECLARATION[ReplyStatus.TRAINED]
    assert {field.name for field in dataclasses.fields(Federation)} == {
        "run", "plan", "guarantee", "lifetime", "budget", "model_hash", "seconds", "rounds", "sites", "start",
    }  # fmt: skip


def test_it_says_that_it_may_leave_and_what_stays(tmp_path: Path) -> None:
    own, shared = (Page(text) for text in both(tmp_path / "run", **given()))
    assert "May leave the site." in shared.text
    assert "so they stay at the site, in its own report" in shared.text
    assert "How accurate it is was measured on samples that stay at the sites" in shared.text
    assert "Stays at the site." in own.text
    assert own.table("ε spent by each site") == shared.table("ε spent by each site")
    assert own.table("Sites: in which rounds") == shared.table("Sites: in which rounds")
    assert json.dumps(federation()["plan"]["noise_multiplier"]) in shared.text
