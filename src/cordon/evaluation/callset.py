"""What a set of calls looks like before and after each filter, with no truth needed.

These are exact counts of a site's samples: they are not differentially private and stay at the site.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cordon.arrays import Bools
from cordon.calls.callers import CALLERS
from cordon.evaluation.filters import filters
from cordon.variants.context import TRANSITIONS
from cordon.variants.strata import SIZES, SNV, TYPES, Bins, agreements, fewer_first, size_bins
from cordon.variants.table import VARIANTS, read_batches, without_features

# A purine for a purine or a pyrimidine for a pyrimidine. All other substitutions of one base transvert.

_SCORED = without_features(VARIANTS).append(pa.field("cordon_pass", pa.bool_()))
_NEEDED = [
    "site", "sample", "ref", "alt", "callers", "variant_type", "zygosity", "cordon_pass",
    *(f"{caller}_pass" for caller in CALLERS),
]  # fmt: skip


def read_scored(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """What is described of scored tables (Parquet), in parts; UserError for one that is none."""
    for path in paths:
        for batch in read_batches(path, _SCORED):
            yield batch.select(_NEEDED)


def describe(tables: Iterable[pa.Table]) -> dict[str, Any]:
    """The content of callset.json: what callers agree on, and every filter's Ti/Tv and het/hom.

    ``ti_tv`` is transitions over transversions of SNVs, about 2.0 to 2.1 over a human genome and higher in
    exomes; false calls, which are near random, pull it towards 0.5. ``het_hom`` is heterozygous over
    homozygous alleles. Both are null without a denominator.
    """
    samples, called, passing = set[str](), Counter[str](), Counter[str]()
    kept: dict[str, Counter[str]] = defaultdict(Counter)
    for table in tables:
        samples |= {*pc.unique(pc.binary_join_element_wise(table["site"], table["sample"], "/")).to_pylist()}
        columns, filtered = _Columns.of(table), filters(table)
        for name, rows in filtered.items():
            kept[name].update(_counts(columns, rows))
        for name in agreements(table):
            rows = pc.equal(table["callers"], name).to_numpy()
            called[name] += int(rows.sum())
            passing[name] += int((rows & filtered["cordon"]).sum())
    return {
        "samples": len(samples),
        "alleles": kept["no filter"]["alleles"],
        "callers": [
            {"callers": name.split(";"), "alleles": called[name], "pass": passing[name]}
            for name in fewer_first(called)
        ],
        "filters": [{"name": name, **_shape(kept[name])} for name in _FILTERS if name in kept],
    }


# In the order in which they are told.
_FILTERS = (
    "no filter", *(f"{caller}{kind}" for caller in CALLERS for kind in (" unfiltered", "")), "cordon",
)  # fmt: skip


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


def _counts(columns: _Columns, rows: Bools) -> dict[str, int]:
    types, zygosity, sizes = columns.types[rows], columns.zygosity[rows], columns.sizes[rows]
    zygosities = {name: int((zygosity == name).sum()) for name in ("heterozygous", "homozygous")}
    return {
        "alleles": int(rows.sum()), "transitions": int(columns.transition[rows].sum()), **zygosities,
        **{name: int((types == name).sum()) for name in TYPES},
        **{name: int((sizes == place).sum()) for place, name in enumerate(SIZES)},
    }  # fmt: skip


def _shape(counts: Counter[str]) -> dict[str, Any]:
    transversions = counts[SNV] - counts["transitions"]
    return {
        "alleles": counts["alleles"],
        "types": {name: counts[name] for name in TYPES},
        "sizes": {name: counts[name] for name in SIZES},
        "transitions": counts["transitions"],
        "transversions": transversions,
        "ti_tv": _ratio(counts["transitions"], transversions),
        "heterozygous": counts["heterozygous"],
        "homozygous": counts["homozygous"],
        "het_hom": _ratio(counts["heterozygous"], counts["homozygous"]),
    }


def _ratio(part: int, other: int) -> float | None:
    return round(part / other, 4) if other else None
