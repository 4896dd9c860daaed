"""Membership inference: who was in the training data, told from the released model or from a site's updates.

The loss threshold (Yeom et al. 2018, arXiv:1709.01604) and LiRA (Carlini et al. 2022, arXiv:2112.03570), for
a unit as the plan has it: one variant, or one patient with all its rows as one. An attack that fails says
nothing of others; what holds against all of them is the epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cordon.arrays import Bools, Floats
from cordon.auditing.attack_scores import CONFIDENCE, AttackScore, judge
from cordon.auditing.shadows import (
    USUAL,
    VIEWS,
    Shadowing,
    Trace,
    alignment,
    clipped,
    confidences,
    declared_for,
    lira,
    members_of,
    unit_gradients_of,
)
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.devices import thread_count
from cordon.model.released import Model
from cordon.privacy.events import NORMS
from cordon.training.units import Units

# The threshold needs no shadows; offline, an attacker has shadows without the unit alone.
ATTACKS = ("threshold", "lira_offline", "lira_online")
LEAST_UNITS = 10


@dataclass(frozen=True)
class MembershipResult:
    """One attack on one view of a training.

    ``privacy`` is what the training claims (unit, epsilon, delta, mechanism, adjacency), empty where it
    is not private or not known.
    """

    attack: str
    view: str
    unit: str
    privacy: dict[str, Any]
    score: AttackScore

    def to_dict(self) -> dict[str, Any]:
        return {
            "attack": self.attack, "view": self.view, "unit": self.unit, "privacy": dict(self.privacy),
            **self.score.to_dict(),
        }  # fmt: skip


def attack(
    plan: Plan, units: Units, declared: int | None, start: Parameters, how: Shadowing = USUAL
) -> list[MembershipResult]:
    """Every attack on every view of a site that trains as ``plan`` says on about half of ``units``.

    ``units`` are grouped as the plan's privacy unit. ``declared`` patients (None: what half of the units
    stand for) are public. UserError for too few units or shadows, or an unknown view.
    """
    check_views(how.views)
    if len(units) < LEAST_UNITS:
        raise UserError(f"{len(units)} units are too few to attack. Give {LEAST_UNITS} or more.")
    known = declared_for(plan, len(units) / 2) if declared is None else declared
    train = how.training(plan, known, start)
    clip_norm = how.clip_norm(plan)
    member = how.coins(len(units))
    seen: list[dict[str, tuple[Floats, Floats]]] = []
    for number, chosen in enumerate(member, start=1):
        trace = train(members_of(units, chosen))
        with thread_count(how.threads):
            seen.append({view: _statistics(view, plan, trace, units, clip_norm) for view in how.views})
        how.trained(number)
    results = []
    for view in how.views:
        plain, calibrated = (np.stack([one[view][place] for one in seen]) for place in (0, 1))
        for name, score in _scores(plain, calibrated, member).items():
            judged = judge(score, member, confidence=how.confidence)
            results.append(
                MembershipResult(name, view, plan.unit, {} if how.trainer else claim(plan), judged)
            )
    return results


def threshold_attack(
    model: Model, members: Units, non_members: Units, *, unit: str, confidence: float = CONFIDENCE
) -> MembershipResult:
    """The loss threshold on a released model, with units that it was trained on and others like them.

    No shadows, so one model is judged: the intervals are over units, not over trainings.
    """
    losses = [confidences(model.architecture, model.parameters, own)[1] for own in (members, non_members)]
    member = np.repeat([True, False], [len(members), len(non_members)])
    judged = judge(np.concatenate(losses)[None], member[None], confidence=confidence)
    stated = ("unit", "epsilon", "delta", "mechanism", "adjacency")
    privacy = {name: model.privacy[name] for name in stated if name in model.privacy}
    return MembershipResult("threshold", "model", unit, privacy, judged)


def claim(plan: Plan) -> dict[str, Any]:
    """What ``plan`` promises to one unit, for a result."""
    names = ("unit", "epsilon", "delta", "mechanism", "adjacency")
    return {name: getattr(plan, name) for name in names}


def check_views(views: Sequence[str]) -> None:
    """UserError for a view that is not one of VIEWS, or for none."""
    if not views or not set(views) <= set(VIEWS):
        raise UserError(f"views {', '.join(views) or 'none'} cannot be attacked. Use: {', '.join(VIEWS)}.")


def _statistics(view: str, plan: Plan, trace: Trace, units: Units, clip_norm: float) -> tuple[Floats, Floats]:
    """What a threshold goes by [units], and what shadows calibrate [units, K]; members have more of all.

    Who sees the updates has the model too.
    """
    odds, losses = confidences(plan.model, trace.model, units)
    if view == "model":
        return losses, odds[:, None]
    order = NORMS[plan.mechanism]

    def directions(parameters: Parameters) -> Floats:
        return clipped(unit_gradients_of(plan.model, parameters, units), clip_norm, order)

    found = alignment(trace, directions)
    return found, np.stack([odds, found], axis=1)


def _scores(plain: Floats, calibrated: Floats, member: Bools) -> dict[str, Floats]:
    """Each attack's scores [targets, units]."""
    offline, online = (lira(calibrated, member, online=way) for way in (False, True))
    return dict(zip(ATTACKS, (plain, offline, online), strict=True))
