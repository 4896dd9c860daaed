"""The report's figures: curves of accuracy, epsilon spent, update norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cordon.features import CALLERS
from cordon.report.sources import Federation, Guarantee
from cordon.report.vega import (
    DASHES,
    PALETTE,
    SOLID,
    Figure,
    Spec,
    Style,
    axis,
    finish,
    nominal,
    series,
    short,
    tooltip,
)  # fmt: skip

NAMES = {
    "haplotypecaller": "HaplotypeCaller",
    "deepvariant": "DeepVariant",
    "other": "Other caller",
    "cordon": "Cordon",
}
STEADY_RECALL = 0.05  # below it precision rests on a handful of alleles and does not set the axis


def display(name: str) -> str:
    """A score's or filter's name as people write it: ``haplotypecaller QD`` -> ``HaplotypeCaller QD``."""
    first, space, rest = name.partition(" ")
    return NAMES.get(first, first) + space + rest


def style(name: str, alone: Sequence[str]) -> Style:
    """Cordon is bold; a caller keeps one colour, dashed for QD; models of one site (``alone``) are grey."""
    if name == "cordon":
        return Style(PALETTE[0], SOLID, 3.2)
    caller, _, kind = name.partition(" ")
    if name in alone or caller not in CALLERS:
        place = list(alone).index(name) if name in alone else 0
        return Style("var(--muted-line)", DASHES[1 + place % 3], 1.6)
    return Style(PALETTE[1 + CALLERS.index(caller)], DASHES[1] if kind == "QD" else SOLID, 1.8)


def roc(evaluation: Mapping[str, Any]) -> Figure | None:
    """ROC curves of every score, with each filter's operating point."""
    alleles = evaluation["alleles"]
    points = [
        {"filter": display(item["name"]), "name": item["name"], "x": item["false_kept"] / alleles["false"],
         "y": item["true_kept"] / alleles["true"]}
        for item in evaluation["filters"] if alleles["false"] and alleles["true"]
    ]  # fmt: skip
    axes = ("Share of false alleles kept", "Share of real alleles kept")
    caption = (
        "Up and to the left is better. Colours as in the table of scores; diamonds are filters as they ship."
    )
    return _curves(
        evaluation, "roc", ("fpr", "tpr"), axes, points, "ROC: real kept against false kept", caption
    )


def precision_recall(evaluation: Mapping[str, Any]) -> Figure | None:
    """Precision-recall curves of every score, with each filter's operating point."""
    alleles = evaluation["alleles"]
    points = [
        {"filter": display(item["name"]), "name": item["name"], "x": item["true_kept"] / alleles["true"],
         "y": item["precision"]}
        for item in evaluation["filters"] if alleles["true"] and item["precision"] is not None
    ]  # fmt: skip
    axes = ("Recall (share of real alleles kept)", "Precision")
    caption = "Up and to the right is better. Recall is over the real alleles that some caller proposed."
    return _curves(
        evaluation, "pr", ("recall", "precision"), axes, points, "Precision against recall", caption
    )


def epsilon(federation: Federation) -> Figure | None:
    """Epsilon spent after each round by both accountants, against the budget."""
    groups = _trajectories(federation)
    legend = [
        (_together(sites), Style(PALETTE[i % 6], SOLID, 2.2)) for i, sites in enumerate(groups.values())
    ]
    values = [
        {"sites": name, "round": number, "accountant": accountant, "epsilon": value}
        for path, (name, _) in zip(groups, legend, strict=True)
        for number, rdp, pld in path
        for accountant, value in (("RDP", rdp), ("PLD", pld))
        if value is not None and math.isfinite(value)
    ]
    if not values:
        return None
    layers = [
        {
            "data": {"values": values},
            "mark": {"type": "line", "point": {"filled": True, "size": 42}, "strokeWidth": 2.2},
            "encoding": {
                "x": _rounds(federation),
                "y": axis("epsilon", "ε spent so far", zero=True),
                "color": series("sites", legend),
                "strokeDash": nominal("accountant", ["RDP", "PLD"], [[1, 0], [5, 4]]),
                "tooltip": tooltip(
                    sites="Site", round="Round", accountant="Accountant", epsilon="ε spent so far"
                ),
            },
        },
        _budget(federation.budget),
    ]
    caption = (
        f"Solid: RDP accountant. Dashed: PLD accountant. Sites with the same spending share a line. "
        f"Budget ε\u00a0=\u00a0{federation.budget:g} {beside(federation.guarantee)}."
    )
    alt = f"Epsilon spent by round {beside(federation.guarantee)}; the table of sites gives the same numbers."
    return finish("epsilon", "Spent so far, by round", alt, caption, {"layer": layers}, 250, legend)


