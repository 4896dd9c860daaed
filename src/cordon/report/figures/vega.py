"""The look that all figures share: Vega-Lite building blocks and the static twin as SVG.

Colours are the page's CSS variables, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Spec = dict[str, Any]

PALETTE = [f"var(--series-{index})" for index in range(1, 7)]
SOLID: list[int] = []
DASHES = [SOLID, [6, 3], [2, 3], [8, 3, 2, 3]]
STATIC_WIDTH = 620
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """How one series is drawn, in a figure and beside its name in a table."""

    colour: str
    dash: list[int]
    width: float
    dot: bool = False


@dataclass(frozen=True)
class Figure:
    """One figure: ``spec`` for the browser, ``svg`` for print and for browsers without scripts.

    ``title`` and ``caption`` are printed, ``alt`` says in words what the figure shows.
    """

    name: str
    title: str
    alt: str
    caption: str
    spec: Spec
    svg: str
    legend: Sequence[tuple[str, Style]] = ()


def short(value: float) -> str:
    """A small number as people write it: ``10⁻⁵`` for 1e-05, ``2×10⁻⁶`` for 2e-06."""
    factor, e, power = f"{value:g}".partition("e")
    if not e:
        return factor
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if factor == "1" else f"{factor}×10{raised}"


def as_json(spec: Spec) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(spec, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def axis(field: str, title: str, domain: list[float] | None = None, zero: bool = False) -> Spec:
    """A quantitative axis of few ticks."""
    scale = {"domain": domain, "nice": False} if domain else {"zero": zero}
    return {"field": field, "type": "quantitative", "axis": {"title": title, "tickCount": 5}, "scale": scale}


def series(field: str, legend: Sequence[tuple[str, Style]]) -> Spec:
    """The colour of each series, as in its legend; the legend itself is the page's."""
    return nominal(field, [name for name, _ in legend], [look.colour for _, look in legend])


def nominal(field: str, domain: Sequence[str], values: Sequence[Any]) -> Spec:
    """A fixed mapping of names to looks, without Vega's own legend."""
    scale = {"domain": list(domain), "range": list(values)}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def rounds(numbers: Sequence[int], field: str = "round") -> Spec:
    """An axis of rounds, at most about ten of them labelled."""
    step = -(-len(numbers) // 10)
    axis = {
        "title": "Round",
        "format": "d",
        "grid": False,
        "labelOverlap": False,
        "values": [*numbers[::step]],
    }
    scale = {"domain": [min(numbers) - 0.4, max(numbers) + 0.4], "nice": False}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def limit(value: float, text: str, dy: int = -4) -> Spec:
    """A horizontal line that is not to be crossed, with its name above it (below it with ``dy`` > 0)."""
    rule = {"mark": {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.5, "color": "var(--alarm)"}}
    name = {
        "mark": {
            "type": "text", "align": "left", "baseline": "bottom" if dy < 0 else "top", "dy": dy, "dx": 4,
            "color": "var(--alarm)",
        },
        "encoding": {"text": {"value": text}, "x": {"value": 0}},
    }  # fmt: skip
    shared = {"y": {"field": "limit", "type": "quantitative"}}
    return {"data": {"values": [{"limit": value}]}, "encoding": shared, "layer": [rule, name]}


def tooltip(**titles: str | tuple[str, str]) -> list[Spec]:
    """What a pointer over a mark shows, in order: field=title, or (title, format) for a number.

    A title alone is of words; a format is d3's, such as ``.3f``.
    """
    return [
        {"field": field, "title": title, "type": "nominal"}
        if isinstance(title, str)
        else {"field": field, "title": title[0], "type": "quantitative", "format": title[1]}
        for field, title in titles.items()
    ]


def finish(
    name: str,
    title: str,
    alt: str,
    caption: str,
    body: Spec,
    height: int,
    legend: Sequence[tuple[str, Style]] = (),
) -> Figure:
    """Give a figure the page's look and draw its static twin."""
    axes = {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "gridColor": "var(--rule)", "domain": False,
        "ticks": False, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400, "labelPadding": 7,
        "titlePadding": 10,
    }  # fmt: skip
    config = {"font": SANS, "axis": axes, "view": {"stroke": None}, "background": None, "aria": False}
    spec = {**body, "width": "container", "height": height, "config": config}
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    svg = _static(json.dumps({**spec, "width": STATIC_WIDTH}))
    return Figure(name, title, alt, caption, spec, svg, legend)


@lru_cache(maxsize=64)
def _static(spec: str) -> str:
    """The figure of a specification (JSON) as SVG; the report that may leave shares most of them."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec)
    # A viewBox without a size lets CSS scale the figure; the namespaces are for stand-alone files only.
    return re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 focusable="false">', svg)
