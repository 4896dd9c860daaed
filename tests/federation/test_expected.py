"""What the planning step says that a plan may expect: measured figures, and between them."""

import json
import re
from dataclasses import replace

import pytest

from conftest import ROOT
from cordon.federation.defaults import defaults
from cordon.federation.expected import expected, told
from cordon.federation.plan import Plan, Site

MEASURED = json.loads((ROOT / "src" / "cordon" / "federation" / "patients.json").read_text())


@pytest.mark.parametrize("row", MEASURED["medians_and_ranges"])
def test_what_was_measured_is_what_is_expected(row):
    found = expected(row["start"], row["epsilon"], row["patients"])
    assert found.patients == row["patients"]
    assert list(found.auroc) == pytest.approx(row["auroc"])
    assert list(found.removed) == pytest.approx(row["removed"])


@pytest.mark.parametrize("row", MEASURED["medians_and_ranges"])
def test_the_documentation_has_the_same_figures(row):
    text = (ROOT / "docs" / "utility.md").read_text().partition("## How many patients?")[2]
    (line,) = re.findall(rf"^\| {row['patients']} \|.*$", text.partition("\n## ")[0], re.MULTILINE)
    place = (0 if row["start"] else 3) + [1, 3, 8].index(row["epsilon"])
    cell = line.split("|")[2:][place].strip()
    assert cell == f"{row['auroc'][0]:.3f}, {100 * row['removed'][0]:.0f} %"


def test_between_and_beyond_what_was_measured():
    less, between, more = (expected(False, epsilon, 12).auroc[0] for epsilon in (1, 2, 3))
    assert less < between < more
    assert expected(False, 3, 8).auroc < expected(False, 3, 12).auroc < expected(False, 3, 16).auroc
    # Nobody measured two patients, or ten thousand: what is told is of how many it is.
    assert expected(False, 3, 2) == expected(False, 3, 4)
    assert expected(False, 3, 10_000) == expected(False, 3, 120)
    assert expected(False, 8, 10_000).patients == 30
    assert expected(False, 0.1, 16) == expected(False, 1, 16)


def test_a_plan_is_told_what_it_may_expect_and_what_more_patients_bring():
    given = defaults("patient", start=False) | {
        "model": "mlp", "unit": "patient", "epsilon": 3.0, "delta": 1e-5, "sampling_rate": 0.5,
        "learning_rate": 1.0, "max_variants_per_patient": 256,
    }  # fmt: skip
    plan = Plan.calibrated(**given)
    said = told(plan, [Site("north", 8, 1.0), Site("south", 8, 1.0), Site("west", 60, 1.0)])
    assert "train from nothing" in said
    assert "AUROC 0.957 (0.936 to 0.959) and 45 % (39 to 55 %) of the false alleles removed with 8 " in said
    assert "0.975 with 16, 0.98" in said
    assert "bcftools QD) has 0.970 and 49 %" in said
    many = told(plan, [Site("north", 500, 1.0)])
    assert "0.990 (0.988 to 0.991)" in many
    assert many.count(" with ") == 1
    assert "a public start that fits" in told(replace(plan, start="a" * 64), [Site("north", 8, 1.0)])
    assert told(replace(plan, unit="variant"), [Site("north", 8, 1.0)]) == ""
