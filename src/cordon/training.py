"""DP-SGD on a site's own rows: one privacy unit is one example of Opacus.

A unit's rows travel as one block [variants, features], so Opacus' per-example gradient is the unit's
whole gradient: it is clipped as one vector, whatever the number of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cordon.accountants import Event
from cordon.errors import UserError
from cordon.mechanisms import Randomness
from cordon.model import Parameters, build, check_parameters, load_parameters, parameters_of

if TYPE_CHECKING:
    import torch

UNITS = ("patient", "variant")


@dataclass(frozen=True)
class Units:
    """Labelled rows, grouped by privacy unit.

    ``features`` float32 [rows, F], ``labels`` float32 [rows] in {0, 1}, both sorted by unit;
    unit ``u`` owns the rows ``offsets[u]:offsets[u + 1]``.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def group(
        cls,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.float32],
        patients: Sequence[str],
        *,
        unit: str,
    ) -> Units:
        """Group rows by their own patient, or make every row a unit of its own.

        Raises UserError for another ``unit``, or where no row is labelled.
        """
        if len(labels) == 0:
            raise UserError(
                "no labelled variants to train on. Give truth_vcf and confident_bed for the site's "
                "train samples, and check that the confident regions hold calls."
            )
        if unit == "patient":
            _, codes = np.unique(np.asarray(patients), return_inverse=True)
        elif unit == "variant":
            codes = np.arange(len(labels))
        else:
            raise UserError(f"no privacy unit is called {unit!r}. Choose one of: {', '.join(UNITS)}.")
        order = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        return cls(features[order], labels[order], offsets)

    @classmethod
    def read(cls, paths: Sequence[Path], *, unit: str) -> Units:
        """The labelled rows of all the variant tables at ``paths``, grouped by ``unit``."""
        from cordon.tables import LABELLED, matrix, read_table

        if not paths:
            return cls.group(np.empty((0, 0), np.float32), np.empty(0, np.float32), [], unit=unit)
        tables = [read_table(path, LABELLED) for path in paths]
        labelled = [table.filter(table.column("label").is_valid()) for table in tables]
        return cls.group(
            np.concatenate([matrix(table) for table in labelled]),
            np.concatenate([table.column("label").to_numpy() for table in labelled]).astype(np.float32),
            [patient for table in labelled for patient in table.column("patient").to_pylist()],
            unit=unit,
        )


@dataclass(frozen=True)
class DPSGD:
    """The public settings of one round's training at a site.

    ``expected_batch`` normalises every step: sampling rate times the units that the site declared,
    never the number that it holds. ``max_variants`` bounds the rows drawn from a unit.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip_norm: float
    learning_rate: float
    expected_batch: float
    max_variants: int

    @property
    def event(self) -> Event:
        """What one run of these steps costs."""
        return Event(self.noise_multiplier, self.sampling_rate, self.steps)


def train(architecture: str, start: Parameters, units: Units, settings: DPSGD) -> Parameters:
    """The noisy change of the parameters after ``settings.steps`` steps of DP-SGD from ``start``.

    The result is private for one unit at the cost of ``settings.event`` (Abadi et al. 2016,
    arXiv:1607.00133, with Poisson sampling and a fixed normaliser), against whoever chose ``start``
    too. Raises UserError where ``start`` are no finite parameters of ``architecture``.
    """
    return descend(architecture, start, units, settings, Randomness())


def descend(
    architecture: str, start: Parameters, units: Units, settings: DPSGD, random: Randomness
) -> Parameters:
    """`train` with a given source of randomness, for tests: what comes of another one is not private."""
    import torch
    from opacus import GradSampleModule

    module = build(architecture, units.features.shape[1])
    try:
        check_parameters(start, expected=parameters_of(module))
    except ValueError as error:
        raise UserError(
            f"cannot train from this start: {error}. Use the same version of Cordon at sites and aggregator."
        ) from error
    load_parameters(module, start)
    # Sums in the module, so that the only normaliser is the optimiser's public expected batch.
    private = GradSampleModule(module, loss_reduction="sum")
    optimiser = _optimiser(private, settings, random)
    loss = torch.nn.BCEWithLogitsLoss(reduction="none")
    for _ in range(settings.steps):
        optimiser.zero_grad()
        block, labels, weights = _draw(units, settings, random)
        (loss(private(block), labels) * weights).sum().backward()
        optimiser.step()
    end = parameters_of(module)
    private.remove_hooks()
    return {name: end[name] - start[name] for name in start}


def _draw(
    units: Units, settings: DPSGD, random: Randomness
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A Poisson sample of units, padded: features [units, rows, F], labels and weights [units, rows].

    A unit's weights sum to one over the rows drawn from it and are zero on the padding, so its loss
    is the mean over those rows. The sample may be empty.
    """
    import torch

    sampled = random.poisson_sample(len(units), settings.sampling_rate)
    shape = (len(sampled), settings.max_variants)
    rows = np.zeros(shape, dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    for place, unit in enumerate(sampled):
        first, last = units.offsets[unit], units.offsets[unit + 1]
        rows[place] = first  # padding is the unit's own, and weighs nothing
        drawn = first + random.subset(int(last - first), settings.max_variants)
        rows[place, : len(drawn)] = drawn
        weights[place, : len(drawn)] = 1.0 / len(drawn)
    return (
        # Opacus' hooks see the gradient of a first layer only where its input has one too.
        torch.from_numpy(units.features[rows]).requires_grad_(),
        torch.from_numpy(units.labels[rows]),
        torch.from_numpy(weights),
    )


def _optimiser(private: Any, settings: DPSGD, random: Randomness) -> Any:
    """Opacus' DP optimiser over plain SGD, clipping in float64 and with its noise from ``random``."""
    import torch
    from opacus.optimizers import DPOptimizer

    class SecureOptimizer(DPOptimizer):  # type: ignore[misc]
        """Opacus' own secure mode needs a package that is no longer maintained."""

        def clip_and_accumulate(self) -> None:
            """Sum the units' clipped gradients; a unit whose gradient is not finite adds nothing.

            Parameters and features can be such that a gradient overflows; no noise would hide a NaN.
            In float64 the sum's own rounding (Casacuberta et al., CCS 2022) is far below
            the clip norm.
            """
            units = torch.cat([gradient.flatten(1) for gradient in self.grad_samples], dim=1).double()
            units = torch.where(units.isfinite().all(dim=1, keepdim=True), units, 0.0)
            norms = units.norm(dim=1, keepdim=True).clamp(min=self.max_grad_norm)
            summed = (units * (self.max_grad_norm / norms)).sum(dim=0)
            sizes = [parameter.numel() for parameter in self.params]
            for parameter, part in zip(self.params, summed.split(sizes), strict=True):
                parameter.summed_grad = part.view_as(parameter)

        def add_noise(self) -> None:
            deviation = self.noise_multiplier * self.max_grad_norm
            for parameter in self.params:
                noise = torch.from_numpy(random.normal(parameter.numel()) * deviation)
                parameter.grad = (parameter.summed_grad + noise.view_as(parameter)).to(parameter.dtype)

    return SecureOptimizer(
        torch.optim.SGD(private.parameters(), lr=settings.learning_rate),
        noise_multiplier=settings.noise_multiplier,
        max_grad_norm=settings.clip_norm,
        expected_batch_size=settings.expected_batch,
        loss_reduction="mean",
    )
