"""The lower bound of epsilon that one run shows: guess which canaries were in, and count what is right.

Every canary is in the data by a coin of its own, and gets a score that should be higher where it is in. The
auditor guesses "in" for the highest scores and "out" for the lowest, and abstains between. Under a mechanism
of small epsilon, however the scores came about, not many guesses can be right; so many right ones refute
every epsilon below some value (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import binom

from cordon.errors import UserError
from cordon.privacy.guarantee import ADJACENCY, Guarantee

APPROXIMATE, GAUSSIAN_CURVE = "approximate", "gaussian"
ASSUMPTIONS = {
    APPROXIMATE: "every canary was in by a fair coin of its own; nothing is assumed of the mechanism",
    GAUSSIAN_CURVE: "every canary was in by a fair coin of its own; the mechanism is mu-GDP for some mu",
}
# The shares of the canaries that are guessed. The best is not known before the scores are, so each is tried
# at its part of the error (a union bound).
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
# Halvings of the interval that holds the bound: what is left of it is below 1e-7.
HALVINGS = 30


@dataclass(frozen=True)
class OneRunBound:
    """Epsilon is at least ``epsilon_lower`` at ``delta``, with ``confidence``, under the ``assumptions``.

    ``correct`` of ``guesses`` guesses about ``canaries`` canaries were right, for the number of guesses that
    gave the bound; ``tried`` numbers share the error. ``claimed`` is the epsilon under audit, where known.
    With every guess right the bound would have been ``most``: what is claimed above it cannot be refuted.
    """

    epsilon_lower: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    tried: int
    most: float
    estimator: str = APPROXIMATE
    view: str = "scores"
    unit: str = "canary"
    mechanism: str = "any mechanism"
    claimed: float | None = None

    @property
    def exceeds(self) -> bool:
        """Whether the claimed epsilon is refuted."""
        return self.claimed is not None and self.epsilon_lower > self.claimed

    @property
    def assumptions(self) -> str:
        return ASSUMPTIONS[self.estimator]

    def statement(self, epsilon: float | None = None) -> str:
        """The bound, or another ``epsilon``, rounded down, with everything that must stand beside it."""
        means, bound = Guarantee(self.unit, self.delta, self.mechanism), epsilon
        if bound is None:
            bound = self.epsilon_lower
        return f"{means.at_least(bound, self.confidence)}: {self.assumptions}"

    def to_dict(self) -> dict[str, Any]:
        beside = {"adjacency": ADJACENCY, "assumptions": self.assumptions, "exceeds": self.exceeds}
        return asdict(self) | beside


def lower_bound(
    scores: npt.NDArray[np.float64], included: npt.NDArray[np.bool_], *, delta: float,
    confidence: float = 0.95, estimator: str = APPROXIMATE, guesses: Sequence[int] | None = None,
) -> OneRunBound:  # fmt: skip
    """The bound from ``scores`` [m], made without ``included`` [m], the fair coins of the canaries.

    ``estimator`` APPROXIMATE holds for every (epsilon, delta)-DP mechanism, GAUSSIAN_CURVE for those whose
    trade-off is a Gaussian's, and is tighter there. ``guesses`` are the numbers of guesses to try, chosen
    before the scores were seen (None: SHARES of m). UserError where the arguments do not go together.
    """
    _check(scores, included, delta, confidence, estimator)
    canaries = len(scores)
    numbers = sorted({min(canaries, max(2, round(share * canaries))) for share in SHARES})
    if guesses is not None:
        numbers = sorted(set(guesses))
    if not numbers or not 1 <= numbers[0] <= numbers[-1] <= canaries:
        raise UserError(
            f"{list(numbers)} are no numbers of guesses for {canaries} canaries. "
            "Give numbers from 1 to that of the canaries."
        )
    error = (1.0 - confidence) / len(numbers)
    bound = _approximate if estimator == APPROXIMATE else _gaussian
    order = np.argsort(scores, kind="stable")
    found = []
    for number in numbers:
        highest, lowest = order[canaries - (number + 1) // 2 :], order[: number // 2]
        correct = int(included[highest].sum() + (~included[lowest]).sum())
        found.append((bound(canaries, number, correct, delta, error), number, correct))
    epsilon, number, correct = max(found)
    most = max(bound(canaries, number, number, delta, error) for number in numbers)
    return OneRunBound(epsilon, delta, confidence, canaries, number, correct, len(numbers), most, estimator)


def _check(
    scores: npt.NDArray[np.float64], included: npt.NDArray[np.bool_], delta: float, confidence: float,
    estimator: str,
) -> None:  # fmt: skip
    if scores.ndim != 1 or scores.shape != included.shape or included.dtype != bool or not len(scores):
        raise UserError(
            f"scores {scores.shape} and coins {included.shape} ({included.dtype}) do not belong together. "
            "Give one finite score and one bool for each canary."
        )
    if not np.isfinite(scores).all():
        raise UserError("a score is not finite. Give one finite score for each canary.")
    if not 0 <= delta < 1 or not 0 < confidence < 1:
        raise UserError(f"delta {delta} or confidence {confidence} is no probability. Use one in (0, 1).")
    if estimator not in ASSUMPTIONS:
        raise UserError(f"no estimator is called {estimator!r}. Use one of: {', '.join(ASSUMPTIONS)}.")
    if estimator == GAUSSIAN_CURVE and delta == 0:
        raise UserError(f"a Gaussian has no epsilon at delta 0. Use a delta above 0, or {APPROXIMATE!r}.")


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The most probable that ``correct`` or more right guesses are under (epsilon, delta)-DP.

    Theorem 5.2 of Steinke et al., as in the code of their appendix D: right guesses are at most binomial
    with the accuracy of randomised response, and delta adds 2 m delta max_i P[v - i <= B < v] / i.
    """
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))
    exact = float(binom.sf(correct - 1, guesses, accuracy))
    if delta == 0 or correct == 0:
        return min(1.0, exact)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, exact + 2.0 * canaries * delta * worst)


