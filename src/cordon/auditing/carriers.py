"""Attribute probe: whether a site has a carrier of a rare allele, told from the model or from the updates.

The attacker knows the allele's row (features and label) and all about everybody else: all rows that are not
probed are the same in every shadow, and a fair coin decides whether the carrier has a probed one. Where the
unit is a variant, the row comes and goes as a whole unit and the plan's epsilon bounds the probe. Where it is
a patient, the carrier stays with the other rows, and the bound is that of exchanging one patient's data for
others: of removing a patient and adding one, each at that epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cordon.arrays import Bools, Floats, Indices
from cordon.auditing.attack_scores import AttackScore, Estimate, advantage, judge
from cordon.auditing.membership import check_views, claim
from cordon.auditing.shadows import (
    USUAL,
    Shadowing,
    Trace,
    alignment,
    clipped,
    confidences,
    declared_for,
    kept,
    lira,
    unit_gradients_of,
)
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.devices import thread_count
from cordon.privacy.events import NORMS
from cordon.training.units import Units

CARRIER_ATTACKS = ("lira_offline", "lira_online")
# A row is as rare as its distance to this nearest neighbour says, so that a few alike are rare together.
NEIGHBOUR = 5


@dataclass(frozen=True)
class CarrierResult:
    """One probe on one view, over ``rows`` rare rows.

    ``advantage`` is TPR less FPR of saying "carrier" where the likelihood ratio does (None offline, where
    there is no ratio); (1 + advantage) / 2 is the accuracy where half of the sites have one.
    """

    attack: str
    view: str
    unit: str
    rows: int
    privacy: dict[str, Any]
    advantage: Estimate | None
    score: AttackScore

    @property
    def accuracy(self) -> Estimate | None:
        if self.advantage is None:
            return None
        ends = (self.advantage.value, self.advantage.low, self.advantage.high)
        return Estimate(*((1.0 + end) / 2 for end in ends))

    def to_dict(self) -> dict[str, Any]:
        def plain(estimate: Estimate | None) -> dict[str, float] | None:
            return None if estimate is None else dict(vars(estimate))

        return {
            "attack": self.attack, "view": self.view, "unit": self.unit, "rows": self.rows,
            "privacy": dict(self.privacy), "advantage": plain(self.advantage),
            "accuracy": plain(self.accuracy), **self.score.to_dict(),
        }  # fmt: skip


def rarest(units: Units, number: int, *, frequency: Floats | None = None) -> Indices:
    """The rows of ``number`` different units that are rarest: by population ``frequency`` [rows], 0 to 1.

    Without frequencies, by the distance to the row's fifth nearest neighbour, in standard deviations. A
    unit of one row alone is taken only where every unit is one: without the row, it would not be there.
    """
    rows = np.asarray(units.features[np.arange(len(units.labels))], dtype=np.float64)
    if frequency is None:
        from sklearn.neighbors import NearestNeighbors

        deviation = rows.std(0)
        standard = rows[:, deviation > 0] / deviation[deviation > 0]
        near = NearestNeighbors(n_neighbors=min(NEIGHBOUR + 1, len(rows))).fit(standard)
        commonness = -near.kneighbors(standard)[0][:, -1]
    else:
        commonness = np.asarray(frequency, dtype=np.float64)
    sizes = np.diff(units.offsets)
    owners = np.repeat(np.arange(len(units)), sizes)
    able = (sizes > 1) | bool((sizes == 1).all())
    chosen: dict[int, int] = {}
    for row in np.argsort(commonness, kind="stable"):
        if able[owners[row]]:
            chosen.setdefault(int(owners[row]), int(row))
        if len(chosen) == number:
            return np.sort(np.array(list(chosen.values()), dtype=np.intp))
    raise UserError(f"the site has only {len(chosen)} units that can carry a rare row. Ask for fewer rows.")


def probe(
    plan: Plan,
    units: Units,
    rows: Sequence[int] | Indices,
    declared: int | None,
    start: Parameters,
    how: Shadowing = USUAL,
) -> list[CarrierResult]:
    """Every probe on every view of a site that trains as ``plan`` says, for rare ``rows`` of ``units``.

    In each shadow a fair coin leaves each of the rows with its own unit or takes it away; all others stay.
    ``rows`` are of different units. The other arguments are those of `cordon.auditing.membership.attack`,
    and so is the calibration: each shadow is a target, judged by the others. UserError where there is
    nothing to probe.
    """
    check_views(how.views)
    probed = np.sort(np.asarray(rows, dtype=np.intp))  # so their units come in order too
    owners = np.repeat(np.arange(len(units)), np.diff(units.offsets))
    if len(probed) == 0 or len(np.unique(owners[probed])) < len(probed):
        raise UserError("rare rows must be of different units. Choose them with `rarest`.")
    known = declared_for(plan, len(units)) if declared is None else declared
    train = how.training(plan, known, start)
    carried = how.coins(len(probed))
    probes = _Probes.of(units, probed, owners)
    clip_norm = how.clip_norm(plan)
    seen: list[dict[str, Floats]] = []
    for number, chosen in enumerate(carried, start=1):
        present = np.ones(len(units.labels), dtype=bool)
        present[probed] = chosen
        trace = train(kept(units, present))
        with thread_count(how.threads):
            seen.append({view: probes.statistics(view, plan, trace, clip_norm) for view in how.views})
        how.trained(number)
    results = []
    for view in how.views:
        statistics = np.stack([one[view] for one in seen])
        for name in CARRIER_ATTACKS:
            online = name == "lira_online"
            score = lira(statistics, carried, online=online)
            gained = advantage(score, carried, confidence=how.confidence) if online else None
            judged = judge(score, carried, confidence=how.confidence)
            privacy = {} if how.trainer else claim(plan)
            results.append(CarrierResult(name, view, plan.unit, len(probed), privacy, gained, judged))
    return results


@dataclass(frozen=True)
class _Probes:
    """The K rare rows, each alone; their units with them; and without, for those that ``stay`` (bool [K])."""

    alone: Units
    with_row: Units
    without_row: Units | None
    stay: Bools

    @classmethod
    def of(cls, units: Units, probed: Indices, owners: Indices) -> _Probes:
        alone = Units(
            units.features.take(probed, 0), units.labels[probed], np.arange(len(probed) + 1), "variant"
        )
        of_carriers = np.isin(owners, owners[probed])
        others = of_carriers.copy()
        others[probed] = False
        stay = np.diff(units.offsets)[owners[probed]] > 1
        return cls(alone, kept(units, of_carriers), kept(units, others) if stay.any() else None, stay)

    def statistics(self, view: str, plan: Plan, trace: Trace, clip_norm: float) -> Floats:
        """What shadows calibrate, [K, 1 or 2]: a carrier in the training raises all of them."""
        odds, _ = confidences(plan.model, trace.model, self.alone)
        if view == "model":
            return odds[:, None]
        order = NORMS[plan.mechanism]

        def directions(parameters: Parameters) -> Floats:
            """What the row adds to its unit's clipped gradient."""
            added = clipped(unit_gradients_of(plan.model, parameters, self.with_row), clip_norm, order)
            if self.without_row is not None:
                gradients = unit_gradients_of(plan.model, parameters, self.without_row)
                added[self.stay] -= clipped(gradients, clip_norm, order)
            return added

        return np.stack([odds, alignment(trace, directions)], axis=1)
