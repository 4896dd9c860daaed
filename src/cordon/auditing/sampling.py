"""Which units are in which steps: by the plan's own settings, in as many rounds as it takes to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from cordon.arrays import Bools
from cordon.auditing import draws
from cordon.auditing.checks import Check
from cordon.auditing.made_up_site import PATIENTS, apart, as_told, marked
from cordon.auditing.recorder import marks_of
from cordon.auditing.step_bound import canaries_of
from cordon.federation.plan import Plan
from cordon.model.initial_weights import initial_parameters
from cordon.training import dpsgd
from cordon.variants.features import FEATURES

if TYPE_CHECKING:
    from cordon.privacy.gradients import Block


SAMPLING = "Is each unit in each step by a coin of its own?"
# Units of the sites that are played: one, without which a step is empty, and more than a block of the
# declared ones has room for.
SITE_SIZES = (1, 64)
# Each unit is expected in so many steps, in as many steps and rounds at most.
STEPS_EXPECTED, MOST_SAMPLED_STEPS, MOST_SAMPLED_ROUNDS = 100, 25_000, 2_000
# What each of them is compared by.
AXES = ("rounds", "steps", "units")


def check_sampling(plan: Plan) -> Check:
    """Trainings that stop at what is sampled: each step's release is put off, and its units are noted."""
    own = replace(as_told(plan), max_variants_per_patient=1)
    (found,) = apart(_taken, [own])
    rate = plan.sampling_rate
    faults = [
        f"at a site of {held} {plan.unit}s: {fault}"
        for held, taken in zip(SITE_SIZES, found, strict=True)
        for fault in draws.coin_faults(taken, rate, AXES)
    ]
    coins = found[-1].size
    most = float(binom.isf(draws.ERROR / 2.0, coins, rate)) / coins
    of_one = binom.isf(draws.ERROR / 2.0 / SITE_SIZES[-1], coins // SITE_SIZES[-1], rate) / (
        coins // SITE_SIZES[-1]
    )
    return Check.of(
        "sampling", SAMPLING, faults,
        f"of {coins} chances to be in a step, each was taken apart and as often as declared",
        {
            "rounds": len(found[-1]), "steps": own.local_steps, "units": SITE_SIZES[-1],
            "rate": float(found[-1].mean()),
        },
        most=f"units in more than {most:.2g} of the steps, or one of them in more than {of_one:.2g}, would "
        f"have failed it, of which {rate:g} are declared",
        # Where units are so rarely in a step, twice as many would not be seen.
        able=most <= min(1.0, 2.0 * rate),
    )  # fmt: skip


def _taken(plan: Plan) -> list[Bools]:
    """Whether each unit is in each step, bool [rounds, steps, units], of a site of each of SITE_SIZES."""
    import torch

    from cordon.privacy import clipping, gradients

    planted, _ = canaries_of(plan, len(FEATURES))
    vars(gradients)["unit_gradients"] = lambda module, width: planted
    seen: list[npt.NDArray[np.int64]] = []

    def put_off(mean: Any, blocks: Iterable[Block], parameters: int) -> clipping.Release:
        seen.append(np.concatenate([np.zeros(0, np.int64), *(marks_of(block) for block in blocks)]))
        return clipping.Release(torch.zeros(parameters, dtype=torch.float64), 0.0)

    clipping.PrivateMean.release = put_off  # type: ignore[assignment, method-assign]
    found, start = [], initial_parameters(plan.model, len(FEATURES))
    settings = plan.settings_for(PATIENTS)
    for held in SITE_SIZES:
        units, taken = marked(plan, held), np.zeros((_rounds(plan, held), settings.steps, held), bool)
        for one in taken:
            seen.clear()
            dpsgd.train(plan.model, start, units, settings)
            for step, marks in zip(one, seen, strict=True):
                step[marks - 1] = True
        found.append(taken)
    return found


def _rounds(plan: Plan, held: int) -> int:
    """As many as show that one unit is in twice as many steps; and one by itself, that it is in all."""
    rate, steps = plan.sampling_rate, min(STEPS_EXPECTED / plan.sampling_rate, MOST_SAMPLED_STEPS)
    if held == 1 and rate < 1.0:
        steps = min(steps, 2.0 * math.log(draws.ERROR) / math.log(rate))
    return min(MOST_SAMPLED_ROUNDS, max(2, math.ceil(steps / plan.local_steps)))
