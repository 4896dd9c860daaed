"""Variant tables: what one sample's candidate alleles look like as Parquet, read and written safely."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cordon.errors import UserError
from cordon.features import CALLERS, FEATURES

SCHEMA_VERSION = b"2"
VERSION_KEY = b"cordon.schema"
TRUTH_ALLELES_KEY = b"cordon.truth_alleles"
TRUTH_FOUND_KEY = b"cordon.truth_found"

# Rows of one row group: with 60 columns about 10 MB in memory.
BATCH_ROWS = 1 << 16

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
# What accuracy is told apart by (cordon.strata); never an input of the model, and never sent.
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


def read_table(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Read a variant table and check it against ``schema`` (VARIANTS or LABELLED).

    Columns come back in the schema's order; columns beyond it are left out, the file's metadata kept.
    Raises UserError naming the file when it is no Parquet, of another version, lacks a column, has one
    of another type, or has a null where the schema allows none.
    """
    return _checked(_read(path), path, schema)


def read_any(path: str | os.PathLike[str]) -> pa.Table:
    """`read_table` with LABELLED where the file has labels, else with VARIANTS."""
    table = _read(path)
    return _checked(table, path, LABELLED if "label" in table.schema.names else VARIANTS)


def _read(path: str | os.PathLike[str]) -> pa.Table:
    with _opened(path) as file:
        return file.read()


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


def read_batches(path: str | os.PathLike[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The table of `read_table` a row group at a time, each with the file's metadata."""
    with _opened(path) as file:
        if not file.num_row_groups:
            yield _checked(file.schema_arrow.empty_table(), path, schema)
        for group in range(file.num_row_groups):
            yield _checked(file.read_row_group(group), path, schema)


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
    rows = 0
    with (
        written_beside(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            if batch.num_rows:
                writer.write_table(batch.cast(schema), row_group_size=BATCH_ROWS)
                rows += batch.num_rows
        writer.add_key_value_metadata(dict(metadata or {}))
    return rows


def matrix(table: pa.Table) -> NDArray[np.float32]:
    """The features of a table as float32 [rows, len(FEATURES)], columns in the order of FEATURES."""
    if table.num_rows == 0:
        return np.empty((0, len(FEATURES)), dtype=np.float32)
    columns = [table.column(name).to_numpy() for name in FEATURES]
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the target's folder, moved onto the target when the block ends well.

    The temporary name keeps the target's suffixes, because writers choose the format by them.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        for made in sorted(Path(folder).iterdir(), key=lambda file: file == temporary):
            os.replace(made, target.parent / made.name)


def _faults(table: pa.Table, schema: pa.Schema) -> Iterator[str]:
    """What keeps ``table`` from being one of ``schema``, one sentence part a fault."""
    for field in schema:
        if field.name not in table.schema.names:
            yield f"column {field.name} is missing"
            continue
        column = table.column(field.name)
        if column.type != field.type:
            yield f"column {field.name} is {column.type}, not {field.type}"
        elif not field.nullable and column.null_count:
            yield f"column {field.name} has {column.null_count} empty values"
