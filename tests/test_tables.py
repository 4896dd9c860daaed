"""Tests of cordon.tables."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import table_row as row
from cordon.errors import UserError
from cordon.features import FEATURES
from cordon.tables import LABELLED, VARIANTS, matrix, read_any, read_table, write_table, written_beside


def test_a_table_comes_back_as_it_was_written(tmp_path):
    table = pa.Table.from_pylist([row(), row(position=2)], schema=VARIANTS)
    write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", VARIANTS).equals(table, check_metadata=True)
    assert read_any(tmp_path / "a.parquet").num_columns == len(VARIANTS)


def test_labels_and_their_metadata_are_kept(tmp_path):
    schema = LABELLED.with_metadata({**LABELLED.metadata, b"cordon.truth_alleles": b"7"})
    table = pa.Table.from_pylist([row(label=1), row(label=None)], schema=schema)
    write_table(table, tmp_path / "a.parquet")
    again = read_any(tmp_path / "a.parquet")
    assert again["label"].to_pylist() == [1, None]
    assert again.schema.metadata[b"cordon.truth_alleles"] == b"7"


def test_every_fault_of_a_table_is_named_at_once(tmp_path):
    table = pa.Table.from_pylist([row()], schema=VARIANTS)
    table = table.drop_columns(["f_depth"]).set_column(4, "position", pa.array(["1"]))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*position is string, not int64.*f_depth is missing"):
        read_table(tmp_path / "a.parquet", VARIANTS)


def test_other_versions_and_other_files_are_refused(tmp_path):
    table = VARIANTS.empty_table().replace_schema_metadata({b"cordon.schema": b"0"})
    pq.write_table(table, tmp_path / "old.parquet")
    with pytest.raises(UserError, match="schema 0, this version reads 2"):
        read_table(tmp_path / "old.parquet", VARIANTS)
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UserError, match="not a readable Parquet"):
        read_any(tmp_path / "text.parquet")


def test_the_matrix_has_the_features_in_order():
    table = pa.Table.from_pylist([row(**{FEATURES[3]: 2.0})], schema=VARIANTS)
    values = matrix(table)
    assert values.dtype == np.float32
    assert values.shape == (1, len(FEATURES))
    assert values[0, 3] == 2.0
    assert matrix(VARIANTS.empty_table()).shape == (0, len(FEATURES))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")

    def interrupted():
        with written_beside(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
