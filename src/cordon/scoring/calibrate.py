"""A site's own calibration of the shared model: from raw score to log-odds, and thresholds by sensitivity.

Its figures stand in every scored VCF. By the mode ``site`` they are exact functions of the site's labelled
samples and not private; by ``private`` they come of one noisy release
(`cordon.scoring.private_calibration`); by ``none`` they come of no patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.errors import UserError
from cordon.files import StrPath, written_beside
from cordon.privacy.guarantee import LIFETIME, Guarantee
from cordon.variants.features import FEATURES

SENSITIVITIES = ("0.9", "0.95", "0.99", "0.995")
MODES = SITE, PRIVATE, NONE = "site", "private", "none"
# The scope of what one private calibration costs.
ONE_CALIBRATION = "this calibration"


class Scorer(Protocol):
    """A released model. Its scores are log-odds of the training mix, not calibrated for any site."""

    @property
    def architecture(self) -> str:
        """What decides which of a table's columns it takes (`cordon.variants.table.inputs`)."""

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
    """The model's scores [n] of inputs [n, F] (`cordon.variants.table.inputs`), features in the order of
    FEATURES.

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

    ``mode`` is one of MODES. ``reason`` says why no threshold was fitted, and is empty where one was, or none
    was to be. ``rows`` is the number of labelled alleles that an exact calibration rests on. A private one
    has ``cost``, what its release cost (`cordon.privacy.guarantee.Guarantee`'s parts and more), and
    ``margin``: two standard deviations of its noise, as a share of the real alleles.
    """

    slope: float
    intercept: float
    thresholds: Mapping[str, float]
    mode: str
    site: str
    reason: str = ""
    rows: int | None = None
    margin: float | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, scores: Floats) -> Floats:
        """Calibrated log-odds of raw scores."""
        return self.slope * scores + self.intercept

    def threshold(self, sensitivity: str) -> float:
        """The log-odds from which on an allele passes; UserError where ``sensitivity`` has none."""
        if sensitivity not in self.thresholds:
            raise UserError(
                f"the calibration has no threshold for a truth sensitivity of {sensitivity}. "
                f"Choose one of {', '.join(self.thresholds)}, or calibrate for it."
            )
        return self.thresholds[sensitivity]

    @property
    def fitted(self) -> bool:
        """Whether the thresholds were fitted to labelled alleles."""
        return self.mode != NONE and not self.reason

    @property
    def calibrated(self) -> bool:
        """Whether slope and intercept were."""
        return self.fitted or bool(self.cost)

    @property
    def stated(self) -> str:
        """The epsilon of a private calibration, with all that must stand beside it."""
        return stated_cost(self.cost)

    @property
    def reserved(self) -> str:
        """What the site's ledger held after it, likewise."""
        spent = {"epsilon": self.cost["spent_by_site"], "mechanism": self.cost["spent_mechanism"]}
        return stated_cost({**self.cost, **spent, "accountant": "RDP"}, LIFETIME)

    @property
    def origin(self) -> str:
        """Whose figures these are, and whether they are private."""
        if self.cost:
            return f"private figures of site {self.site}'s labelled samples, at {self.stated}"
        if self.fitted:
            return f"exact figures of site {self.site}'s labelled samples, not private"
        return f"none (the model's own scores){f': {self.reason}' if self.reason else ''}"

    def rule(self, sensitivity: str) -> str:
        """What the filter's threshold is, and what it promises of the real alleles."""
        threshold = self.threshold(sensitivity)
        if self.fitted:
            margin = f", give or take {self.margin:.2g} by its noise" if self.margin is not None else ""
            return (
                f"{threshold:.6g}, the threshold that keeps {sensitivity} of the real alleles{margin}, among "
                f"those of site {self.site}'s labelled samples"
            )
        share = 1 - float(sensitivity)
        return (
            f"{threshold:.6g}, odds of {share:.3g} to {float(sensitivity):g}: a fixed number, fitted to no "
            "sample, which promises no share of the real alleles"
        )


def stated_cost(cost: Mapping[str, Any], scope: str = ONE_CALIBRATION) -> str:
    """The epsilon of a private calibration's ``cost``, with all that must stand beside it."""
    means = Guarantee(cost["unit"], cost["delta"], cost["mechanism"], scope)
    said = means.statement(cost["epsilon"])
    sites = cost.get("sites_per_patient", 1)
    at = "" if sites == 1 else f", of a person at up to {sites} sites"
    return f"{said}, by {cost['accountant']}{at}"


def calibrate(scores: Floats, labels: NDArray[np.int8], site: str) -> Calibration:
    """Platt scaling of raw scores [n] by labels [n] (0 or 1), and thresholds on the result.

    Targets are smoothed as Platt does, so separable classes have a finite slope (J. Platt 1999,
    "Probabilistic outputs for support vector machines", section 2.2). A threshold is the lowest calibrated
    score among the best-scored share of real alleles. Without both classes, or where the score falls with
    the truth, there is no calibration (`uncalibrated`).
    """
    real = int(labels.sum())
    false = len(labels) - real
    if not real or not false:
        found = "no labelled allele" if not len(labels) else f"only {'real' if real else 'false'} alleles"
        return uncalibrated(SITE, site, f"site {site} has {found}", len(labels))
    slope, intercept = _platt(scores, labels, real, false)
    if not (math.isfinite(slope) and slope > 0):
        return uncalibrated(SITE, site, f"the score does not rise with the truth at site {site}", len(labels))
    calibrated = slope * scores + intercept
    ordered = np.sort(calibrated[labels == 1])[::-1]
    thresholds = {
        share: float(ordered[max(0, math.ceil(float(share) * real - 1e-9) - 1)]) for share in SENSITIVITIES
    }
    return Calibration(slope, intercept, thresholds, SITE, site, rows=len(labels))


def uncalibrated(mode: str, site: str, reason: str = "", rows: int | None = None) -> Calibration:
    """Slope 1, intercept 0, and fixed thresholds: the model taken at its word."""
    thresholds = {share: fixed_threshold(share) for share in SENSITIVITIES}
    return Calibration(1.0, 0.0, thresholds, mode, site, reason, rows)


def fixed_threshold(sensitivity: str) -> float:
    """Log-odds (nats) of 1 - s to s, for a target sensitivity s: a number that comes of no data."""
    return math.log((1 - float(sensitivity)) / float(sensitivity))


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
