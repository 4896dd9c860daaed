"""A site's labelled rows by privacy unit: whose whole contribution one epsilon bounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cordon.errors import UserError

if TYPE_CHECKING:
    from cordon.rows import Rows

UNITS = ("patient", "variant")
# Delta is the probability that a whole unit may be released: times a site's declared units, it is refused
# above the one, and somebody should know above the other.
MOST_DELTA, USUAL_DELTA = 0.1, 1e-3


@dataclass(frozen=True)
class Grouping:
    """How rows become units: by which unit, for which model, and the most rows that a step takes of one.

    All of it is public, and so is ``declared``, the units that the site's owner declared.
    """

    unit: str
    model: str
    most_rows: int
    declared: int

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Units:
    """Labelled rows, grouped by privacy unit.

    ``features`` float32 [rows, F], a model's inputs (`cordon.tables.inputs`, `cordon.rows`), and ``labels``
    float32 [rows] in {0, 1} are both sorted by unit; ``u`` owns the rows ``offsets[u]:offsets[u + 1]``.
    ``unit`` is what they are units of, one of UNITS: a plan by another one cannot train on them.
    """

    features: Rows
    labels: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    unit: str

    def __post_init__(self) -> None:
        if self.unit == "variant" and len(self) != len(self.labels):
            raise UserError(
                f"{len(self.labels)} rows in {len(self)} units: with the unit variant each row is one. Group "
                "the rows by it."
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def group(
        cls,
        features: Rows,
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
        return cls(features.take(order, 0), labels[order], offsets, unit)

    @classmethod
    def read(
        cls, paths: Sequence[Path], *, unit: str, architecture: str = "mlp",
        one_id: Mapping[str, str] | None = None,
    ) -> Units:  # fmt: skip
        """The labelled rows of the variant tables at ``paths``, grouped by ``unit``, for ``architecture``.

        ``one_id`` has the id that patients go by who are one person (`cordon.same_person`).
        """
        from cordon.rows import read_rows

        features, labels, patients = read_rows(paths, architecture)
        ids = one_id or {}
        return cls.group(features, labels, [ids.get(patient, patient) for patient in patients], unit=unit)

    def require(self, unit: str) -> None:
        """UserError where these are units of another kind: what one of them costs would be told wrongly."""
        if self.unit != unit:
            raise UserError(
                f"these rows are grouped by {self.unit}, and one {unit} is to be protected. Group them by it."
            )
