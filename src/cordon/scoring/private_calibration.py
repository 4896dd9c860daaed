"""A calibration by one noisy release: what a scored VCF then says of the site's patients is accounted.

Every unit adds one bounded vector, Gaussian noise is added once to their sum, and threshold, slope and
intercept are computed from that. The cost stands in the site's ledger before anything is computed, and the
result beside it: whoever asks again for the same calibration of the same model gets the same figures, at no
cost. Only public things tell whether it is the same, so new patients count from the next model on.

Formal guarantees (unit: a patient with all its rows, or one variant; adjacency: add or remove one unit):
taking a unit away, or adding one, moves `sums` by a vector of L2 norm at most 1, whatever its rows; `noisy`
adds noise of standard deviation ``noise_multiplier`` to each number. So the release costs `Settings.event`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Floats, Ints
from cordon.errors import BudgetExceeded, UserError
from cordon.ledger.site import CALIBRATION, SiteLedger
from cordon.privacy.events import Event, mechanism_of
from cordon.privacy.grouping import Grouping, check_delta, declared_units, other_ids
from cordon.privacy.guarantee import ADJACENCY
from cordon.privacy.mechanisms import Randomness, on_grid
from cordon.privacy.noise_calibration import calibrate_noise
from cordon.scoring.calibration import (
    PRIVATE,
    Calibration,
    Curve,
    Scorer,
    fixed_threshold,
    for_both,
    raw_scores,
    stated_cost,
    uncalibrated,
)

Labels = NDArray[np.int8]
# What a table gives: inputs [n, F], labels (None where there is none) and patients.
Rows = tuple[NDArray[np.float32], Sequence[int | None], Sequence[str]]

# The public grid of raw scores (nats) that the sums are over. What is beyond goes into the outer bins.
LIMIT, BINS = 8.0, 32
WIDTH = 2 * LIMIT / BINS
EDGES = np.linspace(-LIMIT, LIMIT, BINS + 1)
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2
# A unit's vector has four parts, each of L2 norm at most a half, so the whole has at most 1; a hair less, so
# that rounding cannot move the sum by more than the noise is for.
PART = 0.5 * (1 - 1e-6)
SIZE = 3 * BINS + 1
# Of a unit's real rows, so many times the share that the filter may lose are looked at, the lowest scores
# first. Without that bound the noise would be for a unit whose rows all lie below the threshold.
LOWEST = 2
# How far, in standard deviations of nats, slope and intercept are expected to be from 1 and 0.
EXPECTED = np.array([0.3, 0.5])
LEAST_SLOPE = 0.05
# No threshold is set where the noise's standard deviation is above this share of the real alleles.
NOISIEST = 0.025
# Units whose vectors are in memory at a time.
TOGETHER = 4096


@dataclass(frozen=True)
class Settings:
    """A calibration's public settings: ``epsilon`` at ``delta`` for one ``unit``, for one truth sensitivity.

    Epsilon is by ``accountant``, and of a person who is a patient at ``sites_per_patient`` sites, each of
    which calibrates so. ``same_person`` says whether patients who seem to be one person are one unit
    (`cordon.variants.same_person`). ``most_rows`` bounds what a unit's rows weigh together, in rows; a
    variant is one.
    """

    unit: str
    epsilon: float
    delta: float
    accountant: str
    sites_per_patient: int
    same_person: str
    sensitivity: str
    most_rows: int

    @property
    def rows(self) -> int:
        """The most that the rows of a unit weigh together."""
        return self.most_rows if self.unit == "patient" else 1

    @property
    def lowest(self) -> int:
        """The most that those of a unit's real rows weigh which the threshold is found by."""
        share = LOWEST * (1 - float(self.sensitivity))
        return min(self.rows, max(1, math.ceil(share * self.rows - 1e-9)))

    @property
    def event(self) -> Event:
        """What the release costs: one step in which every unit takes part."""
        return calibration_event(
            epsilon=self.epsilon, delta=self.delta, accountant=self.accountant,
            sites_per_patient=self.sites_per_patient, unit=self.unit,
        )  # fmt: skip

    @property
    def cost(self) -> dict[str, Any]:
        """What the release costs, with all that must stand beside an epsilon."""
        event = self.event
        return {
            "unit": self.unit, "epsilon": self.epsilon, "delta": self.delta,
            "accountant": self.accountant.upper(), "mechanism": event.mechanism, "adjacency": ADJACENCY,
            "sites_per_patient": event.sites, "noise_multiplier": event.noise_multiplier,
            "sampling_rate": event.sampling_rate, "steps": event.steps,
        }  # fmt: skip

    def name(self, model: Scorer) -> str:
        """What the calibration is called in the ledger: the same for the same model and settings."""
        about = json.dumps({"model": model.hash, **asdict(self)}, sort_keys=True)
        return CALIBRATION + hashlib.sha256(about.encode()).hexdigest()[:16]


