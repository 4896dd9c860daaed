"""What one unit adds to what a site sends: sites that differ by one unit, from their tables to their updates.

All of them draw the same randomness and go on with the same releases, which an auditor chose. So whatever
differs between them is of their rows: each release by no more than one unit's clip where that unit is in it
and by nothing where it is not, and all else by nothing. Tables are made up (`cordon.auditing.made_up_rows`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cordon.arrays import Floats
from cordon.auditing.checks import Check
from cordon.auditing.made_up_rows import (
    LONG_ROWS,
    MOST_ROWS_OF_ONE,
    OTHER_ID,
    ROWS,
    long_patient,
    overflowing_patient,
    table_of,
    units_of,
)
from cordon.auditing.made_up_site import PATIENTS, PlayedRound, apart, as_told, played, repeated, some_rounds
from cordon.auditing.recorder import Recorded, counted, recording, span
from cordon.auditing.step_bound import declared_count_noise, declared_noise
from cordon.federation.plan import Plan
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.events import LEAST_NOISE, NORMS
from cordon.privacy.mechanisms import GRID_BITS, Randomness
from cordon.training import dpsgd
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import WITH_IMAGES

NEIGHBOURS = "Does one unit, with all its rows, move releases by no more than the clip, and nothing else?"
# Every made-up gradient is longer than this clip, which takes the place of a plan's larger one. Noise that is
# the same twice is little, since what it is rounded to is not; clip and parameters move slowly, lest
# gradients become shorter.
REACHED, LITTLE, SLOW = 0.05, LEAST_NOISE, 0.01
# How often units are in a step, and the steps of a round, of images as few as will do.
RATE, FEWEST_STEPS, ADDITION_STEPS, ADDITION_IMAGE_STEPS = 0.5, 8, 12, 4


@dataclass(frozen=True)
class PlayedSite:
    """What a played site read and did: its number of ``units``, its ``rounds``, the ``samples`` in each."""

    units: int
    rounds: list[PlayedRound]
    samples: list[list[npt.NDArray[np.intp]]]


def check_neighbours(plan: Plan) -> Check:
    """The same randomness with and without one unit, whatever it is like."""
    own = as_told(plan)
    steps = (
        ADDITION_IMAGE_STEPS
        if plan.model in WITH_IMAGES
        else min(max(own.local_steps, FEWEST_STEPS), ADDITION_STEPS)
    )
    own = replace(
        own, sampling_rate=RATE, local_steps=steps, clip_norm=min(plan.clip_norm, REACHED),
        max_variants_per_patient=min(plan.max_variants_per_patient, MOST_ROWS_OF_ONE),
        noise_multiplier=min(plan.noise_multiplier, LITTLE), clip_rate=min(plan.clip_rate, SLOW),
        learning_rate=min(plan.learning_rate, SLOW), quantile_share=min(plan.quantile_share, 0.5),
    )  # fmt: skip
    ((faults, moved, by_count),) = apart(_found, [own, some_rounds(own)])
    limit = 1.0 + _rounding(own)
    return Check.of(
        "neighbours", NEIGHBOURS, faults,
        f"the hardest {plan.unit} tried, with all its rows, moves a release by {moved:.4g} clips, and "
        "nothing else differs between sites whose releases are the same",
        {"moved": moved, "count": by_count, "steps": steps},
        most=f"a {plan.unit} that moves a release by more than {limit:.4f} clips, a release that it is not "
        "in, or anything of an update beside releases would have failed it",
    )  # fmt: skip


def _found(plan: Plan, rounds: Sequence[int]) -> tuple[list[str], float, float]:
    """All faults, and the most that one unit moves a release, in clips, and a count."""
    sites = _sites(plan, rounds)
    long, bare = sites["long"], sites["bare"]
    faults = [fault for site in sites.values() for one in site.rounds for fault in one.faults]
    expected = len(ROWS) + 1 if plan.unit == "patient" else sum(ROWS.values()) + LONG_ROWS
    if long.units != expected:
        faults.append(f"a table of {expected} {plan.unit}s makes {long.units} units")
    for site in sites.values():
        faults += _beside_releases(long, site)
    if any(not _same(a, b) for a, b in _steps(sites["spent"], bare)):
        faults.append("patients who have no room left in their budget take part")
    moved, by_count = np.zeros((2, 2))
    for place, (one, less) in enumerate(((long, sites["without"]), (sites["overflowing"], bare))):
        found, moved[place], by_count[place] = _moved(one, less, plan)
        faults += found
    # Where right code is looked at, all of this is seen.
    in_count = plan.clip_quantile / span(plan.settings_for(PATIENTS)) if plan.clipping == "adaptive" else 0.0
    if not (moved[0] >= 0.9 and by_count[0] >= 0.9 * in_count):
        faults.append(
            f"one {plan.unit} of a gradient longer than the clip moves a release by {moved[0]:.4g} clips "
            f"alone, and a count by {by_count[0]:.4g}"
        )
    return list(dict.fromkeys(faults)), float(moved.max()), float(by_count.max())


def _sites(plan: Plan, rounds: Sequence[int]) -> dict[str, PlayedSite]:
    """Sites that differ by a unit or more, by name.

    One has the ``long`` patient, one is ``without`` its last unit, one ``bare`` of the patient, one has an
    ``overflowing`` one instead; at one the patient is ``spent``, and one has ``other`` rows.
    """
    rest, (first, second) = table_of(plan, ROWS), long_patient(plan)
    all_rows = [pa.concat_tables([rest, first]), second]
    tables = {
        "long": all_rows,
        # Where variants are units, the last row alone is one.
        "without": [rest] if plan.unit == "patient" else [all_rows[0], second.slice(0, second.num_rows - 1)],
        "bare": [rest], "overflowing": [rest, overflowing_patient(plan)], "spent": all_rows,
        "other": [table_of(plan, dict(itertools.islice(ROWS.items(), PATIENTS // 2)), seed=2)],
    }  # fmt: skip
    return {
        name: _play(held, plan, rounds, [OTHER_ID] if name == "spent" else [])
        for name, held in tables.items()
    }


def _play(tables: Sequence[pa.Table], plan: Plan, rounds: Sequence[int], spent: Sequence[str]) -> PlayedSite:
    """A site of ``tables``, whose process draws what every other one's does: nothing of it is private."""
    units = units_of(tables, plan)
    samples: list[list[npt.NDArray[np.intp]]] = []
    vars(dpsgd)["Randomness"] = lambda: coupled(samples)
    with recording(instead=partial(_instead, plan)) as recorder:
        return PlayedSite(len(units), played(plan, lambda plan: units, recorder, rounds, spent), samples)


