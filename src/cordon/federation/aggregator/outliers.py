"""Updates that do not go with the others': too far from them, turned against them, or too much alike.

All three tests read updates in units of the noise that the site's plan puts into them, so that a small site,
whose noise is larger, is not taken for an outlier. They need three sites, and most of them honest. What they
cannot see is a dishonest update that stays within the noise: its harm is then of the noise's size, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cordon.arrays import Floats
from cordon.federation.aggregator.noise_checks import reference
from cordon.federation.plan import Plan, Site
from cordon.model.architectures import Parameters

# By site: how far beyond what is allowed (above 1), and in words.
Faults = dict[str, tuple[float, str]]

FEWEST_SITES = 3
# An update may be so many times as far from the others as theirs are from each other.
FARTHEST = 3.0
# How improbable (standard normal deviations) it must be that noise alone turned a site's updates of all its
# rounds against the others': one honest site in 30,000.
TURNED = 4.0
# Two sites' updates are correlated by no more than so many deviations of their noise, or so many times as the
# others' are. Cosines above SAME count as that.
ALIKE, ALIKE_TIMES, SAME = 10.0, 10.0, 1.0 - 1e-9


class Outliers:
    """Holds a run's updates against each other, round by round."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # By site: the sum of its alignments, each of variance 1 under noise alone, and how many.
        self._alignments: dict[str, tuple[float, int]] = {}

    def faults(self, sites: Mapping[str, Site], updates: Mapping[str, Parameters]) -> dict[str, str]:
        """The sites whose update of this round does not go with the others', with the reason.

        At most a minority is named, the worst first: where more sites disagree, nobody can say who is right.
        """
        if len(updates) < FEWEST_SITES:
            return {}
        names = sorted(updates)
        vectors = np.stack([flat(updates[name]) for name in names])
        noise = np.array([reference(self._plan, sites[name].declared_patients).deviation for name in names])
        given = names, vectors, noise
        found: Faults = {}
        for named in (self._turned(*given), _far(*given), _alike(*given)):
            for name, fault in named.items():
                found[name] = max(found.get(name, (0.0, "")), fault)
        worst = sorted(found, key=lambda name: -found[name][0])[: (len(names) - 1) // 2]
        if worst:
            # The others were held against a median that these had a part in.
            self._alignments.clear()
        return {name: f"an outlier: {found[name][1]}" for name in worst}

    def _turned(self, names: Sequence[str], vectors: Floats, noise: Floats) -> Faults:
        """Sites whose updates point against the median of the others', over all their rounds together."""
        consensus = medians_of_others(vectors)
        lengths = np.linalg.norm(consensus, axis=1)
        aligned = (vectors * consensus).sum(axis=1) / np.where(lengths > 0, noise * lengths, math.inf)
        found = {}
        for name, own in zip(names, aligned, strict=True):
            total, rounds = self._alignments.get(name, (0.0, 0))
            self._alignments[name] = total, rounds = total + float(own), rounds + 1
            if (deviations := -total / math.sqrt(rounds)) > TURNED:
                words = (
                    f"turned against the other sites' median by {deviations:.3g} standard deviations of its "
                    f"noise, over {rounds} {'round' if rounds == 1 else 'rounds'}"
                )
                found[name] = deviations / TURNED, words
        return found


def _alike(names: Sequence[str], vectors: Floats, noise: Floats) -> Faults:
    """Pairs whose updates are correlated as independent noise, and the others', are not."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T) / np.maximum(lengths * lengths.T, np.finfo(np.float64).tiny)
    # Fisher's transform: of variance 1 for independent noise, and without end as the two become the same.
    together = np.arctanh(np.clip(cosines, -SAME, SAME)) * math.sqrt(vectors.shape[1])
    rows, columns = np.triu_indices(len(names), 1)
    pairs = together[rows, columns]
    allowed = max(ALIKE, ALIKE_TIMES * float(np.median(np.abs(pairs))))
    found = {}
    for place in np.flatnonzero(pairs > allowed):
        for one, other in ((rows[place], columns[place]), (columns[place], rows[place])):
            words = (
                f"its update and {names[other]}'s are alike by {pairs[place]:.3g} standard deviations of "
                f"their noise, where {allowed:.3g} are allowed"
            )
            found[names[one]] = float(pairs[place]) / allowed, words
    return found


def _far(names: Sequence[str], vectors: Floats, noise: Floats) -> Faults:
    """Sites that are farther from half of the others than those are from each other."""
    products = vectors @ vectors.T
    squares = products.diagonal()
    apart = np.maximum(squares[:, None] + squares - 2.0 * products, 0.0)
    distances = np.sqrt(apart / (vectors.shape[1] * (noise[:, None] ** 2 + noise**2)))
    np.fill_diagonal(distances, math.inf)
    # The lower median: among three sites, one that is far takes no other with it.
    own = np.sort(distances, axis=1)[:, (len(names) - 2) // 2]
    typical = max(1.0, float(np.sort(own)[(len(names) - 1) // 2]))
    found = {}
    for name, value in zip(names, own, strict=True):
        if value > FARTHEST * typical:
            words = (
                f"{value:.3g} times as far from the other sites as noise explains, where those are "
                f"{typical:.2g} times from each other"
            )
            found[name] = float(value) / typical / FARTHEST, words
    return found


def medians_of_others(vectors: Floats) -> Floats:
    """For each row of ``vectors`` [n, d] the coordinate-wise median of the other rows, [n, d]."""
    count = len(vectors) - 1
    order = np.argsort(vectors, axis=0, kind="stable")
    ranks = np.argsort(order, axis=0, kind="stable")
    ordered = np.take_along_axis(vectors, order, axis=0)
    # Without the row of rank r, the k-th of the others is the k-th of all before r, and the next one after.
    places = (count - 1) // 2, count // 2
    lower, upper = (np.take_along_axis(ordered, place + (ranks <= place), axis=0) for place in places)
    middle: Floats = (lower + upper) / 2.0
    return middle


def flat(update: Parameters) -> Floats:
    """All numbers of an update, float64 [parameters], in the order of their names."""
    return np.concatenate([update[name].astype(np.float64).ravel() for name in sorted(update)])