def calibration_event(
    *, epsilon: float, delta: float, accountant: str, sites_per_patient: int, unit: str
) -> Event:
    """One Gaussian release to all units, with the least noise that keeps it within ``epsilon``.

    By ``accountant``, and for a person at so many sites, each of which makes such a release.
    """
    noise = calibrate_noise(
        epsilon=epsilon, delta=delta, sampling_rate=1.0, steps=1, accountant=accountant,
        sites=sites_per_patient, unit=unit,
    )  # fmt: skip
    return Event(noise, 1.0, 1, sites=sites_per_patient)


def calibrate_privately(
    model: Scorer, tables: Callable[[], Iterable[Rows]], site: str, settings: Settings, ledger: SiteLedger,
    patients: Sequence[str] | None = None, *, declared_patients: int,
    one_id: Mapping[str, str] = MappingProxyType({}), say: Callable[[str], None],
) -> Calibration:  # fmt: skip
    """The calibration that the ledger holds for this model and these settings, or else a new one, paid for.

    ``tables`` is called where there is something to compute. Of ``patients``, by their names there, those
    whose budget has room for it take part; without them it is paid for by everybody whom the ledger knows.
    ``one_id`` has the id that patients go by who are one person, who is then one unit. What is to be warned
    of is told to ``say``. BudgetExceeded, and nothing is computed, where nobody has room; UserError where
    delta, the ledger's or the calibration's, is too large for the patients that the site declared.
    """
    declared = declared_units(settings.unit, declared_patients, settings.most_rows)
    if warning := check_delta(site, max(settings.delta, ledger.delta), declared):
        say(warning)
    name, event = settings.name(model), settings.event
    found = ledger.released(name, 1)
    if found is None:
        units = None if patients is None else sorted({one_id.get(patient, patient) for patient in patients})
        try:
            part = ledger.reserve(
                name, 1, event, Grouping(settings.unit, model.architecture, settings.rows, declared), units,
                accountant=settings.accountant, also=other_ids(one_id),
            )  # fmt: skip
        except BudgetExceeded as error:
            raise BudgetExceeded(
                f"site {site} has no room for a private calibration, of {stated_cost(settings.cost)}, paid "
                f"once. {error} Give --calibration none, or a smaller --calibration_epsilon."
            ) from error
        taking = None if units is None else part
        total = sums(*_labelled(model, tables(), settings, taking, one_id), settings)
        found = estimate(noisy(total, event.noise_multiplier, Randomness()), event.noise_multiplier, settings)
        ledger.mark_sent(name, 1, found)
    spent = {"spent_by_site": ledger.spent(), "spent_mechanism": mechanism_of(ledger.most_spent())}
    cost = settings.cost | spent
    thresholds = {settings.sensitivity: found["threshold"]}
    curve, about = Curve.line(found["slope"], found["intercept"]), {"margin": found["margin"], "cost": cost}
    return for_both(curve, thresholds, PRIVATE, site, reason=found["reason"], **about)


def without_samples(site: str) -> Calibration:
    """Where the samplesheet gives the site no labelled sample, which is public: nothing to pay for."""
    return uncalibrated(PRIVATE, site, f"site {site} gave no labelled sample to calibrate on")


