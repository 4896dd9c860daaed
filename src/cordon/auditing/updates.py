"""What a site sends over whole rounds: its own code, from the table to the update, on made-up rows.

The step bound looks at single releases. Between them and what is sent lie the grouping of rows, the loop over
steps and rounds, and whatever is done to an update in the end. Made-up rows tell nothing of patients. Noise,
sampling and neighbours are looked at by the plan's noise, rate and clip, under a fixed clip norm and plain
descent; what an adaptive clip, momentum and Adam add has checks of its own (`cordon.auditing.additions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import chi2, norm, t

from cordon import training
from cordon.accountants import DEVIATIONS, GAUSSIAN, LEAST_NOISE, NORMS
from cordon.auditing.checks import Check
from cordon.auditing.made_up_site import (
    PATIENTS,
    ROWS,
    made_up,
    no_units,
    processes,
    read_back,
    repeated,
    sent,
)
from cordon.auditing.step_bound import QUIET, canaries_of
from cordon.features import FEATURES
from cordon.federation.plan import Plan
from cordon.mechanisms import GRID_BITS, Randomness
from cordon.model import build, initial_parameters, width
from cordon.units import Units

Floats = npt.NDArray[np.float64]

NOISE = "Is there fresh noise of the declared size in all that a site sends?"
SAMPLING = "Is each unit in each step by a coin of its own?"
NEIGHBOURS = "Does one unit, with all its rows, move what is sent by no more than the clip?"
# How often right code fails each of the tests that a check makes.
ERROR = 1e-6
PROCESSES, ROUNDS = 2, 4
# So many numbers of noise are drawn at most, and of each round so many steps' samples are read off.
MOST_DRAWN, SAMPLED_ROUNDS, MOST_STEPS = 2**22, 40, 25
# Every made-up gradient is longer than this clip, which takes the place of a plan's larger one. Noise that is
# the same twice is little, since what it is rounded to is not.
REACHED, LITTLE = 0.05, LEAST_NOISE


def check_noise(plan: Plan) -> Check:
    """Updates of a site without rows, over rounds and in processes of their own, are noise alone."""
    parameters = sum(value.size for value in initial_parameters(plan.model, len(FEATURES)).values())
    most = max(1, MOST_DRAWN // (PROCESSES * ROUNDS * parameters))
    plain = replace(_plain(plan), local_steps=min(plan.local_steps, most))
    with processes(PROCESSES) as pool:
        found = np.concatenate(pool.map(_noise_alone, [plain] * PROCESSES))
    settings = plain.settings_for(PATIENTS)
    deviation = math.sqrt(plain.local_steps) * plain.noise_multiplier * plain.clip_norm
    seen = found * settings.expected_batch / (deviation * DEVIATIONS[plain.mechanism])
    excess = 0.0 if plain.mechanism == GAUSSIAN else 3.0 / plain.local_steps
    variance, (least, largest) = float((seen**2).mean()), variance_limits(seen.size, excess)
    faults = list(_shared(seen))
    if not least <= variance <= largest:
        faults.insert(0, f"the noise's variance is {variance:.4g} of the declared one")
    return Check.of(
        "noise", NOISE, faults,
        f"{len(seen)} updates of {PROCESSES} processes have the declared noise, and share none of it",
        {"updates": len(seen), "numbers": seen.size, "variance": variance},
        most=f"noise of less than {least:.2f} of the declared variance would have failed it",
    )  # fmt: skip


def check_sampling(plan: Plan) -> Check:
    """With the noise all but turned off, an update shows in how many of a round's steps each canary was."""
    plain = replace(
        _plain(plan), local_steps=min(plan.local_steps, MOST_STEPS), max_variants_per_patient=1, rounds=1
    )  # fmt: skip
    steps, rate = plain.local_steps, plain.sampling_rate
    seen = np.array([_steps_taken(plain) for _ in range(SAMPLED_ROUNDS)])
    counts = np.rint(seen)
    chances = counts.size * steps
    faults = []
    if np.abs(seen - counts).max() > 0.1:
        faults.append("a canary moves an update by other than a whole number of clips")
    # A sum of coins over units, rounds or both spreads as a binomial's does, if they are coins of their own.
    for name, sums, coins in (
        ("the steps of a round", counts.ravel(), steps),
        ("units", counts.sum(1), steps * counts.shape[1]),
        ("rounds", counts.sum(0), steps * counts.shape[0]),
    ):
        if fault := _spread_fault(sums, coins, rate):
            faults.append(f"{name} are not sampled apart: {fault}")
    share = counts.mean() / steps
    off = norm.isf(ERROR) * math.sqrt(rate * (1 - rate) / chances) + 1e-12
    if abs(share - rate) > off:
        faults.append(f"units are in {share:.4g} of the steps, and the plan declares {rate:g}")
    return Check.of(
        "sampling", SAMPLING, faults,
        f"of {chances} chances to be in a step, each was taken apart and as often as declared",
        {"rounds": len(counts), "canaries": counts.shape[1], "steps": steps, "rate": float(share)},
        most=f"a unit in more than {min(1.0, rate + off):.2g} of the steps would have failed it, of which "
        f"{rate:g} are declared",
        # Where units are so rarely in a step, one that is in twice as many would not be seen.
        able=off <= rate,
    )  # fmt: skip


