"""What a plan is set to where nobody says: it follows from the start, the unit, and how loud the noise is.

All of it is public: whether there is a public start, what patients sites declare, and what they may spend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cordon.federation.plan import Plan, Site
from cordon.privacy.events import DEVIATIONS

# From a public start there is less to learn than from nothing. Longer rounds are as good, and sooner over.
ROUNDS_FROM_START, ROUNDS_FROM_NOTHING, LOCAL_STEPS = 5, 20, 20
# About the norm of a unit's gradient late in training: a patient's is the mean over many rows.
CLIP_NORMS = {"patient": 0.05, "variant": 2.0}
# By how much the noise of all steps may move a weight, as a standard deviation. On simulated cohorts of six
# patients a site, at epsilon 1 to 8, no training ended below its start with the first; a third less or more
# of the second trains no better from nothing (docs/utility.md).
MOVE_FROM_START, MOVE_FROM_NOTHING = 0.05, 0.45
# What training without noise bears.
LARGEST_RATE = 2.0
# Adam makes steps of one length, whatever the noise.
ADAM_RATES = {"patient": 0.005, "variant": 0.02}


def defaults(unit: str, *, start: bool, rounds: int | None = None) -> dict[str, Any]:
    """Rounds and steps, clip norm, and how many late rounds are averaged; ``rounds`` where they are given."""
    rounds = rounds or (ROUNDS_FROM_START if start else ROUNDS_FROM_NOTHING)
    late = (rounds + 1) // 2
    return {
        "rounds": rounds, "local_steps": LOCAL_STEPS, "clip_norm": CLIP_NORMS[unit], "averaged_rounds": late,
    }  # fmt: skip


def moved_by_noise(plan: Plan, sites: Sequence[Site]) -> float:
    """The standard deviation of what the noise of all rounds adds to a weight of the last model.

    Each of ``sites`` adds its own, divided by the units that it declared, and the average weighs them.
    """
    whole = sum(site.weight for site in sites)
    step = plan.clip_norm * plan.noise_multiplier * DEVIATIONS[plan.mechanism] / plan.sampling_rate
    parts = [site.weight / whole * step / plan.declared_units(site.declared_patients) for site in sites]
    each = plan.learning_rate / (1.0 - plan.momentum) * math.hypot(*parts)
    return each * math.sqrt(plan.rounds * plan.local_steps)


def with_learning_rate(plan: Plan, sites: Sequence[Site]) -> Plan:
    """The plan with the learning rate that its noise allows."""
    if plan.optimiser == "adam":
        return replace(plan, learning_rate=ADAM_RATES[plan.unit] / (2.0 if plan.start else 1.0))
    most = MOVE_FROM_START if plan.start else MOVE_FROM_NOTHING
    rate = plan.learning_rate * most / moved_by_noise(plan, sites)
    return replace(plan, learning_rate=min(LARGEST_RATE, rate))


def reasons(plan: Plan, sites: Sequence[Site]) -> str:
    """What was chosen, and why, in a sentence."""
    origin = "a public start" if plan.start else "nothing"
    length = f"{plan.rounds} rounds of {plan.local_steps} steps"
    chosen = f"from {origin}: {length}, clip norm {plan.clip_norm:g}, {plan.optimiser}"
    if plan.optimiser == "adam":
        return f"{chosen}, learning rate {plan.learning_rate:.3g}"
    return (
        f"{chosen}, learning rate {plan.learning_rate:.3g}, by which the noise of all rounds moves a weight "
        f"by {moved_by_noise(plan, sites):.2g}"
    )


def warning(plan: Plan, sites: Sequence[Site]) -> str:
    """What is to be told where the noise is likely to drown the public start; empty where it is not."""
    if not plan.start or plan.optimiser == "adam" or moved_by_noise(plan, sites) <= 4.0 * MOVE_FROM_START:
        return ""
    gentle = with_learning_rate(plan, sites).learning_rate
    return (
        f"warning: with learning rate {plan.learning_rate:g} the noise of all rounds moves a weight by "
        f"{moved_by_noise(plan, sites):.2g}, which may make the model worse than its public start. Leave "
        f"--learning_rate out (it is {gentle:.2g} then), declare more patients, or raise --epsilon."
    )
