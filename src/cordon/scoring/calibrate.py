"""A site's own calibration of the shared model: from raw score to log-odds, and thresholds by sensitivity.

Its figures stand in every scored VCF. By the mode ``site`` they are exact functions of the site's labelled
samples and not private; by ``private`` they come of one noisy release
(`cordon.scoring.private_calibration`); by ``none`` they come of no patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cordon.arrays import Bools, Floats
from cordon.errors import UserError
from cordon.files import StrPath, written_beside
from cordon.privacy.guarantee import LIFETIME, Guarantee
from cordon.variants.features import FEATURES
from cordon.variants.strata import GUARDED, INDEL, KINDS, SNV, guarded, indels
from cordon.variants.table import inputs

SENSITIVITIES = ("0.9", "0.95", "0.99", "0.995")
MODES = SITE, PRIVATE, NONE = "site", "private", "none"
# Labelled alleles of each class from which on a kind has a curve of its own, and from which on it is curved;
# and real ones from which on a stratum has a threshold.
LEAST_EACH, LEAST_CURVED, LEAST_REAL = 30, 100, 20
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
class Curve:
    """Calibrated log-odds = a ln(p) - b ln(1 - p) + c, of the raw score's p; with a = b, a score + b's line.

    "Beta calibration" (Kull, Silva Filho and Flach 2017, AISTATS, section 3): where a model is surer of one
    class than it may be, a and b differ. With a and b of at least 0 it rises with the score.
    """

    a: float
    b: float
    c: float

    @classmethod
    def line(cls, slope: float, intercept: float) -> Curve:
        """Platt's: slope * score + intercept."""
        return cls(slope, slope, intercept)

    def __call__(self, scores: Floats) -> Floats:
        """Calibrated log-odds [n], in nats, of raw scores [n]."""
        curved: Floats = self.b * np.logaddexp(0.0, scores) - self.a * np.logaddexp(0.0, -scores) + self.c
        return curved

    def __str__(self) -> str:
        return f"a {self.a:.6g}, b {self.b:.6g}, c {self.c:.6g}"

    @property
    def short(self) -> str:
        """To three digits."""
        return f"a {self.a:.3g}, b {self.b:.3g}, c {self.c:.3g}"


@dataclass(frozen=True)
class Alleles:
    """Labelled alleles: raw scores [n], labels [n] (0 or 1), which are indels [n], and which are in each of
    `cordon.variants.strata.GUARDED` [n].
    """

    scores: Floats
    labels: NDArray[np.int8]
    indels: Bools
    guarded: Mapping[str, Bools] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Scorer, tables: Iterable[pa.Table]) -> Alleles:
        """The rows of variant tables that have a label."""
        parts = [cls._part(model, table.filter(table["label"].is_valid())) for table in tables]
        guarded = {name: np.concatenate([_NONE, *(part.guarded[name] for part in parts)]) for name in GUARDED}
        return cls(
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            np.concatenate([np.empty(0, np.int8), *(part.labels for part in parts)]),
            np.concatenate([_NONE, *(part.indels for part in parts)]),
            guarded,
        )

    @classmethod
    def _part(cls, model: Scorer, known: pa.Table) -> Alleles:
        labels = known["label"].to_numpy().astype(np.int8)
        return cls(
            raw_scores(model, inputs(known, model.architecture)), labels, indels(known), guarded(known)
        )


_NONE = np.empty(0, dtype=np.bool_)


