"""Tests of cordon.scoring.calibrate."""

import math

import numpy as np
import pytest

from cordon.errors import UserError
from cordon.scoring.calibrate import (
    SENSITIVITIES,
    calibrate,
    calibrate_tables,
    read_calibration,
    write_calibration,
)
from cordon.variants.features import FEATURES


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


def test_platt_scaling_finds_the_log_odds():
    found = calibrate(*drawn(0.5, 1.0), "a")
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.intercept == pytest.approx(1.0, abs=0.1)
    assert (found.rows, found.mode, found.fitted) == (4000, "site", True)
    assert found.origin == "exact figures of site a's labelled samples, not private"


def test_thresholds_keep_the_share_of_real_alleles_that_they_promise():
    scores, labels = drawn(1.0, 0.0)
    found = calibrate(scores, labels, "a")
    real = found.apply(scores)[labels == 1]
    for share in SENSITIVITIES:
        kept = (real >= found.thresholds[share]).mean()
        assert float(share) <= kept < float(share) + 1.5 / len(real)


def test_separable_classes_have_a_finite_slope():
    found = calibrate(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([0, 0, 1, 1], dtype=np.int8), "a")
    assert 0 < found.slope < 10


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no labelled allele"), ([1, 1], "only real alleles"), ([0], "only false alleles")],
)
def test_without_both_classes_there_is_no_calibration(labels, reason):
    found = calibrate(np.zeros(len(labels)), np.array(labels, dtype=np.int8), "a")
    assert (found.slope, found.intercept, found.fitted) == (1.0, 0.0, False)
    assert reason in found.reason
    assert found.origin == f"none (the model's own scores): {found.reason}"
    assert found.thresholds["0.9"] == pytest.approx(math.log(0.1 / 0.9))


def test_a_score_that_falls_with_the_truth_is_not_turned_round():
    scores, labels = drawn(-1.0, 0.0)
    found = calibrate(scores, labels, "a")
    assert (found.slope, found.fitted) == (1.0, False)
    assert "does not rise with the truth" in found.reason


def test_rows_without_a_label_do_not_count():
    features = np.zeros((3, len(FEATURES)), dtype=np.float32)
    assert calibrate_tables(Fake(), [(features, [1, None, 0]), (features, [None] * 3)], "a").rows == 2
    assert calibrate_tables(Fake(), [], "a").rows == 0


def test_a_calibration_comes_back_as_written(tmp_path):
    found = calibrate(*drawn(1.0, 0.0), "a")
    write_calibration(found, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == found
    (tmp_path / "d.json").write_text('{"slope": 1}')
    with pytest.raises(UserError, match=r"d\.json: not a calibration"):
        read_calibration(tmp_path / "d.json")
