"""How well each score and filter tells real alleles from false ones, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cordon.calls.callers import CALLERS
from cordon.report.figures.names import display, style
from cordon.report.figures.vega import (
    PALETTE,
    SOLID,
    Figure,
    Spec,
    Style,
    axis,
    finish,
    nominal,
    series,
    tooltip,
)

STEADY_RECALL = 0.05  # below it precision rests on a handful of alleles and does not set the axis
STEADY_SHARE = 0.5  # of the most that any score finds: below it no filter is set

Score = Mapping[str, Any]
Points = list[dict[str, Any]]
# A score's curve as its x and its y values.
Curve = Callable[[Score], tuple[Sequence[float], Sequence[float]]]


def roc(evaluation: Mapping[str, Any]) -> Figure | None:
    """ROC curves of every score, with each filter's operating point."""
    alleles = evaluation["alleles"]
    points = _points(
        (item, item["false_kept"] / alleles["false"], item["true_kept"] / alleles["true"])
        for item in evaluation["filters"]
        if alleles["false"] and alleles["true"]
    )
    axes = _axes(("Share of false alleles kept", "Share of real alleles kept"), [0, 1], [0, 1])
    caption = (
        "Up and to the left is better. Colours as in the table of scores; diamonds are filters as they ship."
    )
    title = "ROC: real kept against false kept"
    return _curves(evaluation, "roc", _roc, axes, points, title, caption, "auroc")


def precision_recall(evaluation: Mapping[str, Any]) -> Figure | None:
    """Precision-recall curves of every score, with each filter's operating point."""
    real = evaluation["alleles"]["true"]
    points = _points(
        (item, item["true_kept"] / real, item["precision"])
        for item in evaluation["filters"]
        if real and item["precision"] is not None
    )
    drawn = [item["pr"] for item in evaluation["scores"] if item.get("pr")]
    lowest = min(
        (
            precision
            for curve in drawn
            for recall, precision in zip(curve["recall"], curve["precision"], strict=True)
            if recall >= STEADY_RECALL
        ),
        default=0.0,
    )
    window = [max(0.0, int(lowest * 10 - 0.5) / 10), 1]
    axes = _axes(("Recall (share of real alleles kept)", "Precision"), [0, 1], window)
    caption = "Up and to the right is better. Recall is over the real alleles that some caller proposed."
    return _curves(evaluation, "pr", _pr, axes, points, "Precision against recall", caption, "auprc")


def sensitivity(evaluation: Mapping[str, Any]) -> Figure | None:
    """Truth sensitivity against false calls kept, as numbers: what a laboratory loses and has to look at."""
    alleles = evaluation["alleles"]
    truth = alleles["truth"] or alleles["true"]
    points = _points(
        (item, item["false_kept"], item["true_kept"] / truth) for item in evaluation["filters"] if truth
    )
    best = alleles["true"] / truth if truth else 0.0
    window = [max(0.0, int(best * STEADY_SHARE * 10) / 10), min(1.0, int(best * 20 + 1.5) / 20)]
    axes = _axes(("False calls kept", "Truth sensitivity"), [0, alleles["false"]], window, ".0f")

    def curve(item: Score) -> tuple[Sequence[float], Sequence[float]]:
        false, real = _roc(item)
        return [x * alleles["false"] for x in false], [y * best for y in real]

    missed = alleles["truth"] - alleles["true"] if evaluation["truth_source"] == "truth set" else 0
    caption = "Up and to the left is better. " + (
        f"No filter can find the {missed:,} truth allele{'' if missed == 1 else 's'} that no caller proposed."
        if missed
        else "Sensitivity is over the real alleles among the candidates."
    )
    title = "Truth sensitivity against false calls"
    return _curves(evaluation, "sensitivity", curve, axes, points, title, caption, "auroc")