@dataclass(frozen=True)
class Calibration:
    """What makes log-odds in nats of raw scores, by kind of allele, and thresholds on them by sensitivity.

    ``curves`` are of SNVs and of indels. ``thresholds`` are by kind, and by the strata of GUARDED of which
    enough real alleles are known, and there by sensitivity; ``let_through`` are the labelled false alleles
    that a stratum's threshold lets through and its kind's would not. ``mode`` is one of MODES. ``reason``
    says why no threshold was fitted, and is empty where one was, or none was to be. ``rows`` is the number of
    labelled alleles that an exact calibration rests on. A private one has ``cost``, what its release cost
    (`cordon.privacy.guarantee.Guarantee`'s parts and more), and ``margin``: two standard deviations of its
    noise, as a share of the real alleles.
    """

    curves: Mapping[str, Curve]
    thresholds: Mapping[str, Mapping[str, float]]
    mode: str
    site: str
    reason: str = ""
    rows: int | None = None
    margin: float | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)
    let_through: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def apply(self, scores: Floats, indels: Bools) -> Floats:
        """Calibrated log-odds [n] of raw scores [n]; ``indels`` [n] says which alleles are."""
        return np.where(indels, self.curves[INDEL](scores), self.curves[SNV](scores))

    def threshold(self, sensitivity: str, group: str = SNV) -> float:
        """The log-odds from which on an allele of the kind or stratum ``group`` passes.

        UserError where ``sensitivity`` has none.
        """
        if sensitivity not in self.thresholds[group]:
            raise UserError(
                f"the calibration has no threshold for a truth sensitivity of {sensitivity}. "
                f"Choose one of {', '.join(self.thresholds[group])}, or calibrate for it."
            )
        return self.thresholds[group][sensitivity]

    def decide(
        self, values: Floats, indels: Bools, guarded: Mapping[str, Bools], sensitivity: str,
        protected: Sequence[str] = (),
    ) -> tuple[Bools, Bools]:  # fmt: skip
        """Which alleles [n] of calibrated ``values`` pass, and which of the others are for review.

        An allele passes from its kind's threshold on, or from that of a stratum among ``protected`` that it
        is in. It is for review from the threshold of any stratum that it is in.
        """
        snv, indel = (self.threshold(sensitivity, kind) for kind in KINDS)
        passes = values >= np.where(indels, indel, snv)
        review = np.zeros(len(values), dtype=np.bool_)
        for name, rows in guarded.items():
            if name in self.thresholds:
                kept = rows & (values >= self.threshold(sensitivity, name))
                review |= kept
                if name in protected:
                    passes |= kept
        return passes, review & ~passes

    @property
    def strata(self) -> list[str]:
        """The strata that have a threshold of their own."""
        return [name for name in GUARDED if name in self.thresholds]

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
        """What the filter's thresholds are, and what they promise of the real alleles."""
        snv, indel = (f"{self.threshold(sensitivity, kind):.6g}" for kind in KINDS)
        apart = snv != indel
        given = f"{snv} (SNVs) or {indel} (indels)" if apart else snv
        if self.fitted:
            margin = f", give or take {self.margin:.2g} by its noise" if self.margin is not None else ""
            what, each = ("thresholds that keep", " of each") if apart else ("threshold that keeps", "")
            return (
                f"{given}, the {what} {sensitivity} of the real alleles{each}{margin}, among "
                f"those of site {self.site}'s labelled samples"
            )
        share = 1 - float(sensitivity)
        return (
            f"{given}, odds of {share:.3g} to {float(sensitivity):g}: a fixed number, fitted to no "
            "sample, which promises no share of the real alleles"
        )

    def price(self, sensitivity: str, protected: Sequence[str]) -> list[str]:
        """What strata that are ``protected`` cost, in false alleles, and which cannot be; a sentence each."""
        told = []
        for name in protected:
            if name in self.let_through:
                more = self.let_through[name][sensitivity]
                told.append(
                    f"{name} keeps {sensitivity} of its real alleles at site {self.site}: of the labelled "
                    f"false alleles, {more} more pass"
                )
            elif name not in KINDS:
                why = self.reason or f"it takes {LEAST_REAL} labelled real ones, and --calibration site"
                told.append(
                    f"{name} is not protected at site {self.site}: it has no threshold there, for {why}"
                )
        return told


def stated_cost(cost: Mapping[str, Any], scope: str = ONE_CALIBRATION) -> str:
    """The epsilon of a private calibration's ``cost``, with all that must stand beside it."""
    means = Guarantee(cost["unit"], cost["delta"], cost["mechanism"], scope)
    said = means.statement(cost["epsilon"])
    sites = cost.get("sites_per_patient", 1)
    at = "" if sites == 1 else f", of a person at up to {sites} sites"
    return f"{said}, by {cost['accountant']}{at}"


