"""Whether the code that trains does what is specified: whole rounds beside `cordon.auditing.reference`.

The same random bytes, parameters and clip norm must give the same releases, whatever the rows are like. What
differs by more than a step of the public grid and float32's rounding of gradients is another mechanism than
the one that is accounted for.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from cordon.auditing import reference
from cordon.auditing.checks import Check
from cordon.auditing.made_up_rows import (
    ONE_ID,
    ROWS,
    long_patient,
    overflowing_patient,
    table_of,
    units_of,
)
from cordon.auditing.made_up_site import PATIENTS, PlayedRound, apart, as_told, played
from cordon.auditing.recorder import Recorded, recording, span
from cordon.federation.plan import Plan
from cordon.privacy.mechanisms import Randomness
from cordon.training import dpsgd
from cordon.training.settings import DPSGD
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import WITH_IMAGES
from cordon.variants.table import PILEUP

SPECIFIED = "Is every release what the specification makes of rows and random bytes?"
# Rows of a unit in a step, fewer than one unit has, and steps of a round; at the site of one unit so many
# that the noise which is drawn together is used up. Of images as few as will do.
SPECIFIED_ROWS, SPECIFIED_STEPS, LONG_ROUND, SPECIFIED_IMAGE_ROWS, SPECIFIED_IMAGE_STEPS = 80, 10, 200, 4, 2
# Units are in steps at least as often, by site, so that there is something to see.
RATES = {"all kinds": 0.5, "one": 0.9}
# Units of a site that holds many more than it declared, all of which pull one way.
MANY = 96
# A patient of the site with all kinds of rows, not the last by name, who has no room left.
SPENT = ["p1"]


def check_specified(plan: Plan) -> Check:
    """Sites of many kinds of rows, by the plan's own settings, in a process of their own each."""
    own = replace(as_told(plan), sites_per_patient=plan.sites_per_patient, local_steps=plan.local_steps)
    rounds = sorted({1, 1 + secrets.randbelow(plan.rounds), plan.rounds})
    found = apart(_compared, *((_shorter(own, name), rounds, name) for name in SITES))
    faults = list(dict.fromkeys(fault for part, _ in found for fault in part))
    if replace(plan.settings_for(PATIENTS).event, sites=plan.event.sites) != plan.event:
        faults.append("a round is trained at another cost than is reserved for it")
    compared = sum(count for _, count in found)
    return Check.of(
        "specified", SPECIFIED, faults,
        f"{compared} releases of {len(SITES)} sites are what the specification makes of their rows",
        {"releases": compared, "sites": len(SITES)},
        most="a release that differs by more than the grid and float32 round by would have failed it",
    )  # fmt: skip


def _shorter(plan: Plan, site: str) -> Plan:
    """The plan with as many steps and rows as are played at a ``site``, and units as often in them."""
    images = plan.model in WITH_IMAGES
    steps = SPECIFIED_IMAGE_STEPS if images else LONG_ROUND if site == "one" else SPECIFIED_STEPS
    # Where units have one row, the blocks of a sample of variants are as small as those of patients.
    rows = 1 if site == "many" else SPECIFIED_IMAGE_ROWS if images else SPECIFIED_ROWS
    rate = max(plan.sampling_rate, RATES.get(site, 0.0))
    return replace(
        plan, local_steps=min(plan.local_steps, steps), sampling_rate=rate,
        max_variants_per_patient=min(plan.max_variants_per_patient, rows),
    )  # fmt: skip


def _many(plan: Plan) -> list[pa.Table]:
    """MANY units of one row, all of one label, whose gradients have the same signs."""
    table = table_of(plan, {f"m{number:03d}": 1 for number in range(MANY)}, seed=5)
    table = _changed(table, "label", [1] * MANY)
    for name in FEATURES:
        table = _changed(table, name, [abs(value) for value in table[name].to_pylist()])
    return [table]


