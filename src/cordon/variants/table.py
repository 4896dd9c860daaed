"""Variant tables: what one sample's candidate alleles look like as Parquet, read and written safely."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cordon.calls.callers import CALLERS
from cordon.errors import UserError
from cordon.files import written_beside
from cordon.steps import Tick
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import SIZE, WITH_IMAGES

SCHEMA_VERSION = b"2"
VERSION_KEY = b"cordon.schema"
TRUTH_ALLELES_KEY = b"cordon.truth_alleles"
TRUTH_FOUND_KEY = b"cordon.truth_found"

# Rows of one row group: with 60 columns about 10 MB in memory.
BATCH_ROWS = 1 << 16
# With images: 40 MB, and four times as much as a model's inputs.
IMAGE_ROWS = 1 << 12

_IDENTITY = [
    pa.field("site", pa.string(), nullable=False),
    pa.field("patient", pa.string(), nullable=False),  # patient and sample are salted pseudonyms
    pa.field("sample", pa.string(), nullable=False),
    pa.field("contig", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("ref", pa.string(), nullable=False),
    pa.field("alt", pa.string(), nullable=False),
    pa.field("callers", pa.string(), nullable=False),
]
# What accuracy is told apart by (cordon.variants.strata); never an input of the model, and never sent.
_STRATA = [
    pa.field("variant_type", pa.string(), nullable=False),
    pa.field("context", pa.string(), nullable=False),
    pa.field("zygosity", pa.string(), nullable=False),
    pa.field("allele_frequency", pa.float32()),
]
_CALLS = [
    field
    for caller in CALLERS
    for field in (
        pa.field(f"{caller}_qual", pa.float32()),
        pa.field(f"{caller}_qd", pa.float32()),
        pa.field(f"{caller}_pass", pa.bool_()),
    )
]
_FEATURES = [pa.field(name, pa.float32(), nullable=False) for name in FEATURES]

VARIANTS = pa.schema([*_IDENTITY, *_STRATA, *_CALLS, *_FEATURES], metadata={VERSION_KEY: SCHEMA_VERSION})
LABELLED = VARIANTS.append(pa.field("label", pa.int8()))
# The optional last column, for models that look at the reads: `cordon.variants.pileup_images`, flattened.
PILEUP = pa.field("pileup", pa.binary(SIZE), nullable=False)
WANTED = "encode the variants with --pileups (in the pipeline: --model pileup_cnn)"


def for_model(schema: pa.Schema, architecture: str) -> pa.Schema:
    """``schema`` with all that `inputs` needs of a table for ``architecture``."""
    return schema.append(PILEUP) if architecture in WITH_IMAGES else schema


def schema_of(path: str | os.PathLike[str]) -> pa.Schema:
    """LABELLED where the file at ``path`` has labels, else VARIANTS."""
    return LABELLED if "label" in _columns(path) else VARIANTS


def with_images_of(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Schema:
    """``schema``, with the images where the file at ``path`` has them."""
    return schema.append(PILEUP) if PILEUP.name in _columns(path) else schema


def without_features(schema: pa.Schema) -> pa.Schema:
    """``schema`` but for the model's inputs, which are most of a table and no part of what became of it."""
    return pa.schema([field for field in schema if field.name not in FEATURES], metadata=schema.metadata)