def _labelled(
    model: Scorer, tables: Iterable[Rows], settings: Settings, taking: frozenset[str] | None,
    one_id: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Floats, Labels, Ints]:  # fmt: skip
    """Raw scores, labels and units [n] of the labelled rows, of the patients ``taking`` part (None: all)."""
    scores, labels, patients = [np.empty(0)], [np.empty(0, dtype=np.int8)], list[str]()
    for features, given, ids in tables:
        names = [one_id.get(name, name) for name in ids]
        known = np.array(
            [
                value is not None and (taking is None or name in taking)
                for value, name in zip(given, names, strict=True)
            ],
            dtype=bool,
        )
        scores.append(raw_scores(model, features[known]))
        labels.append(np.array([given[row] for row in np.flatnonzero(known).tolist()], dtype=np.int8))
        patients += [names[row] for row in np.flatnonzero(known).tolist()]
    if settings.unit == "patient":
        owners = np.unique(np.array(patients, dtype=str), return_inverse=True)[1]
    else:
        owners = np.arange(len(patients))
    return np.concatenate(scores), np.concatenate(labels), owners.astype(np.int64)


def sums(scores: Floats, labels: Labels, owners: Ints, settings: Settings) -> Floats:
    """The units' `contributions` [SIZE], added up; ``owners`` [n] numbers each row's unit from 0."""
    total = np.zeros(SIZE)
    order = np.argsort(owners, kind="stable")
    scores, labels, owners = scores[order], labels[order], owners[order]
    units = int(owners[-1]) + 1 if len(owners) else 0
    for first in range(0, units, TOGETHER):
        part = slice(*np.searchsorted(owners, [first, first + TOGETHER]))
        total += contributions(scores[part], labels[part], owners[part] - first, settings).sum(axis=0)
    return total


def contributions(scores: Floats, labels: Labels, owners: Ints, settings: Settings) -> Floats:
    """Each unit's vector [units, SIZE], of L2 norm below 1, whatever its rows.

    Its parts: the lowest scores of its real rows by bin; how many real rows it has; label less the model's
    own probability by bin; rows by bin. Where a unit has more rows than ``settings.rows``, each weighs less.
    """
    rows = np.bincount(owners)
    units, weights = len(rows), np.minimum(1.0, settings.rows / np.maximum(rows, 1))[owners]
    inside = np.clip(scores, -LIMIT, LIMIT)
    places = owners * BINS + np.minimum((inside + LIMIT) / WIDTH, BINS - 1).astype(np.int64)

    def by_bin(values: Floats) -> Floats:
        return np.bincount(places, values, units * BINS).astype(np.float64).reshape(units, BINS)

    real = labels == 1
    lowest = by_bin(_lowest(inside, real, owners, weights, settings.lowest)) / settings.lowest
    reals = np.bincount(owners, weights * real, units)[:, None] / settings.rows
    residuals = by_bin(weights * (real - _probability(inside))) / math.sqrt(settings.rows)
    counts = by_bin(weights) / _usual_norm(settings.rows)
    parts = [_within(part) for part in (lowest, reals, residuals, counts)]
    return PART * np.concatenate(parts, axis=1)


def _lowest(scores: Floats, real: NDArray[np.bool_], owners: Ints, weights: Floats, most: int) -> Floats:
    """The weights [n] of each unit's lowest-scored real rows, ``most`` together; 0 for the others."""
    order = np.lexsort((scores, ~real, owners))
    ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    taken = np.zeros(len(order))
    left = np.clip(most - ranks * weights[order], 0.0, weights[order])
    taken[order] = np.where(real[order], left, 0.0)
    return taken


def _usual_norm(rows: int) -> float:
    """The L2 norm that so many rows usually have by bin: they are spread over some sixteen."""
    return max(rows / 4, min(rows, 4))


def _within(part: Floats) -> Floats:
    """Vectors [units, n], those of an L2 norm above 1 made shorter."""
    shorter: Floats = part / np.maximum(1.0, np.linalg.norm(part, axis=1, keepdims=True))
    return shorter


