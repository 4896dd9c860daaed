"""Training without noise on public data, for a start that every site may know; and whether to go on from it.

A public control (Genome in a Bottle, for instance) has no privacy to lose: its cost is zero. Whether training
on the sites' own data then improves on it is decided on public data that were held out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cordon.errors import UserError
from cordon.model import Model, Parameters, build, initial_parameters, load_parameters, parameters_of

Floats = npt.NDArray[np.float32]
# Full-batch Adam: steps, first step size (it falls to 0 along half a cosine), weight decay.
STEPS, LEARNING_RATE, WEIGHT_DECAY = 300, 0.02, 1e-3


def fit(
    architecture: str, features: Floats, labels: Floats, *, start: Parameters | None = None
) -> Parameters:
    """The parameters of ``architecture`` fitted to public rows: features [n, F], labels [n] of 0 or 1.

    No noise and no clipping: never for data of patients. Deterministic; UserError where a class is missing.
    """
    import torch

    if len(np.unique(labels)) < 2:
        raise UserError("the public rows are of one class only. Give rows with real and with false alleles.")
    module = build(architecture, features.shape[1])
    load_parameters(module, start or initial_parameters(architecture, features.shape[1]))
    rows, real = torch.from_numpy(features), torch.from_numpy(labels.astype(np.float32))
    optimiser = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    loss = torch.nn.BCEWithLogitsLoss()
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(module(rows), real).backward()
        optimiser.step()
        schedule.step()
    return parameters_of(module)


@dataclass(frozen=True)
class Comparison:
    """A refined model against its public start on held-out public rows: AUROC of each, and which is kept."""

    rows: int
    pretrained_auroc: float
    refined_auroc: float
    decision: str  # "refine" or "keep"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def refine_or_keep(pretrained: Model, refined: Model, features: Floats, labels: Floats) -> Comparison:
    """Keep the public start unless the refined model is at least as good on the public rows [n, F], [n].

    The decision looks at public data alone, so it costs no privacy.
    """
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        raise UserError("the held-out public rows are of one class only. Give rows of both.")
    before, after = (float(roc_auc_score(labels, model.score(features))) for model in (pretrained, refined))
    return Comparison(len(labels), round(before, 6), round(after, 6), "refine" if after >= before else "keep")
