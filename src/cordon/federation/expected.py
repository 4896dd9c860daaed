"""What accuracy a plan may expect, before anything is spent: by simulated cohorts, not by these sites.

``patients.json`` holds what benchmarks/patients.py printed: medians of ten trainings, and their ranges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Any

import numpy as np

from cordon.federation.plan import Plan, Site


@dataclass(frozen=True)
class Expected:
    """A median and its range (least, most) of ten trainings: AUROC on held-out patients, and the share of
    the false alleles that is removed where 99 % of the real ones are kept.
    """

    patients: int
    auroc: tuple[float, float, float]
    removed: tuple[float, float, float]

    def __str__(self) -> str:
        share = [f"{100 * value:.0f}" for value in self.removed]
        return (
            f"AUROC {self.auroc[0]:.3f} ({self.auroc[1]:.3f} to {self.auroc[2]:.3f}) and {share[0]} % "
            f"({share[1]} to {share[2]} %) of the false alleles removed with {self.patients} patients a site"
        )


def expected(start: bool, epsilon: float, patients: int) -> Expected:
    """For so many ``patients`` at each of three sites, from a public start that fits or from nothing.

    Between what was measured it is interpolated along the logarithms of both; beyond, it is what was measured
    nearest, at as many patients as that was measured with.
    """
    rows_of_it = [row for row in measured()["medians_and_ranges"] if row["start"] == start]
    epsilons = sorted({row["epsilon"] for row in rows_of_it})
    rows = {which: [row for row in rows_of_it if row["epsilon"] == which] for which in epsilons}
    most = min(max(row["patients"] for row in of_it) for of_it in _around(rows, epsilon))
    least = min(row["patients"] for row in rows_of_it)
    patients = max(least, min(most, patients))

    def value(kind: str, place: int) -> float:
        by_epsilon = [
            _between(patients, [(row["patients"], row[kind][place]) for row in of_it])
            for of_it in rows.values()
        ]
        return _between(epsilon, zip(epsilons, by_epsilon, strict=True))

    auroc, removed = ((value(kind, 0), value(kind, 1), value(kind, 2)) for kind in ("auroc", "removed"))
    return Expected(patients, auroc, removed)


def by_epsilon(start: bool, patients: int) -> dict[float, Expected]:
    """What so many patients at each of three sites may expect at each epsilon that was measured."""
    known = sorted({row["epsilon"] for row in measured()["medians_and_ranges"]})
    return {epsilon: expected(start, epsilon, patients) for epsilon in known}


def told(plan: Plan, sites: Sequence[Site]) -> str:
    """What the plan's sites may expect, and what more patients would bring; empty for another unit."""
    if plan.unit != "patient":
        return ""
    each = int(median(site.declared_patients for site in sites))
    start = bool(plan.start)
    # As many as were measured stand for all that are more.
    found = {one.patients: one for one in (expected(start, plan.epsilon, n * each) for n in (1, 2, 4))}
    first, *others = found.values()
    best = measured()["callers_best"]
    more = "".join(f", {one.auroc[0]:.3f} with {one.patients}" for one in others)
    origin = "a public start that fits" if start else "nothing"
    return (
        f"to be expected, by simulated cohorts of three sites that train from {origin} (docs/utility.md): "
        f"{first}{more}; a caller's best score ({best['name']}) has {best['auroc']:.3f} and "
        f"{100 * best['removed']:.0f} % there. Real data are harder."
    )


def _around(rows: Mapping[float, Any], epsilon: float) -> Iterable[Any]:
    """Those of ``rows`` that an interpolation at ``epsilon`` uses."""
    known = sorted(rows)
    below = max((one for one in known if one <= epsilon), default=known[0])
    above = min((one for one in known if one >= epsilon), default=known[-1])
    return rows[below], rows[above]


def _between(at: float, points: Iterable[tuple[float, float]]) -> float:
    places, values = zip(*sorted(points), strict=True)
    return float(np.interp(np.log(at), np.log(places), values))


@cache
def measured() -> dict[str, Any]:
    """patients.json: how it was measured, a caller's best score, and rows of medians and ranges."""
    text = files("cordon.federation").joinpath("patients.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
