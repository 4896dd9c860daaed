"""What a site sends over whole rounds: its own code, from the table to the update, on made-up rows.

The step bound looks at single releases. Between them and what is sent lie the grouping of rows, the loop over
steps and rounds, and whatever is done to an update in the end. Made-up rows tell nothing of patients. All are
looked at by the plan's noise, rate and clip, under a fixed clip norm and plain descent: an adaptive clip's
count is looked at by itself, and Adam and momentum change releases alone.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import shake_256
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import chi2, norm, t

from cordon import training
from cordon.accountants import DEVIATIONS, GAUSSIAN, NORMS
from cordon.auditing.checks import Check
from cordon.auditing.made_up_site import replies
from cordon.auditing.step_bound import QUIET, canaries_of
from cordon.devices import THREADS
from cordon.features import FEATURES
from cordon.federation.messages import Reply
from cordon.federation.outliers import flat
from cordon.federation.plan import Plan
from cordon.images import WITH_IMAGES
from cordon.mechanisms import GRID_BITS, Randomness
from cordon.model import build, initial_parameters, width
from cordon.tables import LABELLED, write_table
from cordon.units import Units

Floats = npt.NDArray[np.float64]

NOISE = "Is there fresh noise of the declared size in all that a site sends?"
SAMPLING = "Is each unit in each step by a coin of its own?"
NEIGHBOURS = "Does one unit, with all its rows, move what is sent by no more than the clip?"
# How often right code fails each of the tests that a check makes.
ERROR = 1e-6
PROCESSES, ROUNDS = 2, 4
# Rounds whose samples are read off, at most so many steps each, and clips that are moved by noise alone.
SAMPLED_ROUNDS, MOST_STEPS, CLIPS = 40, 25, 200
PATIENTS, ROWS = 8, 4


def check_noise(plan: Plan) -> Check:
    """Updates of a site without rows, over rounds and in processes of their own, are noise alone."""
    plain = _plain(plan)
    with _processes(PROCESSES) as pool:
        sent = np.concatenate(pool.map(_noise_alone, [plain] * PROCESSES))
    settings = plain.settings_for(PATIENTS)
    deviation = math.sqrt(plain.local_steps) * plain.noise_multiplier * plain.clip_norm
    seen = sent * settings.expected_batch / (deviation * DEVIATIONS[plain.mechanism])
    faults = list(_noise_faults(seen, excess=0.0 if plain.mechanism == GAUSSIAN else 3.0 / plain.local_steps))
    if plan.clipping == "adaptive":
        faults += _count_faults(plan)
    reason = f"{len(seen)} updates of {PROCESSES} processes have the declared noise, and share none of it"
    figures = {"updates": len(seen), "numbers": seen.size, "variance": float((seen**2).mean())}
    return Check("noise", NOISE, not faults, "; ".join(faults) or reason, figures)


def check_sampling(plan: Plan) -> Check:
    """With the noise all but turned off, an update shows in how many of a round's steps each canary was."""
    plain = replace(
        _plain(plan), local_steps=min(plan.local_steps, MOST_STEPS), max_variants_per_patient=1, rounds=1
    )  # fmt: skip
    steps, rate = plain.local_steps, plain.sampling_rate
    seen = np.array([_steps_taken(plain) for _ in range(SAMPLED_ROUNDS)])
    counts = np.rint(seen)
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
    if abs(share - rate) > norm.isf(ERROR) * math.sqrt(rate * (1 - rate) / (counts.size * steps)) + 1e-12:
        faults.append(f"units are in {share:.4g} of the steps, and the plan declares {rate:g}")
    reason = (
        f"of {counts.size * steps} chances to be in a step, each was taken apart and as often as declared"
    )
    figures = {"rounds": len(counts), "canaries": counts.shape[1], "steps": steps, "rate": float(share)}
    return Check("sampling", SAMPLING, not faults, "; ".join(faults) or reason, figures)


def check_neighbours(plan: Plan) -> Check:
    """The same randomness with and without one unit: what is sent differs by one clip at most."""
    if plan.model in WITH_IMAGES:
        why = f"not tried: made-up rows have no images, which {plan.model} takes"
        return Check("neighbours", NEIGHBOURS, True, why, tried=False)
    plain = replace(_plain(plan), sampling_rate=1.0, local_steps=1, max_variants_per_patient=ROWS)
    with _processes(1) as pool:
        found, moved = pool.apply(_coupled, [plain])
    faults = []
    units = PATIENTS if plan.unit == "patient" else PATIENTS * ROWS
    if found != units:
        faults.append(
            f"{PATIENTS} patients of {ROWS} rows make {found} units of one {plan.unit}, not {units}"
        )
    if moved > 1.0 + _rounding(plain):
        faults.append(f"one {plan.unit} moves an update by {moved:.4g} clips")
    reason = f"the hardest {plan.unit} tried, with all its rows, moves an update by {moved:.4g} clips"
    return Check(
        "neighbours", NEIGHBOURS, not faults, "; ".join(faults) or reason, {"moved": moved, "units": found}
    )


def _processes(count: int) -> Pool:
    """Processes of their own, as sites are: what they inherit they share, and what one changes it keeps.

    One thread each, since a forked process has none of those that this one's torch has started.
    """
    return multiprocessing.get_context("fork").Pool(count, os.environ.update, [{THREADS: "1"}])