def read_table(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Read a variant table and check it against ``schema`` (VARIANTS or LABELLED, maybe with PILEUP).

    Columns come back in the schema's order; columns beyond it are left out, the file's metadata kept.
    Raises UserError naming the file when it is no Parquet, of another version, lacks a column, has one
    of another type, or has a null where the schema allows none.
    """
    with _opened(path) as file:
        return _checked(file.read(_present(file, schema)), path, schema)


def _columns(path: str | os.PathLike[str]) -> list[str]:
    with _opened(path) as file:
        names: list[str] = file.schema_arrow.names
    return names


def _present(file: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    """The columns of ``schema`` that the file has: no other one is read, and images are most of a table."""
    return [name for name in schema.names if name in file.schema_arrow.names]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}). Make it again.") from error


def _checked(table: pa.Table, path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    version = (table.schema.metadata or {}).get(VERSION_KEY)
    if version != SCHEMA_VERSION:
        found = version.decode() if version else "none"
        raise UserError(
            f"{path}: variant table of schema {found}, this version reads {SCHEMA_VERSION.decode()}. "
            "Make it again with encode_variants."
        )
    faults = list(_faults(table, schema))
    if faults:
        raise UserError(
            f"{path}: not the expected variant table: {'; '.join(faults)}. Make it again with this version."
        )
    metadata = table.schema.metadata
    return table.select(schema.names).cast(schema.with_metadata(metadata))


def rows_of(path: str | os.PathLike[str]) -> int:
    """The number of rows, as the file's footer says."""
    with _opened(path) as file:
        rows: int = file.metadata.num_rows
    return rows


def read_batches(
    path: str | os.PathLike[str], schema: pa.Schema, tick: Tick | None = None
) -> Iterator[pa.Table]:
    """The table of `read_table` a row group at a time, each with the file's metadata.

    ``tick`` is called with the rows of each when the next one is asked for.
    """
    with _opened(path) as file:
        if not file.num_row_groups:
            yield _checked(file.schema_arrow.empty_table(), path, schema)
        for group in range(file.num_row_groups):
            batch = _checked(file.read_row_group(group, _present(file, schema)), path, schema)
            yield batch
            if tick is not None:
                tick(batch.num_rows)


def write_table(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a table as Parquet; the file appears whole or not at all."""
    write_batches(path, table.schema, [table])


def write_batches(
    path: str | os.PathLike[str],
    schema: pa.Schema,
    batches: Iterable[pa.Table],
    metadata: Mapping[bytes, bytes] | None = None,
) -> int:
    """Write tables one after the other as Parquet, a row group each; returns the number of rows.

    ``metadata`` is read after the last batch, so that it may be filled while they are made; it is added to
    the schema's. The file appears whole or not at all.
    """
    rows, most = 0, IMAGE_ROWS if PILEUP.name in schema.names else BATCH_ROWS
    with (
        written_beside(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            if batch.num_rows:
                writer.write_table(batch.cast(schema), row_group_size=most)
                rows += batch.num_rows
        writer.add_key_value_metadata(dict(metadata or {}))
    return rows


def matrix(table: pa.Table) -> NDArray[np.float32]:
    """The features of a table as float32 [rows, len(FEATURES)], columns in the order of FEATURES."""
    if table.num_rows == 0:
        return np.empty((0, len(FEATURES)), dtype=np.float32)
    columns = [table.column(name).to_numpy() for name in FEATURES]
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)


def inputs(table: pa.Table, architecture: str) -> NDArray[np.float32]:
    """What ``architecture`` takes of each row, float32 [rows, F]: `matrix`, then any image in [0, 1].

    Raises UserError where it needs images and the table has none.
    """
    if architecture not in WITH_IMAGES:
        return matrix(table)
    if PILEUP.name not in table.schema.names:
        raise UserError(
            f"the table lacks the pileup images that {architecture} looks at. For them, {WANTED}."
        )
    return joined(matrix(table), pixels(table))


def pixels(table: pa.Table) -> NDArray[np.uint8]:
    """The images of a table, uint8 [rows, SIZE]."""
    found = [np.empty((0, SIZE), dtype=np.uint8)]
    for chunk in table.column(PILEUP.name).chunks:
        held = np.frombuffer(chunk.buffers()[1] or b"", dtype=np.uint8)
        found.append(held[chunk.offset * SIZE : (chunk.offset + len(chunk)) * SIZE].reshape(-1, SIZE))
    return np.concatenate(found)


def joined(features: NDArray[np.float32], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features [..., F] and behind them images [..., SIZE] in [0, 1], float32 [..., F + SIZE]."""
    columns = features.shape[-1]
    found = np.empty((*features.shape[:-1], columns + SIZE), dtype=np.float32)
    found[..., :columns] = features
    np.multiply(images, np.float32(1 / 255), out=found[..., columns:])
    return found


def _faults(table: pa.Table, schema: pa.Schema) -> Iterator[str]:
    """What keeps ``table`` from being one of ``schema``, one sentence part a fault."""
    for field in schema:
        if field.name == PILEUP.name and field.name not in table.schema.names:
            yield f"it lacks the pileup images that the model looks at: {WANTED}"
            continue
        if field.name not in table.schema.names:
            yield f"column {field.name} is missing"
            continue
        column = table.column(field.name)
        if column.type != field.type:
            yield f"column {field.name} is {column.type}, not {field.type}"
        elif not field.nullable and column.null_count:
            yield f"column {field.name} has {column.null_count} empty values"