def noisy(total: Floats, noise_multiplier: float, random: Randomness) -> Floats:
    """The sums with fresh Gaussian noise, on the public grid of `cordon.privacy.mechanisms.on_grid`."""
    return on_grid(total + noise_multiplier * random.normal(len(total)), noise_multiplier)


def estimate(released: Floats, noise_multiplier: float, settings: Settings) -> dict[str, Any]:
    """Slope, intercept, threshold on the calibrated score, margin and reason, from noisy sums alone."""
    sizes = (settings.lowest, settings.rows, math.sqrt(settings.rows), _usual_norm(settings.rows))
    deviations = [noise_multiplier * size / PART for size in sizes]
    parts = np.split(released, [BINS, BINS + 1, 2 * BINS + 1])
    lowest, reals, residuals, rows = (part * size / PART for part, size in zip(parts, sizes, strict=True))
    slope, intercept = _fit(residuals, np.maximum(rows, 0.0), deviations[2])
    share = 1 - float(settings.sensitivity)
    raw, margin = _quantile(lowest, float(reals[0]), share, deviations[0], deviations[1])
    if raw is None:
        return {
            "slope": slope, "intercept": intercept, "threshold": fixed_threshold(settings.sensitivity),
            "margin": None, "reason": "its noise hides which threshold keeps so many of the real alleles",
        }  # fmt: skip
    threshold = slope * raw + intercept
    return {"slope": slope, "intercept": intercept, "threshold": threshold, "margin": margin, "reason": ""}


def _quantile(
    lowest: Floats, reals: float, share: float, noise: float, count_noise: float
) -> tuple[float | None, float]:
    """The raw score below which ``share`` of the real rows lie, and two standard deviations of that share.

    None where the noise hides it. ``lowest`` [BINS] are noisy counts, ``reals`` the noisy number of all real
    rows. Counts below an edge only grow with it: isotonic regression, each count by its noise's variance.
    """
    from sklearn.isotonic import IsotonicRegression

    if reals <= 2 * count_noise:
        return None, math.inf
    below = np.concatenate([[0.0], np.cumsum(lowest)])
    places = np.arange(BINS + 1)
    below = IsotonicRegression().fit_transform(places, below, sample_weight=1 / (1.0 + places))
    below -= below[0]
    above = np.flatnonzero(below > share * reals)
    if not len(above):
        return None, math.inf
    place = int(above[0])
    deviation = math.hypot(noise * math.sqrt(place), share * count_noise) / reals
    if deviation > NOISIEST:
        return None, math.inf
    part = (share * reals - below[place - 1]) / (below[place] - below[place - 1])
    return float(EDGES[place - 1] + part * WIDTH), 2 * deviation


def _fit(residuals: Floats, rows: Floats, noise: float) -> tuple[float, float]:
    """Slope and intercept by logistic regression on sums by bin [BINS], held near 1 and 0 by the noise.

    ``residuals`` is label less the model's own probability. The ridge is the standard deviation that
    ``noise`` has in the score function, over what is EXPECTED: what little the sums say of few units moves
    the fit little, and of many units it says so much that the ridge is nothing.
    """
    from scipy.optimize import minimize

    real = residuals + rows * _probability(MIDDLES)
    ridge = noise * np.sqrt([np.square(MIDDLES).sum(), BINS]) / EXPECTED
    start = np.array([1.0, 0.0])

    def loss(values: Floats) -> tuple[float, Floats]:
        odds = values[0] * MIDDLES + values[1]
        left = real - rows * _probability(odds)
        moved = values - start
        value = rows @ np.logaddexp(0.0, odds) - real @ odds + 0.5 * ridge @ np.square(moved)
        return float(value), ridge * moved - np.array([left @ MIDDLES, left.sum()])

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)])
    if not np.isfinite(found.x).all():
        raise UserError("the private calibration did not converge. Give --calibration none.")
    return float(found.x[0]), float(found.x[1])


def _probability(odds: Floats) -> Floats:
    """1 / (1 + exp(-odds)) of natural-log odds."""
    return np.exp(-np.logaddexp(0.0, -odds))