def norms(federation: Federation) -> Figure | None:
    """The L2 norm of every update that reached the aggregator."""
    names = sorted({site.site for turn in federation.rounds for site in turn.sites})
    legend = [(name, Style(PALETTE[index % 6], SOLID, 2.2, dot=True)) for index, name in enumerate(names)]
    # Sites stand side by side within their round, or equal norms would hide each other.
    aside = {
        name: (index - (len(names) - 1) / 2) * min(0.1, 0.6 / len(names)) for index, name in enumerate(names)
    }
    values = [
        {
            "site": site.site,
            "x": turn.round + aside[site.site],
            "round": turn.round,
            "decision": site.decision,
            "norm": site.update_norm,
        }
        for turn in federation.rounds
        for site in turn.sites
        if site.update_norm is not None
    ]
    if not values:
        return None
    shapes = nominal("decision", ["accepted", "quarantined", "missing"], ["circle", "cross", "triangle"])
    mark = {"type": "point", "filled": True, "size": 85, "opacity": 0.9}
    encoding = {
        "x": {**_rounds(federation), "field": "x"},
        "y": axis("norm", "L2 norm of the update", zero=True),
        "color": series("site", legend),
        "shape": shapes,
        "tooltip": tooltip(site="Site", round="Round", decision="Decision", norm="L2 norm"),
    }
    spec = {"data": {"values": values}, "mark": mark, "encoding": encoding}
    caption = "Each mark is one update as it arrived, noise included. Crosses were quarantined."
    alt = "Update norm of each site by round; quarantined updates are crosses."
    return finish("norms", "Norm of each update", alt, caption, spec, 230, legend)


def beside(guarantee: Guarantee) -> str:
    """What must stand beside every epsilon: unit, delta, mechanism and adjacency."""
    return (
        f"per {guarantee.unit}, δ\u00a0=\u00a0{short(guarantee.delta)}, {guarantee.mechanism} mechanism, "
        f"adjacency: {guarantee.adjacency}"
    )