@lru_cache(maxsize=65536)
def _approximate(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    return _largest(lambda epsilon: p_value(canaries, guesses, correct, epsilon, delta) < error)


@lru_cache(maxsize=65536)
def _gaussian(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    def refuted(mu: float) -> bool:
        return impossible(canaries, guesses, correct, error, lambda power: float(ndtr(ndtri(power) - mu)))

    return epsilon_of(_largest(refuted), delta)


def _largest(refuted: Callable[[float], bool]) -> float:
    """The largest parameter that is refuted, from below; 0 where none is."""
    below, above = 0.0, 1.0
    while refuted(above):
        below, above = above, 2.0 * above
    for _ in range(HALVINGS):
        middle = (below + above) / 2.0
        below, above = (middle, above) if refuted(middle) else (below, middle)
    return below


def impossible(
    canaries: int, guesses: int, correct: int, probability: float, least: Callable[[float], float]
) -> bool:
    """Whether an f-DP mechanism cannot give ``correct`` right guesses with this probability or more.

    ``least`` gives the least probability that an event must have without a canary, from that with it: the
    inverse of 1 - f. (Mahloujifar, Melis and Chaudhuri 2024, arXiv:2410.22235.)

    With p_i the probability of i right among k guesses about m canaries, let r_c be the sum of (i / m) p_i
    over i >= c, and h_c that of ((k - i) / m) p_i: canary by canary, the mean probabilities that its guess
    is right, or wrong, and c or more are right. Flipping the coin of a wrong guess makes one more right, so
    f-DP, and that f is convex, give r_c <= 1 - f(h_{c-1}) for every c. Of all p with this probability of
    ``correct`` or more, the one that has it all at ``correct``, and then just as much at each smaller
    number as its h must have, needs the least altogether; it is impossible where that is more than 1.
    """
    right = probability * correct / canaries
    wrong = probability * (guesses - correct) / canaries
    for number in range(correct - 1, -1, -1):
        needed = least(right)
        if needed <= wrong:  # and so it is at every smaller number
            break
        right += number / (guesses - number) * (needed - wrong)
        wrong = needed
        if right + wrong > guesses / canaries:
            return True
    return right + wrong > guesses / canaries


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon of a mu-GDP mechanism at ``delta`` (Dong, Roth and Su 2022, arXiv:1905.02383, cor. 1)."""

    def excess(epsilon: float) -> float:
        far = math.exp(min(epsilon + float(log_ndtr(-epsilon / mu - mu / 2.0)), 0.0))
        return float(ndtr(-epsilon / mu + mu / 2.0)) - far - delta

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    # Beyond ten deviations of the privacy loss, nothing of any delta is left.
    return float(brentq(excess, 0.0, mu * mu / 2.0 + 40.0 * mu))
