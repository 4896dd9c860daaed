"""How well an attack tells members from others: areas and rates, with intervals that know what is dependent.

Scores and membership are [targets, units]: each target is one trained model, attacked for every unit. Pairs
of one target share its noise and pairs of one unit its difficulty, so their number is not the sample size:
variances are taken over targets and units both (Cameron, Gelbach and Miller 2011, two-way clusters, of which
Obuchowski 1997 is the one-way case for ROC areas and DeLong 1988 the case without). Intervals do not
cover what other data, another plan or a better attack would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from cordon.arrays import Bools, Floats
from cordon.errors import UserError

FALSE_POSITIVE_RATES = (0.001, 0.01)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value between the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class TruePositiveRate:
    """The true-positive rate at a false-positive rate ``fpr``, and the rate ``reached`` by its threshold.

    Both None, with the ``reason``, where the non-members are too few to see such a rate.
    """

    fpr: float
    tpr: Estimate | None
    reached: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class AttackScore:
    """One attack's measures; ``members`` and ``non_members`` are (target, unit) pairs."""

    auc: Estimate
    rates: tuple[TruePositiveRate, ...]
    targets: int
    units: int
    members: int
    non_members: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    score: Floats, member: Bools, *,
    rates: tuple[float, ...] = FALSE_POSITIVE_RATES, confidence: float = CONFIDENCE,
) -> AttackScore:  # fmt: skip
    """The measures of an attack that scored members high: float and bool [targets, units].

    UserError where there are no members, no others, or scores that are not numbers.
    """
    if score.shape != member.shape or score.ndim != 2 or np.isnan(score).any():
        raise UserError("an attack's scores do not fit its units. Give one number for each target and unit.")
    if member.all() or not member.any():
        raise UserError("an attack needs members and others to be judged. Use more units or more shadows.")
    return AttackScore(
        auc=area(score, member, confidence=confidence),
        rates=tuple(rate_at(fpr, score, member, confidence=confidence) for fpr in rates),
        targets=len(score), units=score.shape[1],
        members=int(member.sum()), non_members=int((~member).sum()), confidence=confidence,
    )  # fmt: skip