def coupled(samples: list[list[npt.NDArray[np.intp]]]) -> Randomness:
    """The same draws for every site, of each kind and step apart, so that one more unit shifts no other draw.

    ``samples`` takes up one more round's, as they are drawn.
    """
    number, taken = len(samples), list[npt.NDArray[np.intp]]()
    samples.append(taken)

    class Coupled(Randomness):
        def poisson_sample(self, population: int, rate: float) -> npt.NDArray[np.intp]:
            source = Randomness(repeated(f"coin {number} {len(taken)}"))
            taken.append(source.poisson_sample(population, rate))
            return taken[-1]

        def subset(self, population: int, size: int) -> npt.NDArray[np.intp]:
            return Randomness(repeated(f"rows {number} {len(taken)}")).subset(population, size)

    return Coupled(repeated(f"noise {number}"))


def _instead(plan: Plan, place: int, parameters: int) -> tuple[Floats, float]:
    """What every site goes on with in place of a round's release: its mean, and the clip norm after it."""
    clip = plan.clip_norm * (1.0 if plan.clipping == "fixed" else 1.0 + 0.1 * (place % 3))
    return np.random.default_rng(place).normal(size=parameters), clip


def _beside_releases(one: PlayedSite, other: PlayedSite) -> Iterator[str]:
    """What differs between two sites that went on with the same releases."""
    for name in ("position", "clip", "noise_variance"):
        if any(not np.array_equal(getattr(a, name), getattr(b, name)) for a, b in _steps(one, other)):
            what = {"position": "gradients are taken at other parameters", "clip": "clip norms differ"}
            yield f"{what.get(name, 'the variance told of their noise differs')} where releases are the same"
    if any(not np.array_equal(a.update, b.update) for a, b in zip(one.rounds, other.rounds, strict=True)):
        yield "updates differ where releases are the same"


def _moved(one: PlayedSite, less: PlayedSite, plan: Plan) -> tuple[list[str], float, float]:
    """What is wrong with how the last unit of ``one`` moves releases, and by how much it does at most."""
    settings, limit = plan.settings_for(PATIENTS), 1.0 + _rounding(plan)
    hidden = 0.5 + 2.0 ** (1 - GRID_BITS) * declared_count_noise(plan) + 1e-6
    beside, moved, by_count = False, 0.0, 0.0
    samples = itertools.chain.from_iterable(one.samples)
    for (a, b), sample in zip(_steps(one, less), samples, strict=False):
        if one.units - 1 not in sample:
            beside |= not _same(a, b)
            continue
        far = np.linalg.norm(a.mean - b.mean, NORMS[plan.mechanism]) * settings.expected_batch / a.clip
        count = abs(counted(a, settings) - counted(b, settings))
        # What is no number is no small one.
        moved, by_count = (
            max(most, math.inf if math.isnan(seen) else float(seen))
            for most, seen in ((moved, far), (by_count, count))
        )
    faults = [f"one {plan.unit} moves a release that it is not in"] if beside else []
    if moved > limit:
        faults.append(f"one {plan.unit} moves a release by {moved:.4g} clips")
    if by_count > hidden:
        faults.append(f"one {plan.unit} moves a count by {by_count:.4g}, where its noise is for 0.5")
    return faults, moved, by_count


def _steps(one: PlayedSite, other: PlayedSite) -> Iterator[tuple[Recorded, Recorded]]:
    for a, b in zip(one.rounds, other.rounds, strict=True):
        yield from zip(a.releases, b.releases, strict=False)


def _same(one: Recorded, other: Recorded) -> bool:
    return np.array_equal(one.mean, other.mean) and one.next_clip == other.next_clip


def _rounding(plan: Plan) -> float:
    """What releases on a grid may differ by more than the clip, in clips."""
    parameters = sum(value.size for value in initial_parameters(plan.model, len(FEATURES)).values())
    return float(1e-4 + 2.0**-GRID_BITS * declared_noise(plan) * parameters ** (1 / NORMS[plan.mechanism]))
