"""Whether an update can be what the plan's mechanism makes: within its clip, and with its noise.

Both checks are statistical tests with a false-alarm rate for each update, FALSE_ALARM, calibrated on the
plan's own optimiser fed with noise alone. They read what was released and public settings, nothing else.

The ceiling holds whatever the data are: a round's clipped sums add up to at most the clip times the units
sampled, and the noise's length is known. The floor counts coordinates that are smaller than noise alone would
leave them. A signal that does not depend on the round's noise only makes them fewer (Anderson 1955), so
honest sites pass at least as often as the rate says; a round's later steps do answer its earlier noise, for
which DAMPING leaves room.

What no such test can see: noise that the site knows, or that is not fresh; under Adam, which divides by what
it believes the noise to be, less noise than declared; under adaptive clipping, whose clip stays at the site,
less noise than the smallest clip would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cordon.arrays import Floats
from cordon.federation.plan import Plan
from cordon.privacy.events import DEVIATIONS, LAPLACE
from cordon.privacy.mechanisms import REACH

# The rate at which each check refuses an honest update.
FALSE_ALARM = 1e-5
# A site may hold so many times the units that it declared.
UNDECLARED = 2.0
# How much of the noise's scale a round's later steps may take back.
DAMPING = 0.15
# Coordinates that the plan's optimiser is fed with to see what noise alone makes; their seed is public.
SIMULATED, SEED = 2**16, 20261125


@dataclass(frozen=True)
class NoiseAlone:
    """What noise alone makes of one coordinate in a round at a site.

    ``deviation`` is its root mean square, ``fourth`` its mean fourth power over the squared mean square,
    ``small`` a size, and ``share`` how often noise alone, less DAMPING, stays below it.
    """

    deviation: float
    fourth: float
    small: float
    share: float


@lru_cache(maxsize=256)
def reference(plan: Plan, declared_patients: int) -> NoiseAlone:
    """The reference for a site's updates, under the least noise that the plan's clip may lead to."""
    from cordon.training.optimisers import optimiser

    clip = plan.clip_norm / (REACH if plan.clipping == "adaptive" else 1.0)
    batch = plan.settings_for(declared_patients).expected_batch
    scale = plan.noise_multiplier * clip / batch
    source = np.random.default_rng(SEED)
    steps = optimiser(plan.optimiser, learning_rate=plan.learning_rate, momentum=plan.momentum)
    variance = (scale * DEVIATIONS[plan.mechanism]) ** 2
    draw = source.laplace if plan.mechanism == LAPLACE else source.normal
    moved = np.zeros(SIMULATED)
    for _ in range(plan.local_steps):
        noise = draw(0.0, scale, SIMULATED)
        moved += steps.change(noise, variance)
    sizes = np.abs(moved)
    square = float(np.square(sizes).mean())
    small = float(np.quantile(sizes, 0.6))
    damped = small / (1.0 - DAMPING)
    return NoiseAlone(
        math.sqrt(square), float((sizes**4).mean()) / square**2, small, float((sizes < damped).mean())
    )


@lru_cache(maxsize=256)
def ceiling(plan: Plan, declared_patients: int, parameters: int) -> float:
    """The length (L2) that an honest update of ``parameters`` numbers exceeds at most FALSE_ALARM often."""
    from scipy import stats

    from cordon.training.optimisers import FLOOR

    clip = plan.clip_norm * (REACH if plan.clipping == "adaptive" else 1.0)
    settings = plan.settings_for(declared_patients)
    units = math.ceil(UNDECLARED * plan.declared_units(declared_patients))
    rate, steps = plan.sampling_rate, plan.local_steps
    sure = stats.norm.isf(FALSE_ALARM / 2)
    if plan.optimiser == "sgd":
        sampled = float(stats.binom.isf(FALSE_ALARM / 2, units * steps, rate))
        # A step's gradient goes on for as many steps as are left.
        longest = plan.learning_rate / (1.0 - plan.momentum)
        noise = reference(plan, declared_patients)
        spread = math.sqrt(max(noise.fourth - 1.0, 0.0) / parameters)
        square = noise.deviation**2 * parameters * (1.0 + sure * spread)
        lifted = math.sqrt(square) * (REACH**2 if plan.clipping == "adaptive" else 1.0)
        return longest * clip * sampled / settings.expected_batch + lifted
    # Adam divides by no less than a part of the noise's deviation, so a step is at most so many times it.
    most = float(stats.binom.isf(FALSE_ALARM / 2 / steps, units, rate))
    deviations = clip * most / (plan.noise_multiplier * plan.clip_norm * DEVIATIONS[plan.mechanism])
    fourth = 6.0 if plan.mechanism == LAPLACE else 3.0
    spread = math.sqrt((fourth - 1.0) / parameters)
    each = math.sqrt(parameters * (1.0 + stats.norm.isf(FALSE_ALARM / 2 / steps) * spread))
    return plan.learning_rate * steps * (deviations + each) / math.sqrt(FLOOR)


def small_coordinates(plan: Plan, declared_patients: int, update: Floats) -> int:
    """How many of the update's numbers are smaller than most that noise alone makes."""
    return int((np.abs(update) < reference(plan, declared_patients).small).sum())


def most_small(plan: Plan, declared_patients: int, coordinates: int) -> int:
    """Of ``coordinates`` numbers, how many noise leaves small but for FALSE_ALARM of the time: the floor."""
    from scipy import stats

    return int(stats.binom.isf(FALSE_ALARM, coordinates, reference(plan, declared_patients).share))


def without_noise(plan: Plan, declared_patients: int, small: int, coordinates: int) -> bool:
    """Whether ``small`` of ``coordinates`` numbers, of one update or of several, are too many for noise."""
    return small > most_small(plan, declared_patients, coordinates)
