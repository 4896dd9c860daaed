#!/usr/bin/env python3
"""How fast one private step is, beside other ways to make it and beside a plain step.

    python benchmarks/throughput.py --threads 1 --json > throughput.json

The paths take turns on the same batch, model and threads in one process, and each is given by its median.
A step is forward, backward, clipping, noise and change of the parameters; ``cordon_sampled`` also draws the
Poisson sample and gathers its rows, which the others are given. In patient mode a unit has ``--rows`` rows.
Memory is measured in a process of its own for each path.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from cordon.model.architectures import ARCHITECTURES, build, flattened
from cordon.model.devices import device, thread_count
from cordon.privacy.clipping import Clip, PrivateMean
from cordon.privacy.gradients import Block, unit_gradients
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import block_shape, draw
from cordon.training.optimisers import SGD
from cordon.training.settings import DPSGD
from cordon.training.units import Units
from cordon.variants.pileup_images import WITH_IMAGES

FEATURES = 45
# The other paths take features alone.
DENSE = tuple(name for name in ARCHITECTURES if name not in WITH_IMAGES)
CLIP, NOISE, RATE = 1.0, 1.0, 0.1
# Of a population of so many batches, one in so many units is sampled.
POPULATION = 10
# In each turn a path makes some steps, as training does one after the other, and the first do not count.
WARM, TIMED = 2, 5
Step = Callable[[], object]


@dataclass(frozen=True)
class Batch:
    """Features [units, rows, F], labels and weights [units, rows]; a unit's weights sum to one."""

    features: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    unit: str

    @classmethod
    def random(cls, size: int, rows: int, unit: str) -> Batch:
        """A batch of ``size`` rows in units of ``rows``."""
        source = torch.Generator().manual_seed(0)
        shape = (max(1, size // rows), rows)
        features = torch.randn(*shape, FEATURES, generator=source).to(device())
        labels = (torch.rand(shape, generator=source) > 0.5).float().to(device())
        return cls(features, labels, torch.full_like(labels, 1 / rows), unit)

    @property
    def settings(self) -> DPSGD:
        units, rows = self.labels.shape
        return DPSGD(NOISE, 1 / POPULATION, 1, CLIP, RATE, float(units), rows)

    def loss(self, module: nn.Module) -> torch.Tensor:
        """Each unit's loss, [units]."""
        logits = module(self.features)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, self.labels, reduction="none")
        return (losses * self.weights).sum(1)


def plain_sgd(module: nn.Module, batch: Batch) -> Step:
    optimiser = torch.optim.SGD(module.parameters(), lr=RATE)

    def step() -> None:
        optimiser.zero_grad()
        batch.loss(module).mean().backward()
        optimiser.step()

    return step


def cordon(module: nn.Module, batch: Batch, *, sampled: bool = False) -> Step:
    settings, random = batch.settings, Randomness()
    gradients = unit_gradients(module, FEATURES)
    mean = PrivateMean(
        gradients, Clip(CLIP, NOISE), mechanism=settings.mechanism, per_layer=False, random=random,
        expected_batch=settings.expected_batch,
    )  # fmt: skip
    optimiser, shape = SGD(RATE, 0.0), block_shape(settings, gradients.most_rows)
    whole = Units(
        batch.features.cpu().flatten(0, 1).repeat(POPULATION if sampled else 1, 1).numpy(),
        batch.labels.cpu().flatten().repeat(POPULATION if sampled else 1).numpy(),
        np.arange(0, batch.labels.numel() * (POPULATION if sampled else 1) + 1, batch.labels.shape[1]),
        settings.unit,
    )
    blocks = [] if sampled else cut(batch, shape)
    position = flattened(module)
    moved = position.double().cpu()

    def step() -> None:
        drawn = draw(whole, settings, random, shape) if sampled else blocks
        moved.add_(optimiser.change(*mean.release(drawn, len(moved))))
        position.copy_(moved)

    return step


def cut(batch: Batch, shape: tuple[int, int]) -> list[Block]:
    """The batch as padded blocks, as `cordon.training.dpsgd.draw` gives them."""
    blocks = []
    for first in range(0, len(batch.labels), shape[0]):
        parts = [x[first : first + shape[0]] for x in (batch.features, batch.labels, batch.weights)]
        units = len(parts[0])
        padded = [
            torch.cat([part, part.new_zeros(shape[0] - units, *part.shape[1:])]) if units < shape[0] else part
            for part in parts
        ]
        blocks.append(Block(padded[0], padded[1], padded[2], units))
    return blocks


def cordon_sampled(module: nn.Module, batch: Batch) -> Step:
    return cordon(module, batch, sampled=True)


def opacus_hooks(module: nn.Module, batch: Batch) -> Step:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    private = GradSampleModule(module, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(private.parameters(), lr=RATE), noise_multiplier=NOISE, max_grad_norm=CLIP,
        expected_batch_size=len(batch.labels), loss_reduction="mean",
    )  # fmt: skip
    seen = Batch(batch.features.clone().requires_grad_(), batch.labels, batch.weights, batch.unit)

    def step() -> None:
        optimiser.zero_grad()
        seen.loss(private).sum().backward()
        optimiser.step()

    return step


def opacus_ghost(module: nn.Module, batch: Batch) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping

    private = GradSampleModuleFastGradientClipping(
        module, loss_reduction="sum", max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimiser = DPOptimizerFastGradientClipping(
        torch.optim.SGD(private.parameters(), lr=RATE), noise_multiplier=NOISE, max_grad_norm=CLIP,
        expected_batch_size=len(batch.labels), loss_reduction="mean",
    )  # fmt: skip
    seen = Batch(batch.features.clone().requires_grad_(), batch.labels, batch.weights, batch.unit)

    def step() -> None:
        # The two backward passes of Opacus' own loss, whose mean over a unit's rows knows no weights.
        optimiser.zero_grad()
        losses = seen.loss(private)
        losses.sum().backward(retain_graph=True)
        optimiser.zero_grad()
        factors = private.get_clipping_coef()
        private.disable_hooks()
        (factors * losses).sum().backward()
        private.enable_hooks()
        optimiser.step()

    return step


def functorch(module: nn.Module, batch: Batch) -> Step:
    from torch.func import functional_call, grad, vmap

    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def loss(values: dict[str, torch.Tensor], *unit: torch.Tensor) -> torch.Tensor:
        features, labels, weights = unit
        logits = functional_call(module, values, (features,))
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (losses * weights).sum()

    per_unit = vmap(grad(loss), in_dims=(None, 0, 0, 0))

    def step() -> None:
        gradients = per_unit(parameters, batch.features, batch.labels, batch.weights)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = (CLIP / norms).clamp(max=1.0)
        for name, gradient in gradients.items():
            summed = torch.einsum("u,u...->...", factors, gradient)
            noisy = summed + NOISE * CLIP * torch.randn_like(summed)
            parameters[name].sub_(RATE * noisy / len(batch.labels))  # the module's own memory

    return step


PATHS: dict[str, Callable[[nn.Module, Batch], Step]] = {
    "sgd": plain_sgd,
    "cordon": cordon,
    "cordon_sampled": cordon_sampled,
    "opacus_hooks": opacus_hooks,
    "opacus_ghost": opacus_ghost,
    "functorch": functorch,
}


@dataclass(frozen=True)
class Row:
    """One path on one batch of ``batch`` rows; ``samples_per_s`` counts rows.

    ``peak_step_mb`` (MiB) is what the steps add to the process at their peak, ``peak_ratio_to_sgd`` compares
    whole processes.
    """

    path: str
    unit: str
    model: str
    batch: int
    samples_per_s: float
    ratio_to_sgd: float
    peak_step_mb: float
    peak_ratio_to_sgd: float


def medians(paths: list[str], model: str, batch: Batch, repeats: int) -> dict[str, float]:
    """Median seconds of a step by path; the paths take turns."""
    steps = {path: PATHS[path](build(model, FEATURES).to(device()), batch) for path in paths}
    times: dict[str, list[float]] = {path: [] for path in steps}
    for _ in range(repeats):
        for path, step in steps.items():
            for turn in range(WARM + TIMED):
                began = time.perf_counter()
                step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn >= WARM:
                    times[path].append(time.perf_counter() - began)
    return {path: float(np.median(values)) for path, values in times.items()}


def peak(path: str, model: str, size: int, rows: int, unit: str) -> tuple[float, float]:
    """Memory (MiB) of a process that makes a few steps, at its peak: above its start, and in all.

    On a GPU that is the memory of the host alone.
    """
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    PATHS[path](build(model, FEATURES).to(device()), Batch.random(16 * rows, rows, unit))()
    step = PATHS[path](build(model, FEATURES).to(device()), Batch.random(size, rows, unit))
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    before = resident("VmRSS")
    for _ in range(3):
        step()
    return resident("VmHWM") - before, resident("VmHWM")


def resident(field: str) -> float:
    """Resident memory of this process, MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


def measure(paths: list[str], unit: str, model: str, size: int, rows: int, repeats: int) -> list[Row]:
    """The paths, plain SGD among them, on one batch."""
    rows = rows if unit == "patient" else 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "opacus", "torch.func", "cordon.privacy.gradients"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        peaks = {path: pool.apply(peak, (path, model, size, rows, unit)) for path in paths}
    times = medians(paths, model, Batch.random(size, rows, unit), repeats)
    return [
        Row(
            path, unit, model, size, samples_per_s=size / times[path],
            ratio_to_sgd=times[path] / times["sgd"],
            peak_step_mb=peaks[path][0], peak_ratio_to_sgd=peaks[path][1] / peaks["sgd"][1],
        )
        for path in paths
    ]  # fmt: skip


@click.command()
@click.option("--models", default=",".join(DENSE), show_default=True)
@click.option("--batches", default="256,1024,8192", show_default=True, help="Rows in a batch.")
@click.option("--paths", default=",".join(PATHS), show_default=True, help="Beside plain SGD.")
@click.option("--units", default="variant,patient", show_default=True)
@click.option("--rows", default=64, show_default=True, help="Rows of a patient.")
@click.option("--threads", default=None, type=int, help="CPU threads (default: CORDON_THREADS, or torch's).")
@click.option("--repeats", default=20, show_default=True, help="Turns of each path, five steps a turn.")
@click.option("--json", "as_json", is_flag=True, help="A list of rows instead of lines.")
def main(
    models: str, batches: str, paths: str, units: str, rows: int, threads: int | None, repeats: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Print samples a second, time over plain SGD's, and memory, for each path, model and batch."""
    found: list[Row] = []
    chosen = ["sgd", *(path for path in PATHS if path != "sgd" and path in paths.split(","))]
    with thread_count(threads):
        for unit in units.split(","):
            for model in models.split(","):
                for size in batches.split(","):
                    cell = measure(chosen, unit, model, int(size), rows, repeats)
                    found += cell
                    for row in [] if as_json else cell:
                        click.echo(
                            f"{row.unit:8s} {row.model:8s} {row.batch:5d} {row.path:14s} "
                            f"{row.samples_per_s:12,.0f} samples/s  {row.ratio_to_sgd:6.2f} x SGD  "
                            f"{row.peak_step_mb:6.1f} MiB a step, {row.peak_ratio_to_sgd:.2f} x SGD's process"
                        )
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))


if __name__ == "__main__":
    main()
