"""The updates as they arrived: their length against the ceiling, their small numbers against the floor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cordon.report.figures.vega import (
    PALETTE,
    SOLID,
    Figure,
    Style,
    axis,
    finish,
    limit,
    nominal,
    rounds,
    series,
    tooltip,
)
from cordon.report.sources import Federation, SiteRound

Cells = dict[str, Any]


def norms(federation: Federation) -> Figure | None:
    """The L2 norm of every update that reached the aggregator, and the ceiling of each that was measured."""
    values = [
        {**row, "norm": site.update_norm, "ceiling": site.ceiling}
        for row, site in _rows(federation)
        if site.update_norm
    ]
    if not values:
        return None
    legend, x, shapes = _looks(federation)
    bounded = [row for row in values if row["ceiling"]]
    y = axis("norm", "L2 norm of the update" + (" (logarithmic)" if bounded else ""), zero=True)
    if bounded:
        y["scale"] = {"type": "log"}
    shown = tooltip(site="Site", round=("Round", "d"), decision="Decision", norm=("L2 norm", ".3f"))
    colour = series("site", legend)
    marks = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 85, "opacity": 0.9},
        "encoding": {"x": x, "y": y, "color": colour, "shape": shapes, "tooltip": shown},
    }
    ceilings = {
        "data": {"values": bounded},
        "mark": {"type": "tick", "thickness": 2, "width": 9},
        "encoding": {
            "x": x,
            "y": {"field": "ceiling", "type": "quantitative"},
            "color": colour,
            "tooltip": tooltip(site="Site", round=("Round", "d"), ceiling=("Ceiling", ".3f")),
        },
    }
    caption = "Each mark is one update as it arrived, noise included. Crosses were quarantined." + (
        " A dash above is the ceiling: the longest that clip and noise of the plan let an honest update be."
        if bounded
        else ""
    )
    alt = "Update norm of each site by round; quarantined updates are crosses." + (
        f" The longest is {max(row['norm'] / row['ceiling'] for row in bounded):.0%} of its ceiling."
        if bounded
        else ""
    )
    layers = {"layer": [marks, ceilings] if bounded else [marks]}
    return finish("norms", "Length of each update, against its ceiling", alt, caption, layers, 260, legend)


def floors(federation: Federation) -> Figure | None:
    """How many numbers of each update are small, as a share of how many the plan's noise leaves small."""
    values = [
        {**row, "small": site.small, "most": site.most_small, "share": site.small / site.most_small}
        for row, site in _rows(federation)
        if site.most_small
    ]
    if not values:
        return None
    legend, x, shapes = _looks(federation)
    top = max(1.2, 1.1 * max(row["share"] for row in values))
    shown = tooltip(
        site="Site",
        round=("Round", "d"),
        decision="Decision",
        small=("Small numbers", ",d"),
        most=("At most", ",d"),
    )
    marks = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 85, "opacity": 0.9},
        "encoding": {
            "x": x,
            "y": axis("share", "Small numbers, of those allowed", domain=[0, top]),
            "color": series("site", legend),
            "shape": shapes,
            "tooltip": shown,
        },
    }
    caption = (
        "Noise leaves few numbers of an update small. With more of them than the line allows an update holds "
        "less noise than its site declares, and is quarantined."
    )
    most = max(row["share"] for row in values)
    alt = f"Small numbers of each update as a share of those allowed; the most is {most:.0%}."
    body = {"layer": [marks, limit(1, "floor of noise")]}
    return finish("floors", "Noise in each update, against its floor", alt, caption, body, 260, legend)


def _looks(federation: Federation) -> tuple[list[tuple[str, Style]], Cells, Cells]:
    """Legend, the axis of rounds, and the shapes of decisions."""
    names = _names(federation)
    legend = [(name, Style(PALETTE[index % 6], SOLID, 2.2, dot=True)) for index, name in enumerate(names)]
    shapes = nominal("decision", ["accepted", "quarantined", "missing"], ["circle", "cross", "triangle"])
    return legend, rounds([turn.round for turn in federation.rounds], "x"), shapes


def _rows(federation: Federation) -> Iterator[tuple[Cells, SiteRound]]:
    """Every site in every round; sites stand side by side, or equal values would hide each other."""
    names = _names(federation)
    step = min(0.1, 0.6 / max(1, len(names)))
    for turn in federation.rounds:
        for site in turn.sites:
            aside = (names.index(site.site) - (len(names) - 1) / 2) * step
            row = {"site": site.site, "x": turn.round + aside, "round": turn.round, "decision": site.decision}
            yield row, site


def _names(federation: Federation) -> list[str]:
    return sorted({site.site for turn in federation.rounds for site in turn.sites})
