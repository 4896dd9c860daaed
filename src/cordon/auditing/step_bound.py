"""The tight audit of one step: how much noise the release shows, beside the most that one unit can move it.

The real sampling and the real release run many times on canaries only, half of which are in the data (Nasr et
al. 2023, arXiv:2302.07956): units at the privacy unit's full number of rows, all of one gradient
(`cordon.auditing.gradient_canaries`). How well a threshold on the release tells the canaries that are in from
those that are not bounds the noise from above, and so epsilon from below, for one step and by composition
for all steps of a plan.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv
from scipy.stats import laplace, norm

from cordon.accountants import (
    ADJACENCY,
    GAUSSIAN,
    LEAST_NOISE,
    MOST_NOISE,
    ROUNDING,
    Event,
    at_least,
    epsilon_pld,
)
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.mechanisms import Randomness
from cordon.training import block_shape, draw, private_mean
from cordon.units import Units

if TYPE_CHECKING:
    from cordon.auditing.gradient_canaries import CanaryGradients

Floats = npt.NDArray[np.float64]

# Canaries in the data, and as many that are not, at most: each has a coordinate of its own.
MOST_CANARIES = 128
# Trials where none are asked for, unless they took more steps than so many.
TRIALS, MOST_STEPS = 1_000_000, 20_000
# Thresholds that the first half of the trials chooses from.
THRESHOLDS = 200
# What `epsilon_pld` may round up, relative: taken off, for it is a lower bound that is asked for.
ROUNDED_UP = 1e-3
ASSUMPTIONS = (
    "noise of the declared family and of one scale, independent between coordinates and steps; a unit is in "
    "a step with the declared probability; the steps of a plan are alike; the cost of an adaptive clip's "
    "counts is left out"
)


@dataclass(frozen=True)
class StepBound:
    """Epsilon of the whole plan is at least ``epsilon_lower`` at ``delta``, with ``confidence``.

    ``effective_noise`` is the upper bound that was shown for the noise's scale over the most that a sampled
    unit moves the sum; ``declared_noise`` is what it should be. A threshold is passed without a unit with
    probability at most ``false_positives``, and with it with at least ``power``, both from ``trials`` trials.
    """

    epsilon_lower: float
    claimed: float
    effective_noise: float
    declared_noise: float
    false_positives: float
    power: float
    trials: int
    confidence: float
    delta: float
    unit: str
    mechanism: str
    assumptions: str = ASSUMPTIONS

    @property
    def exceeds(self) -> bool:
        """Whether the claimed epsilon is refuted."""
        return self.epsilon_lower > self.claimed

    def statement(self) -> str:
        """The bound, rounded down, with everything that must stand beside it."""
        stated = at_least(
            self.epsilon_lower, unit=self.unit, delta=self.delta, mechanism=self.mechanism,
            confidence=self.confidence,
        )  # fmt: skip
        return f"{stated}: {self.assumptions}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"adjacency": ADJACENCY, "exceeds": self.exceeds}


def audit_step(
    plan: Plan, *, features: int, confidence: float = 0.999, trials: int | None = None
) -> StepBound:
    """The bound from ``trials`` trials with a unit and as many without, on a model of so many ``features``.

    ``trials`` is TRIALS by default, or what MOST_STEPS steps give: more bring the bound nearer to epsilon.
    Right code exceeds the claim with a probability of at most 1 - ``confidence``. What is audited is what a
    step of ``cordon.training.descend`` does: `draw` and ``PrivateMean.release``, for a plan of any clip and
    mechanism; what is made of releases is post-processing. UserError where there are too few trials, or
    delta is too small to be told from rounding.
    """
    if (trials is not None and trials < 100) or not 0 < confidence < 1:
        raise UserError(
            f"{trials} trials at confidence {confidence} are too few or no such. "
            "Use 100 trials or more, and a confidence in (0, 1)."
        )
    if plan.delta < 2.0 * ROUNDING * plan.rounds * plan.local_steps:
        # There the accountant gives an upper bound that is not tight.
        raise UserError(f"delta {plan.delta:g} is too small for a lower bound. Use a larger one.")
    with_unit, without = observe(plan, features, trials)
    # The threshold comes from the first half of the trials, the bound from the second.
    half = len(with_unit) // 2
    error = (1.0 - confidence) / 2.0
    threshold = _threshold(plan, with_unit[:half], without[:half], error)
    judged = with_unit[half:], without[half:]
    false_positives = float(_proportion(int((judged[1] > threshold).sum()), judged[1].size, error)[1])
    power = float(_proportion(int((judged[0] > threshold).sum()), judged[0].size, error)[0])
    shift = float(shown_shift(plan.mechanism, plan.sampling_rate, false_positives, power))
    return StepBound(
        epsilon_lower=_epsilon(plan, shift), claimed=plan.epsilon,
        effective_noise=1.0 / shift if shift > 0 else math.inf, declared_noise=_declared_noise(plan),
        false_positives=false_positives, power=power, trials=judged[0].size, confidence=confidence,
        delta=plan.delta, unit=plan.unit, mechanism=plan.mechanism,
    )  # fmt: skip


def observe(plan: Plan, features: int, trials: int | None) -> tuple[Floats, Floats]:
    """What steps release along canaries that are in the data, and along others that are not, in clips.

    Two arrays [steps, canaries], of ``trials`` numbers or a few more each (None: as for `audit_step`).
    """
    gradients, directions = _canaries(plan, features)
    count = len(directions) // 2
    settings = plan.settings_for(count)
    rows = settings.max_variants
    marks = np.repeat(np.arange(1, count + 1), rows)[:, None].astype(np.float32)
    units = Units(marks, np.zeros(len(marks), np.float32), np.arange(0, len(marks) + 1, rows), plan.unit)
    random = Randomness()
    mean = private_mean(gradients, settings, random)
    shape = block_shape(settings, gradients.most_rows)
    found = []
    steps = math.ceil(trials / count) if trials else min(math.ceil(TRIALS / count), MOST_STEPS)
    for _ in range(steps):
        clip = mean.clip.norm
        released = mean.release(draw(units, settings, random, shape), gradients.parameters)
        found.append(released.mean.numpy()[directions].sum(1) * settings.expected_batch / clip)
    along = np.array(found)
    return along[:, :count], along[:, count:]


def _canaries(plan: Plan, features: int) -> tuple[CanaryGradients, npt.NDArray[np.int64]]:
    """Gradients of an even number of canaries, and the coordinates [canaries, parts] of each.

    A canary has a part in every layer where each is clipped to its own share, and else in one alone, which
    is the worst for the Laplace mechanism.
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
    return CanaryGradients(sizes, places, length=LENGTH * plan.clip_norm, column=0), directions


