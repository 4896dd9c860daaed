"""What an adversary can decide about one unit: the trade-off curve of events, and what people read off it.

Who tells members from others errs in two ways, and the trade-off curve f bounds one error by the other:
at a false-positive rate x, no attack finds more than 1 - f(x) of the members (Dong, Roth and Su 2022,
arXiv:1905.02383). An epsilon is one tangent of that curve, and says far less than all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from cordon.arrays import Floats
from cordon.privacy.accountants import MOST_FOR_PLD, epsilon_pld, epsilon_rdp
from cordon.privacy.events import Event, mechanism_of
from cordon.privacy.guarantee import ADJACENCY
from cordon.privacy.profiles import epsilon_group, privacy_profile

# Tangents of a curve: with so many, it lies within 0.001 of the true one at epsilon 8.
TANGENTS = 65
# The false-positive rate at which people are told what an attack may find, and the sizes of groups.
FPR = 0.01
GROUPS = (2, 3)


@dataclass(frozen=True)
class Tradeoff:
    """An upper bound of every attack: ``tpr`` at ``fpr``, corners of a concave polygon that ends at (1, 1).

    It is its own mirror image, so that it holds for adding a unit and for removing one. Between the
    corners it is linear.
    """

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]

    def most(self, fpr: float) -> float:
        """The largest true-positive rate at a false-positive rate."""
        return float(np.interp(fpr, self.fpr, self.tpr))

    @property
    def advantage(self) -> float:
        """The most that a true-positive rate is above its false-positive rate."""
        return max(tpr - fpr for fpr, tpr in zip(self.fpr, self.tpr, strict=True))

    @property
    def guess(self) -> float:
        """How often, at most, who guesses at even odds whether a unit took part is right."""
        return (1.0 + self.advantage) / 2.0

    @property
    def area(self) -> float:
        """The largest area under an attack's ROC curve."""
        return float(np.trapezoid(self.tpr, self.fpr))

    @property
    def mu(self) -> float | None:
        """The least mu whose Gaussian curve is no lower, apart from delta; None where no curve is known.

        No attack then finds more than Phi(Phi^-1(fpr) + mu) + delta. A Gaussian's curve is concave and this
        one is a polygon, so that corners decide; that at false-positive rate 0, where delta alone counts,
        is left out, and so is its mirror image.
        """
        corners = [(fpr, tpr) for fpr, tpr in zip(self.fpr, self.tpr, strict=True) if fpr > 0 and tpr < 1]
        if not corners:
            return 0.0 if self.advantage < 1 else None
        return max(0.0, *(float(ndtri(tpr) - ndtri(fpr)) for fpr, tpr in corners))


@dataclass(frozen=True)
class Risk:
    """What events let anybody learn of one unit, at most, in terms that people decide by.

    ``guess`` is how often a guess at even odds is right, ``tpr`` the share of members found at FPR.
    ``groups`` are the epsilons of so many units at once. None where nothing useful is known:
    ``epsilon_pld`` and ``mu`` above MOST_FOR_PLD, a group's epsilon where it is out of reach.
    """

    epsilon_rdp: float
    epsilon_pld: float | None
    mu: float | None
    guess: float
    tpr: float
    groups: Mapping[int, float | None]
    unit: str
    delta: float
    mechanism: str

    def to_dict(self) -> dict[str, Any]:
        groups = {str(size): epsilon for size, epsilon in self.groups.items()}
        return asdict(self) | {"groups": groups, "fpr": FPR, "adjacency": ADJACENCY}


def percent(share: float) -> str:
    """A share in percent with two decimals, rounded up: ``77.41 %``."""
    return f"{math.ceil(round(share * 10_000, 6)) / 100:g} %"


def tradeoff(events: Iterable[Event], delta: float) -> Tradeoff:
    """The curve of ``events`` composed, from their privacy profile down to ``delta``.

    For each epsilon, 1 - delta(epsilon) - e^epsilon x bounds f(x) from below, and so does its mirror image
    (proposition 6 of Dong et al.); of finitely many tangents the bound is no less true. Below the last one,
    delta itself bounds what is found without a false positive. Where epsilon is beyond MOST_FOR_PLD nothing
    is promised.
    """
    events = list(events)
    if epsilon_rdp(events, delta) > MOST_FOR_PLD:
        return Tradeoff((0.0, 1.0), (1.0, 1.0))
    epsilons, deltas = privacy_profile(events, delta, TANGENTS)
    slopes, starts = _hull(np.exp(epsilons), deltas)
    fpr = np.append(0.0, (np.diff(starts) / -np.diff(slopes))[::-1])
    tpr = starts[::-1] + slopes[::-1] * fpr
    fpr, tpr = np.concatenate([fpr, 1.0 - tpr[::-1], [1.0]]), np.concatenate([tpr, 1.0 - fpr[::-1], [1.0]])
    return Tradeoff(tuple(fpr.tolist()), tuple(tpr.tolist()))


def _hull(slopes: Floats, starts: Floats) -> tuple[Floats, Floats]:
    """The tangents that touch: those whose start is convex in the slope, which rises."""
    kept: list[int] = []
    for new in range(len(slopes)):
        while len(kept) > 1:
            first, last = kept[-2:]
            rise = (starts[last] - starts[first]) * (slopes[new] - slopes[first])
            if rise < (starts[new] - starts[first]) * (slopes[last] - slopes[first]):
                break
            kept.pop()
        kept.append(new)
    return slopes[kept], starts[kept]


def risk(events: Iterable[Event], *, unit: str, delta: float) -> Risk:
    """What ``events`` composed come to for one ``unit``."""
    events = list(events)
    rdp, curve = epsilon_rdp(events, delta), tradeoff(events, delta)
    known = rdp <= MOST_FOR_PLD
    groups = {size: epsilon_group(events, delta, size) if known else math.inf for size in GROUPS}
    return Risk(
        rdp, epsilon_pld(events, delta) if known else None, curve.mu, curve.guess, curve.most(FPR),
        {size: found if math.isfinite(found) else None for size, found in groups.items()},
        unit, delta, mechanism_of(events),
    )  # fmt: skip
