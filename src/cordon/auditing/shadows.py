"""Shadow trainings: what training on one half and another leaves to an attacker, and what he reads from it.

Each shadow trains on units that fair coins put in, and each is a target in turn, judged by the others:
coins keep a target's own membership out of its scores, and make the bound of (epsilon, delta) on TPR and FPR
hold for them as it stands (add or remove one unit, whatever the others). Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cordon.arrays import Bools, Floats
from cordon.auditing.attack_scores import CONFIDENCE
from cordon.auditing.replay import replay
from cordon.errors import UserError
from cordon.federation.averaging import average, mean_of
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters, build, features_of, load_parameters, slices
from cordon.model.devices import thread_count
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import descend
from cordon.training.units import Units

if TYPE_CHECKING:
    from torch import Tensor


# What an attacker holds: the released model, or all that an honest-but-curious aggregator sees of a site.
VIEWS = ("model", "updates")
# From so many shadows on each unit has variances of its own (Carlini et al. 2022, section VI-C).
OWN_VARIANCE_FROM = 64
LEAST_SHADOWS = 4
# No clip and no noise in the terms of DP-SGD: the clip is out of reach, the noise below float32's rounding.
NO_CLIP, NO_NOISE = 1e6, 1e-12
SHADOW_SITE = "site"


@dataclass(frozen=True)
class Trace:
    """What one training leaves: parameters before each round and after the last, a site's updates, the model.

    ``models`` has one entry more than ``updates``; ``model`` is what is released.
    """

    models: Sequence[Parameters]
    updates: Sequence[Parameters]
    model: Parameters


Trainer = Callable[[Units], Trace]
Progress = Callable[[int, int], None]


def replayed(plan: Plan, declared: int, start: Parameters, *, threads: int | None = None) -> Trainer:
    """The plan's own training, with its noise, at one site that declared so many patients.

    One site is the worst case: whoever knows the other sites' updates subtracts them.
    """

    def trainer(units: Units) -> Trace:
        run = replay(plan, {SHADOW_SITE: units}, {SHADOW_SITE: declared}, start, threads=threads)
        return Trace(run.models, [sent[SHADOW_SITE] for sent in run.updates], run.model)

    return trainer


def unprotected(plan: Plan, declared: int, start: Parameters, *, threads: int | None = None) -> Trainer:
    """The same rounds, steps, sampling and optimiser, without noise and clip: nothing of it is private."""
    settings = replace(
        plan.settings_for(declared), noise_multiplier=NO_NOISE, clip_norm=NO_CLIP, clipping="fixed",
        per_layer=False, mechanism=GAUSSIAN,
    )  # fmt: skip

    def trainer(units: Units) -> Trace:
        models, updates = [start], []
        with thread_count(threads):
            for _ in range(plan.rounds):
                updates.append(descend(plan.model, models[-1], units, settings, Randomness()).update)
                models.append(average(models[-1], {SHADOW_SITE: updates[-1]}, {SHADOW_SITE: 1.0}))
        return Trace(models, updates, mean_of(models[1:][-plan.averaged_rounds :]))

    return trainer


@dataclass(frozen=True)
class Shadowing:
    """How shadows are trained and judged.

    So many ``shadows`` are trained, by the plan's own training or by ``trainer``, of which nothing is then
    claimed; the plan still says architecture and unit. They are looked at by ``views``, and ``confidence`` is
    that of the intervals. ``seed`` chooses who is in; noise is always fresh. ``tick(done, of)`` follows each
    training.
    """

    shadows: int = 32
    views: Sequence[str] = VIEWS
    trainer: Trainer | None = None
    threads: int | None = None
    seed: int = 0
    confidence: float = CONFIDENCE
    tick: Progress | None = None

    def coins(self, number: int) -> Bools:
        """Who of so many is in which shadow, bool [shadows, number]."""
        return np.random.default_rng(self.seed).random((self.shadows, number)) < 0.5

    def training(self, plan: Plan, declared: int, start: Parameters) -> Trainer:
        """What trains a shadow at a site that declared so many patients."""
        return self.trainer or replayed(plan, declared, start, threads=self.threads)

    def clip_norm(self, plan: Plan) -> float:
        """The clip of what trains; of another trainer nothing is known."""
        return math.inf if self.trainer else plan.clip_norm

    def trained(self, number: int) -> None:
        """Tell that so many shadows are trained."""
        if self.tick:
            self.tick(number, self.shadows)


USUAL = Shadowing()


def declared_for(plan: Plan, units: float) -> int:
    """The patients that a site with about so many ``units`` would declare under ``plan``."""
    return max(1, round(units / plan.declared_units(1)))


def kept(units: Units, rows: Bools) -> Units:
    """The units with those of their rows alone that ``rows`` (bool [rows]) keeps; none is left empty."""
    counts = np.add.reduceat(rows.astype(np.int64), units.offsets[:-1])
    places = np.flatnonzero(rows)
    offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])])
    return Units(units.features.take(places, 0), units.labels[places], offsets, units.unit)


def members_of(units: Units, member: Bools) -> Units:
    """The units that ``member`` (bool [units]) chooses, whole."""
    return kept(units, np.repeat(member, np.diff(units.offsets)))


def confidences(architecture: str, parameters: Parameters, units: Units) -> tuple[Floats, Floats]:
    """Each unit's mean over its rows of the log odds of the row's own label, and of minus its log loss, [U].

    The first is Carlini et al.'s logit-scaled confidence log(p / (1 - p)), for a score of log odds exactly.
    """
    import torch

    module = _module(architecture, parameters, units)
    rows = np.arange(len(units.labels))
    scores = np.empty(len(rows))
    with torch.no_grad():
        for part in slices(*units.features.shape):
            scores[part] = module(torch.from_numpy(units.features[rows[part]])).double().numpy()
    odds = np.where(units.labels > 0.5, scores, -scores)
    sizes = np.diff(units.offsets)
    of_odds, of_loss = (
        np.add.reduceat(values, units.offsets[:-1]) / sizes for values in (odds, -np.logaddexp(0.0, -odds))
    )
    return of_odds, of_loss


def unit_gradients_of(architecture: str, parameters: Parameters, units: Units) -> Floats:
    """The gradient of each unit's mean log loss, float64 [U, parameters] in the order of ``parameters``.

    From torch's own differentiation, not from the code under audit.
    """
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.functional import binary_cross_entropy_with_logits

    module = _module(architecture, parameters, units)
    values = {name: value.detach() for name, value in module.named_parameters()}

    def loss(at: dict[str, Tensor], rows: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        scores = functional_call(module, at, (rows,))
        return binary_cross_entropy_with_logits(scores, labels, weights, reduction="sum")

    by_unit = vmap(grad(loss), in_dims=(None, 0, 0, 0))
    starts, sizes = units.offsets[:-1, None], np.diff(units.offsets)[:, None]
    places = np.arange(sizes.max())
    numbers = max(sum(value.numel() for value in values.values()), len(places) * units.features.shape[1])
    found = []
    for part in slices(len(units), numbers):
        within = places < sizes[part]
        rows = starts[part] + np.where(
            within, places, 0
        )  # padding is the unit's first row, and weighs nothing
        weights = (within / sizes[part]).astype(np.float32)
        arrays = (units.features[rows], units.labels[rows], weights)
        gradients = by_unit(values, *(torch.from_numpy(array) for array in arrays))
        found.append(torch.cat([gradients[name].flatten(1) for name in parameters], dim=1).double().numpy())
    return np.concatenate(found)


def clipped(gradients: Floats, clip_norm: float, order: int) -> Floats:
    """Rows of ``gradients`` [U, parameters] within ``clip_norm`` in the L1 or L2 norm (``order``)."""
    norms = np.linalg.norm(gradients, order, axis=1, keepdims=True)
    within: Floats = gradients * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-30))
    return within


def alignment(trace: Trace, directions: Callable[[Parameters], Floats]) -> Floats:
    """How far the updates went where K hypotheses say that they would: the matched filter, float64 [K].

    ``directions`` of a round's start are the gradients d [K, parameters] that each would add to it; the sum
    over rounds of <update, -d>, over the root of the sum of |d|^2, has noise of one variance for all.
    """
    moved: Floats | float = 0.0
    square: Floats | float = 0.0
    # The last entry of `models` is what came of the last update.
    for start, update in zip(trace.models, trace.updates, strict=False):
        towards = directions(start)
        moved = moved - towards @ np.concatenate([update[name].ravel() for name in start]).astype(np.float64)
        square = square + (towards**2).sum(1)
    found: Floats = moved / np.sqrt(np.maximum(square, 1e-30))
    return found


def lira(statistics: Floats, member: Bools, *, online: bool) -> Floats:
    """Likelihood-ratio scores of every target's units by the other targets, float64 [targets, units].

    Carlini et al. 2022, arXiv:2112.03570: Gaussians fitted to a unit's ``statistics`` [targets, units] or
    [targets, units, K] where it was in and where it was out; the log of their ratio (``online``), or how far
    above the second one they lie, each by its own deviation. The target's own row of ``member`` moves none
    of its scores. A unit that the others had only in, or only out, scores 0: nothing is known of it.
    """
    if len(statistics) < LEAST_SHADOWS:
        raise UserError(
            f"{len(statistics)} shadows cannot calibrate an attack. Use {LEAST_SHADOWS} or more shadows."
        )
    whole = statistics.reshape(*member.shape, -1)
    centred: Floats = whole - whole.mean(0)  # a shift by unit changes nothing but the rounding
    mean, covariance = _fits(centred, ~member)
    away = centred - mean
    if online:
        mean_in, covariance_in = _fits(centred, member)
        (far, size), (far_in, size_in) = (
            (_squared_distance(x, spread), np.linalg.slogdet(spread)[1])
            for x, spread in ((away, covariance), (centred - mean_in, covariance_in))
        )
        score = 0.5 * (far - far_in + size - size_in)
    else:
        deviations = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        score = (away * _solved(covariance, deviations)).sum(-1)
    known: Floats = np.where(np.isnan(score), 0.0, score)
    return known


def _fits(statistics: Floats, chosen: Bools) -> tuple[Floats, Floats]:
    """Means [targets, units, K] and covariances [.., K, K] of the chosen of the other targets.

    The covariance is pooled over units where targets are few. NaN where none was chosen.
    """
    weights = chosen[..., None].astype(np.float64)
    weighted = weights * statistics
    products = weighted[..., :, None] * statistics[..., None, :]
    counts, sums, squares = (total.sum(0) - total for total in (weights, weighted, products))
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    about = np.nan_to_num(means)
    spread = squares - counts[..., None] * about[..., :, None] * about[..., None, :]
    freedom = np.maximum(counts - 1.0, 0.0)[..., None]
    if len(statistics) < OWN_VARIANCE_FROM:
        spread, freedom = spread.sum(1, keepdims=True), freedom.sum(1, keepdims=True)
    covariance = spread / np.maximum(freedom, 1.0)
    # Statistics that do not vary at all, or only together, must not make it singular.
    scale = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 1e-18)
    return means, covariance + 1e-6 * scale[..., None] * np.eye(scale.shape[-1])


def _solved(covariance: Floats, vector: Floats) -> Floats:
    """The inverse of ``covariance`` [..., K, K] times ``vector`` [..., K]."""
    return np.asarray(np.linalg.solve(covariance, vector[..., None])[..., 0], dtype=np.float64)


def _squared_distance(away: Floats, covariance: Floats) -> Floats:
    found: Floats = (away * _solved(covariance, away)).sum(-1)
    return found


def _module(architecture: str, parameters: Parameters, units: Units) -> Any:
    module = build(architecture, features_of(architecture, units.features.shape[1]))
    load_parameters(module, parameters)
    return module
