"""What was spent, round by round, and what privacy costs in accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from importlib.resources import files
from typing import Any

from cordon.federation import expected
from cordon.privacy.guarantee import Guarantee, three_digits
from cordon.privacy.tradeoff import FPR, percent
from cordon.report.figures.names import beside
from cordon.report.figures.vega import (
    DASHES,
    PALETTE,
    SOLID,
    Figure,
    Spec,
    Style,
    axis,
    finish,
    limit,
    nominal,
    rounds,
    series,
    tooltip,
)
from cordon.report.risks import Scope
from cordon.report.sources import Federation


def epsilon(federation: Federation) -> Figure | None:
    """Epsilon spent after each round by both accountants, against the budget."""
    groups = _trajectories(federation)
    legend = [
        (_together(sites), Style(PALETTE[i % 6], SOLID, 2.2)) for i, sites in enumerate(groups.values())
    ]
    values = [
        {
            "sites": name,
            "round": number,
            "accountant": accountant,
            "epsilon": value,
            "shown": three_digits(value, ROUND_CEILING),
        }
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
                "x": rounds([turn.round for turn in federation.rounds]),
                "y": axis("epsilon", "ε spent so far", zero=True),
                "color": series("sites", legend),
                "strokeDash": nominal("accountant", ["RDP", "PLD"], [[1, 0], [5, 4]]),
                "tooltip": tooltip(
                    sites="Site",
                    round=("Round", "d"),
                    accountant="Accountant",
                    shown="ε spent so far",
                ),
            },
        },
        limit(federation.budget, "budget"),
    ]
    caption = (
        f"Solid: RDP accountant. Dashed: PLD accountant. Sites with the same spending share a line. "
        f"Budget ε\u00a0=\u00a0{federation.budget:g} {beside(federation.lifetime)}."
    )
    alt = f"Epsilon spent by round {beside(federation.lifetime)}; the table of sites gives the same numbers."
    return finish("epsilon", "Spent so far, by round", alt, caption, {"layer": layers}, 250, legend)


def utility(guarantee: Guarantee, spent: float, auroc: float | None, patients: int) -> Figure | None:
    """Accuracy against epsilon as measured elsewhere, and where this run stands.

    ``spent`` is the run's epsilon, ``auroc`` its own held-out AUROC where there is one: other data, so only
    its place along the axis of epsilon compares. ``patients`` are those that a site declared. None for a
    unit, delta or mechanism that was not measured.
    """
    measured = benchmark(guarantee.unit, patients)
    if measured is None or not 0 < spent < math.inf:
        return None
    if (measured["delta"], measured["mechanism"]) != (guarantee.delta, guarantee.mechanism):
        return None
    curves = measured["curves"]
    legend = [
        (curve["name"], Style(colour, dash, 2.2))
        for curve, colour, dash in zip(curves, PALETTE[3:], DASHES, strict=False)
    ]
    names = [name for name, _ in legend]
    values = [
        {"curve": curve["name"], "epsilon": epsilon, "auroc": value}
        for curve in curves
        for epsilon, value in zip(curve["epsilon"], curve["auroc"], strict=True)
    ]
    shown = [item["auroc"] for item in values] + ([] if auroc is None else [auroc])
    window = [math.floor(20 * min(shown)) / 20, math.ceil(20 * max(shown)) / 20]
    x = axis("epsilon", "ε (logarithmic)")
    x["scale"] = {"type": "log", "nice": False, "domain": [min(0.4, spent / 1.2), max(10.0, 1.2 * spent)]}
    x["axis"] |= {"values": [0.5, 1, 2, 4, 8, 16, 32], "format": "~g"}
    y = axis("auroc", "AUROC, held out", domain=window)
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "point": {"filled": True, "size": 50}, "strokeWidth": 2.2},
        "encoding": {
            "x": x,
            "y": y,
            "color": series("curve", legend),
            "strokeDash": nominal("curve", names, [look.dash or [1, 0] for _, look in legend]),
            "tooltip": tooltip(curve="Measured", epsilon=("ε", ".3g"), auroc=("AUROC", ".4f")),
        },
    }
    own = [] if auroc is None else [auroc]
    name = {"align": "right", "dx": -6, "dy": 4, "baseline": "top", "color": PALETTE[0]}
    here: list[Spec] = [
        {"mark": {"type": "rule", "strokeWidth": 1.6, "color": PALETTE[0]}, "encoding": {"x": x}},
        {
            "mark": {"type": "text", **name},
            "encoding": {"x": x, "y": {"value": 0}, "text": {"field": "name"}},
        },
    ]
    if own:
        told = tooltip(name="Run", shown="ε", auroc=("AUROC", ".4f"))
        diamond = {"type": "point", "shape": "diamond", "filled": True, "size": 190, "color": PALETTE[0]}
        here.append({"mark": {**diamond, "opacity": 1}, "encoding": {"x": x, "y": y, "tooltip": told}})
    stands = three_digits(spent, ROUND_CEILING)
    place = {"epsilon": spent, "shown": stands, "auroc": auroc, "name": "this run"}
    run = {"data": {"values": [place]}, "layer": here}
    caption = (
        f"Each ε is {beside(guarantee)}. The lines were measured by {measured['command']} on "
        f"{measured['data']}: {measured['sites']} sites, and other variants than this run's, so heights do "
        f"not compare. {'The diamond' if own else 'The upright line'} is this run."
    )
    alt = (
        f"AUROC against epsilon, {beside(guarantee)}: "
        + "; ".join(
            f"{curve['name']} from {curve['auroc'][0]:.3f} at {curve['epsilon'][0]:g} to "
            f"{curve['auroc'][-1]:.3f} at {curve['epsilon'][-1]:g}"
            for curve in curves
        )
        + f". This run stands at {stands}{f' with {auroc:.3f}' if own else ''}."
    )
    layers = {"layer": [line, run]}
    return finish(
        "utility", "What privacy costs, and where this run stands", alt, caption, layers, 300, legend
    )


def tradeoff(scopes: Sequence[Scope]) -> Figure | None:
    """The most members that any attack finds, by the share of others that it accuses."""
    if not scopes:
        return None
    legend = [(scope.name, Style(colour, SOLID, 2.2)) for scope, colour in zip(scopes, PALETTE, strict=False)]
    values = [
        {"scope": scope.name, "fpr": round(fpr, 4), "tpr": round(tpr, 4)}
        for scope in scopes
        for fpr, tpr in zip(scope.curve.fpr, scope.curve.tpr, strict=True)
    ]
    axes = {
        "x": axis("fpr", "Share of others wrongly accused", domain=[0, 1]),
        "y": axis("tpr", "Share of members found, at most", domain=[0, 1]),
    }
    guess = {
        "data": {"values": [{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]},
        "mark": {"type": "line", "strokeDash": [2, 3], "color": "var(--muted-line)"},
        "encoding": axes,
    }
    told = tooltip(scope="Scope", fpr=("Wrongly accused", ".3f"), tpr=("Found, at most", ".3f"))
    line = {
        "data": {"values": values},
        "mark": {"type": "line", "strokeWidth": 2.2},
        "encoding": {**axes, "color": series("scope", legend), "tooltip": told},
    }
    caption = (
        "Every attack lies on the line or below it, whatever it knows of everyone else; the dotted line is a "
        f"guess. One {scopes[0].risk.unit} added or removed, the worse of the two; by PLD of all events."
    )
    alt = "The most that an attack finds: " + "; ".join(
        f"{percent(scope.risk.tpr)} of members at {percent(FPR)} of others accused, in {scope.name}"
        for scope in scopes
    )
    layers = {"layer": [guess, line]}
    return finish("tradeoff", "What an attack can find, at most", f"{alt}.", caption, layers, 300, legend)


def benchmark(unit: str, patients: int) -> Mapping[str, Any] | None:
    """Accuracy by epsilon as docs/utility.md tells it; None for another unit.

    Of variants on real calls; of ``patients`` a site, or the most that were measured, on simulated ones.
    """
    if unit == "patient":
        ways = {"from nothing": False, "from a public start": True}
        found = {name: expected.by_epsilon(start, patients) for name, start in ways.items()}
        fewest = min(one.patients for of_it in found.values() for one in of_it.values())
        found = {name: expected.by_epsilon(start, fewest) for name, start in ways.items()}
        return expected.measured() | {
            "data": f"a simulated cohort of {fewest} patients a site",
            "curves": [
                {"name": name, "epsilon": [*of_it], "auroc": [one.auroc[0] for one in of_it.values()]}
                for name, of_it in found.items()
            ],
        }
    text = files("cordon.report").joinpath("utility.json").read_text(encoding="utf-8")
    content: Mapping[str, Any] = json.loads(text)
    return content if unit == content["unit"] else None


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


def _together(sites: Sequence[str]) -> str:
    return ", ".join(sites) if len(sites) <= 3 else f"{', '.join(sites[:2])} and {len(sites) - 2} more"
