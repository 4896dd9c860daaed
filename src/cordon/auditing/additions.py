"""What an adaptive clip, momentum and Adam add to plain steps, looked at on made-up rows.

An adaptive clip releases a count in each step; what else an update is made of must be the releases alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from cordon import training
from cordon.accountants import DEVIATIONS, GAUSSIAN
from cordon.auditing.checks import Check
from cordon.auditing.made_up_site import PATIENTS, ROWS, made_up, processes, read_back, repeated, sent
from cordon.auditing.step_bound import canaries_of
from cordon.auditing.updates import ERROR, variance_limits
from cordon.features import FEATURES
from cordon.federation.plan import Plan
from cordon.mechanisms import GRID_BITS, Randomness
from cordon.units import Units

Floats = npt.NDArray[np.float64]

COUNT = "Is the count behind an adaptive clip noisy, and moved by one unit by no more than half?"
RELEASES = "Is an update made of private releases alone, whatever the optimiser keeps?"
# Steps whose counts are looked at, and how far the noise of one moves the clip, in log clips.
COUNTED, MOVED = 2000, 0.01
# Rounds and steps whose updates are compared.
ROUNDS, STEPS = 2, 4


def check_count(plan: Plan) -> Check:
    """A clip that no unit moves is moved by its count's noise; with the same noise, by one unit's half."""
    if plan.clipping != "adaptive":
        return Check.untried("count", COUNT, f"a {plan.clipping} clip counts nothing")
    noise = _count_noise(plan)
    excess = 0.0 if plan.mechanism == GAUSSIAN else 3.0
    variance, (least, largest) = float((noise**2).mean()), variance_limits(len(noise), excess)
    again = float(np.mean(noise[1:] * noise[:-1]) / max(variance, 1e-30))
    moved = max(_moved_by_one(plan, length) for length in (1e-6, 1e6))
    limit = 0.5 + 2.0 ** (1 - GRID_BITS) * _declared_scale(plan) + 1e-6
    faults = list(_cost_faults(plan))
    if not least <= variance <= largest:
        faults.append(
            f"the count behind the adaptive clip has {variance:.3g} of the declared noise's variance"
        )
    if abs(again) > norm.isf(ERROR) / math.sqrt(len(noise)):
        faults.append(f"counts of two steps share their noise (a correlation of {again:.3g})")
    if moved > limit:
        faults.append(f"one {plan.unit} moves the count by {moved:.4g} of what its noise is for, not by 0.5")
    return Check.of(
        "count", COUNT, faults,
        f"{len(noise)} counts have fresh noise of the declared size, and one {plan.unit} moves a count by "
        f"{moved:.3g} of what it is for",
        {"counts": len(noise), "variance": variance, "moved": moved},
        most=f"noise of less than {least:.2f} of the declared variance, or a {plan.unit} that moves a count "
        f"by more than {limit:.3g}, would have failed it",
        able=moved > 0.4,
    )  # fmt: skip


def _declared_scale(plan: Plan) -> float:
    """The scale of the count's noise by the plan: share of the cost at sensitivity 1/2 (`split_noise`)."""
    if plan.mechanism == GAUSSIAN:
        return plan.noise_multiplier / (2.0 * math.sqrt(plan.quantile_share))
    return plan.noise_multiplier / (2.0 * plan.quantile_share)


def _cost_faults(plan: Plan) -> Iterator[str]:
    """Gradient and count of a step must cost together what the plan's noise does alone."""
    from cordon.clipping import split_noise

    gradient, count = split_noise(plan.noise_multiplier, plan.mechanism, plan.quantile_share)
    power = 2 if plan.mechanism == GAUSSIAN else 1
    cost, declared = gradient**-power + (2.0 * count) ** -power, plan.noise_multiplier**-power
    if cost > declared * (1.0 + 1e-9):
        yield f"gradient and count of a step cost {cost / declared:.4g} times what the plan accounts for"


def _count_noise(plan: Plan) -> Floats:
    """The noise of COUNTED counts of one round's steps without units, over the declared deviation."""
    mean, by_one = _clipping(plan, Randomness())
    norms = [mean.clip.norm]
    for _ in range(COUNTED):
        mean.release((), 1)
        norms.append(mean.clip.norm)
    return np.diff(np.log(norms)) / (by_one * _declared_scale(plan) * DEVIATIONS[plan.mechanism])