def _all_kinds(plan: Plan) -> list[pa.Table]:
    """Patients of few and of many rows, in two tables and under two ids, and some that hardly are any.

    Two have the same rows; two have numbers that are huge, two ones that overflow, and one a number that is
    none; of one no row is labelled, and of another one some are not.
    """
    rest, (first, second) = table_of(plan, ROWS), long_patient(plan)
    twin = table_of(plan, {"twin": 3}, seed=7)
    other = _changed(twin, "patient", ["twin-2"] * 3)
    none = _changed(table_of(plan, {"nan": 2}, seed=8), FEATURES[2], [math.nan, 0.5])
    unlabelled = _changed(table_of(plan, {"unlabelled": 2}, seed=9), "label", [None, None])
    some = _changed(table_of(plan, {"some": 3}, seed=10), "label", [1, None, 0])
    # Of one label the gradient is infinite, of the other one it is no number.
    over = [_changed(overflowing_patient(plan), "label", [label]) for label in (0, 1)]
    over[1] = _changed(over[1], "patient", ["overflowing, too"])
    huge = _changed(table_of(plan, {"huge-0": 1, "huge-1": 1}, seed=11), FEATURES[3], [1e9, -1e9])
    few = pa.concat_tables([other, unlabelled, *over, _changed(huge, "label", [1, 1])])
    return [pa.concat_tables([rest, first, twin, none, some]), second, few]


def _one(plan: Plan) -> list[pa.Table]:
    """One unit; of an image that is dark."""
    table = table_of(plan, {"alone": 1}, seed=6)
    if PILEUP.name in table.schema.names:
        table = _changed(table, PILEUP.name, [bytes(pixel // 2 for pixel in table[PILEUP.name][0].as_py())])
    return [table]


SITES = {"all kinds": _all_kinds, "many": _many, "one": _one}


def _changed(table: pa.Table, column: str, values: Sequence[object]) -> pa.Table:
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type))


def _compared(plan: Plan, rounds: Sequence[int], site: str) -> tuple[list[str], int]:
    """What differs at a ``site`` that is played in this process, and how many releases were compared."""
    tables, settings = SITES[site](plan), plan.settings_for(PATIENTS)
    units, seed = units_of(tables, plan), secrets.token_hex(16)
    spent = SPENT if site == "all kinds" else []
    streams: list[str] = []

    def next_round() -> Randomness:
        streams.append(f"{seed} {len(streams)}")
        return Randomness(reference.Stream(streams[-1]))

    vars(dpsgd)["Randomness"] = next_round
    with recording() as recorder:
        found = played(plan, lambda plan: units, recorder, rounds, spent)
    rows = reference.units_of(tables, plan.unit, plan.model, ONE_ID, spent)
    faults = [fault for one in found for fault in one.faults]
    if len(streams) != len(rounds):
        return [*faults, f"{len(rounds)} rounds draw from {len(streams)} sources"], 0
    for one, stream in zip(found, streams, strict=True):
        faults += _round_faults(one, reference.Stream(stream), rows, plan, settings)
    return faults, sum(len(one.releases) for one in found)


def _round_faults(
    played_round: PlayedRound, stream: reference.Stream, rows: reference.Rows, plan: Plan, settings: DPSGD
) -> Iterator[str]:
    """What of a round's releases is not as specified; the first such step ends it: bytes may be shifted."""
    specified = reference.Reference(settings, rows, stream)
    module = reference.module_of(plan.model, len(FEATURES))
    for release in played_round.releases:
        step = specified.step(module, release.position, release.clip)
        grid = reference.grid(step.noise_scale)
        far = float(abs(release.mean * settings.expected_batch - step.sum).max())
        if not far <= 1.001 * grid + step.float32:
            yield (
                f"a release is {far / step.noise_scale:.3g} of the noise's scale away from what its rows and "
                "random bytes make"
            )
            return
        deviation = reference.deviation_of(step, settings)
        if not math.isclose(release.noise_variance, deviation**2, rel_tol=1e-9):
            yield "a release is told to have noise of another variance than specified"
        if not _moves_so(release, step, settings):
            yield "a clip norm moves otherwise than its count makes it"
            return


def _moves_so(release: Recorded, step: reference.Step, settings: DPSGD) -> bool:
    """Whether the clip norm after ``release`` is what the count of ``step`` makes of it."""
    if settings.clipping == "fixed":
        return release.next_clip == release.clip
    width, first = span(settings), settings.clip_norm
    most = math.log(reference.REACH)
    allowed = []
    for more in range(-step.doubtful, step.doubtful + 1):
        leap = -settings.clip_rate * (step.count + more / width) * width / settings.expected_batch
        norm = release.clip * math.exp(min(max(leap, -most), most))
        allowed.append(min(max(norm, first / reference.REACH), first * reference.REACH))
    slack = 1.001 * settings.clip_rate * reference.grid(step.count_scale) * width / settings.expected_batch
    return any(abs(math.log(release.next_clip / norm)) <= slack + 1e-9 for norm in allowed)
