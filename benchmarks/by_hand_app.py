"""What one would write by hand: a Flower app whose clients train with Opacus, and FedAvg over them.

Written as the two projects' examples and documentation have it, with nothing of Cordon's in it, so that
`benchmarks/by_hand.py` can say what is left to add. A site's rows are Parquet tables with columns ``f_*``,
``patient`` and ``label``; the model is logistic regression.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore", category=UserWarning)  # Opacus: secure mode is off; torch: hooks
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train from the parameters that came, and answer with new ones and metrics."""
    config: Any = message.content["config"]
    rows = read_rows(str(context.node_config["tables"]).split(":"), str(config["sample"]))
    model = nn.Linear(rows.tensors[0].shape[-1], 1)
    arrays: Any = message.content["arrays"]
    model.load_state_dict(arrays.to_torch_state_dict())
    loader: Any = DataLoader(rows, batch_size=int(config["batch-size"]))
    optimiser: Any = torch.optim.SGD(model.parameters(), lr=float(config["learning-rate"]))
    private: Any = model
    if config["noise"]:
        engine = PrivacyEngine(accountant="rdp")
        private, optimiser, loader = engine.make_private(
            module=model, optimizer=optimiser, data_loader=loader, noise_multiplier=float(config["noise"]),
            max_grad_norm=float(config["clip-norm"]),
        )  # fmt: skip
    losses = []
    for _ in range(int(config["local-epochs"])):
        for features, labels, weights in loader:
            optimiser.zero_grad()
            loss = of_samples(private(features).squeeze(-1), labels, weights)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    # Flower's own central privacy takes equal weights alone.
    weight = 1 if config.get("equal-weights") else len(rows)
    metrics = {"num-examples": weight, "loss": float(np.mean(losses))}
    if config["noise"]:
        metrics["epsilon"] = engine.get_epsilon(float(config["delta"]))
    reply = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=reply, reply_to=message)


def of_samples(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean loss over samples [n] or, where a sample is a patient, over patients' weighted rows [n, R]."""
    losses = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none") * weights
    return losses.sum() / max(1, len(losses))


def read_rows(tables: list[str], sample: str) -> TensorDataset:
    """Features, labels and weights by row, or by patient, padded with rows of weight 0."""
    found = pq.read_table(tables).to_pandas()
    found = found[found["label"].notna()]
    columns = [name for name in found.columns if name.startswith("f_")]
    if sample == "row":
        values = (found[columns].to_numpy(), found["label"].to_numpy(), np.ones(len(found)))
        return TensorDataset(*(torch.tensor(value, dtype=torch.float32) for value in values))
    patients = [own for _, own in found.groupby("patient")]
    most = max(map(len, patients))
    features = torch.zeros(len(patients), most, len(columns))
    labels, weights = torch.zeros(len(patients), most), torch.zeros(len(patients), most)
    for place, own in enumerate(patients):
        features[place, : len(own)] = torch.tensor(own[columns].to_numpy())
        labels[place, : len(own)] = torch.tensor(own["label"].to_numpy(dtype=np.float32))
        weights[place, : len(own)] = 1 / len(own)
    return TensorDataset(features, labels, weights)


def noise_for(epsilon: float, delta: float, samples: int, config: ConfigRecord, *, messages: int) -> float:
    """Opacus' noise multiplier with which so many messages together cost ``epsilon`` at a site."""
    steps_an_epoch = -(-samples // int(config["batch-size"]))  # type: ignore[arg-type]
    return float(
        get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=1 / steps_an_epoch, accountant="rdp",
            steps=messages * int(config["local-epochs"]) * steps_an_epoch,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def serve(grid: Any, features: int, config: ConfigRecord, *, rounds: int, strategy: Any = None) -> Any:
    """The ServerApp's main: FedAvg from zeros; returns Flower's Result."""
    start = nn.Linear(features, 1)
    nn.init.zeros_(start.weight)
    nn.init.constant_(start.bias, 1.386)
    chosen = strategy or FedAvg(fraction_evaluate=0.0)
    return chosen.start(grid, ArrayRecord(start.state_dict()), num_rounds=rounds, train_config=config)
