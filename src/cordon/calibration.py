"""A site's own calibration of the shared model: from raw score to log-odds, and thresholds by sensitivity.

It is made from the site's own labels, stays at the site, and so spends no privacy budget.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cordon.errors import UserError
from cordon.features import FEATURES
from cordon.tables import written_beside

StrPath = str | os.PathLike[str]
Floats = NDArray[np.float64]

SENSITIVITIES = ("0.9", "0.95", "0.99", "0.995")
NO_SOURCE = "none"


class Scorer(Protocol):
    """A released model. Its scores are log-odds of the training mix, not calibrated for any site."""

    @property
    def architecture(self) -> str:
        """What decides which of a table's columns it takes (`cordon.tables.inputs`)."""

    @property
    def hash(self) -> str:
        """What identifies the model's weights."""

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs, in order."""

    @property
    def privacy(self) -> Mapping[str, object]:
        """The privacy statement: unit, epsilon, delta, mechanism, adjacency and more."""

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Natural-log odds [n] that alleles with inputs [n, F] are real."""


def raw_scores(model: Scorer, features: NDArray[np.float32]) -> Floats:
    """The model's scores [n] of inputs [n, F] (`cordon.tables.inputs`), features in the order of FEATURES.

    Raises UserError where the model was trained on other features, or a score is not finite.
    """
    if tuple(model.features) != FEATURES:
        odd = sorted(set(model.features) ^ set(FEATURES)) or ["their order"]
        raise UserError(
            f"Model {model.hash} was trained on other features ({', '.join(odd[:3])} differ). "
            "Encode the variants with the version of Cordon that trained the model."
        )
    scores = np.asarray(model.score(features), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise UserError(f"Model {model.hash} gives scores that are not finite. Use another model.")
    return scores


@dataclass(frozen=True)
class Calibration:
    """calibrated = slope * score + intercept, in nats; thresholds on it by target sensitivity.

    ``source`` is ``site NAME`` or ``none``; ``reason`` says why there is none. ``rows`` is the number of
    labelled alleles it rests on.
    """

    slope: float
    intercept: float
    thresholds: Mapping[str, float]
    rows: int
    source: str
    reason: str = ""

    def apply(self, scores: Floats) -> Floats:
        """Calibrated log-odds of raw scores."""
        return self.slope * scores + self.intercept


def calibrate(scores: Floats, labels: NDArray[np.int8], site: str) -> Calibration:
    """Platt scaling of raw scores [n] by labels [n] (0 or 1), and thresholds on the result.

    Targets are smoothed as Platt does, so separable classes have a finite slope (J. Platt 1999,
    "Probabilistic outputs for support vector machines", section 2.2). A threshold is the lowest calibrated
    score among the best-scored share of real alleles. Without both classes, or where the score falls with
    the truth, there is no calibration and the thresholds are those of a model taken at its word.
    """
    real = int(labels.sum())
    false = len(labels) - real
    if not real or not false:
        found = "no labelled allele" if not len(labels) else f"only {'real' if real else 'false'} alleles"
        return uncalibrated(f"site {site} has {found}", len(labels))
    slope, intercept = _platt(scores, labels, real, false)
    if not (math.isfinite(slope) and slope > 0):
        return uncalibrated(
            f"the score does not rise with the truth at site {site} (slope {slope:.3g})", len(labels)
        )
    calibrated = slope * scores + intercept
    ordered = np.sort(calibrated[labels == 1])[::-1]
    thresholds = {
        share: float(ordered[max(0, math.ceil(float(share) * real - 1e-9) - 1)]) for share in SENSITIVITIES
    }
    return Calibration(slope, intercept, thresholds, len(labels), f"site {site}")


def uncalibrated(reason: str, rows: int) -> Calibration:
    """Slope 1, intercept 0; an allele passes a target sensitivity s at odds of at least (1 - s) / s."""
    thresholds = {share: math.log((1 - float(share)) / float(share)) for share in SENSITIVITIES}
    return Calibration(1.0, 0.0, thresholds, rows, NO_SOURCE, reason)


def _platt(scores: Floats, labels: NDArray[np.int8], real: int, false: int) -> tuple[float, float]:
    """Slope and intercept by logistic regression on smoothed targets, each row once as each class."""
    from sklearn.linear_model import LogisticRegression

    target = np.where(labels == 1, (real + 1) / (real + 2), 1 / (false + 2))
    regression = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.concatenate([scores, scores])[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return float(regression.coef_[0, 0]), float(regression.intercept_[0])


def calibrate_tables(
    model: Scorer, tables: Iterable[tuple[NDArray[np.float32], Sequence[int | None]]], site: str
) -> Calibration:
    """`calibrate` over several tables' inputs [n, F] and labels; rows without a label do not count."""
    scores = [np.empty(0)]
    labels = [np.empty(0, dtype=np.int8)]
    for features, given in tables:
        known = np.array([value is not None for value in given], dtype=bool)
        scores.append(raw_scores(model, features[known]))
        labels.append(np.array([value for value in given if value is not None], dtype=np.int8))
    return calibrate(np.concatenate(scores), np.concatenate(labels), site)


def write_calibration(calibration: Calibration, path: StrPath) -> None:
    """Write as JSON; the file appears whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(asdict(calibration), indent=2) + "\n")


def read_calibration(path: StrPath) -> Calibration:
    """Read a calibration. Raises UserError naming the file where it is none."""
    try:
        return Calibration(**json.loads(Path(path).read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a calibration ({error}). Make it with calibrate_scores.") from error
