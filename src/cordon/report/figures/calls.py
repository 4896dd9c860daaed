"""What callers agree on, and the two ratios that tell a clean set of calls from a noisy one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cordon.report.figures.names import CORDON, display, together
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

RATIOS = {"ti_tv": "Ti/Tv", "het_hom": "het/hom"}


def overlap(callset: Mapping[str, Any]) -> Figure | None:
    """How many alleles each combination of callers called, and how many of them Cordon passes."""
    rows = sorted(callset["callers"], key=lambda row: -row["alleles"])
    if not rows:
        return None
    legend = [
        ("passed by Cordon", Style(PALETTE[0], SOLID, 6)),
        ("not passed", Style("var(--muted-line)", SOLID, 6)),
    ]
    values = [
        {"callers": together(row["callers"]), "verdict": verdict, "alleles": count, "order": place}
        for row in rows
        for place, (verdict, count) in enumerate(
            (("passed by Cordon", row["pass"]), ("not passed", row["alleles"] - row["pass"]))
        )
    ]
    spec = {
        "data": {"values": values},
        "mark": {"type": "bar", "height": {"band": 0.62}},
        "encoding": {
            "y": _names("callers", [together(row["callers"]) for row in rows]),
            "x": axis("alleles", "Alleles", zero=True),
            "color": series("verdict", legend),
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": tooltip(callers="Called by", verdict="Cordon", alleles=("Alleles", ",d")),
        },
    }
    most = rows[0]
    alt = (
        f"Alleles by the callers that called them: {together(most['callers'])} {most['alleles']:,} of "
        f"{callset['alleles']:,}; the table of agreement gives all {len(rows)} rows."
    )
    caption = "What several callers propose is more often real; filters differ on what one alone proposes."
    return finish("overlap", "Callers' agreement", alt, caption, spec, 34 * len(rows) + 20, legend)


def ratios(callset: Mapping[str, Any]) -> Figure | None:
    """Ti/Tv and het/hom of what each filter keeps."""
    legend = [
        (RATIOS["ti_tv"], Style(PALETTE[0], SOLID, 2.2, dot=True)),
        (RATIOS["het_hom"], Style(PALETTE[1], SOLID, 2.2, dot=True)),
    ]
    values = [
        {"filter": filter_name(row["name"]), "ratio": title, "value": row[field]}
        for row in callset["filters"]
        for field, title in RATIOS.items()
        if row[field] is not None
    ]
    if not values:
        return None
    spec = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 95, "opacity": 1},
        "encoding": {
            "y": _names("filter", [filter_name(row["name"]) for row in callset["filters"]]),
            "x": axis("value", "Ratio", zero=True),
            "color": series("ratio", legend),
            "shape": nominal("ratio", [name for name, _ in legend], ["circle", "square"]),
            "tooltip": tooltip(filter="Filter", ratio="Ratio", value=("Value", ".2f")),
        },
    }
    caption = (
        "Ti/Tv is transitions over transversions: about 2.0 to 2.1 over a human genome, higher in exomes, "
        "and lower the more false calls there are. het/hom is heterozygous over homozygous alleles."
    )
    alt = "Ti/Tv and het/hom of what each filter keeps; the table of filters without truth gives the numbers."
    height = 30 * len(callset["filters"]) + 20
    return finish("ratios", "Ti/Tv and het/hom, before and after", alt, caption, spec, height, legend)


def filter_name(name: str) -> str:
    """A filter as the report names it."""
    if name == "no filter":
        return "no filter"
    if name in CORDON:
        return CORDON[name]
    return display(name) if name.endswith(" unfiltered") else f"{display(name)} filtered"


def _names(field: str, order: list[str]) -> Spec:
    look = {"title": None, "labelLimit": 260, "grid": False}
    return {"field": field, "type": "nominal", "sort": order, "axis": look}
