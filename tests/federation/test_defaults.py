"""What a plan is set to where nobody says, and that it drowns no public start."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import ROOT
from cordon.auditing.replay import replay
from cordon.federation.defaults import (
    LARGEST_RATE,
    MOVE_FROM_NOTHING,
    MOVE_FROM_START,
    defaults,
    moved_by_noise,
    reasons,
    warning,
    with_learning_rate,
)
from cordon.federation.plan import Plan, Site
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.events import LAPLACE
from cordon.training.pretrain import KEEP, PublicStart, chosen, read_public, refine_or_keep
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, matrix, read_table

SITES = [Site("north", 6, 1.0), Site("south", 12, 2.0), Site("west", 6, 1.0)]


def plan_of(epsilon, *, unit="patient", start="", **given):
    settings = defaults(unit, start=bool(start)) | {
        "model": "mlp", "unit": unit, "epsilon": epsilon, "delta": 1e-5, "sampling_rate": 0.5,
        "learning_rate": 1.0, "max_variants_per_patient": 256, "start": start,
    }  # fmt: skip
    return Plan.calibrated(**settings | given)


def test_what_is_not_said_follows_from_start_and_unit():
    assert defaults("patient", start=True) == {
        "rounds": 5, "local_steps": 20, "clip_norm": 0.05, "averaged_rounds": 3,
    }  # fmt: skip
    assert defaults("variant", start=False) == {
        "rounds": 20, "local_steps": 20, "clip_norm": 2.0, "averaged_rounds": 10,
    }  # fmt: skip
    assert defaults("patient", start=True, rounds=2)["averaged_rounds"] == 1


@pytest.mark.stress
@pytest.mark.parametrize("given", [{}, {"mechanism": LAPLACE}, {"momentum": 0.5}])
def test_weights_that_see_no_data_move_by_what_is_said(given):
    """Features are 0, so that the gradient of their weights is, and noise alone moves them."""
    plan = plan_of(
        3.0, model="logistic", learning_rate=0.1, averaged_rounds=1, local_steps=10, rounds=2, **given
    )
    units = {
        site.name: Units.group(
            np.zeros((site.declared_patients, len(FEATURES)), np.float32),
            np.ones(site.declared_patients, np.float32),
            [f"p{n}" for n in range(site.declared_patients)], unit="patient",
        )
        for site in SITES
    }  # fmt: skip
    declared = {site.name: site.declared_patients for site in SITES}
    start = initial_parameters("logistic", len(FEATURES))
    weights = {site.name: site.weight for site in SITES}
    moved = [
        replay(plan, units, declared, start, weights=weights).model["0.weight"] - start["0.weight"]
        for _ in range(30)
    ]
    expected = moved_by_noise(plan, SITES)
    if given.get("momentum"):  # which has not come to speed in so few steps
        assert 0.6 * expected < np.std(moved) < expected
    else:
        assert np.std(moved) == pytest.approx(expected, rel=0.1)


@pytest.mark.stress
@pytest.mark.parametrize(("start", "move"), [("0" * 64, MOVE_FROM_START), ("", MOVE_FROM_NOTHING)])
def test_the_learning_rate_is_what_the_noise_allows(start, move):
    for epsilon in (0.5, 1.0, 3.0, 8.0):
        plan = with_learning_rate(plan_of(epsilon, start=start), SITES)
        assert moved_by_noise(plan, SITES) == pytest.approx(move)
        assert f"learning rate {plan.learning_rate:.3g}, by which the noise" in reasons(plan, SITES)
    many = [replace(site, declared_patients=1000) for site in SITES]
    assert with_learning_rate(plan_of(8.0, start=start), many).learning_rate == LARGEST_RATE


def test_a_rate_that_would_drown_the_start_is_told_with_a_gentle_one():
    plan = plan_of(1.0, start="0" * 64, learning_rate=2.0)
    told = warning(plan, SITES)
    assert told.startswith(
        "warning: with learning rate 2 the noise of all rounds moves a weight by 2.9, which"
    )
    gentle = with_learning_rate(plan, SITES)
    assert f"(it is {gentle.learning_rate:.2g} then)" in told
    assert warning(gentle, SITES) == warning(replace(plan, start=""), SITES) == ""


@pytest.fixture(scope="module")
def public():
    """The shipped start, three sites of six patients that it has not seen, and other alleles to judge by."""
    shipped = ROOT / "assets" / "public"
    start = read_public(shipped / "mlp.safetensors")
    table = read_table(shipped / "held_out.parquet", LABELLED)
    order = np.random.default_rng(1).permutation(table.num_rows)
    rows, labels = matrix(table)[order], table["label"].to_numpy()[order].astype(np.float32)
    half = 3000
    names = np.arange(half) % 18
    sites = {
        str(site): Units.group(
            rows[:half][names % 3 == site], labels[:half][names % 3 == site],
            [f"p{name}" for name in names[names % 3 == site]], unit="patient",
        )
        for site in range(3)
    }  # fmt: skip
    return start, sites, (rows[half:], labels[half:])


def test_the_shipped_start_is_public_and_good_on_alleles_that_it_has_not_seen(public):
    start, _, (rows, labels) = public
    assert start.privacy == {"data": "public"}
    compared = refine_or_keep(start, start, rows, labels)
    assert compared.pretrained_auroc > 0.98
    blank = Model("mlp", FEATURES, initial_parameters("mlp", len(FEATURES)))
    assert refine_or_keep(start, blank, rows, labels).decision == KEEP


@pytest.mark.statistical
def test_no_default_refines_a_good_start_into_a_worse_model_in_twenty_trainings(public):
    start, sites, held_out = public
    six = [Site(name, 6, 1.0) for name in sites]

    def trained(plan):
        parameters = replay(plan, sites, dict.fromkeys(sites, 6), start.parameters).model
        refined = Model("mlp", FEATURES, parameters)
        return refined, refine_or_keep(start, refined, *held_out)

    plan = with_learning_rate(plan_of(1.0, start=start.hash), six)
    found = [trained(plan)[1] for _ in range(20)]
    lost = [one.pretrained_auroc - one.refined_auroc for one in found]
    assert max(lost) < 0.01
    assert np.median(lost) < 0.003
    # What noise has drowned is not released, and that is told.
    refined, compared = trained(replace(plan, learning_rate=2.0))
    assert compared.refined_auroc < 0.95
    said = []
    released, record = chosen(PublicStart(start, held_out), refined, said.append)
    assert released.hash == start.hash
    assert record["decision"] == KEEP
    assert "now: keep" in said[0]
