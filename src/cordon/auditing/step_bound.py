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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv
from scipy.stats import chi2, gamma, norm

from cordon.accountants import (
    ADJACENCY,
    GAUSSIAN,
    LEAST_NOISE,
    MOST_NOISE,
    NORMS,
    ROUNDING,
    Event,
    at_least,
    epsilon_pld,
)
from cordon.auditing.checks import Check
from cordon.errors import UserError
from cordon.features import FEATURES
from cordon.federation.plan import Plan
from cordon.mechanisms import Randomness
from cordon.training import block_shape, draw, private_mean
from cordon.units import Units

if TYPE_CHECKING:
    from cordon.auditing.gradient_canaries import CanaryGradients

Floats = npt.NDArray[np.float64]

QUESTION = "Are noise and sampling what the plan declares, beside the most that one unit can do?"
CONFIDENCE = 0.999
# Canaries in the data, and as many that are not, at most: each has a coordinate of its own.
MOST_CANARIES = 128
# Draws of the noise, and of whether a unit is in a step, where none are asked for. Where units are sampled so
# rarely that fewer than SAMPLED would be in, the latter are more, in so many steps at most.
TRIALS, SAMPLED, MOST_STEPS = 100_000, 5_000, 5_000
# The noise, in clips, beside which no canary is overlooked.
QUIET = 1e-3
# What `epsilon_pld` may round up, relative: taken off, for it is a lower bound that is asked for.
ROUNDED_UP = 1e-3
ASSUMPTIONS = (
    "noise of the declared family and of one scale in each number, independent between numbers and steps; "
    "the steps of a plan are alike; a unit's parts in several layers count as one; the cost of an adaptive "
    "clip's counts is left out"
)


@dataclass(frozen=True)
class StepBound:
    """Epsilon of the whole plan is at least ``epsilon_lower`` at ``delta``, with ``confidence``.

    ``effective_noise`` is the upper bound that was shown for the noise's scale over the most that a sampled
    unit moves the sum, ``sampling_rate`` the lower bound for how often a unit is in a step. What they should
    be, ``declared_noise`` and the plan's rate, costs ``declared`` by PLD; the plan claims ``claimed``. With
    half of the noise as much would have shown ``at_half_noise``.
    """

    epsilon_lower: float
    declared: float
    claimed: float
    effective_noise: float
    declared_noise: float
    sampling_rate: float
    trials: int
    confidence: float
    delta: float
    unit: str
    mechanism: str
    at_half_noise: float
    assumptions: str = ASSUMPTIONS

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
        stated = at_least(
            self.epsilon_lower, unit=self.unit, delta=self.delta, mechanism=self.mechanism,
            confidence=self.confidence,
        )  # fmt: skip
        return f"{stated}: {self.assumptions}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"adjacency": ADJACENCY, "exceeds": self.exceeds}


def check_step(plan: Plan, *, trials: int | None = None) -> Check:
    """The bound as a check; arguments and errors are those of `audit_step`."""
    bound = audit_step(plan, features=len(FEATURES), trials=trials)
    verdict = "refutes" if bound.exceeds else "does not refute"
    said = plan.statement(bound.declared)
    reason = f"{bound.statement()}; this {verdict} the plan's {said}, by PLD, of one site's part"
    shown = at_least(
        bound.at_half_noise, unit=bound.unit, delta=bound.delta, mechanism=bound.mechanism,
        confidence=bound.confidence,
    )  # fmt: skip
    return Check.of(
        "step bound", QUESTION, [reason] if bound.exceeds else [], reason, bound.to_dict(),
        most=f"with half of the noise it would have shown {shown}", able=bound.able,
    )  # fmt: skip


def audit_step(
    plan: Plan, *, features: int, confidence: float = CONFIDENCE, trials: int | None = None
) -> StepBound:
    """The bound from ``trials`` draws of the noise and as many of the sampling, on a model of ``features``.

    More trials bring it nearer to epsilon; without a number they are TRIALS, and more where units are rarely
    sampled. Right code exceeds what it declares with a probability of at most 1 - ``confidence``. What is
    audited is what a step of ``cordon.training.descend`` does: `draw` and ``PrivateMean.release``, for a plan
    of any clip and mechanism; what is made of releases is post-processing. UserError where there are too few
    trials, or delta is too small to be told from rounding.
    """
    if (trials is not None and trials < 100) or not 0 < confidence < 1:
        raise UserError(
            f"{trials} trials at confidence {confidence} are too few or no such. "
            "Use 100 trials or more, and a confidence in (0, 1)."
        )
    if plan.delta < 2.0 * ROUNDING * plan.rounds * plan.local_steps:
        # There the accountant gives an upper bound that is not tight.
        raise UserError(f"delta {plan.delta:g} is too small for a lower bound. Use a larger one.")
    error = (1.0 - confidence) / 3.0
    scale = noise_at_most(observe_noise(plan, features, trials or TRIALS), plan.mechanism, error)
    seen = observe_canaries(plan, features, trials or max(TRIALS, math.ceil(SAMPLED / plan.sampling_rate)))
    rate, shift = rate_at_least(seen, error), shift_at_least(seen, error)
    effective = scale / shift if shift > 0 else math.inf
    declared = declared_noise(plan)
    return StepBound(
        epsilon_lower=_epsilon(plan, effective, rate) * (1.0 - ROUNDED_UP),
        at_half_noise=_epsilon(plan, effective / 2.0, rate) * (1.0 - ROUNDED_UP),
        declared=_epsilon(plan, declared, plan.sampling_rate), claimed=plan.epsilon_at_site,
        effective_noise=effective, declared_noise=declared, sampling_rate=rate, trials=seen.size,
        confidence=confidence, delta=plan.delta, unit=plan.unit, mechanism=plan.mechanism,
    )  # fmt: skip