def _plain(plan: Plan) -> Plan:
    # Delta is told of no update, and a plan's may be too large for so few patients as are made up.
    return replace(
        plan, run="audit", clipping="fixed", optimiser="sgd", momentum=0.0, learning_rate=1.0,
        rounds=max(plan.rounds, ROUNDS), delta=1e-12,
    )  # fmt: skip


def _sent(plan: Plan, load: Callable[[Plan], Units], rounds: int) -> Floats:
    """What a site sends in its first rounds, each from the same parameters, [rounds, parameters]."""
    start = initial_parameters(plan.model, len(FEATURES))
    # A budget that many rounds of the plan do not exceed: it is the noise that is looked at.
    sent = replies(plan, start, load, declared_patients=PATIENTS, rounds=rounds, epsilon=1e9)
    return np.array([flat(Reply.from_records(reply).update or {}).astype(np.float64) for reply in sent])


def _noise_alone(plan: Plan) -> Floats:
    return _sent(plan, _no_units, ROUNDS)


def _no_units(plan: Plan) -> Units:
    no_rows = np.zeros((0, width(plan.model, len(FEATURES))), np.float32)
    return Units(no_rows, np.zeros(0, np.float32), np.zeros(1, np.int64), plan.unit)


def _noise_faults(seen: Floats, excess: float) -> Iterator[str]:
    """What tells [updates, parameters] from independent numbers of variance 1 and this excess kurtosis."""
    updates, numbers = seen.shape
    wide = math.sqrt(1.0 + excess / 2.0)
    total = float((seen**2).sum())
    least, most = (float(chi2.ppf(tail, seen.size)) for tail in (ERROR, 1.0 - ERROR))
    if not seen.size - (seen.size - least) * wide <= total <= seen.size + (most - seen.size) * wide:
        yield f"the noise's variance is {total / seen.size:.4g} of the declared one"
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


def _count_faults(plan: Plan) -> list[str]:
    """An adaptive clip that no unit moves is moved by the noise of its count."""
    from cordon.clipping import split_noise

    alone = replace(plan, local_steps=1)
    settings = alone.settings_for(PATIENTS)
    start = initial_parameters(plan.model, len(FEATURES))
    none = _no_units(plan)
    clips = [training.train(plan.model, start, none, settings).clip_norm for _ in range(CLIPS)]
    span = 2.0 * max(settings.clip_quantile, 1.0 - settings.clip_quantile)
    scale = split_noise(settings.noise_multiplier, settings.mechanism, settings.quantile_share)[1]
    deviation = settings.clip_rate * span * scale * DEVIATIONS[settings.mechanism] / settings.expected_batch
    moved = np.log(np.array(clips) / settings.clip_norm)
    # Beyond its reach a clip stays where it is, and large noise cannot be told.
    seen = (moved[np.abs(moved) < math.log(training.REACH) * 0.99] / deviation) ** 2
    if len(seen) > CLIPS / 2 and seen.mean() < chi2.ppf(ERROR, len(seen)) / len(seen) / 1.5:
        return [f"the count behind the adaptive clip has {seen.mean():.3g} of the declared noise's variance"]
    return []


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
    order = NORMS[plan.mechanism]
    with tempfile.TemporaryDirectory() as folder:
        table = _made_up()
        last = table.num_rows - (ROWS if plan.unit == "patient" else 1)
        paths = [Path(folder) / name for name in ("with.parquet", "without.parquet")]
        # Dealt in another order than by patient, as tables of several samples are.
        mixed = np.random.default_rng(1).permutation(table.num_rows)
        write_table(table.take(mixed), paths[0])
        write_table(table.slice(0, last), paths[1])
        units = [Units.read([path], unit=plan.unit, architecture=plan.model) for path in paths]
        vars(training)["Randomness"] = lambda: Randomness(_repeated())
        with_unit, without = (_sent(plan, lambda plan, own=own: own, 2) for own in units)  # type: ignore[misc]
    batch = plan.settings_for(PATIENTS).expected_batch
    moved = np.linalg.norm(with_unit - without, order, axis=1) * batch / plan.clip_norm
    return len(units[0]), float(moved.max())


def _repeated() -> Callable[[int], bytes]:
    """A source that gives the same bytes to the same question, a longer one's beginning to a shorter one."""
    asked = iter(range(10**9))
    return lambda size: shake_256(f"{next(asked)}".encode()).digest(size)


def _made_up() -> pa.Table:
    """PATIENTS of ROWS each, all alike but for the last one, which pulls the other way and twice as hard."""
    rows = PATIENTS * ROWS
    away = np.repeat([1.0] * (PATIENTS - 1) + [-2.0], ROWS)
    columns: dict[str, Any] = {}
    for field in LABELLED:
        if field.name in FEATURES:
            columns[field.name] = (3.0 * away).astype(np.float32)
        elif field.name == "label":
            columns[field.name] = np.ones(rows, np.int8)
        elif field.name == "patient":
            columns[field.name] = [f"p{row // ROWS}" for row in range(rows)]
        elif field.name == "position":
            columns[field.name] = np.arange(1, rows + 1)
        elif field.type == pa.string():
            columns[field.name] = ["x"] * rows
        else:
            columns[field.name] = pa.nulls(rows, field.type)
    return pa.table(columns, schema=LABELLED)


def _rounding(plan: Plan) -> float:
    """What releases on a grid, and an update in float32, may differ by more than the clip, in clips."""
    parameters = sum(value.size for value in initial_parameters(plan.model, len(FEATURES)).values())
    grid = 2.0**-GRID_BITS * plan.noise_multiplier * parameters ** (1 / NORMS[plan.mechanism])
    return float(1e-4 + grid)
