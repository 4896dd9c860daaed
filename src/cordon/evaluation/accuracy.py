"""Measures of one score or one filter against known labels: areas, curves, counts and shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from cordon.arrays import Bools, Floats

CURVE_POINTS = 200
RELIABILITY_BINS = 10


def rank(real: Bools, score: Floats) -> dict[str, float | None]:
    """AUROC and average precision of one score; both None unless real and false alleles are there."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if real.all() or not real.any():
        return {"auroc": None, "auprc": None}
    return {
        "auroc": round(float(roc_auc_score(real, score)), 6),
        "auprc": round(float(average_precision_score(real, score)), 6),
    }


def curves(real: Bools, score: Floats) -> dict[str, dict[str, list[float]] | None]:
    """ROC and precision-recall curves of one score, each thinned to at most 200 points."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    if real.all() or not real.any():
        return {"roc": None, "pr": None}
    fpr, tpr, _ = roc_curve(real, score)
    precision, recall, _ = precision_recall_curve(real, score)
    roc, pr = _thin(fpr, tpr), _thin(recall[::-1], precision[::-1])
    return {"roc": {"fpr": roc[0], "tpr": roc[1]}, "pr": {"recall": pr[0], "precision": pr[1]}}


def keep(real: Bools, kept: Bools, truth: int | None) -> dict[str, int | float | None]:
    """Counts, sensitivity (over ``truth`` alleles), recall (over proposed real ones), precision and F1."""
    true_kept, false_kept = int((real & kept).sum()), int((~real & kept).sum())
    return {
        "true_kept": true_kept,
        "false_kept": false_kept,
        "sensitivity": _ratio(true_kept, truth),
        "recall": _ratio(true_kept, int(real.sum())),
        "precision": _ratio(true_kept, true_kept + false_kept),
        "f1": _ratio(2 * true_kept, true_kept + false_kept + truth) if truth is not None else None,
    }


def reliability(real: Bools, log_odds: Floats) -> dict[str, Any]:
    """How well natural ``log_odds`` [n] agree, as probabilities, with what is real [n].

    ``bins`` part the probabilities into tenths: in each, the mean stated probability and the share that is
    real, with its 95 % interval. ``ece`` is the mean distance between the two, weighted by alleles (Naeini
    et al. 2015), ``brier`` the mean squared distance of each probability from its label (Brier 1950).
    """
    from scipy.special import expit

    stated = expit(log_odds)
    place = np.minimum((stated * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    bins = [
        {
            "low": index / RELIABILITY_BINS,
            "high": (index + 1) / RELIABILITY_BINS,
            "alleles": int(rows.sum()),
            "stated": round(float(stated[rows].mean()), 6),
            "real": round(float(real[rows].mean()), 6),
            **wilson(int(real[rows].sum()), int(rows.sum())),
        }
        for index in range(RELIABILITY_BINS)
        if (rows := place == index).any()
    ]
    error = sum(entry["alleles"] * abs(entry["stated"] - entry["real"]) for entry in bins) / real.size
    return {
        "bins": bins, "ece": round(error, 6), "brier": round(float(np.square(stated - real).mean()), 6),
    }  # fmt: skip


def wilson(count: int, of: int) -> dict[str, float]:
    """``real_low`` and ``real_high``: a share's 95 % interval (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return {"real_low": round(float(found.low), 6), "real_high": round(float(found.high), 6)}


def _thin(x: Floats, y: Floats) -> tuple[list[float], list[float]]:
    """At most CURVE_POINTS points of a curve, evenly spread along its length, both ends kept."""
    if x.size > CURVE_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        chosen = np.searchsorted(length, np.linspace(0.0, length[-1], CURVE_POINTS))
        chosen[-1] = x.size - 1
        x, y = x[np.unique(chosen)], y[np.unique(chosen)]
    return [round(float(value), 5) for value in x], [round(float(value), 5) for value in y]


def _ratio(part: int, whole: int | None) -> float | None:
    return round(part / whole, 6) if whole else None
