"""Tests of cordon.variants.table."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import table_row as row
from cordon.errors import UserError
from cordon.files import written_beside
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import SIZE
from cordon.variants.table import (
    IMAGE_ROWS,
    LABELLED,
    PILEUP,
    VARIANTS,
    for_model,
    inputs,
    matrix,
    read_batches,
    read_table,
    schema_of,
    with_images_of,
    write_table,
)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    table = pa.Table.from_pylist([row(), row(position=2)], schema=VARIANTS)
    write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", VARIANTS).equals(table, check_metadata=True)
    assert read_table(tmp_path / "a.parquet", VARIANTS).num_columns == len(VARIANTS)


def test_labels_and_their_metadata_are_kept(tmp_path):
    schema = LABELLED.with_metadata({**LABELLED.metadata, b"cordon.truth_alleles": b"7"})
    table = pa.Table.from_pylist([row(label=1), row(label=None)], schema=schema)
    write_table(table, tmp_path / "a.parquet")
    again = read_table(tmp_path / "a.parquet", LABELLED)
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
        read_table(tmp_path / "text.parquet", VARIANTS)


def test_the_matrix_has_the_features_in_order():
    table = pa.Table.from_pylist([row(**{FEATURES[3]: 2.0})], schema=VARIANTS)
    values = matrix(table)
    assert values.dtype == np.float32
    assert values.shape == (1, len(FEATURES))
    assert values[0, 3] == 2.0
    assert matrix(VARIANTS.empty_table()).shape == (0, len(FEATURES))


def with_images(count):
    """A labelled table whose row n has an image of n alone."""
    rows = [row(position=n + 1, label=n % 2, pileup=bytes([n % 256]) * SIZE) for n in range(count)]
    return pa.Table.from_pylist(rows, schema=for_model(LABELLED, "pileup_cnn"))


def test_images_come_back_where_they_are_asked_for(tmp_path):
    table = with_images(3)
    write_table(table, path := tmp_path / "a.parquet")
    assert read_table(path, for_model(LABELLED, "pileup_cnn")).equals(table, check_metadata=True)
    assert read_table(path, for_model(LABELLED, "mlp")).equals(table.drop_columns(["pileup"]))
    assert "pileup" not in read_table(path, VARIANTS).schema.names
    assert schema_of(path).equals(LABELLED)
    assert with_images_of(path, VARIANTS).equals(VARIANTS.append(PILEUP))
    write_table(table.drop_columns(["pileup", "label"]), path)
    assert with_images_of(path, VARIANTS).equals(VARIANTS)
    assert schema_of(path).equals(VARIANTS)


def test_a_models_inputs_are_the_features_and_behind_them_the_image_in_0_to_1():
    table = with_images(256)
    table = pa.concat_tables([table.slice(3, 7), table.slice(200)])  # chunks that begin within their buffer
    values = inputs(table, "pileup_cnn")
    assert values.dtype == np.float32
    assert values.shape == (63, len(FEATURES) + SIZE)
    assert np.array_equal(values[:, : len(FEATURES)], matrix(table))
    shown = np.array([*range(3, 10), *range(200, 256)], dtype=np.float32)
    assert np.allclose(values[:, len(FEATURES) :], shown[:, None] / 255, rtol=0, atol=1e-6)
    assert inputs(table.slice(0, 0), "pileup_cnn").shape == (0, len(FEATURES) + SIZE)
    assert np.array_equal(inputs(table, "mlp"), matrix(table))


def test_a_table_without_images_is_refused_where_a_model_looks_at_them(tmp_path):
    table = pa.Table.from_pylist([row(label=1)], schema=LABELLED)
    write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: .*lacks the pileup images .*encode .* with --pileups"):
        read_table(tmp_path / "a.parquet", for_model(LABELLED, "pileup_cnn"))
    with pytest.raises(UserError, match=r"pileup_cnn looks at\. For them, encode .* with --pileups"):
        inputs(table, "pileup_cnn")
    odd = table.append_column("pileup", pa.array([bytes(7)], pa.binary(7)))
    write_table(odd, tmp_path / "odd.parquet")
    with pytest.raises(UserError, match=r"column pileup is fixed_size_binary\[7\], not"):
        read_table(tmp_path / "odd.parquet", for_model(LABELLED, "pileup_cnn"))


def test_a_table_with_images_is_written_and_read_a_few_thousand_rows_at_a_time(tmp_path):
    table = pa.concat_tables([with_images(2)] * (IMAGE_ROWS // 2 + 1))
    write_table(table, tmp_path / "a.parquet")
    batches = read_batches(tmp_path / "a.parquet", for_model(LABELLED, "pileup_cnn"))
    assert [batch.num_rows for batch in batches] == [IMAGE_ROWS, 2]


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
