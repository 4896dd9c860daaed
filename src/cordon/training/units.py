"""A site's labelled rows by privacy unit: whose whole contribution one epsilon bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cordon.arrays import Singles
from cordon.errors import UserError
from cordon.privacy.grouping import UNITS, other_ids

if TYPE_CHECKING:
    from cordon.training.rows import Rows


@dataclass(frozen=True)
class Units:
    """Labelled rows, grouped by privacy unit.

    ``features`` float32 [rows, F], a model's inputs (`cordon.variants.table.inputs`,
    `cordon.training.rows`), and ``labels`` float32 [rows] in {0, 1} are both sorted by unit; ``u`` owns
    the rows ``offsets[u]:offsets[u + 1]``. ``unit`` is what they are units of, one of UNITS: a plan by
    another one cannot train on them. Unit u is of the patient ``patients[owners[u]]``, who goes by the
    ids in ``also``, too; where no patients are named, nobody's spending is told from that of others.
    """

    features: Rows
    labels: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    unit: str
    patients: tuple[str, ...] = ()
    owners: npt.NDArray[np.int64] | None = None
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        names = tuple(sorted(set(patients)))
        places = {name: place for place, name in enumerate(names)}
        whose = np.fromiter((places[name] for name in patients), np.int64, len(labels))
        return cls._grouped(features, labels, names, whose, unit)

    @classmethod
    def _grouped(
        cls, features: Rows, labels: Singles, names: tuple[str, ...], whose: npt.NDArray[np.int64], unit: str
    ) -> Units:
        """`group`, of rows that are each of the patient ``names[whose]``; rows in order are not copied."""
        if len(labels) == 0:
            raise UserError(
                "no labelled variants to train on. Give truth_vcf and confident_bed for the site's "
                "train samples, and check that the confident regions hold calls."
            )
        if unit not in UNITS:
            raise UserError(f"no privacy unit is called {unit!r}. Choose one of: {', '.join(UNITS)}.")
        codes = whose if unit == "patient" else np.arange(len(labels))
        owners = np.arange(len(names)) if unit == "patient" else whose
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        if (np.diff(codes) < 0).any():
            order = np.argsort(codes, kind="stable")
            features, labels = features.take(order, 0), labels[order]
        return cls(features, labels, offsets, unit, names, owners)

    @classmethod
    def read(
        cls, paths: Sequence[Path], *, unit: str, architecture: str = "mlp",
        one_id: Mapping[str, str] | None = None,
    ) -> Units:  # fmt: skip
        """The labelled rows of the variant tables at ``paths``, grouped by ``unit``, for ``architecture``.

        ``one_id`` has the id that patients go by who are one person (`cordon.variants.same_person`).
        """
        from cordon.training.rows import read_rows

        ids = one_id or {}
        rows = read_rows(paths, architecture, ids, by_patient=unit == "patient")
        units = cls._grouped(*rows, unit)
        return replace(units, also=other_ids(ids))

    def of(self, patients: Collection[str]) -> Units:
        """The units of ``patients`` alone."""
        known = np.array([name in patients for name in self.patients], dtype=bool)
        if self.owners is None or known.all():
            return self
        kept = known[self.owners]
        sizes = np.diff(self.offsets)
        return replace(
            self,
            features=self.features.take(np.flatnonzero(np.repeat(kept, sizes)), 0),
            labels=self.labels[np.repeat(kept, sizes)],
            offsets=np.concatenate([[0], np.cumsum(sizes[kept])]),
            owners=self.owners[kept],
        )

    def require(self, unit: str) -> None:
        """UserError where these are units of another kind: what one of them costs would be told wrongly."""
        if self.unit != unit:
            raise UserError(
                f"these rows are grouped by {self.unit}, and one {unit} is to be protected. Group them by it."
            )