def _threshold(plan: Plan, with_unit: Floats, without: Floats, error: float) -> float:
    """The threshold that shows the largest shift on these trials."""
    candidates = np.quantile(np.concatenate([with_unit, without], axis=None), np.linspace(0, 1, THRESHOLDS))
    passed = [
        trials.size - np.searchsorted(np.sort(trials, axis=None), candidates, side="right")
        for trials in (with_unit, without)
    ]
    power = _proportion(passed[0], with_unit.size, error)[0]
    false_positives = _proportion(passed[1], without.size, error)[1]
    shifts = shown_shift(plan.mechanism, plan.sampling_rate, false_positives, power)
    return float(candidates[np.argmax(shifts)])


def _proportion(count: Any, trials: int, error: float) -> tuple[Floats, Floats]:
    """Bounds of a probability from below and above, each wrong with ``error`` (Clopper and Pearson 1934)."""
    count = np.asarray(count, dtype=np.float64)
    lower = np.where(count > 0, betaincinv(np.maximum(count, 1), trials - count + 1, error), 0.0)
    upper = betaincinv(count + 1, np.maximum(trials - count, 1), 1.0 - error)
    return lower, np.where(count < trials, upper, 1.0)


def shown_shift(mechanism: str, rate: float, false_positives: Any, power: Any) -> Floats:
    """The least shift, in scales of the noise, of a sampled unit that explains ``power``; -inf for any.

    A unit that is in with probability q has power (1 - q) a + q F(F^-1(a) + shift) at a false positive rate
    of a, at most, F the noise's distribution: thresholds are the best tests for a log-concave density. That
    a canary along several coordinates moves each by less shows no more. inf where no shift can be it.
    """
    of_noise = norm if mechanism == GAUSSIAN else laplace
    false_positives = np.asarray(false_positives, dtype=np.float64)
    when_in = (np.asarray(power) - (1.0 - rate) * false_positives) / rate
    shift = of_noise.ppf(np.clip(when_in, 0.0, 1.0)) - of_noise.ppf(false_positives)
    return np.where(when_in > false_positives, shift, -np.inf)


def _declared_noise(plan: Plan) -> float:
    """The noise multiplier that is left for the gradient."""
    from cordon.clipping import split_noise

    if plan.clipping == "fixed":
        return plan.noise_multiplier
    return split_noise(plan.noise_multiplier, plan.mechanism, plan.quantile_share)[0]


def _epsilon(plan: Plan, shift: float) -> float:
    """The epsilon of all steps of the plan, were the shift no more than this many scales of the noise."""
    if shift <= 1.0 / MOST_NOISE:
        return 0.0
    # Less noise than can be accounted costs no less than the least that can.
    noise = max(1.0 / shift, LEAST_NOISE)
    event = Event(noise, plan.sampling_rate, plan.rounds * plan.local_steps, plan.mechanism)
    return epsilon_pld([event], plan.delta) * (1.0 - ROUNDED_UP)