def area(score: Floats, member: Bools, *, confidence: float = CONFIDENCE) -> Estimate:
    """The area under the ROC curve (0.5: the attack knows nothing).

    The variance is DeLong's, over both kinds of cluster, and the interval is on the log-odds scale. Where the
    scores separate perfectly no variance is seen; the end is then that of as many pairs of units in which
    the member came first as there are without any unit in two of them.
    """
    members, others = int(member.sum()), int((~member).sum())
    ranks = stats.rankdata(score).reshape(score.shape)
    placed = np.empty(score.shape)
    placed[member] = (ranks[member] - stats.rankdata(score[member])) / others
    placed[~member] = 1.0 - (ranks[~member] - stats.rankdata(score[~member])) / members
    value = float(placed[member].mean())
    tail = (1.0 - confidence) / 2
    if value in (0.0, 1.0):
        of_members, of_others = int(member.any(0).sum()), int((~member).any(0).sum())
        end = tail ** (1.0 / max(1, min(of_members, of_others, member.shape[1] // 2)))
        return Estimate(value, end if value else 0.0, 1.0 if value else 1.0 - end)
    influence = (placed - value) / np.where(member, members, others)
    reach = _quantile(score.shape, tail) * np.sqrt(_variance(influence)) / (value * (1.0 - value))
    odds = np.log(value / (1.0 - value))
    low, high = (float(1.0 / (1.0 + np.exp(-(odds + side * reach)))) for side in (-1, 1))
    return Estimate(value, low, high)


def rate_at(fpr: float, score: Floats, member: Bools, *, confidence: float = CONFIDENCE) -> TruePositiveRate:
    """The share of members above the threshold that at most ``fpr`` of the others pass.

    The threshold comes from the others' own scores, so the rate that it really has is uncertain too:
    ``reached`` is its interval (for an order statistic, Clopper and Pearson's upper end is exact).
    """
    others = np.sort(score[~member])[::-1]
    if others.size < 1.0 / fpr:
        return TruePositiveRate(fpr, None, None, f"{others.size} non-members cannot show a rate of {fpr:g}")
    above = score > others[int(fpr * others.size + 1e-9)]
    return TruePositiveRate(
        fpr,
        proportion(above, member, confidence=confidence),
        proportion(above, ~member, confidence=confidence),
    )


def proportion(hit: Bools, among: Bools, *, confidence: float = CONFIDENCE) -> Estimate:
    """The share of hits among chosen pairs, bool [targets, units] both.

    Clopper and Pearson's interval at the effective sample size (Korn and Graubard 1998): that of independent
    pairs with the variance that the clusters show, never more than the pairs. Where all agree the
    clusters show nothing, and the units are counted, each once; they are independent for a single target.
    """
    pairs, units = int(among.sum()), int(among.any(0).sum())
    value = float(hit[among].mean())
    tail = (1.0 - confidence) / 2
    size = float(units)
    variance = _variance(np.where(among, hit - value, 0.0) / pairs)
    if len(hit) > 1 and variance > 0:
        correction = (stats.norm.isf(tail) / _quantile(hit.shape, tail)) ** 2
        size = min(float(pairs), value * (1.0 - value) / variance * correction)
    count = value * size
    low = float(stats.beta.ppf(tail, count, size - count + 1)) if value > 0 else 0.0
    high = float(stats.beta.isf(tail, count + 1, size - count)) if value < 1 else 1.0
    return Estimate(value, low, high)


def advantage(score: Floats, member: Bools, *, confidence: float = CONFIDENCE) -> Estimate:
    """TPR less FPR of who says "member" to every score above 0, a threshold that no data chose.

    The interval is from those of both rates at half the error each (Bonferroni).
    """
    within = 1.0 - (1.0 - confidence) / 2
    tpr, fpr = (proportion(score > 0, who, confidence=within) for who in (member, ~member))
    return Estimate(tpr.value - fpr.value, tpr.low - fpr.high, tpr.high - fpr.low)


def at_best(score: AttackScore) -> list[AttackScore]:
    """What attacks show that are always right, or but for one pair of each kind, on as many units.

    Where all pairs agree the clusters show no variance, and the interval is the wider for it: so the most
    that can be shown is shown by one that is nearly always right.
    """
    return [
        judge(guess, member, rates=tuple(rate.fpr for rate in score.rates), confidence=score.confidence)
        for guess, member in _best(score)
    ]


def best_advantage(score: AttackScore) -> float:
    """The lower end of the `advantage` that such attacks show."""
    return max(
        advantage(guess - 0.5, member, confidence=score.confidence).low for guess, member in _best(score)
    )


def _best(score: AttackScore) -> Iterator[tuple[Floats, Bools]]:
    if score.targets == 1:
        member = np.arange(score.units)[None] < score.members
    else:
        member = np.add.outer(np.arange(score.targets), np.arange(score.units)) % 2 == 0
    wrong = [int(np.argmax(member[0])), int(np.argmin(member[0]))]
    for pairs in ([], wrong):
        guess = member.astype(np.float64)
        guess[0, pairs] = 1.0 - guess[0, pairs]
        yield guess, member


def _variance(influence: Floats) -> float:
    """The variance of the sum of ``influence`` [targets, units], clustered by both.

    The greatest of the two-way and the one-way variances: the first alone may be too small by chance.
    """
    targets, units = map(int, influence.shape)
    by_unit = float((influence.sum(0) ** 2).sum()) * units / max(1, units - 1)
    if targets == 1:
        return by_unit
    by_target = float((influence.sum(1) ** 2).sum()) * targets / (targets - 1)
    both = by_unit + by_target - float((influence**2).sum())
    return max(both, by_unit, by_target)


def _quantile(shape: tuple[int, ...], tail: float) -> float:
    """Student's quantile; as many degrees of freedom as the scarcer clusters give."""
    targets, units = shape
    clusters = units if targets == 1 else min(targets, units)
    return float(stats.t.isf(tail, max(1, clusters - 1)))