def check_neighbours(plan: Plan) -> Check:
    """The same randomness with and without one unit: what is sent differs by one clip at most."""
    plain = replace(
        _plain(plan), sampling_rate=1.0, local_steps=1, max_variants_per_patient=ROWS,
        clip_norm=min(plan.clip_norm, REACHED), noise_multiplier=min(plan.noise_multiplier, LITTLE),
    )  # fmt: skip
    with processes(1) as pool:
        found, moved = pool.apply(_coupled, [plain])
    faults = []
    units = PATIENTS if plan.unit == "patient" else PATIENTS * ROWS
    if found != units:
        faults.append(
            f"{PATIENTS} patients of {ROWS} rows make {found} units of one {plan.unit}, not {units}"
        )
    limit = 1.0 + _rounding(plain)
    if moved > limit:
        faults.append(f"one {plan.unit} moves an update by {moved:.4g} clips")
    return Check.of(
        "neighbours", NEIGHBOURS, faults,
        f"the hardest {plan.unit} tried, with all its rows, moves an update by {moved:.4g} clips",
        {"moved": moved, "units": found},
        most=f"a {plan.unit} that moves an update by more than {limit:.4f} clips would have failed it",
        # A unit that does not reach the clip would not show that there is none.
        able=moved > 0.9,
    )  # fmt: skip


def _plain(plan: Plan) -> Plan:
    # Delta is told of no update, and a plan's may be too large for so few patients as are made up.
    return replace(
        plan, run="audit", clipping="fixed", optimiser="sgd", momentum=0.0, learning_rate=1.0,
        rounds=max(plan.rounds, ROUNDS), delta=1e-12,
    )  # fmt: skip


def _noise_alone(plan: Plan) -> Floats:
    return sent(plan, no_units, ROUNDS)


def variance_limits(size: int, excess: float) -> tuple[float, float]:
    """Between what the mean square of ``size`` numbers of variance 1 and this excess kurtosis must lie."""
    wide = math.sqrt(1.0 + excess / 2.0)
    least, most = (float(chi2.ppf(tail, size)) / size - 1.0 for tail in (ERROR, 1.0 - ERROR))
    return 1.0 + least * wide, 1.0 + most * wide


def _shared(seen: Floats) -> Iterator[str]:
    """What tells [updates, parameters] of variance 1 from independent numbers."""
    updates, numbers = seen.shape
    if ((seen**2).sum(0) < chi2.ppf(ERROR / numbers, updates)).any():
        yield "there is a number without noise"
    for name, rows in (("updates", seen), ("numbers of an update", seen.T)):
        count, length = rows.shape
        pairs = count * (count - 1) / 2
        if length < 4 or not pairs:
            continue
        with np.errstate(invalid="ignore"):
            alike = np.abs(np.asarray(np.corrcoef(rows))[np.triu_indices(count, 1)])
        limit = t.isf(ERROR / pairs / 2, length - 2)
        if not (alike <= limit / math.sqrt(length - 2 + limit**2)).all():
            yield f"two {name} share their noise (a correlation of {np.nanmax(alike):.3g})"


