"""What callers and Cordon say of the alleles of a variant table: scores and filters, one element a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cordon.arrays import Bools, Floats
from cordon.calls.callers import CALLERS


def caller_scores(table: pa.Table) -> dict[str, Floats]:
    """Each caller's QUAL and QD as scores of all rows, higher meaning more likely real.

    An allele that a caller did not call ranks below every allele that it called, and one that it called
    without a QD ranks between: a caller's silence is its strongest statement that an allele is not real.
    """
    scores: dict[str, Floats] = {}
    for caller in _callers(table):
        called = _called(table, caller)
        for kind in ("qual", "qd"):
            values = floats(table, f"{caller}_{kind}")
            known = called & np.isfinite(values)
            if known.any():
                floor = values[known].min()
                scores[f"{caller} {kind.upper()}"] = np.where(
                    known, values, np.where(called, floor - 1, floor - 2)
                )
    return scores


def filters(table: pa.Table) -> dict[str, Bools]:
    """What each filter keeps [n]: the union of all callers, each caller without and with its own filter,
    and where the table has them Cordon's PASS, and PASS or review.
    """
    kept = {"no filter": np.ones(table.num_rows, dtype=np.bool_)}
    for caller in _callers(table):
        kept[f"{caller} unfiltered"] = _called(table, caller)
        kept[caller] = _called(table, caller) & _bools(table, f"{caller}_pass")
    if "cordon_pass" in table.schema.names:
        kept["cordon"] = _bools(table, "cordon_pass")
    if "cordon_review" in table.schema.names:
        kept["cordon review"] = kept["cordon"] | _bools(table, "cordon_review")
    return kept


def floats(table: pa.Table, name: str) -> Floats:
    """A column of numbers as float64 [n], NaN for null."""
    return np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _callers(table: pa.Table) -> list[str]:
    return [caller for caller in CALLERS if _called(table, caller).any()]


def _called(table: pa.Table, caller: str) -> Bools:
    called: Bools = pc.match_substring_regex(table["callers"], f"(^|;){caller}(;|$)").to_numpy()
    return called


def _bools(table: pa.Table, name: str) -> Bools:
    """A bool column with False for null."""
    return np.array(table[name].fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)