def _moved_by_one(plan: Plan, length: float) -> float:
    """How far one more unit, whose gradient is so many clips long, moves a count under the same noise."""
    found = []
    for units in (1, 2):
        random = Randomness(repeated())
        mean, by_one = _clipping(plan, random, length)
        settings = replace(plan.settings_for(units), sampling_rate=1.0)
        rows = settings.max_variants
        marks = np.repeat(np.arange(1, units + 1), rows)[:, None].astype(np.float32)
        held = Units(marks, np.zeros(len(marks), np.float32), np.arange(0, len(marks) + 1, rows), plan.unit)
        shape = training.block_shape(settings, mean.gradients.most_rows)
        # The sample is the same whatever is drawn: all units.
        mean.release(training.draw(held, settings, Randomness(), shape), mean.gradients.parameters)
        found.append(math.log(mean.clip.norm) / by_one)
    return abs(found[1] - found[0])


def _clipping(plan: Plan, random: Randomness, length: float = 1.0) -> tuple[Any, float]:
    """What a round's steps release through, and how far (log clips) a count of one moves its clip.

    So many units are declared that noise moves a clip by little: it never reaches the end of its range.
    """
    span = 2.0 * max(plan.clip_quantile, 1.0 - plan.clip_quantile)
    settings = plan.settings_for(PATIENTS)
    batch = plan.clip_rate * span * _declared_scale(plan) * DEVIATIONS[plan.mechanism] / MOVED
    settings = replace(settings, expected_batch=batch)
    gradients, _ = canaries_of(plan, len(FEATURES), length=length)
    return training.private_mean(gradients, settings, random), plan.clip_rate * span / batch


def check_releases(plan: Plan) -> Check:
    """Sites of different rows that release the same send the same, by the plan's own optimiser and clip."""
    own = replace(
        plan, run="audit", rounds=max(plan.rounds, ROUNDS), local_steps=min(plan.local_steps, STEPS),
        sampling_rate=1.0, max_variants_per_patient=ROWS, delta=1e-12,
    )  # fmt: skip
    with processes(1) as pool:
        held, free = pool.apply(_differences, [own])
    faults = [f"updates differ by {held:.3g} of their size where releases are the same"] if held else []
    kept = plan.optimiser if not plan.momentum else f"{plan.optimiser} with momentum {plan.momentum:g}"
    return Check.of(
        "releases", RELEASES, faults,
        f"{ROUNDS} updates by {kept} are the same for different rows where releases are",
        {"differ": held, "differ_by_releases": free},
        most="any number of an update that depends on rows otherwise than by a release would have failed it",
        able=free > 0.0,
    )  # fmt: skip


def _differences(plan: Plan) -> tuple[float, float]:
    """By how much of their size two sites' updates differ where their releases are the same; and are not.

    In a process of its own, where training draws the same numbers again: nothing of it is private.
    """
    from cordon import clipping

    table = made_up(plan)
    # Other values, and half of the patients.
    units = read_back([table, table.slice(table.num_rows // 2)], plan)
    vars(training)["Randomness"] = lambda: Randomness(repeated())
    release = clipping.PrivateMean.release
    scale = plan.noise_multiplier * plan.clip_norm / plan.settings_for(PATIENTS).expected_batch
    found = []
    for same in (True, False):
        updates = []
        for rows in units:
            numbers = np.random.default_rng(0)

            def released(mean: Any, blocks: Any, parameters: int, numbers: Any = numbers) -> Any:
                import torch

                # The clip that a step ends with is a release too, by its count.
                mean.clip.norm = plan.clip_norm
                real = release(mean, blocks, parameters)
                mean.clip.norm = plan.clip_norm
                drawn = numbers.normal(scale=scale, size=parameters)
                return real._replace(mean=torch.from_numpy(drawn))

            vars(clipping)["PrivateMean"].release = released if same else release
            updates.append(sent(plan, lambda plan, rows=rows: rows, ROUNDS))  # type: ignore[misc]
        first, second = updates
        found.append(float(np.abs(first - second).max() / max(float(np.abs(first).max()), 1e-30)))
    return found[0], found[1]