def observe_noise(plan: Plan, features: int, trials: int) -> list[Floats]:
    """What steps release, in clips, along coordinates of no canary in the data, ``trials`` numbers or more.

    Two arrays [steps, coordinates]: the first half of the canaries are in the data, and then the second one,
    so that each coordinate is looked at.
    """
    found = []
    for half in (0, 1):
        gradients, directions = canaries_of(plan, features)
        present = np.array_split(directions, 2)[half]
        free = np.setdiff1d(np.arange(gradients.parameters), present)
        steps = math.ceil(trials / 2 / len(free))
        found.append(np.array([released[free] for released in islice(_steps(plan, features, half), steps)]))
    return found


def observe_canaries(plan: Plan, features: int, trials: int) -> Floats:
    """How far steps move, in clips, along canaries that are in the data: an array [steps, canaries].

    ``trials`` numbers or a few more, beside next to no noise. A canary that lies in several layers moves by
    what its parts, in the norm that the mechanism's noise hides, come to.
    """
    _, directions = canaries_of(plan, features)
    present = np.array_split(directions, 2)[0]
    order = NORMS[plan.mechanism]
    steps = min(math.ceil(trials / len(present)), MOST_STEPS)
    found = islice(_steps(plan, features, 0, quiet=True), steps)
    return np.array([np.linalg.norm(released[present], order, axis=1) for released in found])


def _steps(plan: Plan, features: int, half: int, *, quiet: bool = False) -> Iterator[Floats]:
    """What each step releases, in clips, [parameters]; one half of the canaries is in the data."""
    gradients, directions = canaries_of(plan, features)
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
        clip = mean.clip.norm
        released = mean.release(draw(units, settings, random, shape), gradients.parameters)
        yield released.mean.numpy() * (settings.expected_batch / clip)


def canaries_of(
    plan: Plan, features: int, *, length: float | None = None
) -> tuple[CanaryGradients, npt.NDArray[np.int64]]:
    """Gradients of an even number of canaries, and the coordinates [canaries, parts] of each.

    They are ``length`` clips long in each coordinate, by default longer than any clip becomes. A canary has a
    part in every layer where each is clipped to its own share, and else in one alone, which is the worst for
    the Laplace mechanism.
    """
    from cordon.auditing.gradient_canaries import LENGTH, NONE, CanaryGradients, layer_sizes
    from cordon.model import build

    sizes = layer_sizes(build(plan.model, features))
    used = range(len(sizes)) if plan.per_layer else [int(np.argmax(sizes))]
    count = min(2 * MOST_CANARIES, min(sizes[layer] for layer in used) // 2 * 2)
    if not count:
        raise UserError("the model's smallest layer has one parameter: too few to audit. Use more features.")
    places = np.full((len(sizes), count), NONE, dtype=np.int64)
    places[used] = np.arange(count)
    starts = np.cumsum([0, *sizes[:-1]])
    directions = np.stack([starts[layer] + places[layer] for layer in used], axis=1)
    long = (LENGTH if length is None else length) * plan.clip_norm
    return CanaryGradients(sizes, places, length=long, column=0), directions


def noise_at_most(found: Sequence[Floats], mechanism: str, error: float) -> float:
    """The upper bound of the noise's scale from draws [steps, coordinates], wrong with probability ``error``.

    It is the least of what all numbers show together, and what those of each coordinate show: a unit may lie
    along the one that has the least noise.
    """
    power = 2 if mechanism == GAUSSIAN else 1
    sums = np.concatenate([(np.abs(numbers) ** power).sum(axis=0) for numbers in found])
    draws = np.concatenate([np.full(numbers.shape[1], len(numbers)) for numbers in found])
    totals = np.append(sums, sums.sum()), np.append(draws, draws.sum())
    wrong = np.append(np.full(len(sums), error / 2 / len(sums)), error / 2)
    # A sum of squares over the variance is chi-square, one of Laplace draws' sizes over the scale gamma.
    least = chi2.ppf(wrong, totals[1]) if mechanism == GAUSSIAN else gamma.ppf(wrong, totals[1])
    return float(np.min((totals[0] / least) ** (1 / power)))


def rate_at_least(seen: Floats, error: float) -> float:
    """The lower bound of the rate at which canaries are in a step (Clopper and Pearson 1934)."""
    count = int((seen > 0.5).sum())
    return float(betaincinv(count, seen.size - count + 1, error)) if count else 0.0


def shift_at_least(seen: Floats, error: float) -> float:
    """The lower bound of how far, on average, a canary that is in a step moves it, in clips."""
    moved = seen[seen > 0.5]
    if len(moved) < 2:
        return 0.0
    return float(moved.mean() - norm.isf(error) * max(moved.std(), QUIET) / math.sqrt(len(moved)))


def declared_noise(plan: Plan) -> float:
    """The noise multiplier that is left for the gradient."""
    from cordon.clipping import split_noise

    if plan.clipping == "fixed":
        return plan.noise_multiplier
    return split_noise(plan.noise_multiplier, plan.mechanism, plan.quantile_share)[0]


def _epsilon(plan: Plan, noise: float, rate: float) -> float:
    """The epsilon of all steps of the plan by PLD, were there so much noise and units sampled so often."""
    if noise >= MOST_NOISE or not rate:
        return 0.0
    # Less noise than can be accounted costs no less than the least that can.
    event = Event(max(noise, LEAST_NOISE), rate, plan.rounds * plan.local_steps, plan.mechanism)
    return epsilon_pld([event], plan.delta)