def _trajectories(federation: Federation) -> dict[tuple[Any, ...], list[str]]:
    """(round, RDP, PLD) of every round that a site was in -> the sites that share this path."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for outcome in federation.sites:
        rows = [
            (turn.round, site)
            for turn in federation.rounds
            for site in turn.sites
            if site.site == outcome.site
        ]
        path = tuple((number, site.epsilon_rdp, site.epsilon_pld) for number, site in rows)
        groups.setdefault(path, []).append(outcome.site)
    return groups


def _curves(
    evaluation: Mapping[str, Any],
    key: str,
    fields: tuple[str, str],
    axes: tuple[str, str],
    points: Sequence[Mapping[str, Any]],
    title: str,
    caption: str,
) -> Figure | None:
    scores = [item for item in evaluation["scores"] if item.get(key)]
    if not scores:
        return None
    alone = [item["name"] for item in scores if item["name"].endswith(" alone")]
    drawn = sorted(scores, key=lambda item: item["name"] == "cordon")
    legend = [(display(item["name"]), style(item["name"], alone)) for item in drawn]
    window = _window(drawn, key, fields[1])
    values = [
        {"score": display(item["name"]), "x": x, "y": y, "order": place}
        for item in drawn
        for place, (x, y) in enumerate(zip(item[key][fields[0]], item[key][fields[1]], strict=True))
        if y >= window[0]
    ]
    names = [name for name, _ in legend]
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "interpolate": "linear", "strokeJoin": "round"},
        "encoding": {
            "x": axis("x", axes[0], domain=[0, 1]),
            "y": axis("y", axes[1], domain=window),
            "order": {"field": "order", "type": "quantitative"},
            "color": series("score", legend),
            "strokeDash": nominal("score", names, [look.dash or [1, 0] for _, look in legend]),
            "strokeWidth": {"condition": {"test": "datum.score == 'Cordon'", "value": 3.2}, "value": 1.8},
            "tooltip": tooltip(score="Score", x=axes[0], y=axes[1]),
        },
    }
    shown = sorted(
        display(item["name"]) + f" {item['auroc' if key == 'roc' else 'auprc']:.3f}" for item in scores
    )
    alt = f"{title}. Area under each curve: {', '.join(shown)}."
    return finish(key, title, alt, caption, {"layer": [line, *_operating_points(points, axes)]}, 360)


def _operating_points(points: Sequence[Mapping[str, Any]], axes: tuple[str, str]) -> list[Spec]:
    """Diamonds where the filters stand; each caller in its colour, the union in grey."""
    colours = [{"test": f"indexof(datum.name, '{caller}') == 0", "value": PALETTE[1 + place]}
               for place, caller in enumerate(CALLERS)]  # fmt: skip
    colours.insert(0, {"test": "datum.name == 'cordon'", "value": PALETTE[0]})
    mark = {"type": "point", "shape": "diamond", "size": 130, "filled": True, "opacity": 1,
            "stroke": "var(--paper)", "strokeWidth": 1.4}  # fmt: skip
    encoding = {
        "x": {"field": "x", "type": "quantitative"},
        "y": {"field": "y", "type": "quantitative"},
        "color": {"condition": colours, "value": "var(--muted-line)"},
        "tooltip": tooltip(filter="Filter", x=axes[0], y=axes[1]),
    }
    return [{"data": {"values": list(points)}, "mark": mark, "encoding": encoding}] if points else []


def _window(scores: Sequence[Mapping[str, Any]], key: str, field: str) -> list[float]:
    """0 to 1 for ROC; for precision, from below the lowest value, because the top is where the news is."""
    if key == "roc":
        return [0, 1]
    lowest = min(
        precision
        for item in scores
        for recall, precision in zip(item[key]["recall"], item[key][field], strict=True)
        if recall >= STEADY_RECALL
    )
    return [max(0.0, int(lowest * 10 - 0.5) / 10), 1]


def _budget(budget: float) -> Spec:
    rule = {"mark": {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.5, "color": "var(--alarm)"}}
    text = {
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "bottom",
            "dy": -4,
            "dx": 4,
            "color": "var(--alarm)",
        },
        "encoding": {"text": {"value": "budget"}, "x": {"value": 0}},
    }
    shared = {"y": {"field": "budget", "type": "quantitative"}}
    return {"data": {"values": [{"budget": budget}]}, "encoding": shared, "layer": [rule, text]}


def _rounds(federation: Federation) -> Spec:
    numbers = [turn.round for turn in federation.rounds]
    step = -(-len(numbers) // 10)
    axis = {"title": "Round", "format": "d", "grid": False, "labelOverlap": False, "values": numbers[::step]}
    scale = {"domain": [min(numbers) - 0.4, max(numbers) + 0.4], "nice": False}
    return {"field": "round", "type": "quantitative", "axis": axis, "scale": scale}


def _together(sites: Sequence[str]) -> str:
    return ", ".join(sites) if len(sites) <= 3 else f"{', '.join(sites[:2])} and {len(sites) - 2} more"