def _steps_taken(plan: Plan) -> Floats:
    """In how many steps of one round each canary was, by what the update shows, [canaries]."""
    gradients, directions = canaries_of(plan, len(FEATURES))
    count = len(directions) // 2
    marks = np.zeros((count, width(plan.model, len(FEATURES))), np.float32)
    marks[:, 0] = np.arange(1, count + 1)
    units = Units(marks, np.zeros(count, np.float32), np.arange(count + 1), plan.unit)
    settings = replace(plan.settings_for(count), noise_multiplier=QUIET)
    start = initial_parameters(plan.model, len(FEATURES))
    trained = training.descend(
        plan.model, start, units, settings, Randomness(), gradients=lambda module, width: gradients
    )
    # In the order of the module, as gradients are.
    names = [name for name, _ in build(plan.model, len(FEATURES)).named_parameters()]
    moved = np.concatenate([trained.update[name].ravel() for name in names]).astype(np.float64)
    clips = moved * settings.expected_batch / settings.clip_norm
    taken: Floats = np.linalg.norm(clips[directions[:count]], NORMS[plan.mechanism], axis=1)
    return taken


def _spread_fault(sums: Floats, coins: int, rate: float) -> str:
    """What tells ``sums`` from draws of a binomial by their spread about its mean, or nothing."""
    variance = coins * rate * (1.0 - rate)
    if not variance:
        return ""
    # The variance of a squared deviation: the binomial's fourth moment less the square of its second.
    fourth = variance * (1.0 + 3.0 * (coins - 2.0) * rate * (1.0 - rate))
    spread = ((sums - coins * rate) ** 2).mean() / variance
    deviation = math.sqrt((fourth - variance**2) / len(sums)) / variance
    # Few sums are skewed to large spreads: chi-square's quantiles of as many.
    low, high = chi2.ppf([ERROR, 1.0 - ERROR], len(sums)) / len(sums) - 1.0
    scale = max(deviation / math.sqrt(2.0 / len(sums)), 1.0)
    if low * scale <= spread - 1.0 <= high * scale * 1.2:
        return ""
    return f"a spread of {spread:.3g} of a binomial's variance"


def _coupled(plan: Plan) -> tuple[int, float]:
    """The units that a site reads, and the most that taking out the last one moves an update, in clips.

    In a process of its own, where training draws the same numbers again: nothing of it is private.
    """
    table = made_up(plan)
    last = table.num_rows - (ROWS if plan.unit == "patient" else 1)
    # Dealt in another order than by patient, as tables of several samples are.
    mixed = np.random.default_rng(1).permutation(table.num_rows)
    dealt = pa.concat_tables(table.slice(row, 1) for row in mixed.tolist())
    units = read_back([dealt, table.slice(0, last)], plan)
    vars(training)["Randomness"] = lambda: Randomness(repeated())
    with_unit, without = (sent(plan, lambda plan, own=own: own, 2) for own in units)  # type: ignore[misc]
    batch = plan.settings_for(PATIENTS).expected_batch
    moved = np.linalg.norm(with_unit - without, NORMS[plan.mechanism], axis=1) * batch / plan.clip_norm
    return len(units[0]), float(moved.max())


def _rounding(plan: Plan) -> float:
    """What releases on a grid, and an update in float32, may differ by more than the clip, in clips."""
    parameters = sum(value.size for value in initial_parameters(plan.model, len(FEATURES)).values())
    grid = 2.0**-GRID_BITS * plan.noise_multiplier * parameters ** (1 / NORMS[plan.mechanism])
    return float(1e-4 + grid)
