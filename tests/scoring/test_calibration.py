"""Tests of cordon.scoring.calibrate."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from conftest import table_row
from cordon.errors import UserError
from cordon.scoring.calibrate import Alleles, calibrate
from cordon.scoring.calibration import SENSITIVITIES, Curve, read_calibration, write_calibration
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED
from scoring_lab import snvs


class Fake:
    """A model that scores by its first feature."""

    architecture = "mlp"
    hash = "abc123"
    features = FEATURES
    privacy = {}  # noqa: RUF012

    def score(self, features):
        return features[:, 0].astype(np.float64)


def drawn(slope, intercept, rows=4000, seed=3):
    """Scores and labels whose log-odds are slope * score + intercept."""
    source = np.random.default_rng(seed)
    scores = source.normal(0, 2, rows)
    chance = 1 / (1 + np.exp(-(slope * scores + intercept)))
    return scores, (source.random(rows) < chance).astype(np.int8)


def probability(odds):
    return 1 / (1 + np.exp(-odds))


def test_platt_scaling_finds_the_log_odds_of_few_alleles():
    found = calibrate(snvs(*drawn(0.5, 1.0, rows=180)), "a")
    curve = found.curves["SNV"]
    assert curve.a == curve.b == pytest.approx(0.5, abs=0.15)
    assert curve.c == pytest.approx(1.0, abs=0.5)
    assert curve(np.array([2.0]))[0] == pytest.approx(2 * curve.a + curve.c)
    assert (found.rows, found.mode, found.fitted) == (180, "site", True)
    assert found.origin == "exact figures of site a's labelled samples, not private"


def test_a_model_that_is_too_sure_in_the_middle_is_put_right():
    """Stated .82 where .66 is real, and .61 where .43 is: no line does that, and 0.5 comes out as 0.5."""
    source = np.random.default_rng(5)
    scores = source.normal(0, 3, 40_000)
    truth = 0.55 * np.logaddexp(0, scores) - 1.3 * np.logaddexp(0, -scores) - 0.6
    labels = (source.random(40_000) < probability(truth)).astype(np.int8)
    found = calibrate(snvs(scores, labels), "a")
    stated = probability(found.apply(scores, np.zeros(40_000, bool)))
    for low in np.arange(0, 1, 0.1):
        rows = (stated >= low) & (stated < low + 0.1)
        assert stated[rows].mean() == pytest.approx(labels[rows].mean(), abs=0.04)
    curve = found.curves["SNV"]
    assert (curve.a, curve.b, curve.c) == pytest.approx((1.3, 0.55, -0.6), abs=0.1)


def of_both(rows=6000, seed=4):
    """SNVs whose scores are right, and indels whose real ones score two lower; a tenth in few reads."""
    source = np.random.default_rng(seed)
    scores, labels = drawn(1.0, 0.0, rows)
    indels, few = source.random(rows) < 0.3, source.random(rows) < 0.1
    scores = np.where(indels, scores - 2, scores) - np.where(few & (labels == 1), 1.5, 0.0)
    return Alleles(scores, labels, indels, {"low_balance": few})


def test_snvs_and_indels_have_curves_and_thresholds_of_their_own():
    alleles = of_both()
    found = calibrate(alleles, "a")
    assert found.curves["indel"].c - found.curves["SNV"].c > 1
    values = found.apply(alleles.scores, alleles.indels)
    for share in SENSITIVITIES:
        passes, _ = found.decide(values, alleles.indels, {}, share)
        for kind in (alleles.indels, ~alleles.indels):
            real = kind & (alleles.labels == 1)
            assert float(share) <= passes[real].mean() < float(share) + 1.5 / real.sum()


def test_few_of_a_kind_are_held_to_the_threshold_of_all():
    scores, labels = drawn(1.0, 0.0)
    indels = np.arange(len(scores)) < 20
    found = calibrate(Alleles(scores, labels, indels), "a")
    assert found.curves["indel"] == calibrate(snvs(scores, labels), "a").curves["SNV"]
    values = found.apply(scores, indels)
    ordered = np.sort(values[labels == 1])[::-1]
    assert found.threshold("0.99", "indel") == ordered[math.ceil(0.99 * len(ordered)) - 1]


def test_what_a_stratum_would_keep_is_for_review_or_passes_where_it_is_protected():
    alleles = of_both()
    few, real = alleles.guarded["low_balance"], alleles.labels == 1
    found = calibrate(alleles, "a")
    values = found.apply(alleles.scores, alleles.indels)
    passes, review = found.decide(values, alleles.indels, alleles.guarded, "0.99")
    assert not (passes & review).any()
    assert not review[~few].any()
    assert passes[few & real].mean() < 0.985 <= (passes | review)[few & real].mean()
    kept, left = found.decide(values, alleles.indels, alleles.guarded, "0.99", ("low_balance", "indel"))
    assert np.array_equal(kept, passes | review)
    assert not left.any()
    more = int((kept & ~passes & ~real).sum())
    (told,) = found.price("0.99", ("low_balance", "indel"))
    said = "low_balance keeps 0.99 of its real alleles at site a: of the labelled false alleles"
    assert told == f"{said}, {more} more pass"


def test_a_stratum_of_few_real_alleles_cannot_be_protected_and_that_is_told():
    scores, labels = drawn(1.0, 0.0)
    few = np.zeros(len(scores), bool)
    few[np.flatnonzero(labels == 1)[:19]] = True
    found = calibrate(Alleles(scores, labels, np.zeros(len(scores), bool), {"rare": few}), "a")
    assert found.strata == []
    (told,) = found.price("0.99", ("rare",))
    assert told == (
        "rare is not protected at site a: it has no threshold there, for it takes 20 labelled real ones, and "
        "--calibration site"
    )


def test_thresholds_keep_the_share_of_real_alleles_that_they_promise():
    scores, labels = drawn(1.0, 0.0)
    found = calibrate(snvs(scores, labels), "a")
    real = found.curves["SNV"](scores)[labels == 1]
    for share in SENSITIVITIES:
        kept = (real >= found.threshold(share)).mean()
        assert float(share) <= kept < float(share) + 1.5 / len(real)


def test_separable_classes_have_a_finite_slope():
    found = calibrate(snvs(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([0, 0, 1, 1])), "a")
    assert 0 < found.curves["SNV"].a < 10


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no labelled allele"), ([1, 1], "only real alleles"), ([0], "only false alleles")],
)
def test_without_both_classes_there_is_no_calibration(labels, reason):
    found = calibrate(snvs(np.zeros(len(labels)), labels), "a")
    assert (found.curves["SNV"], found.fitted) == (Curve(1.0, 1.0, 0.0), False)
    assert reason in found.reason
    assert found.origin == f"none (the model's own scores): {found.reason}"
    assert found.threshold("0.9") == pytest.approx(math.log(0.1 / 0.9))


def test_a_score_that_falls_with_the_truth_is_not_turned_round():
    scores, labels = drawn(-1.0, 0.0)
    found = calibrate(snvs(scores, labels), "a")
    assert (found.curves["indel"], found.fitted) == (Curve(1.0, 1.0, 0.0), False)
    assert "does not rise with the truth" in found.reason


def test_rows_without_a_label_do_not_count_and_the_tables_say_what_an_allele_is():
    rows = [
        table_row(label=1, f_depth=1.0, zygosity="heterozygous", f_alt_fraction=-1.5),
        table_row(label=None), table_row(label=0, variant_type="deletion", context="homopolymer"),
        table_row(label=1, allele_frequency=0.009, f_alt_fraction=-1.5, zygosity="homozygous"),
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=LABELLED)
    found = Alleles.of(Fake(), [table, table.slice(1, 1), table.slice(2)])
    assert found.labels.tolist() == [1, 0, 1, 0, 1]
    assert found.indels.tolist() == [False, True, False, True, False]
    assert {name: rows.tolist() for name, rows in found.guarded.items()} == {
        "low_balance": [True, False, False, False, False], "rare": [False, False, True, False, True],
        "homopolymer": [False, True, False, True, False], "tandem_repeat": [False] * 5,
    }  # fmt: skip
    assert calibrate(Alleles.of(Fake(), []), "a").rows == 0


def test_a_calibration_comes_back_as_written(tmp_path):
    found = calibrate(snvs(*drawn(1.0, 0.0)), "a")
    write_calibration(found, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == found
    (tmp_path / "d.json").write_text('{"slope": 1}')
    with pytest.raises(UserError, match=r"d\.json: not a calibration"):
        read_calibration(tmp_path / "d.json")


def beside_a_caller(model, caller, rows=2000, seed=7):
    """Alleles that a model and a caller's QUAL tell apart with so many nats of log-odds, and noise of one."""
    source = np.random.default_rng(seed)
    labels = (source.random(rows) < 0.7).astype(np.int8)
    scores = model * labels + source.normal(size=rows)
    qual = np.maximum(0, 30 + 10 * (caller * labels + source.normal(size=rows)))
    return replace(snvs(scores, labels), callers={"bcftools QUAL": qual, "bcftools QD": qual * 0})


