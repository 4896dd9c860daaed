"""What a site sends over whole rounds of its plan: its own code on made-up units, by the plan's own settings.

Every release in them is recorded. Their units' gradients are an auditor's
(`cordon.auditing.gradient_canaries`), so that what they add to a release is known and can be taken off, and
the rest must be noise as declared, whatever is in the data. The same goes for the count behind an adaptive
clip. Made-up units tell nothing of patients.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cordon.arrays import Floats
from cordon.auditing import draws
from cordon.auditing.checks import Check
from cordon.auditing.draws import ERROR
from cordon.auditing.made_up_site import MOST_PLAYED, PATIENTS, apart, as_told, marked, played, some_rounds
from cordon.auditing.recorder import Recorded, counted, recording, span
from cordon.auditing.step_bound import canaries_of, declared_count_noise, declared_noise
from cordon.federation.plan import RANGES, Plan
from cordon.model.architectures import build
from cordon.privacy.events import DEVIATIONS, NORMS
from cordon.privacy.mechanisms import GRID_BITS, REACH, STREAM_FROM, Randomness
from cordon.training import dpsgd
from cordon.training.settings import DPSGD
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import WITH_IMAGES

__all__ = ["ERROR", "NOISE", "check_noise"]


NOISE = "Is every release of whole rounds what units add, within the clip, and fresh noise as declared?"
# How long the units' gradients are, in clips, at the sites that are played: of one without units, of one
# whose units are all shorter than the clip, and of one whose units are longer.
UNIT_LENGTHS = (None, 0.1, 10.0)
# Units that a site holds: more than a block of its declared ones has room for; and fewer of images.
UNITS_HELD, IMAGE_UNITS_HELD = 64, 16
# Releases of a site at least, for which it is played again, and in so many rounds at most.
RELEASES, MOST_ROUNDS_AGAIN = 100, 40
# Rows of a unit that a step takes at most where they are images. So many deviations are hardly ever exceeded.
MOST_IMAGE_ROWS, FAR_DEVIATIONS = 16, 8.0
# Streams of random bytes whose beginnings are compared, bytes of one, uniform draws that are looked at, and
# bytes that a number of noise takes (Mironov 2012, and `cordon.privacy.mechanisms.Randomness`).
STREAMS, BEGINNING, UNIFORMS, BYTES = 4096, 16, 2**15, 32
# Bytes of a long stream, in which none of as many as a cipher's block comes again, and of a key.
LONG_STREAM, CIPHER_KEY_BYTES = 2**20, 32


@dataclass(frozen=True)
class Residuals:
    """What is left of releases of one site when what units add is taken off.

    ``noise`` [releases, P] and ``counts`` [releases, or none] are of scale 1 where they are as declared;
    ``touched`` [releases, P] says where units added something. ``faults`` were found on the way, and
    ``beginnings`` are those of streams of random bytes.
    """

    noise: Floats
    counts: Floats
    touched: npt.NDArray[np.bool_]
    faults: list[str]
    beginnings: list[bytes]


def check_noise(plan: Plan) -> Check:
    """Rounds of sites without units, with short and with long ones, each in a process of its own."""
    own = _own(plan)
    found = apart(_residuals, *((own, length) for length in UNIT_LENGTHS))
    noise, counts, touched = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("noise", "counts", "touched")
    )
    faults = list(dict.fromkeys(fault for part in found for fault in part.faults))
    faults += _generator_faults([beginning for part in found for beginning in part.beginnings])
    faults += _noise_faults(own, noise, touched)
    if plan.clipping == "adaptive":
        faults += _cost_faults(plan)
    if _counts(own):
        sizes = np.abs(counts) ** draws.POWERS[plan.mechanism]
        faults += draws.scale_faults(sizes.sum()[None], len(counts), plan.mechanism, "of counts")
    # A count is one more number of its release.
    faults += draws.shared_faults(np.column_stack([noise, counts.reshape(len(noise), -1)]))
    scale = float(np.mean(noise**2)) ** 0.5 / DEVIATIONS[plan.mechanism]
    least = f"{draws.least_scale(noise.size, plan.mechanism):.3f} of the declared scale"
    if counts.size:
        least += f", or of {draws.least_scale(counts.size, plan.mechanism):.2f} in counts,"
    return Check.of(
        "noise", NOISE, faults,
        f"{len(noise)} releases of {len(found)} sites, with and without units, are what units add and fresh "
        "noise as declared, and updates are made of nothing else",
        {"releases": len(noise), "numbers": noise.size, "counts": counts.size, "scale": scale},
        most=f"noise of less than {least} would have failed it",
    )  # fmt: skip


def _own(plan: Plan) -> Plan:
    """The plan's own settings, but for fewer rows of images, and for how fast an adaptive clip moves.

    It must not reach the end of its range, where it says nothing of its counts any more.
    """
    own = as_told(plan)
    if plan.model in WITH_IMAGES:
        own = replace(own, max_variants_per_patient=min(plan.max_variants_per_patient, MOST_IMAGE_ROWS))
    if plan.clipping == "adaptive":
        own = replace(own, clip_rate=max(_slow(own), RANGES["clip_rate"][0]))
    return own


def _slow(plan: Plan) -> float:
    """The clip's rate that keeps it within half of its range (log clips) over a run of the rounds played."""
    settings, sampled = plan.settings_for(PATIENTS), plan.sampling_rate * UNITS_HELD
    most = (
        sampled
        + FAR_DEVIATIONS * math.sqrt(sampled)
        + FAR_DEVIATIONS
        + FAR_DEVIATIONS * declared_count_noise(plan)
    )
    each = math.log(REACH) / 2.0 / (MOST_PLAYED * plan.local_steps) / most
    return min(plan.clip_rate, each * settings.expected_batch / span(settings))


