"""One real run with canaries in its data, and the lower bound of epsilon that it shows.

A canary is a whole privacy unit: so many rows of one patient, or a single variant. Whether it is in the data
is a fair coin of its own, and everything else is the run as it is (`cordon.auditing.replay`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cordon.arrays import Bools, Floats, Singles
from cordon.auditing.one_run import APPROXIMATE, OneRunBound, lower_bound
from cordon.auditing.replay import Replay, replay
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters, build, features_of, load_parameters
from cordon.model.devices import thread_count
from cordon.model.released import Model
from cordon.training.rows import ImageRows, Rows
from cordon.training.units import Units
from cordon.variants.features import LIMIT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cordon.privacy.gradients import UnitGradients

RUN_VIEWS = ("black-box", "updates", "white-box")
AUDITED_SITE = "audited"
# Rows of a canary patient, where the plan allows as many: clipped one by one, they would show.
MOST_ROWS_EACH = 16
# The least that a gradient's length is taken for.
LEAST_LENGTH = 1e-12


@dataclass(frozen=True)
class Canaries:
    """Units of equal rows each: ``points`` float32 [m, F], their ``labels`` float32 [m] and ``rows``."""

    points: Rows
    labels: Singles
    rows: int

    def beside(self, units: Units, included: Bools) -> Units:
        """``units``, and after them the canaries that are ``included`` [m]."""
        owners = np.repeat(np.flatnonzero(included), self.rows)
        ends = self.rows * np.arange(included.sum() + 1)
        return together(units, Units(self.points.take(owners, 0), self.labels[owners], ends, units.unit))


def audit_one_run(
    plan: Plan, units: Units, declared: int, start: Parameters, *, canaries: int, view: str,
    seed: int | None = None, confidence: float = 0.95, threads: int | None = None,
    estimator: str = APPROXIMATE,
) -> OneRunBound:  # fmt: skip
    """The bound that one run of ``plan`` on ``units`` and about half of ``canaries`` canaries shows.

    ``declared`` is the site's public number of patients and ``start`` the public model. By ``view`` the
    auditor has the released model alone ("black-box"), every round's update too ("updates"), or has also
    chosen the canaries' gradients ("white-box"), each along a coordinate of its own, in the first dense
    layer: where the plan clips by layer, that is the layer's part of the clip. ``seed`` is for the coins and
    the canaries; noise and sampling are the real ones. ``estimator`` as for `lower_bound`: that a run of many
    sampled steps is mu-GDP is nearly so. UserError for another view.
    """
    if view not in RUN_VIEWS:
        raise UserError(f"no view is called {view!r}. Choose one of: {', '.join(RUN_VIEWS)}.")
    if canaries < 1:
        raise UserError(f"{canaries} canaries show nothing. Use a hundred or more.")
    source = np.random.default_rng(seed)
    included = source.random(canaries) < 0.5
    rows = min(plan.max_variants_per_patient, MOST_ROWS_EACH) if plan.unit == "patient" else 1
    if view == "white-box":
        scores = _white_box(plan, units, declared, start, included, rows, threads)
    else:
        made = make_canaries(plan, units, canaries, rows, source)
        run = replay(
            plan,
            {AUDITED_SITE: made.beside(units, included)},
            {AUDITED_SITE: declared},
            start,
            threads=threads,
        )
        with thread_count(threads):
            scores = black_box(plan, made, run) if view == "black-box" else updates(plan, made, run)
    bound = lower_bound(scores, included, delta=plan.delta, confidence=confidence, estimator=estimator)
    return replace(bound, view=view, unit=plan.unit, mechanism=plan.mechanism, claimed=plan.epsilon_at_site)


def make_canaries(plan: Plan, units: Units, count: int, rows: int, source: np.random.Generator) -> Canaries:
    """``count`` canaries of ``rows`` rows: corners of the features' public range, with a label by a coin.

    All rows of one are the same, so that its gradient is the row's. Images are those of real rows.
    """
    width = features_of(plan.model, units.features.shape[1])
    corners = np.where(source.random((count, width)) < 0.5, -LIMIT, LIMIT).astype(np.float32)
    labels = (source.random(count) < 0.5).astype(np.float32)
    if isinstance(units.features, ImageRows):
        images = source.choice(units.features.places, count)
        return Canaries(ImageRows(corners, units.features.images, images), labels, rows)
    return Canaries(corners, labels, rows)


def black_box(plan: Plan, canaries: Canaries, run: Replay) -> Floats:
    """By how much each canary's log loss [m], in nats, is lower by the released model than by the start."""
    points = canaries.points[np.arange(len(canaries.labels))]
    names = ("",) * features_of(plan.model, points.shape[1])
    losses = []
    for parameters in (run.models[0], run.model):
        scores = Model(plan.model, names, parameters).score(points)
        losses.append(np.logaddexp(0.0, np.where(canaries.labels == 1, -scores, scores)))
    return np.asarray(losses[0] - losses[1], dtype=np.float64)


