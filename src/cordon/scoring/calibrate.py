"""A site's exact calibration: curves and thresholds that are fitted to its labelled alleles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cordon.arrays import Bools, Floats
from cordon.scoring.calibration import (
    COMPARED,
    LEAST_REAL,
    SENSITIVITIES,
    SITE,
    Calibration,
    Curve,
    Scorer,
    as_odds,
    raw_scores,
    uncalibrated,
)
from cordon.variants.caller_scores import SILENT, caller_scores
from cordon.variants.strata import GUARDED, KINDS, guarded, indels
from cordon.variants.table import inputs

# Labelled alleles of each class from which on a kind has a curve of its own, and from which on it is curved.
LEAST_EACH, LEAST_CURVED = 30, 100
# Of the false alleles, how many more a caller's score must remove to stand for the model.
LEAST_GAIN = 0.02


@dataclass(frozen=True)
class Alleles:
    """Labelled alleles: raw scores [n], labels [n] (0 or 1), which are indels [n], which are in each of
    `cordon.variants.strata.GUARDED` [n], and what callers' own scores are (`caller_scores`) [n].
    """

    scores: Floats
    labels: NDArray[np.int8]
    indels: Bools
    guarded: Mapping[str, Bools] = field(default_factory=dict)
    callers: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Scorer, tables: Iterable[pa.Table]) -> Alleles:
        """The rows of variant tables that have a label."""

        def silent(part: Alleles) -> Floats:
            return np.full(len(part.labels), SILENT)

        parts = [cls._part(model, table.filter(table["label"].is_valid())) for table in tables]
        guarded = {name: np.concatenate([_NONE, *(part.guarded[name] for part in parts)]) for name in GUARDED}
        return cls(
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            np.concatenate([np.empty(0, np.int8), *(part.labels for part in parts)]),
            np.concatenate([_NONE, *(part.indels for part in parts)]),
            guarded,
            {
                name: np.concatenate([part.callers.get(name, silent(part)) for part in parts])
                for name in sorted({name for part in parts for name in part.callers})
            },
        )

    @classmethod
    def _part(cls, model: Scorer, known: pa.Table) -> Alleles:
        labels = known["label"].to_numpy().astype(np.int8)
        raw = raw_scores(model, inputs(known, model.architecture))
        return cls(raw, labels, indels(known), guarded(known), caller_scores(known))


_NONE = np.empty(0, dtype=np.bool_)


def calibrate(alleles: Alleles, site: str) -> Calibration:
    """Curves that make the raw scores of labelled alleles log-odds, and thresholds on the result.

    SNVs and indels have curves of their own where there are LEAST_EACH real and false ones, else a common
    one. A threshold is the lowest calibrated score among the best-scored share of the real alleles: of a kind
    where that leaves one out, of a stratum where there are LEAST_REAL, else of all. Without both classes, or
    where the score falls with the truth, there is no calibration (`uncalibrated`). Where a caller's own
    score, calibrated the same way, is surely the better filter, it stands for the model (`_better_caller`).
    """
    own = _fitted(alleles, alleles.scores, site)
    return replace(own, instead=_better_caller(alleles, own, site))


def _fitted(alleles: Alleles, scores: Floats, site: str) -> Calibration:
    """The calibration of one score [n] of the alleles."""
    labels = alleles.labels
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


def _better_caller(alleles: Alleles, own: Calibration, site: str) -> Calibration | None:
    """The calibration of a caller's score that is surely a better filter than the model's ``own``, if any.

    Both are asked to keep COMPARED of the real alleles. The caller's must remove LEAST_GAIN more of the false
    ones, and of those that one of the two removes and the other does not so many more that chance does it
    once in 200 times (McNemar 1947), for the best of all callers' scores.
    """
    false = alleles.labels == 0
    if min(false.sum(), (~false).sum()) < LEAST_CURVED:
        return None
    model = _removed(alleles, alleles.scores, own) & false
    found: dict[str, tuple[float, Calibration, Bools]] = {}
    for name, score in alleles.callers.items():
        fitted = _fitted(alleles, as_odds(score), site)
        if not fitted.reason:
            removed = _removed(alleles, as_odds(score), fitted) & false
            found[name] = (float(removed.sum()), fitted, removed)
    if not found:
        return None
    best = max(found, key=lambda name: found[name][0])
    _, fitted, removed = found[best]
    gained, lost = int((removed & ~model).sum()), int((model & ~removed).sum())
    if gained - lost < LEAST_GAIN * false.sum() or _by_chance(gained, lost) * len(found) > 0.005:
        return None
    shares = {"model": float(model[false].mean()), best: float(removed[false].mean())}
    return replace(fitted, caller_score=best, removed=shares)


def _removed(alleles: Alleles, scores: Floats, calibration: Calibration) -> Bools:
    """Which alleles [n] do not pass."""
    values = calibration.apply(scores, alleles.indels)
    return ~calibration.decide(values, alleles.indels, {}, COMPARED)[0]


def _by_chance(gained: int, lost: int) -> float:
    """How often a fair coin gives ``gained`` or more of all that differ."""
    from scipy.stats import binom

    return float(binom.sf(gained - 1, gained + lost, 0.5))


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