def reliability(evaluation: Mapping[str, Any]) -> Figure | None:
    """The share of real alleles against Cordon's stated probability, in tenths."""
    held = evaluation.get("calibration")
    if not held or not held["bins"]:
        return None
    legend = [("Cordon", Style(PALETTE[0], SOLID, 2.2, dot=True))]
    ends = [{"stated": 0, "real": 0}, {"stated": 1, "real": 1}]
    fields = {
        "x": axis("stated", "Stated probability that the allele is real", domain=[0, 1]),
        "y": axis("real", "Share that is real", domain=[0, 1]),
    }
    ideal = {
        "data": {"values": ends},
        "mark": {"type": "line", "strokeDash": [2, 3], "color": "var(--muted-line)"},
        "encoding": fields,
    }
    values = {"values": held["bins"]}
    line = {"data": values, "mark": {"type": "line", "strokeWidth": 2.2, "color": PALETTE[0]}}
    size = {"field": "alleles", "type": "quantitative", "scale": {"range": [40, 420]}, "legend": None}
    shown = tooltip(stated=("Stated", ".3f"), real=("Real", ".3f"), alleles=("Alleles", ",d"))
    marks = {
        "data": values,
        "mark": {"type": "point", "filled": True, "opacity": 1, "color": PALETTE[0]},
        "encoding": {**fields, "size": size, "tooltip": shown},
    }
    alt = (
        f"Share of real alleles against the stated probability in {len(held['bins'])} bins; mean distance "
        f"{held['ece']:.3f}, Brier score {held['brier']:.3f}."
    )
    caption = (
        f"On the dotted line a stated probability is what happens. Mean distance {held['ece']:.3f} (expected "
        f"calibration error), Brier score {held['brier']:.3f}; larger dots hold more alleles; bars are 95 % "
        "intervals (Wilson)."
    )
    spans = {
        "data": values,
        "mark": {"type": "rule", "color": PALETTE[0], "opacity": 0.6},
        "encoding": {
            "x": fields["x"],
            "y": {"field": "real_low", "type": "quantitative"},
            "y2": {"field": "real_high"},
        },
    }
    layers = [ideal, spans, {**line, "encoding": fields}, marks]
    return finish("reliability", "Calibration", alt, caption, {"layer": layers}, 360, legend)


def _roc(item: Score) -> tuple[Sequence[float], Sequence[float]]:
    return item["roc"]["fpr"], item["roc"]["tpr"]


def _pr(item: Score) -> tuple[Sequence[float], Sequence[float]]:
    return item["pr"]["recall"], item["pr"]["precision"]


def _axes(titles: tuple[str, str], x: list[float], y: list[float], form: str = ".3f") -> dict[str, Any]:
    return {
        "x": axis("x", titles[0], domain=x),
        "y": axis("y", titles[1], domain=y),
        "shown": {"x": (titles[0], form), "y": (titles[1], ".3f")},
    }


def _points(rows: Iterable[tuple[Score, float, float]]) -> Points:
    return [{"filter": display(item["name"]), "name": item["name"], "x": x, "y": y} for item, x, y in rows]


def _curves(
    evaluation: Mapping[str, Any],
    name: str,
    curve: Curve,
    axes: dict[str, Any],
    points: Points,
    title: str,
    caption: str,
    area: str,
) -> Figure | None:
    scores = [item for item in evaluation["scores"] if item.get("roc")]
    if not scores:
        return None
    drawn = sorted(scores, key=lambda item: item["name"] == "cordon")
    legend = [(display(item["name"]), style(item["name"])) for item in drawn]
    low = axes["y"]["scale"]["domain"][0]
    values = [
        {"score": display(item["name"]), "x": x, "y": y, "order": place}
        for item in drawn
        for place, (x, y) in enumerate(zip(*curve(item), strict=True))
        if y >= low
    ]
    names = [name for name, _ in legend]
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "linear", "strokeJoin": "round"},
        "encoding": {
            "x": axes["x"],
            "y": axes["y"],
            "order": {"field": "order", "type": "quantitative"},
            "color": series("score", legend),
            "strokeDash": nominal("score", names, [look.dash or [1, 0] for _, look in legend]),
            "strokeWidth": {"condition": {"test": "datum.score == 'Cordon'", "value": 3.2}, "value": 1.8},
            "tooltip": tooltip(score="Score", **axes["shown"]),
        },
    }
    shown = sorted(display(item["name"]) + f" {item[area]:.3f}" for item in scores)
    alt = f"{title}. {area.upper()} of each score: {', '.join(shown)}."
    points = [point for point in points if point["y"] >= low]
    return finish(name, title, alt, caption, {"layer": [line, *_operating_points(points, axes)]}, 360)


def _operating_points(points: Points, axes: dict[str, Any]) -> list[Spec]:
    """Diamonds where the filters stand; each caller in its colour, the union in grey."""
    colours = [{"test": f"indexof(datum.name, '{caller}') == 0", "value": PALETTE[1 + place]}
               for place, caller in enumerate(CALLERS)]  # fmt: skip
    colours.insert(0, {"test": "indexof(datum.name, 'cordon') == 0", "value": PALETTE[0]})
    mark = {"type": "point", "shape": "diamond", "size": 130, "filled": True, "opacity": 1,
            "stroke": "var(--paper)", "strokeWidth": 1.4}  # fmt: skip
    encoding = {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"field": "y", "type": "quantitative"},
        "color": {"condition": colours, "value": "var(--muted-line)"},
        "tooltip": tooltip(filter="Filter", **axes["shown"]),
    }
    return [{"data": {"values": points}, "mark": mark, "encoding": encoding}] if points else []