def calibrate(alleles: Alleles, site: str) -> Calibration:
    """Curves that make the raw scores of labelled alleles log-odds, and thresholds on the result.

    SNVs and indels have curves of their own where there are LEAST_EACH real and false ones, else a common
    one. A threshold is the lowest calibrated score among the best-scored share of the real alleles: of a kind
    where that leaves one out, of a stratum where there are LEAST_REAL, else of all. Without both classes, or
    where the score falls with the truth, there is no calibration (`uncalibrated`).
    """
    scores, labels = alleles.scores, alleles.labels
    real, rows = labels == 1, len(labels)
    if real.all() or not real.any():
        found = "no labelled allele" if not rows else f"only {'real' if real.any() else 'false'} alleles"
        return uncalibrated(SITE, site, f"site {site} has {found}", rows)
    common = _curve(scores, labels)
    if common is None:
        return uncalibrated(SITE, site, f"the score does not rise with the truth at site {site}", rows)
    groups = dict(zip(KINDS, (~alleles.indels, alleles.indels), strict=True))
    curves = {}
    for kind, of_it in groups.items():
        enough = min((real & of_it).sum(), (~real & of_it).sum()) >= LEAST_EACH
        curves[kind] = (_curve(scores[of_it], labels[of_it]) if enough else None) or common
    fitted = Calibration(curves, {}, SITE, site, rows=rows)
    values = fitted.apply(scores, alleles.indels)
    everywhere = _thresholds(values[real])
    thresholds = {
        kind: everywhere
        | {s: at for s, at in _thresholds(values[real & of_it]).items() if _leaves_out(s, real & of_it)}
        for kind, of_it in groups.items()
    }
    fitted = replace(fitted, thresholds=dict(thresholds))
    passing = {s: fitted.decide(values, alleles.indels, {}, s)[0] for s in SENSITIVITIES}
    let_through = {}
    for name, of_it in alleles.guarded.items():
        if (real & of_it).sum() >= LEAST_REAL:
            thresholds[name] = _thresholds(values[real & of_it])
            more = {s: ~real & of_it & ~passing[s] & (values >= at) for s, at in thresholds[name].items()}
            let_through[name] = {s: int(which.sum()) for s, which in more.items()}
    return replace(fitted, thresholds=thresholds, let_through=let_through)


def _thresholds(real: Floats) -> dict[str, float]:
    """By sensitivity, the lowest among the best-scored share of the values of ``real`` alleles [n]."""
    if not len(real):
        return {}
    ordered = np.sort(real)[::-1]
    kept = {share: max(0, math.ceil(float(share) * len(real) - 1e-9) - 1) for share in SENSITIVITIES}
    return {share: float(ordered[place]) for share, place in kept.items()}


def _leaves_out(sensitivity: str, real: Bools) -> bool:
    """Whether a threshold for so many real alleles may leave one out: fewer say nothing of it."""
    return (1 - float(sensitivity)) * float(real.sum()) >= 1 - 1e-9


def uncalibrated(mode: str, site: str, reason: str = "", rows: int | None = None) -> Calibration:
    """Scores as they are, and fixed thresholds: the model taken at its word."""
    thresholds = {share: fixed_threshold(share) for share in SENSITIVITIES}
    return for_both(Curve.line(1.0, 0.0), thresholds, mode, site, reason=reason, rows=rows)


def for_both(curve: Curve, thresholds: Mapping[str, float], mode: str, site: str, **more: Any) -> Calibration:
    """A calibration that is the same for SNVs and indels."""
    same = {kind: dict(thresholds) for kind in KINDS}
    return Calibration({SNV: curve, INDEL: curve}, same, mode, site, **more)


def fixed_threshold(sensitivity: str) -> float:
    """Log-odds (nats) of 1 - s to s, for a target sensitivity s: a number that comes of no data."""
    return math.log((1 - float(sensitivity)) / float(sensitivity))


def _curve(scores: Floats, labels: NDArray[np.int8]) -> Curve | None:
    """The curve of a logistic regression on ln(p) and -ln(1 - p); None where the score falls with the truth.

    Targets are smoothed as Platt does, so separable classes have a finite slope (J. Platt 1999,
    "Probabilistic outputs for support vector machines", section 2.2). Where there are few labels, or one of
    the two would fall, it is a line.
    """
    real = int(labels.sum())
    false = len(labels) - real
    target = np.where(labels == 1, (real + 1) / (real + 2), 1 / (false + 2))
    slope, intercept = _regression(scores[:, None], target)
    if not (math.isfinite(slope) and slope > 0):
        return None
    if min(real, false) >= LEAST_CURVED:
        a, b, c = _regression(
            np.stack([-np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores)], axis=1), target
        )
        if min(a, b) > 0:
            return Curve(a, b, c)
    return Curve.line(slope, intercept)


def _regression(columns: Floats, target: Floats) -> list[float]:
    """Coefficients and intercept by logistic regression on targets in [0, 1], each row once as each class."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.concatenate([columns, columns]),
        np.repeat([1, 0], len(columns)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return [*map(float, regression.coef_[0]), float(regression.intercept_[0])]


def write_calibration(calibration: Calibration, path: StrPath) -> None:
    """Write as JSON; the file appears whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(asdict(calibration), indent=2) + "\n")


def read_calibration(path: StrPath) -> Calibration:
    """Read a calibration. Raises UserError naming the file where it is none."""
    try:
        read = json.loads(Path(path).read_text())
        curves = {kind: Curve(**read["curves"][kind]) for kind in KINDS}
        return Calibration(**read | {"curves": curves})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a calibration ({error}). Make it with calibrate_scores.") from error