def updates(plan: Plan, canaries: Canaries, run: Replay) -> Floats:
    """How far the updates go against each canary's gradient [m], of length 1, at their rounds' starts."""
    import torch

    from cordon.privacy.gradients import Block, unit_gradients

    points = torch.from_numpy(canaries.points[np.arange(len(canaries.labels))])
    labels = torch.from_numpy(canaries.labels)
    width = points.shape[1]
    module, hooked = (build(plan.model, features_of(plan.model, width)) for _ in range(2))
    gradients = unit_gradients(hooked, width)
    total = torch.zeros(len(labels), dtype=torch.float64)
    for start, sent in zip(run.models, run.updates, strict=False):
        load_parameters(module, start)
        load_parameters(hooked, start)
        for first in range(0, len(labels), gradients.most_rows):
            at = slice(first, first + gradients.most_rows)
            count = len(labels[at])
            block = Block(points[at, None], labels[at, None], torch.ones(count, 1), count)
            norms = torch.stack([layer.norms(2) for layer in gradients.of(block)]).norm(dim=0)
            total[at] -= _along(sent[AUDITED_SITE], module, points[at], labels[at]) / norms.clamp(
                min=LEAST_LENGTH
            )
    return total.numpy()


def _along(change: Parameters, module: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """How each row's log loss, in nats, changes [n] along a ``change`` of the parameters, to first order."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    def losses(parameters: dict[str, Tensor]) -> Tensor:
        scores = torch.func.functional_call(module, parameters, (points,))
        return binary_cross_entropy_with_logits(scores, labels, reduction="none")

    at = {name: parameter.detach() for name, parameter in module.named_parameters()}
    tangent = {name: torch.from_numpy(change[name]) for name in at}
    with warnings.catch_warnings():
        # torch's own forward mode, when first used, warns of what it imports.
        warnings.simplefilter("ignore", FutureWarning)
        moved: Tensor = torch.func.jvp(losses, (at,), (tangent,))[1]
    return moved


def _white_box(
    plan: Plan, units: Units, declared: int, start: Parameters, included: Bools, rows: int,
    threads: int | None,
) -> Floats:  # fmt: skip
    """How far the updates went against each canary's own coordinate [m], on the model with spare inputs."""
    from cordon.auditing.gradient_canaries import CANARY_LENGTH, SpareInputs

    count = len(included)
    spare = SpareInputs.of(plan.model, features_of(plan.model, units.features.shape[1]), count)
    features = units.features
    blank = spare.rows(np.zeros((count, spare.features), np.float32), np.arange(1, count + 1))
    points: Rows = blank
    if isinstance(features, ImageRows):
        points = ImageRows(blank, features.images, np.zeros(count, np.int64))
        wide: Rows = replace(features, features=spare.rows(features.features, 0))
    else:
        wide = spare.rows(features, 0)
    marked = Canaries(points, np.zeros(count, np.float32), rows)
    audited = marked.beside(replace(units, features=wide), included)

    def planted(module: nn.Module, width: int) -> UnitGradients:
        return spare.gradients(module, width, count, CANARY_LENGTH * plan.clip_norm)

    run = replay(
        plan,
        {AUDITED_SITE: audited},
        {AUDITED_SITE: declared},
        spare.start(start),
        threads=threads,
        gradients=planted,
    )
    output, column = spare.place(np.arange(count))
    moved = [sent[AUDITED_SITE][spare.name][output, column] for sent in run.updates]
    return np.asarray(-np.sum(moved, axis=0, dtype=np.float64))


def together(first: Units, second: Units) -> Units:
    """The units of the one, then of the other; both look at the same images, where they have any."""
    second.require(first.unit)
    return Units(
        _joined(first.features, second.features), np.concatenate([first.labels, second.labels]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]), first.unit,
    )  # fmt: skip


def _joined(first: Rows, second: Rows) -> Rows:
    if isinstance(first, ImageRows) and isinstance(second, ImageRows):
        assert first.images is second.images
        return ImageRows(
            np.concatenate([first.features, second.features]), first.images,
            np.concatenate([first.places, second.places]),
        )  # fmt: skip
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)
    return np.concatenate([first, second])
