"""Accuracy by group of alleles: the groups as tables show them, and a figure of Cordon beside a caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordon.report.figures.names import display, style, together
from cordon.report.figures.vega import PALETTE, SOLID, Figure, Style, axis, finish, series, tooltip

Stratum = Mapping[str, Any]

# Kinds of strata in the order that they are shown: title in the tables, and before the name in the figure.
KINDS = {
    "frequency": ("Allele frequency in the resource", "Frequency"),
    "zygosity": ("Zygosity, where no allele frequency is known", "Zygosity"),
    "type": ("Type", "Type"),
    "size": ("Bases inserted or deleted", "Size"),
    "context": ("Sequence around it", "Context"),
    "callers": ("Called by", "Called by"),
    "site": ("Site", "Site"),
}
# Real and false alleles that a group needs for its AUROC to be drawn: with fewer it is mostly chance.
FEWEST = 20


@dataclass(frozen=True)
class StrataOfKind:
    """The strata of one kind; ``rows`` are name and stratum as in evaluation.json."""

    kind: str
    title: str
    rows: Sequence[tuple[str, Stratum]]


def groups(evaluation: Mapping[str, Any] | None) -> list[StrataOfKind]:
    """The strata by kind, in the order of KINDS; kinds without any are left out."""
    found = evaluation.get("strata", []) if evaluation else []
    known = [
        StrataOfKind(
            kind,
            title,
            [(_name(kind, item["name"]), item) for item in found if item["kind"] == kind],
        )
        for kind, (title, _) in KINDS.items()
    ]
    return [group for group in known if group.rows]


def figure(evaluation: Mapping[str, Any]) -> Figure | None:
    """AUROC in every group of Cordon and of the caller's score that is best over all alleles."""
    best = _best(evaluation)
    if best is None:
        return None
    caller = style(best)
    legend = [
        ("Cordon", Style(PALETTE[0], SOLID, 2.2, dot=True)),
        (display(best), Style(caller.colour, SOLID, 2.2, dot=True)),
    ]
    pairs = [
        (f"{KINDS[group.kind][1]}: {name}", *values)
        for group in groups(evaluation)
        for name, stratum in group.rows
        if (values := _pair(stratum, best))
    ]
    if len(pairs) < 2:
        return None
    order = [name for name, *_ in pairs]
    # The vertical axis is text, not a number: its look is its own.
    vertical = {
        "field": "group",
        "type": "nominal",
        "sort": order,
        "axis": {"title": None, "labelLimit": 260, "grid": False},
    }
    lines = {
        "data": {"values": [{"group": name, "low": min(pair), "high": max(pair)} for name, *pair in pairs]},
        "mark": {"type": "rule", "strokeWidth": 1.6, "color": "var(--muted-line)"},
        "encoding": {"y": vertical, "x": axis("low", "AUROC"), "x2": {"field": "high"}},
    }
    marks = {
        "data": {
            "values": [
                {"group": name, "score": score, "auroc": value}
                for name, *pair in pairs
                for (score, _), value in reversed(list(zip(legend, pair, strict=True)))
            ]
        },
        "mark": {"type": "point", "filled": True, "size": 95, "opacity": 1},
        "encoding": {
            "y": vertical,
            "x": axis("auroc", "AUROC"),
            "color": series("score", legend),
            "tooltip": tooltip(group="Group", score="Score", auroc=("AUROC", ".3f")),
        },
    }
    lead = sum(ours > theirs for _, ours, theirs in pairs)
    alt = f"AUROC of Cordon and of {display(best)} in {len(pairs)} groups; Cordon's is higher in {lead}."
    caption = (
        f"Further right is better. Groups with fewer than {FEWEST} real or {FEWEST} false alleles are in the "
        "table only."
    )
    height = 26 * len(pairs) + 10
    return finish(
        "strata", "AUROC by group of alleles", alt, caption, {"layer": [lines, marks]}, height, legend
    )


def _name(kind: str, name: str) -> str:
    if kind == "callers":
        return together(name.split(";"))
    return name if kind == "site" else name.replace("-", "–") if name[:1].isdigit() else name


def _best(evaluation: Mapping[str, Any]) -> str | None:
    """The caller's score with the highest AUROC over all alleles."""
    scores = {
        item["name"]: item["auroc"]
        for item in evaluation["scores"]
        if item["auroc"] is not None and item["name"] != "cordon"
    }
    return max(scores, key=lambda name: float(scores[name])) if scores else None


def _pair(stratum: Stratum, best: str) -> tuple[float, float] | None:
    """AUROC of Cordon and of the best caller's score, where the group is large enough for both."""
    if min(stratum["alleles"]["true"], stratum["alleles"]["false"]) < FEWEST:
        return None
    known = {item["name"]: item["auroc"] for item in stratum["scores"]}
    ours, theirs = known.get("cordon"), known.get(best)
    return None if ours is None or theirs is None else (float(ours), float(theirs))
