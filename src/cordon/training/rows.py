"""The labelled rows that a site trains on, with images that stay on disk until a row is drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cordon.arrays import Singles
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import SIZE, WITH_IMAGES
from cordon.variants.table import LABELLED, for_model, joined, matrix, pixels, read_batches


@dataclass(frozen=True)
class ImageRows:
    """Features float32 [n, F], and of each row the place [n] of its image among ``images`` uint8 [m, SIZE].

    Indexed like the array float32 [n, F + SIZE] that `cordon.variants.table.inputs` makes of as many rows.
    """

    features: Singles
    images: NDArray[np.uint8]
    places: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.features), self.features.shape[1] + SIZE

    def __getitem__(self, rows: NDArray[np.int64]) -> Singles:
        return joined(self.features[rows], self.images[self.places[rows]])

    def take(self, rows: NDArray[np.int64], axis: int) -> ImageRows:
        """The rows in another order, still without their images in memory; ``axis`` is 0, as numpy has it."""
        assert axis == 0
        return ImageRows(self.features[rows], self.images, self.places[rows])


Rows = Singles | ImageRows


def read_rows(paths: Sequence[Path], architecture: str) -> tuple[Rows, Singles, list[str]]:
    """What ``architecture`` takes, labels [n] and patients of the labelled rows of the tables at ``paths``.

    Images (10 kB a row, 39 kB as float32) are copied to a file without a name in the working folder.
    """
    features, labels = [np.empty((0, len(FEATURES)), np.float32)], [np.empty(0, np.float32)]
    patients: list[str] = []
    with tempfile.TemporaryFile(dir=".") as file:
        for path in paths:
            for batch in read_batches(path, for_model(LABELLED, architecture)):
                labelled = batch.filter(batch["label"].is_valid())
                features.append(matrix(labelled))
                labels.append(labelled["label"].to_numpy().astype(np.float32))
                patients += labelled["patient"].to_pylist()
                if architecture in WITH_IMAGES:
                    file.write(pixels(labelled).data)
        whole, known = np.concatenate(features), np.concatenate(labels)
        if architecture not in WITH_IMAGES or not len(known):
            return whole, known, patients
        file.flush()
        mapped = mmap(file.fileno(), 0, access=ACCESS_READ)  # outlives the file
    images = np.frombuffer(mapped, dtype=np.uint8).reshape(-1, SIZE)
    return ImageRows(whole, images, np.arange(len(whole))), known, patients