def test_where_a_callers_own_score_is_the_better_filter_it_stands_for_the_model(tmp_path):
    alleles = beside_a_caller(model=1.0, caller=2.0)
    found = calibrate(alleles, "a")
    stands = found.instead
    assert stands.caller_score == "bcftools QUAL"
    said = (
        r"where 0\.99 of the real alleles are kept, bcftools QUAL removes (\d+) % of the false ones at site "
    )
    told = re.fullmatch(
        said + r"a, and the model (\d+) %, of its labelled samples", stands.stands_for_the_model
    )
    own, model = map(int, told.groups())
    assert own > model + 10
    # Its curve makes log-odds of QUAL, and its threshold keeps what was asked for.
    rows = [
        table_row(callers="bcftools", bcftools_qual=float(qual), f_depth=9.0)
        for qual in alleles.callers["bcftools QUAL"]
    ]
    table = pa.Table.from_pylist(rows, schema=LABELLED)
    values = stands.apply(stands.raw(Fake(), table), alleles.indels)
    real = alleles.labels == 1
    passes, _ = stands.decide(values, alleles.indels, {}, "0.99")
    assert 0.99 <= passes[real].mean() < 0.995
    assert 100 * (~passes[~real]).mean() == pytest.approx(own, abs=0.5)
    for low, high in ((0.3, 0.7), (0.7, 1.0)):
        of_it = (probability(values) >= low) & (probability(values) < high)
        assert probability(values[of_it]).mean() == pytest.approx(real[of_it].mean(), abs=0.06)
    write_calibration(found, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == found
    # Of a sample that this caller did not call nothing is known by it.
    assert found.of_sample(["bcftools", "haplotypecaller"]) == stands
    assert found.of_sample(["haplotypecaller"]) == replace(found, instead=None)


@pytest.mark.parametrize(
    ("rows", "model", "caller"),
    [(2000, 2.0, 2.0), (2000, 2.0, 2.05), (2000, 3.0, 2.0), (140, 1.0, 3.0)],
    ids=["as good", "better by less than chance may be", "worse", "fewer than a hundred false ones"],
)
def test_a_caller_stands_for_the_model_only_where_it_is_surely_better(rows, model, caller):
    assert calibrate(beside_a_caller(model, caller, rows), "a").instead is None


def test_a_hair_more_is_no_reason_however_many_alleles_say_so():
    assert calibrate(beside_a_caller(2.0, 2.03, rows=200_000), "a").instead is None


def test_a_model_is_not_given_up_for_what_its_curves_by_kind_take_away():
    """Indels score five lower: of both kinds together the model ranks below the caller, of each far above."""
    alleles = beside_a_caller(model=3.5, caller=1.8)
    indels = np.random.default_rng(3).random(len(alleles.labels)) < 0.4
    apart = replace(alleles, scores=np.where(indels, alleles.scores - 5, alleles.scores), indels=indels)
    assert calibrate(apart, "a").instead is None


def test_a_caller_that_is_silent_on_more_real_alleles_than_may_be_lost_filters_nothing():
    """Its AUROC is higher than the model's, and at the threshold that keeps 99 % everything passes."""
    alleles = beside_a_caller(model=2.0, caller=6.0)
    silent = np.random.default_rng(4).random(len(alleles.labels)) < 0.03
    qual = np.where(silent, -2.0, alleles.callers["bcftools QUAL"])
    assert calibrate(replace(alleles, callers={"bcftools QUAL": qual}), "a").instead is None


def test_a_model_that_falls_with_the_truth_gives_way_to_a_caller_that_rises():
    found = calibrate(beside_a_caller(model=-1.0, caller=2.0), "a")
    assert not found.fitted
    assert (found.instead.caller_score, found.instead.fitted) == ("bcftools QUAL", True)


def test_an_allele_without_the_callers_score_ranks_below_all_that_have_it():
    found = calibrate(beside_a_caller(model=1.0, caller=2.0), "a").instead
    rows = [
        table_row(callers="bcftools", bcftools_qual=0.0), table_row(callers="bcftools"),
        table_row(callers="haplotypecaller", haplotypecaller_qual=90.0),
    ]  # fmt: skip
    zero, unknown, silent = found.raw(Fake(), pa.Table.from_pylist(rows, schema=LABELLED))
    assert zero > unknown > silent
    # Where no row of a part has it, they are as silent as beside others.
    assert found.raw(Fake(), pa.Table.from_pylist(rows[2:], schema=LABELLED)) == [silent]


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {}}, {"thresholds": []}, {"curves": {"SNV": {"a": "x", "b": 1, "c": 0}}},
        {"mode": "mine"}, {"instead": {}}, {"site": 4},
        {"thresholds": {"SNV": {"0.9": None}, "indel": {"0.9": 1}}},
    ],
)  # fmt: skip
def test_a_calibration_that_was_changed_is_none(tmp_path, change):
    write_calibration(calibrate(beside_a_caller(model=1.0, caller=2.0), "a"), tmp_path / "c.json")
    held = json.loads((tmp_path / "c.json").read_text())
    if "curves" in change:
        change = {"curves": held["curves"] | change["curves"]}
    (tmp_path / "c.json").write_text(json.dumps(held | change))
    with pytest.raises(UserError, match=r"c\.json: not a calibration"):
        read_calibration(tmp_path / "c.json")