def _counts(plan: Plan) -> bool:
    """Whether a clip tells of its counts.

    Not where they are so noisy, or the batch so small, that no plan moves it slowly enough (`_own`).
    """
    return plan.clipping == "adaptive" and _slow(plan) >= RANGES["clip_rate"][0]


def _residuals(plan: Plan, length: float | None) -> Residuals:
    """Of a site, played in this process, whose units' gradients are ``length`` clips long (None: of none)."""
    gradients, directions = canaries_of(plan, len(FEATURES), length=length or 1.0)
    held = min(IMAGE_UNITS_HELD if plan.model in WITH_IMAGES else UNITS_HELD, len(directions))
    units = marked(plan, held if length else 0)
    with recording(planted=gradients) as recorder:
        rounds = played(plan, lambda plan: units, recorder, some_rounds(plan))
        while 0 < sum(len(one.releases) for one in rounds) < RELEASES and len(rounds) < MOST_ROUNDS_AGAIN:
            rounds += played(plan, lambda plan: units, recorder, some_rounds(plan))
    releases = [release for one in rounds for release in one.releases]
    faults = [fault for one in rounds for fault in one.faults]
    settings = plan.settings_for(PATIENTS)
    long = (length or 1.0) * plan.clip_norm
    norm = long * directions.shape[1] ** (1 / NORMS[plan.mechanism])
    deviation = DEVIATIONS[plan.mechanism] / settings.expected_batch
    noise, counts, touched = [], [], []
    for release in releases:
        scale = declared_noise(plan) * release.clip
        summed, added = release.mean * settings.expected_batch, _added(directions, long, release, settings)
        faults += _grid_faults(summed, scale, "released sum")
        if not math.isclose(release.noise_variance, (scale * deviation) ** 2, rel_tol=1e-9):
            faults.append("a release is told to have noise of another variance than declared")
        noise.append((summed - added) / scale)
        touched.append(added != 0.0)
        if _counts(plan):
            count, hidden = counted(release, settings), declared_count_noise(plan)
            faults += _grid_faults(np.array([count]), hidden, "count")
            counts.append((count - _count(norm, release, settings)) / hidden)
    return Residuals(
        np.array(noise), np.array(counts), np.array(touched), faults,
        [_random().source(STREAM_FROM)[:BEGINNING] for _ in range(STREAMS)],
    )  # fmt: skip


def _added(directions: npt.NDArray[np.int64], length: float, release: Recorded, settings: DPSGD) -> Floats:
    """What the units of ``release`` add to its sum [P]: each its gradient, or the clip along it."""
    parts = directions.shape[1]
    most = release.clip / parts ** (1 / NORMS[settings.mechanism])
    added = np.zeros(len(release.mean))
    np.add.at(added, directions[release.marks - 1].ravel(), min(length, most))
    return added


