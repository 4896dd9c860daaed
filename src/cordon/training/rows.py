"""The labelled rows that a site trains on, which stay on disk until a row is drawn.

A genome has five million candidates: of each, memory holds its label and whose it is, some 40 bytes in all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cordon.arrays import Singles
from cordon.errors import UserError
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
# What is read first, to sort by.
_WHOSE = pa.schema([LABELLED.field("patient"), LABELLED.field("label")], metadata=LABELLED.metadata)


def read_rows(
    paths: Sequence[Path], architecture: str, one_id: Mapping[str, str], *, by_patient: bool
) -> tuple[Rows, Singles, tuple[str, ...], NDArray[np.int64]]:
    """The labelled rows of the tables at ``paths``: as they come, or ``by_patient`` in their names' order.

    ``one_id`` has another id for some patients. Features (180 bytes a row) and images (10 kB, 39 kB as
    float32) are in files without a name in the working folder. UserError where they do not fit there.

    Returns: what ``architecture`` takes of each row, labels [n], the patients' names, and whose rows they
    are [n].
    """
    labels, whose, codes = [np.empty(0, np.float32)], [np.empty(0, np.int64)], dict[str, int]()
    for batch in _labelled(paths, _WHOSE):
        ids = batch["patient"].combine_chunks().dictionary_encode()
        own = [one_id.get(name, name) for name in ids.dictionary.to_pylist()]
        known = np.array([codes.setdefault(name, len(codes)) for name in own], dtype=np.int64)
        labels.append(batch["label"].to_numpy().astype(np.float32))
        whose.append(known[ids.indices.to_numpy()])
    names = tuple(sorted(codes))
    rank = np.empty(len(codes), np.int64)
    rank[[codes[name] for name in names]] = np.arange(len(names))
    held, owners = np.concatenate(labels), rank[np.concatenate(whose)]
    order = np.argsort(owners, kind="stable") if by_patient else np.arange(len(owners))
    features, images = _copied(paths, architecture, order)
    rows: Rows = features if images is None else ImageRows(features, images, order)
    return rows, held[order], names, owners[order]


def _labelled(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The labelled rows of the tables, a row group at a time."""
    for path in paths:
        for batch in read_batches(path, schema):
            yield batch.filter(batch["label"].is_valid())


def _copied(
    paths: Sequence[Path], architecture: str, order: NDArray[np.int64]
) -> tuple[Singles, NDArray[np.uint8] | None]:
    """Features float32 [n, F] of the rows in that ``order``, and images uint8 [n, SIZE] in their own."""
    count, looks = len(order), architecture in WITH_IMAGES
    features = _on_disk(count, len(FEATURES), np.dtype(np.float32))
    images = _on_disk(count, SIZE, np.dtype(np.uint8)) if looks else None
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    begin = 0
    for batch in _labelled(paths, for_model(LABELLED, architecture)):
        end = begin + batch.num_rows
        features[place[begin:end]] = matrix(batch)
        if images is not None:
            images[begin:end] = pixels(batch)
        begin = end
    for array in (features, images):
        if array is not None:
            array.flags.writeable = False
    return features, images


def _on_disk(rows: int, columns: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """An array [rows, columns] whose numbers are a file's, which is gone when the array is."""
    size = rows * columns * kind.itemsize
    if not size:
        return np.empty((rows, columns), kind)
    with tempfile.TemporaryFile(dir=".") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # later, a full disk would end the process unheard
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise UserError(
                f"{Path.cwd()}: no room for {size:,} bytes of labelled rows ({error.strerror}). Free some, "
                "or let the run's work folder be elsewhere (-work-dir)."
            ) from error
        return np.frombuffer(mmap(file.fileno(), size), dtype=kind).reshape(rows, columns)
