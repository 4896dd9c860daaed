"""How things are named and drawn wherever the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cordon.calls.callers import CALLERS
from cordon.privacy.guarantee import Guarantee
from cordon.report.figures.vega import DASHES, PALETTE, SOLID, Style, short

NAMES = {
    "haplotypecaller": "HaplotypeCaller",
    "deepvariant": "DeepVariant",
    "other": "Other caller",
    "cordon": "Cordon",
}


# Cordon's own filters.
CORDON = {"cordon": "Cordon PASS", "cordon review": "Cordon PASS or review"}


def display(name: str) -> str:
    """A score's or filter's name as people write it: ``haplotypecaller QD`` -> ``HaplotypeCaller QD``."""
    first, space, rest = name.partition(" ")
    return NAMES.get(first, first) + space + rest


def together(callers: Sequence[str]) -> str:
    """Callers that agree: ``HaplotypeCaller + DeepVariant``; one that does not, ``HaplotypeCaller alone``."""
    names = [display(caller) for caller in callers]
    return " + ".join(names) if len(names) > 1 else f"{names[0]} alone"


def style(name: str) -> Style:
    """Cordon is bold; a caller keeps one colour, dashed for QD."""
    if name == "cordon":
        return Style(PALETTE[0], SOLID, 3.2)
    caller, _, kind = name.partition(" ")
    return Style(PALETTE[1 + CALLERS.index(caller)], DASHES[1] if kind == "QD" else SOLID, 1.8)


def beside(guarantee: Guarantee) -> str:
    """What must stand beside every epsilon: unit, delta, mechanism and adjacency."""
    several = "s" if " and " in guarantee.mechanism else ""
    return (
        f"per {guarantee.unit}, δ\u00a0=\u00a0{short(guarantee.delta)}, {guarantee.mechanism} "
        f"mechanism{several}, adjacency: {guarantee.adjacency}"
    )


def beside_each(means: Mapping[str, Guarantee]) -> str:
    """`beside`, where what stands together may mean different things: what is called so -> what it means."""
    if len(set(means.values())) == 1:
        return beside(next(iter(means.values())))
    return "; ".join(f"{name}: {beside(guarantee)}" for name, guarantee in means.items())