def _count(norm: float, release: Recorded, settings: DPSGD) -> float:
    """The count of its units, whose gradients' norms are ``norm``."""
    each = float(norm <= release.clip) - settings.clip_quantile
    return each * len(release.marks) / span(settings)


def _grid_faults(values: Floats, scale: float, what: str) -> Iterator[str]:
    steps = values / 2.0 ** (math.floor(math.log2(scale)) - GRID_BITS)
    if not (np.abs(steps - np.rint(steps)) < 1e-3).all():
        yield f"a {what} is off the public grid"


def _noise_faults(plan: Plan, noise: Floats, touched: npt.NDArray[np.bool_]) -> Iterator[str]:
    """By all numbers together, by parameter, number and release, and by whether units added to it."""
    sizes, count = np.abs(noise) ** draws.POWERS[plan.mechanism], len(noise)
    named = build(plan.model, len(FEATURES)).named_parameters()
    widths = np.array([parameter.numel() for _, parameter in named])
    each = np.add.reduceat(sizes.sum(0), np.cumsum([0, *widths[:-1]]))
    apart = [(sizes[where].sum(), where.sum()) for where in (touched, ~touched) if where.any()]
    for sums, numbers, where in (
        (sizes.sum()[None], sizes.size, "in all"),
        (each, widths * count, "of one of the model's parameters"),
        (sizes.sum(0), count, "of one number"),
        (sizes.sum(1), sizes.shape[1], "of one release"),
        (*np.transpose(apart), "where units add to a release, or where they do not"),
    ):
        yield from draws.scale_faults(sums, numbers, plan.mechanism, where)
    yield from draws.shape_faults(noise, plan.mechanism)


def _cost_faults(plan: Plan) -> Iterator[str]:
    """Gradient and count of a step must cost together what the plan's noise does alone."""
    from cordon.privacy.clipping import split_noise

    gradient, count = split_noise(plan.noise_multiplier, plan.mechanism, plan.quantile_share)
    power = draws.POWERS[plan.mechanism]
    cost, declared = gradient**-power + (2.0 * count) ** -power, plan.noise_multiplier**-power
    if cost > declared * (1.0 + 1e-9):
        yield f"gradient and count of a step cost {cost / declared:.4g} times what the plan accounts for"


def _random() -> Randomness:
    """What training draws from."""
    drawn_from: Randomness = vars(dpsgd)["Randomness"]()
    return drawn_from


def _entropy_faults() -> Iterator[str]:
    """What is wrong with long streams of random bytes: keys that are too short, or used again in one."""
    asked: list[int] = []
    urandom = os.urandom

    def counting(size: int) -> bytes:
        asked.append(size)
        return urandom(size)

    source = _random().source
    os.urandom = counting
    try:
        for size in (BEGINNING, STREAM_FROM, LONG_STREAM):
            asked.clear()
            stream = source(size)
            if sum(asked) < min(size, CIPHER_KEY_BYTES):
                yield f"{size} random bytes are made of {sum(asked)} of the operating system's"
    finally:
        os.urandom = urandom
    blocks = np.frombuffer(stream, dtype=np.dtype((np.void, BEGINNING)))
    if len(np.unique(blocks)) < len(blocks):
        yield f"of {LONG_STREAM} random bytes {BEGINNING} come again"


def _generator_faults(beginnings: Sequence[bytes]) -> Iterator[str]:
    """What is wrong with the generator behind noise and sampling, by what it gives."""
    if len(set(beginnings)) < len(beginnings):
        yield f"of {len(beginnings)} streams of random bytes two begin alike"
    yield from _entropy_faults()
    random = _random()
    drawn = random.uniform(UNIFORMS)
    for bits in (0, 12, 24, 36):
        if draws.not_uniform(drawn * 2.0**bits % 1.0, 2.0**-12):
            yield f"uniform draws are not uniform from their binary digit {bits + 1} on"
    asked: list[int] = []

    def counting(size: int) -> bytes:
        asked.append(size)
        return random.source(size)

    for draw in (Randomness(counting).normal, Randomness(counting).laplace):
        asked.clear()
        draw(UNIFORMS)
        if sum(asked) < BYTES * UNIFORMS:
            yield f"a number of noise takes {sum(asked) / UNIFORMS:g} random bytes, and {BYTES} are needed"
