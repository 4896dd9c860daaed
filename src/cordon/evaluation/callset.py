"""What a set of calls looks like before and after each filter, with no truth needed.

These are exact counts of a site's samples: they are not differentially private and stay at the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cordon.arrays import Bools
from cordon.calls.callers import CALLERS
from cordon.evaluation.caller_scores import filters
from cordon.variants.context import TRANSITIONS
from cordon.variants.strata import SIZES, SNV, TYPES, Bins, agreements, size_bins
from cordon.variants.table import VARIANTS, read_table, without_features

# A purine for a purine or a pyrimidine for a pyrimidine. All other substitutions of one base transvert.

_SCORED = without_features(VARIANTS).append(pa.field("cordon_pass", pa.bool_()))
_NEEDED = [
    "site", "sample", "ref", "alt", "callers", "variant_type", "zygosity", "cordon_pass",
    *(f"{caller}_pass" for caller in CALLERS),
]  # fmt: skip


def read_scored(paths: Sequence[Path]) -> pa.Table:
    """What is described of scored tables (Parquet), one after another; UserError for one that is none."""
    tables = [read_table(path, _SCORED).select(_NEEDED).replace_schema_metadata(None) for path in paths]
    return pa.concat_tables(tables)


def describe(table: pa.Table) -> dict[str, Any]:
    """The content of callset.json: what callers agree on, and every filter's Ti/Tv and het/hom.

    ``ti_tv`` is transitions over transversions of SNVs, about 2.0 to 2.1 over a human genome and higher in
    exomes; false calls, which are near random, pull it towards 0.5. ``het_hom`` is heterozygous over
    homozygous alleles. Both are null without a denominator.
    """
    samples = pc.unique(pc.binary_join_element_wise(table["site"], table["sample"], "/"))
    kept = filters(table)
    columns = _Columns.of(table)
    return {
        "samples": len(samples),
        "alleles": table.num_rows,
        "callers": [_agreement(table, name, kept["cordon"]) for name in agreements(table)],
        "filters": [{"name": name, **_shape(columns, rows)} for name, rows in kept.items()],
    }


def _agreement(table: pa.Table, callers: str, passing: Bools) -> dict[str, Any]:
    rows = pc.equal(table["callers"], callers).to_numpy()
    return {"callers": callers.split(";"), "alleles": int(rows.sum()), "pass": int((rows & passing).sum())}


@dataclass(frozen=True)
class _Columns:
    """What each filter's alleles are counted by, [n] each: computed once for all filters."""

    types: NDArray[np.object_]
    zygosity: NDArray[np.object_]
    sizes: Bins
    transition: Bools

    @classmethod
    def of(cls, table: pa.Table) -> _Columns:
        types = table["variant_type"].to_numpy()
        changes = pc.binary_join_element_wise(table["ref"], table["alt"], "").to_numpy()
        transition = (types == SNV) & np.isin(changes, TRANSITIONS)
        return cls(types, table["zygosity"].to_numpy(), size_bins(table["ref"], table["alt"]), transition)


def _shape(columns: _Columns, rows: Bools) -> dict[str, Any]:
    types, zygosity, sizes = columns.types[rows], columns.zygosity[rows], columns.sizes[rows]
    transitions = int(columns.transition[rows].sum())
    transversions = int((types == SNV).sum()) - transitions
    heterozygous, homozygous = (int((zygosity == name).sum()) for name in ("heterozygous", "homozygous"))
    return {
        "alleles": int(rows.sum()),
        "types": {name: int((types == name).sum()) for name in TYPES},
        "sizes": {name: int((sizes == place).sum()) for place, name in enumerate(SIZES)},
        "transitions": transitions,
        "transversions": transversions,
        "ti_tv": _ratio(transitions, transversions),
        "heterozygous": heterozygous,
        "homozygous": homozygous,
        "het_hom": _ratio(heterozygous, homozygous),
    }


def _ratio(part: int, other: int) -> float | None:
    return round(part / other, 4) if other else None
