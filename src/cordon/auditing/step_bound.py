"""The tight audit of one step: what it releases, beside the most that one unit can do, as against its plan.

The real sampling and the real release run many times on canaries only, half of which are in the data: units
at the privacy unit's full number of rows, all of one gradient (`cordon.auditing.gradient_canaries`). At the
plan's noise, a release along coordinates of no canary in the data is noise alone, which bounds its scale from
above. With the noise all but turned off, a release shows which canaries are in a step, and how far each moves
it: lower bounds of the sampling rate and of that shift. Together they bound epsilon from below, for one step
and by composition for all steps of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cordon.arrays import Floats
from cordon.auditing.checks import Check
from cordon.auditing.draws import noise_at_most, rate_at_least, shift_at_least
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.privacy.accountants import ROUNDING, epsilon_pld
from cordon.privacy.events import GAUSSIAN, LEAST_NOISE, MOST_NOISE, NORMS, Event
from cordon.privacy.guarantee import ADJACENCY, Guarantee
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import block_shape, draw, private_mean
from cordon.training.units import Units
from cordon.variants.features import FEATURES

if TYPE_CHECKING:
    from cordon.auditing.gradient_canaries import CanaryGradients
    from cordon.training.settings import DPSGD


STEP_BOUND = "Are noise and sampling what the plan declares, beside the most that one unit can do?"
STEP_CONFIDENCE = 0.999
# Canaries in the data, and as many that are not, at most: each has a coordinate of its own.
MOST_CANARIES = 128
# Draws of the noise, and of whether a unit is in a step, where none are asked for. Where units are sampled so
# rarely that fewer than SAMPLED would be in, the latter are more, in so many steps at most.
TRIALS, SAMPLED, MOST_BOUND_STEPS = 100_000, 5_000, 5_000
# The noise, in clips, beside which nothing of a canary is overlooked, and how long canaries are there, in
# clips: whatever the length, one moves a step by the clip.
QUIET = 1e-6
CANARY_LENGTHS = np.concatenate(
    [np.geomspace(1.001, 100.0, MOST_CANARIES // 2), np.geomspace(200.0, 1e30, MOST_CANARIES // 2)]
)
# Steps that each number's noise is looked at in, at least.
LEAST_STEPS = 100
# What `epsilon_pld` may round up, relative: taken off, for it is a lower bound that is asked for.
ROUNDED_UP = 1e-3
STEP_ASSUMPTIONS = (
    "noise of the declared family and of one scale in each number, independent between numbers and steps; "
    "the steps of a plan are alike; a unit's parts in several layers count as one; the cost of an adaptive "
    "clip's counts is left out"
)


@dataclass(frozen=True)
class StepBound:
    """Epsilon of the whole plan is at least ``epsilon_lower`` at ``delta``, with ``confidence``.

    ``effective_noise`` is the upper bound that was shown for the noise's scale over the most that a sampled
    unit moves the sum (``shift`` clips, a lower bound), ``sampling_rate`` the lower bound for how often a
    unit is in a step. What they should be, ``declared_noise`` and the plan's rate, costs ``declared`` by PLD;
    the plan claims ``claimed``. With half of the noise as much would have shown ``at_half_noise``.
    """

    epsilon_lower: float
    declared: float
    claimed: float
    effective_noise: float
    declared_noise: float
    shift: float
    sampling_rate: float
    trials: int
    confidence: float
    delta: float
    unit: str
    mechanism: str
    at_half_noise: float
    assumptions: str = STEP_ASSUMPTIONS

    @property
    def exceeds(self) -> bool:
        """Whether a step betrays more than the declared noise and sampling do."""
        return self.epsilon_lower > min(self.declared, self.claimed)

    @property
    def able(self) -> bool:
        """Whether half of the noise would have been refuted: not where units are hardly ever sampled."""
        return self.at_half_noise > min(self.declared, self.claimed)

    def statement(self) -> str:
        """The bound, rounded down, with everything that must stand beside it."""
        return f"{self.at_least(self.epsilon_lower)}: {self.assumptions}"

    def at_least(self, epsilon: float) -> str:
        """A bound of the same observation, with everything that must stand beside it."""
        return Guarantee(self.unit, self.delta, self.mechanism).at_least(epsilon, self.confidence)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"adjacency": ADJACENCY, "exceeds": self.exceeds}


def check_step(plan: Plan, *, trials: int | None = None) -> Check:
    """The bound as a check, not tried where the plan's delta is too small; ``trials`` as for `audit_step`.

    It fails, too, where it shows less than it does of right code: it then refutes nothing.
    """
    if why := too_small(plan):
        return Check.untried("step bound", STEP_BOUND, why)
    bound = audit_step(plan, features=len(FEATURES), trials=trials)
    verdict = "refutes" if bound.exceeds else "does not refute"
    said = plan.statement(bound.declared)
    reason = f"{bound.statement()}; this {verdict} the plan's {said}, by PLD, of one site's part"
    shown = bound.at_least(bound.at_half_noise)
    faults = [reason] if bound.exceeds else []
    if bound.shift > 1.0 + QUIET:
        faults.append(f"one unit moves a step by {bound.shift:.7g} clips")
    if not bound.able and _able(plan, bound):
        faults.append(
            f"of right code half of the noise would have been refuted, of this one not: a canary is in "
            f"{bound.sampling_rate:.3g} of the steps at least, where {plan.sampling_rate:g} are declared, "
            f"and the noise {bound.effective_noise:.3g} of what one moves at most, where "
            f"{bound.declared_noise:.3g} is declared"
        )
    return Check.of(
        "step bound", STEP_BOUND, faults, reason, bound.to_dict(),
        most=f"with half of the noise it would have shown {shown}", able=bound.able,
    )  # fmt: skip


def audit_step(
    plan: Plan, *, features: int, confidence: float = STEP_CONFIDENCE, trials: int | None = None
) -> StepBound:
    """The bound from ``trials`` draws of the noise and as many of the sampling, on a model of ``features``.

    More trials bring it nearer to epsilon; without a number they are TRIALS, and more where units are rarely
    sampled. Right code exceeds what it declares with a probability of at most 1 - ``confidence``. What is
    audited is what a step of ``cordon.training.dpsgd.descend`` does: `draw` and ``PrivateMean.release``,
    for a plan of any clip and mechanism; what is made of releases is post-processing. UserError where
    there are too few trials, or delta is too small to be told from rounding.
    """
    if (trials is not None and trials < 100) or not 0 < confidence < 1:
        raise UserError(
            f"{trials} trials at confidence {confidence} are too few or no such. "
            "Use 100 trials or more, and a confidence in (0, 1)."
        )
    if why := too_small(plan):
        raise UserError(f"{why}. Use a larger one.")
    error = (1.0 - confidence) / 3.0
    scale = noise_at_most(observe_noise(plan, features, trials or TRIALS), plan.mechanism, error)
    seen = observe_canaries(plan, features, trials or max(TRIALS, math.ceil(SAMPLED / plan.sampling_rate)))
    rate, shift = rate_at_least(int((seen > 0.5).sum()), seen.size, error), shift_at_least(seen, QUIET, error)
    effective = scale / shift if shift > 0 else math.inf
    declared = declared_noise(plan)
    return StepBound(
        epsilon_lower=_epsilon(plan, effective, rate) * (1.0 - ROUNDED_UP),
        at_half_noise=_epsilon(plan, effective / 2.0, rate) * (1.0 - ROUNDED_UP),
        declared=_epsilon(plan, declared, plan.sampling_rate), claimed=plan.epsilon_at_site,
        effective_noise=effective, declared_noise=declared, shift=shift, sampling_rate=rate, trials=seen.size,
        confidence=confidence, delta=plan.delta, unit=plan.unit, mechanism=plan.mechanism,
    )  # fmt: skip


def too_small(plan: Plan) -> str:
    """Why the plan's delta is too small for a lower bound; nothing where it is not.

    There the accountant gives an upper bound that is not tight.
    """
    if plan.delta >= 2.0 * ROUNDING * plan.rounds * plan.local_steps:
        return ""
    return f"delta {plan.delta:g} is too small for a lower bound"


def _able(plan: Plan, bound: StepBound) -> bool:
    """Whether of right code half of the noise would have been refuted, by as many trials as ``bound`` took.

    With room for chance: a tenth more noise is shown than there is, and five deviations fewer units.
    """
    expected = bound.trials * plan.sampling_rate
    seen = max(0, math.floor(expected - 5.0 * math.sqrt(expected * (1.0 - plan.sampling_rate))))
    rate = rate_at_least(seen, bound.trials, (1.0 - bound.confidence) / 3.0)
    shown = _epsilon(plan, 1.1 * bound.declared_noise / 2.0, rate) * (1.0 - ROUNDED_UP)
    return shown > min(bound.declared, bound.claimed)


def observe_noise(plan: Plan, features: int, trials: int) -> list[Floats]:
    """What steps release, in clips, along coordinates of no canary in the data, ``trials`` numbers or more.

    So many that each coordinate is looked at LEAST_STEPS times. Two arrays [steps, coordinates]: the first
    half of the canaries are in the data, and then the second one, so that each coordinate is looked at.
    """
    found = []
    for half in (0, 1):
        gradients, directions = canaries_of(plan, features)
        present = np.array_split(directions, 2)[half]
        free = np.setdiff1d(np.arange(gradients.parameters), present)
        steps = max(LEAST_STEPS, math.ceil(trials / 2 / len(free)))
        found.append(np.array([released[free] for released in islice(_steps(plan, features, half), steps)]))
    return found


def observe_canaries(plan: Plan, features: int, trials: int) -> Floats:
    """How far steps move, in clips, along canaries that are in the data: an array [steps, canaries].

    ``trials`` numbers or a few more, beside next to no noise. Canaries are of all CANARY_LENGTHS. A canary
    that lies in several layers moves by what its parts come to, in the norm that the mechanism's noise hides.
    """
    _, directions = canaries_of(plan, features)
    present = np.array_split(directions, 2)[0]
    order = NORMS[plan.mechanism]
    steps = min(math.ceil(trials / len(present)), MOST_BOUND_STEPS)
    found = islice(_steps(plan, features, 0, quiet=True), steps)
    return np.array([np.linalg.norm(released[present], order, axis=1) for released in found])


def _steps(plan: Plan, features: int, half: int, *, quiet: bool = False) -> Iterator[Floats]:
    """What each step releases, in clips, [parameters]; one half of the canaries is in the data."""
    lengths = CANARY_LENGTHS if quiet else None
    gradients, directions = canaries_of(plan, features, length=lengths)
    count = len(directions) // 2
    settings = plan.settings_for(count)
    rows = settings.max_variants
    marks = np.repeat(np.arange(1, count + 1) + half * count, rows)[:, None].astype(np.float32)
    units = Units(marks, np.zeros(len(marks), np.float32), np.arange(0, len(marks) + 1, rows), plan.unit)
    random = Randomness()
    mean = private_mean(gradients, settings, random)
    if quiet:
        mean.clip.noise_multiplier = QUIET
    shape = block_shape(settings, gradients.most_rows)
    while True:
        if quiet:  # an adaptive clip would become longer than some canaries
            mean.clip.norm = settings.clip_norm
        clip = mean.clip.norm
        released = mean.release(draw(units, settings, random, shape), gradients.parameters)
        yield released.mean.numpy() * (settings.expected_batch / clip)


def canaries_of(
    plan: Plan, features: int, *, length: float | Floats | None = None
) -> tuple[CanaryGradients, npt.NDArray[np.int64]]:
    """Gradients of an even number of canaries, and the coordinates [canaries, parts] of each.

    They are ``length`` clips long in each coordinate, by default longer than any clip becomes; several
    lengths are spread over each half of them. A canary has a part in every layer where each is clipped to its
    own share, and else in one alone, which is the worst for the Laplace mechanism.
    """
    from cordon.auditing.gradient_canaries import CANARY_LENGTH, NO_PLACE, CanaryGradients, layer_sizes
    from cordon.model.architectures import build

    sizes = layer_sizes(build(plan.model, features))
    used = range(len(sizes)) if plan.per_layer else [int(np.argmax(sizes))]
    count = min(2 * MOST_CANARIES, min(sizes[layer] for layer in used) // 2 * 2)
    if not count:
        raise UserError("the model's smallest layer has one parameter: too few to audit. Use more features.")
    places = np.full((len(sizes), count), NO_PLACE, dtype=np.int64)
    places[used] = np.arange(count)
    starts = np.cumsum([0, *sizes[:-1]])
    directions = np.stack([starts[layer] + places[layer] for layer in used], axis=1)
    long = np.atleast_1d(CANARY_LENGTH if length is None else length)
    spread = long[np.arange(count) % (count // 2) * len(long) // (count // 2)]
    return CanaryGradients(sizes, places, length=spread * plan.clip_norm, column=0), directions


def declared_noise(plan: Plan | DPSGD) -> float:
    """The noise multiplier that is left for the gradient: all, or what an adaptive clip's count leaves.

    By the plan's share of the cost, as `cordon.privacy.clipping.split_noise` should do it.
    """
    if plan.clipping == "fixed":
        return plan.noise_multiplier
    left = 1.0 - plan.quantile_share
    return plan.noise_multiplier / (math.sqrt(left) if plan.mechanism == GAUSSIAN else left)


def declared_count_noise(plan: Plan | DPSGD) -> float:
    """The scale of the noise of an adaptive clip's count, one unit's part of which is 1/2 at most."""
    share = plan.quantile_share
    return plan.noise_multiplier / (2.0 * (math.sqrt(share) if plan.mechanism == GAUSSIAN else share))


def _epsilon(plan: Plan, noise: float, rate: float) -> float:
    """The epsilon of all steps of the plan by PLD, were there so much noise and units sampled so often."""
    if noise >= MOST_NOISE or not rate:
        return 0.0
    # Less noise than can be accounted costs no less than the least that can.
    event = Event(max(noise, LEAST_NOISE), rate, plan.rounds * plan.local_steps, plan.mechanism)
    return epsilon_pld([event], plan.delta)
