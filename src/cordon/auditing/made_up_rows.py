"""Tables of made-up rows: what grouping, drawing and clipping can get wrong is in them, and nobody's data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cordon.federation.plan import Plan
from cordon.federation.site.participate import reading
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import SIZE
from cordon.variants.table import LABELLED, PILEUP, for_model, write_table

# Patients and how many rows each has: fewer and more than MOST_ROWS_OF_ONE, which a step takes of one.
ROWS = {"p0": 1, "p1": 2, "p2": 3, "p3": 4, "p4": 5, "p5": 7, "p6": 9, "p7": 1}
MOST_ROWS_OF_ONE = 4
# The last patient by name has rows of several samples and contigs, in two tables, under two ids, and more of
# them than any block of memory would suggest. The one before it has a number that is none.
LONG_ID, OTHER_ID, LONG_ROWS, OVERFLOWING = "z", "z-again", 100, "y"
ONE_ID = {OTHER_ID: LONG_ID}


def table_of(plan: Plan, rows: Mapping[str, int], seed: int = 1) -> pa.Table:
    """So many rows of each patient, with labels of both kinds and zeros, in no patient's order."""
    source = np.random.default_rng(seed)
    names = [name for name, count in rows.items() for _ in range(count)]
    made = [_row(name, number, plan, source) for number, name in enumerate(names)]
    return _table([made[place] for place in source.permutation(len(made))], plan)


def long_patient(plan: Plan) -> list[pa.Table]:
    """LONG_ROWS of one patient, in two tables; all of them pull the same way."""
    source = np.random.default_rng(3)
    rows = [_row(LONG_ID, number, plan, source) | {"label": 0} for number in range(LONG_ROWS)]
    for number, row in enumerate(rows):
        row |= {"sample": f"s{number % 3}", "contig": f"c{number % 2}"}
        row |= {name: abs(row[name]) / 2.0 for name in FEATURES}
        if number >= LONG_ROWS // 2:
            row["patient"] = OTHER_ID
    return [_table(part, plan) for part in (rows[: LONG_ROWS // 2], rows[LONG_ROWS // 2 :])]


def overflowing_patient(plan: Plan) -> pa.Table:
    """One patient of one row, whose gradient is not finite."""
    row = _row(OVERFLOWING, 0, plan, np.random.default_rng(4))
    return _table([row | {FEATURES[1]: float("inf")}], plan)


def units_of(tables: Sequence[pa.Table], plan: Plan) -> Units:
    """The units that a site reads from ``tables``, by the code that it reads them with."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.parquet" for number in range(len(tables))]
        for table, path in zip(tables, paths, strict=True):
            write_table(table, path)
        return reading(paths, ONE_ID)(plan)


def _row(name: str, number: int, plan: Plan, source: np.random.Generator) -> dict[str, Any]:
    values = np.where(source.random(len(FEATURES)) < 0.3, 0.0, source.normal(size=len(FEATURES)))
    row: dict[str, Any] = dict(zip(FEATURES, values.tolist(), strict=True))
    row |= {"patient": name, "position": number + 1, "label": int(source.random() < 0.6)}
    if PILEUP.name in for_model(LABELLED, plan.model).names:
        row[PILEUP.name] = source.bytes(SIZE)
    return row


def _table(rows: Sequence[Mapping[str, Any]], plan: Plan) -> pa.Table:
    schema = for_model(LABELLED, plan.model)
    columns = [
        pa.array(
            [row.get(field.name, None if field.nullable else "x") for row in rows], field.type
        )
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)
