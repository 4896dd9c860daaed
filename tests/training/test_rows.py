"""Tests of cordon.training.rows: what a site trains on, sorted by patient, on disk."""

import errno
import os

import numpy as np
import pyarrow as pa
import pytest

from conftest import table_row
from cordon.errors import UserError
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Rows 0 to 7 (as f_depth) of the patients b, a and c in two tables; rows 2 and 5 have no label."""
    labels = [1, 0, None, 1, 0, None, 1, 0]
    rows = [
        table_row(patient=patient, position=n, label=label, f_depth=float(n))
        for n, (patient, label) in enumerate(zip("babcabca", labels, strict=True))
    ]
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path, part in zip(paths, (rows[:3], rows[3:]), strict=True):
        write_table(pa.Table.from_pylist(part, schema=LABELLED), path)
    monkeypatch.chdir(tmp_path)
    return paths


def depths(units):
    return units.features[:, FEATURES.index("f_depth")].tolist()


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_rows_come_by_patient_in_the_tables_order_whatever_the_row_groups(tables, monkeypatch, rows):
    monkeypatch.setattr("cordon.variants.table.BATCH_ROWS", rows)
    units = Units.read(tables, unit="patient")
    assert units.patients == ("a", "b", "c")
    assert (depths(units), units.offsets.tolist()) == ([1, 4, 7, 0, 3, 6], [0, 3, 4, 6])
    assert units.labels.tolist() == [0, 0, 0, 1, 1, 1]
    each = Units.read(tables, unit="variant")
    # Where each row is a unit they stand as they come, as the specification has them.
    assert (depths(each), each.owners.tolist()) == ([0, 1, 3, 4, 6, 7], [1, 0, 2, 0, 2, 0])


def test_the_rows_of_one_person_with_two_ids_stand_together(tables):
    units = Units.read(tables, unit="patient", one_id={"c": "a"})
    assert (units.patients, units.also) == (("a", "b"), {"a": ("c",)})
    assert (depths(units), units.offsets.tolist()) == ([1, 3, 4, 6, 7, 0], [0, 5, 6])


def test_features_are_the_pages_of_a_file_that_is_gone_and_may_not_be_changed(tables):
    units = Units.read(tables, unit="patient")
    assert sorted(path.name for path in tables[0].parent.iterdir()) == ["1.parquet", "2.parquet"]
    with open(f"/proc/{os.getpid()}/maps") as maps:
        assert any("deleted" in line and str(tables[0].parent) in line for line in maps)
    with pytest.raises(ValueError, match="read-only"):
        units.features[0, 0] = 1.0
    assert np.isfinite(units.features[np.array([[0, 1], [4, 5]])]).all()


def test_a_full_disk_is_told_with_the_folder_and_what_is_needed(tables, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    size = f"{6 * len(FEATURES) * 4:,}"
    with pytest.raises(UserError, match=rf"{tables[0].parent}: no room for {size} bytes .*No space left"):
        Units.read(tables, unit="patient")
