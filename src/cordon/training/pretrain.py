"""Training without noise on public data, for a start that every site may know; and whether to go on from it.

A public control (Genome in a Bottle, for instance) has no privacy to lose: its cost is zero. Whether training
on the sites' own data then improves on it is decided on public data that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cordon.arrays import Singles
from cordon.errors import UserError
from cordon.model.architectures import Parameters, build, features_of, load_parameters, parameters_of, slices
from cordon.model.devices import device
from cordon.model.released import Model, load
from cordon.steps import Steps, silent
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import WITH_IMAGES

# What a model says of the data that it was trained on, where all of them are public.
PUBLIC_DATA = "public"
REFINE, KEEP = "refine", "keep"
# How much AUROC a refined model may lose on public alleles: what adapts to the sites' own data loses a little
# elsewhere, and a start that noise has drowned loses far more (docs/utility.md).
TOLERATED_LOSS = 0.01
# Full-batch Adam: steps, first step size (it falls to 0 along half a cosine), weight decay.
# A start is fitted less than it could be: it then does better on callers that it has not seen. What has seen
# those that it is for, and what benchmarks hold noise against, is fitted WELL.
FIT_STEPS, FIT_RATE, WEIGHT_DECAY = 400, 0.02, 1e-4
WELL = 900
# With larger steps the first ones, which move all scores alike, can bring the convolutions to a standstill.
IMAGES_LEARNING_RATE = 0.005


def fit(
    architecture: str, features: Singles, labels: Singles, *, start: Parameters | None = None,
    length: int | None = None, steps: Steps = silent,
) -> Parameters:  # fmt: skip
    """The parameters of ``architecture`` fitted to public rows: inputs [n, F], labels [n] of 0 or 1.

    In ``length`` steps (None: FIT_STEPS). No noise and no clipping: never for data of patients. Deterministic
    on a CPU; UserError where a class is missing.
    """
    import torch

    if len(np.unique(labels)) < 2:
        raise UserError("the public rows are of one class only. Give rows with real and with false alleles.")
    module = build(architecture, features_of(architecture, features.shape[1]))
    if start:
        load_parameters(module, start)
    where = device() if architecture in WITH_IMAGES else torch.device("cpu")
    module.to(where)
    rows, real = torch.from_numpy(features), torch.from_numpy(labels.astype(np.float32))
    rate = IMAGES_LEARNING_RATE if architecture in WITH_IMAGES else FIT_RATE
    optimiser = torch.optim.Adam(module.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    length = length or FIT_STEPS
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, length)
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
    with steps("training", length, "steps") as tick:
        for _ in range(length):
            optimiser.zero_grad()
            for part in slices(*features.shape):
                (loss(module(rows[part].to(where)), real[part].to(where)) / len(rows)).backward()
            optimiser.step()
            schedule.step()
            tick()
    return parameters_of(module)


@dataclass(frozen=True)
class PublicStart:
    """A model of public data to start from, and held-out public rows [n, F], [n] that judge the end."""

    model: Model
    rows: tuple[Singles, Singles] | None = None


@dataclass(frozen=True)
class Comparison:
    """A refined model against its public start on held-out public rows: AUROC of each, and which is kept."""

    rows: int
    pretrained_auroc: float
    refined_auroc: float
    decision: str  # REFINE or KEEP

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def refine_or_keep(pretrained: Model, refined: Model, features: Singles, labels: Singles) -> Comparison:
    """Keep the public start where the refined model loses TOLERATED_LOSS or more on public rows [n, F], [n].

    The decision looks at public data alone, so it costs no privacy.
    """
    from scipy.stats import mannwhitneyu

    if len(np.unique(labels)) < 2:
        raise UserError("the held-out public rows are of one class only. Give rows of both.")
    real = labels == 1
    # The area is Mann and Whitney's U over the pairs, and an aggregator has scipy in any case.
    before, after = (
        float(mannwhitneyu(scores[real], scores[~real]).statistic) / (int(real.sum()) * int((~real).sum()))
        for scores in (model.score(features) for model in (pretrained, refined))
    )
    return Comparison(
        len(labels), round(before, 6), round(after, 6), REFINE if after > before - TOLERATED_LOSS else KEEP
    )


def chosen(
    start: PublicStart | None, refined: Model, say: Callable[[str], None]
) -> tuple[Model, dict[str, Any]]:
    """The refined model, or the public start where that does better on held-out public rows; for the record.

    Either way the sites have spent what the model says: the choice looked at the refined one.
    """
    if start is None:
        return refined, {}
    about: dict[str, Any] = {"model_hash": start.model.hash}
    if start.rows is None:
        return refined, about
    compared = refine_or_keep(start.model, refined, *start.rows)
    say(
        f"on {compared.rows} held-out public alleles: AUROC {compared.pretrained_auroc:.4f} at the "
        f"start, {compared.refined_auroc:.4f} now: {compared.decision} (what loses {TOLERATED_LOSS:g} or "
        "more is not released)"
    )
    kept = refined if compared.decision == REFINE else replace(start.model, privacy=refined.privacy)
    return kept, about | compared.to_dict()


def public_start(path: Path) -> dict[str, str]:
    """The plan's settings ``model`` and ``start`` for the public model at ``path``.

    Raises UserError where it was trained under a privacy budget, which starting from it would hide.
    """
    model = read_public(path)
    return {"model": model.architecture, "start": model.hash}


def read_public(path: Path) -> Model:
    """The public model at ``path``, as `cordon pretrain` wrote it; UserError where it is none."""
    model = load(path)
    if model.privacy.get("data") != PUBLIC_DATA:
        raise UserError(
            f"{path}: not trained on public data alone, so its own cost would not be in a run's epsilon. "
            "Give a model that `cordon pretrain` wrote."
        )
    if model.features != FEATURES:
        raise UserError(
            f"{path}: made for other features. Train it again with this version of `cordon pretrain`."
        )
    return model


def pretrain(paths: Sequence[Path], architecture: str, *, steps: Steps = silent) -> Model:
    """A model of the labelled variant tables at ``paths``, which must be of public samples."""
    features, labels = public_rows(paths, architecture)
    fitted = fit(architecture, features, labels, steps=steps)
    return Model(architecture, FEATURES, fitted, {"data": PUBLIC_DATA})


def public_rows(paths: Sequence[Path], architecture: str) -> tuple[Singles, Singles]:
    """Inputs float32 [n, F] of ``architecture`` and labels float32 [n]: the tables' labelled rows."""
    from cordon.variants.table import LABELLED, for_model, inputs, read_table

    tables = [read_table(path, for_model(LABELLED, architecture)) for path in paths]
    tables = [table.filter(table["label"].is_valid()) for table in tables]
    labels = [table["label"].to_numpy().astype(np.float32) for table in tables]
    return np.concatenate([inputs(table, architecture) for table in tables]), np.concatenate(labels)
